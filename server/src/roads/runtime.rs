//! The runtime's two roads for a file, on one core.

use std::fs::File;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use annulus::transfer::{Road, send_file};
use annulus::{Runtime, numa};

use super::figures::{Clock, Figures};
use super::receiver::Receiver;
use crate::exit::Failure;

/// Sends the first `size` bytes of `file` so many times over one connection. What it takes to start a core is
/// not counted.
///
/// # Errors
/// A core cannot be had, or the connection failed.
pub(super) fn measure(
    road: Road,
    file: &File,
    receiver: Receiver,
    size: u64,
    times: u64,
) -> Result<Figures, Failure> {
    let allowed = numa::thread::affinity_of_current()?;
    let cpu = allowed.first().ok_or_else(|| Failure::failed("cannot choose a core", "no CPU is allowed"))?;
    let cores = cpu.to_string().parse().map_err(|error| Failure::failed("cannot choose a core", error))?;
    let runtime = Runtime::builder().cores(cores).pool_bytes(4 << 20).build()?;
    let file = file.try_clone().map_err(|error| Failure::failed("cannot share a file", error))?;
    let shared = Arc::new(Mutex::new(Some((OwnedFd::from(file), receiver))));
    let figures = Arc::new(Mutex::new(None));
    let out = Arc::clone(&figures);
    runtime.run(move || {
        let taken = shared.lock().unwrap_or_else(PoisonError::into_inner).take();
        let out = Arc::clone(&out);
        async move {
            let Some((file, receiver)) = taken else { return Ok(()) };
            let file = annulus::fs::File::from_fd(file);
            let stream = annulus::net::TcpStream::connect(receiver.address).await?;
            let clock = Clock::start();
            for _ in 0..times {
                send_file(&stream, &file, 0..size, road).await?;
            }
            stream.shutdown(Shutdown::Write)?;
            while stream.recv().await?.is_some() {}
            // The receiver has closed, so this is over at once.
            let figures = clock.stop(size * times, receiver.used());
            *out.lock().unwrap_or_else(PoisonError::into_inner) = Some(figures);
            Ok(())
        }
    })?;
    let figures = figures.lock().unwrap_or_else(PoisonError::into_inner).take();
    figures.ok_or_else(|| Failure::failed("cannot measure", "the core ended before"))
}
