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
    assert!(text.contains("\r\nAllow: GET, HEAD, OPTIONS\r\n") && !text.contains("Content-Length"), "{text}");
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
