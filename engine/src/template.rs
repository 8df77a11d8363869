//! Texts with slots that are filled for each request: `${users.id}`, `${counter}`, `${uuid}`, `${random.1..6}`. Pure.
//!
//! A text is read once and rendered into a buffer that is used again: no allocation per request. A slot knows the place
//! in which it stands, and its value is escaped for that place, so no value can change the shape of a request:
//!
//! | place | what becomes of a value |
//! |---|---|
//! | URL, form | percent-encoded, but for letters, digits and `-._~` |
//! | JSON | escaped as within a string (in quotes it is any text; without them, a number stays a number) |
//! | header | as it is; one with a line break or another control character is refused |
//! | plain | as it is |
//!
//! `${counter}` and `${uuid}` have one value in a request, wherever they stand; each `${random.N..M}` is drawn anew. All
//! fields of a feed in one request are of one row. `$${` stands for a plain `${`.
//!
//! What only a run knows (`lab.edge`) and what a file or the environment says is put in before (`experiment/vars.rs`).

use std::fmt;
use std::io::Write as _;

use serde::{Deserialize, Serialize};

use crate::experiment::mistake::nearest;
use crate::experiment::vars::VarError;

/// Names that stand for themselves, whatever feeds there are.
pub const OWN: [&str; 3] = ["counter", "uuid", "random"];

/// Where a text stands, and so how its values are escaped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the path or the query of a URL.
    Url,
    /// In the value of a header.
    Header,
    /// In JSON.
    Json,
    /// In a form (`application/x-www-form-urlencoded`).
    Form,
    /// In any other body.
    Plain,
}

impl Place {
    /// The place of a body: what its content type says; without one, a body that begins with `{` or `[` is JSON.
    pub fn of_body(content_type: Option<&str>, body: &str) -> Self {
        let Some(kind) = content_type else {
            return if body.trim_start().starts_with(['{', '[']) { Self::Json } else { Self::Plain };
        };
        let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match kind.as_str() {
            "application/x-www-form-urlencoded" => Self::Form,
            json if json.ends_with("/json") || json.ends_with("+json") => Self::Json,
            _ => Self::Plain,
        }
    }
}

/// A body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// Sent as it is.
    Bytes(#[serde(with = "crate::load::remote::base64")] Vec<u8>),
    /// A text with slots. Its content type, or else its first character, says how values are escaped: [`Place::of_body`].
    Text(String),
}

impl Default for Body {
    fn default() -> Self {
        Self::Bytes(Vec::new())
    }
}

/// What is put in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    /// A field of a feed's row, by position among [`Known::feeds`] and its columns.
    Field {
        /// Which feed.
        feed: usize,
        /// Which of its columns.
        column: usize,
    },
    /// The number of the request.
    Counter,
    /// A random UUID (version 4).
    Uuid,
    /// A whole number from one to the other, both included.
    Random {
        /// The least.
        from: u64,
        /// The greatest.
        to: u64,
    },
    /// What an earlier step has extracted, by position among [`Known::extracted`].
    Extracted(usize),
    /// A part of a request from a log. It has no name, and stands as it is: it was looked at when the log was read.
    Replayed(Replayed),
}

/// See [`Slot::Replayed`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replayed {
    /// Path and query.
    Target,
    /// The type of the body.
    ContentType,
    /// The body.
    Body,
}

/// Where values come from, for one request.
pub trait Values {
    /// A field of the current row of a feed; none if its rows have run out.
    fn field(&self, feed: usize, column: usize) -> Option<&str>;

    /// The number of the request.
    fn counter(&self) -> u64;

    /// 128 random bits, the same throughout a request.
    fn uuid(&self) -> u128;

    /// 64 random bits, new each time.
    fn random(&mut self) -> u64;

    /// What an earlier step has extracted; none if it has not.
    fn extracted(&self, _index: usize) -> Option<&str> {
        None
    }

    /// A part of the request of a log that is sent again.
    fn replayed(&self, _part: Replayed) -> &[u8] {
        &[]
    }
}

/// Which names a text may use.
#[derive(Debug, Clone, Copy, Default)]
pub struct Known<'a> {
    /// Feeds by name, with the names of their columns.
    pub feeds: &'a [(String, Vec<String>)],
    /// What earlier steps extract.
    pub extracted: &'a [String],
}

