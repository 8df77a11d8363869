//! Reading `users:` and `sessions:`: journeys.

use std::time::Duration;

use injectors::units::{Share, Span};

use super::arrivals::{arrivals, positive_span};
use super::connecting;
use super::load::{Answers, Reading, WEIGHTS, answers, request_fields};
use super::reader::{Fields, Reader};
use super::yaml::{Content, Node, NodeId};
use super::{Load, Request};
use crate::connecting::Reply;
use crate::expect::Expect;
use crate::journey::{
    ATTEMPTS_MAX, Branch, Finder, Item, Journey, OWN_KINDS, PROCESSES_MAX, Pace, Retry, Source, Step, Think,
    USERS_MAX,
};
use crate::schedule::{MAX_RATE, Profile, Segment};
use crate::template::{Known, OWN};

/// The most choices within choices.
const DEPTH_MAX: usize = 4;
/// How long a user keeps the rows of his feeds: each time through, or for life.
const ROWS: [(&str, bool); 2] = [("each-walk", false), ("each-user", true)];

/// So many people, again and again.
pub(super) fn users(reading: &Reading<'_>, named: (NodeId, &str), fields: Fields<'_, '_>) -> Option<Load> {
    let reader = reading.reader;
    let count =
        fields.required("count", "users").and_then(|node| reader.within(node, "count", 1..=USERS_MAX));
    let ramp = fields
        .optional("ramp")
        .map_or(Some(Duration::ZERO), |node| reader.parse::<Span>(node, "ramp").map(|span| span.0));
    let lasting = fields.required("for", "users").and_then(|node| positive_span(reader, node, "for"));
    let keep_rows = fields.optional("rows").map_or(Some(false), |node| reader.choice(node, "rows", &ROWS));
    let pace =
        (|| Some(Pace::Users { count: count?, ramp: ramp?, lasting: lasting?, keep_rows: keep_rows? }))();
    if let Some(Pace::Users { ramp, lasting, .. }) = &pace
        && ramp >= lasting
    {
        reader.mistake(fields.node.id, "ramp must end before `for` does");
    }
    load(reading, named, fields, "users", pace)
}

/// Journeys that begin at a rate.
pub(super) fn sessions(reading: &Reading<'_>, named: (NodeId, &str), fields: Fields<'_, '_>) -> Option<Load> {
    let reader = reading.reader;
    let arrivals = fields.required("arrivals", "sessions").and_then(|node| arrivals(reader, node));
    let poisson = fields.optional("poisson").map_or(Some(false), |node| reader.flag(node, "poisson"));
    let most =
        fields.optional("at-most").map_or(Some(1000), |node| reader.within(node, "at-most", 1..=USERS_MAX));
    let pace = (|| Some(Pace::Sessions { arrivals: arrivals?, poisson: poisson?, most: most? }))();
    load(reading, named, fields, "sessions", pace)
}

fn load(
    reading: &Reading<'_>,
    (node, name): (NodeId, &str),
    fields: Fields<'_, '_>,
    what: &str,
    pace: Option<Pace>,
) -> Option<Load> {
    let reader = reading.reader;
    let answers = answers(reader, &fields);
    let connecting = connecting::of_journey(reader, &fields, reading.sources);
    let journey = fields.required("journey", what).and_then(|node| journey(reading, node));
    let processes =
        fields.optional("processes").map(|node| reader.within(node, "processes", 1..=PROCESSES_MAX));
    fields.finish(what);
    let journey = Journey { pace: pace?, ..journey? };
    let Answers { deadline, connect_timeout, pop_header } = answers?;
    Some(Load {
        name: name.to_owned(),
        node,
        requests: journey.all().into_iter().map(request).collect(),
        arrivals: expected(&journey),
        poisson: matches!(journey.pace, Pace::Sessions { poisson: true, .. }),
        reuse: true,
        deadline,
        connect_timeout,
        connections: journey.pace.people(),
        pop_header,
        connecting: connecting?,
        replay: None,
        processes: processes.flatten(),
        journey: Some(journey),
    })
}

