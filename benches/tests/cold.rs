//! Files leave the page cache when they are dropped, on the file system of the build.

use annulus_benches::cold::{drop_pages, open, resident};
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

/// Seen to fail with a file on tmpfs, whose pages have nowhere to go.
#[test]
fn a_file_that_was_read_is_gone_after_it_was_dropped() {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cold");
    File::create(&path).unwrap().write_all(&vec![7; 1 << 20]).unwrap();
    let mut file = open(&path).unwrap();
    let pages = (1 << 20) / rustix::param::page_size();
    assert_eq!(resident(&file).unwrap(), pages);
    drop_pages(&file).unwrap();
    assert_eq!(resident(&file).unwrap(), 0);
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    assert_eq!(resident(&file).unwrap(), pages);
    assert_eq!(bytes, vec![7; 1 << 20]);
}
