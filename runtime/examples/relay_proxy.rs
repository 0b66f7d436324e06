//! A TCP proxy in thirty lines: `relay_proxy LISTEN UPSTREAM`, such as `127.0.0.1:7000 localhost:80`. Bulk is
//! not copied: it goes from one socket to the other by `splice(2)`, and small messages out of the buffer that
//! they came in. A client whose upstream cannot be reached is closed.

use annulus::Runtime;
use annulus::net::{TcpListener, TcpStream};
use annulus::transfer::{Road, relay};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [listen, upstream] =
        <[String; 2]>::try_from(arguments).map_err(|_| "usage: relay_proxy LISTEN UPSTREAM")?;
    Runtime::builder().build()?.run(move || {
        let (listen, upstream) = (listen.clone(), upstream.clone());
        async move {
            let listener = TcpListener::bind(listen.as_str())?;
            if annulus::cores::index() == 0 {
                eprintln!("listening on {}", listener.local_addr());
            }
            loop {
                let (client, upstream) = (listener.accept().await?, upstream.clone());
                annulus::spawn(async move {
                    let server = TcpStream::connect(upstream).await?;
                    relay(client, server, Road::default()).await.result
                })
                .detach();
            }
        }
    })?;
    Ok(())
}
