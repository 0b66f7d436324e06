//! HTTP dates (RFC 9110 5.6.7), formatted at most once a second.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The last second that fits the four digits of a year: 9999-12-31T23:59:59Z.
const LAST: u64 = 253_402_300_799;

/// The text of `time` as an HTTP date, or `None` for one that the format cannot say: before 1970 or after
/// 9999, which files do have (`touch -d 1960-01-01`).
pub(crate) fn http_date(time: SystemTime) -> Option<String> {
    let second = time.duration_since(UNIX_EPOCH).ok()?.as_secs();
    (second <= LAST).then(|| httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(second)))
}

/// The current date, kept as text until the second changes.
#[derive(Debug, Default)]
pub(crate) struct DateCache {
    second: u64,
    text: String,
}

impl DateCache {
    /// The text for `now`; empty if the machine's clock says a time before 1970 or after 9999 (RFC 9110
    /// 6.6.1: a server without a clock sends no Date).
    pub(crate) fn text(&mut self, now: SystemTime) -> &str {
        let second = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        if self.text.is_empty() || second != self.second {
            self.second = second;
            self.text = http_date(now).unwrap_or_default();
        }
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_changes_with_the_second_only() {
        let mut cache = DateCache::default();
        let at = UNIX_EPOCH + Duration::from_secs(784_111_777);
        assert_eq!(cache.text(at), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(cache.text(at + Duration::from_millis(999)), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(cache.text(at + Duration::from_secs(1)), "Sun, 06 Nov 1994 08:49:38 GMT");
        assert_eq!(cache.text(at), "Sun, 06 Nov 1994 08:49:37 GMT");
    }

    #[test]
    fn times_that_cannot_be_said() {
        assert_eq!(http_date(UNIX_EPOCH - Duration::from_secs(1)), None);
        assert_eq!(http_date(UNIX_EPOCH + Duration::from_secs(LAST + 1)), None);
        assert_eq!(http_date(UNIX_EPOCH).as_deref(), Some("Thu, 01 Jan 1970 00:00:00 GMT"));
        assert_eq!(
            http_date(UNIX_EPOCH + Duration::from_secs(LAST)).as_deref(),
            Some("Fri, 31 Dec 9999 23:59:59 GMT")
        );
    }
}
