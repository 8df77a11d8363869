//! What a load sends, and the check that makes it fit to be sent. Nothing is resolved or opened here.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use hyper::Uri;
use hyper::header::{HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};

use super::http::Needle;
use crate::schedule::Profile;

/// The most requests of one load.
pub const REQUESTS_MAX: usize = 256;
/// The most connections of one load.
pub const CONNECTIONS_MAX: u32 = 100_000;
/// The longest deadline: the largest latency that a record can hold.
pub const DEADLINE_MAX: Duration = Duration::from_mins(10);

/// One load of the open model: what to send, when, and over which connections.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoadSpec {
    /// The journey's name.
    pub name: String,
    /// What is sent: each arrival picks one, by weight.
    pub requests: Vec<RequestSpec>,
    /// When requests are due.
    pub profile: Profile,
    /// Arrivals at random (independent of each other) instead of evenly spaced.
    pub poisson: bool,
    /// Keep connections open between requests; otherwise each request has its own.
    pub reuse: bool,
    /// The most connections to each origin (scheme, host, port); beyond it requests wait, and the deadline runs.
    pub max_connections: u32,
    /// The time for a complete answer, counted from the intended time.
    pub deadline: Duration,
    /// The time for a connection to be there, TLS included.
    pub connect_timeout: Duration,
    /// The response header that names the PoP.
    pub pop_header: String,
    /// How servers are trusted.
    pub tls: TlsSpec,
}

impl LoadSpec {
    /// A load with the defaults: even arrivals, connections kept open, at most 1000 of them, 10 s for an answer and
    /// 3 s for a connection, PoP named by `x-squall-pop`.
    pub fn new(name: &str, requests: Vec<RequestSpec>, profile: Profile) -> Self {
        Self {
            name: name.to_owned(),
            requests,
            profile,
            poisson: false,
            reuse: true,
            max_connections: 1000,
            deadline: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(3),
            pop_header: "x-squall-pop".to_owned(),
            tls: TlsSpec::default(),
        }
    }
}

/// One kind of request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestSpec {
    /// Its name, unique within the load.
    pub name: String,
    /// The method.
    pub method: String,
    /// `http://` or `https://`, without user name and password.
    pub url: String,
    /// Further header fields. Length, coding and connection are the generator's own.
    pub headers: Vec<(String, String)>,
    /// The body.
    #[serde(with = "super::remote::base64")]
    pub body: Vec<u8>,
    /// How often it is picked, relative to the others; at least 1.
    pub weight: u32,
    /// What a good answer is.
    pub expect: Expect,
}

impl RequestSpec {
    /// A GET of this URL, named after it.
    pub fn get(url: &str) -> Self {
        Self {
            name: url.to_owned(),
            method: "GET".to_owned(),
            url: url.to_owned(),
            headers: Vec::new(),
            body: Vec::new(),
            weight: 1,
            expect: Expect::default(),
        }
    }
}

/// What a good answer is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// Good status codes.
    pub statuses: Vec<RangeInclusive<u16>>,
    /// A text that the body must contain.
    pub body_contains: Option<String>,
}

impl Default for Expect {
    /// 200 to 399, any body.
    fn default() -> Self {
        Self { statuses: vec![200..=399], body_contains: None }
    }
}

/// How servers are trusted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsSpec {
    /// Certificates in PEM, trusted besides the system's.
    pub ca: Option<String>,
    /// Trust every certificate.
    pub insecure: bool,
    /// The name to ask for and to verify, instead of the URL's host.
    pub server_name: Option<String>,
}

/// Why a load cannot be sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// No request, or more than [`REQUESTS_MAX`].
    #[error("it needs 1 to {REQUESTS_MAX} requests")]
    Requests,
    /// A weight of 0.
    #[error("request {0}: its weight must be at least 1")]
    Weight(String),
    /// Two requests have one name.
    #[error("request {0}: another one has the same name")]
    Duplicate(String),
    /// No connection, or more than [`CONNECTIONS_MAX`].
    #[error("max-connections must be between 1 and {CONNECTIONS_MAX}")]
    Connections,
    /// A deadline of zero or beyond [`DEADLINE_MAX`].
    #[error("deadline and connect-timeout must be longer than 0 and at most 10 minutes")]
    Deadline,
    /// No header name.
    #[error("{0:?} is no header name")]
    HeaderName(String),
    /// A control character, such as a line break, in a header value.
    #[error("the value of header {0} has a character that a header must not have")]
    HeaderValue(String),
    /// A header that the generator writes.
    #[error("header {0} is written by the generator")]
    HeaderReserved(String),
    /// No method, or CONNECT.
    #[error("request {0}: {1:?} is no method that can be sent")]
    Method(String, String),
    /// Not a URL, or a scheme, user name or port that cannot be.
    #[error("request {0}: {1}")]
    Url(String, &'static str),
    /// No status code would be good.
    #[error("request {0}: no status code between 100 and 999 is expected")]
    Statuses(String),
}

/// Scheme, host and port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct OriginName {
    pub(super) tls: bool,
    pub(super) host: String,
    pub(super) port: u16,
}

/// A request, ready to be written.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) name: String,
    pub(super) bytes: Vec<u8>,
    /// Which of the load's origins.
    pub(super) origin: usize,
    /// HEAD: no answer has a body.
    pub(super) bodiless: bool,
    /// Sending it twice does no more than sending it once.
    pub(super) idempotent: bool,
    pub(super) needle: Option<Needle>,
    pub(super) statuses: Vec<RangeInclusive<u16>>,
    /// What it sends, in words.
    pub(super) words: String,
}

