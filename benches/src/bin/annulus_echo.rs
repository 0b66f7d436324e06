//! The TCP echo of the bare servers, written on Annulus: what the runtime costs above the ring.

use annulus::Runtime;
use annulus::net::TcpListener;
use clap::Parser;

/// Sends back what it receives, on one core.
#[derive(Parser)]
struct Args {
    /// The CPU to run on
    #[arg(long)]
    cpu: u32,
}

fn main() -> annulus::Result<()> {
    let args = Args::parse();
    Runtime::builder().cores(args.cpu.to_string().parse()?).build()?.run(|| async {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        eprintln!("listening on {}", listener.local_addr());
        loop {
            let stream = listener.accept().await?;
            annulus::spawn(async move {
                while let Some(chunk) = stream.recv().await? {
                    stream.send_all(chunk).await?;
                }
                annulus::Ok(())
            })
            .detach();
        }
    })
}
