//! What a service manager such as systemd is told: that the program is ready, reloads, ends or is alive
//! (`sd_notify(3)`).

pub(crate) mod message;
pub(crate) mod notify;
pub(crate) mod watchdog;
