//! The Content-Type of a file, by its name.

use std::borrow::Cow;
use std::path::Path;

/// Types as the registry of IANA and browsers have them now, of extensions for which `mime_guess` has none or
/// an older one.
const CURRENT: &[(&str, &str)] = &[
    ("avif", "image/avif"),
    ("bmp", "image/bmp"),
    ("cjs", "text/javascript"),
    ("eot", "application/vnd.ms-fontobject"),
    ("flac", "audio/flac"),
    ("geojson", "application/geo+json"),
    ("glb", "model/gltf-binary"),
    ("gltf", "model/gltf+json"),
    ("heic", "image/heic"),
    ("ico", "image/vnd.microsoft.icon"),
    ("js", "text/javascript"),
    ("jsonld", "application/ld+json"),
    ("jxl", "image/jxl"),
    ("m3u8", "application/vnd.apple.mpegurl"),
    ("m4a", "audio/mp4"),
    ("m4s", "video/iso.segment"),
    ("map", "application/json"),
    ("md", "text/markdown"),
    ("mjs", "text/javascript"),
    ("mp4", "video/mp4"),
    ("mpd", "application/dash+xml"),
    ("oga", "audio/ogg"),
    ("ogg", "audio/ogg"),
    ("opus", "audio/ogg"),
    ("otf", "font/otf"),
    ("parquet", "application/vnd.apache.parquet"),
    ("pmtiles", "application/vnd.pmtiles"),
    ("toml", "application/toml"),
    // MPEG transport streams, which browsers do play; sources in TypeScript they do not run.
    ("ts", "video/mp2t"),
    ("ttc", "font/collection"),
    ("ttf", "font/ttf"),
    ("wasm", "application/wasm"),
    ("wav", "audio/wav"),
    ("weba", "audio/webm"),
    ("webm", "video/webm"),
    ("webmanifest", "application/manifest+json"),
    ("webp", "image/webp"),
    ("woff", "font/woff"),
    ("woff2", "font/woff2"),
    ("yaml", "application/yaml"),
    ("yml", "application/yaml"),
    ("zst", "application/zstd"),
];

/// The media type for `path`, by its last extension; `None` for an unknown one.
fn essence(path: &Path) -> Option<&'static str> {
    let extension = path.extension()?.to_str()?;
    let current = CURRENT.iter().find(|(known, _)| known.eq_ignore_ascii_case(extension));
    current.map(|(_, essence)| *essence).or_else(|| mime_guess::from_ext(extension).first_raw())
}

/// The media type for `path`, by its last extension, and `application/octet-stream` for an unknown one.
///
/// Text is declared as UTF-8. Without that, browsers guess a legacy charset and garble Korean plain text.
pub(crate) fn content_type(path: &Path) -> Cow<'static, str> {
    match essence(path).unwrap_or("application/octet-stream") {
        "text/html" => Cow::Borrowed("text/html; charset=utf-8"),
        "text/plain" => Cow::Borrowed("text/plain; charset=utf-8"),
        text if text.starts_with("text/") => Cow::Owned(format!("{text}; charset=utf-8")),
        other => Cow::Borrowed(other),
    }
}

/// Whether the name has the ending of a known type that is no page. Such a name is no route of an application
/// in the browser.
pub(crate) fn is_asset(path: &Path) -> bool {
    essence(path).is_some_and(|essence| essence != "text/html")
}

/// Whether compressing a file of this type makes it smaller as a rule.
pub(crate) fn is_compressible(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default();
    let (kind, rest) = essence.split_once('/').unwrap_or((essence, ""));
    match kind {
        "audio" | "video" => false,
        "image" => matches!(rest, "svg+xml" | "bmp" | "vnd.microsoft.icon" | "tiff"),
        "font" => !matches!(rest, "woff" | "woff2"),
        "application" => !matches!(
            rest,
            "gzip" | "zip" | "zstd" | "x-xz" | "x-bzip2" | "x-7z-compressed" | "x-rar-compressed"
        ),
        _ => true,
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
            ("x.mjs", "text/javascript; charset=utf-8"),
            ("x.md", "text/markdown; charset=utf-8"),
            ("x.csv", "text/csv; charset=utf-8"),
            ("x.json", "application/json"),
            ("x.js.map", "application/json"),
            ("x.png", "image/png"),
            ("x.svg", "image/svg+xml"),
            ("x.wasm", "application/wasm"),
            ("x.woff2", "font/woff2"),
            ("x.otf", "font/otf"),
            ("x.ts", "video/mp2t"),
            ("x.tar.gz", "application/gzip"),
            ("x.zip", "application/zip"),
            ("x.pdf", "application/pdf"),
            ("Makefile", "application/octet-stream"),
            ("x.nosuchthing", "application/octet-stream"),
        ] {
            assert_eq!(content_type(Path::new(path)), expected, "{path}");
        }
    }

    #[test]
    fn what_compresses_and_what_is_a_place() {
        for name in ["x.html", "x.js", "x.json", "x.svg", "x.wasm", "x.ttf", "x", "x.xml"] {
            assert!(is_compressible(&content_type(Path::new(name))), "{name}");
        }
        for name in ["x.png", "x.mp4", "x.woff2", "x.gz", "x.zip", "x.mp3"] {
            assert!(!is_compressible(&content_type(Path::new(name))), "{name}");
        }
        for (name, asset) in
            [("a/b", false), ("john.doe", false), ("a.html", false), ("a.js", true), ("a.png", true)]
        {
            assert_eq!(is_asset(Path::new(name)), asset, "{name}");
        }
    }

    /// The table is searched in its order, and no entry hides another.
    #[test]
    fn the_table_is_in_order() {
        assert!(CURRENT.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }
}
