//! A journey, checked and ready to be walked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hyper::Uri;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};

use super::{Document, Finder, Item, Journey, NAMES_MAX, OWN_KINDS, Pace, STEPS_MAX, Step, extract};
use crate::expect::Checks;
use crate::feed::{FEEDS_MAX, Feed, Order};
use crate::template::{Body, Known, Place, Slot, Template};

/// The most choices within choices.
const DEPTH_MAX: usize = 4;

/// Why a journey cannot be walked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScriptError {
    /// No step, or more than [`STEPS_MAX`].
    #[error("a journey has 1 to {STEPS_MAX} steps")]
    Steps,
    /// A choice of nothing, or choices too deep within each other.
    #[error(
        "a choice has at least one way with steps and a weight, and no more than {DEPTH_MAX} lie within each other"
    )]
    Choice,
    /// More than [`NAMES_MAX`], or a name that stands for something else.
    #[error(
        "step {0}: it extracts more than {NAMES_MAX} names with the steps before it, or one that has another meaning"
    )]
    Names(String),
    /// Something about one step.
    #[error("step {0}: {1}")]
    Step(String, String),
    /// More than [`FEEDS_MAX`], or two of one name.
    #[error("it needs at most {FEEDS_MAX} feeds, each with a name of its own")]
    Feeds,
    /// More people than rows of which each may be taken once.
    #[error(
        "feed {feed} has {rows} rows, each of which may be taken once, and {needed} {who} take one each: let fewer come, \
         or take rows again (order `sequential` or `random`)"
    )]
    Rows {
        /// The feed.
        feed: String,
        /// How many it has.
        rows: usize,
        /// How many are needed at least.
        needed: u64,
        /// Sessions or users.
        who: &'static str,
    },
}

/// What is done next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// This request.
    Ask(usize),
    /// One of these, by running sums of weights.
    Choose(Vec<(u64, Vec<Node>)>),
}

/// One request, ready to be filled in.
#[derive(Debug)]
pub struct Ask {
    /// As written.
    pub step: Step,
    /// The method.
    pub method: hyper::Method,
    /// The whole URL.
    pub url: Template,
    /// Names and values.
    pub headers: Vec<(HeaderName, Template)>,
    /// None if there is none.
    pub body: Option<Template>,
    /// What is expected of headers and of JSON, if anything is.
    pub(crate) checks: Option<Checks>,
    /// What is taken from the answer: the place of its name, and where it is.
    pub extract: Vec<(usize, Finder)>,
    /// Without query values.
    pub words: String,
}

/// An answer, as far as it is looked at.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// Its status.
    pub status: u16,
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// Its body, or the first bytes of it.
    pub body: &'a [u8],
    /// Whether that is all of it.
    pub whole: bool,
    /// Whether the text that is expected in it was found.
    pub contains: bool,
}

/// Why an answer is not good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Miss {
    /// Its status.
    Status,
    /// Something that was expected, or was to be taken from it, is not there.
    Content,
}

impl Ask {
    /// Whether the answer's body has to be kept.
    pub fn reads(&self) -> bool {
        self.checks.as_ref().is_some_and(Checks::looks_at_bodies)
            || self.extract.iter().any(|(_, finder)| finder.in_body())
    }

    /// Looks at an answer, and passes on what is taken from it; a value that is not there is passed on as none.
    ///
    /// # Errors
    /// It is not good.
    pub fn look(&self, seen: Seen<'_>, mut learn: impl FnMut(usize, Option<String>)) -> Result<(), Miss> {
        if !self.step.expect.statuses.iter().any(|range| range.contains(&seen.status)) {
            return Err(Miss::Status);
        }
        let mut json = Document::default();
        if let Some(checks) = &self.checks {
            let fields =
                seen.headers.iter().map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()));
            let met = fields.fold(0, |met, (name, value)| met | checks.met_by(name, value));
            let document = if checks.looks_at_bodies() && seen.whole { json.of(seen.body) } else { None };
            if !checks.all_met(met) || !checks.document_holds(document) {
                return Err(Miss::Content);
            }
        }
        if !seen.contains {
            return Err(Miss::Content);
        }
        let mut all = true;
        for (place, finder) in &self.extract {
            let found = extract(finder, seen.headers, seen.body, &mut json);
            all &= found.is_some();
            learn(*place, found);
        }
        if all { Ok(()) } else { Err(Miss::Content) }
    }

    /// Its texts with slots.
    fn templates(&self) -> impl Iterator<Item = &Template> {
        let values = self.headers.iter().map(|(_, value)| value);
        std::iter::once(&self.url).chain(values).chain(&self.body)
    }
}

/// See the module.
#[derive(Debug)]
pub struct Script {
    /// Once, first of all.
    pub start: Vec<Node>,
    /// The journey.
    pub steps: Vec<Node>,
    /// Once, at the end.
    pub stop: Vec<Node>,
    /// Every request, in reading order.
    pub asks: Vec<Ask>,
    /// How many names are extracted.
    pub names: usize,
    /// The columns that are used, by feed.
    pub fields: BTreeMap<usize, BTreeSet<usize>>,
    /// The most requests of each part.
    longest: [u64; 3],
}

