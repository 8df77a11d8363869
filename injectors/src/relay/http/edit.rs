//! Heads: read with httparse, matched, rewritten, made.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::relay::fault::{Match, RelayFault};

use super::HEAD_MAX;
use super::decision::Edit;
use super::framing::{Body, Chunks};

/// The most header fields of a head that is understood.
const FIELDS_MAX: usize = 128;

/// What matters of a request's head.
#[derive(Debug)]
pub(super) struct RequestHead {
    /// Its bytes, with the empty line.
    pub(super) length: usize,
    method: String,
    path: String,
    fields: Vec<(String, String)>,
    pub(super) body: Body,
    pub(super) head_only: bool,
    pub(super) connect: bool,
    pub(super) upgrade: bool,
    pub(super) close: bool,
    pub(super) expects_continue: bool,
}

impl RequestHead {
    /// Reads a head; absent if it is not complete yet, an error if this is no HTTP/1.
    pub(super) fn parse(bytes: &[u8]) -> Result<Option<Self>, ()> {
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let mut request = httparse::Request::new(&mut fields);
        let httparse::Status::Complete(length) = request.parse(bytes).map_err(|_| ())? else {
            return if bytes.len() > HEAD_MAX { Err(()) } else { Ok(None) };
        };
        let fields = Fields(request.headers);
        let chunked = fields.chunked();
        let body = match (chunked, fields.length()?) {
            // Both at once is how requests are smuggled: not our business to resolve.
            (Some(_), Some(_)) | (Some(false), None) => return Err(()),
            (Some(true), None) => Body::Chunked(Chunks::default()),
            (None, Some(0) | None) => Body::None,
            (None, Some(length)) => Body::Length(length),
        };
        let method = request.method.unwrap_or_default();
        let target = request.path.unwrap_or_default();
        let keeps = request.version == Some(1) || fields.has_word("connection", "keep-alive");
        Ok(Some(Self {
            length,
            head_only: method == "HEAD",
            connect: method == "CONNECT",
            upgrade: fields.has_word("connection", "upgrade"),
            close: !keeps || fields.has_word("connection", "close"),
            expects_continue: fields.has_word("expect", "100-continue"),
            method: method.to_owned(),
            path: path_of(target).to_owned(),
            fields: fields.owned(),
            body,
        }))
    }

    /// Whether a fault means this request.
    pub(super) fn matches(&self, matching: &Match) -> bool {
        let path = |path: &String| match path.strip_suffix('*') {
            Some(prefix) => self.path.starts_with(prefix),
            None => self.path == *path,
        };
        let header = |header: &String| {
            let (name, value) = header.split_once(':').unwrap_or((header, ""));
            self.fields.iter().any(|(n, v)| n.eq_ignore_ascii_case(name.trim()) && v == value.trim())
        };
        matching.method.as_ref().is_none_or(|method| method.eq_ignore_ascii_case(&self.method))
            && matching.path.as_ref().is_none_or(path)
            && matching.header.as_ref().is_none_or(header)
    }
}

/// The path of a request target: without the origin of the absolute form, without the query.
fn path_of(target: &str) -> &str {
    let path = match target.split_once("://") {
        Some((scheme, rest)) if scheme.bytes().all(|b| b.is_ascii_alphanumeric()) => {
            rest.find('/').map_or("/", |at| &rest[at..])
        }
        _ => target,
    };
    path.split('?').next().unwrap_or(path)
}

/// What matters of a response's head.
#[derive(Debug)]
pub(super) struct ResponseHead {
    /// Its bytes, with the empty line.
    pub(super) length: usize,
    /// Another head follows for the same request.
    pub(super) interim: bool,
    /// The connection becomes a tunnel, if the request asked for it.
    pub(super) switches: bool,
    pub(super) body: Body,
}

impl ResponseHead {
    /// Reads a head; absent if it is not complete yet, an error if this is no HTTP/1.
    pub(super) fn parse(bytes: &[u8], head_only: bool, connect: bool) -> Result<Option<Self>, ()> {
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let mut response = httparse::Response::new(&mut fields);
        let httparse::Status::Complete(length) = response.parse(bytes).map_err(|_| ())? else {
            return if bytes.len() > HEAD_MAX { Err(()) } else { Ok(None) };
        };
        let code = response.code.unwrap_or_default();
        let fields = Fields(response.headers);
        let interim = (100..200).contains(&code) && code != 101;
        let switches = code == 101 || (connect && (200..300).contains(&code));
        let body = match (fields.chunked(), fields.length()) {
            _ if head_only || interim || switches || code == 204 || code == 304 => Body::None,
            (Some(true), _) => Body::Chunked(Chunks::default()),
            (Some(false), _) | (None, Ok(None)) => Body::UntilClose,
            (None, Ok(Some(0))) => Body::None,
            (None, Ok(Some(length))) => Body::Length(length),
            (None, Err(())) => return Err(()),
        };
        Ok(Some(Self { length, interim, switches, body }))
    }
}