impl Known<'_> {
    /// The slot of this name, if it is one.
    pub fn slot(&self, name: &str) -> Option<Slot> {
        match name {
            "counter" => return Some(Slot::Counter),
            "uuid" => return Some(Slot::Uuid),
            _ => {}
        }
        if let Some(range) = name.strip_prefix("random.") {
            return random(range);
        }
        if let Some(index) = self.extracted.iter().position(|known| known == name) {
            return Some(Slot::Extracted(index));
        }
        let (feed, column) = name.split_once('.')?;
        let at = self.feeds.iter().position(|(known, _)| known == feed)?;
        let column = self.feeds[at].1.iter().position(|known| known == column)?;
        Some(Slot::Field { feed: at, column })
    }

    /// Every name, for help.
    pub fn names(&self) -> Vec<String> {
        let fields = self
            .feeds
            .iter()
            .flat_map(|(feed, columns)| columns.iter().map(move |column| format!("{feed}.{column}")));
        let own = ["counter", "uuid", "random.1..100"].map(str::to_owned);
        self.extracted.iter().cloned().chain(fields).chain(own).collect()
    }
}

/// `N..M`, both included.
fn random(range: &str) -> Option<Slot> {
    let (from, to) = range.split_once("..")?;
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse::<u64>().ok()).flatten()
    };
    let (from, to) = (number(from)?, number(to)?);
    (from <= to).then_some(Slot::Random { from, to })
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(Box<[u8]>),
    Slot(Slot, Place),
}

/// Why values do not fit: this request cannot be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// A control character in a header.
    #[error("a value with a line break or another control character cannot stand in a header")]
    Header,
    /// No row is left.
    #[error("the rows of a feed have run out")]
    Exhausted,
    /// No earlier step has extracted it.
    #[error("nothing has been extracted under a name that it uses")]
    Missing,
    /// They make no message of a call.
    #[error("a value cannot stand in its field of the message")]
    Message,
}

/// A text with slots; see the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

impl Template {
    /// Reads a text for a place.
    ///
    /// # Errors
    /// A name is unknown, or braces do not close.
    pub fn parse(text: &str, place: Place, known: &Known<'_>) -> Result<Self, VarError> {
        let mut template = Self::default();
        let mut rest = text;
        while let Some(at) = rest.find("${") {
            if rest[..at].ends_with('$') {
                template.push_text(&rest.as_bytes()[..at - 1]);
                template.push_text(b"${");
                rest = &rest[at + 2..];
                continue;
            }
            template.push_text(&rest.as_bytes()[..at]);
            let inner = &rest[at + 2..];
            let Some(end) = inner.find('}') else {
                let help = "close it with `}`, or write `$${` for a plain `${`".to_owned();
                return Err(VarError { message: "`${` is not closed".to_owned(), help });
            };
            let name = &inner[..end];
            template.parts.push(Part::Slot(known.slot(name).ok_or_else(|| unknown(name, known))?, place));
            rest = &inner[end + 1..];
        }
        template.push_text(rest.as_bytes());
        Ok(template)
    }

    /// These bytes and no slot.
    pub fn of_bytes(bytes: &[u8]) -> Self {
        let mut template = Self::default();
        template.push_text(bytes);
        template
    }

    /// Goes on with a part of a request from a log.
    pub fn push_replayed(&mut self, part: Replayed) {
        self.parts.push(Part::Slot(Slot::Replayed(part), Place::Plain));
    }

    /// Goes on with bytes that are sent as they are.
    pub fn push_text(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        if let Some(Part::Text(last)) = self.parts.last_mut() {
            *last = [last, bytes].concat().into();
        } else {
            self.parts.push(Part::Text(bytes.into()));
        }
    }

    /// Goes on with another template, whose slots keep their places.
    pub fn append(&mut self, other: &Self) {
        for part in &other.parts {
            match part {
                Part::Text(bytes) => self.push_text(bytes),
                slot @ Part::Slot(..) => self.parts.push(slot.clone()),
            }
        }
    }

    /// The text, if there is no slot in it.
    pub fn fixed(&self) -> Option<&[u8]> {
        match self.parts.as_slice() {
            [] => Some(&[]),
            [Part::Text(bytes)] => Some(bytes),
            _ => None,
        }
    }

    /// Its slots, in order.
    pub fn slots(&self) -> impl Iterator<Item = Slot> {
        self.parts.iter().filter_map(|part| match part {
            Part::Slot(slot, _) => Some(*slot),
            Part::Text(_) => None,
        })
    }

    /// The text with a `0` in each slot: what it looks like when nothing special is put in.
    pub fn sample(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for part in &self.parts {
            match part {
                Part::Text(bytes) => out.extend_from_slice(bytes),
                Part::Slot(..) => out.push(b'0'),
            }
        }
        out
    }

