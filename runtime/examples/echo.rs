//! A TCP echo server: `echo [ADDR] [CPULIST]`, `127.0.0.1:7000` on all CPUs by default.

use std::net::SocketAddr;

use annulus::numa::plan::CoreSelection;
use annulus::{Runtime, net::TcpListener};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let address: SocketAddr = args.next().unwrap_or_else(|| "127.0.0.1:7000".to_owned()).parse()?;
    let cores: CoreSelection = args.next().unwrap_or_else(|| "all".to_owned()).parse()?;

    Runtime::builder().cores(cores).build()?.run(move || async move {
        let listener = TcpListener::bind(address)?;
        if annulus::cores::index() == 0 {
            eprintln!("listening on {}", listener.local_addr());
        }
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
    })?;
    Ok(())
}
