//! What one person does: a user who begins again and again, or one session after another, each as somebody new.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper::header::{COOKIE, HeaderMap, HeaderValue, SET_COOKIE};
use reports::record::Phase;
use tokio::sync::watch;

use super::client::{Answer, Url};
use super::crowd::{Crowd, chance};
use crate::journey::{Ask, Jar, Node, Pace, extract};
use crate::load::ErrorClass;
use crate::load::clock::{SECOND, nanos};
use crate::load::http::{PATH_HEADER, PATH_MAX, POP_MAX};
use crate::load::tally::Ending;
use crate::load::worker::StopCell;
use crate::random::Random;
use crate::template::{Unfit, Values};

/// What one person knows.
struct Person<'c> {
    crowd: &'c Crowd,
    random: Random,
    /// By the place of its name.
    known: Vec<Option<Box<str>>>,
    jar: Jar,
    told: watch::Receiver<u8>,
}

/// How far somebody came.
enum Walked {
    /// To the end; when the next thing is to be done.
    Through(u64),
    /// A step failed; when the next thing may be done.
    Failed(ErrorClass, u64),
    /// The end came first.
    Cut,
}

/// A user, from the first to the last request.
pub(super) async fn user(crowd: &Crowd, number: usize) {
    let Pace::Users { count, ramp, .. } = crowd.spec.journey.pace else { return };
    let mut person = Person::new(crowd, number);
    let begin = (nanos(ramp) as f64 * number as f64 / f64::from(count)) as u64;
    let mut next = begin;
    match person.walk(&crowd.script.start, begin, false).await {
        Walked::Through(at) | Walked::Failed(_, at) => {
            next = at;
            while let Some(at) = person.once(next).await {
                next = at;
            }
        }
        Walked::Cut => {}
    }
    person.last(next.min(crowd.until)).await;
}

/// Sessions, one after another, each as somebody new.
pub(super) async fn sessions(crowd: &Crowd, number: usize) {
    let mut person = Person::new(crowd, number);
    while let Some(due) = crowd.queue.next().await {
        if *person.told.borrow() == StopCell::NOW {
            return;
        }
        person.known.iter_mut().for_each(|known| *known = None);
        person.jar = Jar::default();
        let (phase, script) = (crowd.phase(), &crowd.script);
        let walked = match person.walk(&script.start, due, true).await {
            // The first step of all has been made by then, if there was one.
            Walked::Through(at) => person.walk(&script.steps, at, script.start.is_empty()).await,
            other => other,
        };
        person.whole(due, phase, &walked);
        if let Walked::Through(at) | Walked::Failed(_, at) = walked {
            person.last(at.min(crowd.clock.now())).await;
        }
    }
}

impl<'c> Person<'c> {
    fn new(crowd: &'c Crowd, number: usize) -> Self {
        Self {
            crowd,
            random: chance(crowd, number),
            known: vec![None; crowd.script.names],
            jar: Jar::default(),
            told: crowd.told(),
        }
    }

    /// Once through the journey; when the next one may begin.
    async fn once(&mut self, due: u64) -> Option<u64> {
        if !self.crowd.wait(due, &mut self.told).await {
            return None;
        }
        let phase = self.crowd.phase();
        let walked = self.walk(&self.crowd.script.steps, due, false).await;
        self.whole(due, phase, &walked);
        match walked {
            Walked::Through(at) | Walked::Failed(_, at) => Some(at),
            Walked::Cut => None,
        }
    }

    /// Counts a whole journey, unless the end came first.
    fn whole(&self, since: u64, phase: Phase, walked: &Walked) {
        let failure = match walked {
            Walked::Through(_) => None,
            Walked::Failed(class, _) => Some(*class),
            Walked::Cut => return,
        };
        self.crowd.beside(since, self.crowd.script.whole(), phase, failure);
    }

    /// The last steps, which are made even at the end.
    async fn last(&mut self, mut due: u64) {
        let mut path = Vec::new();
        self.choose(&self.crowd.script.stop, &mut path);
        for index in path {
            if *self.told.borrow() == StopCell::NOW {
                return;
            }
            due = due.max(self.crowd.clock.now());
            if self.step(index, due).await.is_none() {
                return;
            }
        }
    }

