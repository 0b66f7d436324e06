//! The time of a line, as text that is made once a second.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The last second that fits the four digits of a year: 9999-12-31T23:59:59Z.
const LAST: u64 = 253_402_300_799;

/// A moment, in the notation of every format. In UTC: local time has some hours twice.
#[derive(Debug, Default)]
pub(super) struct Clock {
    /// Seconds since 1970 plus one; 0 for none.
    second: u64,
    millis: u32,
    common: String,
    iso: String,
}

impl Clock {
    /// Sets it.
    pub(super) fn set(&mut self, now: SystemTime) {
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.millis = since.subsec_millis();
        let second = since.as_secs().min(LAST);
        if self.second != second + 1 {
            self.second = second + 1;
            // "Sun, 06 Nov 1994 08:49:37 GMT" has all the parts.
            let date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(second));
            let (day, month, year, time) = (&date[5..7], &date[8..11], &date[12..16], &date[17..25]);
            self.common = format!("{day}/{month}/{year}:{time} +0000");
            let months = "JanFebMarAprMayJunJulAugSepOctNovDec";
            let month = months.find(month).map_or(0, |at| at / 3 + 1);
            self.iso = format!("{year}-{month:02}-{day}T{time}");
        }
    }

    /// Such as `06/Nov/1994:08:49:37 +0000`.
    pub(super) fn common(&self) -> &str {
        &self.common
    }

    /// Appends it as RFC 3339 has it, such as `1994-11-06T08:49:37.123Z`.
    pub(super) fn iso(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.iso.as_bytes());
        out.push(b'.');
        out.extend_from_slice(&itoa::Buffer::new().format(1000 + self.millis).as_bytes()[1..]);
        out.push(b'Z');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_in_both_forms() {
        let mut clock = Clock::default();
        let iso = |clock: &Clock| {
            let mut out = Vec::new();
            clock.iso(&mut out);
            String::from_utf8(out).unwrap()
        };
        clock.set(UNIX_EPOCH + Duration::from_millis(784_111_777_007));
        assert_eq!(clock.common(), "06/Nov/1994:08:49:37 +0000");
        assert_eq!(iso(&clock), "1994-11-06T08:49:37.007Z");
        clock.set(UNIX_EPOCH + Duration::from_millis(784_111_777_999));
        assert_eq!(iso(&clock), "1994-11-06T08:49:37.999Z");
        clock.set(UNIX_EPOCH + Duration::from_secs(1_735_689_600));
        assert_eq!(
            (clock.common(), iso(&clock).as_str()),
            ("01/Jan/2025:00:00:00 +0000", "2025-01-01T00:00:00.000Z")
        );
    }

    #[test]
    fn a_clock_that_is_far_off_is_no_reason_to_stop() {
        let mut clock = Clock::default();
        clock.set(UNIX_EPOCH - Duration::from_secs(1));
        assert_eq!(clock.common(), "01/Jan/1970:00:00:00 +0000");
        clock.set(UNIX_EPOCH + Duration::from_secs(LAST + 5));
        assert_eq!(clock.common(), "31/Dec/9999:23:59:59 +0000");
    }
}
