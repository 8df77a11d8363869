//! Reading `load:`.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::arrivals::{arrivals, positive_span};
use super::connecting::{self, SCHEMES};
use super::expecting::{Expected, expect};
use super::reader::{Fields, Reader};
use super::yaml::{Content, Node, NodeId};
use super::{Load, Request, journeys};
use crate::connecting::Reply;
use crate::experiment::Sources;
use crate::feed::Feed;
use crate::reading;
use crate::replay::Trace;
use crate::schedule::Profile;
use crate::template::{Body, Known, Place, Template};

/// The most loads in one experiment.
const LOADS_MAX: usize = 16;
/// The most kinds of requests in one load.
const REQUESTS_MAX: usize = 64;
/// How often a request, or a way to go on, is chosen, relative to the others.
pub(super) const WEIGHTS: RangeInclusive<u32> = 1..=10_000;
/// The largest body from a file, in bytes.
const BODY_MAX: usize = 16 << 20;
const METHODS: &[(&str, &str)] = &[
    ("GET", "GET"),
    ("HEAD", "HEAD"),
    ("POST", "POST"),
    ("PUT", "PUT"),
    ("PATCH", "PATCH"),
    ("DELETE", "DELETE"),
    ("OPTIONS", "OPTIONS"),
];

/// Reads the list of loads.
pub(super) fn read(
    reader: &Reader<'_>,
    node: &Node,
    sources: &dyn Sources,
    feeds: &[Arc<Feed>],
) -> Vec<Load> {
    let names: Vec<_> = feeds.iter().map(|feed| (feed.name().to_owned(), feed.columns().to_vec())).collect();
    let known = Known { feeds: &names, extracted: &[] };
    let reading = Reading { reader, sources, known: &known };
    let items = reader.list(node, "load");
    if items.is_empty() && matches!(&node.content, Content::List(items) if items.is_empty()) {
        reader.mistake(node.id, "load is empty: without traffic nothing can be judged");
    }
    if items.len() > LOADS_MAX {
        reader.mistake(node.id, format!("more than {LOADS_MAX} loads"));
    }
    let mut loads: Vec<Load> = Vec::new();
    for item in items.iter().take(LOADS_MAX) {
        let Some((id, name, value)) = reader.named(item, "a load") else { continue };
        if loads.iter().any(|load| load.name == name) {
            reader.mistake(id, format!("there are two loads named `{name}`"));
        }
        super::parse::check_name(reader, id, name, "a load");
        let Some(fields) = reader.map(value, "a load") else { continue };
        loads.extend(model(&reading, (id, name), fields));
    }
    loads
}

/// Reads one of the three models.
fn model(reading: &Reading<'_>, named: (NodeId, &str), fields: Fields<'_, '_>) -> Option<Load> {
    let reader = reading.reader;
    let read = match (fields.optional("open"), fields.optional("users"), fields.optional("sessions")) {
        (Some(node), None, None) => reader.map(node, "open").and_then(|open| one(reading, named, open)),
        (None, Some(node), None) => {
            reader.map(node, "users").and_then(|users| journeys::users(reading, named, users))
        }
        (None, None, Some(node)) => {
            reader.map(node, "sessions").and_then(|sessions| journeys::sessions(reading, named, sessions))
        }
        (None, None, None) => {
            reader.mistake_with(
                fields.node.id,
                "a load lacks `open`",
                "write `open: …` for requests at a rate, `sessions: …` for journeys that begin at a rate, or `users: …` \
                 for so many people",
            );
            None
        }
        _ => {
            reader.mistake(fields.node.id, "a load has one model: `open`, `sessions` or `users`");
            None
        }
    };
    fields.finish("a load");
    read
}

/// What is needed to read requests.
pub(super) struct Reading<'r> {
    pub(super) reader: &'r Reader<'r>,
    pub(super) sources: &'r dyn Sources,
    pub(super) known: &'r Known<'r>,
}

