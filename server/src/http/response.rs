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

/// That part of a file's heads which is the same in every answer, in the order in which fewer answers have
/// it.
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

/// Appends the head of a 200, or of a 206, for a file to `out`; `fields` is what [`file_fields`] wrote for
/// it.
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
    // A directory may become a file later, and browsers keep redirections for ever unless that is forbidden.
    field(out, "Cache-Control", "no-cache");
    out.extend_from_slice(lines.as_bytes());
    text(out, Status::MovedPermanently, "", with_body);
}

/// Appends a whole response that says `status` to `out`, with one line of text as its body; `with_body` is
/// false for the answer to HEAD, which has the same head and no body (RFC 9110 9.3.2).
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

/// Appends the whole response to a range that a file of `size` bytes does not have: it says how long the file
/// is (RFC 9110 15.5.17).
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
#[path = "response_tests.rs"]
mod tests;
