//! A server that is not run for a while.

use super::Server;
use crate::watch;
use rustix::process::Signal;

/// Stopped, the server's cores do not run; they go on when this is dropped.
pub struct Stopped<'a>(&'a Server);

impl<'a> Stopped<'a> {
    /// Stops it, and waits until it is stopped.
    #[track_caller]
    pub fn new(server: &'a Server) -> Stopped<'a> {
        server.signal(Signal::STOP);
        watch::until("it is stopped", || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", server.pid())).expect("it lives");
            stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T')).then_some(())
        });
        Stopped(server)
    }
}

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        self.0.signal(Signal::CONT);
    }
}
