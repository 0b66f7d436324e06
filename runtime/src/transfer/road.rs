//! The roads, and which one is the default.

use std::fmt;
use std::str::FromStr;

/// How bulk moves.
///
/// The type has the word of the flag `--road` and of all output, so that there is only one to learn.
///
/// The kernel runs every splice SQE on an io-wq worker: two context switches a step, which pays only where
/// the step is large or would have waited anyway. So the default is [`Inline`](Road::Inline). The bench
/// `roads` in `benches/` has the figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Road {
    /// Splice SQEs: the ring's pinned and bounded io-wq workers move every byte, each step after a poll.
    Ring,
    /// `splice(2)`, or `sendfile(2)` for a file's pages in memory, on the core. Neither waits: sockets are
    /// `O_NONBLOCK`, readiness comes from the ring, and a splice SQE reads file pages that are not in memory.
    #[default]
    Inline,
}

impl fmt::Display for Road {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Road::Ring => "ring",
            Road::Inline => "inline",
        })
    }
}

/// The error for a word that names no road.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseRoadError(String);

impl fmt::Display for ParseRoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no road is called {:?}: choose ring or inline", self.0)
    }
}

impl std::error::Error for ParseRoadError {}

impl FromStr for Road {
    type Err = ParseRoadError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        match s {
            "ring" => Ok(Road::Ring),
            "inline" => Ok(Road::Inline),
            other => Err(ParseRoadError(other.to_owned())),
        }
    }
}
