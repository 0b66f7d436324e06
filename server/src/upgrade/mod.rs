//! A new program takes the place of the running one, and no client notices.
//!
//! The running program starts the new one ([`giving`]), which therefore is where the service manager put the
//! old one, and has its rights. The old one hands over its listening sockets ([`bundle`]) by a socket pair,
//! which is the new program's standard input, and goes on accepting. Once every core of the new one accepts
//! ([`taking`]), the old one accepts the connections that its own rings were woken for, and finishes the ones
//! it has. A new program that fails, or does not report in time, changes nothing.
//!
//! Both accept from the same sockets for a moment, and no queue of the kernel is closed. So no client is
//! refused or reset.

pub(crate) mod bundle;
pub(crate) mod giving;
pub(crate) mod outcome;
pub(crate) mod taking;

/// The variable that tells a program that it was started to take another's place, and whose.
const VARIABLE: &str = "ANNULUS_UPGRADE_OF";

/// What the old program says: the number of the frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Down {
    /// The sockets that it hands over.
    Bundle = 1,
    /// It accepts no more connections.
    Yours = 2,
}

/// What the new program says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Up {
    /// Every core accepts.
    Listening = 1,
    /// It ends, for this reason.
    Failed = 2,
}
