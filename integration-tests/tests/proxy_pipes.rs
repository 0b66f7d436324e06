//! `annulus proxy` whose user has no pipes left. In a program of its own: what other tests give back would be
//! some.

use std::net::Shutdown;
use std::os::fd::OwnedFd;

use annulus_integration_tests::pattern::{self, Pattern};
use annulus_integration_tests::server::Launch;
use annulus_integration_tests::upstream::Upstream;
use annulus_integration_tests::{digest, net, stats};

/// Both ends of pipes that take up what their user may have, down to the last that is worth its calls.
fn hog_pipes() -> Vec<(OwnedFd, OwnedFd)> {
    use rustix::pipe::{fcntl_getpipe_size, fcntl_setpipe_size, pipe};
    let mut hog = Vec::new();
    // Root goes on past the bound, so the number is one too: 256 MiB.
    while hog.len() < 256 {
        let (read, write) = pipe().expect("a pipe");
        // Refused (`EPERM`) where there is less left, and then it keeps the size that it was made with.
        let _ = fcntl_setpipe_size(&write, 1 << 20);
        let size = fcntl_getpipe_size(&write).expect("its size");
        hog.push((read, write));
        if size < 64 << 10 {
            break;
        }
    }
    hog
}

/// Where the user's other programs have all pipes, bytes are copied, and the counters say so, and so does the
/// line of the slow connection.
///
/// Seen to fail: with a lack of pipes that ends the relay, with no pipe asked for, and with pipes that are
/// refused and not told of the connection.
#[test]
fn without_pipes_bytes_are_copied() {
    const LEN: u64 = 16 << 20;
    let upstream = Upstream::echo();
    let hog = hog_pipes();
    for road in ["inline", "ring"] {
        // Root is above the bound unless these are taken away.
        let wrapper = match rustix::process::geteuid().is_root() {
            true => vec!["setpriv", "--inh-caps=-all", "--bounding-set=-sys_resource,-sys_admin"],
            false => vec!["env"],
        };
        let server = Launch::proxy(upstream.addr())
            .road(road)
            .args(["--stats", "--slow", "1"])
            .under(&wrapper)
            .start();
        let client = net::connect(server.addr()).expect("connecting");
        let came = std::thread::scope(|scope| {
            scope.spawn(|| {
                pattern::write_to(&mut &client, 1, LEN).expect("sending");
                client.shutdown(Shutdown::Write).expect("ending our side");
            });
            digest::of_reader(&mut &client).expect("the echo")
        });
        assert_eq!(came, Pattern::sum(1, LEN), "by {road}");
        let ended = server.stop();
        let is_told =
            |line: &String| line.contains("annulus::slow: ") && line.contains("times there was no pipe");
        assert!(ended.err.iter().any(is_told), "{ended:#?}");
        let stats = stats::of(&ended);
        assert!(stats.total("pipes_refused") > 0, "there were pipes: {stats:?}");
        assert_eq!(stats.total("relay_bytes_copied"), 2 * LEN, "{stats:?}");
    }
    drop(hog);
}
