//! HTTP/1.1 on one connection: where messages begin and end, and what the faults do to them.
//!
//! Messages stream through; only heads are collected, up to [`HEAD_MAX`]. Whatever cannot be parsed makes the
//! connection a tunnel of plain bytes, and so do an upgrade and CONNECT. Requests are answered in order.

mod decision;
mod edit;
mod framing;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::chance::Dice;
use super::line::{End, Item, Line};
use super::table::Live;
use decision::{Cut, Decision, Edit};
use edit::{RequestHead, ResponseHead};
use framing::{Body, Progress};

/// The longest head; a longer one makes the connection a tunnel.
pub const HEAD_MAX: usize = 64 * 1024;
/// The most requests that wait for their responses on one connection; more are not read.
const PIPELINE_MAX: usize = 64;

/// See the module.
#[derive(Debug)]
pub(crate) struct Http {
    number: u64,
    requests: u64,
    dice: Dice,
    client: Reader,
    server: Reader,
    exchanges: VecDeque<Exchange>,
    /// What the client sent after a request that must be answered first.
    waiting: Vec<u8>,
}

/// Where in the stream a side is.
#[derive(Debug)]
enum Reader {
    Head(Vec<u8>),
    Body {
        body: Body,
        /// The body of a request that is not forwarded.
        swallow: bool,
    },
    /// An upgrade was asked for: what follows depends on the answer.
    Upgrade,
    Tunnel,
}

impl Default for Reader {
    fn default() -> Self {
        Self::Head(Vec::new())
    }
}

/// One request whose response is not complete.
#[derive(Debug)]
struct Exchange {
    head_only: bool,
    connect: bool,
    upgrade: bool,
    action: Action,
}

#[derive(Debug)]
enum Action {
    /// The server answers; a response is cut or edited by these.
    Forward { cuts: Vec<Cut>, edits: Vec<Edit> },
    /// The relay answers.
    Answer { bytes: Bytes, close: bool, hold: Option<(Duration, Arc<Live>)> },
}

impl Http {
    /// A connection at its start.
    pub(crate) fn new(number: u64) -> Self {
        Self {
            number,
            requests: 0,
            dice: Dice::new(number, number),
            client: Reader::default(),
            server: Reader::default(),
            exchanges: VecDeque::new(),
            waiting: Vec::new(),
        }
    }

    /// Whether more may be read from the client.
    pub(crate) fn takes_requests(&self) -> bool {
        self.waiting.is_empty()
            && !matches!(self.client, Reader::Upgrade)
            && self.exchanges.len() < PIPELINE_MAX
    }

    /// Whether [`Http::resume`] has something to do.
    pub(crate) fn has_waiting_requests(&self) -> bool {
        !self.waiting.is_empty()
            && !matches!(self.client, Reader::Upgrade)
            && self.exchanges.len() < PIPELINE_MAX
    }

    /// Goes on with what had to wait.
    pub(crate) fn resume(&mut self, faults: &[Arc<Live>], up: &mut Line, down: &mut Line, now: Instant) {
        let waiting = std::mem::take(&mut self.waiting);
        self.on_client(Some(&waiting), faults, up, down, now);
    }

    /// Takes bytes of the client, or its end.
    pub(crate) fn on_client(
        &mut self,
        input: Option<&[u8]>,
        faults: &[Arc<Live>],
        up: &mut Line,
        down: &mut Line,
        now: Instant,
    ) {
        let Some(mut input) = input else {
            if let Reader::Head(head) = std::mem::take(&mut self.client) {
                push(up, &head, now);
            }
            up.push(Item::End(End::Fin), now);
            return;
        };
        while !input.is_empty() {
            if self.exchanges.len() >= PIPELINE_MAX && matches!(self.client, Reader::Head(_)) {
                self.waiting.extend_from_slice(input);
                return;
            }
            match &mut self.client {
                Reader::Head(head) => {
                    let before = head.len();
                    head.extend_from_slice(input);
                    match RequestHead::parse(head) {
                        Ok(Some(parsed)) => {
                            input = &input[parsed.length - before..];
                            let head = std::mem::take(head);
                            self.request(&head[..parsed.length], &parsed, faults, up, down, now);
                        }
                        Ok(None) => return,
                        Err(()) => {
                            let head = std::mem::take(head);
                            self.client = Reader::Tunnel;
                            push(up, &head, now);
                            return;
                        }
                    }
                }
                Reader::Body { body, swallow } => {
                    let Progress { used, state } = body.take(input);
                    if !*swallow {
                        push(up, &input[..used], now);
                    }
                    input = &input[used..];
                    match state {
                        Ok(true) => self.client = self.after_request(),
                        Ok(false) => {}
                        Err(()) => self.client = Reader::Tunnel,
                    }
                }
                Reader::Upgrade => {
                    self.waiting.extend_from_slice(input);
                    return;
                }
                Reader::Tunnel => {
                    push(up, input, now);
                    return;
                }
            }
        }
    }

    /// Where the client's side is once a request is complete.
    fn after_request(&self) -> Reader {
        match self.exchanges.back() {
            Some(Exchange { upgrade, connect, action: Action::Forward { .. }, .. })
                if *upgrade || *connect =>
            {
                Reader::Upgrade
            }
            _ => Reader::default(),
        }
    }

