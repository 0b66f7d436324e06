//! Signals on request. Each is sent to the core's own thread: to the process, it could strike a thread of the
//! test harness, which blocks none. `file_examples.rs` sends one to a whole process.

mod common;

use std::time::Duration;

use annulus::ErrorKind;
use annulus::signal::{Signal, Signals, block_before_threads, ctrl_c};
use annulus::time::timeout;
use common::{on_one_core, once_without_budget};

fn raise(signal: Signal) {
    // SAFETY: raise(3) with a valid number; the calling thread blocks it.
    assert_eq!(unsafe { libc::raise(signal.as_raw()) }, 0);
}

#[test]
fn signals_come_to_who_asked_and_none_is_lost_with_a_dropped_wait() {
    // For this test's thread, and the core that it starts.
    block_before_threads(&[Signal::USER1, Signal::USER2, Signal::INTERRUPT]).unwrap();
    on_one_core(|| async {
        let signals = Signals::new(&[Signal::USER1, Signal::USER2])?;
        let wait = timeout(Duration::from_millis(1), signals.recv());
        assert!(wait.await.is_err());
        raise(Signal::USER1);
        let got = signals.recv().await?;
        assert_eq!((got.signal, got.pid), (Signal::USER1, std::process::id()));
        // Awaited first.
        let waiting = annulus::spawn(async move { signals.recv().await.map(|got| got.signal) });
        annulus::yield_now().await;
        annulus::yield_now().await;
        raise(Signal::USER2);
        assert_eq!(waiting.await.expect("it does not panic")?, Signal::USER2);
        raise(Signal::INTERRUPT);
        ctrl_c().await
    });
}

/// Seen to fail, by waiting for ever: with the budget asked for after the signal was taken.
#[test]
fn a_wait_that_is_dropped_for_want_of_budget_has_taken_no_signal() {
    block_before_threads(&[Signal::WINDOW_CHANGE]).unwrap();
    on_one_core(|| async {
        let signals = Signals::new(&[Signal::WINDOW_CHANGE])?;
        raise(Signal::WINDOW_CHANGE);
        once_without_budget(signals.recv()).await;
        assert_eq!(signals.recv().await?.signal, Signal::WINDOW_CHANGE);
        Ok(())
    });
}

/// Without the look at the mask, the signal would end the process as if nobody had asked for it.
#[test]
fn a_signal_that_is_not_blocked_is_refused_with_the_remedy() {
    on_one_core(|| async {
        let e = Signals::new(&[Signal::HANGUP]).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Input);
        assert!(e.to_string().contains("SIGHUP") && e.to_string().contains("block_before_threads"), "{e}");
        for refused in [0, -1, libc::SIGKILL, libc::SIGSTOP, libc::SIGSEGV, 32, 33, 65] {
            assert_eq!(Signal::from_raw(refused), None, "{refused}");
        }
        assert_eq!(Signal::from_raw(libc::SIGCHLD), Some(Signal::CHILD));
        assert_eq!(Signal::from_raw(libc::SIGRTMIN()).map(Signal::as_raw), Some(libc::SIGRTMIN()));
        Ok(())
    });
}
