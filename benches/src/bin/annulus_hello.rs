//! The HTTP responder of the bare servers, written on Annulus: what the runtime costs above the ring.

use annulus::Runtime;
use annulus::net::{TcpListener, TcpStream};
use annulus_benches::answer_args::AnswerArgs;
use annulus_benches::bare::{HeadCounter, response_head};
use annulus_benches::pattern;
use clap::Parser;

fn main() -> annulus::Result<()> {
    let args = AnswerArgs::parse();
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
