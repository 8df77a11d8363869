//! Logs of real traffic, to be sent again with the gaps that it had: access logs in the combined format, JSON lines, HAR. Pure.
//!
//! A log becomes a [`Trace`]: what was asked for, and when. It goes to whatever base URL is loaded, never to a host that the
//! log names. Bounded ([`ENTRIES_MAX`], [`BYTES_MAX`]); what many entries share is kept once. What cannot or should not be
//! sent again is counted, with the first lines. Headers are not sent again, but for the type of a body; what looks like a
//! secret is replaced ([`scrub`]) unless that is refused.

mod combined;
mod har;
mod lines;
pub mod scrub;
mod time;

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::sync::Arc;

use crate::schedule::{Profile, ProfileError};

pub use lines::{FIELDS, Fields};

/// The most entries of a log.
pub const ENTRIES_MAX: usize = 1_000_000;
/// The largest log, in bytes.
pub const BYTES_MAX: usize = 256 << 20;
/// The slowest and the fastest speed.
pub const SPEEDS: std::ops::RangeInclusive<f64> = 0.01..=1000.0;
/// The longest path with its query, in bytes.
const TARGET_MAX: usize = 8 * 1024;
/// How many lines are named for each reason.
const NAMED: usize = 3;
/// Methods that are known; others are left out.
const METHODS: [&str; 7] = ["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "POST", "PATCH"];

/// How a log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// As nginx and Apache write it: `… [time] "GET /path HTTP/1.1" …`.
    Combined,
    /// An object on each line.
    Json,
    /// An HTTP archive, as browsers save it.
    Har,
}

impl Format {
    /// As written.
    pub const WORDS: [(&str, Self); 3] =
        [("combined", Self::Combined), ("json", Self::Json), ("har", Self::Har)];

    /// What a log looks like: one that begins with an object that has a `log` is a HAR; one with an object on its first
    /// line is JSON.
    pub fn of(bytes: &[u8]) -> Self {
        let begin = bytes.trim_ascii_start();
        if !begin.starts_with(b"{") {
            return Self::Combined;
        }
        let after = begin[1..].trim_ascii_start();
        if after.starts_with(b"\"log\"") { Self::Har } else { Self::Json }
    }
}

/// How a log is to be sent again.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// How it is written; none if it shows.
    pub format: Option<Format>,
    /// How much faster than it was.
    pub speed: f64,
    /// Methods that are sent again.
    pub methods: Vec<String>,
    /// Secrets are sent again too.
    pub keep_secrets: bool,
    /// Where JSON lines have what.
    pub fields: Fields,
}

impl Default for Options {
    /// As fast as it was, `GET` and `HEAD` alone, without secrets.
    fn default() -> Self {
        Self {
            format: None,
            speed: 1.0,
            methods: vec!["GET".to_owned(), "HEAD".to_owned()],
            keep_secrets: false,
            fields: Fields::default(),
        }
    }
}

/// What is sent; entries share it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Shot {
    /// Which of [`Trace::methods`].
    pub method: u16,
    /// Path and query.
    pub target: Box<str>,
    /// The type of the body; empty if there is none.
    pub content_type: Box<str>,
    /// The body.
    pub body: Box<[u8]>,
}

/// Why entries were left out.
const NOT_READ: &str = "not as the format wants it";
const NO_TIME: &str = "without a time that can be read";
const METHOD: &str = "with a method that is not sent again (say `methods` to send it)";
const TARGET: &str = "without a path that can be sent";
const BODY: &str = "with a body that is not in the log";
const HOST: &str = "for another host than the first";

/// One entry as it was read.
#[derive(Debug, Default, PartialEq)]
struct Entry<'a> {
    /// In nanoseconds since 1970.
    at: i128,
    method: &'a str,
    target: &'a str,
    content_type: &'a str,
    body: &'a [u8],
}

/// What was asked for, and when; see the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// When, in nanoseconds from the first, and which of the shots; by time.
    entries: Vec<(u64, u32)>,
    shots: Vec<Arc<Shot>>,
    methods: Vec<&'static str>,
    left_out: BTreeMap<&'static str, (u64, Vec<usize>)>,
    scrubbed: u64,
    whole_seconds: bool,
}

