//! hyper 1 on Annulus, HTTP/1.1: `hyper [ADDR] [CPULIST]`, `127.0.0.1:7000` on all CPUs by default.
//!
//! `GET /` answers 1 KiB, `POST /echo` what it was sent.

use std::convert::Infallible;
use std::net::SocketAddr;

use annulus::compat::{HyperTimer, Io};
use annulus::numa::plan::CoreSelection;
use annulus::{Runtime, net::TcpListener};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};

static HELLO: [u8; 1024] = [b'.'; 1024];

async fn answer(request: Request<Incoming>) -> Result<Response<BoxBody<Bytes, hyper::Error>>, Infallible> {
    let whole = |bytes: &'static [u8]| Full::new(Bytes::from_static(bytes)).map_err(|e| match e {}).boxed();
    let (status, body) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/") => (StatusCode::OK, whole(&HELLO)),
        (&Method::POST, "/echo") => (StatusCode::OK, request.into_body().boxed()),
        _ => (StatusCode::NOT_FOUND, whole(b"nothing here\n")),
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    Ok(response)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let address: SocketAddr = args.next().unwrap_or_else(|| "127.0.0.1:7000".to_owned()).parse()?;
    let cores: CoreSelection = args.next().unwrap_or_else(|| "all".to_owned()).parse()?;

    Runtime::builder().cores(cores).build()?.run(move || async move {
        let listener = TcpListener::bind(address)?;
        if annulus::core::index() == 0 {
            eprintln!("listening on {}", listener.local_addr());
        }
        loop {
            let stream = listener.accept().await?;
            annulus::spawn(async move {
                let mut http = http1::Builder::new();
                let connection = http.timer(HyperTimer).serve_connection(Io::new(stream), service_fn(answer));
                if let Err(e) = connection.await {
                    eprintln!("a connection failed: {e}");
                }
            })
            .detach();
        }
    })?;
    Ok(())
}
