//! What the first process and a member say to each other.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use serde_json::{Value, json};

use super::line::Frame;
use crate::config::read;
use crate::listen::endpoint::{Endpoint, EndpointId};
use crate::service::generation::Generation;

/// What a member is to do. The number is that of the frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Down {
    /// End: the first stops accepting, the second cuts.
    End = 1,
    /// New clients are not welcome any more.
    Leave = 2,
    /// Print the picture of SIGUSR1.
    Show = 3,
    /// Open the files of the logs again.
    Reopen = 4,
    /// Make ready for the configuration that comes with it; the first is the one to start with.
    Prepare = 5,
    /// Go over to it.
    Commit = 6,
    /// Forget it.
    Abandon = 7,
    /// Answer a question.
    Ask = 8,
    /// Count what is limited in the memory that comes with it. Said before all else.
    Limits = 9,
    /// Another program accepts in place of this one: finish what is open.
    HandOver = 10,
}

/// What a member says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Up {
    /// Every core accepts.
    Ready = 1,
    /// Every core is ready to go over.
    Prepared = 2,
    /// A core is not, and why.
    Refused = 3,
    /// Every core has gone over; with what went wrong, if something did.
    Committed = 4,
    /// The answer to a question.
    Answer = 5,
}

impl Down {
    /// Of a frame's number.
    pub(super) fn of(kind: u8) -> Option<Self> {
        use Down::{Abandon, Ask, Commit, End, HandOver, Leave, Limits, Prepare, Reopen, Show};
        let all = [End, Leave, Show, Reopen, Prepare, Commit, Abandon, Ask, Limits, HandOver];
        all.into_iter().find(|down| *down as u8 == kind)
    }
}

impl Up {
    /// Of a frame's number.
    pub(super) fn of(kind: u8) -> Option<Self> {
        [Up::Ready, Up::Prepared, Up::Refused, Up::Committed, Up::Answer]
            .into_iter()
            .find(|up| *up as u8 == kind)
    }
}

/// A configuration for a member.
#[derive(Debug)]
pub(super) struct Change<'a> {
    /// The text of the file, or of the file that equals the flags.
    pub(super) text: &'a str,
    /// How much the log says.
    pub(super) verbose: u8,
    /// Of each listener, its endpoints.
    pub(super) ids: &'a [Vec<EndpointId>],
    /// Of each new endpoint, its sockets for the member's cores.
    pub(super) new: Vec<(EndpointId, bool, Vec<OwnedFd>)>,
}

impl Change<'_> {
    /// The payload of its frame, and the sockets beside it.
    pub(super) fn into_frame(self) -> (Vec<u8>, Vec<OwnedFd>) {
        let ids: Vec<Vec<u64>> = self.ids.iter().map(|ids| ids.iter().map(|id| id.0).collect()).collect();
        let new: Vec<Value> = self
            .new
            .iter()
            .map(
                |(id, is_shared, sockets)| json!({"id": id.0, "shared": is_shared, "sockets": sockets.len()}),
            )
            .collect();
        let payload = json!({"text": self.text, "verbose": self.verbose, "ids": ids, "new": new});
        (payload.to_string().into_bytes(), self.new.into_iter().flat_map(|(_, _, sockets)| sockets).collect())
    }
}

/// A configuration as a member has understood it, and how much the log says.
pub(super) fn understood(frame: Frame) -> Result<(Generation, u8), String> {
    let odd = || "the starting process says what this one does not understand; report this".to_owned();
    let payload: Value = serde_json::from_slice(&frame.payload).map_err(|_| odd())?;
    let mut sockets = frame.sockets.into_iter();
    let mut new = HashMap::new();
    for endpoint in payload["new"].as_array().ok_or_else(odd)? {
        let id = EndpointId(endpoint["id"].as_u64().ok_or_else(odd)?);
        let is_shared = endpoint["shared"].as_bool().ok_or_else(odd)?;
        let count = endpoint["sockets"].as_u64().ok_or_else(odd)? as usize;
        let own = sockets.by_ref().take(count).collect();
        new.insert(id, Arc::new(Endpoint::new(own, is_shared)));
    }
    let ids = |of: &Value| {
        of.as_array()?.iter().map(|id| id.as_u64().map(EndpointId)).collect::<Option<Vec<EndpointId>>>()
    };
    let all = payload["ids"].as_array().and_then(|all| all.iter().map(ids).collect::<Option<Vec<_>>>());
    let text = payload["text"].as_str().ok_or_else(odd)?;
    let verbose =
        payload["verbose"].as_u64().and_then(|verbose| u8::try_from(verbose).ok()).ok_or_else(odd)?;
    let wrong = |faults: Vec<crate::config::fault::Fault>| {
        faults.into_iter().map(|fault| fault.what).collect::<Vec<_>>().join("; ")
    };
    let config = read::read(text).map_err(wrong)?.config;
    Ok((Generation { config, ids: all.ok_or_else(odd)?, new }, verbose))
}