impl Trace {
    /// Reads a log.
    ///
    /// # Errors
    /// In words: it is too large, or nothing in it can be sent again.
    pub fn read(bytes: &[u8], options: &Options) -> Result<Self, String> {
        if bytes.len() > BYTES_MAX {
            return Err(format!("it is larger than {BYTES_MAX} bytes"));
        }
        let mut reader = Reader::new(options);
        match options.format.unwrap_or_else(|| Format::of(bytes)) {
            Format::Combined => combined::read(bytes, &mut reader)?,
            Format::Json => lines::read(bytes, &options.fields, &mut reader)?,
            Format::Har => har::read(bytes, &mut reader)?,
        }
        reader.finish()
    }

    /// How many requests.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none; there always is one.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many requests differ.
    pub fn distinct(&self) -> usize {
        self.shots.len()
    }

    /// The methods that occur.
    pub fn methods(&self) -> &[&'static str] {
        &self.methods
    }

    /// What the request with this number sends; the last one's beyond the end.
    pub fn shot(&self, number: u64) -> &Shot {
        let at = usize::try_from(number).unwrap_or(usize::MAX).min(self.entries.len() - 1);
        &self.shots[self.entries[at].1 as usize]
    }

    /// Whether any request of a method has a body.
    pub fn has_bodies(&self, method: u16) -> bool {
        self.shots.iter().any(|shot| shot.method == method && !shot.body.is_empty())
    }

    /// When its requests are due.
    ///
    /// # Errors
    /// It lasts too long.
    pub fn profile(&self) -> Result<Profile, ProfileError> {
        Profile::trace(self.entries.iter().map(|(at, _)| *at).collect())
    }

    /// What became of the log that one should know, in sentences.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        for (why, (count, lines)) in &self.left_out {
            let of = if *count == 1 { "1 entry of the log is" } else { "{count} entries of the log are" };
            let mut note = format!("{} left out: {why}", of.replace("{count}", &count.to_string()));
            let lines: Vec<String> = lines.iter().map(ToString::to_string).collect();
            if !lines.is_empty() {
                let _ = write!(note, " (first in line {})", lines.join(", "));
            }
            notes.push(note);
        }
        if self.scrubbed > 0 {
            notes.push(format!("{} values that look secret are sent as `{}`", self.scrubbed, scrub::INSTEAD));
        }
        if self.whole_seconds {
            notes.push("the log has whole seconds: requests of one second are spread over it".to_owned());
        }
        notes
    }
}

/// Gathers entries.
struct Reader<'o> {
    options: &'o Options,
    /// Time, shot.
    entries: Vec<(i128, u32)>,
    known: HashMap<Arc<Shot>, u32>,
    shots: Vec<Arc<Shot>>,
    methods: Vec<&'static str>,
    left_out: BTreeMap<&'static str, (u64, Vec<usize>)>,
    scrubbed: u64,
}

impl<'o> Reader<'o> {
    fn new(options: &'o Options) -> Self {
        Self {
            options,
            entries: Vec::new(),
            known: HashMap::new(),
            shots: Vec::new(),
            methods: Vec::new(),
            left_out: BTreeMap::new(),
            scrubbed: 0,
        }
    }

    /// Leaves out what stands in a line (0: no lines).
    fn leave_out(&mut self, why: &'static str, line: usize) {
        let (count, lines) = self.left_out.entry(why).or_default();
        *count += 1;
        if lines.len() < NAMED && line > 0 {
            lines.push(line);
        }
    }

