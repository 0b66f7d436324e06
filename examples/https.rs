//! HTTP/1.1 and HTTP/2 over TLS, by hyper and rustls: `https ADDR CPULIST CERTIFICATE KEY`, such as
//! `https 127.0.0.1:7443 all server.pem server.key`.
//!
//! ALPN (RFC 7301) chooses: `h2` where the client knows it, else HTTP/1.1. `GET /` answers 1 KiB, `POST
//! /echo` what it was sent. SIGTERM or Ctrl-C ends it: no client is let in any more, idle connections are
//! closed, and requests under way have ten seconds.

use std::convert::Infallible;
use std::error::Error;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use annulus::compat::{HyperExecutor, HyperOverTokio, HyperTimer, Io};
use annulus::net::{TcpListener, TcpStream};
use annulus::numa::plan::CoreSelection;
use annulus::signal::{Signal, Signals, block_before_threads};
use annulus::time::timeout;
use annulus::{Runtime, TaskTracker, cores};
use futures_util::future::{Either, select};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

static HELLO: [u8; 1024] = [b'.'; 1024];
const ENDS: [Signal; 2] = [Signal::INTERRUPT, Signal::TERMINATE];
/// How long a client may take to agree on keys.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// After so long without a word a client of HTTP/2 is asked whether it is still there.
const SILENCE: Duration = Duration::from_secs(20);
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

/// Serves to the end, or until the runtime is asked to stop: then what is under way is answered, and no more.
async fn to_its_end<C>(connection: C, finish: impl FnOnce(Pin<&mut C>)) -> hyper::Result<()>
where
    C: Future<Output = hyper::Result<()>>,
{
    let mut connection = pin!(connection);
    match select(connection.as_mut(), pin!(cores::stopping())).await {
        Either::Left((ended, _)) => ended,
        Either::Right(_) => {
            finish(connection.as_mut());
            connection.await
        }
    }
}

async fn serve(stream: TcpStream, acceptor: TlsAcceptor) -> Result<(), Box<dyn Error>> {
    let stream = timeout(HANDSHAKE, acceptor.accept(Io::new(stream))).await??;
    let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let stream = HyperOverTokio(stream);
    if is_h2 {
        let mut http = http2::Builder::new(HyperExecutor);
        http.timer(HyperTimer).keep_alive_interval(Some(SILENCE));
        to_its_end(http.serve_connection(stream, service_fn(answer)), |c| c.graceful_shutdown()).await?;
    } else {
        let mut http = http1::Builder::new();
        http.timer(HyperTimer);
        to_its_end(http.serve_connection(stream, service_fn(answer)), |c| c.graceful_shutdown()).await?;
    }
    Ok(())
}

/// Asks all cores to stop when a signal comes.
async fn stop_on_signal() -> annulus::Result<()> {
    Signals::new(&ENDS)?.recv().await?;
    cores::handle().stop();
    Ok(())
}

/// What a core does: lets clients in until the end is asked for, and then waits for those that are served.
async fn core(address: SocketAddr, acceptor: TlsAcceptor) -> annulus::Result<()> {
    let listener = TcpListener::bind(address)?;
    let mut signal = None;
    if cores::index() == 0 {
        signal = Some(annulus::spawn(stop_on_signal()));
        eprintln!("listening on {}", listener.local_addr());
    }
    let clients = TaskTracker::new();
    while let Either::Left((stream, _)) = select(pin!(listener.accept()), pin!(cores::stopping())).await {
        let (stream, acceptor) = (stream?, acceptor.clone());
        clients.spawn(async move {
            if let Err(e) = serve(stream, acceptor).await {
                eprintln!("a connection failed: {e}");
            }
        });
    }
    drop((listener, signal));
    if timeout(GRACE, clients.all_ended()).await.is_err() {
        eprintln!("core {}: connections are cut off", cores::index());
        clients.abort_all();
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, cores, certificates, key] =
        <[String; 4]>::try_from(arguments).map_err(|_| "usage: https ADDR CPULIST CERTIFICATE KEY")?;
    let address: SocketAddr = address.parse()?;
    let cores: CoreSelection = cores.parse()?;
    let certificates = CertificateDer::pem_file_iter(certificates)?.collect::<Result<_, _>>()?;
    let key = PrivateKeyDer::from_pem_file(key)?;
    let mut config = ServerConfig::builder().with_no_client_auth().with_single_cert(certificates, key)?;
    // Those that the server knows, the one that it likes best first.
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    block_before_threads(&ENDS)?;

    Runtime::builder().cores(cores).build()?.run(move || core(address, acceptor.clone()))?;
    Ok(())
}
