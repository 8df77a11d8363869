//! What one person does: a user who begins again and again, or one session after another, each as somebody new.

use std::sync::PoisonError;
use std::time::Duration;

use hyper::header::{COOKIE, HeaderMap, HeaderValue, SET_COOKIE};
use reports::record::Phase;
use tokio::sync::watch;

use super::client::Url;
use super::crowd::Crowd;
use crate::filling::Filling;
use crate::journey::{Ask, Jar, Miss, Node, Pace, Part, Seen};
use crate::load::ErrorClass;
use crate::load::clock::{MILLISECOND, SECOND, nanos};
use crate::load::http::{PATH_HEADER, PATH_MAX, POP_MAX};
use crate::load::tally::Ending;
use crate::load::worker::StopCell;
use crate::random::Random;
use crate::template::{Template, Unfit};

/// Who has nothing that could be sent does not try again at once: nothing else would hold him up.
const NOTHING_SENT: u64 = 100 * MILLISECOND;

/// What one person knows.
struct Person<'c> {
    crowd: &'c Crowd,
    /// Decides about pauses.
    random: Random,
    /// The number of this time through, unlike that of any other in the load.
    walk: u64,
    /// Which rows of its feeds it takes.
    row: u64,
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
pub(super) async fn user(crowd: &Crowd, local: usize) {
    let Pace::Users { count, ramp, keep_rows, .. } = crowd.spec.journey.pace else { return };
    let number = crowd.seats.global(local as u64);
    let mut person = Person::new(crowd);
    person.begins(number, number);
    let begin = (nanos(ramp) as f64 * number as f64 / f64::from(count)) as u64;
    let mut next = begin;
    if let Walked::Through(at) | Walked::Failed(_, at) = person.walk(Part::Start, begin, false).await {
        next = at;
        for time in 0.. {
            let (before, walk) = ((person.walk, person.row), number + time * u64::from(count));
            person.begins(walk, if keep_rows { number } else { walk });
            match person.once(next).await {
                Walked::Through(at) => next = at,
                Walked::Failed(class, at) => {
                    next = at;
                    // He was the last one for whom there would have been a row; his last steps are those of who had one.
                    if class == ErrorClass::Data && crowd.script.exhausted(&crowd.spec.feeds, person.row) {
                        (person.walk, person.row) = before;
                        break;
                    }
                }
                Walked::Cut => break,
            }
        }
    }
    person.last(next.min(crowd.until)).await;
}

/// Sessions, one after another, each as somebody new.
pub(super) async fn sessions(crowd: &Crowd) {
    while let Some(arrived) = crowd.queue.next().await {
        let mut person = Person::new(crowd);
        if *person.told.borrow() == StopCell::NOW {
            return;
        }
        person.begins(arrived.number, arrived.number);
        let (phase, due) = (crowd.phase(), arrived.due);
        let walked = match person.walk(Part::Start, due, true).await {
            // The first step of all has been made by then, if there was one.
            Walked::Through(at) => person.walk(Part::Steps, at, crowd.script.start.is_empty()).await,
            other => other,
        };
        person.whole(due, phase, &walked);
        person.last(crowd.clock.now()).await;
    }
}

impl<'c> Person<'c> {
    fn new(crowd: &'c Crowd) -> Self {
        Self {
            crowd,
            random: Random::new(crowd.seed, 0),
            walk: 0,
            row: 0,
            known: vec![None; crowd.script.names],
            jar: Jar::default(),
            told: crowd.told(),
        }
    }

    /// Begins to go through with these numbers.
    fn begins(&mut self, walk: u64, row: u64) {
        (self.walk, self.row) = (walk, row);
        self.random = Random::new(self.crowd.seed ^ SECOND, walk);
    }

