//! Several parts of a file in one answer.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};
use std::ops::Range;

use annulus::net::Family;

use super::client::Client;
use super::file_body::{FileAnswer, Head, body, changed, note_cut};
use super::send::{send, send_more};
use crate::http::Status;
use crate::http::multipart::Multipart;
use crate::http::response;

/// Parts up to this size, in bytes, are read and sent with what stands around them; larger ones are spliced.
const SMALL_PART: u64 = 16 * 1024;

/// What is gathered before it is sent, in bytes: parts of [`SMALL_PART`] could be sixteen.
const GATHERED: usize = 64 * 1024;

thread_local! {
    /// The system's random numbers, and a count: no boundary comes twice, and none can be guessed.
    static UNIQUE: (RandomState, Cell<u64>) = (RandomState::new(), Cell::new(0));
}

/// Answers with `ranges` of a file, in this order.
pub(super) async fn parts<F: Family>(
    client: &mut Client<F>,
    answer: FileAnswer<'_>,
    ranges: Vec<Range<u64>>,
) -> annulus::Result<()> {
    let FileAnswer { site, entry, manner } = answer;
    let unique = UNIQUE.with(|(state, count)| {
        count.set(count.get() + 1);
        state.hash_one(count.get())
    });
    let multipart = Multipart::new(&entry.facts().content_type, entry.size(), ranges, unique);
    let mut out = Vec::new();
    client.sent.status = Status::PartialContent.code();
    site.with_moment(manner.after, |moment| {
        response::parts_head(&mut out, moment, entry.facts().fields(), &multipart);
    });
    for (head, range) in multipart.parts() {
        out.extend_from_slice(head.as_bytes());
        let len = range.end - range.start;
        if len > SMALL_PART && entry.file.is_some() {
            body(client, answer, Head::Own(std::mem::take(&mut out)), range).await?;
            continue;
        }
        if out.len() + len as usize > GATHERED {
            send_more(client, std::mem::take(&mut out)).await?;
        }
        if let Some(content) = entry.content(range.clone()) {
            out.extend_from_slice(content);
            continue;
        }
        out.reserve_exact(len as usize);
        let read = entry.read(out, range).await;
        out = match read.and_then(|out| if entry.has_changed() { Err(changed()) } else { Ok(out) }) {
            Ok(out) => out,
            Err(error) => {
                note_cut(client, answer, &error);
                return Err(error);
            }
        };
    }
    out.extend_from_slice(multipart.end().as_bytes());
    send(client, out).await?;
    client.sent.bytes = multipart.len();
    Ok(())
}
