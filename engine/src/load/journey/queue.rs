//! Sessions that have arrived and wait for somebody to walk them.
//!
//! Invariant: what waits is within its deadline, so the queue is bounded by rate × deadline.

use std::collections::VecDeque;
use std::sync::Mutex;

use tokio::sync::Semaphore;

/// A session that has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Arrived {
    /// When it was due.
    pub(super) due: u64,
    /// Its number among all of the load.
    pub(super) number: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Queue {
    due: Mutex<VecDeque<Arrived>>,
    /// As many permits as have arrived; closed when no more will.
    arrived: Semaphore,
}

impl Queue {
    pub(super) fn new() -> Self {
        Self { due: Mutex::default(), arrived: Semaphore::new(0) }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Arrived>> {
        self.due.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// A session has arrived.
    pub(super) fn push(&self, arrived: Arrived) {
        self.lock().push_back(arrived);
        self.arrived.add_permits(1);
    }

    /// When those were due that have waited too long by now.
    pub(super) fn overdue(&self, now: u64, deadline: u64) -> Vec<u64> {
        let mut due = self.lock();
        let count = due.partition_point(|one| one.due.saturating_add(deadline) <= now);
        due.drain(..count).map(|one| one.due).collect()
    }

    /// No more will come.
    pub(super) fn close(&self) {
        self.arrived.close();
    }

    /// Everything that still waits.
    pub(super) fn rest(&self) -> usize {
        self.lock().len()
    }

    /// The next session; none if no more will come.
    pub(super) async fn next(&self) -> Option<Arrived> {
        loop {
            let more = match self.arrived.acquire().await {
                Ok(permit) => {
                    permit.forget();
                    true
                }
                Err(_) => false,
            };
            let next = self.lock().pop_front();
            // A permit without a session was for one that had waited too long.
            if next.is_some() || !more {
                return next;
            }
        }
    }
}
