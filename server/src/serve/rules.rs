//! All that the operator says about paths. It is compiled once for each core.

use std::path::Path;

use super::options::ServeArgs;
use super::rule::{CacheRule, HeaderRule, Matcher};
use crate::http::response::field;

/// Cache-Control where no rule says otherwise: caches keep the file, and ask each time whether it is still
/// the same.
const CACHE_CONTROL: &str = "no-cache";

/// All rules of one server.
pub(super) struct Rules {
    headers: Vec<(Matcher, String, String)>,
    caching: Vec<(Matcher, String)>,
    origin: Option<String>,
}

/// What rules say about one path.
#[derive(Debug, Default)]
pub(super) struct Said {
    /// Cache-Control.
    pub(super) cache_control: String,
    /// In place of what the name says.
    pub(super) content_type: Option<String>,
    /// What else the answer varies with.
    pub(super) vary: Option<String>,
    /// Whole lines.
    pub(super) lines: String,
}

impl Rules {
    /// Those of `args`. What does not compile was refused when it was read.
    pub(super) fn new(args: &ServeArgs) -> Self {
        let header =
            |rule: &HeaderRule| Some((rule.pattern.compile().ok()?, rule.name.clone(), rule.value.clone()));
        let cache = |rule: &CacheRule| Some((rule.pattern.compile().ok()?, rule.value.clone()));
        Self {
            headers: args.header.iter().filter_map(header).collect(),
            caching: args.cache_control.iter().filter_map(cache).collect(),
            origin: args.cors.as_ref().map(|origin| origin.0.clone()),
        }
    }

    /// Whether there are none for answers that are no file.
    pub(super) fn is_empty(&self) -> bool {
        self.headers.is_empty() && self.origin.is_none()
    }

    /// What they say of `path`, relative to ROOT.
    pub(super) fn of(&self, path: &Path) -> Said {
        let mut said = Said::default();
        for (pattern, name, value) in &self.headers {
            if !pattern.is_match(path) {
                continue;
            }
            if name.eq_ignore_ascii_case("cache-control") {
                said.cache_control.clone_from(value);
            } else if name.eq_ignore_ascii_case("content-type") {
                said.content_type = Some(value.clone());
            } else if name.eq_ignore_ascii_case("vary") {
                said.vary = Some(value.clone());
            } else {
                line(&mut said.lines, name, value);
            }
        }
        if let Some((_, value)) = self.caching.iter().find(|(pattern, _)| pattern.is_match(path)) {
            said.cache_control.clone_from(value);
        }
        if said.cache_control.is_empty() {
            CACHE_CONTROL.clone_into(&mut said.cache_control);
        }
        if let Some(origin) = &self.origin {
            line(&mut said.lines, "Access-Control-Allow-Origin", origin);
            // Scripts see few fields of an answer unless they are exposed. Those about ranges are what they
            // need.
            let exposed = "Accept-Ranges, Content-Encoding, Content-Length, Content-Range, ETag";
            line(&mut said.lines, "Access-Control-Expose-Headers", exposed);
        }
        said
    }

    /// The answer to a browser's preflight request.
    pub(super) fn preflight(&self) -> String {
        let mut lines = String::new();
        if let Some(origin) = &self.origin {
            line(&mut lines, "Access-Control-Allow-Origin", origin);
            line(&mut lines, "Access-Control-Allow-Methods", crate::http::method::ALLOWED);
            let headers = "Accept, Cache-Control, Content-Type, If-Match, If-Modified-Since, If-None-Match, If-Range, \
                           If-Unmodified-Since, Range, X-Requested-With";
            line(&mut lines, "Access-Control-Allow-Headers", headers);
            line(&mut lines, "Access-Control-Max-Age", "86400");
        }
        lines
    }
}

fn line(lines: &mut String, name: &str, value: &str) {
    let mut bytes = std::mem::take(lines).into_bytes();
    field(&mut bytes, name, value);
    // The old lines and the new one are UTF-8.
    *lines = String::from_utf8(bytes).unwrap_or_default();
}
