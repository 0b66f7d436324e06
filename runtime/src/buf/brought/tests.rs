//! The core's buffers against a kernel that is simulated here. It uses up the ring of descriptors as the real
//! one does, writes into the buffers, and reports in CQEs. The real kernel has the same ring and nothing to
//! receive.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ptr::{self, NonNull};
use std::rc::Rc;

use io_uring::types::BufRingEntry;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::Runtime;
use crate::buf::Lease;
use crate::core::Core;
use crate::net::socket::Socket;
use crate::testing::{at_the_next_event, has_acted, on_a_core, small};

const BUFFER: u32 = 8 << 10;

#[derive(Debug, Clone)]
enum Step {
    /// This many bytes come for some stream.
    Receive(u32),
    /// A bundled receive finds no data for a buffer of this many bytes, and leaves the first buffer that
    /// short.
    LookInVain(u32),
    /// The core sees the oldest CQE. If true it sees the one behind it first, where the kernel promises no
    /// order.
    See(bool),
    /// A lease is dropped here, or (true) on a thread that is no core's.
    Drop(usize, bool),
    Split(usize, usize),
    /// The end of a tick.
    Tick,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => prop_oneof![1..300u32, 1..BUFFER + 2, 1..20 * BUFFER].prop_map(Step::Receive),
        1 => (1..BUFFER).prop_map(Step::LookInVain),
        5 => prop::bool::weighted(0.2).prop_map(Step::See),
        6 => (any::<usize>(), prop::bool::weighted(0.1)).prop_map(|(at, away)| Step::Drop(at, away)),
        1 => (any::<usize>(), any::<usize>()).prop_map(|(at, n)| Step::Split(at, n)),
        2 => Just(Step::Tick),
    ];
    prop::collection::vec(step, 1..120)
}

/// The written bytes of one buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Piece {
    buffer: u16,
    address: usize,
    len: u32,
    byte: u8,
}

struct Cqe {
    first: u16,
    bytes: u32,
    goes_on: bool,
    pieces: Vec<Piece>,
}

struct World<'a> {
    core: &'a Core,
    entries: NonNull<BufRingEntry>,
    slots: u16,
    incremental: bool,
    bundles: bool,
    /// The next slot to be used up, and how many bytes of the buffer there are written.
    head: u16,
    used: u32,
    byte: u8,
    cqes: VecDeque<Cqe>,
    leases: Vec<(Lease, Piece)>,
}

impl<'a> World<'a> {
    fn new(core: &'a Core) -> Self {
        let descriptors = core.bufs.descriptors();
        let features = core.ring.features();
        Self {
            core,
            entries: NonNull::new(ptr::with_exposed_provenance_mut(descriptors.start)).unwrap(),
            slots: (descriptors.len() / size_of::<BufRingEntry>()) as u16,
            incremental: features.incremental_buffers,
            bundles: features.bundles,
            head: 0,
            used: 0,
            byte: 0,
            cqes: VecDeque::new(),
            leases: Vec::new(),
        }
    }

    fn entry(&self, slot: u16) -> *mut BufRingEntry {
        // SAFETY: inside the descriptors, whose number is known.
        unsafe { self.entries.as_ptr().add((slot & (self.slots - 1)).into()) }
    }

    /// Buffers in the ring.
    fn there(&self) -> u16 {
        // SAFETY: the descriptors are the core's, on this thread.
        unsafe { *BufRingEntry::tail(self.entries.as_ptr()) }.wrapping_sub(self.head)
    }

    fn receive(&mut self, most: u32) {
        let mut cqe = Cqe { first: 0, bytes: 0, goes_on: false, pieces: Vec::new() };
        while self.there() > 0 && cqe.bytes < most && (self.bundles || cqe.pieces.is_empty()) {
            // SAFETY: as in `there`; the real kernel receives nothing.
            let (buffer, address, len) = unsafe {
                let entry = &*self.entry(self.head);
                (entry.bid(), entry.addr() as usize + self.used as usize, entry.len() - self.used)
            };
            if cqe.pieces.is_empty() {
                cqe.first = buffer;
            }
            let piece = Piece { buffer, address, len: len.min(most - cqe.bytes), byte: self.byte };
            self.byte = self.byte.wrapping_add(1);
            let start = ptr::with_exposed_provenance_mut::<u8>(address);
            // SAFETY: the descriptor says that the buffer is the kernel's. If the core gave it too early, a
            // lease shows it.
            unsafe { start.write_bytes(piece.byte, piece.len as usize) };
            cqe.bytes += piece.len;
            cqe.goes_on = self.incremental && piece.len < len;
            self.used = if cqe.goes_on { self.used + piece.len } else { 0 };
            if !cqe.goes_on {
                self.head = self.head.wrapping_add(1);
            }
            cqe.pieces.push(piece);
        }
        if cqe.bytes > 0 {
            self.cqes.push_back(cqe);
        }
    }

    fn look_in_vain(&mut self, hoped: u32) {
        if self.bundles && !self.incremental && self.there() > 0 {
            // SAFETY: as in `receive`.
            let entry = unsafe { &mut *self.entry(self.head) };
            entry.set_len(entry.len().min(hoped));
        }
    }

