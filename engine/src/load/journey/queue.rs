//! Sessions that have arrived and wait for somebody to walk them.
//!
//! Invariant: what waits is within its deadline, so the queue is bounded by rate × deadline.

use std::collections::VecDeque;
use std::sync::Mutex;

use tokio::sync::Semaphore;

/// See the module.
#[derive(Debug)]
pub(super) struct Queue {
    due: Mutex<VecDeque<u64>>,
    /// As many permits as have arrived; closed when no more will.
    arrived: Semaphore,
}

impl Queue {
    pub(super) fn new() -> Self {
        Self { due: Mutex::default(), arrived: Semaphore::new(0) }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<u64>> {
        self.due.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// A session that was due at this time.
    pub(super) fn push(&self, due: u64) {
        self.lock().push_back(due);
        self.arrived.add_permits(1);
    }

    /// Those that have waited too long by now.
    pub(super) fn overdue(&self, now: u64, deadline: u64) -> Vec<u64> {
        let mut due = self.lock();
        let count = due.partition_point(|at| at.saturating_add(deadline) <= now);
        due.drain(..count).collect()
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
    pub(super) async fn next(&self) -> Option<u64> {
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
