//! Reading HTTP/1.1 responses as they arrive: a push parser without sockets, clock or allocation per response.
//!
//! Invariants: the same bytes give the same answer however they are split; memory is bounded by [`HEAD_MAX`], and [`JSON_MAX`]
//! where a body must be looked at as a whole.

mod chunked;
mod head;
mod needle;

use crate::expect::{Checks, JSON_MAX};
use chunked::{Chunked, Step};
pub(super) use head::PATH_HEADER;
pub(super) use needle::Needle;
pub(super) use needle::Search;

/// The largest response head (and trailer section), in bytes.
pub(super) const HEAD_MAX: usize = 64 * 1024;
/// The longest PoP name that is kept, in bytes.
pub(super) const POP_MAX: usize = 64;
/// The longest list of instances that is kept, in bytes.
pub(super) const PATH_MAX: usize = 256;
/// A partial head larger than this gives its memory back.
const HEAD_KEEP: usize = 4 * 1024;
/// The longest head that is remembered, in bytes.
const LAST_MAX: usize = 1024;

/// What is not HTTP/1.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotHttp;

/// What the parser must know about the request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules<'a> {
    /// The response has no body, whatever its head says.
    pub(super) head_request: bool,
    /// The header that names the PoP, in lower case.
    pub(super) pop_header: &'a [u8],
    /// What the body must contain.
    pub(super) needle: Option<&'a Needle>,
    /// What must be true of headers and of a body in JSON.
    pub(super) checks: Option<&'a Checks>,
}

/// How far a response has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// More bytes are needed.
    More,
    /// The response is complete; this many bytes of the input belong to it.
    Complete(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Head,
    Length(u64),
    Chunked(Chunked),
    UntilClose,
    Complete,
}

/// What is known of a response when its head is complete.
#[derive(Debug, Clone, Copy)]
struct Said {
    state: State,
    status: u16,
    keep_alive: bool,
    pop_len: Option<u8>,
    path_len: Option<u16>,
    /// The expectations of headers that are met, as bits.
    met: u16,
}

impl Said {
    const NOTHING: Self =
        Self { state: State::Head, status: 0, keep_alive: false, pop_len: None, path_len: None, met: 0 };
}

/// One response at a time; `reset` before each.
#[derive(Debug)]
pub(super) struct Parser {
    said: Said,
    started: bool,
    /// The beginning of a head that has not ended yet.
    partial: Vec<u8>,
    pop: [u8; POP_MAX],
    path: [u8; PATH_MAX],
    search: Search,
    /// The body, if it must be looked at as a whole; none once it is too large.
    body: Option<Vec<u8>>,
    /// The head before (empty if there is nothing to remember), and what it said: a server says the same again until its
    /// clock moves on. PoP and path are where they were left.
    last: (Vec<u8>, Said),
}

impl Default for Parser {
    fn default() -> Self {
        Self {
            said: Said::NOTHING,
            started: false,
            partial: Vec::new(),
            pop: [0; POP_MAX],
            path: [0; PATH_MAX],
            search: Search::default(),
            body: Some(Vec::new()),
            last: (Vec::new(), Said::NOTHING),
        }
    }
}

impl Parser {
    /// Forgets the last response.
    pub(super) fn reset(&mut self) {
        self.said = Said::NOTHING;
        self.started = false;
        self.partial.clear();
        self.partial.shrink_to(HEAD_KEEP);
        self.search = Search::default();
        let body = self.body.get_or_insert_default();
        body.clear();
        body.shrink_to(HEAD_MAX);
    }

    /// Whether any byte of this response has come.
    pub(super) fn started(&self) -> bool {
        self.started
    }

    /// The status code, once the head is complete.
    pub(super) fn status(&self) -> Option<u16> {
        (self.said.status != 0).then_some(self.said.status)
    }

    /// Whether the connection may serve another request.
    pub(super) fn keep_alive(&self) -> bool {
        self.said.keep_alive
    }

    /// The PoP that answered, as named by the response. Empty if the name is too long or not visible ASCII.
    pub(super) fn pop(&self) -> Option<&[u8]> {
        self.said.pop_len.map(|len| &self.pop[..usize::from(len)])
    }

    /// The instances that served the answer, as named by the response. Empty if there are too many to keep.
    pub(super) fn path(&self) -> Option<&[u8]> {
        self.said.path_len.map(|len| &self.path[..usize::from(len)])
    }

    /// Whether the body contained the needle; true without one.
    pub(super) fn found(&self, needle: Option<&Needle>) -> bool {
        needle.is_none_or(|needle| self.search.found(needle))
    }

    /// Whether headers and body are as expected.
    pub(super) fn meets(&self, checks: Option<&Checks>) -> bool {
        checks.is_none_or(|checks| checks.all_met(self.said.met) && checks.body_holds(self.body.as_deref()))
    }