    /// Takes an entry of a line, or leaves it out.
    fn take(&mut self, entry: &Entry<'_>, line: usize) -> Result<(), String> {
        let known = METHODS.iter().find(|known| **known == entry.method);
        let Some(method) = known.filter(|known| self.options.methods.iter().any(|m| m == **known)) else {
            self.leave_out(METHOD, line);
            return Ok(());
        };
        let Some(target) = sendable(entry.target) else {
            self.leave_out(TARGET, line);
            return Ok(());
        };
        if self.entries.len() == ENTRIES_MAX {
            return Err(format!("it has more than {ENTRIES_MAX} entries to be sent"));
        }
        let (target, body) = if self.options.keep_secrets {
            (target, entry.body.to_vec())
        } else {
            let (target, in_target) = scrub::target(&target);
            let (body, in_body) = scrub::body(entry.content_type, entry.body);
            self.scrubbed += in_target + in_body;
            (target, body)
        };
        let at = self.methods.iter().position(|known| known == method).unwrap_or_else(|| {
            self.methods.push(method);
            self.methods.len() - 1
        });
        let kind = if body.is_empty() || !crate::template::fits_header(entry.content_type) {
            ""
        } else {
            entry.content_type
        };
        let shot = Arc::new(Shot {
            method: at as u16,
            target: target.into(),
            content_type: kind.into(),
            body: body.into(),
        });
        let next = self.shots.len() as u32;
        let index = *self.known.entry(Arc::clone(&shot)).or_insert(next);
        if index == next {
            self.shots.push(shot);
        }
        self.entries.push((entry.at, index));
        Ok(())
    }

    fn finish(mut self) -> Result<Trace, String> {
        // Those of one time stay in the order of the log.
        self.entries.sort_by_key(|(at, _)| *at);
        let whole_seconds =
            self.entries.len() > 1 && self.entries.iter().all(|(at, _)| at % i128::from(SECOND) == 0);
        if whole_seconds {
            spread(&mut self.entries);
        }
        let first = self.entries.first().map_or(0, |(at, _)| *at);
        let speed = self.options.speed;
        let mut trace = Trace {
            entries: Vec::with_capacity(self.entries.len()),
            shots: self.shots,
            methods: self.methods,
            left_out: self.left_out,
            scrubbed: self.scrubbed,
            whole_seconds,
        };
        for (at, shot) in self.entries {
            trace.entries.push((((at - first) as f64 / speed) as u64, shot));
        }
        if trace.is_empty() {
            let why = trace.notes();
            let why = if why.is_empty() { "it is empty".to_owned() } else { why.join("; ") };
            return Err(format!("nothing in it can be sent again: {why}"));
        }
        Ok(trace)
    }
}

const SECOND: u64 = 1_000_000_000;

/// Spreads the entries of each second evenly over it.
fn spread(entries: &mut [(i128, u32)]) {
    for second in entries.chunk_by_mut(|one, other| one.0 == other.0) {
        let gap = SECOND / second.len() as u64;
        for (nth, (at, _)) in second.iter_mut().enumerate() {
            *at += i128::from(gap * nth as u64);
        }
    }
}

/// Path and query as they can be sent: without scheme, host and fragment, and with everything percent-encoded that must be.
fn sendable(target: &str) -> Option<String> {
    let path = match target.split_once("://") {
        Some(("http" | "https", rest)) => rest.find(['/', '?']).map_or("/", |at| &rest[at..]),
        _ => target,
    };
    let path = path.split('#').next().unwrap_or_default();
    let mut sent = String::with_capacity(path.len());
    if path.starts_with('?') {
        sent.push('/');
    }
    for byte in path.bytes() {
        if byte.is_ascii_graphic() {
            sent.push(char::from(byte));
        } else {
            let _ = write!(sent, "%{byte:02X}");
        }
    }
    let fits = sent.starts_with('/') && sent.len() <= TARGET_MAX && sent.parse::<hyper::Uri>().is_ok();
    fits.then_some(sent)
}

/// `2x` or `2`: how much faster.
///
/// # Errors
/// It is no number, or out of bounds.
pub fn speed(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('x').unwrap_or(text).parse::<f64>().ok();
    number
        .filter(|speed| SPEEDS.contains(speed))
        .ok_or_else(|| format!("`{text}` is no speed: write 2x for twice as fast, from 0.01x to 1000x"))
}

/// The methods of a list such as `GET,HEAD`.
///
/// # Errors
/// One of them is not known.
pub fn methods<'m>(words: impl IntoIterator<Item = &'m str>) -> Result<Vec<String>, String> {
    let known = |word: &'m str| {
        let word = word.trim();
        let found = METHODS.iter().find(|known| **known == word);
        found
            .map(|known| (*known).to_owned())
            .ok_or_else(|| format!("`{word}` is no method that can be sent again: {}", METHODS.join(", ")))
    };
    words.into_iter().map(known).collect()
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