    /// Steps one after another, the first of them intended at this time. If `arrived`, that one is made whatever the time
    /// is: somebody is there.
    async fn walk(&mut self, nodes: &[Node], mut due: u64, mut arrived: bool) -> Walked {
        let mut path = Vec::new();
        self.choose(nodes, &mut path);
        for index in path {
            if !arrived && !self.crowd.wait(due, &mut self.told).await {
                return Walked::Cut;
            }
            arrived = false;
            let Some(ended) = self.step(index, due).await else { return Walked::Cut };
            let (from, to) = self.crowd.script.asks[index].step.think;
            let think = nanos(from) + (nanos(to.saturating_sub(from)) as f64 * self.random.unit()) as u64;
            due = self.crowd.clock.now().saturating_add(think);
            if let Err(class) = ended {
                return Walked::Failed(class, due);
            }
        }
        Walked::Through(due)
    }

    /// The requests that chance has chosen, in order.
    fn choose(&mut self, nodes: &[Node], path: &mut Vec<usize>) {
        for node in nodes {
            match node {
                Node::Ask(index) => path.push(*index),
                Node::Choose(ways) => {
                    let sum = ways.last().map_or(0, |(sum, _)| *sum);
                    let drawn = (self.random.unit() * sum as f64) as u64;
                    let way = ways.partition_point(|(below, _)| *below <= drawn).min(ways.len() - 1);
                    self.choose(&ways[way].1, path);
                }
            }
        }
    }

    /// One step with all its tries; none if it was cut short.
    async fn step(&mut self, index: usize, due: u64) -> Option<Result<(), ErrorClass>> {
        let (crowd, ask) = (self.crowd, &self.crowd.script.asks[index]);
        let (phase, kind) = (crowd.due(due), index as u16);
        if let Some(budget) = &crowd.budget {
            let second = crowd.clock.now() / SECOND;
            budget.lock().unwrap_or_else(PoisonError::into_inner).request(second);
        }
        let (mut attempt, mut began) = (1, crowd.clock.now());
        if due.saturating_add(crowd.deadline) <= began {
            crowd.ended(due, kind, phase, &Ending::unsent());
            return Some(Err(ErrorClass::Deadline));
        }
        let mut within = due.saturating_add(crowd.deadline);
        loop {
            let tried = self.attempt(ask, within).await?;
            if attempt > 1 {
                crowd.beside(began, crowd.script.again(), phase, tried.failure);
            }
            if !self.again(&tried, attempt).await {
                let at = crowd.clock.now();
                let ending = Ending {
                    failure: tried.failure,
                    status: tried.status,
                    pop: tried.pop.as_deref(),
                    path: tried.path.as_deref(),
                    sent: tried.failure != Some(ErrorClass::Data),
                    taken_on: Some(began.min(at)),
                };
                crowd.ended(due, kind, phase, &ending);
                return Some(tried.failure.map_or(Ok(()), Err));
            }
            attempt += 1;
            began = crowd.clock.now();
            within = began.saturating_add(crowd.deadline);
        }
    }

    /// Whether it is tried once more; the pause before that is over then.
    async fn again(&mut self, tried: &Tried, attempt: u32) -> bool {
        let Some(retry) = self.crowd.spec.journey.retry else { return false };
        if attempt >= retry.attempts || !tried.worth_another() {
            return false;
        }
        let now = self.crowd.clock.now();
        let paid =
            self.crowd.budget.as_ref().is_none_or(|budget| {
                budget.lock().unwrap_or_else(PoisonError::into_inner).take(now / SECOND)
            });
        if !paid {
            return false;
        }
        let pause = retry.pause(attempt + 1, self.random.unit());
        self.crowd.pause(now.saturating_add(nanos(pause)), &mut self.told).await
    }

    /// One request; none if it was cut short.
    async fn attempt(&mut self, ask: &Ask, within: u64) -> Option<Tried> {
        let Some((url, headers, body)) = self.fill(ask) else { return Some(Tried::failed(ErrorClass::Data)) };
        let left = Duration::from_nanos(within.saturating_sub(self.crowd.clock.now()));
        let (host, path) = (url.host_str().unwrap_or_default().to_owned(), url.path().to_owned());
        let asked = self.crowd.client.ask(ask.method.clone(), url, headers, body, ask.reads());
        let answered = tokio::select! {
            answered = tokio::time::timeout(left, asked) => answered.unwrap_or(Err(ErrorClass::Deadline)),
            () = cut(&mut self.told) => return None,
        };
        let answer = match answered {
            Ok(answer) => answer,
            Err(class) => return Some(Tried::failed(class)),
        };
        if self.crowd.spec.journey.cookies {
            let set = answer.headers.get_all(SET_COOKIE).iter().filter_map(|value| value.to_str().ok());
            set.for_each(|header| self.jar.set(header, &host, &path));
        }
        let failure = if !ask.good(answer.status) {
            Some(ErrorClass::Status)
        } else if !ask.holds(&answer.body) || !self.learn(ask, &answer) {
            Some(ErrorClass::Expectation)
        } else {
            None
        };
        let header = |name: &str, most: usize| {
            let value = answer.headers.get(name)?.as_bytes();
            // Empty if it cannot be kept, as in the open model.
            Some(if value.len() <= most { value.to_vec() } else { Vec::new() })
        };
        let (pop, path) = (header(&self.crowd.spec.pop_header, POP_MAX), header(PATH_HEADER, PATH_MAX));
        Some(Tried { failure, status: Some(answer.status), pop, path })
    }

