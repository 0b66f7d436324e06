//! hyper on Annulus, with the answer of the other hyper contestant.

use annulus::Runtime;
use annulus::compat::Io;
use annulus::net::TcpListener;
use annulus_benches::answer_args::AnswerArgs;
use annulus_benches::pattern;
use clap::Parser;
use http_body_util::Full;
use hyper::Response;
use hyper::body::Bytes;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use std::convert::Infallible;

fn main() -> annulus::Result<()> {
    let args = AnswerArgs::parse();
    let body = Bytes::from(pattern::bytes(args.body as usize));
    Runtime::builder().cores(args.cpu.to_string().parse()?).build()?.run(move || {
        let body = body.clone();
        async move {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            eprintln!("listening on {}", listener.local_addr());
            loop {
                let (stream, body) = (listener.accept().await?, body.clone());
                annulus::spawn(async move {
                    let answer = service_fn(move |_| {
                        let response = Response::new(Full::new(body.clone()));
                        async move { Ok::<_, Infallible>(response) }
                    });
                    // How a client leaves is its own affair.
                    let _ = http1::Builder::new().serve_connection(Io::new(stream), answer).await;
                })
                .detach();
            }
        }
    })
}
