//! Reading `load:`.

use std::time::Duration;

use injectors::units::{Rate, Share, Span};

use super::reader::{Fields, Reader};
use super::yaml::{Content, Node, NodeId};
use super::{Load, Request, Tls};
use crate::experiment::Sources;
use crate::schedule::{Profile, Segment};

/// The most loads in one experiment.
const LOADS_MAX: usize = 16;
/// The most kinds of requests in one load.
const REQUESTS_MAX: usize = 64;
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
pub(super) fn read(reader: &Reader<'_>, node: &Node, sources: &dyn Sources) -> Vec<Load> {
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
        let open = fields.required("open", "a load").and_then(|open| reader.map(open, "open"));
        fields.finish("a load");
        loads.extend(open.and_then(|open| one(reader, (id, name), open, sources)));
    }
    loads
}

fn one(
    reader: &Reader<'_>,
    (node, name): (NodeId, &str),
    open: Fields<'_, '_>,
    sources: &dyn Sources,
) -> Option<Load> {
    let shared = request_fields(reader, &open);
    let requests = match (open.optional("url"), open.optional("requests")) {
        (Some(_), Some(list)) => {
            reader.mistake(list.id, "write either `url` or `requests`, not both");
            None
        }
        (Some(_), None) => request(reader, name, &open, &shared).map(|request| vec![request]),
        (None, Some(list)) => Some(mix(reader, list, &shared)),
        (None, None) => {
            reader.mistake(open.node.id, "open lacks `url` (or `requests`)");
            None
        }
    };
    let arrivals = open.required("arrivals", "open").map(|node| arrivals(reader, node));
    let span = |name: &'static str, default: Duration| {
        open.optional(name).map_or(Some(default), |node| positive_span(reader, node, name))
    };
    let flag = |name: &'static str, default: bool| {
        open.optional(name).map_or(Some(default), |n| reader.flag(n, name))
    };
    let deadline = span("deadline", Duration::from_secs(2));
    let connect_timeout = span("connect-timeout", Duration::from_secs(1));
    let (poisson, reuse) = (flag("poisson", false), flag("reuse", true));
    let connections = open.optional("connections").map_or(Some(1000), |node| {
        let count = reader.parse::<u32>(node, "connections")?;
        if !(1..=60_000).contains(&count) {
            reader.mistake(node.id, "connections must be from 1 to 60,000");
            return None;
        }
        Some(count)
    });
    let pop_header = open.optional("pop-header").map_or(Some("x-squall-pop".to_owned()), |node| {
        reader.text(node, "pop-header").map(|text| text.to_ascii_lowercase())
    });
    let tls = open.optional("tls").map_or(Some(Tls::default()), |node| tls(reader, node, sources));
    open.finish("open");
    Some(Load {
        name: name.to_owned(),
        node,
        requests: requests?,
        arrivals: arrivals??,
        poisson: poisson?,
        reuse: reuse?,
        deadline: deadline?,
        connect_timeout: connect_timeout?,
        connections: connections?,
        pop_header: pop_header?,
        tls: tls?,
    })
}

/// What every request of a load shares unless it says otherwise.
struct Shared {
    method: String,
    headers: Vec<(String, String)>,
    body: Option<String>,
    statuses: Vec<(u16, u16)>,
    body_contains: Option<String>,
}

fn request_fields(reader: &Reader<'_>, fields: &Fields<'_, '_>) -> Shared {
    let method = fields.optional("method").and_then(|node| reader.choice(node, "method", METHODS));
    let headers = fields.optional("headers").map(|node| headers(reader, node)).unwrap_or_default();
    let body = fields.optional("body").and_then(|node| reader.text(node, "body"));
    let (statuses, body_contains) =
        fields.optional("expect").map(|node| expect(reader, node)).unwrap_or_default();
    Shared { method: method.unwrap_or("GET").to_owned(), headers, body, statuses, body_contains }
}

fn request(reader: &Reader<'_>, name: &str, fields: &Fields<'_, '_>, shared: &Shared) -> Option<Request> {
    let node = fields.required("url", "a request")?;
    let url = reader.text(node, "url")?;
    if !(url.starts_with("http://") || url.starts_with("https://")) {
        reader.mistake(node.id, format!("url: `{url}` starts with neither http:// nor https://"));
        return None;
    }
    if url.chars().any(|c| c.is_whitespace() || c.is_control()) {
        reader.mistake(node.id, "url: it holds a blank or a control character");
        return None;
    }
    let weight = fields.optional("weight").map_or(Some(1), |node| {
        let weight = reader.parse::<u32>(node, "weight")?;
        if !(1..=10_000).contains(&weight) {
            reader.mistake(node.id, "weight must be from 1 to 10,000");
            return None;
        }
        Some(weight)
    })?;
    let statuses = if shared.statuses.is_empty() { vec![(200, 399)] } else { shared.statuses.clone() };
    Some(Request {
        name: name.to_owned(),
        method: shared.method.clone(),
        url,
        headers: shared.headers.clone(),
        body: shared.body.clone(),
        weight,
        statuses,
        body_contains: shared.body_contains.clone(),
    })
}

