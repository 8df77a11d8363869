//! The task of one HTTP/2 connection: opens it when there is something to send, and serves all of its slots.

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::super::dial::{Counted, Transport, connect};
use super::super::lane::{Job, Lane};
use super::super::multiplex::{self, AGAIN_MAX};
use super::super::recipe::Made;
use super::super::spec::{Checked, Request};
use super::super::tally::Ending;
use super::super::{ErrorClass, cause};
use super::head::Head;
use super::session::{Event, Rules, Session};

/// Ends only with the worker's runtime.
pub(in crate::load) async fn drive<T: Transport>(lane: Rc<Lane>, connection: u32, transport: T) {
    let open = async |lane: &Lane| {
        let alarm = &lane.posts[connection as usize].alarm;
        connect(lane, alarm, u64::MAX, &transport).await
    };
    let serve = async |(stream, counted)| {
        let mut open = Open::new(&lane, connection, stream, counted);
        poll_fn(|cx| open.poll(cx)).await;
        open.close()
    };
    multiplex::drive(Rc::clone(&lane), connection, open, serve).await;
}

/// A request that was sent.
#[derive(Clone, Copy)]
struct Flight {
    job: Job,
    taken_on: u64,
}

/// An open connection.
struct Open<'a, S> {
    lane: &'a Rc<Lane>,
    connection: u32,
    stream: S,
    session: Session,
    flights: Vec<Option<Flight>>,
    /// Answers so far.
    served: u64,
    /// How many slots the server allows.
    allowed: u32,
    /// No further requests.
    leaving: bool,
    flushed: bool,
    /// Why it ended.
    failure: ErrorClass,
    again: Vec<Job>,
    events: Vec<Event>,
    /// Slots to look at; kept for its memory.
    marked: Vec<u32>,
    /// The request that is about to be sent, if it is not the same each time.
    made: Made,
    _counted: Counted,
}

impl<'a, S: AsyncRead + AsyncWrite + Unpin> Open<'a, S> {
    fn new(lane: &'a Rc<Lane>, connection: u32, stream: S, counted: Counted) -> Self {
        let slots = lane.streams as usize;
        Self {
            lane,
            connection,
            stream,
            session: Session::new(slots),
            flights: vec![None; slots],
            served: 0,
            allowed: lane.streams,
            leaving: false,
            flushed: true,
            failure: ErrorClass::Reset,
            again: Vec::new(),
            events: Vec::new(),
            marked: Vec::new(),
            made: Made::default(),
            _counted: counted,
        }
    }

