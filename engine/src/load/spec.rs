//! What a load sends, and the check that makes it fit to be sent. Nothing is resolved or opened here.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use hyper::header::HeaderName;

use super::http::Needle;
use super::message::{self, Message};
use super::url::{self, OriginName};
use crate::schedule::Profile;

/// The most requests of one load.
pub const REQUESTS_MAX: usize = 256;
/// The most connections of one load.
pub const CONNECTIONS_MAX: u32 = 100_000;
/// The most streams of one connection.
pub const STREAMS_MAX: u32 = 1000;
/// The most source addresses of one load.
pub const SOURCES_MAX: usize = 256;
/// The most requests under way at a time, over all connections.
const SLOTS_MAX: u64 = 1_000_000;
/// The longest deadline: the largest latency that a record can hold.
pub const DEADLINE_MAX: Duration = Duration::from_mins(10);

/// One load of the open model: what to send, when, and over which connections.
#[derive(Debug, Clone, PartialEq)]
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
    /// Which HTTP is spoken where the URL says `http` or `https`.
    pub http: HttpVersion,
    /// The most requests that a connection carries at a time, where the protocol can do that (HTTP/2, gRPC).
    pub streams: u32,
    /// A Unix socket that is connected to, whatever host the URLs name.
    pub unix: Option<PathBuf>,
    /// The addresses that connections come from, in turn; chosen by the kernel if there are none.
    pub sources: Vec<IpAddr>,
    /// How servers are trusted, and what they are shown.
    pub tls: TlsSpec,
}

/// Which HTTP is spoken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum HttpVersion {
    /// HTTP/1.1.
    #[default]
    One,
    /// HTTP/2: agreed upon within TLS, by prior knowledge (h2c) without.
    Two,
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
            http: HttpVersion::One,
            streams: 100,
            unix: None,
            sources: Vec::new(),
            tls: TlsSpec::default(),
        }
    }
}

/// One kind of request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestSpec {
    /// Its name, unique within the load.
    pub name: String,
    /// The method.
    pub method: String,
    /// `http://`, `https://`, `grpc://` or `grpcs://`, without user name and password.
    pub url: String,
    /// Further header fields. Length, coding and connection are the generator's own.
    pub headers: Vec<(String, String)>,
    /// The body.
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
#[derive(Debug, Clone, PartialEq, Eq)]
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

/// How servers are trusted, and what they are shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsSpec {
    /// Certificates in PEM, trusted besides the system's.
    pub ca: Option<String>,
    /// Trust every certificate.
    pub insecure: bool,
    /// The name to ask for and to verify, instead of the URL's host.
    pub server_name: Option<String>,
    /// The certificate (PEM, with its chain) and the key (PEM) that servers are shown.
    pub identity: Option<Identity>,
    /// Resume sessions of earlier connections, as browsers do; otherwise each handshake is a full one.
    pub resume: bool,
}

impl Default for TlsSpec {
    /// The system's certificates, no identity, with resumption.
    fn default() -> Self {
        Self { ca: None, insecure: false, server_name: None, identity: None, resume: true }
    }
}

/// A client's certificate and key, in PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    /// The certificate, with its chain.
    pub certificate: String,
    /// The key.
    pub key: String,
}

impl std::fmt::Debug for Identity {
    /// The key stays secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").finish_non_exhaustive()
    }
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
    /// No stream, or more than [`STREAMS_MAX`].
    #[error("streams must be between 1 and {STREAMS_MAX}")]
    Streams,
    /// More requests at a time than there is room for.
    #[error("connections times streams must be at most {SLOTS_MAX}")]
    Slots,
    /// More than [`SOURCES_MAX`], or none of the family of a target.
    #[error("there can be at most {SOURCES_MAX} source addresses")]
    Sources,
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
    /// A gRPC call names a service and a method.
    #[error("request {0}: a gRPC URL ends with /package.Service/Method")]
    Call(String),
}

/// A request, ready to be written.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) name: String,
    pub(super) message: Message,
    /// Which of the load's origins.
    pub(super) origin: usize,
    /// HEAD: no answer has a body.
    pub(super) bodiless: bool,
    /// The answer's own status is in its trailers.
    pub(super) grpc: bool,
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
    if spec.streams == 0 || spec.streams > STREAMS_MAX {
        return Err(SpecError::Streams);
    }
    if u64::from(spec.max_connections) * u64::from(spec.streams) > SLOTS_MAX {
        return Err(SpecError::Slots);
    }
    if spec.sources.len() > SOURCES_MAX {
        return Err(SpecError::Sources);
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
        let (name, uri) = url::parse(&request.url, spec.http)
            .map_err(|why| SpecError::Url(request.name.clone(), why))?;
        let message = message::build(request, &name, &uri, spec.reuse)?;
        let next = origins.len();
        let grpc = name.grpc;
        let origin = *origins.entry(name).or_insert(next);
        requests.push(Request {
            name: request.name.clone(),
            message,
            origin,
            bodiless: request.method == "HEAD",
            grpc,
            idempotent: !grpc && message::method(request)?.is_idempotent(),
            needle: request.expect.body_contains.as_ref().map(|text| Needle::new(text.as_bytes())),
            statuses: request.expect.statuses.clone(),
            words: url::words(if grpc { "POST" } else { &request.method }, &uri),
        });
    }
    let mut names: Vec<(OriginName, usize)> = origins.into_iter().collect();
    names.sort_by_key(|(_, index)| *index);
    Ok(Checked { requests, origins: names.into_iter().map(|(name, _)| name).collect(), pop_header, weights })
}

pub(super) fn header_name(name: &str) -> Result<HeaderName, SpecError> {
    name.parse().map_err(|_| SpecError::HeaderName(name.to_owned()))
}

#[cfg(test)]
#[path = "spec_tests.rs"]
mod tests;