    fn see(&mut self, later: bool) {
        // Of incremental buffers the order of CQEs is the order of the bytes.
        if later && !self.incremental && self.cqes.len() > 1 {
            self.cqes.swap(0, 1);
            self.see(false);
        }
        let Some(cqe) = self.cqes.pop_front() else { return };
        let brought = self.core.bufs.brought(cqe.first, cqe.bytes, cqe.goes_on).expect("fragments");
        let leases: Vec<_> = brought.collect();
        let told = leases.iter().map(|lease| (lease.as_ptr().addr(), lease.len() as u32));
        let expected = cqe.pieces.iter().map(|piece| (piece.address, piece.len));
        assert_eq!(told.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
        self.leases.extend(leases.into_iter().zip(cqe.pieces));
    }

    fn apply(&mut self, step: Step) {
        match step {
            Step::Receive(bytes) => self.receive(bytes),
            Step::LookInVain(hoped) => self.look_in_vain(hoped),
            Step::See(later) => self.see(later),
            Step::Drop(..) | Step::Split(..) if self.leases.is_empty() => {}
            Step::Drop(at, away) => {
                let (lease, piece) = self.leases.swap_remove(at % self.leases.len());
                assert!(lease.iter().all(|byte| *byte == piece.byte), "written over: {piece:?}");
                if away {
                    std::thread::spawn(move || drop(lease)).join().unwrap();
                }
            }
            Step::Split(at, n) => {
                let at = at % self.leases.len();
                let (lease, piece) = &mut self.leases[at];
                let first = lease.split_to(n % (lease.len() + 1));
                let piece = *piece;
                self.leases.push((first, piece));
            }
            Step::Tick => {
                self.core.fairness.end_of_tick(&self.core.bufs, &self.core.shared.counters, self.core)
            }
        }
        self.inspect();
    }

    /// No buffer is in the ring twice, or there while somebody holds it, except the one in which the kernel
    /// goes on.
    fn inspect(&self) {
        let mut there = Vec::new();
        for slot in 0..self.there() {
            // SAFETY: as in `receive`.
            there.push(unsafe { (*self.entry(self.head.wrapping_add(slot))).bid() });
        }
        let begun = if self.used > 0 { there.first().copied() } else { None };
        let mut once = there.clone();
        once.sort_unstable();
        once.dedup();
        assert_eq!(once.len(), there.len(), "twice in the ring");
        let unseen = self.cqes.iter().flat_map(|cqe| &cqe.pieces);
        for piece in self.leases.iter().map(|(_, piece)| piece).chain(unseen) {
            assert!(
                Some(piece.buffer) == begun || !there.contains(&piece.buffer),
                "given back early: {piece:?}"
            );
        }
    }

    /// Everything comes back, except the buffer in which the kernel goes on.
    fn end(&mut self, all: u16) {
        while !self.cqes.is_empty() {
            self.see(false);
        }
        self.leases.clear();
        self.apply(Step::Tick);
        assert_eq!(self.there(), all, "buffers were lost");
    }
}

/// Chunks are put where a subscriber may look for them before it is told of them.
///
/// Seen to fail ("already borrowed"): with the event where the lease is made.
#[test]
fn a_subscriber_may_take_what_came_when_it_is_told_of_a_broken_word() {
    on_a_core(small(64).incremental_buffers(true), async || {
        Core::with(|core| {
            if !core.bufs.come_in_fragments() {
                println!("this kernel cannot do it: {:?}", core.ring.features().lacks);
                return;
            }
            let mut world = World::new(core);
            world.receive(100);
            let cqe = world.cqes.pop_front().expect("100 bytes have come");
            let (ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
            let socket = Socket::new(ours.into());
            let taken = Rc::new(Cell::new(0));
            let (takes, from) = (Rc::clone(&taken), Rc::clone(&socket));
            let guard = at_the_next_event("annulus::buf::brought", move || {
                let lease = Core::with(|core| from.take_chunk(core));
                takes.set(lease.map_or(0, |lease| lease.len()));
            });
            let told = 10 * BUFFER;
            let brought = core.bufs.brought(cqe.first, told, cqe.goes_on);
            socket.received_fragments(core, brought, Ok(told), false);
            drop(guard);
            assert_eq!((has_acted(), taken.get()), (true, BUFFER as usize), "as much as the buffer holds");
        });
    });
}

fn shares_are_counted(incremental: bool, bundles: bool) {
    let builder = Runtime::builder().pool_bytes(256 << 10).pool_limit(256 << 10).ring_entries(64);
    let cpu = crate::numa::thread::affinity_of_current().unwrap().first().unwrap();
    let builder =
        builder.cores(cpu.to_string().parse().unwrap()).incremental_buffers(incremental).bundles(bundles);
    let running = builder.build().unwrap().start(move || async move {
        Core::with(|core| {
            if !core.bufs.come_in_fragments() {
                println!("this kernel can do neither: {:?}", core.ring.features().lacks);
                return;
            }
            let world = RefCell::new(World::new(core));
            let all = world.borrow().there();
            let config = Config { cases: 400, failure_persistence: None, ..Config::default() };
            let tried = TestRunner::new(config).run(&steps(), |steps| {
                let mut world = world.borrow_mut();
                steps.into_iter().for_each(|step| world.apply(step));
                world.end(all);
                Ok(())
            });
            // What a failed case left behind breaks the next cases: the first failure is the one that
            // matters.
            tried.unwrap();
        });
        crate::Ok(())
    });
    running.unwrap().wait().unwrap();
}

#[test]
fn of_incremental_buffers() {
    shares_are_counted(true, false);
}

#[test]
fn of_bundles() {
    shares_are_counted(false, true);
}

#[test]
fn of_bundles_of_incremental_buffers() {
    shares_are_counted(true, true);
}
