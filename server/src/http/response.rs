//! Response heads, and the few responses that are nothing but text (RFC 9112 4, RFC 9110 8, 10 and 14).

use std::ops::Range;
use std::time::SystemTime;

use super::Status;
use super::date::{DateCache, http_date};
use super::request::After;

/// How long caches may keep a file without asking again. One hour, as the server's contract says.
const CACHE_CONTROL: &str = "Cache-Control: public, max-age=3600\r\n";

/// What every head says about the file.
#[derive(Debug)]
pub(crate) struct FileFacts<'a> {
    /// The media type.
    pub(crate) content_type: &'a str,
    /// When the file was last written.
    pub(crate) modified: SystemTime,
}

/// How much of a file an answer holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Extent {
    /// These bytes of it.
    pub(crate) range: Range<u64>,
    /// The size of the file in bytes, if the client asked for a part and is to be told what it is part of.
    pub(crate) of: Option<u64>,
}

impl Extent {
    /// How many bytes.
    pub(crate) fn len(&self) -> u64 {
        self.range.end - self.range.start
    }
}

/// Appends the head of a 200, or of a 206, for a file to `out`; `fields` is what [`file_fields`] wrote for it.
pub(crate) fn file_head(
    out: &mut Vec<u8>,
    dates: &mut DateCache,
    now: SystemTime,
    fields: &[u8],
    extent: &Extent,
    after: After,
) {
    let status = if extent.of.is_some() { Status::PartialContent } else { Status::Ok };
    begin(out, status, dates.text(now), after);
    out.extend_from_slice(fields);
    number(out, "Content-Length", extent.len());
    if let Some(size) = extent.of {
        // RFC 9110 14.4: the last byte is counted in. There is at least one.
        out.extend_from_slice(b"Content-Range: bytes ");
        digits(out, extent.range.start);
        out.push(b'-');
        digits(out, extent.range.end - 1);
        out.push(b'/');
        digits(out, size);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends that part of a file's head which is the same in every answer.
pub(crate) fn file_fields(out: &mut Vec<u8>, now: SystemTime, file: &FileFacts<'_>) {
    field(out, "Content-Type", file.content_type);
    field(out, "Accept-Ranges", "bytes");
    // RFC 9110 8.8.2.1: a time in the future is replaced by the time of the message.
    if let Some(modified) = http_date(file.modified.min(now)) {
        field(out, "Last-Modified", &modified);
    }
    out.extend_from_slice(CACHE_CONTROL.as_bytes());
}

/// Appends a whole response that says `status` to `out`, with one line of text as its body; `with_body` is false
/// for the answer to HEAD, which has the same head and no body (RFC 9110 9.3.2).
pub(crate) fn plain(
    out: &mut Vec<u8>,
    dates: &mut DateCache,
    now: SystemTime,
    status: Status,
    why: &str,
    after: After,
    with_body: bool,
) {
    begin(out, status, dates.text(now), after);
    if status == Status::MethodNotAllowed {
        field(out, "Allow", "GET, HEAD");
    }
    text(out, status, why, with_body);
}

/// Appends the whole response to a range that a file of `size` bytes does not have: it says how long the file is (RFC 9110
/// 15.5.17).
pub(crate) fn unsatisfiable(
    out: &mut Vec<u8>,
    dates: &mut DateCache,
    now: SystemTime,
    size: u64,
    after: After,
) {
    begin(out, Status::RangeNotSatisfiable, dates.text(now), after);
    out.extend_from_slice(b"Content-Range: bytes */");
    digits(out, size);
    out.extend_from_slice(b"\r\n");
    text(out, Status::RangeNotSatisfiable, "", true);
}

/// The fields of a line of text, the end of the head, and the line.
fn text(out: &mut Vec<u8>, status: Status, why: &str, with_body: bool) {
    let line = status.line();
    let body_len = if why.is_empty() { line.len() + 1 } else { line.len() + 2 + why.len() + 1 };
    field(out, "Content-Type", "text/plain; charset=utf-8");
    number(out, "Content-Length", body_len as u64);
    out.extend_from_slice(b"\r\n");
    if with_body {
        out.extend_from_slice(line.as_bytes());
        if !why.is_empty() {
            out.extend_from_slice(b": ");
            out.extend_from_slice(why.as_bytes());
        }
        out.push(b'\n');
    }
}

/// The status line, Date and Connection.
fn begin(out: &mut Vec<u8>, status: Status, date: &str, after: After) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.line().as_bytes());
    out.extend_from_slice(b"\r\n");
    if !date.is_empty() {
        field(out, "Date", date);
    }
    match after {
        After::Keep => {}
        After::KeepAndSay => field(out, "Connection", "keep-alive"),
        After::Close => field(out, "Connection", "close"),
    }
}

