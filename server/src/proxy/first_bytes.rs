//! What an upstream is sent before the relay begins: a PROXY header, and what had to be read of a client to
//! choose the upstream. It is 32 KiB at most, and an upstream that takes nothing must not hold its client for
//! good.

use std::fmt;
use std::time::Duration;

use annulus::time::timeout;

use super::connect::Server;

/// Why an upstream did not take them.
#[derive(Debug)]
pub(super) enum Broken {
    Failed(annulus::Error),
    Idle,
}

impl Broken {
    /// As the access log has it.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Broken::Failed(_) => "upstream failed",
            Broken::Idle => "idle timeout",
        }
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Broken::Failed(error) => error.fmt(f),
            Broken::Idle => f.write_str("the upstream does not take the first bytes"),
        }
    }
}

/// Sends `head`, within `limit` if there is one. After an error the connection is fit for a reset only.
pub(super) async fn send(server: &Server, head: Vec<u8>, limit: Option<Duration>) -> Result<(), Broken> {
    if head.is_empty() {
        return Ok(());
    }
    let sending = async {
        match server {
            Server::Tcp(server) => server.send_all(head).await,
            Server::Unix(server) => server.send_all(head).await,
        }
    };
    let sent = match limit {
        Some(limit) => timeout(limit, sending).await.map_err(|_| Broken::Idle)?,
        None => sending.await,
    };
    sent.map(drop).map_err(|failed| Broken::Failed(failed.error))
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use annulus::Runtime;

    use super::*;

    fn on_a_core(test: impl AsyncFnOnce(Server, UnixStream) + Send + 'static) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        rustix::net::sockopt::set_socket_send_buffer_size(&ours, 4096).unwrap();
        let runtime = Runtime::builder().most_cores(1).build().unwrap();
        runtime
            .block_on(async move || {
                let server = annulus::net::UnixStream::from_std(ours).unwrap();
                test(Server::Unix(server), theirs).await;
            })
            .unwrap();
    }

    /// Seen to fail: without the limit the test does not end.
    #[test]
    fn an_upstream_that_takes_nothing_is_given_up() {
        on_a_core(async |server, _theirs| {
            let sent = send(&server, vec![b'x'; 32 << 10], Some(Duration::from_millis(20))).await;
            assert!(matches!(sent, Err(Broken::Idle)), "{sent:?}");
        });
    }

    #[test]
    fn an_upstream_that_is_gone_is_no_idle_one() {
        on_a_core(async |server, theirs| {
            drop(theirs);
            let sent = send(&server, vec![b'x'; 32 << 10], None).await;
            assert!(matches!(sent, Err(Broken::Failed(_))), "{sent:?}");
        });
    }

    #[test]
    fn they_come_whole() {
        on_a_core(async |server, mut theirs| {
            let reader = std::thread::spawn(move || {
                let mut got = vec![0; 32 << 10];
                theirs.read_exact(&mut got).map(|()| got)
            });
            send(&server, vec![b'x'; 32 << 10], Some(Duration::from_secs(60))).await.unwrap();
            assert!(reader.join().unwrap().unwrap().iter().all(|byte| *byte == b'x'));
        });
    }
}
