//! The task of one HTTP/3 connection: serves all of its slots, as that of HTTP/2 does.
//!
//! A server tells how many streams may be opened in all, and by and by allows more: while one request waits for that, the
//! connection takes no others.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

use super::super::ErrorClass;
use super::super::dial::within;
use super::super::lane::{Job, Lane};
use super::super::multiplex::{self, AGAIN_MAX};
use super::super::recipe::Made;
use super::super::tally::Ending;
use super::exchange::{Ask, Came, Session, Watch, exchange};
use super::quic::Link;

/// Ends only with the worker's runtime, or when all connections part.
pub(in crate::load) async fn drive(lane: Rc<Lane>, connection: u32) {
    let open = async |lane: &Lane| {
        let reached = Cell::new(false);
        let attempt = async {
            let link = Link::open(lane, &reached).await?;
            let session = Session::begin(&link, lane).await?;
            Ok((link, session))
        };
        within(lane, &lane.posts[connection as usize].alarm, u64::MAX, &reached, attempt).await
    };
    let serve = async |(link, session)| {
        let mut open = Open::new(&lane, connection, link, session);
        poll_fn(|cx| open.poll(cx)).await;
        open.close().await
    };
    multiplex::drive(Rc::clone(&lane), connection, open, serve).await;
}

/// A request that was taken on.
#[derive(Clone, Copy)]
struct Flight {
    job: Job,
    taken_on: u64,
    /// What had come from the server until then.
    heard: u64,
}

/// What the exchanges of a connection and its task share.
struct Common {
    /// By slot: who is woken when its time is over.
    wakers: Box<[RefCell<Option<Waker>>]>,
    /// By slot: when its request had a stream.
    opened: Box<[Cell<u64>]>,
    waiting: Cell<u32>,
}

type Exchange<'a> = Pin<Box<dyn Future<Output = (usize, Came)> + 'a>>;

/// An open connection.
struct Open<'a> {
    lane: &'a Rc<Lane>,
    connection: u32,
    link: Link,
    session: Session,
    exchanges: FuturesUnordered<Exchange<'a>>,
    common: Rc<Common>,
    flights: Vec<Option<Flight>>,
    /// Slots that have nothing to do, and have not been told what comes next.
    vacant: Vec<usize>,
    /// By kind: requests that are the same each time.
    fixed: Vec<Option<Ask>>,
    made: Made,
    /// Answers so far.
    served: u64,
    /// No further requests.
    leaving: bool,
    /// The connection is gone.
    over: bool,
    /// No further requests until the server allows another stream.
    blocked: bool,
    again: Vec<Job>,
}

impl<'a> Open<'a> {
    fn new(lane: &'a Rc<Lane>, connection: u32, link: Link, session: Session) -> Self {
        let slots = lane.streams as usize;
        let common = Common {
            wakers: (0..slots).map(|_| RefCell::default()).collect(),
            opened: (0..slots).map(|_| Cell::default()).collect(),
            waiting: Cell::new(0),
        };
        Self {
            lane,
            connection,
            link,
            session,
            exchanges: FuturesUnordered::new(),
            common: Rc::new(common),
            flights: vec![None; slots],
            vacant: Vec::new(),
            fixed: lane.load.checked.requests.iter().map(|_| None).collect(),
            made: Made::default(),
            served: 0,
            leaving: false,
            over: false,
            blocked: false,
            again: Vec::new(),
        }
    }

    fn index(&self, slot: usize) -> u32 {
        self.connection * self.lane.streams + slot as u32
    }

