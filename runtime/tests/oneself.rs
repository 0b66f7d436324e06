//! Connecting to a local port that nobody listens on, from that port: TCP lets the two ends of one socket
//! meet (simultaneous open, RFC 9293 section 3.5), and whoever sends would receive its own bytes.

mod common;

use std::net::{SocketAddr, TcpListener as StdListener};

use annulus::ErrorKind;
use annulus::net::TcpStream;
use common::on_one_core;

/// A port of loopback that nobody listens on; free when this returns.
fn unused(address: &str) -> SocketAddr {
    StdListener::bind((address, 0)).unwrap().local_addr().unwrap()
}

/// The kernel does connect a socket to itself when it is bound to the very address that it connects to, each
/// time. Without that it happens by chance, when the port it picks is the one that was asked for.
///
/// Seen to fail: without the look at both ends each connect returns a stream that receives what it sends.
#[test]
fn a_connection_whose_two_ends_are_one_is_refused() {
    on_one_core(|| async {
        for address in ["127.0.0.1", "::1"] {
            let oneself = unused(address);
            let refused = TcpStream::connect_from(oneself, oneself).await.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Io, "{refused}");
            let cause = refused.io_error().map(std::io::Error::kind);
            assert_eq!(cause, Some(std::io::ErrorKind::ConnectionRefused), "{refused}");
            let told = refused.to_string();
            assert!(told.contains(&oneself.to_string()) && told.contains("itself"), "{told}");
            // It is closed, and whoever is to listen there can: nothing is left in TIME_WAIT.
            let listener = StdListener::bind(oneself).unwrap();
            let stream = TcpStream::connect(oneself).await?;
            assert_eq!(stream.local_addr()?, listener.accept().unwrap().1);
        }
        Ok(())
    });
}
