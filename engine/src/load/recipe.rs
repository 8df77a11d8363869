//! What one kind of request is made of, and how it is made: as HTTP/1.1 in one piece, or as parts for other protocols.
//!
//! A request follows from the seed and its number alone, so one that is sent again is the same again, and the same seed gives
//! the same requests whatever the number of workers.

use std::sync::Arc;

use hyper::header::{HeaderName, HeaderValue};
use hyper::{Method, Uri};

use super::spec::{Body, OriginName, RequestSpec, SpecError};
use crate::experiment::vars::VarError;
use crate::feed::{Feed, Order};
use crate::random::Random;
use crate::replay::{Shot, Trace};
use crate::template::{Known, Place, Replayed, Slot, Template, Unfit, Values, fits_header};

/// Headers that the generator writes itself, since its reading and its connections depend on them.
const RESERVED: [&str; 6] = ["content-length", "transfer-encoding", "connection", "upgrade", "te", "expect"];

/// See the module.
#[derive(Debug)]
pub struct Recipe {
    method: Method,
    /// `http://host:port`.
    base: String,
    target: Template,
    /// With `host` (for HTTP/2: the authority), `user-agent`, and without `content-length`.
    headers: Vec<(HeaderName, Template)>,
    body: Template,
    /// Whether the length is told, also of an empty body.
    sized: bool,
    /// HTTP/1.1 up to the length.
    head: Template,
    /// What ends the head.
    tail: &'static str,
    slotted: bool,
    /// Fields that stand in a header, and feeds that can run out.
    risks: Vec<Slot>,
}

/// A request in parts; kept and filled again for the next one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parts {
    /// Path and query.
    pub target: Vec<u8>,
    /// The values of [`Recipe::header_names`].
    pub headers: Vec<Vec<u8>>,
    /// The body.
    pub body: Vec<u8>,
}

impl Recipe {
    /// What a request is made of, and where it goes. `reuse`: the connection is kept open.
    pub(super) fn new(
        spec: &RequestSpec,
        known: &Known<'_>,
        reuse: bool,
    ) -> Result<(Self, OriginName), SpecError> {
        let (base, rest) = split_url(spec)?;
        let rest = rest.split('#').next().unwrap_or_default();
        let mut target = Template::of_bytes(if rest.starts_with('/') { b"" } else { b"/" });
        target.append(&Template::parse(rest, Place::Url, known).map_err(slot(spec, "url"))?);
        let sample = String::from_utf8_lossy(&target.sample()).into_owned();
        let (origin, uri) = parse_url(&spec.name, &format!("{base}{sample}"))?;
        let method = Method::from_bytes(spec.method.as_bytes())
            .ok()
            .filter(|m| *m != Method::CONNECT)
            .ok_or_else(|| SpecError::Method(spec.name.clone(), spec.method.clone()))?;
        let headers = headers(spec, known, &uri)?;
        let body = body(spec, known, &headers)?;
        Ok((Self::assemble(method, base.to_owned(), target, headers, body, reuse), origin))
    }

    /// The same for requests of a log by one method: its path and query follow those of the URL, its bodies are sent.
    pub(super) fn replayed(
        spec: &RequestSpec,
        known: &Known<'_>,
        reuse: bool,
        trace: &Trace,
        method: u16,
    ) -> Result<(Self, OriginName), SpecError> {
        let wrong = |why| SpecError::Url(spec.name.clone(), why);
        if spec.body != Body::default() {
            return Err(wrong("a log brings its own bodies"));
        }
        let word = trace.methods()[usize::from(method)];
        let own = RequestSpec { method: word.to_owned(), ..spec.clone() };
        let (base, origin) = Self::new(&own, known, reuse)?;
        let mut target = match base.target.fixed() {
            Some(path) if !path.contains(&b'?') => {
                Template::of_bytes(path.strip_suffix(b"/").unwrap_or(path))
            }
            _ => return Err(wrong("a log brings its own paths and queries: write http://HOST:PORT")),
        };
        target.push_replayed(Replayed::Target);
        let (mut headers, mut body) = (base.headers, Template::default());
        if trace.has_bodies(method) {
            body.push_replayed(Replayed::Body);
            if headers.iter().all(|(name, _)| *name != hyper::header::CONTENT_TYPE) {
                let mut kind = Template::default();
                kind.push_replayed(Replayed::ContentType);
                headers.push((hyper::header::CONTENT_TYPE, kind));
            }
        }
        Ok((Self::assemble(base.method, base.base, target, headers, body, reuse), origin))
    }

