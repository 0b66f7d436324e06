//! Options of listeners.

use std::os::fd::BorrowedFd;

use rustix::net::sockopt;

use crate::core::groups::Ask;
use crate::error::os;
use crate::numa::CpuId;
use crate::place::Place;
use crate::{Error, Result};

/// The default number of connections that may wait to be accepted on each core's socket. `net.core.somaxconn`
/// bounds it (4096 by default).
pub(super) const BACKLOG: u32 = 4096;

/// Options of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenOptions {
    pub(super) backlog: u32,
    pub(super) steer_by_cpu: bool,
    pub(super) only_v6: bool,
}

impl ListenOptions {
    /// A backlog of 4096, connections spread by hash; `[::]` takes IPv4 connections as well.
    pub fn new() -> Self {
        Self { backlog: BACKLOG, steer_by_cpu: false, only_v6: false }
    }

    /// Whether `[::]` leaves IPv4 connections to a listener on `0.0.0.0` (`IPV6_V6ONLY`, `ipv6(7)`). Without
    /// it `[::]` takes both families, whatever `net.ipv6.bindv6only` says.
    pub fn only_v6(mut self, only: bool) -> Self {
        self.only_v6 = only;
        self
    }

    /// How many connections may wait on each core's socket to be accepted. `net.core.somaxconn` bounds it
    /// (`listen(2)`).
    pub fn backlog(mut self, connections: u32) -> Self {
        self.backlog = connections;
        self
    }

    /// Gives a TCP connection to the core whose CPU received its first packet, instead of spreading
    /// connections by a hash of the addresses (`SO_INCOMING_CPU`, `socket(7)`). Linux 6.2; before it the
    /// kernel goes on hashing.
    ///
    /// It spares each packet the way from one CPU to another, if the network card spreads connections over
    /// queues whose interrupts go to the CPUs that run cores, at least one queue for each. `annulus doctor`
    /// checks that. The cost is that the card decides how connections are spread. Over loopback a connection
    /// goes to the core on whose CPU its client runs, so one client loads one core; and where fewer queues
    /// than cores have interrupts, the other cores get nothing.
    pub fn steer_by_cpu(mut self, steer: bool) -> Self {
        self.steer_by_cpu = steer;
        self
    }

    pub(super) fn ask(&self) -> Ask {
        Ask::Stream { backlog: self.bounded_backlog(), only_v6: self.only_v6 }
    }

    /// As `listen(2)` takes it.
    pub(super) fn bounded_backlog(&self) -> i32 {
        self.backlog.min(i32::MAX as u32) as i32
    }

    /// Gives the socket of the core on `cpu` the connections of that CPU, if so asked.
    pub(super) fn steer(&self, socket: BorrowedFd<'_>, place: &Place, cpu: CpuId) -> Result<()> {
        if !self.steer_by_cpu || !matches!(place, Place::Ip(_)) {
            return Ok(());
        }
        sockopt::set_socket_incoming_cpu(socket, cpu.0)
            .map_err(|e| Error::io("cannot set SO_INCOMING_CPU", os(e)))
    }
}

impl Default for ListenOptions {
    fn default() -> Self {
        Self::new()
    }
}
