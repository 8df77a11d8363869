//! HTTP/2 frames (RFC 9113, sections 4 and 6): splitting what arrives, writing what goes out. No state of a connection.

/// What a client says first.
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The largest payload that this side accepts: the protocol's least, which is never raised.
pub(super) const PAYLOAD_MAX: usize = 16_384;
const HEADER: usize = 9;

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PUSH_PROMISE: u8 = 5;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

/// The last frame of a stream's direction.
pub(super) const END_STREAM: u8 = 1;
/// Of SETTINGS and PING.
pub(super) const ACK: u8 = 1;
/// The last frame of a header block.
pub(super) const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 0x20;

/// What breaks the rules of the protocol, so that the connection cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// A complete frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    pub(super) payload: &'a [u8],
}

impl<'a> Frame<'a> {
    pub(super) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// The payload of DATA or HEADERS without padding and priority.
    pub(super) fn content(&self) -> Result<&'a [u8], Malformed> {
        let mut content = self.payload;
        if self.has(PADDED) {
            let (length, rest) = content.split_first().ok_or(Malformed)?;
            content =
                rest.len().checked_sub(usize::from(*length)).map(|end| &rest[..end]).ok_or(Malformed)?;
        }
        if self.kind == HEADERS && self.has(PRIORITY) {
            content = content.get(5..).ok_or(Malformed)?;
        }
        Ok(content)
    }

    /// The number at this place of the payload.
    pub(super) fn number(&self, at: usize) -> Result<u32, Malformed> {
        let bytes = self.payload.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map(u32::from_be_bytes).ok_or(Malformed)
    }
}

/// Splits what arrives into frames, however it is cut; holds one frame at most.
#[derive(Debug, Default)]
pub(super) struct Frames {
    partial: Vec<u8>,
    /// The partial frame was completed and given out.
    spent: bool,
}

impl Frames {
    /// The next frame; none if more bytes are needed. Takes what it used from the input.
    pub(super) fn next<'a, 'i: 'a>(
        &'a mut self,
        input: &mut &'i [u8],
    ) -> Result<Option<Frame<'a>>, Malformed> {
        if std::mem::take(&mut self.spent) {
            self.partial.clear();
        }
        if self.partial.is_empty() {
            if let Some(length) = whole(input)?
                && input.len() >= length
            {
                let (frame, rest) = input.split_at(length);
                *input = rest;
                return Ok(Some(read(frame)));
            }
            self.partial.extend_from_slice(input);
            *input = &[];
            return Ok(None);
        }
        self.fill(input, HEADER);
        if let Some(length) = whole(&self.partial)? {
            self.fill(input, length);
            if self.partial.len() == length {
                self.spent = true;
                return Ok(Some(read(&self.partial)));
            }
        }
        Ok(None)
    }

    fn fill(&mut self, input: &mut &[u8], length: usize) {
        let missing = length.saturating_sub(self.partial.len()).min(input.len());
        self.partial.extend_from_slice(&input[..missing]);
        *input = &input[missing..];
    }
}

/// The length of the frame that begins here, its header included, once that is there.
fn whole(bytes: &[u8]) -> Result<Option<usize>, Malformed> {
    let [a, b, c, ..] = *bytes else { return Ok(None) };
    let payload = u32::from_be_bytes([0, a, b, c]) as usize;
    if payload > PAYLOAD_MAX {
        return Err(Malformed);
    }
    Ok((bytes.len() >= HEADER).then_some(HEADER + payload))
}

fn read(frame: &[u8]) -> Frame<'_> {
    let stream = u32::from_be_bytes([frame[5], frame[6], frame[7], frame[8]]) & 0x7fff_ffff;
    Frame { kind: frame[3], flags: frame[4], stream, payload: &frame[HEADER..] }
}

/// Writes a frame; the payload must not be larger than the other side allows.
pub(super) fn write(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// Writes a header block, in as many frames as it takes.
pub(super) fn write_block(out: &mut Vec<u8>, stream: u32, block: &[u8], last: bool, payload_max: usize) {
    let mut pieces = block.chunks(payload_max).peekable();
    let (mut kind, mut flags) = (HEADERS, if last { END_STREAM } else { 0 });
    while let Some(piece) = pieces.next() {
        if pieces.peek().is_none() {
            flags |= END_HEADERS;
        }
        write(out, kind, flags, stream, piece);
        (kind, flags) = (CONTINUATION, 0);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Kind, flags, stream, payload.
    type Owned = (u8, u8, u32, Vec<u8>);

    fn all(mut frames: Frames, pieces: &[&[u8]]) -> Result<Vec<Owned>, Malformed> {
        let mut seen = Vec::new();
        for piece in pieces {
            let mut input = *piece;
            while let Some(frame) = frames.next(&mut input)? {
                seen.push((frame.kind, frame.flags, frame.stream, frame.payload.to_vec()));
            }
        }
        Ok(seen)
    }

    proptest! {
        #[test]
        fn frames_are_the_same_however_they_are_cut(
            frames in prop::collection::vec((0u8..12, any::<u8>(), 0u32..1 << 31, prop::collection::vec(any::<u8>(), 0..40)), 0..6),
            cuts in prop::collection::vec(0usize..300, 0..6),
        ) {
            let mut bytes = Vec::new();
            for (kind, flags, stream, payload) in &frames {
                write(&mut bytes, *kind, *flags, *stream, payload);
            }
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.sort_unstable();
            let ends = cuts.iter().copied().chain([bytes.len()]);
            let pieces: Vec<&[u8]> = [0].into_iter().chain(cuts.iter().copied()).zip(ends).map(|(a, b)| &bytes[a..b]).collect();
            prop_assert_eq!(all(Frames::default(), &pieces), Ok(frames));
        }

        #[test]
        fn no_bytes_make_it_panic_or_grow(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut frames = Frames::default();
            let mut input = &bytes[..];
            while let Ok(Some(frame)) = frames.next(&mut input) {
                let _ = frame.content();
            }
            prop_assert!(frames.partial.len() <= HEADER + PAYLOAD_MAX);
        }
    }

    #[test]
    fn a_frame_that_is_too_large_and_padding_beyond_it_are_malformed() {
        assert_eq!(all(Frames::default(), &[&[0, 0x40, 1, 0, 0, 0, 0, 0, 1]]), Err(Malformed));
        let frame = |payload| Frame { kind: DATA, flags: PADDED, stream: 1, payload };
        assert_eq!(frame(&[2, b'x', 0, 0]).content(), Ok(&b"x"[..]));
        assert_eq!(frame(&[4, b'x', 0, 0]).content(), Err(Malformed));
        assert_eq!(frame(&[]).content(), Err(Malformed));
    }

    #[test]
    fn a_large_block_goes_on_in_continuations() {
        let mut out = Vec::new();
        write_block(&mut out, 3, &[7; 25], true, 10);
        let seen: Vec<(u8, u8, usize)> = all(Frames::default(), &[&out])
            .expect("well formed")
            .iter()
            .map(|(kind, flags, _, payload)| (*kind, *flags, payload.len()))
            .collect();
        assert_eq!(seen, [(HEADERS, END_STREAM, 10), (CONTINUATION, 0, 10), (CONTINUATION, END_HEADERS, 5)]);
    }
}
