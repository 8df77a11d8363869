//! The chunked transfer coding (RFC 9112, section 7.1), one step at a time.

use super::{HEAD_MAX, NotHttp};

/// The longest chunk extension, in bytes.
const EXTENSION_MAX: u32 = 4 * 1024;

/// Where in a chunked body the input stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chunked {
    /// In the digits of a chunk's size, of which some were read.
    Size { size: u64, digits: u8 },
    /// Between the size and the end of its line.
    Extension { size: u64, read: u32 },
    /// Before the line feed of a size line.
    SizeEnd { size: u64 },
    /// In a chunk's data.
    Data { left: u64 },
    /// Before the carriage return that follows the data.
    DataCr,
    /// Before the line feed that follows the data.
    DataLf,
    /// In the trailers: bytes read in this line and in all of them.
    Trailer { line: u32, read: u32 },
    /// After a carriage return in the trailers.
    TrailerLf { line: u32, read: u32 },
}

impl Default for Chunked {
    fn default() -> Self {
        Self::Size { size: 0, digits: 0 }
    }
}

/// What the next bytes are.
pub(super) enum Step {
    /// Framing.
    Skip(usize),
    /// Content.
    Data(usize),
    /// Framing, and the body ends with it.
    End(usize),
}

impl Chunked {
    /// Reads at least one byte of an input that is not empty.
    pub(super) fn step(&mut self, input: &[u8]) -> Result<Step, NotHttp> {
        let byte = *input.first().ok_or(NotHttp)?;
        *self = match *self {
            Self::Data { left } => {
                let now = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
                let left = left - now as u64;
                *self = if left == 0 { Self::DataCr } else { Self::Data { left } };
                return Ok(Step::Data(now));
            }
            Self::Size { size, digits } => Self::size(size, digits, byte)?,
            Self::Extension { size, .. } if byte == b'\r' => Self::SizeEnd { size },
            Self::Extension { read, .. } if read >= EXTENSION_MAX || byte == b'\n' => return Err(NotHttp),
            Self::Extension { size, read } => Self::Extension { size, read: read + 1 },
            Self::SizeEnd { size: 0 } if byte == b'\n' => Self::Trailer { line: 0, read: 0 },
            Self::SizeEnd { size } if byte == b'\n' => Self::Data { left: size },
            Self::DataCr if byte == b'\r' => Self::DataLf,
            Self::DataLf if byte == b'\n' => Self::default(),
            Self::Trailer { line, read } if byte == b'\r' => Self::TrailerLf { line, read },
            Self::Trailer { read, .. } if read as usize >= HEAD_MAX || byte == b'\n' => return Err(NotHttp),
            Self::Trailer { line, read } => Self::Trailer { line: line + 1, read: read + 1 },
            Self::TrailerLf { line: 0, .. } if byte == b'\n' => return Ok(Step::End(1)),
            Self::TrailerLf { read, .. } if byte == b'\n' => Self::Trailer { line: 0, read },
            Self::SizeEnd { .. } | Self::DataCr | Self::DataLf | Self::TrailerLf { .. } => {
                return Err(NotHttp);
            }
        };
        Ok(Step::Skip(1))
    }

    fn size(size: u64, digits: u8, byte: u8) -> Result<Self, NotHttp> {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            b'A'..=b'F' => byte - b'A' + 10,
            b'\r' if digits > 0 => return Ok(Self::SizeEnd { size }),
            b';' | b' ' | b'\t' if digits > 0 => return Ok(Self::Extension { size, read: 0 }),
            _ => return Err(NotHttp),
        };
        if digits == 16 || size > u64::MAX >> 5 {
            return Err(NotHttp);
        }
        Ok(Self::Size { size: size << 4 | u64::from(digit), digits: digits + 1 })
    }
}
