//! What a server of files can be told.

use std::path::PathBuf;

use clap::Args;

use super::rules::{CacheRule, ErrorPage, HeaderRule, Origin};

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

    /// Answer with /index.html where nothing has the name, for applications that find their way in the browser; names that end like a
    /// script, a picture or another known type stay 404
    #[arg(long)]
    pub(crate) spa: bool,

    /// A file below ROOT that is sent with this error status, such as 404=/404.html; several times for several statuses
    #[arg(long, value_name = "STATUS=FILE", value_parser = ErrorPage::parse)]
    pub(crate) error_page: Vec<ErrorPage>,

    /// A header line for all paths that the pattern matches, such as '*.html: X-Frame-Options: DENY'; several times for several. A
    /// pattern with a slash matches from ROOT on ('/assets/**'), one without the last name
    #[arg(long, value_name = "GLOB: NAME: VALUE", value_parser = HeaderRule::parse)]
    pub(crate) header: Vec<HeaderRule>,

    /// What Cache-Control says of the paths that the pattern matches, such as '/assets/**=public, max-age=31536000, immutable'; the
    /// first that matches counts [default: no-cache, that is: keep it and ask whether it is still the same]
    #[arg(long, value_name = "GLOB=VALUE", value_parser = CacheRule::parse)]
    pub(crate) cache_control: Vec<CacheRule>,

    /// The origin whose pages may read what is served, or '*' for all (CORS)
    #[arg(long, value_name = "ORIGIN", value_parser = Origin::parse)]
    pub(crate) cors: Option<Origin>,

    /// Send files as they are, also where a file.br, file.zst or file.gz lies beside them and the client takes that
    #[arg(long)]
    pub(crate) no_precompressed: bool,
}

/// A name of one file in a directory.
fn file_name(text: &str) -> Result<String, String> {
    if text.is_empty() || text.contains('/') || matches!(text, "." | "..") {
        return Err("write the name of a file, without a directory, such as index.html".to_owned());
    }
    Ok(text.to_owned())
}