/// Which part of a journey.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// First of all.
    Start,
    /// The journey.
    Steps,
    /// At the end.
    Stop,
}

impl Script {
    /// Checks a journey, whose requests may use these feeds.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn new(journey: &Journey, feeds: &[Arc<Feed>]) -> Result<Self, ScriptError> {
        let twice = |at: usize| feeds[..at].iter().any(|other| other.name() == feeds[at].name());
        if feeds.len() > FEEDS_MAX || (0..feeds.len()).any(twice) {
            return Err(ScriptError::Feeds);
        }
        let columns: Vec<_> =
            feeds.iter().map(|feed| (feed.name().to_owned(), feed.columns().to_vec())).collect();
        let mut reading = Reading { feeds: &columns, asks: Vec::new(), names: Vec::new() };
        let mut part = |items: &[Item]| reading.nodes(items, 0);
        let (start, steps, stop) = (part(&journey.start)?, part(&journey.steps)?, part(&journey.stop)?);
        let Reading { asks, names, .. } = reading;
        if steps.is_empty() || asks.len() > STEPS_MAX {
            return Err(ScriptError::Steps);
        }
        let longest = [&start, &steps, &stop].map(|part| longest(part));
        let mut fields: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
        for slot in asks.iter().flat_map(Ask::templates).flat_map(Template::slots) {
            if let Slot::Field { feed, column } = slot {
                fields.entry(feed).or_default().insert(column);
            }
        }
        check_rows(&journey.pace, fields.keys().map(|feed| &*feeds[*feed]))?;
        Ok(Self { start, steps, stop, asks, names: names.len(), fields, longest })
    }

    /// Whether a feed that it uses has no row any more for this number, nor for any that is higher.
    pub fn exhausted(&self, feeds: &[Arc<Feed>], row: u64) -> bool {
        let used = self.fields.keys().filter_map(|feed| feeds.get(*feed));
        used.filter(|feed| feed.order() == Order::Unique).any(|feed| feed.rows() as u64 <= row)
    }

    /// What is done in a part.
    pub fn part(&self, part: Part) -> &[Node] {
        match part {
            Part::Start => &self.start,
            Part::Steps => &self.steps,
            Part::Stop => &self.stop,
        }
    }

    /// The most requests of a part.
    pub fn longest(&self, part: Part) -> u64 {
        self.longest[part as usize]
    }

    /// The number of a request, unlike that of any other: by the number of who goes through the journey, the part, and its
    /// place there. So it follows from the seed and that number, whatever else goes on.
    pub fn number(&self, walk: u64, part: Part, at: usize) -> u64 {
        let before: u64 = self.longest[..part as usize].iter().sum();
        walk.wrapping_mul(self.longest.iter().sum()).wrapping_add(before + at as u64)
    }

    /// The kinds of requests: the steps, and what is counted beside them.
    pub fn kinds(&self) -> Vec<String> {
        let steps = self.asks.iter().map(|ask| ask.step.name.clone());
        steps.chain(OWN_KINDS.map(str::to_owned)).collect()
    }

    /// The kind under which whole journeys are counted.
    pub fn whole(&self) -> u16 {
        self.asks.len() as u16
    }

    /// The kind under which further tries are counted.
    pub fn again(&self) -> u16 {
        self.asks.len() as u16 + 1
    }

    /// The request that comes first, if chance does not decide it.
    pub fn first(&self) -> u16 {
        fn of(nodes: &[Node]) -> Option<usize> {
            match nodes.first()? {
                Node::Ask(index) => Some(*index),
                Node::Choose(ways) => of(&ways.first()?.1),
            }
        }
        of(&self.start).or_else(|| of(&self.steps)).unwrap_or_default() as u16
    }
}

/// The most requests on any way through.
fn longest(nodes: &[Node]) -> u64 {
    let of = |node: &Node| match node {
        Node::Ask(_) => 1,
        Node::Choose(ways) => ways.iter().map(|(_, way)| longest(way)).max().unwrap_or_default(),
    };
    nodes.iter().map(of).sum()
}

/// Whether rows that may be taken once suffice, as far as that can be told beforehand: random arrivals may be a few more, and
/// how often a user goes through is for the target to say.
fn check_rows<'f>(pace: &Pace, used: impl Iterator<Item = &'f Feed>) -> Result<(), ScriptError> {
    let (needed, who) = match pace {
        Pace::Users { count, .. } => (u64::from(*count), "users"),
        Pace::Sessions { arrivals, .. } => ((arrivals.total() - 1e-6).ceil() as u64, "sessions"),
    };
    for feed in used.filter(|feed| feed.order() == Order::Unique) {
        if needed > feed.rows() as u64 {
            return Err(ScriptError::Rows { feed: feed.name().to_owned(), rows: feed.rows(), needed, who });
        }
    }
    Ok(())
}

