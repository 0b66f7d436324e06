//! An open file, and what heads say of it.

use std::path::Path;
use std::rc::Rc;
use std::time::SystemTime;

use annulus::fs::{File, Stat};

use super::site::Site;
use crate::http::conditions::Validators;
use crate::http::encoding::Coding;
use crate::http::etag::Version;
use crate::http::mime::{content_type, is_compressible};
use crate::http::response::{self, FieldsLayout, FileFacts};

/// An open regular file.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) file: File,
    /// In bytes.
    pub(super) size: u64,
    pub(super) modified: SystemTime,
    /// What heads say of it.
    pub(super) facts: Rc<Facts>,
    /// What is in it, where it is no file of a disk but made up by the kernel when it is read.
    pub(super) content: Option<Rc<[u8]>>,
}

/// What heads say of a file, written once.
pub(super) struct Facts {
    fields: Box<[u8]>,
    layout: FieldsLayout,
    pub(super) tag: String,
    pub(super) content_type: String,
    /// It is in a coding that the client has to undo.
    pub(super) coding: Option<Coding>,
    /// Files beside it may hold the same, compressed.
    pub(super) may_be_smaller: bool,
}

impl Facts {
    /// Of the file `path` in this `coding`, which has this `stat`; `original` is the path that was asked for.
    pub(super) fn write(site: &Site, original: &Path, coding: Option<Coding>, stat: &Stat) -> Self {
        let now = SystemTime::now();
        let version =
            Version { size: stat.size, modified: stat.modified, changed: stat.changed, inode: stat.inode };
        let suffix = coding.map_or(String::new(), |coding| format!("-{}", coding.name()));
        let tag = version.tag(version.is_settled(now), &suffix);
        let said = site.rules.of(original);
        let content_type = said.content_type.unwrap_or_else(|| content_type(original).into_owned());
        let may_be_smaller = !site.args.no_precompressed && is_compressible(&content_type);
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
        let mut layout = FieldsLayout::default();
        let write = |out: &mut Vec<u8>| layout = response::file_fields(out, now, &file);
        let fields = site.written(write, |fields| Box::from(fields));
        Facts { fields, layout, tag, content_type, coding, may_be_smaller }
    }

    /// The fields, and what of them goes into which head.
    pub(super) fn fields(&self) -> (&[u8], FieldsLayout) {
        (&self.fields, self.layout)
    }
}

impl Entry {
    /// What conditions are compared with.
    pub(super) fn validators(&self) -> Validators<'_> {
        Validators { tag: self.facts.tag.as_bytes(), modified: self.modified }
    }
}
