//! What is wrong in a file, and where.

use std::ops::Range;
use std::path::Path;

/// Something that is wrong, at a place of the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// The bytes of the text that are meant.
    pub(crate) span: Range<usize>,
    /// What is wrong, and the nearest right word.
    pub(crate) what: String,
}

impl Fault {
    /// `what` is wrong at `span`.
    pub(crate) fn new(span: Range<usize>, what: impl Into<String>) -> Self {
        Fault { span, what: what.into() }
    }
}

/// A line for each fault, in the order of their places: `FILE:LINE:COLUMN: what`. Lines and columns count
/// from 1, columns in characters.
pub(crate) fn lines(file: &Path, text: &str, mut faults: Vec<Fault>) -> Vec<String> {
    faults.sort_by_key(|fault| fault.span.start);
    faults.dedup();
    let line = |fault: &Fault| {
        let (line, column) = place(text, fault.span.start);
        format!("{}:{line}:{column}: {}", file.display(), fault.what.replace('\n', "; "))
    };
    faults.iter().map(line).collect()
}

/// Line and column of a byte.
fn place(text: &str, at: usize) -> (usize, usize) {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    let before = &text[..at];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_from_one_in_characters() {
        let text = "a = 1\né = 2\n";
        assert_eq!(place(text, 0), (1, 1));
        assert_eq!(place(text, text.find('2').unwrap()), (2, 5));
        assert_eq!(place(text, text.len()), (3, 1));
        assert_eq!(place(text, 1000), (3, 1));
    }

    #[test]
    fn each_fault_is_a_line_in_the_order_of_the_text() {
        let faults = vec![Fault::new(6..7, "second"), Fault::new(0..1, "first\nof two")];
        assert_eq!(
            lines(Path::new("f"), "a = 1\nb = 2\n", faults),
            ["f:1:1: first; of two", "f:2:1: second"]
        );
    }
}
