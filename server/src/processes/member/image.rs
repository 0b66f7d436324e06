//! The program's own image: its constants and variables, brought to the node of its process.

use std::fmt;

use annulus::PlacementPolicy;
use annulus::numa::NodeId;
use annulus::numa::image::{self, Kind as Of, Segment};
use annulus::numa::verify::where_pages_lie;

use crate::exit::{Failure, Kind};

/// The program's image, and the node where it belongs.
#[derive(Debug)]
pub(crate) struct Image {
    node: NodeId,
    segments: Vec<Segment>,
}

impl Image {
    /// Brings what the program reads and writes of its own image to `node`. Call it before the first thread.
    ///
    /// # Errors
    /// [`Kind::Platform`] when placement is required and not all is there.
    pub(super) fn settle(node: NodeId, placement: PlacementPolicy) -> Result<Self, Failure> {
        // SAFETY: no thread has been started yet, the program has no handler of a signal, loads no library
        // and maps nothing there itself.
        let (segments, why) = match unsafe { image::bring_here() } {
            Ok(segments) => (segments, String::new()),
            Err(error) => {
                tracing::warn!(%error, "the program's image stays where its files are cached");
                (Vec::new(), format!(" ({error})"))
            }
        };
        let image = Image { node, segments };
        if placement == PlacementPolicy::Require && !image.is_home() {
            return Err(Failure::new(
                Kind::Platform,
                format!(
                    "the program's image is not known to be on node {node}{why}; free memory there, or serve with --processes one"
                ),
            ));
        }
        Ok(image)
    }

    fn is_home(&self) -> bool {
        let mut own = self.segments.iter().filter(|segment| segment.kind != Of::Code).peekable();
        own.peek().is_some()
            && own.all(|segment| {
                let range = &segment.addresses;
                where_pages_lie(std::ptr::without_provenance(range.start), range.len())
                    .is_ok_and(|pages| pages.off(self.node) == 0 && pages.unknown == 0)
            })
    }
}

/// A line for each mapping, as in the report of the runtime.
impl fmt::Display for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for segment in &self.segments {
            let range = &segment.addresses;
            write!(f, "image: {segment} of {} bytes ", range.len())?;
            match segment.kind {
                Of::Code => write!(f, "stays where its file is cached: ")?,
                _ => write!(f, "belongs on node {}: ", self.node)?,
            }
            match where_pages_lie(std::ptr::without_provenance(range.start), range.len()) {
                Ok(pages) => writeln!(f, "{pages}")?,
                Err(error) => writeln!(f, "cannot be inspected: {error}")?,
            }
        }
        Ok(())
    }
}