/// What may be expected of a journey: its sessions, or about how many requests its users make.
fn expected(journey: &Journey) -> Profile {
    let (count, ramp, lasting) = match &journey.pace {
        Pace::Sessions { arrivals, .. } => return arrivals.clone(),
        Pace::Users { count, ramp, lasting, .. } => (count, ramp, lasting),
    };
    let (seconds, requests) = journey.estimate();
    let rate = (f64::from(*count) * requests / seconds.max(1e-3)).min(MAX_RATE);
    let rise = (!ramp.is_zero()).then_some(Segment::Ramp { from: 0.0, to: rate, over: *ramp });
    let hold = Segment::Hold { rate, lasting: lasting.saturating_sub(*ramp).max(Duration::from_millis(1)) };
    let segments: Vec<Segment> = rise.into_iter().chain([hold]).collect();
    Profile::new(segments).unwrap_or_else(|_| {
        let (rate, lasting) = (1.0, Duration::from_secs(1));
        Profile::new(vec![Segment::Hold { rate, lasting }]).expect("one request in a second is a profile")
    })
}

/// A step, as plans and reports see it.
fn request(step: &Step) -> Request {
    Request {
        reply: Reply::Echo,
        name: step.name.clone(),
        method: step.method.clone(),
        url: step.url.clone(),
        headers: step.headers.clone(),
        body: step.body.clone(),
        weight: 1,
        statuses: step.expect.statuses.iter().map(|range| (*range.start(), *range.end())).collect(),
        body_contains: step.expect.body_contains.clone(),
        expect_headers: step.expect.headers.clone(),
        expect_json: step.expect.json.clone(),
    }
}

/// What is known while steps are read in order.
struct Steps<'r, 's> {
    reading: &'s Reading<'r>,
    base: Option<String>,
    think: Think,
    extracted: Vec<String>,
    names: Vec<String>,
}

fn journey(reading: &Reading<'_>, node: &Node) -> Option<Journey> {
    let reader = reading.reader;
    let fields = reader.map(node, "journey")?;
    let base = fields.optional("base").and_then(|node| {
        let base = reader.text(node, "base")?;
        if base.contains(['?', '#']) {
            reader.mistake_with(
                node.id,
                "base: a path is added to it, so it has no query",
                "write the query in each step's path",
            );
            return None;
        }
        if base.starts_with("http://") || base.starts_with("https://") {
            return Some(base.trim_end_matches('/').to_owned());
        }
        reader.mistake(node.id, format!("base: `{base}` starts with neither http:// nor https://"));
        None
    });
    let think = fields.optional("think").and_then(|node| think(reader, node)).unwrap_or(Think::NONE);
    let mut steps = Steps { reading, base, think, extracted: Vec::new(), names: Vec::new() };
    let mut part = |node: Option<&Node>| node.map(|node| steps.list(node, 0)).unwrap_or_default();
    let start = part(fields.optional("on-start"));
    let body = part(fields.required("steps", "journey"));
    let stop = part(fields.optional("on-stop"));
    let cookies = fields.optional("cookies").map_or(Some(true), |node| reader.flag(node, "cookies"));
    let retry = fields.optional("retry").map(|node| retry(reader, node));
    fields.finish("journey");
    // The pace is the caller's to say.
    let lasting = Duration::from_secs(1);
    let pace = Pace::Users { count: 1, ramp: Duration::ZERO, lasting, keep_rows: false };
    Some(Journey { pace, start, steps: body, stop, cookies: cookies?, retry: retry.flatten() })
}

fn think(reader: &Reader<'_>, node: &Node) -> Option<Think> {
    if !matches!(node.content, Content::Map(_)) {
        let span = reader.parse::<Span>(node, "think")?.0;
        return Some(Think::Between(span, span));
    }
    let fields = reader.map(node, "think")?;
    let span = |node: &Node, name: &'static str| reader.parse::<Span>(node, name).map(|span| span.0);
    let about = fields.optional("about").map(|node| span(node, "about"));
    if let Some(mean) = about {
        fields.finish("think");
        return mean.map(Think::About);
    }
    let bound = |name: &'static str| fields.required(name, "think").and_then(|node| span(node, name));
    let (from, to) = (bound("from"), bound("to"));
    fields.finish("think");
    let (from, to) = (from?, to?);
    if from > to {
        reader.mistake(node.id, "think: `from` is longer than `to`");
        return None;
    }
    Some(Think::Between(from, to))
}

