//! Answers: from what was asked to what is sent for it.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::SystemTime;

use annulus::net::Family;
use pin_project_lite::pin_project;

use super::Site;
use super::client::Client;
use super::clock;
use super::entry::Entry;
use super::file_body::{FileAnswer, send_extent};
use super::lookup::{self, Found};
use super::pages::{self, Manner, text};
use super::parts::parts;
use super::send::send;
use crate::http::choice::{self, Choice};
use crate::http::method::Method;
use crate::http::range::Chosen;
use crate::http::request::{After, Request};
use crate::http::response::{self, Extent, Moment};
use crate::http::{Refusal, Status};

pin_project! {
    /// The future of [`answer`]: bytes of the body, where they were sent at once.
    #[project = AnsweringPinned]
    pub(super) enum Answering<A, T> {
        /// A small file that is at hand.
        AtOnce { #[pin] sending: A, size: u64 },
        /// All else, for which there is memory only while it is answered.
        InTime { answering: Pin<Box<T>> },
    }
}

impl<A, T> Future for Answering<A, T>
where
    A: Future<Output = annulus::Result<()>>,
    T: Future<Output = annulus::Result<()>>,
{
    type Output = annulus::Result<Option<u64>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            AnsweringPinned::AtOnce { sending, size } => sending.poll(cx).map_ok(|()| Some(*size)),
            AnsweringPinned::InTime { answering } => answering.as_mut().poll(cx).map_ok(|()| None),
        }
    }
}

/// Answers a well-formed request.
///
/// Small files in memory are sent at once. For all other answers there is memory only while they are made, so
/// that an idle connection is small.
///
/// # Errors
/// When the answer could not be sent whole: the connection is of no further use.
pub(super) fn answer<'c, F: Family>(
    client: &'c mut Client<F>,
    site: &'c Site,
    request: &'c Request,
    after: After,
) -> impl Future<Output = annulus::Result<Option<u64>>> + 'c {
    let manner = Manner::of(request, after);
    let is_get = request.method == Method::Get;
    let entry = if is_get || request.method == Method::Head { at_hand(site, request) } else { None };
    if is_get
        && request.conditions.is_none()
        && let Some(entry) = &entry
        && let Some((block, size)) = (FileAnswer { site, entry, manner }).at_once()
    {
        client.sent.status = Status::Ok.code();
        return Answering::AtOnce { sending: send(client, block), size };
    }
    Answering::InTime { answering: Box::pin(answer_in_time(client, site, request, entry, manner)) }
}

/// What is asked for, if it is known without a system call.
fn at_hand(site: &Site, request: &Request) -> Option<Entry> {
    let now = clock::now();
    if site.is_root_due(now) { None } else { lookup::at_hand(site, request, now) }
}

async fn answer_in_time<F: Family>(
    client: &mut Client<F>,
    site: &Site,
    request: &Request,
    entry: Option<Entry>,
    manner: Manner<'_>,
) -> annulus::Result<()> {
    let status = match (request.method, entry) {
        (_, Some(entry)) => return found(client, site, request, &entry, manner).await,
        (Method::Get | Method::Head, None) => return file(client, site, request, manner).await,
        (Method::Options, _) => {
            let lines = site.rules.preflight();
            let write = |out: &mut Vec<u8>, moment: Moment<'_>| response::options(out, moment, &lines);
            return text(client, site, Status::NoContent, manner.after, write).await;
        }
        (Method::NotAllowed | Method::Connect, _) => Status::MethodNotAllowed,
        (Method::Unknown, _) => Status::NotImplemented,
    };
    pages::error(client, site, status, "", manner).await
}

/// Answers what is not a request, and says that the connection ends.
pub(super) async fn refuse<F: Family>(
    client: &mut Client<F>,
    site: &Site,
    refusal: Refusal,
) -> annulus::Result<()> {
    pages::error(client, site, refusal.status, refusal.why, Manner::of_refusal()).await
}

/// Answers a GET or HEAD.
async fn file<F: Family>(
    client: &mut Client<F>,
    site: &Site,
    request: &Request,
    manner: Manner<'_>,
) -> annulus::Result<()> {
    site.follow_root(clock::now()).await;
    match lookup::find(site, request).await {
        Found::File(entry) => found(client, site, request, &entry, manner).await,
        Found::Directory => pages::to_directory(client, site, request, manner).await,
        Found::Listing => pages::listing(client, site, request, manner).await,
        Found::Nothing(status) => pages::error(client, site, status, "", manner).await,
        Found::Unreadable(error) => {
            tracing::warn!(client = %client.address(), path = ?manner.path, %error, "a file cannot be read");
            pages::error(client, site, Status::InternalServerError, "", manner).await
        }
    }
}

/// Answers about a file that is there.
async fn found<F: Family>(
    client: &mut Client<F>,
    site: &Site,
    request: &Request,
    entry: &Entry,
    manner: Manner<'_>,
) -> annulus::Result<()> {
    let answer = FileAnswer { site, entry, manner };
    let choice = match &request.conditions {
        None => Choice::Send(Chosen::Whole),
        Some(conditions) => {
            let (file, now) = (entry.validators(), SystemTime::now());
            choice::choose(request.method, conditions, &file, entry.size(), now)
        }
    };
    let extent = match choice {
        Choice::NotModified => {
            let fields = entry.facts().fields();
            let write = |out: &mut Vec<u8>, moment: Moment<'_>| response::not_modified(out, moment, fields);
            return text(client, site, Status::NotModified, manner.after, write).await;
        }
        Choice::PreconditionFailed => {
            return pages::error(client, site, Status::PreconditionFailed, "", manner).await;
        }
        Choice::Send(Chosen::Unsatisfiable) => {
            let size = entry.size();
            let write = |out: &mut Vec<u8>, moment: Moment<'_>| response::unsatisfiable(out, moment, size);
            return text(client, site, Status::RangeNotSatisfiable, manner.after, write).await;
        }
        // A multipart answer would say that each part is coded by itself.
        Choice::Send(Chosen::Parts(ranges)) if entry.facts().coding.is_none() => {
            return parts(client, answer, ranges).await;
        }
        Choice::Send(Chosen::Part(range)) => Extent::Part(range, entry.size()),
        Choice::Send(Chosen::Whole | Chosen::Parts(_)) => Extent::Whole(entry.size()),
    };
    send_extent(client, answer, &extent).await
}
