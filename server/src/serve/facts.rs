//! What heads say of a version of a file, written once.

use std::path::Path;
use std::time::{Duration, SystemTime};

use annulus::fs::Stat;

use super::clock;
use super::rules::Said;
use crate::http::encoding::Coding;
use crate::http::etag::{SETTLES_AFTER, Version};
use crate::http::mime::{content_type, is_compressible};
use crate::http::response::{self, FieldsLayout, FileFacts};

/// What heads say of a version.
pub(crate) struct Facts {
    fields: Box<[u8]>,
    layout: FieldsLayout,
    pub(super) tag: String,
    pub(super) content_type: String,
    /// It is in a coding that the client has to undo.
    pub(super) coding: Option<Coding>,
    /// Files beside it may hold the same, compressed.
    pub(super) may_be_smaller: bool,
    /// When a tag that is weak becomes a strong one, by [`clock::now`].
    settles: Option<u64>,
}

impl Facts {
    /// Of a file in this `coding`, which has this `stat`. `original` is the path that was asked for, and
    /// `said` what the operator's rules say of it; `precompressed` files may lie beside it. `scratch` is
    /// where the fields are written before their size is known.
    pub(super) fn write(
        (original, said): (&Path, Said),
        coding: Option<Coding>,
        stat: &Stat,
        precompressed: bool,
        scratch: &mut Vec<u8>,
    ) -> Self {
        let now = SystemTime::now();
        let version =
            Version { size: stat.size, modified: stat.modified, changed: stat.changed, inode: stat.inode };
        let suffix = coding.map_or(String::new(), |coding| format!("-{}", coding.name()));
        let strong = version.is_settled(now);
        let tag = version.tag(strong, &suffix);
        let age = now.duration_since(stat.modified).unwrap_or(Duration::ZERO);
        let left = SETTLES_AFTER.saturating_sub(age).as_millis() as u64;
        let settles = (!strong).then(|| clock::now() + left + 1);
        let content_type = said.content_type.unwrap_or_else(|| content_type(original).into_owned());
        let may_be_smaller = precompressed && is_compressible(&content_type);
        let vary = match (may_be_smaller, said.vary) {
            (true, Some(more)) => format!("Accept-Encoding, {more}"),
            (true, None) => "Accept-Encoding".to_owned(),
            (false, more) => more.unwrap_or_default(),
        };
        let file = FileFacts {
            content_type: &content_type,
            modified: stat.modified,
            tag: &tag,
            cache_control: &said.cache_control,
            vary: &vary,
            content_encoding: coding.map_or("", Coding::name),
            lines: &said.lines,
        };
        let layout = response::file_fields(scratch, now, &file);
        let fields = Box::from(scratch.as_slice());
        Facts { fields, layout, tag, content_type, coding, may_be_smaller, settles }
    }

    /// Whether the tag is a strong one.
    pub(super) fn is_strong(&self) -> bool {
        self.settles.is_none()
    }

    /// Whether a tag that was weak would be a strong one at `now`.
    pub(super) fn has_settled(&self, now: u64) -> bool {
        self.settles.is_some_and(|at| at <= now)
    }

    /// The fields, and what of them goes into which head.
    pub(super) fn fields(&self) -> (&[u8], FieldsLayout) {
        (&self.fields, self.layout)
    }
}
