//! Sizes as people write them on a command line: `64k`, `1m`, `1g`, or plain bytes.

/// Bytes meant by `text`: a number with an optional binary suffix `k`, `m` or `g` in either case.
///
/// # Errors
/// What is not such a number, is zero, or does not fit 64 bits; the text says which.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 10),
        Some(b'm' | b'M') => (&text[..text.len() - 1], 20),
        Some(b'g' | b'G') => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    let number: u64 =
        digits.parse().map_err(|_| format!("`{text}` is not a size such as 64k, 1m or 4096"))?;
    match number.checked_mul(1 << shift) {
        Some(0) => Err(format!("`{text}`: a size of zero moves nothing")),
        Some(bytes) => Ok(bytes),
        None => Err(format!("`{text}` does not fit 64 bits")),
    }
}

/// The shortest way to write `bytes` that [`parse_size`] reads back.
pub fn show_size(bytes: u64) -> String {
    for (shift, suffix) in [(30, "g"), (20, "m"), (10, "k")] {
        if bytes != 0 && bytes.trailing_zeros() >= shift {
            return format!("{}{suffix}", bytes >> shift);
        }
    }
    bytes.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_back_as_they_were_written() {
        for (text, bytes) in [("1", 1), ("1000", 1000), ("64k", 65536), ("1m", 1 << 20), ("3g", 3 << 30)] {
            assert_eq!(parse_size(text), Ok(bytes));
            assert_eq!(show_size(bytes), text);
        }
        assert_eq!(parse_size("64K"), Ok(65536));
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in ["", "k", "-1", "64kb", "0", "0m", "99999999999g"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }
}
