//! What a task waits for, by what it has asked of the kernel.

/// What a task has waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum WaitsFor {
    /// Bytes of a peer, or a client.
    Receive = 1,
    /// A peer, to take bytes.
    Send,
    /// A connection to be established.
    Connect,
    /// Files and their names.
    Disk,
    /// Files and their names, while the kernel had more such work than io-wq workers.
    Workers,
    /// A receive buffer of the core.
    Buffers,
    /// A timer.
    Timer,
    /// Another task, another thread, an operation of the application's own.
    Others,
}

impl WaitsFor {
    /// The name that [`crate::waits`] has for it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Receive => "receive",
            Self::Send => "send",
            Self::Connect => "connect",
            Self::Disk => "disk",
            Self::Workers => "io-wq",
            Self::Buffers => "buffers",
            Self::Timer => "timer",
            Self::Others => "others",
        }
    }

    /// The variant with this number.
    pub(crate) fn of(number: u8) -> Self {
        use WaitsFor::{Buffers, Connect, Disk, Others, Receive, Send, Timer, Workers};
        let all = [Receive, Send, Connect, Disk, Workers, Buffers, Timer];
        all.into_iter().find(|it| *it as u8 == number).unwrap_or(Others)
    }
}
