//! Keeps the addresses of upstreams with names up to date.
//!
//! A name is looked up again when its TTL is over, within bounds, or after
//! [`resolve_interval`](super::options::UpstreamArgs::resolve_interval) where nothing says how long the
//! answer holds. Where no answer comes, or an empty one, the addresses stay as they were: connections that
//! are open keep theirs, and new ones have an address to go to.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Weak};
use std::time::Duration;

use event_listener::Event;

use super::names::{AT_START, Asked, Found, Missing, look_up};
use super::options::UpstreamArgs;
use super::upstreams::{Upstream, Upstreams};

/// The most look-ups at a time. Each takes one of the threads for blocking work for as long as a resolver is
/// silent. The other threads are left to files.
const AT_ONCE: usize = 16;

static LOOK_UPS: LazyLock<Arc<Semaphore>> =
    LazyLock::new(|| Arc::new(Semaphore { left: AtomicUsize::new(AT_ONCE), freed: Event::new() }));

/// A semaphore: how many look-ups may begin, and who waits.
struct Semaphore {
    left: AtomicUsize,
    freed: Event,
}

/// The permit for one look-up. Dropping it lets the next one begin.
struct Permit(Arc<Semaphore>);

impl Semaphore {
    async fn acquire(self: &Arc<Self>) -> Permit {
        loop {
            // Listening begins before the check, so that no notification is lost.
            let freed = self.freed.listen();
            let one_less = |left: usize| left.checked_sub(1);
            if self.left.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_less).is_ok() {
                return Permit(Arc::clone(self));
            }
            freed.await;
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.left.fetch_add(1, Ordering::AcqRel);
        self.0.freed.notify(1);
    }
}

/// Keeps the addresses of an upstream up to date, as a task of one core, for as long as anybody uses them.
pub(super) async fn keep(upstreams: Weak<Upstreams>, place: usize, name: String, port: u16) {
    let mut was_told = false;
    loop {
        let Some(all) = upstreams.upgrade() else { return };
        let asked = Asked { name: name.clone(), port, servers: all.args().resolver.clone() };
        drop(all);
        let permit = LOOK_UPS.acquire().await;
        let look = move || {
            // The thread holds the permit until it is done, also if this task ends before.
            let _permit = permit;
            look_up(&asked)
        };
        let found = annulus::spawn_blocking(look).await;
        let found = found.unwrap_or_else(|error| Err(Missing::NoAnswer(error.to_string())));
        let Some(all) = upstreams.upgrade() else { return };
        let upstream: &Arc<Upstream> = &all.list()[place];
        match &found {
            Ok(found) => {
                was_told = false;
                if upstream.set_addresses(found.after(&upstream.addresses())) {
                    tracing::info!(upstream = %upstream.target(), addresses = ?upstream.addresses(), "has other addresses");
                }
            }
            // Logged once, until a name is found again.
            Err(error) if !std::mem::replace(&mut was_told, true) => {
                tracing::warn!(upstream = %upstream.target(), %error, "the name is not found; its addresses stay as they were");
            }
            Err(_) => {}
        }
        let interval = interval(found.ok().as_ref(), all.args());
        // Clients wait while there is no address.
        let interval = if upstream.addresses().is_empty() { interval.min(AT_START) } else { interval };
        drop(all);
        annulus::time::sleep(interval).await;
    }
}

/// When to look again.
fn interval(found: Option<&Found>, args: &UpstreamArgs) -> Duration {
    let [least, most, otherwise] =
        [args.ttl_min, args.ttl_max.max(args.ttl_min), args.resolve_interval].map(Duration::from_secs);
    found.and_then(Found::holds).map_or(otherwise, |holds| holds.clamp(least, most))
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Wake, Waker};

    use clap::{Args as _, Command, FromArgMatches as _};

    use super::*;

    fn args(flags: &[&str]) -> UpstreamArgs {
        let command = UpstreamArgs::augment_args(Command::new("test")).no_binary_name(true);
        let words = [&["--to", "a.test:1"], flags].concat();
        UpstreamArgs::from_arg_matches(&command.get_matches_from(words)).unwrap()
    }

    /// Seen to fail: with a TTL as it is.
    #[test]
    fn a_ttl_is_kept_within_bounds() {
        let after = |ttl, flags: &[&str]| {
            let found = Found::of(Vec::new(), Duration::from_secs(ttl));
            interval(Some(&found), &args(flags)).as_secs()
        };
        assert_eq!([0, 1, 60, 3600, 100_000].map(|ttl| after(ttl, &[])), [1, 1, 60, 3600, 3600]);
        assert_eq!([0, 60].map(|ttl| after(ttl, &["--ttl-min", "20", "--ttl-max", "30"])), [20, 30]);
        assert_eq!(interval(None, &args(&["--resolve-interval", "7"])).as_secs(), 7);
    }

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Seen to fail: without the notification.
    #[test]
    fn so_many_look_ups_and_no_more_are_made_at_once() {
        let permits = Arc::new(Semaphore { left: AtomicUsize::new(1), freed: Event::new() });
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut cx = Context::from_waker(&waker);
        let (mut first, mut second) = (Box::pin(permits.acquire()), Box::pin(permits.acquire()));
        let Poll::Ready(held) = first.as_mut().poll(&mut cx) else { panic!("nobody has the permit") };
        assert!(second.as_mut().poll(&mut cx).is_pending());
        drop(held);
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
        let Poll::Ready(held) = second.as_mut().poll(&mut cx) else { panic!("the permit was given back") };
        drop(held);
        assert_eq!(permits.left.load(Ordering::Relaxed), 1);
    }
}