fn field(out: &mut Vec<u8>, name: &str, value: &str) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn number(out: &mut Vec<u8>, name: &str, value: u64) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    digits(out, value);
    out.extend_from_slice(b"\r\n");
}

fn digits(out: &mut Vec<u8>, value: u64) {
    // 20 digits hold the largest u64.
    let mut text = [0u8; 20];
    let mut at = text.len();
    let mut rest = value;
    loop {
        at -= 1;
        text[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&text[at..]);
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    const NOW: Duration = Duration::from_secs(784_111_777);

    fn head(modified: SystemTime, after: After) -> String {
        head_of(&Extent { range: 0..u64::MAX, of: None }, modified, after)
    }

    fn head_of(extent: &Extent, modified: SystemTime, after: After) -> String {
        let mut out = Vec::new();
        let (now, mut fields) = (UNIX_EPOCH + NOW, Vec::new());
        file_fields(&mut fields, now, &FileFacts { content_type: "image/png", modified });
        file_head(&mut out, &mut DateCache::default(), now, &fields, extent, after);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_head_of_a_part_says_which_and_of_how_much() {
        let text = head_of(&Extent { range: 5..10, of: Some(1000) }, UNIX_EPOCH, After::Keep);
        assert!(text.starts_with("HTTP/1.1 206 Partial Content\r\n"), "{text}");
        assert!(text.ends_with("Content-Length: 5\r\nContent-Range: bytes 5-9/1000\r\n\r\n"), "{text}");
    }

    #[test]
    fn what_a_file_does_not_have_is_told_with_its_length() {
        let mut out = Vec::new();
        unsatisfiable(&mut out, &mut DateCache::default(), UNIX_EPOCH + NOW, 1000, After::Keep);
        let text = String::from_utf8(out).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 416 Range Not Satisfiable\r\n"), "{text}");
        assert!(head.contains("\r\nContent-Range: bytes */1000\r\n"), "{text}");
        assert!(head.contains(&format!("\r\nContent-Length: {}", body.len())), "{text}");
    }

    #[test]
    fn the_head_of_a_file() {
        assert_eq!(
            head(UNIX_EPOCH, After::Keep),
            "HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Type: image/png\r\n\
             Accept-Ranges: bytes\r\nLast-Modified: Thu, 01 Jan 1970 00:00:00 GMT\r\n\
             Cache-Control: public, max-age=3600\r\nContent-Length: 18446744073709551615\r\n\r\n"
        );
        assert!(head(UNIX_EPOCH, After::Close).contains("\r\nConnection: close\r\n"));
        assert!(head(UNIX_EPOCH, After::KeepAndSay).contains("\r\nConnection: keep-alive\r\n"));
    }

    #[test]
    fn last_modified_is_never_in_the_future_and_left_out_where_it_cannot_be_said() {
        let future = head(UNIX_EPOCH + NOW * 2, After::Keep);
        assert!(future.contains("Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n"));
        assert!(!head(UNIX_EPOCH - NOW, After::Keep).contains("Last-Modified"));
    }

    #[test]
    fn plain_answers_have_the_length_that_they_say() {
        for (status, why) in
            [(Status::NotFound, ""), (Status::BadRequest, "because"), (Status::MethodNotAllowed, "")]
        {
            let mut whole = Vec::new();
            let mut dates = DateCache::default();
            plain(&mut whole, &mut dates, UNIX_EPOCH + NOW, status, why, After::Close, true);
            let mut bare = Vec::new();
            plain(&mut bare, &mut dates, UNIX_EPOCH + NOW, status, why, After::Close, false);
            let whole = String::from_utf8(whole).unwrap();
            let (head, body) = whole.split_once("\r\n\r\n").unwrap();
            assert_eq!(format!("{head}\r\n\r\n").as_bytes(), bare);
            assert!(head.contains(&format!("Content-Length: {}", body.len())), "{whole}");
            assert_eq!(status == Status::MethodNotAllowed, head.contains("\r\nAllow: GET, HEAD"));
            assert!(body.starts_with(status.line()) && body.contains(why));
        }
    }

    #[test]
    fn numbers() {
        for (value, text) in [(0, "0"), (9, "9"), (10, "10"), (3_221_225_472, "3221225472")] {
            let mut out = Vec::new();
            number(&mut out, "N", value);
            assert_eq!(out, format!("N: {text}\r\n").into_bytes());
        }
    }
}
