//! `annulus serve`: parts of files, as clients ask for them that resume a download or seek in a film.

use annulus_integration_tests::files::Tree;
use annulus_integration_tests::http::{Client, Response, request};
use annulus_integration_tests::server::Launch;
use annulus_integration_tests::{curl, digest, pattern::Pattern, procfs};

const MIB: usize = 1 << 20;

#[test]
fn parts_of_small_and_large_files_arrive_by_either_road() {
    let tree = Tree::new();
    for (name, len) in [("small", 1000), ("medium", 100_000), ("large", 5 * MIB + 1)] {
        tree.bytes(name, &Pattern::bytes(len as u64, len));
    }
    for road in ["ring", "inline"] {
        let server = Launch::serve(tree.root()).road(road).start();
        let mut client = Client::connect(server.addr());
        for (name, len) in [("small", 1000), ("medium", 100_000), ("large", 5 * MIB + 1)] {
            let content = Pattern::bytes(len as u64, len);
            let last = len - 1;
            for (range, part) in [
                ("0-0".to_owned(), 0..1),
                ("0-".to_owned(), 0..len),
                (format!("{last}-"), last..len),
                ("-1".to_owned(), last..len),
                (format!("-{}", len * 2), 0..len),
                (format!("{}-{}", len / 3, len / 2), len / 3..len / 2 + 1),
                (format!("1-{}", len * 9), 1..len),
            ] {
                let response = client.get_with(&format!("/{name}"), &[&format!("Range: bytes={range}")]);
                assert_eq!(response.head.status, 206, "{name} {range}");
                let says = format!("bytes {}-{}/{len}", part.start, part.end - 1);
                assert_eq!(response.head.field("content-range"), Some(says.as_str()), "{name} {range}");
                assert_eq!(response.body.len(), part.len(), "{name} {range}");
                assert_eq!(
                    digest::of(&response.body),
                    digest::of(&content[part]),
                    "{name} {range} by {road}"
                );
            }
        }
        server.stop();
    }
}

/// What the server reads by calls is bounded by what was asked for. Reads of the ring are not counted here.
///
/// Seen to fail: with a read into all the room of the block, 68 KiB for each request.
#[test]
fn a_short_part_of_a_large_file_is_not_read_with_what_follows() {
    let tree = Tree::new();
    let content = Pattern::bytes(7, MIB);
    tree.bytes("large", &content);
    let server = Launch::serve(tree.root()).start();
    let mut client = Client::connect(server.addr());
    let mut first = || {
        let response = client.get_with("/large", &["Range: bytes=0-9"]);
        assert_eq!((response.head.status, &*response.body), (206, &content[..10]));
    };
    first();
    let before = procfs::read_by_calls(server.pid());
    (0..100).for_each(|_| first());
    let read = procfs::read_by_calls(server.pid()) - before;
    assert!(read < 100 * 4096, "{read} bytes were read for 1000");
    server.stop();
}

#[test]
fn what_is_not_a_range_gives_the_whole_file_and_what_is_not_there_416() {
    let tree = Tree::new();
    tree.file("ten", 10);
    tree.file("empty", 0);
    let server = Launch::serve(tree.root()).start();
    let mut client = Client::connect(server.addr());
    let plain = client.get_with("/ten", &[]);
    assert_eq!((plain.head.status, plain.head.field("accept-ranges")), (200, Some("bytes")));
    for fields in [
        &["Range: bytes=0-1", "Range: bytes=3-4"][..],
        &["Range: bytes=0-9,0-9"],
        &["Range: bytes=0-1,x"],
        &["Range: bytes=4-3"],
        &["Range: seconds=0-1"],
        &["Range: bytes=0-1", "If-Range: \"tag\""],
        &["Range: bytes=0-1", "If-Range: Thu, 01 Jan 1970 00:00:00 GMT"],
    ] {
        let response = client.get_with("/ten", fields);
        assert_eq!((response.head.status, response.body.len()), (200, 10), "{fields:?}");
        assert_eq!(response.head.field("content-range"), None, "{fields:?}");
    }
    for (path, range, len) in [("/ten", "10-", 10), ("/ten", "-0", 10), ("/empty", "0-", 0)] {
        let response = client.get_with(path, &[&format!("Range: bytes={range}")]);
        assert_eq!(response.head.status, 416, "{path} {range}");
        let says = format!("bytes */{len}");
        assert_eq!(response.head.field("content-range"), Some(says.as_str()), "{path} {range}");
    }
    // The connection lives on through all of that, and HEAD knows no parts.
    client.send(request("HEAD", "/ten").replace("\r\n\r\n", "\r\nRange: bytes=0-1\r\n\r\n")).unwrap();
    let head = client.head().unwrap();
    assert_eq!((head.status, head.content_length()), (200, 10));
    server.stop();
}

