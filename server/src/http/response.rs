//! Response heads, and the few responses that are nothing but text (RFC 9112 4, RFC 9110 8, 10 and 15).

use std::ops::Range;
use std::time::SystemTime;

use super::Status;
use super::date::{DateCache, http_date};
use super::method::ALLOWED;
use super::multipart::Multipart;
use super::request::After;

/// What heads say about a file.
#[derive(Debug)]
pub(crate) struct FileFacts<'a> {
    /// The media type.
    pub(crate) content_type: &'a str,
    /// When the file was last written.
    pub(crate) modified: SystemTime,
    /// Its entity tag.
    pub(crate) tag: &'a str,
    /// The value of Cache-Control.
    pub(crate) cache_control: &'a str,
    /// What the choice of the file depended on, if on anything.
    pub(crate) vary: &'a str,
    /// The coding that the file is in, if in any.
    pub(crate) content_encoding: &'a str,
    /// Whole lines of the operator's.
    pub(crate) lines: &'a str,
}

/// That part of a file's heads which is the same in every answer, in the order in which fewer answers have it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct FieldsLayout {
    /// Up to here it is what a 304 says too (RFC 9110 15.4.5).
    cached: usize,
    /// Up to here it is what an answer of several parts says too: what follows is the Content-Type.
    of_parts: usize,
}

/// How much of a file an answer holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Extent {
    /// All of it.
    Whole(u64),
    /// These bytes of it, of which there is at least one, and its size.
    Part(Range<u64>, u64),
}

impl Extent {
    /// Which bytes.
    pub(crate) fn range(&self) -> Range<u64> {
        match self {
            Extent::Whole(size) => 0..*size,
            Extent::Part(range, _) => range.clone(),
        }
    }

    /// The status of an answer that holds it.
    pub(crate) fn status(&self) -> Status {
        match self {
            Extent::Whole(_) => Status::Ok,
            Extent::Part(..) => Status::PartialContent,
        }
    }

    /// How many bytes.
    pub(crate) fn len(&self) -> u64 {
        let range = self.range();
        range.end - range.start
    }
}

/// What a head is written with: the time, and what becomes of the connection.
#[derive(Debug)]
pub(crate) struct Moment<'a> {
    pub(crate) dates: &'a mut DateCache,
    pub(crate) now: SystemTime,
    pub(crate) after: After,
}

/// Appends that part of a file's heads which is the same in every answer.
pub(crate) fn file_fields(out: &mut Vec<u8>, now: SystemTime, file: &FileFacts<'_>) -> FieldsLayout {
    let start = out.len();
    field(out, "ETag", file.tag);
    field(out, "Cache-Control", file.cache_control);
    if !file.vary.is_empty() {
        field(out, "Vary", file.vary);
    }
    out.extend_from_slice(file.lines.as_bytes());
    let cached = out.len() - start;
    field(out, "Accept-Ranges", "bytes");
    // RFC 9110 8.8.2.1: a time in the future is replaced by the time of the message.
    if let Some(modified) = http_date(file.modified.min(now)) {
        field(out, "Last-Modified", &modified);
    }
    if !file.content_encoding.is_empty() {
        field(out, "Content-Encoding", file.content_encoding);
    }
    let of_parts = out.len() - start;
    field(out, "Content-Type", file.content_type);
    FieldsLayout { cached, of_parts }
}

