//! HTTP heads: reading a request, resolving its target and its range, writing the head of the answer.

use crate::server::http::date::DateCache;
use crate::server::http::range::Ranges;
use crate::server::http::request::{After, Parsed, Whole, parse};
use crate::server::http::response::{Extent, FileFacts, Moment, file_fields, file_head};
use crate::server::http::target::Target;
use criterion::{BenchmarkId, Criterion, Throughput};
use std::hint::black_box;
use std::time::{Duration, SystemTime};

/// What the load driver sends, and what a browser does.
const REQUESTS: [(&str, &str); 2] = [
    ("driver", "GET /64k HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nUser-Agent: drive\r\nAccept: */*\r\n\r\n"),
    (
        "browser",
        "GET /static/media/picture-of-something.0a1b2c3d.webp?width=640 HTTP/1.1\r\n\
         Host: www.example.org\r\n\
         User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n\
         Accept: image/avif,image/webp,image/png,image/svg+xml,image/*;q=0.8,*/*;q=0.5\r\n\
         Accept-Language: en-GB,en;q=0.5\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n\
         Connection: keep-alive\r\nReferer: https://www.example.org/a/page\r\n\
         Cookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\n\
         If-Modified-Since: Thu, 01 Jan 2026 00:00:00 GMT\r\nPriority: u=5, i\r\n\r\n",
    ),
];

pub(crate) fn bench(c: &mut Criterion) {
    let mut group = c.benchmark_group("http");
    // As the server does: the path's memory comes back with the answer.
    let mut memory = Vec::with_capacity(256);
    for (name, request) in REQUESTS {
        assert!(matches!(parse(request.as_bytes(), &mut memory), Parsed::Complete(..)), "{name}");
        group.throughput(Throughput::Bytes(request.len() as u64));
        group.bench_function(BenchmarkId::new("parse", name), |b| {
            b.iter(|| match parse(black_box(request.as_bytes()), &mut memory) {
                Parsed::Complete(Whole { request, .. }) => memory = request.target.into_memory(),
                other => panic!("{other:?}"),
            });
        });
    }
    let target = b"/static/media/picture-of-something%20else.webp";
    group.throughput(Throughput::Bytes(target.len() as u64));
    group.bench_function("resolve a target", |b| {
        b.iter(|| match Target::resolve(black_box(target), &mut memory) {
            Ok(target) => memory = target.into_memory(),
            Err(refusal) => panic!("{refusal:?}"),
        });
    });

    let now = SystemTime::now();
    let modified = now - Duration::from_secs(86_400);
    group.throughput(Throughput::Elements(1));
    for range in ["bytes=0-1023", "bytes=-500", "bytes=0-1,5-6"] {
        group.bench_function(BenchmarkId::new("choose a range", range), |b| {
            b.iter(|| Ranges::parse(black_box(range.as_bytes())).map(|ranges| ranges.choose(65_536)));
        });
    }

    let facts = FileFacts {
        content_type: "application/octet-stream",
        modified,
        tag: "\"18a2b3c4d5e6f708-10000-0123456789\"",
        cache_control: "no-cache",
        vary: "",
        content_encoding: "",
        lines: "",
    };
    let extent = Extent::Whole(65_536);
    let (mut dates, mut head) = (DateCache::default(), Vec::with_capacity(1024));
    let mut fields = Vec::with_capacity(1024);
    group.bench_function("write what a head says of a file", |b| {
        b.iter(|| {
            fields.clear();
            file_fields(&mut fields, now, black_box(&facts));
            fields.len()
        });
    });
    group.bench_function("write a head", |b| {
        b.iter(|| {
            head.clear();
            let moment = Moment { dates: &mut dates, now, after: After::Keep };
            file_head(&mut head, moment, black_box(&fields), &extent);
            head.len()
        });
    });
    group.finish();
}
