//! The connections of one worker to one origin: who is idle, what waits, what is overdue.
//!
//! Invariants: every job ends exactly once, in `end`; a job waits only while every connection is busy; the queue holds
//! only jobs within their deadline, so it is bounded by rate × deadline.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;

use reports::record::Phase;

use super::clock::Clock;
use super::phase::{PhaseCell, attribute};
use super::tally::{Ending, Recorder};
use super::{ErrorClass, Load, wire};

/// One arrival on its way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Job {
    /// The intended time.
    pub(super) due: u64,
    /// Which of the load's requests.
    pub(super) kind: u16,
    /// The phase when it was dispatched.
    pub(super) phase: Phase,
    /// Its number within the load, if its request has slots.
    pub(super) number: u64,
    /// How often it was sent again, since no server had acted on it.
    pub(super) again: u8,
    /// It was given to a connection that was open and idle, which has not begun with it.
    pub(super) handed: bool,
    /// When it was first given a connection, or the attempt of one; 0 before.
    pub(super) placed: u64,
}

/// What all lanes of a worker share; one thread, so no locks.
pub(super) struct Shared {
    pub(super) clock: Clock,
    pub(super) phase: Arc<PhaseCell>,
    pub(super) recorder: RefCell<Recorder>,
    /// Where responses are read into; used up before the task yields.
    pub(super) scratch: RefCell<Vec<u8>>,
    /// Jobs that have not ended.
    pub(super) outstanding: Cell<u64>,
    /// Open sockets.
    pub(super) open: Cell<u64>,
    /// Nothing is sent any more: connections that say goodbye do so now.
    pub(super) parting: Cell<bool>,
    /// How many of these are open.
    pub(super) farewells: Cell<u64>,
}

/// A time at which the sweep wakes a task.
#[derive(Debug)]
pub(super) struct Alarm {
    /// `u64::MAX` for never.
    at: Cell<u64>,
    rang: Cell<bool>,
}

impl Default for Alarm {
    fn default() -> Self {
        Self { at: Cell::new(u64::MAX), rang: Cell::new(false) }
    }
}

impl Alarm {
    /// Rings at this time.
    pub(super) fn set(&self, at: u64) {
        self.rang.set(false);
        self.at.set(at);
    }

    /// Does not ring any more.
    pub(super) fn clear(&self) {
        self.at.set(u64::MAX);
    }

    /// Whether it has rung since this was last asked.
    pub(super) fn rang(&self) -> bool {
        self.rang.take()
    }

    fn due(&self, now: u64) -> bool {
        let due = self.at.get() <= now;
        if due {
            self.at.set(u64::MAX);
            self.rang.set(true);
        }
        due
    }
}

/// The place of one request at a time: a connection of its own, or a stream of one.
#[derive(Default)]
pub(super) struct Slot {
    /// Handed to the task.
    pub(super) job: Cell<Option<Job>>,
    /// The request's deadline, and where it has a connection of its own, that of connecting.
    pub(super) alarm: Alarm,
}

/// The task of one connection, and what it must look at.
#[derive(Default)]
pub(super) struct Post {
    pub(super) waker: RefCell<Option<Waker>>,
    /// Slots that were handed a job, where one task serves several.
    pub(super) handed: RefCell<Vec<u32>>,
    /// Slots whose alarm rang, where one task serves several.
    pub(super) overdue: RefCell<Vec<u32>>,
    /// The limit of connecting, where a connection has several slots.
    pub(super) alarm: Alarm,
}

impl Post {
    fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }
}

/// See the module.
pub(super) struct Lane {
    pub(super) shared: Rc<Shared>,
    pub(super) load: Arc<Load>,
    pub(super) load_index: usize,
    pub(super) origin: usize,
    /// Those of connection c are `c * streams..(c + 1) * streams`.
    pub(super) slots: Box<[Slot]>,
    /// By connection.
    pub(super) posts: Box<[Post]>,
    /// How many requests a connection carries at a time.
    pub(super) streams: u32,
    /// Whether one task serves several slots, even if it is only one.
    multiplexed: bool,
    /// Slots with an open connection and nothing to do, the warmest last.
    idle: RefCell<Vec<u32>>,
    /// Connections with a task that are not open.
    free: RefCell<Vec<u32>>,
    /// Connections with a task.
    spawned: Cell<u32>,
    queue: RefCell<VecDeque<Job>>,
    /// The address that the next connection tries first.
    pub(super) rotation: Cell<usize>,
}

