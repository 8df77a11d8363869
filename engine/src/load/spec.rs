//! What a load sends, and the check that makes it fit to be sent. Nothing is resolved or opened here.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::http::Needle;
use super::message::Services;
use super::recipe::{Made, Recipe, header_name};
use super::url::OriginName;
use super::wire::Protocol;
use crate::expect::Checks;
use crate::feed::{FEEDS_MAX, Feed, Order};
use crate::replay::Trace;
use crate::schedule::Profile;
use crate::template::{Known, Slot};

pub use crate::connecting::{
    HttpVersion, Identity, PROTOSET_MAX, Protoset, Reply, SOURCES_MAX, STREAMS_MAX, TlsSpec,
};
pub use crate::expect::{Expect, HeaderExpect, HeaderTest, JsonExpect};
pub use crate::template::Body;

/// The most requests of one load.
pub const REQUESTS_MAX: usize = 256;
/// The most connections of one load.
pub const CONNECTIONS_MAX: u32 = 100_000;
/// The most requests under way at a time, over all connections.
const SLOTS_MAX: u64 = 1_000_000;
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
    /// A request that finds every connection busy is shed (counted as a failure) instead of waiting for one.
    pub shed: bool,
    /// Wait for each arrival on a processor of its own, instead of sleeping until just after it: a microsecond late instead of
    /// some tens, and a core that is never idle.
    pub exact: bool,
    /// The time for a complete answer, counted from the intended time.
    pub deadline: Duration,
    /// The time for a connection to be there, TLS included.
    pub connect_timeout: Duration,
    /// The response header that names the PoP.
    pub pop_header: String,
    /// Which HTTP is spoken where the URL says `http` or `https`.
    pub http: HttpVersion,
    /// The most requests that a connection carries at a time, where the protocol can do that (HTTP/2, HTTP/3, gRPC).
    pub streams: u32,
    /// A Unix socket that is connected to, whatever host the URLs name.
    pub unix: Option<PathBuf>,
    /// The addresses that connections come from, in turn; chosen by the kernel if there are none.
    pub sources: Vec<IpAddr>,
    /// How servers are trusted, and what they are shown.
    pub tls: TlsSpec,
    /// What messages of gRPC calls are: with it, bodies of such calls and of their answers are JSON; without, bytes.
    pub protoset: Option<Arc<Protoset>>,
    /// Rows of data for `${feed.column}` in the requests.
    pub feeds: Vec<Arc<Feed>>,
    /// A log that is sent again: the one request says where to, with which headers, and what a good answer is; the profile
    /// is the log's ([`Trace::profile`]).
    #[serde(skip)]
    pub replay: Option<Arc<Trace>>,
    /// It goes to a server without work that whoever sends it has beside itself, instead of to its URLs: what that costs is
    /// what the generator costs.
    pub null: bool,
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
            shed: false,
            exact: false,
            deadline: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(3),
            pop_header: "x-squall-pop".to_owned(),
            http: HttpVersion::One,
            streams: 100,
            unix: None,
            sources: Vec::new(),
            tls: TlsSpec::default(),
            protoset: None,
            feeds: Vec::new(),
            replay: None,
            null: false,
        }
    }
}

/// One kind of request. URL, header values and a body that is a text may have slots (see [`crate::template`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestSpec {
    /// Its name, unique within the load.
    pub name: String,
    /// The method.
    pub method: String,
    /// `http://`, `https://`, `grpc://` or `grpcs://`, without user name and password; no slots in scheme, host and port.
    pub url: String,
    /// Further header fields. Length, coding and connection are the generator's own.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Body,
    /// How often it is picked, relative to the others; at least 1.
    pub weight: u32,
    /// What a good answer is.
    pub expect: Expect,
    /// Where a reply ends, over TCP and UDP.
    pub reply: Reply,
}

