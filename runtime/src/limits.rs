//! The largest numbers that an SQE or a system call can hold. A larger number becomes negative there, or is
//! cut, and has another meaning: offset -1 is "the file's own position".

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::{Error, ErrorKind, Result};

/// An offset in a file, or its length, in bytes: `loff_t` has 63 bits and a sign.
pub(crate) const OFFSET: u64 = i64::MAX as u64;
/// A size that the kernel takes as an `int`, in bytes.
pub(crate) const INT: u64 = i32::MAX as u64;

/// Refuses a value above `most`. `what` names it.
#[inline(always)]
pub(crate) fn refuse_above(most: u64, what: &'static str, value: u64) -> Result<()> {
    if value <= most { Ok(()) } else { Err(refused(most, what, value)) }
}

#[cold]
fn refused(most: u64, what: &'static str, value: u64) -> Error {
    Error::new(
        ErrorKind::Input,
        format!("{what} of {value} bytes is more than the kernel can be told: {most} at most"),
    )
}

/// The unit in which the kernel counts a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Seconds,
    Milliseconds,
}

/// A time in whole units of the kernel. A time that would be rounded, cut or taken for something else is
/// refused. `what` names it.
pub(crate) fn in_units(
    unit: Unit,
    range: RangeInclusive<u32>,
    what: &'static str,
    time: Duration,
) -> Result<u32> {
    let (units, rest) = match unit {
        Unit::Seconds => (u128::from(time.as_secs()), time.subsec_nanos()),
        Unit::Milliseconds => (time.as_millis(), time.subsec_nanos() % 1_000_000),
    };
    match u32::try_from(units) {
        Ok(units) if rest == 0 && range.contains(&units) => Ok(units),
        _ => {
            let (least, most) = range.into_inner();
            let unit = if unit == Unit::Seconds { "seconds" } else { "milliseconds" };
            let what =
                format!("{what} of {time:?} cannot be told to the kernel: whole {unit}, {least} to {most}");
            Err(Error::new(ErrorKind::Input, what))
        }
    }
}

/// Refuses a number outside of `range`. `what` names it.
pub(crate) fn refuse_outside(range: RangeInclusive<u32>, what: &'static str, value: u32) -> Result<()> {
    if range.contains(&value) {
        return Ok(());
    }
    let (least, most) = range.into_inner();
    Err(Error::new(ErrorKind::Input, format!("{what} cannot be {value}: {least} to {most}")))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_largest_number_that_means_itself_is_the_last_that_is_taken() {
        for most in [OFFSET, INT] {
            refuse_above(most, "an offset", most).unwrap();
            for value in [most + 1, u64::MAX] {
                let error = refuse_above(most, "an offset", value).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Input);
                assert!(error.to_string().contains(&format!("an offset of {value} bytes")), "{error}");
            }
        }
    }
}