fn retry(reader: &Reader<'_>, node: &Node) -> Option<Retry> {
    let fields = reader.map(node, "retry")?;
    let attempts = fields.required("attempts", "retry").and_then(|node| {
        let attempts = reader.parse::<u32>(node, "attempts")?;
        if !(2..=ATTEMPTS_MAX).contains(&attempts) {
            reader
                .mistake(node.id, format!("attempts count the first one as well: from 2 to {ATTEMPTS_MAX}"));
            return None;
        }
        Some(attempts)
    });
    let backoff = fields.optional("backoff").map_or(Some(Duration::from_millis(100)), |node| {
        reader.parse::<Span>(node, "backoff").map(|span| span.0)
    });
    let share = |name: &'static str| fields.optional(name).map(|node| reader.parse::<Share>(node, name));
    let (jitter, budget) = (share("jitter"), share("budget"));
    fields.finish("retry");
    let jitter = jitter.map_or(Some(0.5), |share| share.map(|share| share.0))?;
    let budget = match budget {
        None => None,
        Some(share) => Some(share?.0),
    };
    Some(Retry { attempts: attempts?, backoff: backoff?, jitter, budget })
}

impl Steps<'_, '_> {
    fn list(&mut self, node: &Node, depth: usize) -> Vec<Item> {
        let reader = self.reading.reader;
        let mut found = Vec::new();
        for item in reader.list(node, "steps") {
            let Some((id, name, value)) = reader.named(item, "a step") else { continue };
            if name == "choose" {
                found.extend(self.choose(id, value, depth));
                continue;
            }
            super::parse::check_name(reader, id, name, "a step");
            if self.names.iter().any(|known| known == name) || OWN_KINDS.contains(&name) {
                let help = "each step is counted by its name; `journey` and `retry` are squall's own";
                reader.mistake_with(id, format!("there is another step named `{name}`"), help);
            }
            self.names.push(name.to_owned());
            found.extend(self.step(name, value).map(|step| Item::Step(Box::new(step))));
        }
        if found.is_empty() && matches!(&node.content, Content::List(items) if items.is_empty()) {
            reader.mistake(node.id, "there are no steps in it");
        }
        found
    }

    fn choose(&mut self, id: NodeId, node: &Node, depth: usize) -> Option<Item> {
        let reader = self.reading.reader;
        if depth >= DEPTH_MAX {
            reader.mistake(id, format!("more than {DEPTH_MAX} choices lie within each other"));
            return None;
        }
        let mut branches = Vec::new();
        for item in reader.list(node, "choose") {
            let Some((id, name, value)) = reader.named(item, "a way to go on") else { continue };
            super::parse::check_name(reader, id, name, "a way to go on");
            let Some(fields) = reader.map(value, "a way to go on") else { continue };
            let weight =
                fields.optional("weight").map_or(Some(1), |node| reader.within(node, "weight", WEIGHTS));
            let steps = fields.required("steps", "a way to go on").map(|node| self.list(node, depth + 1));
            fields.finish("a way to go on");
            if let (Some(weight), Some(steps)) = (weight, steps) {
                branches.push(Branch { name: name.to_owned(), weight, steps });
            }
        }
        (!branches.is_empty()).then_some(Item::Choose(branches))
    }