fn one(reading: &Reading<'_>, (node, name): (NodeId, &str), open: Fields<'_, '_>) -> Option<Load> {
    let reader = reading.reader;
    let shared = request_fields(reading, &open);
    let requests = match (open.optional("url"), open.optional("requests")) {
        (Some(_), Some(list)) => {
            reader.mistake(list.id, "write either `url` or `requests`, not both");
            None
        }
        (Some(_), None) => request(reading, name, &open, &shared).map(|request| vec![request]),
        (None, Some(list)) => Some(mix(reading, list, &shared)),
        (None, None) => {
            reader.mistake(open.node.id, "open lacks `url` (or `requests`)");
            None
        }
    };
    let (arrivals, replay) = match open.optional("replay") {
        Some(node) => replayed(reading, &open, node).unzip(),
        None => (open.required("arrivals", "open").and_then(|node| arrivals(reader, node)), None),
    };
    let flag = |name: &'static str, default: bool| {
        open.optional(name).map_or(Some(default), |n| reader.flag(n, name))
    };
    let answers = answers(reader, &open);
    let (poisson, reuse) = (flag("poisson", false), flag("reuse", true));
    let connections = open
        .optional("connections")
        .map_or(Some(1000), |node| reader.within(node, "connections", 1..=60_000));
    let connecting = connecting::read(reader, &open, reading.sources);
    if let (Some(node), Some(requests)) = (open.optional("protoset"), &requests)
        && !requests.iter().any(|request| request.url.starts_with("grpc"))
    {
        reader.mistake_with(
            node.id,
            "protoset has no effect: no URL is that of a gRPC call",
            "write grpc:// or grpcs://",
        );
    }
    open.finish("open");
    let Answers { deadline, connect_timeout, pop_header } = answers?;
    Some(Load {
        name: name.to_owned(),
        node,
        requests: requests?,
        arrivals: arrivals?,
        replay,
        poisson: poisson?,
        reuse: reuse?,
        deadline,
        connect_timeout,
        connections: connections?,
        pop_header,
        connecting: connecting?,
        processes: None,
        journey: None,
    })
}

/// How long answers are waited for, and what they say, whoever asks.
pub(super) struct Answers {
    pub(super) deadline: Duration,
    pub(super) connect_timeout: Duration,
    pub(super) pop_header: String,
}

pub(super) fn answers(reader: &Reader<'_>, fields: &Fields<'_, '_>) -> Option<Answers> {
    let span = |name: &'static str, default: u64| {
        let default = Some(Duration::from_secs(default));
        fields.optional(name).map_or(default, |node| positive_span(reader, node, name))
    };
    let (deadline, connect_timeout) = (span("deadline", 2), span("connect-timeout", 1));
    let pop_header = fields.optional("pop-header").map_or(Some("x-squall-pop".to_owned()), |node| {
        reader.text(node, "pop-header").map(|text| text.to_ascii_lowercase())
    });
    Some(Answers { deadline: deadline?, connect_timeout: connect_timeout?, pop_header: pop_header? })
}

/// A log in place of arrivals.
fn replayed(reading: &Reading<'_>, open: &Fields<'_, '_>, node: &Node) -> Option<(Profile, Arc<Trace>)> {
    for name in ["arrivals", "requests", "method", "body", "poisson"] {
        if open.optional(name).is_some() {
            reading.reader.mistake(node.id, format!("a load with `replay` has no `{name}`: the log says it"));
            return None;
        }
    }
    super::replaying::read(reading.reader, node, reading.sources)
}

/// What every request of a load shares unless it says otherwise.
pub(super) struct Shared {
    pub(super) method: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Option<Body>,
    pub(super) reply: Option<Reply>,
    pub(super) expect: Expected,
}

pub(super) fn request_fields(reading: &Reading<'_>, fields: &Fields<'_, '_>) -> Shared {
    let reader = reading.reader;
    let method = fields.optional("method").and_then(|node| reader.choice(node, "method", METHODS));
    let headers = fields.optional("headers").map(|node| headers(reading, node)).unwrap_or_default();
    let body = fields.optional("body").and_then(|node| body(reading, node));
    let expect = fields.optional("expect").map(|node| expect(reader, node)).unwrap_or_default();
    let reply = fields.optional("reply").and_then(|node| connecting::reply(reader, node));
    Shared { method: method.unwrap_or("GET").to_owned(), headers, body, reply, expect }
}

/// A text with slots, or `{file: …}` (sent as it is) or `{template: …}` (a file with slots).
fn body(reading: &Reading<'_>, node: &Node) -> Option<Body> {
    let Reading { reader, sources, known } = *reading;
    if !matches!(node.content, Content::Map(_)) {
        return reader.slots(node, "body", known).map(Body::Text);
    }
    let fields = reader.map(node, "body")?;
    let (file, template) = (fields.optional("file"), fields.optional("template"));
    fields.finish("body");
    let Some(named) = file.or(template).filter(|_| file.is_none() || template.is_none()) else {
        let help = "write `{file: …}` to send a file as it is, or `{template: …}` to fill in its `${…}`";
        reader.mistake_with(node.id, "body names one file", help);
        return None;
    };
    let path = reader.text(named, "body")?;
    let read = sources.bytes(&path, BODY_MAX).and_then(|bytes| {
        if file.is_some() {
            return Ok(Body::Bytes(bytes));
        }
        let text = reading::text(bytes)?;
        match Template::parse(&text, Place::Plain, known) {
            Ok(_) => Ok(Body::Text(text)),
            Err(error) => Err(format!("{} ({})", error.message, error.help)),
        }
    });
    read.map_err(|why| reader.mistake(named.id, format!("body: {path}: {why}"))).ok()
}

