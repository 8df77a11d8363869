//! Frames on a stream of bytes: a length of four bytes, the highest first, and so many bytes. Pure.

/// The largest frame before the other side has proven who it is.
pub(super) const STRANGER_MAX: usize = 4 * 1024;
/// The largest frame after that: a plan with bodies, or the last slice with all its distributions.
pub(super) const FRAME_MAX: usize = 64 << 20;
/// Bytes before the content.
const HEAD: usize = 4;

/// A frame is larger than it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooLong(pub(super) usize);

/// Puts frames together again, however the stream cuts them.
#[derive(Debug, Default)]
pub(super) struct Frames {
    held: Vec<u8>,
}

impl Frames {
    /// Takes what has arrived.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
    }

    /// The next whole frame; none if more bytes are needed. Nothing is reserved for what a length merely promises.
    ///
    /// # Errors
    /// It is longer than `most`.
    pub(super) fn next(&mut self, most: usize) -> Result<Option<Vec<u8>>, TooLong> {
        let Some(head) = self.held.first_chunk::<HEAD>() else { return Ok(None) };
        let length = u32::from_be_bytes(*head) as usize;
        if length > most {
            return Err(TooLong(length));
        }
        if self.held.len() < HEAD + length {
            return Ok(None);
        }
        let rest = self.held.split_off(HEAD + length);
        let mut frame = std::mem::replace(&mut self.held, rest);
        frame.drain(..HEAD);
        Ok(Some(frame))
    }
}

/// The bytes of a frame.
///
/// # Errors
/// It is longer than [`FRAME_MAX`].
pub(super) fn frame(content: &[u8]) -> Result<Vec<u8>, TooLong> {
    if content.len() > FRAME_MAX {
        return Err(TooLong(content.len()));
    }
    let mut bytes = Vec::with_capacity(HEAD + content.len());
    bytes.extend((content.len() as u32).to_be_bytes());
    bytes.extend_from_slice(content);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_length_beyond_the_limit_is_told_at_once() {
        let mut frames = Frames::default();
        frames.push(&u32::MAX.to_be_bytes());
        assert_eq!(frames.next(STRANGER_MAX), Err(TooLong(u32::MAX as usize)));
        assert!(frame(&vec![0; FRAME_MAX + 1]).is_err());
    }

    proptest! {
        #[test]
        fn frames_come_out_as_they_went_in(
            contents in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..8),
            cut in 1usize..50,
        ) {
            let stream: Vec<u8> = contents.iter().flat_map(|content| frame(content).unwrap()).collect();
            let (mut frames, mut seen) = (Frames::default(), Vec::new());
            for part in stream.chunks(cut) {
                frames.push(part);
                while let Some(content) = frames.next(100).unwrap() {
                    seen.push(content);
                }
            }
            prop_assert_eq!(seen, contents);
        }
    }
}