    /// Ready when the connection is of no further use.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.expire();
        self.take_on_all(cx);
        loop {
            if !self.over && self.session.poll_end(cx).is_ready() {
                self.over = true;
                self.leave();
            }
            let heard = self.turn(cx);
            let taken = self.fill(cx);
            let idle = self.flights.iter().all(Option::is_none);
            if self.lane.shared.parting.get() || self.over || (self.leaving && idle) {
                return Poll::Ready(());
            }
            if !heard && !taken {
                return Poll::Pending;
            }
        }
    }

    /// Tells the exchanges whose deadline has passed.
    fn expire(&self) {
        for index in self.lane.posts[self.connection as usize].overdue.borrow_mut().drain(..) {
            let slot = (index - self.connection * self.lane.streams) as usize;
            if let Some(waker) = self.common.wakers[slot].borrow_mut().take() {
                waker.wake();
            }
        }
    }

    fn take_on_all(&mut self, cx: &mut Context<'_>) {
        let lane = self.lane;
        let handed = lane.posts[self.connection as usize].handed.take();
        for index in handed {
            let Some(job) = lane.slots[index as usize].job.take() else { continue };
            if self.leaving || self.blocked {
                lane.slots[index as usize].alarm.clear();
                self.vacant.push((index - self.connection * lane.streams) as usize);
                lane.place(job, lane.shared.clock.now());
            } else {
                self.take_on((index - self.connection * lane.streams) as usize, job);
                self.turn(cx);
            }
        }
    }

    fn take_on(&mut self, slot: usize, mut job: Job) {
        let (lane, index) = (self.lane, self.index(slot) as usize);
        let taken_on = lane.begin(&mut job);
        lane.slots[index].alarm.set(job.due + lane.load.deadline);
        let Some(ask) = self.ask(&job) else {
            lane.slots[index].alarm.clear();
            lane.end(job, &Ending { sent: false, ..Ending::failed(ErrorClass::Data) });
            self.vacant.push(slot);
            return;
        };
        self.flights[slot] = Some(Flight { job, taken_on, heard: self.link.heard() });
        self.common.opened[slot].set(taken_on);
        let (common, opener) = (Rc::clone(&self.common), self.session.opener());
        let request = &lane.load.checked.requests[usize::from(job.kind)];
        self.exchanges.push(Box::pin(async move {
            let opened = || common.opened[slot].set(lane.shared.clock.now());
            let watch = Watch { waiting: &common.waiting, opened: &opened };
            let overdue = |cx: &mut Context<'_>| {
                *common.wakers[slot].borrow_mut() = Some(cx.waker().clone());
                lane.slots[index].alarm.rang()
            };
            (slot, exchange(opener, ask, request, &lane.load.checked, watch, overdue).await)
        }));
        if !lane.load.reuse {
            self.leave();
        }
    }

    /// The request of a job; none if it cannot be sent.
    fn ask(&mut self, job: &Job) -> Option<Ask> {
        let (lane, kind) = (self.lane, usize::from(job.kind));
        let request = &lane.load.checked.requests[kind];
        if request.recipe.slotted() {
            lane.load.make(job, &mut self.made);
            return Ask::new(&self.made);
        }
        if self.fixed[kind].is_none() {
            self.fixed[kind] = Ask::new(&request.made);
        }
        self.fixed[kind].clone()
    }

    /// Hears what has come of the exchanges; whether anything has.
    fn turn(&mut self, cx: &mut Context<'_>) -> bool {
        let mut heard = false;
        while let Poll::Ready(Some((slot, came))) = self.exchanges.poll_next_unpin(cx) {
            heard = true;
            self.hear(slot, came);
        }
        self.block();
        if !self.over {
            for job in std::mem::take(&mut self.again) {
                self.lane.place(job, self.lane.shared.clock.now());
            }
        }
        heard
    }

    /// Whether the server has to allow another stream first.
    fn block(&mut self) {
        let blocked = self.common.waiting.get() > 0;
        if blocked && !std::mem::replace(&mut self.blocked, blocked) {
            // What is idle here is so in vain: it goes elsewhere until that changes.
            let lane = self.lane;
            lane.withdraw(lane.slots_of(self.connection));
            // Some may have been handed a job that was not looked at yet.
            let empty = |slot: &usize| {
                self.flights[*slot].is_none()
                    && !self.vacant.contains(slot)
                    && lane.slots[self.index(*slot) as usize].job.get().is_none()
            };
            let empty: Vec<usize> = (0..self.flights.len()).filter(empty).collect();
            self.vacant.extend(empty);
        }
        self.blocked = blocked;
    }

    /// Gives vacant slots the jobs that wait, or rest; whether any was given a job.
    fn fill(&mut self, cx: &mut Context<'_>) -> bool {
        let mut taken = false;
        while !self.leaving
            && !self.blocked
            && let Some(slot) = self.vacant.pop()
        {
            match self.lane.next() {
                Some(job) => {
                    self.take_on(slot, job);
                    self.turn(cx);
                    taken = true;
                }
                None => self.lane.rest(self.index(slot)),
            }
        }
        taken
    }

    fn hear(&mut self, slot: usize, came: Came) {
        let Some(flight) = self.flights[slot].take() else { return };
        let lane = self.lane;
        lane.slots[self.index(slot) as usize].alarm.clear();
        self.vacant.push(slot);
        let request = &lane.load.checked.requests[usize::from(flight.job.kind)];
        match came {
            Came::Answer(answer) => {
                self.served += 1;
                let taken_on = Some(self.common.opened[slot].get());
                lane.end(flight.job, &Ending { taken_on, ..answer.ending(request) });
            }
            Came::Failed(class) => {
                // Not even an acknowledgement came: this server knows the connection no more, or cannot be reached by it.
                if class == ErrorClass::Deadline && self.link.heard() == flight.heard {
                    self.leave();
                }
                self.fail(flight, class);
            }
            Came::Unprocessed => self.resend(flight),
            Came::Leaving => {
                self.leave();
                self.resend(flight);
            }
            Came::Lost { unsent, started, broken } => {
                let class = if broken { ErrorClass::Protocol } else { self.link.lost(self.lane) };
                // The race with a server that closes a connection it thinks idle; see `Connection::broken`.
                let harmless = unsent || (request.idempotent && self.served > 0 && !started);
                if harmless && class == ErrorClass::Reset {
                    self.resend(flight);
                } else {
                    self.fail(flight, class);
                }
            }
        }
    }

    fn fail(&self, flight: Flight, class: ErrorClass) {
        self.lane.end(flight.job, &Ending { taken_on: Some(flight.taken_on), ..Ending::failed(class) });
    }

    /// No server has acted on this request: it is sent again, within bounds.
    fn resend(&mut self, flight: Flight) {
        let mut job = flight.job;
        if job.again >= AGAIN_MAX {
            return self.fail(flight, ErrorClass::Reset);
        }
        job.again += 1;
        self.lane.shared.recorder.borrow_mut().reconnected();
        self.again.push(job);
    }

    fn leave(&mut self) {
        self.leaving = true;
        self.lane.withdraw(self.lane.slots_of(self.connection));
    }

    /// The connection is of no further use: what is to be sent again on the next one.
    async fn close(mut self) -> Vec<Job> {
        let lane = self.lane;
        if lane.shared.parting.get() {
            self.link.close().await;
            return Vec::new();
        }
        self.leave();
        let class = self.link.lost(self.lane);
        for slot in 0..self.flights.len() {
            lane.slots[self.index(slot) as usize].alarm.clear();
            if let Some(flight) = self.flights[slot].take() {
                self.fail(flight, class);
            }
        }
        for index in lane.posts[self.connection as usize].handed.take() {
            self.again.extend(lane.slots[index as usize].job.take());
        }
        // There are as many places as slots.
        let kept = self.again.len().min(self.flights.len());
        for job in self.again.drain(kept..) {
            lane.place(job, lane.shared.clock.now());
        }
        let again = std::mem::take(&mut self.again);
        self.link.close().await;
        again
    }
}