fn request(reading: &Reading<'_>, name: &str, fields: &Fields<'_, '_>, shared: &Shared) -> Option<Request> {
    let Reading { reader, known, .. } = *reading;
    let node = fields.required("url", "a request")?;
    let url = reader.slots(node, "url", known)?;
    if !SCHEMES.iter().any(|scheme| url.starts_with(scheme)) {
        let message = format!("url: `{url}` starts with no scheme that can be loaded");
        reader.mistake_with(node.id, message, format!("there are {}", SCHEMES.join(", ")));
        return None;
    }
    // A column may have a blank in its name.
    let bare: String =
        url.split("${").map(|part| part.split_once('}').map_or(part, |(_, rest)| rest)).collect();
    if bare.chars().any(|c| c.is_whitespace() || c.is_control()) {
        reader.mistake(node.id, "url: it holds a blank or a control character");
        return None;
    }
    let weight = fields.optional("weight").map_or(Some(1), |node| reader.within(node, "weight", WEIGHTS))?;
    let Expected { mut statuses, body_contains, headers, json } = shared.expect.clone();
    if statuses.is_empty() {
        statuses.push((200, 399));
    }
    Some(Request {
        name: name.to_owned(),
        method: shared.method.clone(),
        url,
        headers: shared.headers.clone(),
        body: shared.body.clone(),
        reply: shared.reply.clone().unwrap_or(Reply::Echo),
        weight,
        statuses,
        body_contains,
        expect_headers: headers,
        expect_json: json,
    })
}

fn mix(reading: &Reading<'_>, list: &Node, shared: &Shared) -> Vec<Request> {
    let reader = reading.reader;
    let items = reader.list(list, "requests");
    if items.is_empty() || items.len() > REQUESTS_MAX {
        reader.mistake(list.id, format!("requests must have from 1 to {REQUESTS_MAX} items"));
    }
    let mut requests: Vec<Request> = Vec::new();
    for item in items.iter().take(REQUESTS_MAX) {
        let Some((id, name, value)) = reader.named(item, "a request") else { continue };
        super::parse::check_name(reader, id, name, "a request");
        if requests.iter().any(|request| request.name == name) {
            reader.mistake(id, format!("there are two requests named `{name}`"));
        }
        let Some(fields) = reader.map(value, "a request") else { continue };
        let mut own = request_fields(reading, &fields);
        if !fields.has("method") {
            own.method.clone_from(&shared.method);
        }
        let mut headers = shared.headers.clone();
        headers.retain(|(name, _)| !own.headers.iter().any(|(other, _)| other.eq_ignore_ascii_case(name)));
        headers.append(&mut own.headers);
        own.headers = headers;
        own.body = own.body.or_else(|| shared.body.clone());
        own.reply = own.reply.or_else(|| shared.reply.clone());
        own.expect = own.expect.or(&shared.expect);
        requests.extend(request(reading, name, &fields, &own));
        fields.finish("a request");
    }
    requests
}

fn headers(reading: &Reading<'_>, node: &Node) -> Vec<(String, String)> {
    let reader = reading.reader;
    let Some(fields) = reader.map(node, "headers") else { return Vec::new() };
    let mut headers = Vec::new();
    for (id, name, value) in fields.others() {
        let token = !name.is_empty()
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b));
        if !token {
            reader.mistake(id, format!("`{name}` is no header name"));
            continue;
        }
        if ["content-length", "transfer-encoding", "connection"].contains(&name.to_ascii_lowercase().as_str())
        {
            reader.mistake(id, format!("`{name}` is set by squall itself"));
            continue;
        }
        let Some(text) = reader.slots(value, "a header", reading.known) else { continue };
        if text.chars().any(|c| c.is_control() && c != '\t') {
            reader.mistake(value.id, format!("the value of `{name}` holds a control character"));
            continue;
        }
        headers.push((name.to_owned(), text));
    }
    headers
}
