//! A client of HTTPS, by hyper and rustls: `https_get HOST:PORT PATH ROOTS`, such as
//! `https_get localhost:7443 / server.pem`. It trusts the certificates of the file ROOTS, and no others.
//!
//! The server chooses HTTP/2 or HTTP/1.1 (ALPN, RFC 7301). The body goes to standard output, the protocol and
//! the status to standard error.

use std::error::Error;
use std::future::Future;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use annulus::Runtime;
use annulus::compat::{HyperExecutor, HyperOverTokio, HyperTimer, Io};
use annulus::net::TcpStream;
use annulus::time::timeout;
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::{http1, http2};
use hyper::{Request, Response, Uri, header};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// How long it may take to connect and to agree on keys.
const PATIENCE: Duration = Duration::from_secs(10);

type Stream = TlsStream<Io<annulus::net::Tcp>>;

async fn connected(host: &str, authority: &str, roots: &str) -> Result<Stream, Box<dyn Error>> {
    let mut trusted = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(roots)? {
        trusted.add(certificate?)?;
    }
    let mut config = ClientConfig::builder().with_root_certificates(trusted).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let stream = TcpStream::connect(authority).await?;
    let name = ServerName::try_from(host.to_owned())?;
    Ok(TlsConnector::from(Arc::new(config)).connect(name, Io::new(stream)).await?)
}

/// Runs what hyper does for a connection, beside the requests on it.
fn drive(connection: impl Future<Output = hyper::Result<()>> + 'static) {
    annulus::spawn(async move {
        if let Err(e) = connection.await {
            eprintln!("the connection failed: {e}");
        }
    })
    .detach();
}

async fn get(stream: Stream, authority: &str, path: &str) -> Result<Response<Incoming>, Box<dyn Error>> {
    let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let stream = HyperOverTokio(stream);
    let request = Request::get(path);
    if is_h2 {
        // The whole URI: HTTP/2 has fields for its parts (RFC 9113, 8.3.1).
        let uri = Uri::builder().scheme("https").authority(authority).path_and_query(path).build()?;
        let (mut requests, connection) =
            http2::Builder::new(HyperExecutor).timer(HyperTimer).handshake(stream).await?;
        drive(connection);
        Ok(requests.send_request(request.uri(uri).body(Empty::<Bytes>::new())?).await?)
    } else {
        let (mut requests, connection) = http1::handshake(stream).await?;
        drive(connection);
        let request = request.header(header::HOST, authority);
        Ok(requests.send_request(request.body(Empty::<Bytes>::new())?).await?)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [authority, path, roots] =
        <[String; 3]>::try_from(arguments).map_err(|_| "usage: https_get HOST:PORT PATH ROOTS")?;

    let got = Runtime::builder().most_cores(1).build()?.block_on(async move || {
        let got = async {
            let host = authority.rsplit_once(':').ok_or("HOST:PORT without a port")?.0;
            let stream = timeout(PATIENCE, connected(host, &authority, &roots)).await??;
            let mut response = get(stream, &authority, &path).await?;
            eprintln!("{:?} {}", response.version(), response.status());
            while let Some(frame) = response.frame().await {
                if let Some(bytes) = frame?.data_ref() {
                    std::io::stdout().write_all(bytes)?;
                }
            }
            Ok::<_, Box<dyn Error>>(())
        };
        // The error need not be `Send`, but its text is.
        got.await.map_err(|e| e.to_string())
    })?;
    Ok(got?)
}
