//! Where the body of a message ends. Bodies are scanned as they stream by, never collected or decoded.

/// How a body is delimited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Body {
    /// There is none.
    None,
    /// This many bytes are left.
    Length(u64),
    /// `transfer-encoding: chunked`.
    Chunked(Chunks),
    /// It ends with the connection.
    UntilClose,
}

/// How much of the input belongs to the body.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Progress {
    /// Bytes of the input.
    pub(super) used: usize,
    /// Whether the body is complete; an error if it is no valid body.
    pub(super) state: Result<bool, ()>,
}

impl Body {
    /// Scans the next bytes.
    pub(super) fn take(&mut self, input: &[u8]) -> Progress {
        match self {
            Self::None => Progress { used: 0, state: Ok(true) },
            Self::UntilClose => Progress { used: input.len(), state: Ok(false) },
            Self::Length(left) => {
                let used = input.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= used as u64;
                Progress { used, state: Ok(*left == 0) }
            }
            Self::Chunked(chunks) => chunks.take(input),
        }
    }
}

/// The longest line of sizes or trailers.
const LINE_MAX: usize = 16 * 1024;

/// A scanner of chunked bodies that can stop at any byte.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Chunks {
    place: Place,
    /// Bytes of the current line, or digits of the current size.
    line: usize,
    size: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Place {
    #[default]
    Size,
    Extension,
    Data(u64),
    /// The line end behind the data.
    DataEnd,
    Trailer,
}

impl Chunks {
    fn take(&mut self, input: &[u8]) -> Progress {
        let mut used = 0;
        while used < input.len() {
            if let Place::Data(left) = self.place {
                let step = (input.len() - used).min(usize::try_from(left).unwrap_or(usize::MAX));
                used += step;
                let left = left - step as u64;
                self.place = if left == 0 { Place::DataEnd } else { Place::Data(left) };
                continue;
            }
            let byte = input[used];
            used += 1;
            match self.step(byte) {
                Ok(false) => {}
                state => return Progress { used, state },
            }
        }
        Progress { used, state: Ok(false) }
    }

    /// One byte outside the data; true at the end of the body.
    fn step(&mut self, byte: u8) -> Result<bool, ()> {
        match (self.place, byte) {
            (Place::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') if self.line < 15 => {
                let digit = char::from(byte).to_digit(16).ok_or(())?;
                self.size = self.size * 16 + u64::from(digit);
                self.line += 1;
            }
            (Place::Size | Place::Extension, b'\n') => {
                if self.line == 0 {
                    return Err(());
                }
                self.place = if self.size == 0 { Place::Trailer } else { Place::Data(self.size) };
                (self.size, self.line) = (0, 0);
            }
            (Place::Size, b';' | b' ' | b'\t' | b'\r') if self.line > 0 => self.place = Place::Extension,
            (Place::DataEnd, b'\r') if self.line == 0 => self.line = 1,
            (Place::DataEnd, b'\n') => {
                self.place = Place::Size;
                self.line = 0;
            }
            (Place::Trailer, b'\n') => {
                if self.line == 0 {
                    return Ok(true);
                }
                self.line = 0;
            }
            (Place::Trailer, b'\r') => {}
            (Place::Extension | Place::Trailer, _) if self.line < LINE_MAX => self.line += 1,
            _ => return Err(()),
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunked_body_ends_where_its_last_chunk_ends_however_it_is_split() {
        let body = b"5\r\nhello\r\n1a;name=\"v\"\r\nabcdefghijklmnopqrstuvwxyz\r\n0\r\nSum: 1\r\n\r\n";
        for split in 0..=body.len() {
            let mut chunks = Body::Chunked(Chunks::default());
            let first = chunks.take(&body[..split]);
            assert_eq!(first.used, split);
            assert_eq!(first.state, Ok(split == body.len()));
            if split < body.len() {
                let mut rest = body[split..].to_vec();
                rest.extend_from_slice(b"GET / HTTP/1.1");
                let second = chunks.take(&rest);
                assert_eq!(
                    second,
                    Progress { used: body.len() - split, state: Ok(true) },
                    "split at {split}"
                );
            }
        }
    }

    #[test]
    fn what_is_no_chunked_body_is_an_error() {
        for bad in [&b"x\r\n"[..], b"\r\n", b"ffffffffffffffff\r\n", b"1\r\nabc"] {
            let state = Body::Chunked(Chunks::default()).take(bad).state;
            assert_eq!(state, Err(()), "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn a_body_with_a_length_leaves_the_next_message_alone() {
        assert_eq!(Body::Length(3).take(b"abcGET"), Progress { used: 3, state: Ok(true) });
    }
}
