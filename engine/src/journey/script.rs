//! A journey, checked and ready to be walked.

use hyper::Uri;
use hyper::header::{HeaderName, HeaderValue};

use super::{Item, Journey, NAMES_MAX, OWN_KINDS, STEPS_MAX, Source, Step};
use crate::template::{Known, Place, Template};

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
    /// What is taken from the answer: the place of its name, and where it is.
    pub extract: Vec<(usize, Source)>,
    /// Without query values.
    pub words: String,
}

impl Ask {
    /// Whether a status is good.
    pub fn good(&self, status: u16) -> bool {
        self.step.statuses.iter().any(|(from, to)| (*from..=*to).contains(&status))
    }

    /// Whether a body holds what it should.
    pub fn holds(&self, body: &[u8]) -> bool {
        self.step
            .body_contains
            .as_ref()
            .is_none_or(|text| super::extract::find(body, text.as_bytes()).is_some())
    }

    /// Whether the answer's body has to be kept.
    pub fn reads(&self) -> bool {
        let in_body = |source: &Source| !matches!(source, Source::Header(_));
        self.step.body_contains.is_some() || self.extract.iter().any(|(_, source)| in_body(source))
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
}

impl Script {
    /// Checks a journey.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn new(journey: &Journey) -> Result<Self, ScriptError> {
        let (mut asks, mut names) = (Vec::new(), Vec::new());
        let mut part = |items: &[Item]| nodes(items, 0, &mut asks, &mut names);
        let (start, steps, stop) = (part(&journey.start)?, part(&journey.steps)?, part(&journey.stop)?);
        if steps.is_empty() || asks.len() > STEPS_MAX {
            return Err(ScriptError::Steps);
        }
        Ok(Self { start, steps, stop, asks, names: names.len() })
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

fn nodes(
    items: &[Item],
    depth: usize,
    asks: &mut Vec<Ask>,
    names: &mut Vec<String>,
) -> Result<Vec<Node>, ScriptError> {
    let mut found = Vec::new();
    for item in items {
        found.push(match item {
            Item::Step(step) => {
                if asks.len() >= STEPS_MAX {
                    return Err(ScriptError::Steps);
                }
                let twice = asks.iter().any(|ask| ask.step.name == step.name);
                if twice || OWN_KINDS.contains(&step.name.as_str()) {
                    let why = "another step, or what squall counts itself, has this name".to_owned();
                    return Err(ScriptError::Step(step.name.clone(), why));
                }
                asks.push(ask(step, names)?);
                Node::Ask(asks.len() - 1)
            }
            Item::Choose(branches) => {
                let empty = branches.iter().any(|branch| branch.weight == 0 || branch.steps.is_empty());
                if branches.is_empty() || empty || depth >= DEPTH_MAX {
                    return Err(ScriptError::Choice);
                }
                let mut sum = 0;
                let ways = branches.iter().map(|branch| {
                    sum += u64::from(branch.weight);
                    Ok((sum, nodes(&branch.steps, depth + 1, asks, names)?))
                });
                Node::Choose(ways.collect::<Result<_, ScriptError>>()?)
            }
        });
    }
    Ok(found)
}

fn ask(step: &Step, names: &mut Vec<String>) -> Result<Ask, ScriptError> {
    let wrong = |why: &str| ScriptError::Step(step.name.clone(), why.to_owned());
    let known = Known { feeds: &[], extracted: names };
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
        HeaderValue::from_bytes(&value.sample()).map_err(|_| wrong("a header has a value that cannot be"))?;
        headers.push((name, value));
    }
    let content = headers.iter().find(|(name, _)| *name == "content-type");
    let content = content.and_then(|(_, value)| String::from_utf8(value.sample()).ok());
    let body = step.body.as_deref().map(|body| read(body, Place::of_body(content.as_deref(), body)));
    let body = body.transpose()?;
    let mut extract = Vec::new();
    for (name, source) in &step.extract {
        let own = crate::template::OWN.contains(&name.as_str()) || name.contains(['.', '}', '{']);
        let place = names.iter().position(|known| known == name).unwrap_or(names.len());
        if own || place >= NAMES_MAX {
            return Err(ScriptError::Names(step.name.clone()));
        }
        if place == names.len() {
            names.push(name.clone());
        }
        extract.push((place, source.clone()));
    }
    let words = format!("{method} {scheme}://{authority}{}", uri.path());
    Ok(Ask { step: step.clone(), method, url, headers, body, extract, words })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{Branch, Pace};
    use super::*;

    fn step(name: &str, url: &str) -> Step {
        Step {
            name: name.to_owned(),
            method: "GET".to_owned(),
            url: url.to_owned(),
            headers: Vec::new(),
            body: None,
            statuses: vec![(200, 399)],
            body_contains: None,
            extract: Vec::new(),
            think: (Duration::ZERO, Duration::ZERO),
        }
    }

    fn journey(steps: Vec<Item>) -> Journey {
        let second = Duration::from_secs(1);
        let pace = Pace::Users { count: 1, ramp: Duration::ZERO, lasting: second };
        Journey { pace, start: Vec::new(), steps, stop: Vec::new(), cookies: true, retry: None }
    }

    fn script(steps: Vec<Step>) -> Result<Script, ScriptError> {
        Script::new(&journey(steps.into_iter().map(Item::Step).collect()))
    }

    #[test]
    fn names_are_known_from_the_step_after_the_one_that_finds_them() {
        let finds = Step {
            extract: vec![("token".to_owned(), Source::Json("/t".to_owned()))],
            ..step("login", "http://h/login")
        };
        let uses = Step {
            headers: vec![("x-t".to_owned(), "${token}".to_owned())],
            ..step("use", "http://h/${token}")
        };
        let found = script(vec![finds.clone(), uses.clone()]).unwrap();
        assert_eq!((found.names, found.asks.len()), (1, 2));
        assert_eq!(found.kinds(), ["login", "use", "journey", "retry"]);
        let early = script(vec![uses, finds]).unwrap_err().to_string();
        assert!(early.contains("step use") && early.contains("${token}"), "{early}");
    }

    #[test]
    fn what_cannot_be_sent_is_told_beforehand() {
        let wrong = |steps: Vec<Step>, says: &str| {
            let why = script(steps).unwrap_err().to_string();
            assert!(why.contains(says), "{why}");
        };
        wrong(vec![], "1 to 64 steps");
        wrong(vec![step("a", "http://h/"), step("a", "http://h/")], "has this name");
        wrong(vec![step("journey", "http://h/")], "has this name");
        wrong(vec![step("a", "ftp://h/")], "http://");
        wrong(vec![step("a", "http://${counter}/")], "the same for every request");
        wrong(vec![Step { method: "CONNECT".to_owned(), ..step("a", "http://h/") }], "method");
        wrong(
            vec![Step { headers: vec![("a b".to_owned(), String::new())], ..step("a", "http://h/") }],
            "header",
        );
        wrong(
            vec![Step {
                extract: vec![("uuid".to_owned(), Source::Header("x".to_owned()))],
                ..step("a", "http://h/")
            }],
            "another meaning",
        );
        let empty = Item::Choose(vec![Branch { name: "b".to_owned(), weight: 1, steps: Vec::new() }]);
        assert_eq!(Script::new(&journey(vec![empty])).unwrap_err(), ScriptError::Choice);
    }
}
