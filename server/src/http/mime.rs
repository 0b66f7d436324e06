//! The Content-Type of a file, by its name.

use std::borrow::Cow;
use std::path::Path;

/// The media type for `path`, by its last extension, and `application/octet-stream` for an unknown one.
///
/// Text is said to be UTF-8: without it, browsers guess a legacy charset and show Korean plain text as rubbish.
pub(crate) fn content_type(path: &Path) -> Cow<'static, str> {
    let Some(essence) = mime_guess::from_path(path).first_raw() else {
        return Cow::Borrowed("application/octet-stream");
    };
    match essence {
        "text/html" => Cow::Borrowed("text/html; charset=utf-8"),
        "text/plain" => Cow::Borrowed("text/plain; charset=utf-8"),
        text if text.starts_with("text/") => Cow::Owned(format!("{text}; charset=utf-8")),
        other => Cow::Borrowed(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_by_extension() {
        for (path, expected) in [
            ("a/index.html", "text/html; charset=utf-8"),
            ("A.TXT", "text/plain; charset=utf-8"),
            ("x.css", "text/css; charset=utf-8"),
            ("x.js", "text/javascript; charset=utf-8"),
            ("x.json", "application/json"),
            ("x.png", "image/png"),
            ("x.wasm", "application/wasm"),
            ("x.tar.gz", "application/gzip"),
            ("Makefile", "application/octet-stream"),
            ("x.nosuchthing", "application/octet-stream"),
        ] {
            assert_eq!(content_type(Path::new(path)), expected, "{path}");
        }
    }
}