    fn rules(&self) -> Rules<'a> {
        let Checked { requests, pop_header, fields, .. } = &self.lane.load.checked;
        Rules { requests, pop_header, fields: *fields }
    }

    fn index(&self, slot: usize) -> u32 {
        self.connection * self.lane.streams + slot as u32
    }

    /// Ready when the connection is of no further use.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.expire();
        loop {
            self.take_on_all();
            if let Err(class) = self.write(cx) {
                self.failure = class;
                return Poll::Ready(());
            }
            if self.leaving && self.flights.iter().all(Option::is_none) {
                return Poll::Ready(());
            }
            match self.read(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) => self.hear(),
                Poll::Ready(Err(class)) => {
                    // What came before the end still counts.
                    self.hear();
                    self.failure = class;
                    return Poll::Ready(());
                }
            }
        }
    }

    /// Gives up the requests whose deadline has passed.
    fn expire(&mut self) {
        let lane = self.lane;
        let mut marked = std::mem::take(&mut self.marked);
        std::mem::swap(&mut marked, &mut lane.posts[self.connection as usize].overdue.borrow_mut());
        for index in marked.drain(..) {
            let rang = self.lane.slots[index as usize].alarm.rang();
            let slot = (index - self.connection * self.lane.streams) as usize;
            if rang && let Some(flight) = self.flights[slot].take() {
                self.session.cancel(slot);
                self.end(flight, &Ending::failed(ErrorClass::Deadline));
                self.vacate(slot);
            }
        }
        self.marked = marked;
    }

    fn take_on_all(&mut self) {
        let lane = self.lane;
        let mut marked = std::mem::take(&mut self.marked);
        std::mem::swap(&mut marked, &mut lane.posts[self.connection as usize].handed.borrow_mut());
        for index in marked.drain(..) {
            if let Some(job) = self.lane.slots[index as usize].job.take() {
                let slot = (index - self.connection * self.lane.streams) as usize;
                if self.usable(slot) {
                    self.take_on(slot, job);
                } else {
                    self.lane.slots[index as usize].alarm.clear();
                    self.lane.place(job, self.lane.shared.clock.now());
                }
            }
        }
        self.marked = marked;
    }

    fn usable(&self, slot: usize) -> bool {
        !self.leaving && slot < self.allowed as usize
    }

    fn take_on(&mut self, slot: usize, mut job: Job) {
        let now = self.lane.begin(&mut job);
        self.lane.slots[self.index(slot) as usize].alarm.set(job.due + self.lane.load.deadline);
        self.flights[slot] = Some(Flight { job, taken_on: now });
        let slotted = self.lane.load.checked.requests[usize::from(job.kind)].recipe.slotted();
        self.lane.load.make(&job, &mut self.made);
        let rules = self.rules();
        self.session.send(slot, job.kind, slotted.then_some(&self.made), rules);
        if !self.lane.load.reuse {
            self.leaving = true;
        }
    }

    /// This slot has nothing to do any more: the next job, or rest.
    fn vacate(&mut self, slot: usize) {
        let index = self.index(slot);
        self.lane.slots[index as usize].alarm.clear();
        if !self.usable(slot) {
            return;
        }
        match self.lane.next() {
            Some(job) => self.take_on(slot, job),
            None => self.lane.rest(index),
        }
    }

    fn end(&self, flight: Flight, ending: &Ending<'_>) {
        self.lane.end(flight.job, &Ending { taken_on: Some(flight.taken_on), ..*ending });
    }

    fn write(&mut self, cx: &mut Context<'_>) -> Result<(), ErrorClass> {
        loop {
            let rules = self.rules();
            let out = self.session.out(rules);
            if out.is_empty() {
                break;
            }
            match Pin::new(&mut self.stream).poll_write(cx, out) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(0)) => return Err(ErrorClass::Reset),
                Poll::Ready(Ok(written)) => {
                    out.drain(..written);
                    self.flushed = false;
                }
                Poll::Ready(Err(error)) => return Err(ErrorClass::of_stream(&error)),
            }
        }
        if !self.flushed {
            match Pin::new(&mut self.stream).poll_flush(cx) {
                Poll::Pending => {}
                Poll::Ready(Ok(())) => self.flushed = true,
                Poll::Ready(Err(error)) => return Err(ErrorClass::of_stream(&error)),
            }
        }
        Ok(())
    }

    fn read(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ErrorClass>> {
        let lane = self.lane;
        let mut scratch = lane.shared.scratch.borrow_mut();
        let mut buffer = ReadBuf::new(&mut scratch);
        match Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(error)) => {
                lane.explain(ErrorClass::Tls, cause::of(&error));
                Poll::Ready(Err(ErrorClass::of_stream(&error)))
            }
            Poll::Ready(Ok(())) if buffer.filled().is_empty() => Poll::Ready(Err(ErrorClass::Reset)),
            Poll::Ready(Ok(())) => {
                let fed = self.session.feed(buffer.filled(), self.rules());
                Poll::Ready(fed.map_err(|_| ErrorClass::Protocol))
            }
        }
    }

    /// Acts on what the session has told.
    fn hear(&mut self) {
        let mut events = std::mem::take(&mut self.events);
        events.extend(self.session.events());
        for event in events.drain(..) {
            match event {
                Event::Answered { slot, head, trailers, found } => {
                    self.served += 1;
                    if let Some(flight) = self.flights[slot].take() {
                        let request = &self.lane.load.checked.requests[usize::from(flight.job.kind)];
                        self.end(flight, &ending(request, &head, trailers.as_deref(), found));
                        self.vacate(slot);
                    }
                }
                Event::Unprocessed { slot } => {
                    if let Some(flight) = self.flights[slot].take() {
                        self.resend(flight);
                        self.vacate(slot);
                    }
                }
                Event::Reset { slot } => self.fail(slot, ErrorClass::Reset),
                Event::Broken { slot } => self.fail(slot, ErrorClass::Protocol),
                Event::Allowed(limit) => self.allow(limit),
                Event::Leaving => {
                    self.leaving = true;
                    self.lane.withdraw(self.lane.slots_of(self.connection));
                }
            }
        }
        self.events = events;
        for job in std::mem::take(&mut self.again) {
            self.lane.place(job, self.lane.shared.clock.now());
        }
    }

    fn fail(&mut self, slot: usize, class: ErrorClass) {
        if let Some(flight) = self.flights[slot].take() {
            self.end(flight, &Ending::failed(class));
            self.vacate(slot);
        }
    }

    /// The server takes so many requests at a time from now on.
    fn allow(&mut self, limit: u32) {
        let (before, slots) = (self.allowed, self.lane.slots_of(self.connection));
        self.allowed = limit.min(self.lane.streams);
        if self.leaving {
            return;
        }
        if self.allowed < before {
            self.lane.withdraw(slots.start + self.allowed..slots.end);
        }
        for slot in before..self.allowed {
            if self.flights[slot as usize].is_none() {
                self.vacate(slot as usize);
            }
        }
    }

    /// No server has acted on this request: it is sent again, within bounds.
    fn resend(&mut self, flight: Flight) {
        let mut job = flight.job;
        if job.again >= AGAIN_MAX {
            self.end(flight, &Ending::failed(ErrorClass::Reset));
            return;
        }
        job.again += 1;
        self.lane.shared.recorder.borrow_mut().reconnected();
        self.again.push(job);
    }

    /// The connection is gone: what is to be sent again on the next one.
    fn close(mut self) -> Vec<Job> {
        let lane = self.lane;
        lane.withdraw(lane.slots_of(self.connection));
        for slot in 0..self.flights.len() {
            lane.slots[self.index(slot) as usize].alarm.clear();
            let Some(flight) = self.flights[slot].take() else { continue };
            let request = &lane.load.checked.requests[usize::from(flight.job.kind)];
            // The race with a server that closes a connection it thinks idle; see `Connection::broken`.
            let harmless = request.idempotent && self.served > 0 && !self.session.started(slot);
            if harmless && self.failure == ErrorClass::Reset {
                self.resend(flight);
            } else {
                self.end(flight, &Ending::failed(self.failure));
            }
        }
        for index in lane.posts[self.connection as usize].handed.take() {
            self.again.extend(lane.slots[index as usize].job.take());
        }
        // There are as many places as slots; what the server refused may be more than that.
        let kept = self.again.len().min(self.flights.len());
        for job in self.again.drain(kept..) {
            lane.place(job, lane.shared.clock.now());
        }
        std::mem::take(&mut self.again)
    }
}

fn ending<'a>(request: &Request, head: &'a Head, trailers: Option<&Head>, found: bool) -> Ending<'a> {
    let status = match (head.status, request.grpc) {
        // The call's own status, where it is not well; they are below all of HTTP's.
        (Some(200), true) => {
            match trailers.and_then(|trailers| trailers.grpc).or(head.grpc) {
                Some(0) => Some(200),
                // Without a status the call is unknown (2) to have succeeded.
                other => Some(other.unwrap_or(2)),
            }
        }
        (status, _) => status,
    };
    let failure = if !status.is_some_and(|code| request.statuses.iter().any(|good| good.contains(&code))) {
        Some(ErrorClass::Status)
    } else if found {
        None
    } else {
        Some(ErrorClass::Expectation)
    };
    Ending {
        failure,
        status,
        pop: head.pop.as_deref(),
        path: head.path.as_deref(),
        sent: true,
        late: false,
        taken_on: None,
    }
}
