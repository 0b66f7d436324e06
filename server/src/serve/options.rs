//! What a server of files can be told.

use std::fmt;
use std::path::PathBuf;

use clap::Args;

use super::deadlines::DeadlineArgs;
use super::rule::{CacheRule, ErrorPage, HeaderRule, Origin};
use crate::options::values::size;

/// How files are served. Each field is a flag of `annulus serve` and a key of a listener that has a `root`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct ServeArgs {
    /// The directory to serve; nothing outside of it can be reached
    #[arg(value_name = "ROOT", default_value = ".")]
    pub(crate) root: PathBuf,

    /// The files that stand for their directory, the first that is there; several with commas
    #[arg(long, value_name = "NAMES", default_value = "index.html", value_delimiter = ',', value_parser = file_name)]
    pub(crate) index: Vec<String>,

    /// List directories that have no index file: as a page, and as JSON to who accepts that rather
    #[arg(long)]
    pub(crate) browse: bool,

    /// Serve hidden files too, whose names begin with a dot; /.well-known/ is served in any case
    #[arg(long)]
    pub(crate) hidden: bool,

    /// Answer with /index.html where nothing has the name, for applications that find their way in the
    /// browser; names that end like a script, a picture or another known type stay 404
    #[arg(long)]
    pub(crate) spa: bool,

    /// A file below ROOT that is sent with this error status, such as 404=/404.html; several times for
    /// several statuses
    #[arg(long, value_name = "STATUS=FILE", value_parser = ErrorPage::parse)]
    pub(crate) error_page: Vec<ErrorPage>,

    /// A header line for all paths that the pattern matches, such as '*.html: X-Frame-Options: DENY'; several
    /// times for several. A pattern with a slash matches from ROOT on ('/assets/**'), one without the last
    /// name
    #[arg(long, value_name = "GLOB: NAME: VALUE", value_parser = HeaderRule::parse)]
    pub(crate) header: Vec<HeaderRule>,

    /// What Cache-Control says of the paths that the pattern matches, such as '/assets/**=public,
    /// max-age=31536000, immutable'; the first that matches counts [default: no-cache, that is: keep it and
    /// ask whether it is still the same]
    #[arg(long, value_name = "GLOB=VALUE", value_parser = CacheRule::parse)]
    pub(crate) cache_control: Vec<CacheRule>,

    /// The origin whose pages may read what is served, or '*' for all (CORS)
    #[arg(long, value_name = "ORIGIN", value_parser = Origin::parse)]
    pub(crate) cors: Option<Origin>,

    /// How much is held of files that were asked for, such as 64M,20000: bytes of small files on each node,
    /// and files; 0 holds nothing. Open files never take more than half of the descriptors
    #[arg(long, value_name = "BYTES,FILES", default_value_t, value_parser = CacheSize::parse)]
    pub(crate) cache: CacheSize,

    /// Send files as they are, also where a file.br, file.zst or file.gz lies beside them and the client
    /// takes that
    #[arg(long)]
    pub(crate) no_precompressed: bool,

    #[command(flatten)]
    pub(crate) deadlines: DeadlineArgs,
}

/// How much a cache holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CacheSize {
    /// Bytes of contents and facts, on each node.
    pub(super) bytes: u64,
    /// Files.
    pub(super) entries: usize,
}

impl Default for CacheSize {
    fn default() -> Self {
        Self { bytes: 64 << 20, entries: 20_000 }
    }
}

impl CacheSize {
    /// Reads `BYTES,FILES` or `BYTES`.
    fn parse(text: &str) -> Result<Self, String> {
        let (bytes, entries) =
            text.split_once(',').map_or((text, None), |(bytes, files)| (bytes, Some(files)));
        let wrong = || "write bytes and a number of files, such as 64M,20000".to_owned();
        let bytes = size(bytes).map_err(|_| wrong())? as u64;
        let entries = match entries {
            None => Self::default().entries,
            Some(files) => files.parse().map_err(|_| wrong())?,
        };
        Ok(Self { bytes, entries })
    }
}

impl fmt::Display for CacheSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.bytes.is_multiple_of(1 << 20) {
            true if self.bytes > 0 => write!(f, "{}M,{}", self.bytes >> 20, self.entries),
            _ => write!(f, "{},{}", self.bytes, self.entries),
        }
    }
}

/// A name of one file in a directory.
fn file_name(text: &str) -> Result<String, String> {
    if text.is_empty() || text.contains('/') || matches!(text, "." | "..") {
        return Err("write the name of a file, without a directory, such as index.html".to_owned());
    }
    Ok(text.to_owned())
}
