//! From a request's target to what is sent for it: a file, its index, the same file compressed, a listing, or
//! none of these.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::HIDDEN;
use super::entry::Entry;
use super::open::{Unavailable, open};
use super::site::Site;
use super::wanted::Wanted;
use super::{cache, clock};
use crate::http::Status;
use crate::http::mime::is_asset;
use crate::http::request::Request;
use crate::http::target::Kind;

/// The directory that is served although its name begins with a dot (RFC 8615).
const WELL_KNOWN: &[u8] = b".well-known";

/// What a target stands for.
pub(super) enum Found {
    /// This file.
    File(Entry),
    /// A directory that was asked for without the slash at its end.
    Directory,
    /// A directory that is to be listed.
    Listing,
    /// Nothing that is sent.
    Nothing(Status),
    /// Nothing that is sent, for a reason that the operator should know.
    Unreadable(annulus::Error),
}

impl From<Unavailable> for Found {
    fn from(unavailable: Unavailable) -> Self {
        match unavailable {
            Unavailable::NotFound => Found::Nothing(Status::NotFound),
            Unavailable::Directory => Found::Directory,
            Unavailable::Forbidden => Found::Nothing(Status::Forbidden),
            Unavailable::Unreadable(error) => Found::Unreadable(error),
        }
    }
}

/// What a GET or HEAD asks for, if all that decides about it is known and fresh. It takes no wait and no
/// system call.
pub(super) fn at_hand(site: &Site, request: &Request, now: u64) -> Option<Entry> {
    let path = request.target.path();
    if request.target.kind() != Kind::Name || (!site.args.hidden && is_hidden(path)) {
        return None;
    }
    let bytes = path.as_os_str().as_bytes();
    let entry = site.cache.find(bytes, now)?;
    if !entry.facts().may_be_smaller || !request.encodings.any() {
        return Some(entry);
    }
    for coding in request.encodings.in_order() {
        if !site.cache.is_absent(bytes, coding, now) {
            let key = [bytes, coding.extension().as_bytes(), cache::CODED].concat();
            return site.cache.find(&key, now);
        }
    }
    Some(entry)
}

/// Finds what a GET or HEAD asks for.
pub(super) async fn find(site: &Site, request: &Request) -> Found {
    let path = request.target.path();
    if !site.args.hidden && is_hidden(path) {
        return or_application(site, request, Found::Nothing(Status::NotFound)).await;
    }
    let found = match request.target.kind() {
        Kind::Name => file(site, request, path).await,
        Kind::Directory => directory(site, request, path).await,
        Kind::Nothing | Kind::Server => Found::Nothing(Status::NotFound),
    };
    if matches!(found, Found::Nothing(Status::NotFound)) {
        return or_application(site, request, found).await;
    }
    found
}

/// The page of an application that finds its way in the browser, in place of `nothing`.
async fn or_application(site: &Site, request: &Request, nothing: Found) -> Found {
    let path = request.target.path();
    let first = site.args.index.first();
    match first {
        Some(index) if site.args.spa && request.target.kind() != Kind::Server && !is_asset(path) => {
            match file(site, request, Path::new(index)).await {
                Found::Directory => nothing,
                found => found,
            }
        }
        _ => nothing,
    }
}

/// Whether a name on the way begins with a dot.
fn is_hidden(path: &Path) -> bool {
    let path = path.as_os_str().as_bytes();
    let is = |at: usize| at == 0 || path[at - 1] == b'/';
    memchr::memchr_iter(HIDDEN[0], path).any(|at| {
        let well_known = at == 0
            && path.starts_with(WELL_KNOWN)
            && matches!(path.get(WELL_KNOWN.len()), None | Some(b'/'));
        is(at) && !well_known
    })
}

/// The first index file of a directory.
async fn directory(site: &Site, request: &Request, path: &Path) -> Found {
    let mut forbidden = false;
    for name in &site.args.index {
        match file(site, request, &path.join(name)).await {
            Found::Nothing(Status::NotFound) | Found::Directory => {}
            Found::Nothing(Status::Forbidden) => forbidden = true,
            found => return found,
        }
    }
    if forbidden {
        return Found::Nothing(Status::Forbidden);
    }
    // There is no index; is there a directory?
    let here = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    match open(site, &Wanted::plain(here)).await {
        Err(Unavailable::Directory) if site.args.browse => Found::Listing,
        Err(Unavailable::Directory) => Found::Nothing(Status::Forbidden),
        // A file is no directory, even if the target ends with a slash.
        Ok(_) => Found::Nothing(Status::NotFound),
        Err(unavailable) => unavailable.into(),
    }
}

/// A file, or the coded file beside it that the client prefers.
async fn file(site: &Site, request: &Request, path: &Path) -> Found {
    let entry = match open(site, &Wanted::plain(path)).await {
        Ok(entry) => entry,
        Err(unavailable) => return unavailable.into(),
    };
    if !entry.facts().may_be_smaller || !request.encodings.any() {
        return Found::File(entry);
    }
    for coding in request.encodings.in_order() {
        let mut name = OsString::from(path);
        name.push(OsStr::new(coding.extension()));
        let wanted = Wanted { path: Path::new(&name), original: path, coding: Some(coding) };
        // A coded file that cannot be opened is no error: the file itself is sent.
        match open(site, &wanted).await {
            Ok(entry) => return Found::File(entry),
            Err(_) => site.cache.note_absent(path.as_os_str().as_bytes(), coding, clock::now()),
        }
    }
    Found::File(entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_names() {
        for path in [
            ".git",
            ".git/config",
            "a/.b",
            "a/.b/c",
            ".well-known/.x",
            ".well-knownx",
            ".well-known.txt",
            "a/.well-known/b",
        ] {
            assert!(is_hidden(Path::new(path)), "{path}");
        }
        for path in ["", "a", "a.b", "a/b.c", "a..b", ".well-known", ".well-known/acme-challenge/x.y"] {
            assert!(!is_hidden(Path::new(path)), "{path}");
        }
    }
}
