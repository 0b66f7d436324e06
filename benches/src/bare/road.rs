//! The roads by name: `inline-splice:64k` is a road and the bytes it moves at a time.

use crate::size::{parse_size, show_size};
use std::fmt;
use std::str::FromStr;

/// How file bytes get to the socket. The number is the bytes of one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileRoad {
    /// pread(2) and send(2) from the loop; a full socket is waited for by a ring poll.
    ReadSend(usize),
    /// sendfile(2) from the loop; `None` asks for the whole rest each time.
    Sendfile(Option<usize>),
    /// splice(2) file to pipe and pipe to socket from the loop.
    InlineSplice(usize),
    /// The same by splice SQEs, which the kernel runs on io-wq workers.
    SpliceSqe(usize),
    /// READ_FIXED linked to SEND, from registered memory.
    ReadFixedSend(usize),
    /// READ_FIXED linked to SEND_ZC, from registered memory. Over loopback the kernel copies nevertheless.
    ReadFixedSendZc(usize),
}

/// How bytes get from one socket to the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelayRoad {
    /// RECV into memory of the direction, then SEND.
    RecvSend(usize),
    /// Splice SQEs, each linked behind a poll so that none blocks a worker.
    SpliceSqe(usize),
    /// splice(2) from the loop; waits by ring poll.
    InlineSplice(usize),
    /// Multishot RECV from the buffer ring, SEND of each block: for small messages.
    Mshot,
}

/// Splits `name:64k` and reads the step, at most 1 GiB so that it fits every call.
fn parse(text: &str) -> Result<(&str, Option<usize>), String> {
    match text.split_once(':') {
        None => Ok((text, None)),
        Some((name, "all")) => Ok((name, None)),
        Some((name, step)) => match parse_size(step)? {
            bytes if bytes <= 1 << 30 => Ok((name, Some(bytes as usize))),
            _ => Err(format!("`{step}` is too large a step: at most 1g")),
        },
    }
}

impl FromStr for FileRoad {
    type Err = String;

    fn from_str(text: &str) -> Result<FileRoad, String> {
        match parse(text)? {
            ("read-send", Some(n)) => Ok(FileRoad::ReadSend(n)),
            ("sendfile", n) => Ok(FileRoad::Sendfile(n)),
            ("inline-splice", Some(n)) => Ok(FileRoad::InlineSplice(n)),
            ("splice-sqe", Some(n)) => Ok(FileRoad::SpliceSqe(n)),
            ("read-fixed-send", Some(n)) => Ok(FileRoad::ReadFixedSend(n)),
            ("read-fixed-send-zc", Some(n)) => Ok(FileRoad::ReadFixedSendZc(n)),
            _ => Err(format!(
                "`{text}` is no road: read-send, sendfile, inline-splice, splice-sqe, read-fixed-send or \
                 read-fixed-send-zc, each with a step such as :64k"
            )),
        }
    }
}

impl fmt::Display for FileRoad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, step) = match *self {
            FileRoad::ReadSend(n) => ("read-send", Some(n)),
            FileRoad::Sendfile(n) => ("sendfile", n),
            FileRoad::InlineSplice(n) => ("inline-splice", Some(n)),
            FileRoad::SpliceSqe(n) => ("splice-sqe", Some(n)),
            FileRoad::ReadFixedSend(n) => ("read-fixed-send", Some(n)),
            FileRoad::ReadFixedSendZc(n) => ("read-fixed-send-zc", Some(n)),
        };
        match step {
            Some(n) => write!(f, "{name}:{}", show_size(n as u64)),
            None => write!(f, "{name}:all"),
        }
    }
}

impl FromStr for RelayRoad {
    type Err = String;

    fn from_str(text: &str) -> Result<RelayRoad, String> {
        match parse(text)? {
            ("recv-send", n) => Ok(RelayRoad::RecvSend(n.unwrap_or(64 << 10))),
            ("splice-sqe", Some(n)) => Ok(RelayRoad::SpliceSqe(n)),
            ("inline-splice", Some(n)) => Ok(RelayRoad::InlineSplice(n)),
            ("mshot", None) => Ok(RelayRoad::Mshot),
            _ => Err(format!(
                "`{text}` is no road: mshot, or recv-send, splice-sqe or inline-splice with a step such as :64k"
            )),
        }
    }
}

impl fmt::Display for RelayRoad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, step) = match *self {
            RelayRoad::RecvSend(n) => ("recv-send", n),
            RelayRoad::SpliceSqe(n) => ("splice-sqe", n),
            RelayRoad::InlineSplice(n) => ("inline-splice", n),
            RelayRoad::Mshot => return f.write_str("mshot"),
        };
        write!(f, "{name}:{}", show_size(step as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roads_read_back_as_they_print() {
        for text in [
            "read-send:64k",
            "sendfile:1m",
            "sendfile:all",
            "inline-splice:64k",
            "splice-sqe:1m",
            "read-fixed-send:256k",
            "read-fixed-send-zc:64k",
        ] {
            assert_eq!(text.parse::<FileRoad>().unwrap().to_string(), text);
        }
        for text in ["recv-send:64k", "splice-sqe:1m", "inline-splice:64k", "mshot"] {
            assert_eq!(text.parse::<RelayRoad>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_road_says_what_is() {
        for text in ["", "splice", "inline-splice", "inline-splice:0", "splice-sqe:2g", "mshot:64k"] {
            assert!(text.parse::<FileRoad>().is_err());
            assert!(text.parse::<RelayRoad>().is_err());
        }
    }
}