impl Lane {
    pub(super) fn new(
        shared: Rc<Shared>,
        load: Arc<Load>,
        load_index: usize,
        origin: usize,
        connections: u32,
        rotation: usize,
    ) -> Rc<Self> {
        let multiplexed = load.origins[origin].protocol.multiplexed();
        let streams = if multiplexed && load.reuse { load.streams } else { 1 };
        Rc::new(Self {
            shared,
            load,
            load_index,
            origin,
            slots: (0..connections * streams).map(|_| Slot::default()).collect(),
            posts: (0..connections).map(|_| Post::default()).collect(),
            streams,
            multiplexed,
            idle: RefCell::default(),
            free: RefCell::default(),
            spawned: Cell::new(0),
            queue: RefCell::default(),
            rotation: Cell::new(rotation),
        })
    }

    /// Takes an arrival that is due: onto an idle connection, a new one, or into the queue.
    pub(super) fn dispatch(self: &Rc<Self>, job: Job, now: u64) {
        self.shared.recorder.borrow_mut().due(self.load_index, job.phase, now.saturating_sub(job.due));
        self.shared.outstanding.set(self.shared.outstanding.get() + 1);
        self.place(job, now);
    }

    /// Takes an arrival that is due and cannot be made into a request.
    pub(super) fn refuse(&self, job: Job, now: u64) {
        self.shared.recorder.borrow_mut().due(self.load_index, job.phase, now.saturating_sub(job.due));
        self.shared.outstanding.set(self.shared.outstanding.get() + 1);
        self.end(job, &Ending { sent: false, ..Ending::failed(ErrorClass::Data) });
    }

    /// Wakes the tasks of all connections.
    pub(super) fn wake(&self) {
        self.posts.iter().for_each(Post::wake);
    }

    /// Finds a place for a job that has none (any more).
    pub(super) fn place(self: &Rc<Self>, mut job: Job, now: u64) {
        if job.due + self.load.deadline <= now {
            self.end(job, &Ending::unsent());
            return;
        }
        let ready = self.idle.borrow_mut().pop();
        job.handed = ready.is_some();
        if job.placed == 0 {
            job.placed = now;
        }
        if let Some(index) = ready {
            self.hand(index, job);
            return;
        }
        let parked = self.free.borrow_mut().pop();
        if let Some(connection) = parked {
            self.hand(connection * self.streams, job);
            self.enlist(connection);
        } else if (self.spawned.get() as usize) < self.posts.len() {
            let connection = self.spawned.get();
            self.spawned.set(connection + 1);
            self.hand(connection * self.streams, job);
            self.enlist(connection);
            wire::spawn(self, connection);
        } else if self.load.shed {
            // It was the load's own wish: neither the generator's failing, nor sent.
            self.end(job, &Ending { sent: false, ..Ending::failed(ErrorClass::Shed) });
        } else {
            self.shared.recorder.borrow_mut().queued();
            job.placed = 0;
            self.queue.borrow_mut().push_back(job);
        }
    }

    fn hand(&self, index: u32, job: Job) {
        let slot = &self.slots[index as usize];
        slot.job.set(Some(job));
        let post = &self.posts[(index / self.streams) as usize];
        if self.multiplexed {
            slot.alarm.set(job.due + self.load.deadline);
            post.handed.borrow_mut().push(index);
        }
        post.wake();
    }

    /// Hands a connection that is to be opened again these jobs, at most one per slot; the other slots may be handed more.
    pub(super) fn resume(&self, connection: u32, jobs: Vec<Job>) {
        let slots = self.slots_of(connection);
        self.idle.borrow_mut().extend((slots.start + jobs.len() as u32..slots.end).rev());
        jobs.into_iter().zip(slots).for_each(|(job, index)| self.hand(index, job));
    }