fn mix(reader: &Reader<'_>, list: &Node, shared: &Shared) -> Vec<Request> {
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
        let mut own = request_fields(reader, &fields);
        if !fields.has("method") {
            own.method.clone_from(&shared.method);
        }
        let mut headers = shared.headers.clone();
        headers.retain(|(name, _)| !own.headers.iter().any(|(other, _)| other.eq_ignore_ascii_case(name)));
        headers.append(&mut own.headers);
        own.headers = headers;
        own.body = own.body.or_else(|| shared.body.clone());
        if own.statuses.is_empty() {
            own.statuses.clone_from(&shared.statuses);
        }
        own.body_contains = own.body_contains.or_else(|| shared.body_contains.clone());
        requests.extend(request(reader, name, &fields, &own));
        fields.finish("a request");
    }
    requests
}

fn headers(reader: &Reader<'_>, node: &Node) -> Vec<(String, String)> {
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
        let Some(text) = reader.text(value, "a header") else { continue };
        if text.chars().any(|c| c.is_control() && c != '\t') {
            reader.mistake(value.id, format!("the value of `{name}` holds a control character"));
            continue;
        }
        headers.push((name.to_owned(), text));
    }
    headers
}

/// Good statuses and the text that a good body holds.
pub(super) fn expect(reader: &Reader<'_>, node: &Node) -> (Vec<(u16, u16)>, Option<String>) {
    let Some(fields) = reader.map(node, "expect") else { return Default::default() };
    let read = expect_fields(reader, &fields);
    fields.finish("expect");
    read
}

/// The fields `status` and `body-contains` of a map.
pub(super) fn expect_fields(
    reader: &Reader<'_>,
    fields: &Fields<'_, '_>,
) -> (Vec<(u16, u16)>, Option<String>) {
    let statuses = fields.optional("status").map(|node| match &node.content {
        Content::List(items) => items.iter().filter_map(|item| status(reader, item)).collect(),
        _ => status(reader, node).into_iter().collect::<Vec<_>>(),
    });
    let contains = fields.optional("body-contains").and_then(|node| {
        let text = reader.text(node, "body-contains")?;
        if text.is_empty() || text.len() > 1024 {
            reader.mistake(node.id, "body-contains must have from 1 to 1,024 bytes");
            return None;
        }
        Some(text)
    });
    (statuses.unwrap_or_default(), contains)
}

/// `200`, `2xx` or `200-299`.
fn status(reader: &Reader<'_>, node: &Node) -> Option<(u16, u16)> {
    let text = reader.text(node, "status")?;
    let range = read_status(&text);
    if range.is_none() {
        reader.mistake_with(
            node.id,
            format!("status: `{text}` is no status"),
            "write `200`, `2xx`, `200-204` or a list of them",
        );
    }
    range
}

/// `200`, `2xx` or `200-299`; none if it is none of these.
pub fn read_status(text: &str) -> Option<(u16, u16)> {
    let range = if let Some(class) = text.strip_suffix("xx") {
        class.parse::<u16>().ok().map(|class| (class * 100, class * 100 + 99))
    } else if let Some((from, to)) = text.split_once('-') {
        from.parse().ok().zip(to.parse().ok())
    } else {
        text.parse().ok().map(|code| (code, code))
    };
    range.filter(|(from, to)| (100..=599).contains(from) && (100..=599).contains(to) && from <= to)
}

fn tls(reader: &Reader<'_>, node: &Node, sources: &dyn Sources) -> Option<Tls> {
    let fields = reader.map(node, "tls")?;
    let ca = fields.optional("ca").and_then(|node| {
        let path = reader.text(node, "ca")?;
        sources.read(&path).map_err(|error| reader.mistake(node.id, format!("ca: {path}: {error}"))).ok()
    });
    let insecure =
        fields.optional("insecure").and_then(|node| reader.flag(node, "insecure")).unwrap_or(false);
    let server_name = fields.optional("server-name").and_then(|node| reader.text(node, "server-name"));
    fields.finish("tls");
    Some(Tls { ca, insecure, server_name })
}

fn arrivals(reader: &Reader<'_>, node: &Node) -> Option<Profile> {
    let mut segments: Vec<Segment> = Vec::new();
    let items = reader.list(node, "arrivals");
    let mut whole = true;
    for item in items {
        let (id, name, value) = reader.named(item, "a stretch of arrivals")?;
        let before = segments.last().map_or(0.0, last_rate);
        let read = match name {
            "hold" => hold(reader, value, before),
            "ramp" => ramp(reader, value, before),
            "steps" => steps(reader, value, before),
            "spike" => spike(reader, value, before),
            "sine" => sine(reader, value, before),
            other => {
                let help = super::mistake::suggest(other, &["hold", "ramp", "steps", "spike", "sine"]);
                reader.mistake_with(id, format!("arrivals know no `{other}`"), help);
                None
            }
        };
        whole &= read.is_some();
        segments.extend(read);
    }
    if !whole {
        return None;
    }
    let help = "such as `[{ramp: {to: 400/s, over: 5s}}, {hold: 40s}]`";
    Profile::new(segments).map_err(|error| reader.mistake_with(node.id, error.to_string(), help)).ok()
}

