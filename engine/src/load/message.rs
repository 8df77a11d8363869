//! Requests as bytes, written once before the first is sent.

use hyper::header::{HeaderName, HeaderValue};
use hyper::{Method, Uri};

use super::h2;
use super::spec::{RequestSpec, SpecError, header_name};
use super::url::OriginName;
use super::wire::Protocol;

/// What is sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Message {
    /// The whole of an HTTP/1.1 request; the header block of one of HTTP/2.
    pub(super) head: Vec<u8>,
    /// The body of an HTTP/2 request.
    pub(super) body: Vec<u8>,
}

/// Headers that the generator writes itself, since its reading and its connections depend on them.
const RESERVED: [&str; 6] = ["content-length", "transfer-encoding", "connection", "upgrade", "te", "expect"];
const AGENT: &str = concat!("squall/", env!("CARGO_PKG_VERSION"));

/// The method; CONNECT is none that can be sent.
pub(super) fn method(spec: &RequestSpec) -> Result<Method, SpecError> {
    Method::from_bytes(spec.method.as_bytes())
        .ok()
        .filter(|method| *method != Method::CONNECT)
        .ok_or_else(|| SpecError::Method(spec.name.clone(), spec.method.clone()))
}

/// Writes a request.
pub(super) fn build(
    spec: &RequestSpec,
    origin: &OriginName,
    uri: &Uri,
    reuse: bool,
) -> Result<Message, SpecError> {
    if !spec.expect.statuses.iter().any(|range| range.clone().any(|code| (100..=999).contains(&code))) {
        return Err(SpecError::Statuses(spec.name.clone()));
    }
    let mut parts = Parts {
        method: method(spec)?,
        target: uri.path_and_query().map_or("/", |p| p.as_str()),
        scheme: if origin.tls { "https" } else { "http" },
        authority: uri.authority().map_or("", |a| a.as_str()).to_owned(),
        fields: fields(spec)?,
        body: spec.body.clone(),
    };
    if origin.grpc {
        if uri.path().trim_start_matches('/').split('/').filter(|part| !part.is_empty()).count() != 2 {
            return Err(SpecError::Call(spec.name.clone()));
        }
        parts.method = Method::POST;
        parts.call();
    }
    if let Some(at) = parts.fields.iter().position(|(name, _)| name == "host") {
        parts.authority = parts.fields.remove(at).1;
    }
    if !parts.has("user-agent") {
        parts.fields.push((HeaderName::from_static("user-agent"), AGENT.to_owned()));
    }
    Ok(match origin.protocol {
        Protocol::Http1 => parts.http1(reuse),
        Protocol::Http2 => parts.http2(origin.grpc),
    })
}

fn fields(spec: &RequestSpec) -> Result<Vec<(HeaderName, String)>, SpecError> {
    let mut given = Vec::new();
    for (name, value) in &spec.headers {
        let name = header_name(name)?;
        if RESERVED.contains(&name.as_str()) {
            return Err(SpecError::HeaderReserved(name.to_string()));
        }
        let checked = HeaderValue::from_str(value).map_err(|_| SpecError::HeaderValue(name.to_string()))?;
        let text = checked.to_str().map_err(|_| SpecError::HeaderValue(name.to_string()))?;
        given.push((name, text.to_owned()));
    }
    Ok(given)
}

struct Parts<'a> {
    method: Method,
    target: &'a str,
    scheme: &'static str,
    authority: String,
    fields: Vec<(HeaderName, String)>,
    body: Vec<u8>,
}

impl Parts<'_> {
    fn has(&self, wanted: &str) -> bool {
        self.fields.iter().any(|(name, _)| name.as_str() == wanted)
    }

    /// Turns the body into the one message of a gRPC call: not compressed, its length in front
    /// (gRPC over HTTP2, "Length-Prefixed-Message").
    fn call(&mut self) {
        let mut message = vec![0];
        message.extend_from_slice(&(self.body.len() as u32).to_be_bytes());
        message.append(&mut self.body);
        self.body = message;
        if !self.has("content-type") {
            self.fields.push((HeaderName::from_static("content-type"), "application/grpc".to_owned()));
        }
    }

    fn announces_length(&self) -> bool {
        !self.body.is_empty() || [Method::POST, Method::PUT, Method::PATCH].contains(&self.method)
    }

    fn http1(self, reuse: bool) -> Message {
        let mut head = format!("{} {} HTTP/1.1\r\nhost: {}\r\n", self.method, self.target, self.authority);
        for (name, value) in &self.fields {
            head.extend([name.as_str(), ": ", value, "\r\n"]);
        }
        if self.announces_length() {
            head.extend(["content-length: ", &self.body.len().to_string(), "\r\n"]);
        }
        head += if reuse { "\r\n" } else { "connection: close\r\n\r\n" };
        let mut head = head.into_bytes();
        head.extend_from_slice(&self.body);
        Message { head, body: Vec::new() }
    }

    fn http2(self, grpc: bool) -> Message {
        let mut head = Vec::new();
        h2::write_field(&mut head, ":method", self.method.as_str().as_bytes());
        h2::write_field(&mut head, ":scheme", self.scheme.as_bytes());
        h2::write_field(&mut head, ":path", self.target.as_bytes());
        h2::write_field(&mut head, ":authority", self.authority.as_bytes());
        if grpc {
            h2::write_field(&mut head, "te", b"trailers");
        }
        for (name, value) in &self.fields {
            h2::write_field(&mut head, name.as_str(), value.as_bytes());
        }
        if self.announces_length() {
            h2::write_field(&mut head, "content-length", self.body.len().to_string().as_bytes());
        }
        Message { head, body: self.body }
    }
}
