//! A version of a file that can be sent: what is known of it, and how its bytes are had.

use std::ops::Range;
use std::sync::Arc;

use annulus::buf::IoBufMut;
use annulus::fs::File;

use super::cache::stored::Stored;
use super::facts::Facts;
use crate::http::conditions::Validators;

/// A version of a file, and an open descriptor of it unless its content is in memory.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) stored: Arc<Stored>,
    pub(super) file: Option<File>,
}

impl Entry {
    /// Bytes of it.
    pub(super) fn size(&self) -> u64 {
        self.stored.size
    }

    /// What heads say of it.
    pub(super) fn facts(&self) -> &Facts {
        &self.stored.facts
    }

    /// What conditions are compared with.
    pub(super) fn validators(&self) -> Validators<'_> {
        Validators { tag: self.stored.facts.tag.as_bytes(), modified: self.stored.modified }
    }

    /// The bytes `range` of it, if they are in memory of ours.
    pub(super) fn content(&self, range: Range<u64>) -> Option<&[u8]> {
        self.stored.content.as_ref()?.get(range.start as usize..range.end as usize)
    }

    /// Reads the bytes `range` behind what `buf` holds.
    ///
    /// # Errors
    /// As for a read; `UnexpectedEof` if the file has become shorter.
    pub(super) async fn read<B: IoBufMut>(&self, buf: B, range: Range<u64>) -> annulus::Result<B> {
        let len = (range.end - range.start) as usize;
        let Some(file) = &self.file else {
            let gone = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
            return Err(annulus::Error::io("a file is not open", gone));
        };
        file.read_exact_at(buf, len, range.start).await.map_err(|failed| failed.error)
    }

    /// Whether an open file is another version by now. Then this one is ended: it is sent to nobody new.
    pub(super) fn has_ended(&self) -> bool {
        let Some(file) = &self.file else { return false };
        let stored = &self.stored;
        if stored.is_unchanged() {
            return false;
        }
        let is_same = file.stat_now().is_ok_and(|now| stored.stat.is_unchanged(&now));
        if is_same {
            stored.was_unchanged();
        } else {
            stored.finish();
        }
        !is_same
    }

    /// Whether what was just sent of an open file may be of another version, which the tag of this one
    /// promises that it is not. Another name or other rights are of no account here.
    pub(super) fn has_changed(&self) -> bool {
        let Some(file) = &self.file else { return false };
        let stored = &self.stored;
        if !stored.facts.is_strong() || stored.is_unchanged() {
            return false;
        }
        let stat = &stored.stat;
        let is_same = |now: &annulus::fs::Stat| now.size == stat.size && now.modified == stat.modified;
        let changed = !file.stat_now().is_ok_and(|now| is_same(&now));
        if changed {
            stored.finish();
        }
        changed
    }
}
