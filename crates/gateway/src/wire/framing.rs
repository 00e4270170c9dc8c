//! Follows the framing of HTTP/1.1 (RFC 9112) in a byte stream, to notice heads that name it twice.
//!
//! Invariants: nothing is decided here but "this connection is ambiguous"; what can't be followed is
//! ambiguous, so a difference between this reader and hyper's parser can only refuse a request,
//! never let one through; memory is bounded by [`LINE`], whatever is sent.

/// Bytes of a line that are kept: enough for the two header names and any honest value.
const LINE: usize = 256;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before a request line; empty lines are skipped (RFC 9112 §2.2).
    Start,
    /// In the header lines.
    Head,
    /// In a body with so many bytes to come.
    Body(u64),
    /// Before a chunk's size.
    ChunkSize,
    /// In a chunk with so many bytes to come.
    Chunk(u64),
    /// At the line end behind a chunk.
    ChunkEnd,
    /// Behind the last chunk.
    Trailer,
    /// A head named its framing twice, or could not be followed.
    Ambiguous,
}

/// A reader of one connection's requests.
#[derive(Debug)]
pub(super) struct Framing {
    state: State,
    line: Vec<u8>,
    length: Option<u64>,
    chunked: bool,
}

impl Default for Framing {
    fn default() -> Self {
        Self {
            state: State::Start,
            line: Vec::with_capacity(LINE),
            length: None,
            chunked: false,
        }
    }
}

impl Framing {
    pub(super) fn is_ambiguous(&self) -> bool {
        self.state == State::Ambiguous
    }

    /// Reads on.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            bytes = match self.state {
                State::Ambiguous => return,
                State::Body(left) => self.skip(bytes, left, State::Body, State::Start),
                State::Chunk(left) => self.skip(bytes, left, State::Chunk, State::ChunkEnd),
                State::Start
                | State::Head
                | State::ChunkSize
                | State::ChunkEnd
                | State::Trailer => self.read_line(bytes),
            };
        }
    }

    fn skip<'a>(
        &mut self,
        bytes: &'a [u8],
        left: u64,
        more: fn(u64) -> State,
        done: State,
    ) -> &'a [u8] {
        let have = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if have < left {
            self.state = more(left - have);
            return &[];
        }
        self.state = done;
        // `left` is at most the length of a slice here.
        usize::try_from(left)
            .ok()
            .and_then(|left| bytes.get(left..))
            .unwrap_or_default()
    }

    fn read_line<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let (piece, rest) = match end {
            Some(end) => (bytes.get(..end), bytes.get(end + 1..)),
            None => (Some(bytes), None),
        };
        let room = LINE - self.line.len().min(LINE);
        self.line
            .extend(piece.unwrap_or_default().iter().take(room));
        if end.is_some() {
            let mut line = std::mem::take(&mut self.line);
            self.state = self.after(line.strip_suffix(b"\r").unwrap_or(&line));
            line.clear();
            self.line = line;
        }
        rest.unwrap_or_default()
    }

    /// The state after a whole line.
    fn after(&mut self, line: &[u8]) -> State {
        match self.state {
            State::Start | State::Trailer if line.is_empty() => State::Start,
            State::Start => {
                self.length = None;
                self.chunked = false;
                State::Head
            }
            State::Head if line.is_empty() => self.after_head(),
            State::Head => self.header(line),
            State::ChunkSize => match chunk_size(line) {
                Some(0) => State::Trailer,
                Some(size) => State::Chunk(size),
                None => State::Ambiguous,
            },
            State::ChunkEnd if line.is_empty() => State::ChunkSize,
            State::Trailer => State::Trailer,
            State::ChunkEnd | State::Body(_) | State::Chunk(_) | State::Ambiguous => {
                State::Ambiguous
            }
        }
    }

    fn after_head(&self) -> State {
        match (self.length, self.chunked) {
            (Some(_), true) => State::Ambiguous,
            (None, true) => State::ChunkSize,
            (None | Some(0), false) => State::Start,
            (Some(length), false) => State::Body(length),
        }
    }

    fn header(&mut self, line: &[u8]) -> State {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            // A name longer than what is kept is not one of the two; anything else hyper refuses.
            return if line.len() == LINE {
                State::Head
            } else {
                State::Ambiguous
            };
        };
        let name = line.get(..colon).unwrap_or_default().trim_ascii();
        let value = line.get(colon + 1..).unwrap_or_default().trim_ascii();
        if name.eq_ignore_ascii_case(b"transfer-encoding") {
            self.chunked = true;
        } else if name.eq_ignore_ascii_case(b"content-length") {
            let length = (line.len() < LINE)
                .then(|| number(value, 10))
                .flatten()
                .filter(|length| self.length.is_none_or(|known| known == *length));
            if length.is_none() {
                return State::Ambiguous;
            }
            self.length = length;
        }
        State::Head
    }
}

/// The size in front of a chunk; an extension may follow (RFC 9112 §7.1).
fn chunk_size(line: &[u8]) -> Option<u64> {
    let size = line.split(|byte| *byte == b';').next()?;
    number(size.trim_ascii(), 16)
}

fn number(digits: &[u8], radix: u32) -> Option<u64> {
    let text = std::str::from_utf8(digits).ok()?;
    if text.starts_with('+') {
        return None;
    }
    u64::from_str_radix(text, radix).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ambiguous(stream: &[u8], step: usize) -> bool {
        let mut framing = Framing::default();
        for piece in stream.chunks(step) {
            framing.feed(piece);
        }
        framing.is_ambiguous()
    }

    const PLAIN: &str = "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n\
        POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 31\r\n\r\nContent-Length: 1\r\nTransfer-Enco\
        POST / HTTP/1.1\nTransfer-Encoding: chunked\n\n\
        1d;x=y\r\nA\r\n\r\nContent-Length: 5\r\n\r\nGET\r\n0\r\nTrail: 1\r\n\r\n\
        PUT / HTTP/1.1\r\ncontent-length: 2\r\nContent-Length: 2\r\n\r\n{}\
        GET / HTTP/1.1\r\n\r\n";

    /// Honest requests must not be refused, however the network cuts them.
    #[test]
    fn plain_requests_in_a_row_are_followed() {
        for step in 1..PLAIN.len() {
            assert!(!ambiguous(PLAIN.as_bytes(), step), "in pieces of {step}");
        }
    }

    /// The classic smuggling pair, in both orders, and after other requests on the connection.
    #[test]
    fn two_framings_in_one_head_are_noticed() {
        let pairs = [
            "POST / HTTP/1.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n",
            "POST / HTTP/1.1\r\ncontent-LENGTH:0\r\ntransfer-ENCODING:\tchunked\r\n\r\n",
            "POST / HTTP/1.1\nTransfer-Encoding: x\nTransfer-Encoding: chunked\nContent-Length: 1\n\n",
        ];
        for pair in pairs {
            for step in [1, 7, 1000] {
                assert!(ambiguous(pair.as_bytes(), step), "{pair}");
                assert!(
                    ambiguous(format!("{PLAIN}{pair}").as_bytes(), step),
                    "{pair}"
                );
            }
        }
    }

    proptest! {
        /// Bytes of a stranger never make the reader grow or stop.
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let mut framing = Framing::default();
            framing.feed(&bytes);
            prop_assert!(framing.line.len() <= LINE);
        }
    }
}
