//! What a runtime does when memory cannot lie where it should.

use std::fmt;
use std::str::FromStr;

use crate::{Error, ErrorKind};

/// How strictly each core's memory is kept on its node.
///
/// ```
/// use annulus::PlacementPolicy;
/// assert_eq!("require".parse::<PlacementPolicy>()?, PlacementPolicy::Require);
/// assert_eq!(PlacementPolicy::default().to_string(), "prefer");
/// # Ok::<(), annulus::Error>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PlacementPolicy {
    /// Do not start unless every page of every core is known to lie on its node, and every pool is as large
    /// as asked.
    Require,
    /// Place as well as the machine allows, and report every deviation.
    #[default]
    Prefer,
    /// Pin threads and place no memory: it lies where the kernel puts it. For comparison.
    Off,
}

impl fmt::Display for PlacementPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Require => "require",
            Self::Prefer => "prefer",
            Self::Off => "off",
        })
    }
}

impl FromStr for PlacementPolicy {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "require" => Ok(Self::Require),
            "prefer" => Ok(Self::Prefer),
            "off" => Ok(Self::Off),
            _ => {
                let what = format!("{text:?} is no placement policy; write require, prefer or off");
                Err(Error::new(ErrorKind::Input, what))
            }
        }
    }
}