    fn step(&mut self, name: &str, node: &Node) -> Option<Step> {
        let reader = self.reading.reader;
        let fields = reader.map(node, "a step")?;
        let known = Known { feeds: self.reading.known.feeds, extracted: &self.extracted };
        let own = Reading { reader, sources: self.reading.sources, known: &known };
        let shared = request_fields(&own, &fields);
        if let Some(node) = fields.optional("reply") {
            reader.mistake(node.id, "reply: only tcp, tls and udp have replies without a form of their own");
        }
        let url = self.url(&fields, &known);
        let think = fields.optional("think").map_or(Some(self.think), |node| think(reader, node));
        let extract = fields.optional("extract").map(|node| self.extract(node)).unwrap_or_default();
        fields.finish("a step");
        for (name, _) in &extract {
            if !self.extracted.contains(name) {
                self.extracted.push(name.clone());
            }
        }
        let statuses = shared.expect.statuses.into_iter().map(|(from, to)| from..=to).collect::<Vec<_>>();
        let expect = Expect {
            statuses: if statuses.is_empty() { Expect::default().statuses } else { statuses },
            body_contains: shared.expect.body_contains,
            headers: shared.expect.headers,
            json: shared.expect.json,
        };
        let (name, method, body) = (name.to_owned(), shared.method, shared.body);
        Some(Step { name, method, url: url?, headers: shared.headers, body, expect, extract, think: think? })
    }

    /// `url`, or `path` below the base.
    fn url(&self, fields: &Fields<'_, '_>, known: &Known<'_>) -> Option<String> {
        let reader = self.reading.reader;
        match (fields.optional("url"), fields.optional("path")) {
            (Some(node), None) => reader.slots(node, "url", known),
            (None, Some(node)) => {
                let path = reader.slots(node, "path", known)?;
                let Some(base) = &self.base else {
                    reader.mistake(node.id, "path: the journey has no `base` to put it below");
                    return None;
                };
                if !path.starts_with('/') {
                    reader.mistake(node.id, format!("path: `{path}` does not start with `/`"));
                    return None;
                }
                Some(format!("{base}{path}"))
            }
            _ => {
                reader.mistake(fields.node.id, "a step has a `path` below the journey's `base`, or a `url`");
                None
            }
        }
    }

    /// Names for what later steps use, and where in the answer each is.
    fn extract(&self, node: &Node) -> Vec<(String, Source)> {
        let reader = self.reading.reader;
        let Some(fields) = reader.map(node, "extract") else { return Vec::new() };
        let mut found = Vec::new();
        for (id, name, value) in fields.others() {
            super::parse::check_name(reader, id, name, "what is extracted");
            self.check_meaning(id, name);
            let Some((_, kind, value)) = reader.named(value, "a place in an answer") else { continue };
            let source = match kind {
                "json" => reader.text(value, kind).map(Source::Json),
                "header" => reader.text(value, kind).map(|name| Source::Header(name.to_ascii_lowercase())),
                "cookie" => reader.text(value, kind).map(Source::Cookie),
                "regex" => reader.text(value, kind).map(Source::Regex),
                "between" => match reader.list(value, kind) {
                    [before, after] => {
                        let texts = (reader.text(before, kind), reader.text(after, kind));
                        texts.0.zip(texts.1).map(|(before, after)| Source::Between(before, after))
                    }
                    _ => {
                        reader.mistake_with(value.id, "between has two texts", PLACES);
                        None
                    }
                },
                other => {
                    reader.mistake_with(id, format!("an answer has no `{other}`"), PLACES);
                    None
                }
            };
            let Some(source) = source else { continue };
            if let Err(why) = Finder::new(&source) {
                reader.mistake(value.id, format!("{kind}: {why}"));
                continue;
            }
            found.push((name.to_owned(), source));
        }
        found
    }

    /// A name must not mean one thing before a step and another after it.
    fn check_meaning(&self, id: NodeId, name: &str) {
        let reader = self.reading.reader;
        let help = "give what is extracted a name of its own";
        let other = if OWN.contains(&name) {
            "squall's own"
        } else if self.reading.known.feeds.iter().any(|(feed, _)| feed == name) {
            "that of a feed"
        } else if reader.is_var(name) {
            "that of a variable"
        } else if name.contains('.') {
            reader.mistake_with(id, format!("extract: `{name}` has a dot, as columns of feeds have"), help);
            return;
        } else {
            return;
        };
        reader.mistake_with(id, format!("extract: `${{{name}}}` is {other} already"), help);
    }
}

/// Where in an answer a value can be.
const PLACES: &str = "write `{json: /pointer}`, `{header: name}`, `{cookie: name}`, `{regex: 'id=(\\d+)'}` or `{between: [before, \
                      after]}`";
