//! A new program takes the place of the one that runs, and nobody who connects notices.
//!
//! The program that runs starts the new one ([`giving`]): so it is where the service manager put the old one,
//! and has its rights. It hands over its listening sockets ([`bundle`]) by a socket pair, which is the new
//! program's standard input, and goes on accepting. Once every core of the new one accepts ([`taking`]), the
//! old one accepts what its own rings were woken for, and finishes what it has. A new program that fails, or
//! says nothing for long, changes nothing.
//!
//! Both accept from the same sockets for a moment, and no queue of the kernel is closed: so no client is
//! refused or reset.

pub(crate) mod bundle;
pub(crate) mod giving;
pub(crate) mod outcome;
pub(crate) mod taking;

/// The variable that says to a program that it was started to take another's place, and whose.
const VARIABLE: &str = "ANNULUS_UPGRADE_OF";

/// What the old program says, the number of the frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Down {
    /// What it hands over.
    Bundle = 1,
    /// It accepts nothing any more.
    Yours = 2,
}

/// What the new program says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Up {
    /// Every core accepts.
    Listening = 1,
    /// It ends, and why.
    Failed = 2,
}
