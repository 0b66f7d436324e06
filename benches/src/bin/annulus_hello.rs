//! The HTTP responder of the bare servers, written on Annulus: what the runtime costs above the ring.

use annulus::Runtime;
use annulus::net::{TcpListener, TcpStream};
use annulus_benches::bare::{HeadCounter, response_head};
use annulus_benches::{pattern, size};
use clap::Parser;

/// Answers every request on every path with the same bytes, on one core.
#[derive(Parser)]
struct Args {
    /// The CPU to run on
    #[arg(long)]
    cpu: u32,
    /// Bytes of the body
    #[arg(long, default_value = "1k", value_parser = size::parse_size)]
    body: u64,
}

fn main() -> annulus::Result<()> {
    let args = Args::parse();
    let mut answer = response_head(args.body);
    answer.extend(pattern::bytes(args.body as usize));
    let answer: &'static [u8] = answer.leak();
    Runtime::builder().cores(args.cpu.to_string().parse()?).build()?.run(move || async move {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        eprintln!("listening on {}", listener.local_addr());
        loop {
            annulus::spawn(answer_all(listener.accept().await?, answer)).detach();
        }
    })
}

async fn answer_all(stream: TcpStream, answer: &'static [u8]) -> annulus::Result<()> {
    let mut heads = HeadCounter::default();
    while let Some(chunk) = stream.recv().await? {
        let asked = heads.feed(&chunk);
        drop(chunk);
        for _ in 0..asked {
            stream.send_all(answer).await?;
        }
    }
    Ok(())
}