    fn assemble(
        method: Method,
        base: String,
        target: Template,
        headers: Vec<(HeaderName, Template)>,
        body: Template,
        reuse: bool,
    ) -> Self {
        let mut head = Template::of_bytes(format!("{method} ").as_bytes());
        head.append(&target);
        head.push_text(b" HTTP/1.1\r\n");
        for (name, value) in &headers {
            head.push_text(format!("{name}: ").as_bytes());
            head.append(value);
            head.push_text(b"\r\n");
        }
        let empty = body.fixed().is_some_and(<[u8]>::is_empty);
        let sized = !empty || [Method::POST, Method::PUT, Method::PATCH].contains(&method);
        let in_header = headers.iter().flat_map(|(_, value)| value.slots());
        let risks = in_header.chain(head.slots()).chain(body.slots());
        let mut recipe = Self {
            risks: risks.filter(|slot| matches!(slot, Slot::Field { .. })).collect(),
            slotted: head.fixed().is_none() || body.fixed().is_none(),
            tail: if reuse { "\r\n" } else { "connection: close\r\n\r\n" },
            method,
            base,
            target,
            headers,
            body,
            sized,
            head,
        };
        recipe.risks.dedup();
        recipe
    }

    /// Its method.
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// Whether it differs from request to request.
    pub fn slotted(&self) -> bool {
        self.slotted
    }

    /// All of its slots.
    pub fn slots(&self) -> impl Iterator<Item = Slot> {
        self.head.slots().chain(self.body.slots())
    }

    /// The names of its headers, `host` among them; not `content-length`.
    pub fn header_names(&self) -> impl Iterator<Item = &HeaderName> {
        self.headers.iter().map(|(name, _)| name)
    }

    /// Whether a body (also an empty one) belongs to it.
    pub fn has_body(&self) -> bool {
        self.sized
    }

    /// The whole request as HTTP/1.1, if it has no slots; else nothing.
    pub(super) fn fixed(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        if !self.slotted {
            self.http1(&mut Arrival::new(&[], 0, 0), &mut bytes).expect("without slots nothing can be unfit");
        }
        bytes
    }

    /// Makes a request as HTTP/1.1, in place of what `out` held. Allocates only while `out` grows.
    ///
    /// # Errors
    /// A value does not fit; `out` is then empty.
    pub fn http1(&self, values: &mut impl Values, out: &mut Vec<u8>) -> Result<(), Unfit> {
        out.clear();
        // The length of the body stands before it.
        let made = self.body.render(values, out).and_then(|()| {
            let body = out.len();
            self.head.render(values, out)?;
            if self.sized {
                use std::io::Write as _;
                write!(out, "content-length: {body}\r\n").expect("a vector takes all bytes");
            }
            out.extend_from_slice(self.tail.as_bytes());
            out.rotate_left(body);
            Ok(())
        });
        if made.is_err() {
            out.clear();
        }
        made
    }

    /// Makes a request in parts, in place of what `out` held.
    ///
    /// # Errors
    /// A value does not fit.
    pub fn parts(&self, values: &mut impl Values, out: &mut Parts) -> Result<(), Unfit> {
        out.target.clear();
        out.body.clear();
        out.headers.resize(self.headers.len(), Vec::new());
        self.body.render(values, &mut out.body)?;
        self.target.render(values, &mut out.target)?;
        for ((_, template), value) in self.headers.iter().zip(&mut out.headers) {
            value.clear();
            template.render(values, value)?;
        }
        Ok(())
    }

