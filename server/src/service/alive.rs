//! Whether the cores of this process are alive: each is asked to run a closure.

use std::future::Future;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use annulus::Handle;

/// The time between two attempts to ask a core whose inbox is full.
const AGAIN: Duration = Duration::from_millis(50);

/// Whether every core runs the closure within `time`. A core that is in one poll for longer, that is stopped,
/// or that waits in a system call does not. A core that has ended is not stuck. Returns as soon as the answer
/// is known. Do not call it on a core, which would wait for itself.
pub(crate) fn are_alive(cores: &Handle, time: Duration) -> bool {
    let (tell, told) = channel();
    let ask = |core| {
        let tell = tell.clone();
        Box::pin(cores.submit_to(core, async move || {
            // A late answer has no receiver.
            let _ = tell.send(());
        }))
    };
    let mut asked: Vec<_> = (0..cores.cores()).map(ask).collect();
    drop(tell);
    let deadline = Instant::now() + time;
    loop {
        // The first poll asks. A core that has ended drops the question.
        asked.retain_mut(|question| {
            question.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending()
        });
        let left = deadline.saturating_duration_since(Instant::now());
        match told.recv_timeout(left.min(AGAIN)) {
            Ok(()) => {}
            // Every question has been answered or dropped.
            Err(RecvTimeoutError::Disconnected) => return true,
            Err(RecvTimeoutError::Timeout) if left.is_zero() => return false,
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use annulus::Runtime;

    use super::*;

    #[test]
    fn a_core_that_runs_nothing_is_not_alive_and_one_that_has_ended_is_not_stuck() {
        let runtime = Runtime::builder().most_cores(2).pool_bytes(1 << 20).build().unwrap();
        let running = runtime.start(|| async {
            annulus::cores::stopping().await;
            annulus::Ok(())
        });
        let running = running.unwrap();
        let cores = running.handle();
        assert!(are_alive(&cores, Duration::from_secs(60)));
        // Core 0 is kept until it has been found out.
        let (end, ended) = channel::<()>();
        let (tell, told) = channel();
        let kept = cores.clone();
        let keeper = std::thread::spawn(move || {
            kept.submit_to_blocking(0, async move || {
                tell.send(()).unwrap();
                ended.recv().unwrap();
            })
        });
        told.recv().unwrap();
        assert!(!are_alive(&cores, Duration::from_millis(200)));
        end.send(()).unwrap();
        keeper.join().unwrap().unwrap();
        assert!(are_alive(&cores, Duration::from_secs(60)));
        running.stop();
        running.wait().unwrap();
        assert!(are_alive(&cores, Duration::from_secs(60)));
    }
}
