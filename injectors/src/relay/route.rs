//! One route: its listener, and the faults that its connections look at.
//!
//! Invariants: the accept loop never dials; at most [`CONNECTIONS_MAX`] connections live; while connections are
//! refused the port stays bound; a changed list of faults wakes every connection.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::target::Protocol;

use super::alarm::Alarm;
use super::arrivals::Arrivals;
use super::connection::carry;
use super::fault::RelayFault;
use super::table::Live;
use crate::sys::socket;

/// The most connections of one route; more wait in the kernel.
pub const CONNECTIONS_MAX: usize = 4096;
/// How long the listener rests after an error such as too many open files.
const REST: Duration = Duration::from_millis(50);

/// See the module.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) name: String,
    pub(crate) listen: SocketAddr,
    pub(crate) upstream: String,
    pub(crate) protocol: Protocol,
    version: AtomicU64,
    faults: Mutex<Arc<[Arc<Live>]>>,
    wakers: Mutex<HashMap<u64, Waker>>,
    open: AtomicUsize,
    arrivals: Mutex<Arrivals>,
    listening: AtomicBool,
}

impl Route {
    /// A route without faults.
    pub(crate) fn new(name: String, listen: SocketAddr, upstream: String, protocol: Protocol) -> Self {
        Self {
            name,
            listen,
            upstream,
            protocol,
            version: AtomicU64::new(1),
            faults: Mutex::new(Arc::new([])),
            wakers: Mutex::default(),
            open: AtomicUsize::new(0),
            arrivals: Mutex::new(Arrivals::new(Instant::now())),
            listening: AtomicBool::new(true),
        }
    }

    /// Replaces the faults and wakes every connection.
    pub(crate) fn publish(&self, faults: Vec<Arc<Live>>) {
        *self.faults.lock().unwrap_or_else(PoisonError::into_inner) = faults.into();
        self.version.fetch_add(1, Ordering::Release);
        for waker in self.wakers.lock().unwrap_or_else(PoisonError::into_inner).values() {
            waker.wake_by_ref();
        }
    }

    /// The faults, in order of arrival.
    pub(crate) fn faults(&self) -> Arc<[Arc<Live>]> {
        Arc::clone(&self.faults.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Connections that are open now.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Connections that were accepted in the last [`super::LATELY`].
    pub(crate) fn came_lately(&self) -> u64 {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner).lately(Instant::now())
    }

    /// Tells one connection, or with number zero the listener, about changes.
    pub(crate) fn watch(self: &Arc<Self>, number: u64) -> Change {
        if number > 0 {
            self.open.fetch_add(1, Ordering::Relaxed);
        }
        Change { route: Arc::clone(self), number, seen: 0, waker: None }
    }

    /// Whether the listener has followed the faults: it refuses if, and only if, one of them says so.
    pub(crate) fn settled(&self) -> bool {
        self.listening.load(Ordering::Relaxed) != self.refuses()
    }

    fn refuses(&self) -> bool {
        self.faults().iter().any(|live| matches!(live.fault, RelayFault::Refuse))
    }

    /// Accepts and carries connections until the future is dropped, which drops them.
    pub(crate) async fn run(
        self: Arc<Self>,
        mut listener: std::net::TcpListener,
        alarm: Alarm,
    ) -> io::Result<()> {
        let mut connections = JoinSet::new();
        let mut change = self.watch(0);
        let mut number = 0;
        loop {
            listener = self.accept(listener, &alarm, &mut change, &mut connections, &mut number).await?;
            socket::stop_listening(&listener)?;
            self.listening.store(false, Ordering::Relaxed);
            while self.refuses() {
                change.seen();
                tokio::select! {
                    () = std::future::poll_fn(|cx| change.poll(cx)) => {}
                    Some(_) = connections.join_next() => {}
                }
            }
            while socket::listen_again(&listener).is_err() {
                // Other routes go on; this one comes back when it can.
                tokio::time::sleep(REST).await;
            }
            self.listening.store(true, Ordering::Relaxed);
        }
    }

    /// Accepts connections until a fault refuses them; returns the listener, with none left waiting.
    async fn accept(
        self: &Arc<Self>,
        listener: std::net::TcpListener,
        alarm: &Alarm,
        change: &mut Change,
        connections: &mut JoinSet<()>,
        number: &mut u64,
    ) -> io::Result<std::net::TcpListener> {
        // Registered anew each time: tokio never takes back that a listener was closed.
        let listener = TcpListener::from_std(listener)?;
        loop {
            change.seen();
            let refuses = self.refuses();
            let full = connections.len() >= CONNECTIONS_MAX;
            tokio::select! {
                biased;
                accepted = listener.accept(), if !full => match accepted {
                    Ok((client, _)) => {
                        *number += 1;
                        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner).note(Instant::now());
                        connections.spawn(carry(Arc::clone(self), client, *number, alarm.timer()));
                    }
                    // The client gave up in the queue.
                    Err(e) if e.kind() == io::ErrorKind::ConnectionAborted => {}
                    Err(_) => tokio::time::sleep(REST).await,
                },
                () = std::future::ready(()), if refuses => return listener.into_std(),
                () = std::future::poll_fn(|cx| change.poll(cx)) => {}
                Some(_) = connections.join_next() => {}
            }
        }
    }
}

/// Tells its owner when the route's faults have changed.
#[derive(Debug)]
pub(crate) struct Change {
    route: Arc<Route>,
    number: u64,
    seen: u64,
    waker: Option<Waker>,
}

impl Change {
    /// Ready once the faults are others than at the last [`Change::seen`].
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.waker.as_ref().is_none_or(|waker| !waker.will_wake(cx.waker())) {
            self.waker = Some(cx.waker().clone());
            let mut wakers = self.route.wakers.lock().unwrap_or_else(PoisonError::into_inner);
            wakers.insert(self.number, cx.waker().clone());
        }
        if self.route.version.load(Ordering::Acquire) == self.seen { Poll::Pending } else { Poll::Ready(()) }
    }

    /// Takes note of the state as it is now: to be called before it is read.
    pub(crate) fn seen(&mut self) {
        self.seen = self.route.version.load(Ordering::Acquire);
    }
}

impl Drop for Change {
    fn drop(&mut self) {
        self.route.wakers.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.number);
        if self.number > 0 {
            self.route.open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
