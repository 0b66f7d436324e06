//! Several parts of a file in one answer: `multipart/byteranges` (RFC 9110 14.6, RFC 2046 5.1).

use std::ops::Range;

/// An answer of several parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Multipart {
    boundary: String,
    content_type: String,
    /// The file's size in bytes.
    size: u64,
    parts: Vec<Range<u64>>,
}

impl Multipart {
    /// The parts of a file of `size` bytes. Nothing in the file may look like the boundary, so `unique` is a
    /// number that nobody can know when the file is written.
    pub(crate) fn new(content_type: &str, size: u64, parts: Vec<Range<u64>>, unique: u64) -> Self {
        Self {
            boundary: format!("annulus-{unique:016x}"),
            content_type: content_type.to_owned(),
            size,
            parts,
        }
    }

    /// The value of Content-Type.
    pub(crate) fn content_type(&self) -> String {
        format!("multipart/byteranges; boundary={}", self.boundary)
    }

    /// The parts, each with what stands before it.
    pub(crate) fn parts(&self) -> impl Iterator<Item = (String, Range<u64>)> {
        self.parts.iter().enumerate().map(|(at, part)| {
            let line_end = if at == 0 { "" } else { "\r\n" };
            let head = format!(
                "{line_end}--{}\r\nContent-Type: {}\r\nContent-Range: bytes {}-{}/{}\r\n\r\n",
                self.boundary,
                self.content_type,
                part.start,
                part.end - 1,
                self.size
            );
            (head, part.clone())
        })
    }

    /// What stands behind the last part.
    pub(crate) fn end(&self) -> String {
        format!("\r\n--{}--\r\n", self.boundary)
    }

    /// The length of all that, in bytes.
    pub(crate) fn len(&self) -> u64 {
        let parts: u64 = self.parts().map(|(head, part)| head.len() as u64 + (part.end - part.start)).sum();
        parts + self.end().len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_reads() {
        let multipart = Multipart::new("text/plain", 26, vec![0..2, 24..26], 7);
        let letters = "abcdefghijklmnopqrstuvwxyz";
        let mut body = String::new();
        for (head, part) in multipart.parts() {
            body.push_str(&head);
            body.push_str(&letters[part.start as usize..part.end as usize]);
        }
        body.push_str(&multipart.end());
        assert_eq!(body.len() as u64, multipart.len());
        assert_eq!(
            body,
            "--annulus-0000000000000007\r\nContent-Type: text/plain\r\nContent-Range: bytes 0-1/26\r\n\r\nab\r\n\
             --annulus-0000000000000007\r\nContent-Type: text/plain\r\nContent-Range: bytes 24-25/26\r\n\r\nyz\r\n\
             --annulus-0000000000000007--\r\n"
        );
        assert_eq!(multipart.content_type(), "multipart/byteranges; boundary=annulus-0000000000000007");
    }
}
