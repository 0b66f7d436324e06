//! TLS by rustls: an echo server, `tls_echo ADDR CPULIST CERTIFICATE KEY`, such as
//! `tls_echo 127.0.0.1:7000 all server.pem server.key`.
//!
//! It speaks the protocol `echo` (ALPN, RFC 7301), and nothing else with who names another. `openssl s_client
//! -connect 127.0.0.1:7000 -alpn echo` is a client of it. The page `annulus::guide::tls` says more.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use annulus::Runtime;
use annulus::compat::Io;
use annulus::net::{TcpListener, TcpStream};
use annulus::numa::plan::CoreSelection;
use annulus::time::timeout;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// How long a client may take to agree on keys.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// The certificates of a file, the server's own first, and the key of another.
fn configured(certificates: &str, key: &str) -> Result<ServerConfig, Box<dyn Error>> {
    let certificates = CertificateDer::pem_file_iter(certificates)?.collect::<Result<_, _>>()?;
    let key = PrivateKeyDer::from_pem_file(key)?;
    let mut config = ServerConfig::builder().with_no_client_auth().with_single_cert(certificates, key)?;
    config.alpn_protocols = vec![b"echo".to_vec()];
    Ok(config)
}

async fn serve(stream: TcpStream, acceptor: TlsAcceptor) -> Result<(), Box<dyn Error>> {
    let mut stream = timeout(HANDSHAKE, acceptor.accept(Io::new(stream))).await??;
    // A record of TLS has 16 KiB at most.
    let mut buf = vec![0; 16 << 10];
    loop {
        let n = stream.read(&mut buf).await?;
        if n == 0 {
            // `close_notify`, and the end of the stream behind it.
            return Ok(stream.shutdown().await?);
        }
        stream.write_all(&buf[..n]).await?;
        stream.flush().await?;
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, cores, certificates, key] =
        <[String; 4]>::try_from(arguments).map_err(|_| "usage: tls_echo ADDR CPULIST CERTIFICATE KEY")?;
    let address: SocketAddr = address.parse()?;
    let cores: CoreSelection = cores.parse()?;
    // One for all cores: a client that comes back may resume its session on any of them.
    let acceptor = TlsAcceptor::from(Arc::new(configured(&certificates, &key)?));

    Runtime::builder().cores(cores).build()?.run(move || {
        let acceptor = acceptor.clone();
        async move {
            let listener = TcpListener::bind(address)?;
            if annulus::cores::index() == 0 {
                eprintln!("listening on {}", listener.local_addr());
            }
            loop {
                let (stream, acceptor) = (listener.accept().await?, acceptor.clone());
                annulus::spawn(async move {
                    if let Err(e) = serve(stream, acceptor).await {
                        eprintln!("a connection failed: {e}");
                    }
                })
                .detach();
            }
        }
    })?;
    Ok(())
}