    /// Reads what arrived.
    pub(super) fn feed(&mut self, rules: &Rules<'_>, input: &[u8]) -> Result<Progress, NotHttp> {
        self.started |= !input.is_empty();
        let mut at = 0;
        loop {
            let rest = &input[at..];
            match self.said.state {
                State::Complete => return Ok(Progress::Complete(at)),
                _ if rest.is_empty() => return Ok(Progress::More),
                State::Head => at += self.read_head(rules, rest)?,
                State::UntilClose => {
                    self.look(rules, rest);
                    at = input.len();
                }
                State::Length(left) => {
                    let now = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
                    self.look(rules, &rest[..now]);
                    at += now;
                    let left = left - now as u64;
                    self.said.state = if left == 0 { State::Complete } else { State::Length(left) };
                }
                State::Chunked(mut chunked) => {
                    let step = chunked.step(rest)?;
                    self.said.state = State::Chunked(chunked);
                    match step {
                        Step::Skip(n) => at += n,
                        Step::Data(n) => {
                            self.look(rules, &rest[..n]);
                            at += n;
                        }
                        Step::End(n) => {
                            at += n;
                            self.said.state = State::Complete;
                        }
                    }
                }
            }
        }
    }

    /// The connection ended. Whether the response is complete by that.
    pub(super) fn end(&mut self) -> bool {
        let complete = matches!(self.said.state, State::UntilClose | State::Complete);
        if complete {
            self.said.state = State::Complete;
            self.said.keep_alive = false;
        }
        complete
    }

    fn look(&mut self, rules: &Rules<'_>, body: &[u8]) {
        if let Some(needle) = rules.needle {
            self.search.feed(needle, body);
        }
        if rules.checks.is_some_and(|checks| !checks.json.is_empty()) {
            match &mut self.body {
                Some(kept) if kept.len() + body.len() <= JSON_MAX => kept.extend_from_slice(body),
                _ => self.body = None,
            }
        }
    }

    /// Reads heads until the one that counts is complete or the input ends; returns how much of the input was used.
    fn read_head(&mut self, rules: &Rules<'_>, input: &[u8]) -> Result<usize, NotHttp> {
        if self.partial.is_empty() {
            if self.said_before(rules, input) {
                return Ok(self.last.0.len());
            }
            return match head::parse(input, rules)? {
                Some(head) => {
                    let length = self.accept(&head, rules);
                    self.remember(rules, &input[..length]);
                    Ok(length)
                }
                None if input.len() > HEAD_MAX => Err(NotHttp),
                None => {
                    self.partial.extend_from_slice(input);
                    Ok(input.len())
                }
            };
        }
        let before = self.partial.len();
        let room = (HEAD_MAX + 1).saturating_sub(before).min(input.len());
        self.partial.extend_from_slice(&input[..room]);
        // A head can only end, and after its first line only go wrong, at the end of a line.
        if before >= 256 && !input[..room].contains(&b'\n') && self.partial.len() <= HEAD_MAX {
            return Ok(room);
        }
        let partial = std::mem::take(&mut self.partial);
        let parsed = head::parse(&partial, rules);
        let used = match parsed? {
            Some(head) => {
                let length = self.accept(&head, rules);
                self.partial = partial;
                self.partial.clear();
                length - before
            }
            None if partial.len() > HEAD_MAX => return Err(NotHttp),
            None => {
                self.partial = partial;
                room
            }
        };
        Ok(used)
    }

    /// Whether this begins with the head before; then it says the same.
    fn said_before(&mut self, rules: &Rules<'_>, input: &[u8]) -> bool {
        let (head, said) = &self.last;
        let same = !head.is_empty() && input.starts_with(head) && Self::depends_on_head_alone(rules);
        if same {
            self.said = *said;
        }
        same
    }

    fn remember(&mut self, rules: &Rules<'_>, head: &[u8]) {
        if self.said.status >= 200 && head.len() <= LAST_MAX && Self::depends_on_head_alone(rules) {
            self.last.0.extend_from_slice(head);
            self.last.1 = self.said;
        }
    }

    /// Not on what was asked.
    fn depends_on_head_alone(rules: &Rules<'_>) -> bool {
        !rules.head_request && rules.checks.is_none()
    }

    /// Takes over what a complete head says; returns its length.
    fn accept(&mut self, head: &head::Head<'_>, rules: &Rules<'_>) -> usize {
        self.last.0.clear();
        // Interim responses say nothing; the final one follows.
        if head.status >= 200 {
            self.said.status = head.status;
            self.said.met = head.met;
            self.said.keep_alive = head.keep_alive && head.body != head::Body::UntilClose;
            self.said.pop_len = head.pop.map(|name| self.keep_pop(name));
            self.said.path_len = head.path.map(|names| self.keep_path(names));
            let bodiless = rules.head_request || head.status == 204 || head.status == 304;
            self.said.state = match head.body {
                _ if bodiless => State::Complete,
                head::Body::Length(0) => State::Complete,
                head::Body::Length(n) => State::Length(n),
                head::Body::Chunked => State::Chunked(Chunked::default()),
                head::Body::UntilClose => State::UntilClose,
            };
            if bodiless {
                self.said.keep_alive = head.keep_alive;
            }
        }
        head.length
    }

    fn keep_pop(&mut self, name: &[u8]) -> u8 {
        if name.len() > POP_MAX || !name.iter().all(u8::is_ascii_graphic) {
            return 0;
        }
        self.pop[..name.len()].copy_from_slice(name);
        name.len() as u8
    }

    fn keep_path(&mut self, names: &[u8]) -> u16 {
        let Some(kept) = self.path.get_mut(..names.len()) else { return 0 };
        kept.copy_from_slice(names);
        names.len() as u16
    }
}

#[cfg(test)]
mod tests;
