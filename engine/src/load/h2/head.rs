//! Header blocks (HPACK, RFC 7541): what this side needs of a response's, and how a request's is written. The one door of
//! `loona-hpack`.
//!
//! A block that only refers to what is known and is seen again means the same again, as long as the table has not
//! changed: such blocks are not decoded twice.

use std::rc::Rc;

use loona_hpack::Decoder;

use super::super::http::{HEAD_MAX, PATH_HEADER, PATH_MAX, POP_MAX};
use super::frame::Malformed;

/// How many blocks are remembered.
const KNOWN: usize = 4;

/// A name and a value.
type Field = (Box<[u8]>, Box<[u8]>);

/// What a response's header or trailer section says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Head {
    /// None in trailers.
    pub(super) status: Option<u16>,
    /// The PoP that answered; empty if its name is too long or not visible ASCII.
    pub(super) pop: Option<Box<[u8]>>,
    /// The instances that served the answer; empty if they are too many.
    pub(super) path: Option<Box<[u8]>>,
    /// The length of the body that it announces.
    pub(super) length: Option<u64>,
    /// The status of a gRPC call.
    pub(super) grpc: Option<u16>,
    /// All fields, if somebody looks at them.
    pub(super) fields: Vec<Field>,
    /// It breaks a rule that concerns its stream alone.
    pub(super) malformed: bool,
}

impl Head {
    fn read(&mut self, name: &[u8], value: &[u8], pop_header: &[u8]) {
        let number = || std::str::from_utf8(value).ok().and_then(|text| text.parse::<u64>().ok());
        match name {
            b":status" => {
                let status = number().and_then(|n| u16::try_from(n).ok()).filter(|n| (100..=999).contains(n));
                self.malformed |= status.is_none() || self.status.is_some();
                self.status = status;
            }
            b"content-length" => {
                let length = number();
                self.malformed |= length.is_none() || self.length.is_some_and(|other| Some(other) != length);
                self.length = length;
            }
            b"grpc-status" => self.grpc = Some(number().and_then(|n| u16::try_from(n).ok()).unwrap_or(2)),
            _ if name == pop_header => {
                let fits = value.len() <= POP_MAX && value.iter().all(u8::is_ascii_graphic);
                self.pop = Some(if fits { value.into() } else { Box::default() });
            }
            _ if name == PATH_HEADER.as_bytes() => {
                self.path = Some(if value.len() <= PATH_MAX { value.into() } else { Box::default() });
            }
            _ => {}
        }
    }
}

/// Reads the header blocks of one connection, in order.
pub(super) struct Heads {
    decoder: Decoder<'static>,
    known: Vec<(Box<[u8]>, Rc<Head>)>,
    oldest: usize,
}

impl Heads {
    pub(super) fn new() -> Self {
        Self { decoder: Decoder::new(), known: Vec::new(), oldest: 0 }
    }

    /// Reads a block; `pop_header` is in lower case. `fields`: keep all of them.
    pub(super) fn read(
        &mut self,
        block: &[u8],
        pop_header: &[u8],
        fields: bool,
    ) -> Result<Rc<Head>, Malformed> {
        if let Some((_, head)) = self.known.iter().find(|(known, _)| **known == *block) {
            return Ok(Rc::clone(head));
        }
        let lasting = !changes_table(block).ok_or(Malformed)?;
        let (mut head, mut size) = (Head::default(), 0);
        let decoded = self.decoder.decode_with_cb(block, |name, value| {
            // As the protocol counts it (RFC 9113, section 6.5.2): a few bytes can stand for many fields.
            size += name.len() + value.len() + 32;
            if size <= HEAD_MAX {
                head.read(&name, &value, pop_header);
                if fields {
                    head.fields.push(((*name).into(), (*value).into()));
                }
            }
        });
        if decoded.is_err() || size > HEAD_MAX {
            return Err(Malformed);
        }
        let head = Rc::new(head);
        if !lasting {
            self.known.clear();
            self.oldest = 0;
        } else if self.known.len() < KNOWN {
            self.known.push((block.into(), Rc::clone(&head)));
        } else {
            self.known[self.oldest] = (block.into(), Rc::clone(&head));
            self.oldest = (self.oldest + 1) % KNOWN;
        }
        Ok(head)
    }
}

/// Whether a block adds to the table of fields or resizes it; none if it is cut short (RFC 7541, section 6).
fn changes_table(mut block: &[u8]) -> Option<bool> {
    let mut changes = false;
    while let Some(first) = block.first() {
        let (bits, literal) = match first {
            0x80.. => (7, false),
            0x40.. => (6, true),
            0x20.. => (5, false),
            _ => (4, true),
        };
        changes |= (0x20..0x80).contains(first);
        let index = integer(&mut block, bits)?;
        if literal {
            for _ in 0..if index == 0 { 2 } else { 1 } {
                let length = integer(&mut block, 7)?;
                block = block.get(length..)?;
            }
        }
    }
    Some(changes)
}