/// The rate at the end of a stretch, from which the next one goes on.
fn last_rate(segment: &Segment) -> f64 {
    match segment {
        Segment::Ramp { to, .. } | Segment::Steps { to, .. } => *to,
        Segment::Hold { rate, .. } | Segment::Spike { base: rate, .. } | Segment::Sine { mean: rate, .. } => {
            *rate
        }
    }
}

pub(super) fn positive_span(reader: &Reader<'_>, node: &Node, what: &str) -> Option<Duration> {
    let span = reader.parse::<Span>(node, what)?.0;
    if span.is_zero() {
        reader.mistake(node.id, format!("{what} must be longer than zero"));
        return None;
    }
    Some(span)
}

fn rate(reader: &Reader<'_>, fields: &Fields<'_, '_>, name: &'static str, default: f64) -> Option<f64> {
    fields.optional(name).map_or(Some(default), |node| reader.parse::<Rate>(node, name).map(|rate| rate.0))
}

fn length(reader: &Reader<'_>, fields: &Fields<'_, '_>, name: &'static str, what: &str) -> Option<Duration> {
    fields.required(name, what).and_then(|node| positive_span(reader, node, name))
}

fn hold(reader: &Reader<'_>, node: &Node, before: f64) -> Option<Segment> {
    if !matches!(node.content, Content::Map(_)) {
        return Some(Segment::Hold { rate: before, lasting: positive_span(reader, node, "hold")? });
    }
    let fields = reader.map(node, "hold")?;
    let (rate, length) = (rate(reader, &fields, "rate", before), length(reader, &fields, "for", "hold"));
    fields.finish("hold");
    Some(Segment::Hold { rate: rate?, lasting: length? })
}

fn ramp(reader: &Reader<'_>, node: &Node, before: f64) -> Option<Segment> {
    let fields = reader.map(node, "ramp")?;
    let from = rate(reader, &fields, "from", before);
    let to = fields.required("to", "ramp").and_then(|node| reader.parse::<Rate>(node, "to"));
    let length = length(reader, &fields, "over", "ramp");
    fields.finish("ramp");
    Some(Segment::Ramp { from: from?, to: to?.0, over: length? })
}

fn steps(reader: &Reader<'_>, node: &Node, before: f64) -> Option<Segment> {
    let fields = reader.map(node, "steps")?;
    let from = rate(reader, &fields, "from", before);
    let to = fields.required("to", "steps").and_then(|node| reader.parse::<Rate>(node, "to"));
    let count = fields.required("count", "steps").and_then(|node| {
        let count = reader.parse::<u32>(node, "count")?;
        if !(2..=1000).contains(&count) {
            reader.mistake(node.id, "count must be from 2 to 1,000");
            return None;
        }
        Some(count)
    });
    let each = length(reader, &fields, "each", "steps");
    fields.finish("steps");
    Some(Segment::Steps { from: from?, to: to?.0, count: count?, each: each? })
}

fn spike(reader: &Reader<'_>, node: &Node, before: f64) -> Option<Segment> {
    let fields = reader.map(node, "spike")?;
    let to = fields.required("to", "spike").and_then(|node| reader.parse::<Rate>(node, "to"));
    let length = length(reader, &fields, "for", "spike");
    fields.finish("spike");
    let (peak, lasting) = (to?.0, length?);
    Some(Segment::Spike { base: before, peak, at: Duration::ZERO, lasting, total: lasting })
}

fn sine(reader: &Reader<'_>, node: &Node, before: f64) -> Option<Segment> {
    let fields = reader.map(node, "sine")?;
    let mean = rate(reader, &fields, "mean", before);
    let amplitude = fields.required("amplitude", "sine").and_then(|node| {
        match reader.text(node, "amplitude")?.parse::<Share>() {
            Ok(share) => mean.map(|mean| mean * share.0),
            Err(_) => reader.parse::<Rate>(node, "amplitude").map(|rate| rate.0),
        }
    });
    let (period, length) =
        (length(reader, &fields, "period", "sine"), length(reader, &fields, "for", "sine"));
    fields.finish("sine");
    let (mean, amplitude) = (mean?, amplitude?);
    if amplitude > mean {
        reader.mistake(node.id, "the amplitude is larger than the mean: the rate would be negative");
        return None;
    }
    Some(Segment::Sine { mean, amplitude, period: period?, lasting: length? })
}
