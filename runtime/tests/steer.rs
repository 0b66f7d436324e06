//! A listener that prefers the connections of its CPU gets exactly those.

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use annulus::net::TcpListener;
use annulus::numa::thread::affinity_of_current;
use annulus::time::timeout;
use common::on_cores;
use rustix::thread::{CpuSet, sched_setaffinity};

const CONNECTIONS: usize = 12;

/// Whether a group of listeners heeds SO_INCOMING_CPU: Linux 6.2 (commit b261eda84ec1).
fn heeded() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse::<u32>().unwrap_or(0));
    (numbers.next(), numbers.next()) >= (Some(6), Some(2))
}

/// Seen to fail without `prefer_own_cpu`: by the hash, a core gets connections of the other CPU.
#[test]
fn connections_come_to_the_core_of_their_cpu() {
    let cpus: Vec<u32> = affinity_of_current().unwrap().iter().take(2).map(|cpu| cpu.0).collect();
    let &[first, second] = &cpus[..] else { return println!("one CPU: nothing to choose from") };
    if !heeded() {
        return println!("a kernel before 6.2: the option is taken and has no effect");
    }
    let all_listen = Arc::new(Barrier::new(2));
    let strangers = on_cores(&format!("{first},{second}"), all_listen, |all_listen| {
        let all_listen = Arc::clone(all_listen);
        async move {
            let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
            listener.prefer_own_cpu()?;
            let address = listener.local_addr();
            let own = affinity_of_current().unwrap().first().unwrap().0;
            let client = thread::spawn(move || {
                let mut cpu = CpuSet::new();
                cpu.set(own as usize);
                sched_setaffinity(None, &cpu).unwrap();
                all_listen.wait();
                for _ in 0..CONNECTIONS {
                    let mut stream = TcpStream::connect(address).unwrap();
                    // The other end may be the wrong core, which is gone: then the test fails for that.
                    let _ = stream.write_all(&own.to_ne_bytes());
                    let _ = stream.read(&mut [0]);
                }
            });
            let mut strangers = 0;
            for _ in 0..CONNECTIONS {
                let Ok(accepted) = timeout(Duration::from_secs(20), listener.accept()).await else {
                    strangers += 1;
                    break;
                };
                let stream = accepted?;
                let from = stream.recv().await?.expect("a client says where it is");
                if from[..] != own.to_ne_bytes() {
                    strangers += 1;
                }
            }
            Ok((strangers, client))
        }
    });
    for (strangers, client) in strangers {
        client.join().unwrap();
        assert_eq!(strangers, 0, "connections of another CPU, or none came");
    }
}