/// Appends the head of a 200, or of a 206, for a file to `out`; `fields` is what [`file_fields`] wrote for it.
pub(crate) fn file_head(out: &mut Vec<u8>, moment: Moment<'_>, fields: &[u8], extent: &Extent) {
    begin(out, extent.status(), moment);
    out.extend_from_slice(fields);
    number(out, "Content-Length", extent.len());
    if let Extent::Part(range, size) = extent {
        // RFC 9110 14.4: the last byte is counted in.
        out.extend_from_slice(b"Content-Range: bytes ");
        digits(out, range.start);
        out.push(b'-');
        digits(out, range.end - 1);
        out.push(b'/');
        digits(out, *size);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends the head of a 206 that holds several parts.
pub(crate) fn parts_head(
    out: &mut Vec<u8>,
    moment: Moment<'_>,
    fields: (&[u8], FieldsLayout),
    multipart: &Multipart,
) {
    begin(out, Status::PartialContent, moment);
    out.extend_from_slice(&fields.0[..fields.1.of_parts]);
    field(out, "Content-Type", &multipart.content_type());
    number(out, "Content-Length", multipart.len());
    out.extend_from_slice(b"\r\n");
}

/// Appends a whole 304.
pub(crate) fn not_modified(out: &mut Vec<u8>, moment: Moment<'_>, fields: (&[u8], FieldsLayout)) {
    begin(out, Status::NotModified, moment);
    out.extend_from_slice(&fields.0[..fields.1.cached]);
    out.extend_from_slice(b"\r\n");
}

/// Appends a whole response to OPTIONS; `lines` are whole lines.
pub(crate) fn options(out: &mut Vec<u8>, moment: Moment<'_>, lines: &str) {
    begin(out, Status::NoContent, moment);
    field(out, "Allow", ALLOWED);
    out.extend_from_slice(lines.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Appends a whole response that sends the client to `location`.
pub(crate) fn moved(out: &mut Vec<u8>, moment: Moment<'_>, location: &str, lines: &str, with_body: bool) {
    begin(out, Status::MovedPermanently, moment);
    field(out, "Location", location);
    // What is a directory today may be a file tomorrow, and browsers keep redirections for ever where nobody forbids it.
    field(out, "Cache-Control", "no-cache");
    out.extend_from_slice(lines.as_bytes());
    text(out, Status::MovedPermanently, "", with_body);
}

/// Appends a whole response that says `status` to `out`, with one line of text as its body; `with_body` is false
/// for the answer to HEAD, which has the same head and no body (RFC 9110 9.3.2).
pub(crate) fn plain(
    out: &mut Vec<u8>,
    moment: Moment<'_>,
    status: Status,
    why: &str,
    lines: &str,
    with_body: bool,
) {
    begin(out, status, moment);
    if status == Status::MethodNotAllowed {
        field(out, "Allow", ALLOWED);
    }
    out.extend_from_slice(lines.as_bytes());
    text(out, status, why, with_body);
}

/// Something that was made for one answer: a page.
#[derive(Debug)]
pub(crate) struct Page<'a> {
    pub(crate) content_type: &'a str,
    /// Whole lines.
    pub(crate) lines: &'a str,
    pub(crate) body: &'a [u8],
}

/// Appends a whole response that holds a page.
pub(crate) fn page(out: &mut Vec<u8>, moment: Moment<'_>, status: Status, page: &Page<'_>, with_body: bool) {
    begin(out, status, moment);
    if status == Status::MethodNotAllowed {
        field(out, "Allow", ALLOWED);
    }
    field(out, "Cache-Control", "no-cache");
    out.extend_from_slice(page.lines.as_bytes());
    field(out, "Content-Type", page.content_type);
    number(out, "Content-Length", page.body.len() as u64);
    out.extend_from_slice(b"\r\n");
    if with_body {
        out.extend_from_slice(page.body);
    }
}

/// Appends the whole response to a range that a file of `size` bytes does not have: it says how long the file is (RFC 9110
/// 15.5.17).
pub(crate) fn unsatisfiable(out: &mut Vec<u8>, moment: Moment<'_>, size: u64) {
    begin(out, Status::RangeNotSatisfiable, moment);
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
fn begin(out: &mut Vec<u8>, status: Status, moment: Moment<'_>) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.line().as_bytes());
    out.extend_from_slice(b"\r\n");
    let date = moment.dates.text(moment.now);
    if !date.is_empty() {
        field(out, "Date", date);
    }
    match moment.after {
        After::Keep => {}
        After::KeepAndSay => field(out, "Connection", "keep-alive"),
        After::Close => field(out, "Connection", "close"),
    }
}

pub(crate) fn field(out: &mut Vec<u8>, name: &str, value: &str) {
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

    /// What `write` writes at the same moment each time.
    fn written(after: After, write: impl FnOnce(&mut Vec<u8>, Moment<'_>)) -> String {
        let mut out = Vec::new();
        write(&mut out, Moment { dates: &mut DateCache::default(), now: UNIX_EPOCH + NOW, after });
        String::from_utf8(out).unwrap()
    }

    fn fields(modified: SystemTime) -> (Vec<u8>, FieldsLayout) {
        let facts = FileFacts {
            content_type: "image/png",
            modified,
            tag: "\"t\"",
            cache_control: "no-cache",
            vary: "",
            content_encoding: "br",
            lines: "X: y\r\n",
        };
        let mut out = Vec::new();
        let layout = file_fields(&mut out, UNIX_EPOCH + NOW, &facts);
        (out, layout)
    }

    fn head(modified: SystemTime, after: After) -> String {
        written(after, |out, moment| file_head(out, moment, &fields(modified).0, &Extent::Whole(u64::MAX)))
    }

    #[test]
    fn the_head_of_a_part_says_which_and_of_how_much() {
        let text = written(After::Keep, |out, moment| {
            file_head(out, moment, &fields(UNIX_EPOCH).0, &Extent::Part(5..10, 1000));
        });
        assert!(text.starts_with("HTTP/1.1 206 Partial Content\r\n"), "{text}");
        assert!(text.ends_with("Content-Length: 5\r\nContent-Range: bytes 5-9/1000\r\n\r\n"), "{text}");
    }

    #[test]
    fn the_head_of_several_parts_has_no_range_and_another_type() {
        let multipart = Multipart::new("image/png", 100, vec![0..1, 2..3], 1);
        let (fields, layout) = fields(UNIX_EPOCH);
        let text = written(After::Keep, |out, moment| parts_head(out, moment, (&fields, layout), &multipart));
        assert!(text.starts_with("HTTP/1.1 206 Partial Content\r\n"), "{text}");
        assert!(text.contains("Content-Type: multipart/byteranges; boundary="), "{text}");
        assert!(!text.contains("image/png") && !text.contains("Content-Range"), "{text}");
        assert!(
            text.contains("Accept-Ranges") && text.contains("ETag") && text.contains("Last-Modified"),
            "{text}"
        );
    }

    #[test]
    fn what_a_file_does_not_have_is_told_with_its_length() {
        let text = written(After::Keep, |out, moment| unsatisfiable(out, moment, 1000));
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 416 Range Not Satisfiable\r\n"), "{text}");
        assert!(head.contains("\r\nContent-Range: bytes */1000\r\n"), "{text}");
        assert!(head.contains(&format!("\r\nContent-Length: {}", body.len())), "{text}");
    }

    #[test]
    fn what_was_not_modified_is_told_without_what_describes_it() {
        let (fields, layout) = fields(UNIX_EPOCH);
        let text = written(After::Keep, |out, moment| not_modified(out, moment, (&fields, layout)));
        assert_eq!(
            text,
            "HTTP/1.1 304 Not Modified\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nETag: \"t\"\r\n\
             Cache-Control: no-cache\r\nX: y\r\n\r\n"
        );
    }

    #[test]
    fn options_are_told() {
        let text = written(After::Close, |out, moment| options(out, moment, "A: b\r\n"));
        assert!(text.starts_with("HTTP/1.1 204 No Content\r\n"), "{text}");
        assert!(
            text.contains("\r\nAllow: GET, HEAD, OPTIONS\r\n") && !text.contains("Content-Length"),
            "{text}"
        );
    }

    #[test]
    fn the_head_of_a_file() {
        assert_eq!(
            head(UNIX_EPOCH, After::Keep),
            "HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nETag: \"t\"\r\nCache-Control: no-cache\r\n\
             X: y\r\nAccept-Ranges: bytes\r\nLast-Modified: Thu, 01 Jan 1970 00:00:00 GMT\r\nContent-Encoding: br\r\nContent-Type: image/png\r\n\
             Content-Length: 18446744073709551615\r\n\r\n"
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
            let with =
                |body| written(After::Close, |out, moment| plain(out, moment, status, why, "X: y\r\n", body));
            let (whole, bare) = (with(true), with(false));
            let (head, body) = whole.split_once("\r\n\r\n").unwrap();
            assert_eq!(format!("{head}\r\n\r\n"), bare);
            assert!(head.contains(&format!("Content-Length: {}", body.len())), "{whole}");
            assert_eq!(status == Status::MethodNotAllowed, head.contains("\r\nAllow: GET, HEAD, OPTIONS"));
            assert!(body.starts_with(status.line()) && body.contains(why));
        }
    }

    #[test]
    fn pages_and_redirections() {
        let made = Page { content_type: "text/html", lines: "X: y\r\n", body: b"<p>" };
        let text = written(After::Keep, |out, moment| page(out, moment, Status::NotFound, &made, true));
        assert!(text.starts_with("HTTP/1.1 404 Not Found\r\n"), "{text}");
        assert!(text.ends_with("X: y\r\nContent-Type: text/html\r\nContent-Length: 3\r\n\r\n<p>"), "{text}");
        let text = written(After::Keep, |out, moment| moved(out, moment, "a/?b", "", false));
        assert!(
            text.contains("\r\nLocation: a/?b\r\n") && text.ends_with("Content-Length: 22\r\n\r\n"),
            "{text}"
        );
    }

    #[test]
    fn numbers() {
        for (value, text) in [(0, "0"), (9, "9"), (10, "10"), (3_221_225_472, "3221225472")] {
            let mut out = Vec::new();
            number(&mut out, "N", value);
            assert_eq!(out, format!("N: {text}\r\n").into_bytes());
        }
        assert_eq!((Status::Ok.code(), Status::VersionNotSupported.code()), (200, 505));
    }
}