impl RequestSpec {
    /// A GET of this URL, named after it.
    pub fn get(url: &str) -> Self {
        Self {
            name: url.to_owned(),
            method: "GET".to_owned(),
            url: url.to_owned(),
            headers: Vec::new(),
            body: Body::default(),
            weight: 1,
            expect: Expect::default(),
            reply: Reply::Echo,
        }
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
    /// The descriptor set is none, or has no such call, or a body is no such message.
    #[error("request {0}: {1}")]
    Message(String, String),
    /// A slot that cannot be filled.
    #[error("request {request}: {place}: {message} ({help})")]
    Slot {
        /// The request.
        request: String,
        /// Where in it.
        place: String,
        /// What is wrong.
        message: String,
        /// The way out.
        help: String,
    },
    /// An expectation that cannot be looked at.
    #[error("request {0}: {1}")]
    Expect(String, &'static str),
    /// More than [`FEEDS_MAX`], or two of one name.
    #[error("it needs at most {FEEDS_MAX} feeds, each with a name of its own")]
    Feeds,
    /// More requests than rows of which each may be taken once.
    #[error(
        "feed {feed} has {rows} rows, each of which may be taken once, and {needed} requests are to be sent: send fewer, \
         or take rows again (order `sequential` or `random`)"
    )]
    Rows {
        /// The feed.
        feed: String,
        /// How many it has.
        rows: usize,
        /// How many are needed.
        needed: u64,
    },
}

/// A request, ready to be written.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) name: String,
    /// Its bytes, if they are the same each time; else `recipe` makes them.
    pub(super) made: Made,
    /// What it is made of.
    pub(super) recipe: Recipe,
    /// Which of the load's origins.
    pub(super) origin: usize,
    /// HEAD: no answer has a body.
    pub(super) bodiless: bool,
    /// The answer's own status is in its trailers.
    pub(super) grpc: bool,
    /// Where a reply ends that is neither HTTP nor DNS.
    pub(super) reply: Reply,
    /// Its last text, if that is what ends it.
    pub(super) end: Option<Needle>,
    /// Sending it twice does no more than sending it once.
    pub(super) idempotent: bool,
    pub(super) needle: Option<Needle>,
    pub(super) checks: Option<Checks>,
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
    /// Whether headers of answers are looked at.
    pub(super) fields: bool,
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
    let feeds = known(&spec.feeds)?;
    let known = Known { feeds: &feeds, extracted: &[] };
    let unread = |why| SpecError::Message(spec.requests[0].name.clone(), why);
    let services = spec.protoset.as_deref().map(Services::read).transpose().map_err(unread)?;
    let pop_header = header_name(&spec.pop_header)?.as_str().as_bytes().to_vec();
    if let Some(trace) = &spec.replay {
        return replaying(spec, trace, &known, pop_header);
    }
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
        let (recipe, name) = Recipe::new(request, &known, spec, services.as_ref())?;
        if spec.unix.is_some() && name.protocol == Protocol::Http3 {
            let why =
                "HTTP/3 is spoken over UDP, not over a Unix socket: leave the socket out, or speak HTTP/2";
            return Err(SpecError::Url(request.name.clone(), why));
        }
        let next = origins.len();
        let origin = *origins.entry(name).or_insert(next);
        requests.push(build(request, recipe, origin, &spec.feeds)?);
    }
    check_rows(spec, &requests)?;
    let mut names: Vec<(OriginName, usize)> = origins.into_iter().collect();
    names.sort_by_key(|(_, index)| *index);
    let origins = names.into_iter().map(|(name, _)| name).collect();
    let fields = requests.iter().any(|request| request.checks.is_some());
    Ok(Checked { requests, origins, pop_header, weights, fields })
}

/// A log that is sent again: a kind of request for each of its methods.
fn replaying(
    spec: &LoadSpec,
    trace: &Trace,
    known: &Known<'_>,
    pop_header: Vec<u8>,
) -> Result<Checked, SpecError> {
    let [request] = spec.requests.as_slice() else { return Err(SpecError::Requests) };
    if spec.poisson {
        return Err(SpecError::Url(
            request.name.clone(),
            "a log brings its own times: they cannot be random",
        ));
    }
    let (mut requests, mut origins) = (Vec::new(), Vec::new());
    for (method, word) in trace.methods().iter().enumerate() {
        let (recipe, origin) = Recipe::replayed(request, known, spec, trace, method as u16)?;
        let mut made = build(request, recipe, 0, &spec.feeds)?;
        if trace.methods().len() > 1 {
            (*word).clone_into(&mut made.name);
        }
        origins = vec![origin];
        requests.push(made);
    }
    check_rows(spec, &requests)?;
    let fields = requests.iter().any(|request| request.checks.is_some());
    Ok(Checked { requests, origins, pop_header, weights: vec![1], fields })
}