    /// The request as it is sent now; none if its values do not fit.
    fn fill(&mut self, ask: &Ask) -> Option<(Url, HeaderMap, Option<Vec<u8>>)> {
        let counter = self.crowd.counter.fetch_add(1, Ordering::Relaxed);
        let uuid = (u128::from(self.random.next()) << 64) | u128::from(self.random.next());
        let mut values = Filling { known: &self.known, random: &mut self.random, counter, uuid };
        let mut render = |template: &crate::template::Template| -> Result<Vec<u8>, Unfit> {
            let mut out = Vec::new();
            template.render(&mut values, &mut out)?;
            Ok(out)
        };
        let url = render(&ask.url).ok()?;
        let url = Url::parse(std::str::from_utf8(&url).ok()?).ok()?;
        let mut headers = HeaderMap::with_capacity(ask.headers.len() + 1);
        for (name, value) in &ask.headers {
            headers.append(name.clone(), HeaderValue::from_bytes(&render(value).ok()?).ok()?);
        }
        let body = ask.body.as_ref().map(render).transpose().ok()?;
        if self.crowd.spec.journey.cookies {
            let own =
                self.jar.header(url.host_str().unwrap_or_default(), url.path(), url.scheme() == "https");
            if let Some(value) = own.and_then(|own| HeaderValue::from_str(&own).ok()) {
                headers.append(COOKIE, value);
            }
        }
        Some((url, headers, body))
    }

    /// Takes from an answer what later steps need; whether all of it was there.
    fn learn(&mut self, ask: &Ask, answer: &Answer) -> bool {
        let mut json = None;
        let header = |name: &str| answer.headers.get(name).and_then(|value| value.to_str().ok());
        let mut whole = true;
        for (place, source) in &ask.extract {
            let found = extract(source, header, &answer.body, &mut json);
            whole &= found.is_some();
            self.known[*place] = found.map(String::into_boxed_str);
        }
        whole
    }
}

/// Waits for the word that everything ends at once.
async fn cut(told: &mut watch::Receiver<u8>) {
    loop {
        if *told.borrow_and_update() == StopCell::NOW {
            return;
        }
        if told.changed().await.is_err() {
            // Nobody is left who could say it.
            std::future::pending::<()>().await;
        }
    }
}

/// How one try ended.
struct Tried {
    failure: Option<ErrorClass>,
    status: Option<u16>,
    pop: Option<Vec<u8>>,
    path: Option<Vec<u8>>,
}

impl Tried {
    fn failed(class: ErrorClass) -> Self {
        Self { failure: Some(class), status: None, pop: None, path: None }
    }

    /// Whether another try could end better: not if the answer says that the request itself is wrong.
    fn worth_another(&self) -> bool {
        match self.failure {
            None | Some(ErrorClass::Data | ErrorClass::Local | ErrorClass::Expectation) => false,
            Some(ErrorClass::Status) => self.status.is_some_and(|status| status == 429 || status >= 500),
            Some(_) => true,
        }
    }
}

/// Values for one request.
struct Filling<'p> {
    known: &'p [Option<Box<str>>],
    random: &'p mut Random,
    counter: u64,
    uuid: u128,
}

impl Values for Filling<'_> {
    fn field(&self, _feed: usize, _column: usize) -> Option<&str> {
        None
    }

    fn counter(&self) -> u64 {
        self.counter
    }

    fn uuid(&self) -> u128 {
        self.uuid
    }

    fn random(&mut self) -> u64 {
        self.random.next()
    }

    fn extracted(&self, index: usize) -> Option<&str> {
        self.known.get(index)?.as_deref()
    }
}