    /// Whether the values of some arrival may not fit.
    pub(super) fn risky(&self) -> bool {
        !self.risks.is_empty()
    }

    /// What is wrong with the values of an arrival, if anything is.
    pub(super) fn unfit(&self, arrival: &Arrival<'_>) -> Option<Unfit> {
        let in_header = |slot: &Slot| self.headers.iter().any(|(_, value)| value.slots().any(|s| s == *slot));
        for slot in &self.risks {
            let Slot::Field { feed, column } = *slot else { continue };
            match arrival.field(feed, column) {
                None => return Some(Unfit::Exhausted),
                Some(value) if !fits_header(value) && in_header(slot) => return Some(Unfit::Header),
                Some(_) => {}
            }
        }
        None
    }

    /// Leaves out of the risks what the rows of the feeds show to be none.
    pub(super) fn settle(&mut self, feeds: &[Arc<Feed>]) {
        let headers = &self.headers;
        self.risks.retain(|slot| {
            let Slot::Field { feed: at, column } = *slot else { return false };
            let feed = &feeds[at];
            let in_header = headers.iter().any(|(_, value)| value.slots().any(|s| s == *slot));
            let clean = || (0..feed.rows()).all(|row| fits_header(feed.field(row, column)));
            feed.order() == Order::Unique || (in_header && !clean())
        });
    }

    /// `GET http://host/path/…?key=…`: values of the query may be secret.
    pub(super) fn words(&self) -> String {
        let target = self.target.to_string();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let keys: Vec<String> = query
            .split('&')
            .filter(|_| !query.is_empty())
            .map(|pair| pair.split_once('=').map_or_else(|| "…".to_owned(), |(key, _)| format!("{key}=…")))
            .collect();
        let query = if keys.is_empty() { String::new() } else { format!("?{}", keys.join("&")) };
        format!("{} {}{path}{query}", self.method, self.base)
    }
}

/// All header fields with what the generator adds, but for the length.
fn headers(
    spec: &RequestSpec,
    known: &Known<'_>,
    uri: &Uri,
) -> Result<Vec<(HeaderName, Template)>, SpecError> {
    let mut headers = Vec::new();
    for (name, value) in &spec.headers {
        let name = header_name(name)?;
        if RESERVED.contains(&name.as_str()) {
            return Err(SpecError::HeaderReserved(name.to_string()));
        }
        let value =
            Template::parse(value, Place::Header, known).map_err(slot(spec, &format!("header {name}")))?;
        let checked = HeaderValue::from_bytes(&value.sample()).ok();
        if checked.is_none_or(|checked| checked.to_str().is_err()) {
            return Err(SpecError::HeaderValue(name.to_string()));
        }
        headers.push((name, value));
    }
    let has = |wanted: &str| headers.iter().any(|(name, _)| name.as_str() == wanted);
    let mut all = Vec::new();
    if !has("host") {
        let authority = uri.authority().map_or("", |a| a.as_str());
        all.push((hyper::header::HOST, Template::of_bytes(authority.as_bytes())));
    }
    if !has("user-agent") {
        let agent = concat!("squall/", env!("CARGO_PKG_VERSION"));
        all.push((hyper::header::USER_AGENT, Template::of_bytes(agent.as_bytes())));
    }
    all.append(&mut headers);
    Ok(all)
}

fn body(
    spec: &RequestSpec,
    known: &Known<'_>,
    headers: &[(HeaderName, Template)],
) -> Result<Template, SpecError> {
    let text = match &spec.body {
        Body::Bytes(bytes) => return Ok(Template::of_bytes(bytes)),
        Body::Text(text) => text,
    };
    let kind = headers.iter().find(|(name, _)| *name == hyper::header::CONTENT_TYPE);
    let kind = kind.map(|(_, value)| String::from_utf8_lossy(&value.sample()).into_owned());
    Template::parse(text, Place::of_body(kind.as_deref(), text), known).map_err(slot(spec, "body"))
}

/// Turns what is wrong with a slot into what is wrong with a request.
fn slot(spec: &RequestSpec, place: &str) -> impl FnOnce(VarError) -> SpecError {
    let (request, place) = (spec.name.clone(), place.to_owned());
    move |VarError { message, help }| SpecError::Slot { request, place, message, help }
}

