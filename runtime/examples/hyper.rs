//! hyper 1 on Annulus, HTTP/1.1: `hyper [ADDR] [CPULIST]`, `127.0.0.1:7000` on all CPUs by default.
//!
//! `GET /` answers 1 KiB, `POST /echo` what it was sent. SIGTERM or Ctrl-C ends it: no client is let in any
//! more, idle connections are closed, and requests under way have ten seconds.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use annulus::channel::bounded;
use annulus::compat::{HyperTimer, Io};
use annulus::net::{TcpListener, TcpStream};
use annulus::numa::plan::CoreSelection;
use annulus::signal::{Signal, Signals, block_before_threads};
use annulus::time::timeout;
use annulus::{Runtime, cores};
use futures_util::future::{Either, select};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};

static HELLO: [u8; 1024] = [b'.'; 1024];
const ENDS: [Signal; 2] = [Signal::INTERRUPT, Signal::TERMINATE];
/// How long requests that are under way may take when the end is asked for.
const GRACE: Duration = Duration::from_secs(10);

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

/// Serves one connection to its end, or until the runtime is asked to stop: then what is under way is
/// answered, and no more.
async fn serve(stream: TcpStream) {
    let mut http = http1::Builder::new();
    let connection = http.timer(HyperTimer).serve_connection(Io::new(stream), service_fn(answer));
    let mut connection = pin!(connection);
    let ended = match select(connection.as_mut(), pin!(cores::stopping())).await {
        Either::Left((ended, _)) => ended,
        Either::Right(_) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(e) = ended {
        eprintln!("a connection failed: {e}");
    }
}

/// Asks all cores to stop when a signal comes.
async fn stop_on_signal() -> annulus::Result<()> {
    let signal = Signals::new(&ENDS)?.recv().await?;
    eprintln!("ending: {signal}");
    cores::handle().stop();
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let address: SocketAddr = args.next().unwrap_or_else(|| "127.0.0.1:7000".to_owned()).parse()?;
    let cores: CoreSelection = args.next().unwrap_or_else(|| "all".to_owned()).parse()?;
    block_before_threads(&ENDS)?;

    Runtime::builder().cores(cores).build()?.run(move || async move {
        let listener = TcpListener::bind(address)?;
        let mut signal = None;
        if cores::index() == 0 {
            signal = Some(annulus::spawn(stop_on_signal()));
            eprintln!("listening on {}", listener.local_addr());
        }
        // Nothing is ever sent: the receiver is told when the last connection has dropped its sender.
        let (open, mut all_closed) = bounded::<Infallible>(1);
        while let Either::Left((stream, _)) = select(pin!(listener.accept()), pin!(cores::stopping())).await {
            let (stream, open) = (stream?, open.clone());
            annulus::spawn(async move {
                serve(stream).await;
                drop(open);
            })
            .detach();
        }
        drop((listener, open, signal));
        if timeout(GRACE, all_closed.recv()).await.is_err() {
            eprintln!("core {}: connections are cut off", cores::index());
        }
        Ok(())
    })?;
    Ok(())
}
