//! The load driver by hand: checks the bytes of a server that runs already, then loads it.

use annulus_benches::drive::{Backend, Choice, Direction, Load};
use annulus_benches::pin::pin_current_thread;
use annulus_benches::{cputime, size};
use clap::{Parser, Subcommand};
use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;

/// Checks a server's bytes against the pattern, then loads it from one thread.
#[derive(Parser)]
struct Args {
    /// The CPU to run on
    #[arg(long, global = true, default_value_t = 1)]
    cpu: u32,
    /// Also print the CPU time that this process and its children spent
    #[arg(long, global = true)]
    pid: Option<u32>,
    /// Read bulk bytes instead of dropping them in the kernel
    #[arg(long, global = true)]
    copy: bool,
    /// Load without checking first
    #[arg(long, global = true)]
    unchecked: bool,
    /// Warm up with so many requests, say `ready`, begin at a byte on standard input, say `done`, and end at
    /// another byte
    #[arg(long, global = true, value_name = "REQUESTS")]
    in_step: Option<u64>,
    /// Where we listen as the server behind a relay
    #[arg(long, global = true, default_value = "127.0.0.1:0")]
    backend: SocketAddr,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// GET over keep-alive connections
    Http {
        server: SocketAddr,
        #[arg(long, default_value = "/")]
        path: String,
        #[arg(long, value_parser = size::parse_size)]
        body: u64,
        #[arg(long, default_value_t = 64)]
        connections: usize,
        #[arg(long, default_value_t = 10_000)]
        requests: u64,
    },
    /// GET of 10,000 files of 4 to 32 KiB, chosen by chance, as `compare many-zipf` and `many-uniform` do,
    /// which make the files
    Many {
        server: SocketAddr,
        /// By Zipf's law with this exponent; without it, each alike
        #[arg(long)]
        zipf: Option<f64>,
        #[arg(long, default_value_t = 64)]
        connections: usize,
        #[arg(long, default_value_t = 10_000)]
        requests: u64,
    },
    /// Messages that must come back
    Echo {
        server: SocketAddr,
        #[arg(long, default_value_t = 100)]
        size: usize,
        #[arg(long, default_value_t = 64)]
        connections: usize,
        #[arg(long, default_value_t = 10_000)]
        messages: u64,
        /// The server is a relay to --backend, where we send them back ourselves
        #[arg(long)]
        relayed: bool,
    },
    /// Bulk bytes through a relay, from and to ourselves
    Bulk {
        /// The relay, which must relay to --backend
        server: SocketAddr,
        #[arg(long, default_value = "down")]
        direction: Direction,
        #[arg(long, default_value_t = 1)]
        connections: usize,
        #[arg(long, default_value = "1g", value_parser = size::parse_size)]
        bytes: u64,
    },
}

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("drive: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> io::Result<()> {
    pin_current_thread(args.cpu)?;
    let backend = Backend::new(args.backend)?;
    let (server, load, work) = match args.what {
        What::Http { server, path, body, connections, requests } => {
            (server, Load::Http { path, body, connections }, requests)
        }
        What::Many { server, zipf, connections, requests } => {
            let choice = zipf.map_or(Choice::Uniform, Choice::Zipf);
            (server, Load::Many { choice, connections }, requests)
        }
        What::Echo { server, size, connections, messages, relayed } => {
            (server, Load::Echo { size, connections, relayed }, messages)
        }
        What::Bulk { server, direction, connections, bytes } => {
            (server, Load::Bulk { direction, connections }, bytes)
        }
    };
    let mut session = load.open(server, Some(&backend), args.copy)?;
    if !args.unchecked {
        session.verify()?;
    }
    if let Some(requests) = args.in_step {
        session.run(requests)?;
        step("ready")?;
    }
    let cpu = || args.pid.map(cputime::process_tree_ns).transpose();
    let before = cpu()?;
    let outcome = session.run(work)?;
    let after = cpu()?;
    if args.in_step.is_some() {
        step("done")?;
    }
    let seconds = outcome.wall.as_secs_f64();
    println!(
        "{} requests, {} bytes in {seconds:.3} s: {:.0} requests/s, {:.3} GB/s",
        outcome.requests,
        outcome.bytes,
        outcome.requests as f64 / seconds,
        outcome.bytes as f64 / 1e9 / seconds
    );
    if let (Some(before), Some(after)) = (before, after) {
        let ns = (after - before) as f64;
        println!(
            "CPU {:.3} us/request, {:.3} s/GB, busy {:.0}%",
            ns / 1e3 / outcome.requests as f64,
            ns / outcome.bytes as f64,
            ns / 1e7 / seconds
        );
    }
    Ok(())
}

/// Says how far we are, and waits for a byte. No more than that is read: the next may be for another driver.
fn step(far: &str) -> io::Result<()> {
    println!("{far}");
    match rustix::io::read(io::stdin(), &mut [0_u8])? {
        0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "nobody says when to go on")),
        _ => Ok(()),
    }
}
