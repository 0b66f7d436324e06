//! What the first process and a member say to each other.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use serde_json::{Value, json};

use super::given::Given;
use super::line::Frame;
use crate::config::read;
use crate::listen::endpoint::{Endpoint, EndpointId};
use crate::proxy::names::{Answer, Asked};
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
    /// What a name stands for, or why it is not known.
    Found = 11,
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
    /// A name is to be looked up.
    Resolve = 6,
}

impl Down {
    /// Of a frame's number.
    pub(super) fn of(kind: u8) -> Option<Self> {
        use Down::{Abandon, Ask, Commit, End, Found, HandOver, Leave, Limits, Prepare, Reopen, Show};
        let all = [End, Leave, Show, Reopen, Prepare, Commit, Abandon, Ask, Limits, HandOver, Found];
        all.into_iter().find(|down| *down as u8 == kind)
    }
}

impl Up {
    /// Of a frame's number.
    pub(super) fn of(kind: u8) -> Option<Self> {
        [Up::Ready, Up::Prepared, Up::Refused, Up::Committed, Up::Answer, Up::Resolve]
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
    /// What was found and opened for it, and descriptors of that.
    pub(super) given: (Value, Vec<OwnedFd>),
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
        let (given, opened) = self.given;
        let payload =
            json!({"text": self.text, "verbose": self.verbose, "ids": ids, "new": new, "given": given});
        let sockets = self.new.into_iter().flat_map(|(_, _, sockets)| sockets);
        (payload.to_string().into_bytes(), sockets.chain(opened).collect())
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
    let roots = Given::take(&payload["given"], &mut sockets).ok_or_else(odd)?;
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
    let config = read::read_again(text).map_err(wrong)?.config;
    Ok((Generation { config, ids: all.ok_or_else(odd)?, new, roots }, verbose))
}

/// The question of a member for a name, by its number.
pub(super) fn ask_for_name(number: [u8; 8], asked: &Asked) -> Vec<u8> {
    [&number[..], json!(asked).to_string().as_bytes()].concat()
}

/// What a member has asked for.
pub(super) fn name_asked(payload: &[u8]) -> Option<([u8; 8], Asked)> {
    let (number, text) = payload.split_first_chunk::<8>()?;
    Some((*number, serde_json::from_slice(text).ok()?))
}

/// The answer to the question of this number.
pub(super) fn name_found(number: [u8; 8], found: &Answer) -> Vec<u8> {
    [&number[..], json!(found).to_string().as_bytes()].concat()
}

/// What was answered.
pub(super) fn name_answered(payload: &[u8]) -> Option<([u8; 8], Answer)> {
    let (number, text) = payload.split_first_chunk::<8>()?;
    Some((*number, serde_json::from_slice(text).ok()?))
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use super::*;
    use crate::proxy::names::{Found, Missing};

    #[test]
    fn questions_for_names_and_their_answers_are_understood() {
        let number = 7u64.to_le_bytes();
        let addresses: Vec<SocketAddr> = vec!["[::1]:80".parse().unwrap(), "192.0.2.1:1".parse().unwrap()];
        let asked = Asked { name: "a\"b".to_owned(), port: 80, servers: addresses.clone() };
        assert_eq!(name_asked(&ask_for_name(number, &asked)), Some((number, asked)));
        let found = Found::of(addresses, Duration::from_millis(1500));
        let missing = [Missing::NoSuchName, Missing::NoAnswer].map(|missing| Err(missing("why".to_owned())));
        for found in missing.into_iter().chain([Ok(found)]) {
            assert_eq!(name_answered(&name_found(number, &found)), Some((number, found)));
        }
        assert_eq!((name_asked(b"x"), name_answered(b"12345678{}")), (None, None));
    }
}
