//! The largest numbers that an SQE or a system call can hold. What is larger comes out negative there, or
//! cut, and means something else: offset -1 is "the file's own position".

use crate::{Error, ErrorKind, Result};

/// An offset in a file, or its length, in bytes: `loff_t` has 63 bits and a sign.
pub(crate) const OFFSET: u64 = i64::MAX as u64;
/// A size that is told by an `int`, in bytes.
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
