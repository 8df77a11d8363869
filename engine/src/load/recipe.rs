//! What one kind of request is made of, and how it is made: as the bytes of its protocol.
//!
//! A request follows from the seed and its number alone, so one that is sent again is the same again, and the same seed gives
//! the same requests whatever the number of workers.

use std::io::Write as _;
use std::sync::Arc;

use hyper::Method;
use hyper::header::{HeaderName, HeaderValue};

use super::message::{Call, Services};
use super::spec::{Body, LoadSpec, RequestSpec, SpecError};
use super::url::{self, OriginName};
use super::wire::Protocol;
use super::{dns, h2};
use crate::experiment::vars::VarError;
use crate::feed::{Feed, Order};
use crate::filling::Filling;
use crate::replay::Trace;
use crate::template::{Known, Place, Replayed, Slot, Template, Unfit, Values, fits_header};

/// Headers that the generator writes itself, since its reading and its connections depend on them.
const RESERVED: [&str; 6] = ["content-length", "transfer-encoding", "connection", "upgrade", "te", "expect"];

/// See the module.
#[derive(Debug)]
pub struct Recipe {
    method: Method,
    /// `http://host:port`.
    base: String,
    protocol: Protocol,
    grpc: bool,
    /// What the messages of a gRPC call are, if that is known: its body is one in JSON.
    call: Option<Call>,
    tls: bool,
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
    /// Of DNS.
    query: Vec<u8>,
    /// Fields that stand in a header, and feeds that can run out.
    risks: Vec<Slot>,
}

/// A request as bytes; kept and filled again for the next one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Made {
    /// The whole of an HTTP/1.1 request; the header block of one of HTTP/2; the head of one of HTTP/3, as HTTP/1.1 writes it.
    pub head: Vec<u8>,
    /// The body of an HTTP/2 or HTTP/3 request.
    pub body: Vec<u8>,
    /// A value on its way into a header block.
    value: Vec<u8>,
}

/// In front of the message of a gRPC call: that it is not compressed, and room for its length.
const CALL: [u8; 5] = [0; 5];

impl Recipe {
    /// What a request of a load is made of, and where it goes.
    pub(super) fn new(
        spec: &RequestSpec,
        known: &Known<'_>,
        load: &LoadSpec,
        services: Option<&Services>,
    ) -> Result<(Self, OriginName), SpecError> {
        let (base, rest) = split_url(spec)?;
        let rest = rest.split('#').next().unwrap_or_default();
        let mut target = Template::of_bytes(if rest.starts_with('/') { b"" } else { b"/" });
        target.append(&Template::parse(rest, Place::Url, known).map_err(slot(spec, "url"))?);
        let sample = String::from_utf8_lossy(&target.sample()).into_owned();
        let (origin, authority) = url::parse(&format!("{base}{sample}"), load.http)
            .map_err(|why| SpecError::Url(spec.name.clone(), why))?;
        let method = if origin.grpc { "POST" } else { &spec.method };
        let method = Method::from_bytes(method.as_bytes())
            .ok()
            .filter(|m| *m != Method::CONNECT)
            .ok_or_else(|| SpecError::Method(spec.name.clone(), spec.method.clone()))?;
        if origin.grpc
            && sample.trim_start_matches('/').split('/').filter(|part| !part.is_empty()).count() != 2
        {
            return Err(SpecError::Call(spec.name.clone()));
        }
        let query = match origin.protocol {
            Protocol::Dns if target.fixed().is_none() => {
                return Err(SpecError::Url(spec.name.clone(), "nothing can be filled in in a DNS name"));
            }
            Protocol::Dns => dns::query(&sample).map_err(|why| SpecError::Url(spec.name.clone(), why))?,
            Protocol::Tcp | Protocol::Udp if !matches!(sample.as_str(), "" | "/") => {
                return Err(SpecError::Url(spec.name.clone(), "with this scheme a URL has no path"));
            }
            _ => Vec::new(),
        };
        let call = services.filter(|_| origin.grpc).map(|services| services.call(&sample));
        let call = call.transpose().map_err(|why| SpecError::Message(spec.name.clone(), why))?;
        let headers = headers(spec, known, &authority, origin.grpc)?;
        let body = body(spec, known, &headers, call.is_some())?;
        let parts = (method, base.to_owned(), target, headers, body);
        Ok((Self { call, query, ..Self::assemble(parts, &origin, load.reuse) }, origin))
    }