    /// The slots of a connection.
    pub(super) fn slots_of(&self, connection: u32) -> std::ops::Range<u32> {
        connection * self.streams..(connection + 1) * self.streams
    }

    /// Of a connection that is being opened, the slots but the first may be handed jobs as well.
    fn enlist(&self, connection: u32) {
        self.idle.borrow_mut().extend((connection * self.streams + 1..(connection + 1) * self.streams).rev());
    }

    /// The job that waits longest and still has time.
    pub(super) fn next(&self) -> Option<Job> {
        if self.queue.borrow().is_empty() {
            return None;
        }
        let now = self.shared.clock.now();
        self.drop_overdue(now);
        self.queue.borrow_mut().pop_front().map(|job| Job { placed: now, ..job })
    }

    /// This slot's connection has nothing to do in it.
    pub(super) fn rest(&self, index: u32) {
        self.idle.borrow_mut().push(index);
    }

    /// This slot's connection is gone although it had nothing to do.
    pub(super) fn unrest(&self, index: u32) {
        let mut idle = self.idle.borrow_mut();
        if let Some(at) = idle.iter().rposition(|i| *i == index) {
            idle.remove(at);
        }
    }

    /// No further jobs for these slots of a connection, for now.
    pub(super) fn withdraw(&self, slots: std::ops::Range<u32>) {
        self.idle.borrow_mut().retain(|index| !slots.contains(index));
    }

    /// This connection is not open.
    pub(super) fn park(&self, connection: u32) {
        self.free.borrow_mut().push(connection);
    }

    /// A connection begins with a job, now.
    pub(super) fn begin(&self, job: &mut Job) -> u64 {
        let now = self.shared.clock.now();
        // Once, even if the connection turns out to be stale.
        if std::mem::take(&mut job.handed) {
            self.shared.recorder.borrow_mut().begun(now.saturating_sub(job.due));
        }
        now
    }

    /// Ends a job.
    pub(super) fn end(&self, job: Job, ending: &Ending<'_>) {
        let Shared { clock, phase, recorder, outstanding, open, .. } = &*self.shared;
        outstanding.set(outstanding.get() - 1);
        let now = clock.now();
        let phase = attribute(job.phase, phase.get());
        let mut recorder = recorder.borrow_mut();
        recorder.roll(now, open.get());
        let waited = job.placed.saturating_sub(job.due) > self.load.deadline / 2;
        let late = waited && ending.failure == Some(ErrorClass::Deadline);
        recorder.ended(self.load_index, &job, phase, now, &Ending { late, ..*ending });
    }

    /// Why a class of failures happens, in words, if that is known; the first cause of each is kept.
    pub(super) fn explain(&self, class: ErrorClass, cause: Option<String>) {
        let Some(cause) = cause else { return };
        let phase = self.shared.phase.get();
        self.shared.recorder.borrow_mut().explained(self.load_index, phase, class, cause);
    }

    /// Wakes the tasks whose limit has passed, and ends the jobs that waited too long.
    pub(super) fn sweep(&self, now: u64) {
        let connections = self.spawned.get();
        for (index, slot) in self.slots[..(connections * self.streams) as usize].iter().enumerate() {
            if slot.alarm.due(now) {
                let index = index as u32;
                let post = &self.posts[(index / self.streams) as usize];
                if self.multiplexed {
                    post.overdue.borrow_mut().push(index);
                }
                post.wake();
            }
        }
        for post in &self.posts[..connections as usize] {
            if post.alarm.due(now) {
                post.wake();
            }
        }
        self.drop_overdue(now);
    }

    fn drop_overdue(&self, now: u64) {
        loop {
            let overdue = self.queue.borrow().front().is_some_and(|job| job.due + self.load.deadline <= now);
            if !overdue {
                return;
            }
            let job = self.queue.borrow_mut().pop_front();
            if let Some(job) = job {
                self.end(job, &Ending::unsent());
            }
        }
    }
}
