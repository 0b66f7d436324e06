//! What is in a directory, for people and for programs.

mod html;
mod json;

use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use annulus::fs::Dir;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

pub(super) use html::page;
pub(super) use json::list;

use super::HIDDEN;

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Item {
    name: OsString,
    is_directory: bool,
    /// In bytes.
    size: u64,
    modified: SystemTime,
}

/// By what a listing is sorted. Directories come first in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Name,
    Size,
    Time,
}

/// How a listing is sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Order {
    key: Key,
    descending: bool,
}

impl Order {
    /// What a query asks for: `sort=name|size|time` and `order=asc|desc`; anything else says nothing.
    pub(super) fn of(query: Option<&[u8]>) -> Self {
        let mut order = Order { key: Key::Name, descending: false };
        for pair in query.unwrap_or_default().split(|&b| b == b'&') {
            match pair {
                b"sort=size" => order.key = Key::Size,
                b"sort=time" => order.key = Key::Time,
                b"sort=name" => order.key = Key::Name,
                b"order=desc" => order.descending = true,
                b"order=asc" => order.descending = false,
                _ => {}
            }
        }
        order
    }

    fn sort(self, items: &mut [Item]) {
        items.sort_by_cached_key(|item| {
            // Names decide between equals, in the order that people expect.
            (item.name.to_string_lossy().to_lowercase(), item.name.clone())
        });
        match self.key {
            Key::Name => {}
            Key::Size => items.sort_by_key(|item| item.size),
            Key::Time => items.sort_by_key(|item| item.modified),
        }
        if self.descending {
            items.reverse();
        }
        items.sort_by_key(|item| !item.is_directory);
    }
}

/// Reads the directory `path` below `root` and sorts it. Everything that would be served is there and nothing
/// else: no hidden names unless `hidden`, no link that leads out, no devices.
///
/// # Errors
/// The system's reason.
pub(super) async fn read(root: &Dir, path: &Path, hidden: bool, order: Order) -> annulus::Result<Vec<Item>> {
    let here = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let dir = root.open_dir(here).await?;
    let failed = |error: std::io::Error| annulus::Error::io("cannot list a directory", error);
    let dir = dir.as_fd().try_clone_to_owned().map_err(failed)?;
    let root = root.as_fd().try_clone_to_owned().map_err(failed)?;
    let path = path.to_owned();
    // No operation of the ring lists a directory, and a large one takes its time.
    let collected = annulus::spawn_blocking(move || {
        let mut items = collect(&root, &dir, &path, hidden)?;
        order.sort(&mut items);
        Ok(items)
    });
    collected.await?.map_err(|errno: Errno| failed(errno.into()))
}

fn collect(root: &OwnedFd, dir: &OwnedFd, path: &Path, hidden: bool) -> Result<Vec<Item>, Errno> {
    let mut items = Vec::new();
    for entry in rustix::fs::Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if matches!(name, b"." | b"..") || (!hidden && name.starts_with(HIDDEN)) {
            continue;
        }
        // What goes away in between is not there.
        let Ok(stat) = rustix::fs::statat(dir, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) else {
            continue;
        };
        let stat = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Symlink => target(root, &path.join(std::ffi::OsStr::from_bytes(name))),
            _ => Some(stat),
        };
        items.extend(stat.and_then(|stat| item(name, &stat)));
    }
    Ok(items)
}

/// What a link leads to below the root.
fn target(root: &OwnedFd, path: &Path) -> Option<Stat> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let target = rustix::fs::openat2(root, path, flags, Mode::empty(), resolve).ok()?;
    rustix::fs::fstat(target).ok()
}

fn item(name: &[u8], stat: &Stat) -> Option<Item> {
    let kind = FileType::from_raw_mode(stat.st_mode);
    if !matches!(kind, FileType::RegularFile | FileType::Directory) {
        return None;
    }
    Some(Item {
        name: OsString::from_vec(name.to_vec()),
        is_directory: kind == FileType::Directory,
        size: if kind == FileType::Directory { 0 } else { stat.st_size as u64 },
        modified: UNIX_EPOCH + Duration::from_secs(u64::try_from(stat.st_mtime).unwrap_or(0)),
    })
}

/// A name as a segment of a path in a link. What is not unreserved (RFC 3986 2.3) is escaped, so that no name
/// means anything but itself.
pub(super) fn encoded(name: &[u8]) -> String {
    const RESERVED: &percent_encoding::AsciiSet =
        &percent_encoding::NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    percent_encoding::percent_encode(name, RESERVED).to_string()
}

/// `1994-11-06T08:49:37Z` (RFC 3339); empty for a time that has no four digits of a year.
fn timestamp(time: SystemTime) -> String {
    const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let Some(date) = crate::http::date::http_date(time) else { return String::new() };
    // `Sun, 06 Nov 1994 08:49:37 GMT` has all of its parts.
    let month = MONTHS.find(&date[8..11]).map_or(0, |at| at / 3 + 1);
    format!("{}-{month:02}-{}T{}Z", &date[12..16], &date[5..7], &date[17..25])
}

/// The directory's path as people read it, `/` for ROOT.
fn shown(path: &Path) -> String {
    PathBuf::from("/").join(path).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn item(name: &str, is_directory: bool, size: u64, seconds: u64) -> Item {
        let modified = UNIX_EPOCH + Duration::from_secs(seconds);
        Item { name: name.into(), is_directory, size, modified }
    }

    fn sorted(query: &str) -> String {
        let mut items = vec![
            item("b", false, 1, 3),
            item("A", false, 2, 1),
            item("z", true, 0, 9),
            item("c", false, 2, 2),
        ];
        Order::of(Some(query.as_bytes())).sort(&mut items);
        items.iter().map(|item| item.name.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn orders() {
        for (query, expected) in [
            ("", "zAbc"),
            ("sort=name&order=desc", "zcbA"),
            ("sort=size", "zbAc"),
            ("sort=size&order=desc", "zcAb"),
            ("order=desc&sort=time", "zbcA"),
            ("sort=rubbish&x", "zAbc"),
        ] {
            assert_eq!(sorted(query), expected, "{query}");
        }
    }

    #[test]
    fn names_in_links_and_times() {
        assert_eq!(encoded("a b/c:d?한.txt".as_bytes()), "a%20b%2Fc%3Ad%3F%ED%95%9C.txt");
        assert_eq!(timestamp(UNIX_EPOCH + Duration::from_secs(784_111_777)), "1994-11-06T08:49:37Z");
        assert_eq!(shown(Path::new("")), "/");
        assert_eq!(shown(Path::new("a/b")), "/a/b");
    }
}