/// A checked load.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) requests: Vec<Request>,
    pub(super) origins: Vec<OriginName>,
    pub(super) pop_header: Vec<u8>,
    /// Running sums of the weights.
    pub(super) weights: Vec<u64>,
}

/// Checks all that can be wrong with a load before anything is opened.
pub(super) fn check(spec: &LoadSpec) -> Result<Checked, SpecError> {
    if spec.requests.is_empty() || spec.requests.len() > REQUESTS_MAX {
        return Err(SpecError::Requests);
    }
    if spec.max_connections == 0 || spec.max_connections > CONNECTIONS_MAX {
        return Err(SpecError::Connections);
    }
    if [spec.deadline, spec.connect_timeout].iter().any(|d| d.is_zero() || *d > DEADLINE_MAX) {
        return Err(SpecError::Deadline);
    }
    let pop_header = header_name(&spec.pop_header)?.as_str().as_bytes().to_vec();
    let mut origins: BTreeMap<OriginName, usize> = BTreeMap::new();
    let (mut requests, mut weights, mut sum) = (Vec::new(), Vec::new(), 0u64);
    for (i, request) in spec.requests.iter().enumerate() {
        if request.weight == 0 {
            return Err(SpecError::Weight(request.name.clone()));
        }
        if spec.requests[..i].iter().any(|other| other.name == request.name) {
            return Err(SpecError::Duplicate(request.name.clone()));
        }
        sum += u64::from(request.weight);
        weights.push(sum);
        let (name, uri) = parse_url(request)?;
        let next = origins.len();
        let origin = *origins.entry(name).or_insert(next);
        requests.push(build(request, &uri, origin, spec.reuse)?);
    }
    let mut names: Vec<(OriginName, usize)> = origins.into_iter().collect();
    names.sort_by_key(|(_, index)| *index);
    Ok(Checked { requests, origins: names.into_iter().map(|(name, _)| name).collect(), pop_header, weights })
}

fn parse_url(request: &RequestSpec) -> Result<(OriginName, Uri), SpecError> {
    let wrong = |why| SpecError::Url(request.name.clone(), why);
    let uri: Uri = request.url.parse().map_err(|_| wrong("this is not a URL"))?;
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

fn header_name(name: &str) -> Result<HeaderName, SpecError> {
    name.parse().map_err(|_| SpecError::HeaderName(name.to_owned()))
}

/// Headers that the generator writes itself, since its reading and its connections depend on them.
const RESERVED: [&str; 6] = ["content-length", "transfer-encoding", "connection", "upgrade", "te", "expect"];

fn build(spec: &RequestSpec, uri: &Uri, origin: usize, reuse: bool) -> Result<Request, SpecError> {
    let method = hyper::Method::from_bytes(spec.method.as_bytes())
        .ok()
        .filter(|m| *m != hyper::Method::CONNECT)
        .ok_or_else(|| SpecError::Method(spec.name.clone(), spec.method.clone()))?;
    if !spec.expect.statuses.iter().any(|range| range.clone().any(|code| (100..=999).contains(&code))) {
        return Err(SpecError::Statuses(spec.name.clone()));
    }
    let target = uri.path_and_query().map_or("/", |p| p.as_str());
    let mut head = format!("{method} {target} HTTP/1.1\r\n");
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
    let has = |wanted: &str| given.iter().any(|(name, _)| name.as_str() == wanted);
    if !has("host") {
        head.extend(["host: ", uri.authority().map_or("", |a| a.as_str()), "\r\n"]);
    }
    if !has("user-agent") {
        head += concat!("user-agent: squall/", env!("CARGO_PKG_VERSION"), "\r\n");
    }
    for (name, value) in &given {
        head.extend([name.as_str(), ": ", value, "\r\n"]);
    }
    if !spec.body.is_empty()
        || [hyper::Method::POST, hyper::Method::PUT, hyper::Method::PATCH].contains(&method)
    {
        head.extend(["content-length: ", &spec.body.len().to_string(), "\r\n"]);
    }
    head += if reuse { "\r\n" } else { "connection: close\r\n\r\n" };
    let mut bytes = head.into_bytes();
    bytes.extend_from_slice(&spec.body);
    Ok(Request {
        name: spec.name.clone(),
        bytes,
        origin,
        bodiless: method == hyper::Method::HEAD,
        idempotent: method.is_idempotent(),
        needle: spec.expect.body_contains.as_ref().map(|text| Needle::new(text.as_bytes())),
        statuses: spec.expect.statuses.clone(),
        words: words(&method, uri),
    })
}

/// `GET http://host/path?key=…`: values of the query may be secret.
fn words(method: &hyper::Method, uri: &Uri) -> String {
    let scheme = uri.scheme_str().unwrap_or_default();
    let authority = uri.authority().map_or("", |a| a.as_str());
    let keys: Vec<String> = uri
        .query()
        .into_iter()
        .flat_map(|query| query.split('&'))
        .map(|pair| pair.split_once('=').map_or_else(|| "…".to_owned(), |(key, _)| format!("{key}=…")))
        .collect();
    let query = if keys.is_empty() { String::new() } else { format!("?{}", keys.join("&")) };
    format!("{method} {scheme}://{authority}{}{query}", uri.path())
}

#[cfg(test)]
#[path = "spec_tests.rs"]
mod tests;
