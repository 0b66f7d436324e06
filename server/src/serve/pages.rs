//! Answers that are no file: lines of text, the operator's error pages, redirections, listings.

use std::path::Path;

use annulus::net::Family;

use super::client::Client;
use super::listing::{self, Order};
use super::open::open;
use super::send::send;
use super::site::Site;
use super::wanted::Wanted;
use crate::http::Status;
use crate::http::method::Method;
use crate::http::request::{After, Request};
use crate::http::response::{self, Moment, Page};

/// Capacity for any answer of text, in bytes. A longer one costs a reallocation.
const PLAIN_ROOM: usize = 384;

/// The largest error page, in bytes. A larger file is not sent as one.
const LARGEST_PAGE: u64 = 1024 * 1024;

/// A listing needs its own style and nothing else.
const LISTING_LINES: &str =
    "Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'\r\nVary: Accept\r\n";

/// How an answer is to be given: to whom, and what follows it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Manner<'a> {
    /// What was asked for, if that was understood.
    pub(super) path: &'a Path,
    pub(super) after: After,
    /// Not for HEAD.
    pub(super) with_body: bool,
}

impl<'a> Manner<'a> {
    /// The manner of the answer to `request`.
    pub(super) fn of(request: &'a Request, after: After) -> Self {
        Self { path: request.target.path(), after, with_body: request.method != Method::Head }
    }

    /// The manner of an answer to what is no request.
    pub(super) fn of_refusal() -> Manner<'static> {
        Manner { path: Path::new(""), after: After::Close, with_body: true }
    }
}

/// An error: the operator's page for it, or a line of text.
pub(super) async fn error<F: Family>(
    client: &mut Client<F>,
    site: &Site,
    status: Status,
    why: &str,
    manner: Manner<'_>,
) -> annulus::Result<()> {
    let lines = site.lines(manner.path);
    if let Some((content_type, body)) = error_page(site, status).await {
        let page = Page { content_type: &content_type, lines: &lines, body: &body };
        let write = |out: &mut Vec<u8>, moment: Moment<'_>| {
            response::page(out, moment, status, &page, manner.with_body);
        };
        return text(client, site, status, manner.after, write).await;
    }
    let write = |out: &mut Vec<u8>, moment: Moment<'_>| {
        response::plain(out, moment, status, why, &lines, manner.with_body);
    };
    text(client, site, status, manner.after, write).await
}

/// The type and the content of the operator's page for `status`.
async fn error_page(site: &Site, status: Status) -> Option<(String, Vec<u8>)> {
    let page = site.args.error_page.iter().find(|page| page.status == status.code())?;
    let failed = |why: &dyn std::fmt::Display| {
        tracing::warn!(file = %page.file.display(), status = page.status, why = %why, "an error page cannot be sent");
    };
    let entry = match open(site, &Wanted::plain(&page.file)).await {
        Ok(entry) if entry.size() <= LARGEST_PAGE => entry,
        Ok(_) => {
            failed(&"it has more than 1 MiB");
            return None;
        }
        Err(error) => {
            failed(&format_args!("{error:?}"));
            return None;
        }
    };
    let range = 0..entry.size();
    let content_type = entry.facts().content_type.clone();
    if let Some(content) = entry.content(range.clone()) {
        return Some((content_type, content.to_vec()));
    }
    match entry.read(Vec::with_capacity(range.end as usize), range).await {
        Ok(body) => Some((content_type, body)),
        Err(error) => {
            failed(&error);
            None
        }
    }
}

/// Redirects to the same name with a slash behind it. The location is relative to the name, so it is right
/// behind any proxy.
pub(super) async fn to_directory<F: Family>(
    client: &mut Client<F>,
    site: &Site,
    request: &Request,
    manner: Manner<'_>,
) -> annulus::Result<()> {
    let name = manner.path.file_name().unwrap_or_default();
    let mut location = listing::encoded(name.as_encoded_bytes()) + "/";
    if let Some(query) = request.target.query() {
        location.push('?');
        // Bytes that are allowed in a request line are allowed in a header line. Those that are no ASCII are
        // escaped.
        location.extend(
            query.iter().map(|&b| if b.is_ascii() { char::from(b).to_string() } else { format!("%{b:02X}") }),
        );
    }
    let lines = site.lines(manner.path);
    let write = |out: &mut Vec<u8>, moment: Moment<'_>| {
        response::moved(out, moment, &location, &lines, manner.with_body);
    };
    text(client, site, Status::MovedPermanently, manner.after, write).await
}

/// What is in the directory.
pub(super) async fn listing<F: Family>(
    client: &mut Client<F>,
    site: &Site,
    request: &Request,
    manner: Manner<'_>,
) -> annulus::Result<()> {
    let order = Order::of(request.target.query());
    let items = match listing::read(&site.root(), manner.path, site.args.hidden, order).await {
        Ok(items) => items,
        Err(problem) => {
            tracing::warn!(client = %client.address(), path = ?manner.path, error = %problem, "a directory cannot be listed");
            return error(client, site, Status::InternalServerError, "", manner).await;
        }
    };
    let (content_type, body) = if request.wants_json {
        ("application/json", listing::list(&items))
    } else {
        ("text/html; charset=utf-8", listing::page(manner.path, &items, order))
    };
    let lines = LISTING_LINES.to_owned() + &site.lines(manner.path);
    let page = Page { content_type, lines: &lines, body: body.as_bytes() };
    let write = |out: &mut Vec<u8>, moment: Moment<'_>| {
        response::page(out, moment, Status::Ok, &page, manner.with_body);
    };
    text(client, site, Status::Ok, manner.after, write).await
}

/// A whole response that `write` writes.
pub(super) async fn text<F: Family>(
    client: &mut Client<F>,
    site: &Site,
    status: Status,
    after: After,
    write: impl FnOnce(&mut Vec<u8>, Moment<'_>),
) -> annulus::Result<()> {
    let mut out = Vec::with_capacity(PLAIN_ROOM);
    site.with_moment(after, |moment| write(&mut out, moment));
    let head = memchr::memmem::find(&out, b"\r\n\r\n").map_or(out.len(), |at| at + 4);
    let body = (out.len() - head) as u64;
    client.sent.status = status.code();
    send(client, out).await?;
    client.sent.bytes = body;
    Ok(())
}
