//! Whether a core's ring could be made here, and what it would have. No runtime is started for that.

use io_uring::{Probe, opcode};

use super::{Ring, RingFeatures, RingOptions};
use crate::metrics::counters::CoreCounters;
use crate::{Error, ErrorKind, Result};

/// `IORING_OP_RECV_ZC` of linux/io_uring.h (Linux 6.15).
const RECV_ZC: u8 = 58;

/// The features that a ring has here.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RingProbe {
    /// What a core's ring has in force.
    pub features: RingFeatures,
    /// Operations that the runtime uses and this kernel lacks, by the name in `io_uring_enter(2)`. Empty from
    /// Linux 6.1 on.
    pub missing: Vec<&'static str>,
    /// Whether the kernel knows zero-copy receive (`RECV_ZC`, Linux 6.15). The network interface must support
    /// it as well.
    pub zero_copy_receive: bool,
    /// Whether [`Builder::incremental_buffers`](crate::Builder::incremental_buffers) would be in force.
    pub incremental_buffers: bool,
    /// Whether [`Builder::bundles`](crate::Builder::bundles) would be in force.
    pub bundles: bool,
}

/// Makes a ring as a core does, asks for its features, and closes it. It runs on a thread of its own, because
/// bounds on io-wq workers belong to the thread and would stay with the caller's.
///
/// # Errors
/// [`ErrorKind::Platform`] when the ring cannot be made, with cause and remedy. Linux 6.1 is needed.
/// `io_uring_setup(2)`.
pub fn probe_ring(entries: u32) -> Result<RingProbe> {
    probe(RingOptions::for_entries(entries))
}

/// Makes [`probe_ring`]'s ring, with all that a core's ring may have.
pub(crate) fn probe(options: RingOptions) -> Result<RingProbe> {
    let asked = std::thread::Builder::new().name("annulus-probe".to_owned()).spawn(move || ask(options));
    let asked = asked.map_err(|e| Error::io("cannot start a thread to try a ring on", e))?;
    asked.join().unwrap_or_else(|_| {
        Err(Error::new(ErrorKind::Panicked, "the thread that tries a ring panicked; report this"))
    })
}

fn ask(options: RingOptions) -> Result<RingProbe> {
    let ring = Ring::new(options, None, CoreCounters::default())?;
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe).map_err(|e| {
        let what = "cannot ask the ring what it can do (IORING_REGISTER_PROBE); allow io_uring_register";
        Error::with_source(ErrorKind::Platform, what, e)
    })?;
    let used = [
        ("POLL_ADD", opcode::PollAdd::CODE),
        ("ACCEPT", opcode::AcceptMulti::CODE),
        ("ASYNC_CANCEL", opcode::AsyncCancel::CODE),
        ("CONNECT", opcode::Connect::CODE),
        ("CLOSE", opcode::Close::CODE),
        ("STATX", opcode::Statx::CODE),
        ("READ", opcode::Read::CODE),
        ("WRITE", opcode::Write::CODE),
        ("SEND", opcode::Send::CODE),
        ("RECV", opcode::RecvMulti::CODE),
        ("RECVMSG", opcode::RecvMsgMulti::CODE),
        ("SENDMSG", opcode::SendMsg::CODE),
        ("OPENAT2", opcode::OpenAt2::CODE),
        ("SPLICE", opcode::Splice::CODE),
    ];
    let missing = used.iter().filter(|(_, code)| !probe.is_supported(*code)).map(|(name, _)| *name);
    Ok(RingProbe {
        features: ring.features().clone(),
        missing: missing.collect(),
        zero_copy_receive: probe.is_supported(RECV_ZC),
        incremental_buffers: ring.may_be_incremental(),
        bundles: ring.may_bundle(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_can_be_tried_without_a_runtime() {
        let probe = probe_ring(64).unwrap();
        assert_eq!(probe.features.sq_entries, 64);
        assert_eq!(probe.missing, Vec::<&str>::new());
    }
}