    /// The same for requests of a log by one method: its path and query follow those of the URL, its bodies are sent.
    pub(super) fn replayed(
        spec: &RequestSpec,
        known: &Known<'_>,
        load: &LoadSpec,
        trace: &Trace,
        method: u16,
    ) -> Result<(Self, OriginName), SpecError> {
        let wrong = |why| SpecError::Url(spec.name.clone(), why);
        if spec.body != Body::default() {
            return Err(wrong("a log brings its own bodies"));
        }
        let word = trace.methods()[usize::from(method)];
        let own = RequestSpec { method: word.to_owned(), ..spec.clone() };
        let (base, origin) = Self::new(&own, known, load, None)?;
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
        let parts = (base.method, base.base, target, headers, body);
        Ok((Self::assemble(parts, &origin, load.reuse), origin))
    }

    fn assemble(
        (method, base, target, headers, body): (
            Method,
            String,
            Template,
            Vec<(HeaderName, Template)>,
            Template,
        ),
        origin: &OriginName,
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
            protocol: origin.protocol,
            grpc: origin.grpc,
            call: None,
            query: Vec::new(),
            tls: origin.tls,
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

    /// What is spoken.
    pub(super) fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Whether it is a gRPC call.
    pub(super) fn grpc(&self) -> bool {
        self.grpc
    }

    /// What the messages of a gRPC call are, if that is known.
    pub(super) fn call(&self) -> Option<&Call> {
        self.call.as_ref()
    }

    /// Whether it differs from request to request.
    pub fn slotted(&self) -> bool {
        self.slotted
    }

    /// All of its slots.
    pub fn slots(&self) -> impl Iterator<Item = Slot> {
        self.head.slots().chain(self.body.slots())
    }

    /// The request, if it has no slots; else nothing.
    pub(super) fn fixed(&self) -> Made {
        let mut made = Made::default();
        if !self.slotted {
            self.make(&mut Filling::new(&[], 0, 0), &mut made).expect("without slots nothing can be unfit");
        }
        made
    }

    /// Makes a request, in place of what `out` held. Allocates only while `out` grows.
    ///
    /// # Errors
    /// A value does not fit; the head is then empty.
    pub fn make(&self, values: &mut impl Values, out: &mut Made) -> Result<(), Unfit> {
        out.head.clear();
        out.body.clear();
        let made = match self.protocol {
            Protocol::Http1 => self.http1(values, &mut out.head),
            Protocol::Http2 => self.http2(values, out),
            Protocol::Http3 => self.http3(values, out),
            Protocol::Tcp | Protocol::Udp => self.body.render(values, &mut out.head),
            Protocol::Dns => {
                out.head.extend_from_slice(&self.query);
                Ok(())
            }
        };
        if made.is_err() {
            out.head.clear();
        }
        made
    }

    fn http1(&self, values: &mut impl Values, out: &mut Vec<u8>) -> Result<(), Unfit> {
        // The length of the body stands before it.
        self.body.render(values, out)?;
        let body = out.len();
        self.head.render(values, out)?;
        if self.sized {
            write!(out, "content-length: {body}\r\n").expect("a vector takes all bytes");
        }
        out.extend_from_slice(self.tail.as_bytes());
        out.rotate_left(body);
        Ok(())
    }

    fn http2(&self, values: &mut impl Values, out: &mut Made) -> Result<(), Unfit> {
        let Made { head, body, value } = out;
        if self.grpc {
            body.extend_from_slice(&CALL);
        }
        if let Some(call) = &self.call {
            value.clear();
            self.body.render(values, value)?;
            call.encode(value, body).map_err(|_| Unfit::Message)?;
        } else {
            self.body.render(values, body)?;
        }
        if self.grpc {
            let length = (body.len() - CALL.len()) as u32;
            body[1..CALL.len()].copy_from_slice(&length.to_be_bytes());
        }
        h2::write_field(head, ":method", self.method.as_str().as_bytes());
        h2::write_field(head, ":scheme", if self.tls { b"https" } else { b"http" });
        value.clear();
        self.target.render(values, value)?;
        h2::write_field(head, ":path", value);
        for (name, template) in &self.headers {
            value.clear();
            template.render(values, value)?;
            h2::write_field(
                head,
                if *name == hyper::header::HOST { ":authority" } else { name.as_str() },
                value,
            );
        }
        if self.grpc {
            h2::write_field(head, "te", b"trailers");
        }
        if self.sized {
            value.clear();
            write!(value, "{}", body.len()).expect("a vector takes all bytes");
            h2::write_field(head, "content-length", value);
        }
        Ok(())
    }

    fn http3(&self, values: &mut impl Values, out: &mut Made) -> Result<(), Unfit> {
        self.body.render(values, &mut out.body)?;
        self.head.render(values, &mut out.head)?;
        if self.sized {
            write!(out.head, "content-length: {}\r\n", out.body.len()).expect("a vector takes all bytes");
        }
        Ok(())
    }

    /// Whether the values of some arrival may not fit.
    pub(super) fn risky(&self) -> bool {
        !self.risks.is_empty() || self.filled_message().is_some()
    }

    /// What makes a message that differs from call to call.
    fn filled_message(&self) -> Option<&Call> {
        self.call.as_ref().filter(|_| self.body.fixed().is_none())
    }

    /// Whether the body is the call's message, with the first rows of the feeds.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn try_message(&self, feeds: &[Arc<Feed>]) -> Result<(), String> {
        let Some(call) = &self.call else { return Ok(()) };
        let mut json = Vec::new();
        self.body.render(&mut Filling::new(feeds, 0, 0), &mut json).map_err(|unfit| unfit.to_string())?;
        call.encode(&json, &mut Vec::new())
    }