    /// Appends the text with its values to `out`; leaves it as it was if a value does not fit.
    ///
    /// # Errors
    /// See [`Unfit`].
    pub fn render(&self, values: &mut impl Values, out: &mut Vec<u8>) -> Result<(), Unfit> {
        let before = out.len();
        for part in &self.parts {
            let put = match part {
                Part::Text(bytes) => {
                    out.extend_from_slice(bytes);
                    Ok(())
                }
                Part::Slot(slot, place) => fill(*slot, *place, values, out),
            };
            if put.is_err() {
                out.truncate(before);
                return put;
            }
        }
        Ok(())
    }
}

fn unknown(name: &str, known: &Known<'_>) -> VarError {
    let message = format!("`${{{name}}}` is not known here");
    let plain = name.split(":-").next().unwrap_or_default();
    let names = known.names();
    let help = if plain != name && known.slot(plain).is_some() {
        format!("what is filled in for each request has no default: write `${{{plain}}}`")
    } else if name.starts_with("random") {
        "write `${random.1..100}`: the least and the greatest number".to_owned()
    } else if let Some(meant) = nearest(name, names.iter().map(String::as_str)) {
        format!("did you mean `${{{meant}}}`?")
    } else {
        let names: Vec<String> = names.iter().take(12).map(|name| format!("${{{name}}}")).collect();
        format!("known here: {}; write `$${{` for a plain `${{`", names.join(", "))
    };
    VarError { message, help }
}

fn fill(slot: Slot, place: Place, values: &mut impl Values, out: &mut Vec<u8>) -> Result<(), Unfit> {
    match slot {
        Slot::Field { feed, column } => {
            put(values.field(feed, column).ok_or(Unfit::Exhausted)?, place, out)?;
        }
        Slot::Extracted(index) => put(values.extracted(index).ok_or(Unfit::Missing)?, place, out)?,
        Slot::Counter => number(values.counter(), out),
        Slot::Replayed(part) => out.extend_from_slice(values.replayed(part)),
        Slot::Uuid => uuid(values.uuid(), out),
        Slot::Random { from, to } => {
            let many = u128::from(to - from) + 1;
            let drawn = (u128::from(values.random()) * many) >> 64;
            number(from + drawn as u64, out);
        }
    }
    Ok(())
}

fn number(number: u64, out: &mut Vec<u8>) {
    write!(out, "{number}").expect("a vector takes all bytes");
}

/// Version 4 (RFC 9562, section 5.4).
fn uuid(random: u128, out: &mut Vec<u8>) {
    let bits = random & !(0xf << 76) & !(0b11 << 62) | (4 << 76) | (0b10 << 62);
    for (at, byte) in bits.to_be_bytes().into_iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            out.push(b'-');
        }
        out.extend([hex(byte >> 4, b'a'), hex(byte & 15, b'a')]);
    }
}

fn hex(digit: u8, ten: u8) -> u8 {
    if digit < 10 { b'0' + digit } else { ten + digit - 10 }
}

/// Appends a value as it may stand in a place.
///
/// # Errors
/// It has a control character and the place is a header.
pub fn put(value: &str, place: Place, out: &mut Vec<u8>) -> Result<(), Unfit> {
    match place {
        Place::Plain => out.extend_from_slice(value.as_bytes()),
        Place::Header => {
            if !fits_header(value) {
                return Err(Unfit::Header);
            }
            out.extend_from_slice(value.as_bytes());
        }
        Place::Url | Place::Form => {
            for byte in value.bytes() {
                if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                    out.push(byte);
                } else {
                    out.extend([b'%', hex(byte >> 4, b'A'), hex(byte & 15, b'A')]);
                }
            }
        }
        Place::Json => {
            for byte in value.bytes() {
                match byte {
                    b'"' | b'\\' => out.extend([b'\\', byte]),
                    b'\n' => out.extend(b"\\n"),
                    b'\r' => out.extend(b"\\r"),
                    b'\t' => out.extend(b"\\t"),
                    0..=0x1f => {
                        out.extend([b'\\', b'u', b'0', b'0', hex(byte >> 4, b'a'), hex(byte & 15, b'a')]);
                    }
                    _ => out.push(byte),
                }
            }
        }
    }
    Ok(())
}

/// Whether a value can stand in a header.
pub fn fits_header(value: &str) -> bool {
    value.bytes().all(|byte| byte == b'\t' || (byte >= 0x20 && byte != 0x7f))
}

impl fmt::Display for Template {
    /// Its fixed text, with `…` for each slot.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in &self.parts {
            match part {
                Part::Text(bytes) => f.write_str(&String::from_utf8_lossy(bytes))?,
                Part::Slot(..) => f.write_str("…")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "template_tests.rs"]
mod tests;