struct Fields<'a>(&'a [httparse::Header<'a>]);

impl Fields<'_> {
    fn values(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        self.0.iter().filter(move |field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value)
    }

    /// Whether a field that lists words has this one.
    fn has_word(&self, name: &str, word: &str) -> bool {
        self.values(name)
            .flat_map(|value| value.split(|b| *b == b','))
            .any(|found| found.trim_ascii().eq_ignore_ascii_case(word.as_bytes()))
    }

    /// Whether the last transfer encoding is `chunked`; absent if there is none.
    fn chunked(&self) -> Option<bool> {
        let last = self.values("transfer-encoding").last()?;
        let last = last.rsplit(|b| *b == b',').next().unwrap_or(last);
        Some(last.trim_ascii().eq_ignore_ascii_case(b"chunked"))
    }

    /// The content length; an error if there are several or it is no number.
    fn length(&self) -> Result<Option<u64>, ()> {
        let mut values = self.values("content-length").map(<[u8]>::trim_ascii);
        let Some(first) = values.next() else { return Ok(None) };
        if values.any(|other| other != first) || first.is_empty() || !first.iter().all(u8::is_ascii_digit) {
            return Err(());
        }
        std::str::from_utf8(first).map_err(|_| ())?.parse().map(Some).map_err(|_| ())
    }

    fn owned(&self) -> Vec<(String, String)> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes.trim_ascii()).into_owned();
        self.0.iter().map(|field| (field.name.to_owned(), text(field.value))).collect()
    }
}

/// A head with the header fields that the faults set and without those that they remove. A fault that would change
/// nothing in this head is not counted: it had no case.
pub(super) fn edited(head: &[u8], edits: &[Edit]) -> Bytes {
    let mut head = head.to_vec();
    for Edit { live, chosen } in edits.iter().filter(|edit| !edit.live.ended()) {
        let RelayFault::HttpHeader { set, remove, .. } = &live.fault else { continue };
        if !alters(&head, set, remove) {
            continue;
        }
        live.stats.edit().case(*chosen);
        if *chosen {
            head = rewritten(&head, set, remove);
        }
    }
    head.into()
}

/// Name and value of each field of a head.
fn lines(head: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let split = |line: &'_ [u8]| line.iter().position(|b| *b == b':');
    head.split_inclusive(|b| *b == b'\n').skip(1).filter_map(move |line| {
        let at = split(line)?;
        Some((line[..at].trim_ascii(), line[at + 1..].trim_ascii()))
    })
}

/// Whether a field to be removed is there, or one to be set is not, or has another value.
fn alters(head: &[u8], set: &BTreeMap<String, String>, remove: &[String]) -> bool {
    let values = |wanted: &String| -> Vec<&[u8]> {
        let named = |(name, _): &(&[u8], &[u8])| name.eq_ignore_ascii_case(wanted.as_bytes());
        lines(head).filter(named).map(|(_, value)| value).collect()
    };
    remove.iter().any(|name| !values(name).is_empty())
        || set.iter().any(|(name, value)| values(name) != [value.trim().as_bytes()])
}

fn rewritten(head: &[u8], set: &BTreeMap<String, String>, remove: &[String]) -> Vec<u8> {
    let gone = |line: &&[u8]| {
        let name = line.split(|b| *b == b':').next().unwrap_or_default().trim_ascii();
        let is = |other: &String| other.as_bytes().eq_ignore_ascii_case(name);
        set.keys().any(is) || remove.iter().any(is)
    };
    let mut lines = head.split_inclusive(|b| *b == b'\n');
    let mut new = lines.next().unwrap_or_default().to_vec();
    let end = |line: &&[u8]| line.trim_ascii().is_empty();
    for line in lines.filter(|line| !end(line) && !gone(line)) {
        new.extend_from_slice(line);
    }
    for (name, value) in set {
        new.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    new.extend_from_slice(b"\r\n");
    new
}

/// The relay's own answer. Says that it is one, so that nobody hunts for it in the server.
pub(super) fn answer(status: u16, id: &str, head_only: bool, close: bool) -> Bytes {
    const BODY: &str = "fault injected by squall\n";
    let bare = status == 204 || status == 304;
    let id: String = id.chars().filter(char::is_ascii_graphic).collect();
    let mut text = format!("HTTP/1.1 {status} {}\r\nx-squall-fault: {id}\r\n", reason(status));
    if !bare {
        text.push_str("content-type: text/plain\r\ncontent-length: ");
        text.push_str(&BODY.len().to_string());
        text.push_str("\r\n");
    }
    if close {
        text.push_str("connection: close\r\n");
    }
    text.push_str("\r\n");
    if !bare && !head_only {
        text.push_str(BODY);
    }
    text.into()
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        408 => "Request Timeout",
        409 => "Conflict",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Injected",
    }
}
