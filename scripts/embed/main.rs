//! An application that embeds Annulus from outside its workspace: one core, one connection to itself, one message.
//! `scripts/test` builds and runs it, to show that what the linker needs travels with the crate.

use std::net::SocketAddr;

use annulus::net::{TcpListener, TcpStream};
use annulus::numa::CpuSet;
use annulus::numa::plan::CoreSelection;
use annulus::numa::topology::Topology;

fn main() -> annulus::Result<()> {
    let topology = Topology::discover()?;
    let first: CpuSet = topology.cpus().iter().map(|cpu| cpu.id).take(1).collect();

    annulus::Runtime::builder().cores(CoreSelection::List(first)).build()?.run(|| async {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        let client = TcpStream::connect(listener.local_addr()).await?;
        let served = listener.accept().await?;

        client.send_all("hello from outside the workspace").await?;
        let chunk = served.recv().await?;
        let heard = chunk.as_deref().unwrap_or_default();
        println!("heard: {}", String::from_utf8_lossy(heard));
        assert_eq!(heard, b"hello from outside the workspace");
        annulus::Result::Ok(())
    })
}
