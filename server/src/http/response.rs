//! Response heads, and the few responses that are nothing but text (RFC 9112 4, RFC 9110 8 and 10).

use std::time::SystemTime;

use super::Status;
use super::date::{DateCache, http_date};
use super::request::After;

/// How long caches may keep a file without asking again. One hour, as the server's contract says.
const CACHE_CONTROL: &str = "Cache-Control: public, max-age=3600\r\n";

/// What the head of a 200 says about the file.
#[derive(Debug)]
pub(crate) struct FileFacts<'a> {
    /// The media type.
    pub(crate) content_type: &'a str,
    /// The size in bytes.
    pub(crate) size: u64,
    /// When the file was last written.
    pub(crate) modified: SystemTime,
}

/// Appends the head of a 200 for a file to `out`; `fields` is what [`file_fields`] wrote for it.
pub(crate) fn file_head(
    out: &mut Vec<u8>,
    dates: &mut DateCache,
    now: SystemTime,
    fields: &[u8],
    after: After,
) {
    begin(out, Status::Ok, dates.text(now), after);
    out.extend_from_slice(fields);
}

/// Appends that part of a file's head which is the same in every answer, and ends it.
pub(crate) fn file_fields(out: &mut Vec<u8>, now: SystemTime, file: &FileFacts<'_>) {
    field(out, "Content-Type", file.content_type);
    number(out, "Content-Length", file.size);
    // RFC 9110 8.8.2.1: a time in the future is replaced by the time of the message.
    if let Some(modified) = http_date(file.modified.min(now)) {
        field(out, "Last-Modified", &modified);
    }
    out.extend_from_slice(CACHE_CONTROL.as_bytes());
    out.extend_from_slice(b"\r\n");
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
    let line = status.line();
    let body_len = if why.is_empty() { line.len() + 1 } else { line.len() + 2 + why.len() + 1 };
    field(out, "Content-Type", "text/plain; charset=utf-8");
    number(out, "Content-Length", body_len as u64);
    if status == Status::MethodNotAllowed {
        field(out, "Allow", "GET, HEAD");
    }
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
    // 20 digits hold the largest u64.
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    let mut rest = value;
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(&digits[at..]);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    const NOW: Duration = Duration::from_secs(784_111_777);

    fn head(modified: SystemTime, after: After) -> String {
        let mut out = Vec::new();
        let (now, mut fields) = (UNIX_EPOCH + NOW, Vec::new());
        file_fields(&mut fields, now, &FileFacts { content_type: "image/png", size: u64::MAX, modified });
        file_head(&mut out, &mut DateCache::default(), now, &fields, after);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_head_of_a_file() {
        assert_eq!(
            head(UNIX_EPOCH, After::Keep),
            "HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Type: image/png\r\n\
             Content-Length: 18446744073709551615\r\nLast-Modified: Thu, 01 Jan 1970 00:00:00 GMT\r\n\
             Cache-Control: public, max-age=3600\r\n\r\n"
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