/// Takes a `multipart/byteranges` apart, strictly: what stands around the parts is what RFC 2046 5.1.1 says.
#[track_caller]
fn parts(response: &Response) -> Vec<(String, Vec<u8>)> {
    let kind = response.head.field("content-type").expect("Content-Type");
    let boundary = kind.strip_prefix("multipart/byteranges; boundary=").unwrap_or_else(|| panic!("{kind}"));
    let find = |text: &[u8], what: &str| text.windows(what.len()).position(|w| w == what.as_bytes());
    let mut rest = &response.body[..];
    let mut parts = Vec::new();
    let mut delimiter = format!("--{boundary}");
    loop {
        rest = rest.strip_prefix(delimiter.as_bytes()).expect("a boundary");
        if rest == b"--\r\n" {
            return parts;
        }
        rest = rest.strip_prefix(b"\r\n").expect("a line's end");
        let end = find(rest, "\r\n\r\n").expect("a part's head");
        let head = String::from_utf8(rest[..end].to_vec()).unwrap();
        let (first, range) = head.split_once("\r\n").expect("two fields");
        assert_eq!(first, "Content-Type: application/octet-stream");
        delimiter = format!("\r\n--{boundary}");
        let body = end + 4;
        let len = find(&rest[body..], &delimiter).expect("the part's end");
        let range = range.strip_prefix("Content-Range: bytes ").expect("a range").to_owned();
        parts.push((range, rest[body..body + len].to_vec()));
        rest = &rest[body + len..];
    }
}

#[test]
fn several_parts_come_in_one_answer_by_either_road() {
    let tree = Tree::new();
    let len = 3 * MIB;
    let content = Pattern::bytes(3, len);
    tree.bytes("film", &content);
    for road in ["ring", "inline"] {
        let server = Launch::serve(tree.root()).road(road).start();
        let mut client = Client::connect(server.addr());
        for (asked, expected) in [
            ("0-1,3-4", vec![0..2, 3..5]),
            ("-5,0-0", vec![len - 5..len, 0..1]),
            (
                "0-99999,200000-1500000,1600000-1600009",
                vec![0..100_000, 200_000..1_500_001, 1_600_000..1_600_010],
            ),
            ("10-20,15-30,100-101", vec![10..31, 100..102]),
            ("5-6,99999999-,1-2", vec![5..7, 1..3]),
        ] {
            let response = client.get_with("/film", &[&format!("Range: bytes={asked}")]);
            assert_eq!(response.head.status, 206, "{asked}");
            assert_eq!(response.head.field("content-range"), None, "{asked}");
            let parts = parts(&response);
            assert_eq!(parts.len(), expected.len(), "{asked}");
            for ((says, bytes), range) in parts.iter().zip(expected) {
                assert_eq!(*says, format!("{}-{}/{len}", range.start, range.end - 1), "{asked}");
                assert!(*bytes == content[range], "{asked} by {road}");
            }
        }
        server.stop();
    }
}

/// No request has the same bytes sent many times over.
#[test]
fn many_ranges_are_merged_or_the_whole_file_comes() {
    let tree = Tree::new();
    tree.file("film", 3 * MIB as u64);
    let server = Launch::serve(tree.root()).start();
    let mut client = Client::connect(server.addr());
    let list = |ranges: Vec<String>| format!("Range: bytes={}", ranges.join(","));
    // 400 overlapping ranges of the whole file.
    let all = list((0..400).map(|i| format!("{i}-")).collect());
    let response = client.get_with("/film", &[&all]);
    assert_eq!((response.head.status, response.body.len()), (200, 3 * MIB));
    // 400 that overlap and are not more than the file: one part.
    let one = list((0..400).map(|i| format!("{i}-{}", i + 1)).collect());
    let response = client.get_with("/film", &[&one]);
    assert_eq!((response.head.status, response.body.len()), (206, 401));
    assert_eq!(response.head.field("content-range"), Some("bytes 0-400/3145728"));
    for (count, status) in [(16, 206), (17, 200), (400, 200)] {
        let apart = list((0..count).map(|i| format!("{}-{}", i * 10, i * 10)).collect());
        assert_eq!(client.get_with("/film", &[&apart]).head.status, status, "{count}");
    }
    server.stop();
}

#[test]
fn a_download_is_resumed_if_the_file_is_still_the_same() {
    let tree = Tree::new();
    let sample = tree.file("film.mp4", 3 * MIB as u64);
    // A date that is a second old says for certain which content it belongs to (RFC 9110 8.8.2.2).
    let past = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
    let file = std::fs::File::options().write(true).open(tree.at("film.mp4")).unwrap();
    file.set_modified(past).unwrap();
    let server = Launch::serve(tree.root()).start();
    let begun = tree.at("begun");
    let url = server.url(&sample.path);
    curl::must(["--range", "0-999999", "--output", begun.to_str().unwrap(), &url]);
    curl::must(["--continue-at", "-", "--output", begun.to_str().unwrap(), &url]);
    assert_eq!(digest::of(&std::fs::read(&begun).unwrap()), sample.sum);

    let mut client = Client::connect(server.addr());
    let date = client.get_with(&sample.path, &["Range: bytes=0-0"]).head;
    let condition = format!("If-Range: {}", date.field("last-modified").expect("Last-Modified"));
    assert_eq!(client.get_with(&sample.path, &["Range: bytes=5-9", &condition]).head.status, 206);
    let tag = format!("If-Range: {}", date.field("etag").expect("an ETag"));
    assert_eq!(client.get_with(&sample.path, &["Range: bytes=5-9", &tag]).head.status, 206);
    file.set_modified(past + std::time::Duration::from_secs(60)).unwrap();
    assert_eq!(client.get_with(&sample.path, &["Range: bytes=5-9", &condition]).head.status, 200);
    assert_eq!(client.get_with(&sample.path, &["Range: bytes=5-9", &tag]).head.status, 200);
    server.stop();
}
