//! What clients of a play ask, and what they have to hear.

use annulus::played::PlayHandle;

/// Bytes of a head, at most.
const HEAD: usize = 16 * 1024;

/// The files that are served: small ones, which are held, and those that are spliced.
pub(super) struct Files(Vec<(&'static str, Vec<u8>)>);

impl Files {
    pub(super) fn new() -> Self {
        let content =
            |len: usize, salt: usize| (0..len).map(|at| (at * 31 + at / 251 + salt) as u8).collect();
        let sizes = [("none", 0), ("small", 100), ("middle", 12_000), ("large", 40_000), ("bulk", 250_000)];
        Self(sizes.iter().map(|(name, len)| (*name, content(*len, name.len()))).collect())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &(&'static str, Vec<u8>)> {
        self.0.iter()
    }
}

/// A request, and its answer.
pub(super) struct Expected {
    pub(super) request: Vec<u8>,
    status: u16,
    /// The body; `None` for one that is of no account.
    body: Option<Vec<u8>>,
    /// The answer has no body, whatever its head says of a length.
    is_bare: bool,
}

impl Expected {
    fn new(request: String, status: u16) -> Self {
        Self { request: request.into_bytes(), status, body: None, is_bare: false }
    }

    fn with_body(self, body: &[u8]) -> Self {
        Self { body: Some(body.to_vec()), ..self }
    }

    fn bare(self) -> Self {
        Self { is_bare: true, ..self }
    }
}

/// Some requests for one connection.
pub(super) fn requests(play: &PlayHandle, files: &Files) -> Vec<Expected> {
    let count = 1 + play.below(6);
    let mut asked: Vec<_> = (0..count).map(|_| one(play, files)).collect();
    match play.below(6) {
        0 => asked.push(Expected::new("NO REQUEST\r\n\r\n".to_owned(), 400)),
        1 => {
            let request = "GET /small HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
            asked.push(Expected::new(request.to_owned(), 200));
        }
        _ => {}
    }
    asked
}

fn one(play: &PlayHandle, files: &Files) -> Expected {
    let (name, content) = &files.0[play.below(files.0.len() as u64) as usize];
    let filler = "x".repeat(play.pick(&[0, 0, 300, 6_000]));
    let fields = format!("Host: a\r\nX-Filler: {filler}\r\n");
    let (len, ask) = (content.len() as u64, |method: &str, more: &str| {
        format!("{method} /{name} HTTP/1.1\r\n{fields}{more}\r\n")
    });
    match play.below(9) {
        0 => Expected::new(ask("HEAD", ""), 200).bare(),
        1 => Expected::new(ask("GET", "If-None-Match: *\r\n"), 304).bare(),
        2 => Expected::new(format!("GET /nothing HTTP/1.1\r\n{fields}\r\n"), 404),
        3 => {
            let body = "b".repeat(play.pick(&[0, 1, 5_000]));
            let more = format!("Content-Length: {}\r\n", body.len());
            Expected::new(format!("{}{body}", ask("POST", &more)), 405)
        }
        4 | 5 if len > 0 => {
            let from = play.below(len);
            let to = from + play.below(len - from);
            let more = format!("Range: bytes={from}-{to}\r\n");
            Expected::new(ask("GET", &more), 206).with_body(&content[from as usize..=to as usize])
        }
        _ => Expected::new(ask("GET", ""), 200).with_body(content),
    }
}

/// What a client has heard.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// Answers that are whole.
    pub(super) whole: usize,
    /// Bytes of one that is not.
    pub(super) partial: usize,
    /// The last one says that the connection ends.
    pub(super) said_close: bool,
}

/// Reads answers, and compares them with what is expected.
///
/// # Errors
/// Something is not as it has to be.
pub(super) fn answers(asked: &[Expected], mut heard: &[u8]) -> Result<Heard, String> {
    let mut seen = Heard::default();
    while !heard.is_empty() {
        let Some(expected) = asked.get(seen.whole) else {
            return Err(format!("{} bytes came after the last answer", heard.len()));
        };
        if seen.said_close {
            return Err("an answer came after one that said it was the last".to_owned());
        }
        let mut fields = [httparse::EMPTY_HEADER; 64];
        let mut head = httparse::Response::new(&mut fields);
        let parsed = head.parse(heard).map_err(|e| format!("answer {} cannot be read: {e}", seen.whole))?;
        let httparse::Status::Complete(head_len) = parsed else {
            if heard.len() > HEAD {
                return Err(format!("the head of answer {} does not end", seen.whole));
            }
            seen.partial = heard.len();
            return Ok(seen);
        };
        if head.code != Some(expected.status) {
            let request = String::from_utf8_lossy(&expected.request[..expected.request.len().min(60)]);
            return Err(format!("{:?} was answered with {:?}", request, head.code));
        }
        let field = |name: &str| {
            let found = head.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name));
            found.and_then(|field| std::str::from_utf8(field.value).ok())
        };
        let said_close = field("Connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        let len = if expected.is_bare {
            0
        } else {
            field("Content-Length").and_then(|len| len.parse().ok()).unwrap_or(0)
        };
        let body = &heard[head_len..heard.len().min(head_len + len)];
        if let Some(whole) = &expected.body
            && (whole.len() != len || !whole.starts_with(body))
        {
            return Err(format!(
                "the body of answer {} is wrong: {len} bytes of {}",
                seen.whole,
                whole.len()
            ));
        }
        if body.len() < len {
            seen.partial = heard.len();
            return Ok(seen);
        }
        heard = &heard[head_len + len..];
        seen.whole += 1;
        seen.said_close = said_close;
    }
    Ok(seen)
}