/// What is known while a journey is read.
struct Reading<'f> {
    feeds: &'f [(String, Vec<String>)],
    asks: Vec<Ask>,
    names: Vec<String>,
}

impl Reading<'_> {
    fn nodes(&mut self, items: &[Item], depth: usize) -> Result<Vec<Node>, ScriptError> {
        let mut found = Vec::new();
        for item in items {
            found.push(match item {
                Item::Step(step) => {
                    if self.asks.len() >= STEPS_MAX {
                        return Err(ScriptError::Steps);
                    }
                    let twice = self.asks.iter().any(|ask| ask.step.name == step.name);
                    if twice || OWN_KINDS.contains(&step.name.as_str()) {
                        let why = "another step, or what squall counts itself, has this name".to_owned();
                        return Err(ScriptError::Step(step.name.clone(), why));
                    }
                    let ask = self.ask(step)?;
                    self.asks.push(ask);
                    Node::Ask(self.asks.len() - 1)
                }
                Item::Choose(branches) => {
                    let empty = branches.iter().any(|branch| branch.weight == 0 || branch.steps.is_empty());
                    if branches.is_empty() || empty || depth >= DEPTH_MAX {
                        return Err(ScriptError::Choice);
                    }
                    let mut sum = 0;
                    let ways = branches.iter().map(|branch| {
                        sum += u64::from(branch.weight);
                        Ok((sum, self.nodes(&branch.steps, depth + 1)?))
                    });
                    Node::Choose(ways.collect::<Result<_, ScriptError>>()?)
                }
            });
        }
        Ok(found)
    }

    fn ask(&mut self, step: &Step) -> Result<Ask, ScriptError> {
        let wrong = |why: &str| ScriptError::Step(step.name.clone(), why.to_owned());
        let known = Known { feeds: self.feeds, extracted: &self.names };
        let read = |text: &str, place| {
            Template::parse(text, place, &known)
                .map_err(|error| wrong(&format!("{} ({})", error.message, error.help)))
        };
        let url = read(&step.url, Place::Url)?;
        let sample = String::from_utf8_lossy(&url.sample()).into_owned();
        let uri: Uri = sample.parse().map_err(|_| wrong("this is not a URL"))?;
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let scheme = uri.scheme_str().unwrap_or_default();
        if !["http", "https"].contains(&scheme) || authority.is_empty() || authority.contains('@') {
            return Err(wrong("a URL starts with http:// or https://, and has a host and no user name"));
        }
        if !step.url.starts_with(&format!("{scheme}://{authority}")) {
            return Err(wrong("scheme, host and port of a URL are the same for every request"));
        }
        let method = hyper::Method::from_bytes(step.method.as_bytes()).ok();
        let method = method.filter(|method| *method != hyper::Method::CONNECT);
        let method = method.ok_or_else(|| wrong("this is no method that can be sent"))?;
        let mut headers = Vec::new();
        for (name, value) in &step.headers {
            let name: HeaderName = name.parse().map_err(|_| wrong("a header has a name that cannot be"))?;
            let value = read(value, Place::Header)?;
            HeaderValue::from_bytes(&value.sample())
                .map_err(|_| wrong("a header has a value that cannot be"))?;
            headers.push((name, value));
        }
        let content = headers.iter().find(|(name, _)| *name == "content-type");
        let content = content.and_then(|(_, value)| String::from_utf8(value.sample()).ok());
        let body = match &step.body {
            None => None,
            Some(Body::Bytes(bytes)) => Some(Template::of_bytes(bytes)),
            Some(Body::Text(text)) => Some(read(text, Place::of_body(content.as_deref(), text))?),
        };
        let checks = Checks::new(&step.expect).map_err(wrong)?;
        let extract = self.extracts(step)?;
        let words = format!("{method} {scheme}://{authority}{}", uri.path());
        Ok(Ask { step: step.clone(), method, url, headers, body, checks, extract, words })
    }

    fn extracts(&mut self, step: &Step) -> Result<Vec<(usize, Finder)>, ScriptError> {
        let mut extract = Vec::new();
        for (name, source) in &step.extract {
            let own = crate::template::OWN.contains(&name.as_str())
                || name.contains(['.', '}', '{'])
                || self.feeds.iter().any(|(feed, _)| feed == name);
            let place = self.names.iter().position(|known| known == name).unwrap_or(self.names.len());
            if own || place >= NAMES_MAX {
                return Err(ScriptError::Names(step.name.clone()));
            }
            if place == self.names.len() {
                self.names.push(name.clone());
            }
            let finder = Finder::new(source);
            let finder =
                finder.map_err(|why| ScriptError::Step(step.name.clone(), format!("{name}: {why}")))?;
            extract.push((place, finder));
        }
        Ok(extract)
    }
}

#[cfg(test)]
#[path = "script_tests.rs"]
mod tests;