    /// Once through the journey.
    async fn once(&mut self, due: u64) -> Walked {
        if !self.crowd.wait(due, &mut self.told).await {
            return Walked::Cut;
        }
        let phase = self.crowd.phase();
        let walked = self.walk(Part::Steps, due, false).await;
        self.whole(due, phase, &walked);
        walked
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

    /// The last steps, which are made even at the end; the first that fails is the last one, so that nobody waits for each of
    /// them where nobody answers.
    async fn last(&mut self, mut due: u64) {
        for (at, index) in self.choose(Part::Stop).into_iter().enumerate() {
            if *self.told.borrow() == StopCell::NOW {
                return;
            }
            due = due.max(self.crowd.clock.now());
            let number = self.crowd.script.number(self.walk, Part::Stop, at);
            if !matches!(self.step(index, number, due).await, Some(Ok(()))) {
                return;
            }
        }
    }

    /// The steps of a part one after another, the first of them intended at this time. If `arrived`, that one is made whatever
    /// the time is: somebody is there.
    async fn walk(&mut self, part: Part, mut due: u64, mut arrived: bool) -> Walked {
        for (at, index) in self.choose(part).into_iter().enumerate() {
            if !arrived && !self.crowd.wait(due, &mut self.told).await {
                return Walked::Cut;
            }
            arrived = false;
            let number = self.crowd.script.number(self.walk, part, at);
            let Some(ended) = self.step(index, number, due).await else { return Walked::Cut };
            let think = self.crowd.script.asks[index].step.think.pause(&mut self.random);
            due = self.crowd.clock.now().saturating_add(nanos(think));
            if let Err(class) = ended {
                if class == ErrorClass::Data {
                    due = due.max(self.crowd.clock.now().saturating_add(NOTHING_SENT));
                }
                return Walked::Failed(class, due);
            }
        }
        Walked::Through(due)
    }

    /// The requests of a part that chance chooses, in order.
    fn choose(&self, part: Part) -> Vec<usize> {
        // Apart from that of pauses, so that no retry changes what is chosen.
        let mut chance = Random::new(self.crowd.seed ^ SECOND.rotate_left(8 + part as u32), self.walk);
        let mut path = Vec::new();
        chosen(self.crowd.script.part(part), &mut chance, &mut path);
        path
    }

    /// One step with all its tries; none if it was cut short.
    async fn step(&mut self, index: usize, number: u64, due: u64) -> Option<Result<(), ErrorClass>> {
        let crowd = self.crowd;
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
            let tried = self.attempt(index, number, within).await?;
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
                    late: false,
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
        if attempt >= retry.attempts || !tried.worth_another() || self.crowd.over() {
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
        self.crowd.wait(now.saturating_add(nanos(pause)), &mut self.told).await
    }

    /// One request; none if it was cut short.
    async fn attempt(&mut self, index: usize, number: u64, within: u64) -> Option<Tried> {
        let ask = &self.crowd.script.asks[index];
        let Some((url, headers, body)) = self.fill(ask, number) else {
            return Some(Tried::failed(ErrorClass::Data));
        };
        let left = Duration::from_nanos(within.saturating_sub(self.crowd.clock.now()));
        let (host, path) = (url.host_str().unwrap_or_default().to_owned(), url.path().to_owned());
        let needle = self.crowd.needles[index].as_ref();
        let asked = self.crowd.client.ask(ask.method.clone(), url, headers, body, ask.reads(), needle);
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
        let seen = Seen {
            status: answer.status,
            headers: &answer.headers,
            body: &answer.body,
            whole: answer.whole,
            contains: answer.contains,
        };
        let known = &mut self.known;
        let looked = ask.look(seen, |place, found| known[place] = found.map(String::into_boxed_str));
        let failure = looked.err().map(|miss| match miss {
            Miss::Status => ErrorClass::Status,
            Miss::Content => ErrorClass::Expectation,
        });
        let header = |name: &str, most: usize| {
            let value = answer.headers.get(name)?.as_bytes();
            // Empty if it cannot be kept, as in the open model.
            Some(if value.len() <= most { value.to_vec() } else { Vec::new() })
        };
        let (pop, path) = (header(&self.crowd.spec.pop_header, POP_MAX), header(PATH_HEADER, PATH_MAX));
        Some(Tried { failure, status: Some(answer.status), pop, path })
    }

    /// The request as it is sent, the same each time it is tried but for its cookies; none if its values do not fit.
    fn fill(&self, ask: &Ask, number: u64) -> Option<(Url, HeaderMap, Option<Vec<u8>>)> {
        let spec = &self.crowd.spec;
        let mut values = Filling::new(&spec.feeds, self.crowd.seed, number).of(self.row, &self.known);
        let mut render = |template: &Template| -> Result<Vec<u8>, Unfit> {
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
        if spec.journey.cookies {
            let own =
                self.jar.header(url.host_str().unwrap_or_default(), url.path(), url.scheme() == "https");
            if let Some(value) = own.and_then(|own| HeaderValue::from_str(&own).ok()) {
                headers.append(COOKIE, value);
            }
        }
        Some((url, headers, body))
    }
}

/// The requests that chance chooses, in order.
fn chosen(nodes: &[Node], chance: &mut Random, path: &mut Vec<usize>) {
    for node in nodes {
        match node {
            Node::Ask(index) => path.push(*index),
            Node::Choose(ways) => {
                let sum = ways.last().map_or(0, |(sum, _)| *sum);
                let drawn = (chance.unit() * sum as f64) as u64;
                let way = ways.partition_point(|(below, _)| *below <= drawn).min(ways.len() - 1);
                chosen(&ways[way].1, chance, path);
            }
        }
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
