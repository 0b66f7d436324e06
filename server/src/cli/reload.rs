//! `annulus reload`: the order to a running program to read its file again.

use rustix::process::{Signal, kill_process};

use super::which::{Which, ask, must_serve, not_signalled};
use crate::exit::{Failure, Kind};

/// Gives the order. The program reports the outcome on its own standard error.
pub(super) fn order(which: &Which) -> Result<(), Failure> {
    let Some(address) = &which.admin else {
        let pid = which.process()?;
        must_serve(pid)?;
        return kill_process(pid, Signal::HUP).map_err(|errno| not_signalled(pid, errno));
    };
    match ask(address, "POST", "/reload")? {
        (200, _) => Ok(()),
        (_, why) => Err(Failure::new(Kind::Failed, format!("{address} does not reload: {why}"))),
    }
}
