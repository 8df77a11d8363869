//! Wake-ups with a precision of about 0.1 ms, many timers on one timerfd. tokio's own timers round up to 1 ms.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Instant;

use tokio::net::unix::pipe;

use crate::sys::timer;

/// The shared timerfd; [`Alarm::run`] must be polled for wake-ups to happen.
#[derive(Debug, Clone)]
pub(crate) struct Alarm(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// A timerfd. To tokio it is a pipe: something that becomes readable.
    fd: pipe::Receiver,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: BTreeMap<(Instant, u64), Waker>,
    armed: Option<Instant>,
    next_id: u64,
}

impl Alarm {
    /// Opens the timerfd; needs a tokio runtime.
    pub(crate) fn new() -> io::Result<Self> {
        let fd = pipe::Receiver::from_owned_fd_unchecked(timer::open()?)?;
        Ok(Self(Arc::new(Shared { fd, queue: Mutex::default() })))
    }

    /// A timer of one task.
    pub(crate) fn timer(&self) -> Timer {
        let mut queue = self.0.queue();
        queue.next_id += 1;
        Timer { shared: Arc::clone(&self.0), id: queue.next_id, at: None }
    }

    /// Wakes whoever is due, for ever; ends only with an error of the timerfd.
    pub(crate) async fn run(&self) -> io::Result<()> {
        loop {
            self.0.fd.readable().await?;
            match self.0.fd.try_read(&mut [0; 8]) {
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => continue,
                Err(e) => return Err(e),
            }
            for waker in self.0.due()? {
                waker.wake();
            }
        }
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn due(&self) -> io::Result<Vec<Waker>> {
        let mut queue = self.queue();
        queue.armed = None;
        let now = Instant::now();
        let later = queue.waiting.split_off(&(now, u64::MAX));
        let due = std::mem::replace(&mut queue.waiting, later);
        self.arm(&mut queue)?;
        Ok(due.into_values().collect())
    }

    /// Sets the timerfd to the earliest wake-up, unless it already fires by then.
    fn arm(&self, queue: &mut Queue) -> io::Result<()> {
        let Some((first, _)) = queue.waiting.keys().next().copied() else { return Ok(()) };
        if queue.armed.is_none_or(|armed| first < armed) {
            queue.armed = Some(first);
            timer::fire_after(&self.fd, first.saturating_duration_since(Instant::now()))?;
        }
        Ok(())
    }
}

/// One pending wake-up at most; dropped with its owner.
#[derive(Debug)]
pub(crate) struct Timer {
    shared: Arc<Shared>,
    id: u64,
    at: Option<Instant>,
}

impl Timer {
    /// Replaces the wake-up: wakes `waker` once at `at`, or not at all.
    pub(crate) fn set(&mut self, at: Option<Instant>, waker: &Waker) {
        if at.is_none() && self.at.is_none() {
            return;
        }
        let mut queue = self.shared.queue();
        if let Some(old) = self.at.take() {
            queue.waiting.remove(&(old, self.id));
        }
        if let Some(at) = at {
            queue.waiting.insert((at, self.id), waker.clone());
            self.at = Some(at);
            if self.shared.arm(&mut queue).is_err() {
                // settime fails only on a broken fd; a task that polls again is better than one that sleeps on.
                waker.wake_by_ref();
            }
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        if let Some(at) = self.at {
            self.shared.queue().waiting.remove(&(at, self.id));
        }
    }
}