fn known(feeds: &[Arc<Feed>]) -> Result<Vec<(String, Vec<String>)>, SpecError> {
    let twice = |at: usize| feeds[..at].iter().any(|other| other.name() == feeds[at].name());
    if feeds.len() > FEEDS_MAX || (0..feeds.len()).any(twice) {
        return Err(SpecError::Feeds);
    }
    Ok(feeds.iter().map(|feed| (feed.name().to_owned(), feed.columns().to_vec())).collect())
}

/// Whether rows that may be taken once suffice. Chance (random arrivals, weights) may still ask for a few more; those
/// requests fail by name.
fn check_rows(spec: &LoadSpec, requests: &[Request]) -> Result<(), SpecError> {
    let needed = needed(spec, requests);
    for (at, feed) in spec.feeds.iter().enumerate().filter(|(_, feed)| feed.order() == Order::Unique) {
        let uses = |made: &Request| {
            made.recipe.slots().any(|slot| matches!(slot, Slot::Field { feed, .. } if feed == at))
        };
        if needed > feed.rows() as u64 && requests.iter().any(uses) {
            return Err(SpecError::Rows { feed: feed.name().to_owned(), rows: feed.rows(), needed });
        }
    }
    Ok(())
}

/// How many requests take a row.
fn needed(spec: &LoadSpec, requests: &[Request]) -> u64 {
    if spec.replay.is_some() {
        return spec.profile.total().round() as u64;
    }
    let weight = |slotted: bool| {
        let picked = spec.requests.iter().zip(requests).filter(|(_, made)| !slotted || made.recipe.slotted());
        picked.map(|(request, _)| f64::from(request.weight)).sum::<f64>()
    };
    (spec.profile.total() * weight(true) / weight(false) - 1e-6).ceil() as u64
}

fn build(
    spec: &RequestSpec,
    mut recipe: Recipe,
    origin: usize,
    feeds: &[Arc<Feed>],
) -> Result<Request, SpecError> {
    recipe.settle(feeds);
    recipe.try_message(feeds).map_err(|why| SpecError::Message(spec.name.clone(), why))?;
    if !spec.expect.statuses.iter().any(|range| range.clone().any(|code| (100..=999).contains(&code))) {
        return Err(SpecError::Statuses(spec.name.clone()));
    }
    let wrong = |why| SpecError::Expect(spec.name.clone(), why);
    check_reply(spec, &recipe).map_err(wrong)?;
    Ok(Request {
        name: spec.name.clone(),
        made: recipe.fixed(),
        origin,
        bodiless: recipe.method() == hyper::Method::HEAD,
        grpc: recipe.grpc(),
        reply: spec.reply.clone(),
        end: match &spec.reply {
            Reply::Until(text) => Some(Needle::new(text.as_bytes())),
            _ => None,
        },
        idempotent: recipe.protocol() != Protocol::Tcp && recipe.method().is_idempotent(),
        needle: spec.expect.body_contains.as_ref().map(|text| Needle::new(text.as_bytes())),
        checks: Checks::new(&spec.expect).map_err(wrong)?,
        statuses: spec.expect.statuses.clone(),
        words: recipe.words(),
        recipe,
    })
}

/// What can be expected depends on what is spoken.
fn check_reply(spec: &RequestSpec, recipe: &Recipe) -> Result<(), &'static str> {
    let (raw, nothing) = (matches!(recipe.protocol(), Protocol::Tcp | Protocol::Udp), Expect::default());
    let Expect { statuses, headers, json, .. } = &spec.expect;
    if !raw && spec.reply != Reply::Echo {
        return Err("where a reply ends can only be told for tcp, tls and udp");
    }
    let http = recipe.protocol().http();
    if !http && (*statuses != nothing.statuses || !headers.is_empty() || !json.is_empty()) {
        return Err("only http, https, grpc and grpcs have statuses, headers and bodies in JSON");
    }
    if !http && !spec.headers.is_empty() {
        return Err("only http, https, grpc and grpcs have headers");
    }
    match &spec.reply {
        Reply::Echo if raw && spec.body == Body::default() => {
            Err("an empty message has no echo: give it a body, or say where the reply ends")
        }
        Reply::Until(text) if text.is_empty() || text.len() > 1024 => {
            Err("the text that ends a reply must have 1 to 1,024 bytes")
        }
        Reply::Bytes(0) => Err("a reply has at least one byte"),
        _ => Ok(()),
    }
}

#[cfg(test)]
#[path = "spec_tests.rs"]
mod tests;
