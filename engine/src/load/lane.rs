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
use super::connection::{Plain, Secure, drive};
use super::phase::{PhaseCell, attribute};
use super::tally::{Ending, Recorder};
use super::{ErrorClass, Load};

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
}

/// The place of one connection and of the task that drives it.
pub(super) struct Slot {
    /// Handed to the task.
    pub(super) job: Cell<Option<Job>>,
    /// When the sweep wakes the task; `u64::MAX` for never.
    pub(super) limit: Cell<u64>,
    /// The limit has passed.
    pub(super) expired: Cell<bool>,
    /// Of the task.
    pub(super) waker: RefCell<Option<Waker>>,
}

/// See the module.
pub(super) struct Lane {
    pub(super) shared: Rc<Shared>,
    pub(super) load: Arc<Load>,
    load_index: usize,
    pub(super) origin: usize,
    pub(super) slots: Box<[Slot]>,
    /// Slots with an open connection and nothing to do, the warmest last.
    idle: RefCell<Vec<u32>>,
    /// Slots with a task but no connection.
    free: RefCell<Vec<u32>>,
    /// Slots with a task.
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
        slots: u32,
        rotation: usize,
    ) -> Rc<Self> {
        let slot = || Slot {
            job: Cell::new(None),
            limit: Cell::new(u64::MAX),
            expired: Cell::new(false),
            waker: RefCell::new(None),
        };
        Rc::new(Self {
            shared,
            load,
            load_index,
            origin,
            slots: (0..slots).map(|_| slot()).collect(),
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
        if job.due + self.load.deadline <= now {
            self.end(job, &Ending::unsent());
            return;
        }
        let ready = self.idle.borrow_mut().pop();
        if let Some(index) = ready.or_else(|| self.free.borrow_mut().pop()) {
            let slot = &self.slots[index as usize];
            slot.job.set(Some(job));
            if let Some(waker) = &*slot.waker.borrow() {
                waker.wake_by_ref();
            }
        } else if (self.spawned.get() as usize) < self.slots.len() {
            self.spawn(job);
        } else {
            self.queue.borrow_mut().push_back(job);
        }
    }

    /// Takes an arrival that is due and cannot be made into a request.
    pub(super) fn refuse(&self, job: Job, now: u64) {
        self.shared.recorder.borrow_mut().due(self.load_index, job.phase, now.saturating_sub(job.due));
        self.shared.outstanding.set(self.shared.outstanding.get() + 1);
        self.end(job, &Ending { sent: false, ..Ending::failed(ErrorClass::Data) });
    }

    fn spawn(self: &Rc<Self>, job: Job) {
        let index = self.spawned.get();
        self.spawned.set(index + 1);
        self.slots[index as usize].job.set(Some(job));
        // The tasks end with the worker's runtime, which drops them.
        match &self.load.origins[self.origin].tls {
            None => tokio::task::spawn_local(drive(Rc::clone(self), index, Plain)),
            Some((connector, name)) => {
                let secure = Secure(connector.clone(), name.clone());
                tokio::task::spawn_local(drive(Rc::clone(self), index, secure))
            }
        };
    }

    /// The job that waits longest and still has time.
    pub(super) fn next(&self) -> Option<Job> {
        if self.queue.borrow().is_empty() {
            return None;
        }
        self.drop_overdue(self.shared.clock.now());
        self.queue.borrow_mut().pop_front()
    }

    /// This slot's connection has nothing to do.
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

    /// This slot has no connection.
    pub(super) fn park(&self, index: u32) {
        self.free.borrow_mut().push(index);
    }

    /// Ends a job.
    pub(super) fn end(&self, job: Job, ending: &Ending<'_>) {
        let Shared { clock, phase, recorder, outstanding, open, .. } = &*self.shared;
        outstanding.set(outstanding.get() - 1);
        let now = clock.now();
        let phase = attribute(job.phase, phase.get());
        let mut recorder = recorder.borrow_mut();
        recorder.roll(now, open.get());
        recorder.ended(self.load_index, &job, phase, now, ending);
    }

    /// Wakes the tasks whose limit has passed, and ends the jobs that waited too long.
    pub(super) fn sweep(&self, now: u64) {
        for slot in &self.slots[..self.spawned.get() as usize] {
            if slot.limit.get() <= now {
                slot.limit.set(u64::MAX);
                slot.expired.set(true);
                if let Some(waker) = &*slot.waker.borrow() {
                    waker.wake_by_ref();
                }
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

/// The class of a job whose limit passed while it was being connected.
pub(super) fn overdue_class(deadline: u64, limit: u64) -> ErrorClass {
    if limit >= deadline { ErrorClass::Deadline } else { ErrorClass::ConnectTimeout }
}