/// The values of one arrival: what its number and the seed give.
#[derive(Debug)]
pub struct Arrival<'a> {
    feeds: &'a [Arc<Feed>],
    shot: Option<&'a Shot>,
    seed: u64,
    number: u64,
    uuid: u128,
    random: Random,
}

impl<'a> Arrival<'a> {
    /// The arrival with this number, unique within a load.
    pub fn new(feeds: &'a [Arc<Feed>], seed: u64, number: u64) -> Self {
        let mut random = Random::new(seed.rotate_left(32), number);
        let uuid = u128::from(random.next()) << 64 | u128::from(random.next());
        Self { feeds, shot: None, seed, number, uuid, random }
    }

    /// The same, with what a log has for it.
    #[must_use]
    pub fn replaying(self, trace: Option<&'a Trace>) -> Self {
        Self { shot: trace.map(|trace| trace.shot(self.number)), ..self }
    }
}

impl Values for Arrival<'_> {
    fn field(&self, feed: usize, column: usize) -> Option<&str> {
        // Feeds are drawn from independently of each other.
        let seed = self.seed.wrapping_add((feed as u64 + 1) << 48);
        let feed = self.feeds.get(feed)?;
        feed.row(seed, self.number).map(|row| feed.field(row, column))
    }

    fn counter(&self) -> u64 {
        self.number
    }

    fn uuid(&self) -> u128 {
        self.uuid
    }

    fn random(&mut self) -> u64 {
        self.random.next()
    }

    fn replayed(&self, part: Replayed) -> &[u8] {
        self.shot.map_or(&[], |shot| match part {
            Replayed::Target => shot.target.as_bytes(),
            Replayed::ContentType if shot.content_type.is_empty() => b"application/octet-stream",
            Replayed::ContentType => shot.content_type.as_bytes(),
            Replayed::Body => &shot.body,
        })
    }
}

/// `http://host:port` and what follows.
fn split_url(spec: &RequestSpec) -> Result<(&str, &str), SpecError> {
    let wrong = |why| SpecError::Url(spec.name.clone(), why);
    let authority =
        spec.url.find("://").ok_or_else(|| wrong("a URL must start with http:// or https://"))? + 3;
    let end = spec.url[authority..].find(['/', '?', '#']).map_or(spec.url.len(), |at| authority + at);
    let (base, rest) = spec.url.split_at(end);
    if base.contains("${") {
        return Err(wrong(
            "scheme, host and port are the same for all requests: nothing can be filled in there",
        ));
    }
    Ok((base, rest))
}

fn parse_url(request: &str, url: &str) -> Result<(OriginName, Uri), SpecError> {
    let wrong = |why| SpecError::Url(request.to_owned(), why);
    let uri: Uri = url.parse().map_err(|_| wrong("this is not a URL"))?;
    let tls = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => return Err(wrong("a URL must start with http:// or https://")),
    };
    let authority = uri.authority().ok_or_else(|| wrong("the URL names no host"))?;
    if authority.as_str().contains('@') {
        return Err(wrong("user names and passwords do not belong into a URL; use a header"));
    }
    let host = authority.host();
    let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    if host.is_empty() {
        return Err(wrong("the URL names no host"));
    }
    let port = match (authority.port_u16(), authority.as_str().rsplit_once(':')) {
        (Some(0), _) => return Err(wrong("port 0 cannot be connected to")),
        (Some(port), _) => port,
        (None, Some((_, rest))) if !rest.ends_with(']') => {
            return Err(wrong("the port is not a number up to 65535"));
        }
        (None, _) => {
            if tls {
                443
            } else {
                80
            }
        }
    };
    Ok((OriginName { tls, host: host.to_owned(), port }, uri))
}

/// A header's name.
pub(super) fn header_name(name: &str) -> Result<HeaderName, SpecError> {
    name.parse().map_err(|_| SpecError::HeaderName(name.to_owned()))
}