    /// What is wrong with the values of an arrival, if anything is.
    pub(super) fn unfit(&self, mut arrival: Filling<'_>) -> Option<Unfit> {
        let in_header = |slot: &Slot| self.headers.iter().any(|(_, value)| value.slots().any(|s| s == *slot));
        for slot in &self.risks {
            let Slot::Field { feed, column } = *slot else { continue };
            match arrival.field(feed, column) {
                None => return Some(Unfit::Exhausted),
                Some(value) if !fits_header(value) && in_header(slot) => return Some(Unfit::Header),
                Some(_) => {}
            }
        }
        let call = self.filled_message()?;
        let mut json = Vec::new();
        let made = self.body.render(&mut arrival, &mut json);
        made.and_then(|()| call.encode(&json, &mut Vec::new()).map_err(|_| Unfit::Message)).err()
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
        match self.protocol {
            Protocol::Http1 | Protocol::Http2 | Protocol::Http3 => {
                format!("{} {}{path}{query}", self.method, self.base)
            }
            // What is asked for is the name and the type.
            Protocol::Dns => format!("{}{target}", self.base),
            Protocol::Tcp | Protocol::Udp => self.base.clone(),
        }
    }
}

/// All header fields with what the generator adds, but for the length.
fn headers(
    spec: &RequestSpec,
    known: &Known<'_>,
    authority: &str,
    grpc: bool,
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
        all.push((hyper::header::HOST, Template::of_bytes(authority.as_bytes())));
    }
    if !has("user-agent") {
        let agent = concat!("squall/", env!("CARGO_PKG_VERSION"));
        all.push((hyper::header::USER_AGENT, Template::of_bytes(agent.as_bytes())));
    }
    if grpc && !has("content-type") {
        all.push((hyper::header::CONTENT_TYPE, Template::of_bytes(b"application/grpc")));
    }
    all.append(&mut headers);
    // First, as servers like it best (RFC 9110, section 7.2), and as HTTP/2 wants what it makes of it.
    all.sort_by_key(|(name, _)| *name != hyper::header::HOST);
    Ok(all)
}

fn body(
    spec: &RequestSpec,
    known: &Known<'_>,
    headers: &[(HeaderName, Template)],
    message: bool,
) -> Result<Template, SpecError> {
    let text = match &spec.body {
        Body::Bytes(bytes) => return Ok(Template::of_bytes(bytes)),
        Body::Text(text) if message => {
            return Template::parse(text, Place::Json, known).map_err(slot(spec, "body"));
        }
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

/// `http://host:port` and what follows.
fn split_url(spec: &RequestSpec) -> Result<(&str, &str), SpecError> {
    let wrong = |why| SpecError::Url(spec.name.clone(), why);
    let authority =
        spec.url.find("://").ok_or_else(|| wrong("a URL starts with a scheme: http://, https://, grpc://, grpcs://, tcp://, tls://, udp:// or dns://"))? + 3;
    let end = spec.url[authority..].find(['/', '?', '#']).map_or(spec.url.len(), |at| authority + at);
    let (base, rest) = spec.url.split_at(end);
    if base.contains("${") {
        return Err(wrong(
            "scheme, host and port are the same for all requests: nothing can be filled in there",
        ));
    }
    Ok((base, rest))
}

/// A header's name.
pub(super) fn header_name(name: &str) -> Result<HeaderName, SpecError> {
    name.parse().map_err(|_| SpecError::HeaderName(name.to_owned()))
}