    fn request(
        &mut self,
        head: &[u8],
        parsed: &RequestHead,
        faults: &[Arc<Live>],
        up: &mut Line,
        down: &mut Line,
        now: Instant,
    ) {
        self.requests += 1;
        let Decision { hold, abort, request_edits, response_edits, cuts } =
            Decision::of(parsed, faults, (self.number, self.requests), &mut self.dice);
        let swallow = abort.is_some();
        let action = if let Some((status, live)) = abort {
            let close = parsed.close || parsed.expects_continue;
            let bytes = edit::answer(status, &live.id, parsed.head_only, close);
            Action::Answer { bytes, close, hold }
        } else {
            up.push_held(Item::Data(edit::edited(head, &request_edits)), hold, now);
            Action::Forward { cuts, edits: response_edits }
        };
        let (head_only, connect, upgrade) = (parsed.head_only, parsed.connect, parsed.upgrade);
        self.exchanges.push_back(Exchange { head_only, connect, upgrade, action });
        self.client = match parsed.body.clone() {
            Body::None => self.after_request(),
            body => Reader::Body { body, swallow },
        };
        self.answer(down, now);
    }

    /// Sends the relay's own answers whose turn has come.
    fn answer(&mut self, down: &mut Line, now: Instant) {
        while let Some(Exchange { action: Action::Answer { .. }, .. }) = self.exchanges.front() {
            let Some(Exchange { action: Action::Answer { bytes, close, hold }, .. }) =
                self.exchanges.pop_front()
            else {
                return;
            };
            down.push_held(Item::Data(bytes), hold, now);
            if close {
                down.push(Item::End(End::Close), now);
            }
        }
    }

    /// Takes bytes of the server, or its end.
    pub(crate) fn on_server(&mut self, input: Option<&[u8]>, down: &mut Line, now: Instant) {
        let Some(mut input) = input else {
            if let Reader::Head(head) = std::mem::take(&mut self.server) {
                push(down, &head, now);
            }
            down.push(Item::End(End::Fin), now);
            return;
        };
        while !input.is_empty() {
            match &mut self.server {
                Reader::Head(head) => {
                    let before = head.len();
                    head.extend_from_slice(input);
                    let Some(exchange) = self.exchanges.front() else {
                        // Nobody asked: this is no HTTP/1.1 server.
                        let head = std::mem::take(head);
                        self.tunnel(&head, down, now);
                        return;
                    };
                    match ResponseHead::parse(head, exchange.head_only, exchange.connect) {
                        Ok(Some(parsed)) => {
                            input = &input[parsed.length - before..];
                            let head = std::mem::take(head);
                            self.response(&head[..parsed.length], parsed, down, now);
                        }
                        Ok(None) => return,
                        Err(()) => {
                            let head = std::mem::take(head);
                            self.tunnel(&head, down, now);
                            return;
                        }
                    }
                }
                Reader::Body { body, .. } => {
                    let Progress { used, state } = body.take(input);
                    let pass = self.cut(used);
                    push(down, &input[..pass.unwrap_or(used)], now);
                    if pass.is_some() {
                        down.push(Item::End(End::Close), now);
                        return;
                    }
                    input = &input[used..];
                    match state {
                        Ok(true) => self.responded(down, now),
                        Ok(false) => {}
                        Err(()) => self.tunnel(&[], down, now),
                    }
                }
                Reader::Upgrade | Reader::Tunnel => {
                    push(down, input, now);
                    return;
                }
            }
        }
    }

    fn response(&mut self, head: &[u8], parsed: ResponseHead, down: &mut Line, now: Instant) {
        let Some(exchange) = self.exchanges.front() else { return };
        let edits: &[Edit] = match &exchange.action {
            Action::Forward { edits, .. } if !parsed.interim => edits,
            _ => &[],
        };
        down.push(Item::Data(edit::edited(head, edits)), now);
        if parsed.interim {
            return;
        }
        if parsed.switches && (exchange.upgrade || exchange.connect) {
            self.tunnel(&[], down, now);
            return;
        }
        if matches!(self.client, Reader::Upgrade) && self.exchanges.len() == 1 {
            self.client = Reader::default();
        }
        match parsed.body {
            Body::None => self.responded(down, now),
            body => self.server = Reader::Body { body, swallow: false },
        }
    }

    fn responded(&mut self, down: &mut Line, now: Instant) {
        self.exchanges.pop_front();
        self.server = Reader::default();
        self.answer(down, now);
    }

    /// Counts body bytes against the cuts; the number that still passes, if one of them strikes.
    fn cut(&mut self, bytes: usize) -> Option<usize> {
        let Some(Exchange { action: Action::Forward { cuts, .. }, .. }) = self.exchanges.front_mut() else {
            return None;
        };
        cuts.iter_mut().find_map(|cut| cut.strikes(bytes))
    }

    /// From here on both ways are plain bytes.
    fn tunnel(&mut self, pending: &[u8], down: &mut Line, now: Instant) {
        push(down, pending, now);
        self.server = Reader::Tunnel;
        self.exchanges.clear();
        match &mut self.client {
            Reader::Head(head) => {
                // Resumed as plain bytes.
                let head = std::mem::take(head);
                self.waiting.splice(0..0, head);
                self.client = Reader::Tunnel;
            }
            Reader::Body { swallow: true, .. } => {}
            _ => self.client = Reader::Tunnel,
        }
    }
}

fn push(line: &mut Line, bytes: &[u8], now: Instant) {
    if !bytes.is_empty() {
        line.push(Item::Data(Bytes::copy_from_slice(bytes)), now);
    }
}

#[cfg(test)]
mod tests;
