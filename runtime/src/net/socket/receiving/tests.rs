//! The machine beside a model: a kernel that has a receive or none, a queue for buffers, and a reader.

use proptest::prelude::*;

use super::*;

/// What may happen, in any order.
#[derive(Debug, Clone, Copy)]
enum Event {
    /// The reader is polled and finds no chunk; others wait for buffers, or not.
    Polled(bool),
    /// The receive answers with bytes; it goes on, or not.
    Bytes(bool),
    End,
    Error,
    NoBuffer,
    /// What a cancelled receive answers, or one that is to be asked again.
    Again,
    /// A cancel that comes too late: the receive ends by what it had.
    HeldBack,
    Quieted,
    /// Somebody waits for quiet, and ceases to.
    Hushed,
    Unhushed,
    Turn,
    SendTold,
    OthersFindEnd,
    Dropped,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => any::<bool>().prop_map(Event::Polled),
        4 => any::<bool>().prop_map(Event::Bytes),
        1 => Just(Event::End),
        1 => Just(Event::Error),
        2 => Just(Event::NoBuffer),
        2 => Just(Event::Again),
        2 => Just(Event::HeldBack),
        2 => Just(Event::Quieted),
        1 => Just(Event::Hushed),
        1 => Just(Event::Unhushed),
        3 => Just(Event::Turn),
        1 => Just(Event::SendTold),
        1 => Just(Event::OthersFindEnd),
        1 => Just(Event::Dropped),
    ]
}

const RESET: i32 = libc::ECONNRESET;

#[derive(Default)]
struct Model {
    /// The receive that the kernel has, and whether it was told to end it.
    receive: Option<(u32, bool)>,
    next: u32,
    /// Times that the stream stands in the queue.
    queued: u32,
    /// The reader sleeps until it is woken.
    sleeps: bool,
    /// How many wait for quiet.
    hushed: u32,
    told: bool,
    end: Option<End>,
    released: bool,
}

impl Model {
    /// A receive is asked for.
    fn arm(&mut self, it: &Receiving<u32>) {
        assert!(self.receive.is_none(), "two receives at once");
        assert!(!self.released, "nobody reads any more");
        assert_eq!(self.end, None, "it is over");
        assert_eq!(self.hushed, 0, "somebody waits for quiet");
        self.receive = Some((self.next, false));
        it.armed(self.next);
        self.next += 1;
    }

    fn queue(&mut self) {
        self.queued += 1;
        assert_eq!(self.queued, 1, "a stream stands in the queue once");
    }

    fn cancel(&mut self, key: Option<u32>) {
        if let Some(key) = key {
            assert_eq!(self.receive, Some((key, false)), "a receive is cancelled once, while there is one");
            self.receive = Some((key, true));
        }
    }

    fn happens(&mut self, it: &Receiving<u32>, event: Event) {
        match event {
            Event::Polled(others_wait) if !self.released => {
                self.sleeps = true;
                match it.want(|| others_wait, false) {
                    Wanted::Told(end) => {
                        assert_eq!(Some(end), self.end);
                        self.sleeps = false;
                    }
                    Wanted::Arm => self.arm(it),
                    Wanted::Queue => self.queue(),
                    Wanted::Wait => {}
                }
            }
            Event::Bytes(_) | Event::End | Event::Error | Event::NoBuffer | Event::Again => {
                self.answers(it, event);
            }
            Event::HeldBack => {
                let cancelled = it.stop();
                assert_eq!(cancelled.is_some(), self.receive.is_some_and(|(_, ending)| !ending));
                self.cancel(cancelled);
            }
            Event::Quieted if !self.released => {
                self.cancel(it.stop());
                match it.quiet() {
                    Quiet::Yes => {}
                    Quiet::GaveUpTurn => self.sleeps = false,
                    Quiet::NotYet => return assert!(self.receive.is_some()),
                }
                assert_eq!(self.receive, None, "quiet, and a receive is under way");
            }
            Event::Hushed => self.hushes(it),
            Event::Unhushed if self.hushed > 0 => self.unhushes(it),
            Event::Turn if self.queued > 0 => {
                self.queued = 0;
                it.left_queue();
                if it.is_starved() {
                    self.arm(it);
                }
            }
            Event::SendTold => {
                self.told = true;
                it.told(RESET);
            }
            Event::OthersFindEnd if self.receive.is_none() => {
                let was_idle = !it.is_awaited() && self.end.is_none();
                assert_eq!(it.found_end(), self.told.then_some(RESET));
                if was_idle && !self.released {
                    self.end = Some(self.told.then_some(RESET));
                }
            }
            Event::Dropped if !self.released => {
                self.released = true;
                self.sleeps = false;
                self.end = None;
                assert_eq!(
                    it.release(),
                    self.receive.take().map(|(key, _)| key),
                    "what there is is abandoned"
                );
            }
            _ => {}
        }
    }

    fn hushes(&mut self, it: &Receiving<u32>) {
        self.hushed += 1;
        it.hush();
        // Whoever waits asks for it at once.
        self.happens(it, Event::Quieted);
    }

    fn unhushes(&mut self, it: &Receiving<u32>) {
        self.hushed -= 1;
        assert_eq!(it.unhush(), self.hushed == 0);
        self.sleeps &= self.hushed > 0;
    }

    /// The kernel answers.
    fn answers(&mut self, it: &Receiving<u32>, event: Event) {
        let Some((_, ending)) = self.receive else { return };
        let last = !matches!(event, Event::Bytes(true));
        assert_eq!(it.answered(last), ending);
        if last {
            self.receive = None;
        }
        let waited_for = std::mem::take(&mut self.sleeps);
        let lacks = matches!(event, Event::NoBuffer);
        if lacks && it.lacked(waited_for, ending) == Wanted::Queue {
            self.queue();
        }
        match event {
            Event::End => {
                it.ended();
                // What a send was told before is told here too.
                self.end = Some(self.told.then_some(RESET));
            }
            Event::Error => {
                it.failed(RESET);
                self.end = Some(Some(RESET));
            }
            _ => {}
        }
    }

    fn holds(&self, it: &Receiving<u32>) {
        assert_eq!(it.is_receiving(), self.receive.is_some());
        if !self.released {
            assert_eq!(it.over(), self.end);
        }
        assert!(!it.is_starved() || self.queued == 1, "starved, and in no queue");
        let comes = it.is_awaited() || it.is_hushed();
        assert!(!self.sleeps || comes, "a reader sleeps, and nothing will come");
    }
}

proptest! {
    #[test]
    fn no_receive_is_lost_or_asked_for_twice(events in proptest::collection::vec(event(), 0..60)) {
        let (it, mut model) = (Receiving::new(), Model::default());
        for event in events {
            model.happens(&it, event);
            model.holds(&it);
        }
    }
}

#[test]
fn a_datagrams_error_passes() {
    let it = Receiving::<u32>::new();
    it.failed(RESET);
    assert_eq!(it.want(|| false, true), Wanted::Told(Some(RESET)));
    assert_eq!(it.want(|| false, true), Wanted::Arm);
}
