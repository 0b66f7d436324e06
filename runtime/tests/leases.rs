//! Leases that are the last thing left of a runtime. In a program of its own, so that nothing else is mapped
//! where the region was.

mod common;

use std::io::Write;
use std::net::TcpStream as Std;
use std::thread;

use annulus::net::TcpListener;
use common::on_one_core;

/// Whether the address is mapped, as /proc/self/maps tells.
fn is_mapped(address: usize) -> bool {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines().any(|line| {
        let (from, to) = line.split_once(' ').unwrap().0.split_once('-').unwrap();
        let hex = |s| usize::from_str_radix(s, 16).unwrap();
        (hex(from)..hex(to)).contains(&address)
    })
}

/// Seen to fail: with `Owner::close` not counting the blocks that are out, the process dies of it; with
/// the region leaked it is still mapped at the end.
#[test]
fn the_region_lives_as_long_as_the_last_lease_and_no_longer() {
    let (first, mut second) = on_one_core(|| async {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let mut client = Std::connect(listener.local_addr()).unwrap();
        let stream = listener.accept().await?;
        client.write_all(b"first").unwrap();
        let first = stream.recv().await?.expect("bytes");
        client.write_all(b"second").unwrap();
        Ok((first, stream.recv().await?.expect("bytes")))
    });
    let address = first.as_ptr().addr();
    let third = second.split_to(3);
    for lease in [first, second] {
        let last = thread::spawn(move || lease.len()).join().unwrap();
        assert!((3..=5).contains(&last));
        assert!(is_mapped(address), "unmapped while a lease is held");
    }
    assert_eq!(&*third, b"sec");
    thread::spawn(move || drop(third)).join().unwrap();
    assert!(!is_mapped(address), "the last lease has gone and the region is still mapped");
}