/// An integer with a prefix of so many bits (RFC 7541, section 5.1), taken from the input; none if it is cut short or beyond
/// what a block can hold.
fn integer(input: &mut &[u8], bits: u32) -> Option<usize> {
    let (first, rest) = input.split_first()?;
    *input = rest;
    let mask = (1usize << bits) - 1;
    let mut value = usize::from(*first) & mask;
    if value < mask {
        return Some(value);
    }
    for shift in (0..28).step_by(7) {
        let (byte, rest) = input.split_first()?;
        *input = rest;
        value += usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Writes a field that is not to be remembered, its name in lower case. Without a table on this side, any request can
/// be written once and sent on every connection.
pub(in crate::load) fn write_field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    // The static table (RFC 7541, appendix A), as far as requests need it.
    let whole = match (name, value) {
        (":method", b"GET") => 2,
        (":method", b"POST") => 3,
        (":path", b"/") => 4,
        (":scheme", b"http") => 6,
        (":scheme", b"https") => 7,
        _ => 0,
    };
    if whole > 0 {
        out.push(0x80 | whole);
        return;
    }
    let named = match name {
        ":authority" => 1,
        ":method" => 2,
        ":path" => 4,
        "accept" => 19,
        "authorization" => 23,
        "content-length" => 28,
        "content-type" => 31,
        "cookie" => 32,
        "user-agent" => 58,
        _ => 0,
    };
    // Not to be remembered by proxies either, if it may be secret (section 7.1.3).
    let kind = if matches!(name, "authorization" | "cookie") { 0x10 } else { 0 };
    write_integer(out, kind, 4, named);
    if named == 0 {
        write_text(out, name.as_bytes());
    }
    write_text(out, value);
}

fn write_text(out: &mut Vec<u8>, text: &[u8]) {
    write_integer(out, 0, 7, text.len());
    out.extend_from_slice(text);
}

fn write_integer(out: &mut Vec<u8>, kind: u8, bits: u32, value: usize) {
    let mask = (1usize << bits) - 1;
    if value < mask {
        out.push(kind | value as u8);
        return;
    }
    out.push(kind | mask as u8);
    let mut left = value - mask;
    while left >= 0x80 {
        out.push(left as u8 | 0x80);
        left >>= 7;
    }
    out.push(left as u8);
}

#[cfg(test)]
mod tests {
    use loona_hpack::Encoder;
    use proptest::prelude::*;

    use super::*;

    fn fields<'a>(date: &'a str, status: &'a str) -> Vec<(&'a [u8], &'a [u8])> {
        vec![
            (b":status", status.as_bytes()),
            (b"date", date.as_bytes()),
            (b"x-squall-pop", b"ams"),
            (b"content-length", b"12"),
        ]
    }

    #[test]
    fn heads_are_read_as_the_tables_change_and_known_ones_without_decoding() {
        let (mut encoder, mut heads) = (Encoder::new(), Heads::new());
        for second in 0..20 {
            let date = format!("second {second}");
            for (status, nth) in [("200", 0), ("200", 1), ("404", 2), ("200", 3)] {
                let block = encoder.encode(fields(&date, status));
                let head = heads.read(&block, b"x-squall-pop", false).expect("a good block");
                let wanted = Head {
                    status: status.parse().ok(),
                    pop: Some(b"ams"[..].into()),
                    length: Some(12),
                    ..Head::default()
                };
                assert_eq!(*head, wanted, "{second} {nth}");
            }
        }
        assert!(!heads.known.is_empty() && heads.known.len() <= KNOWN);
    }

    #[test]
    fn a_bomb_of_references_is_refused() {
        let (mut encoder, mut heads) = (Encoder::new(), Heads::new());
        let long = vec![b'x'; 3000];
        let block = encoder.encode([(&b"x-long"[..], &long[..])]);
        heads.read(&block, b"x-squall-pop", false).expect("one is fine");
        let reference = encoder.encode([(&b"x-long"[..], &long[..])]);
        assert_eq!(reference.len(), 1);
        assert_eq!(heads.read(&reference.repeat(100), b"x-squall-pop", false), Err(Malformed));
    }

    #[test]
    fn what_breaks_the_rules_of_a_stream_is_told() {
        let read = |fields: &[(&[u8], &[u8])]| {
            let block = Encoder::new().encode(fields.iter().copied());
            Heads::new().read(&block, b"x-squall-pop", false).expect("a good block").malformed
        };
        assert!(!read(&[(b":status", b"204")]));
        assert!(read(&[(b":status", b"2x0")]));
        assert!(read(&[(b":status", b"200"), (b":status", b"200")]));
        assert!(read(&[(b":status", b"200"), (b"content-length", b"3"), (b"content-length", b"4")]));
    }

    proptest! {
        #[test]
        fn no_block_makes_it_panic(blocks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 1..4)) {
            let mut heads = Heads::new();
            for block in blocks {
                if heads.read(&block, b"x-squall-pop", false).is_err() {
                    break;
                }
            }
        }

        #[test]
        fn written_fields_are_read_back(
            fields in prop::collection::vec(("[a-z-]{1,40}", prop::collection::vec(0x20u8..0x7f, 0..300)), 0..8),
        ) {
            let mut block = Vec::new();
            for (name, value) in &fields {
                write_field(&mut block, name, value);
            }
            prop_assert_eq!(changes_table(&block), Some(false));
            let read = Decoder::new().decode(&block).expect("a good block");
            let wanted: Vec<(Vec<u8>, Vec<u8>)> =
                fields.into_iter().map(|(name, value)| (name.into_bytes(), value)).collect();
            prop_assert_eq!(read, wanted);
        }
    }

    #[test]
    fn pseudo_fields_use_the_static_table() {
        let mut block = Vec::new();
        for (name, value) in
            [(":method", "GET"), (":scheme", "https"), (":path", "/"), (":path", "/a"), (":method", "PUT")]
        {
            write_field(&mut block, name, value.as_bytes());
        }
        let read = Decoder::new().decode(&block).expect("a good block");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let read: Vec<String> = read.iter().map(|(n, v)| format!("{}={}", text(n), text(v))).collect();
        assert_eq!(read, [":method=GET", ":scheme=https", ":path=/", ":path=/a", ":method=PUT"]);
        assert_eq!(block[..3], [0x82, 0x87, 0x84]);
    }
}
