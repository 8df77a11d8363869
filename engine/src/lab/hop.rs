//! One hop: the way from a process to the instances of a service, with deadlines and bounded retries.
//!
//! Invariants: a hop always answers before the deadline that it was given, by its callee's answer or by 502 (the
//! connection failed), 503 (overload, nobody to ask) or 504 (deadline); a try is repeated only if the instance that was
//! asked failed itself, never for an error of someone behind it, and only within retries and retry budget.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, StatusCode, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::LabOptions;
use super::retry::{Budget, Choose};
use super::wire::{DEADLINE, Reply};

/// The longest answer that a hop accepts, in bytes.
const BODY_MAX: usize = 256 * 1024;
/// A try with less time than this is not worth making.
const TRY_MIN: Duration = Duration::from_millis(10);
/// How long an idle connection is kept: less than the server's own patience.
const IDLE: Duration = Duration::from_secs(15);

/// One instance as its callers know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Peer {
    /// Its name.
    pub(super) name: String,
    /// Where its relay listens.
    pub(super) addr: String,
}

/// How long one try may take and how often it may be repeated.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// One try.
    pub(super) per_try: Duration,
    /// Tries beyond the first.
    pub(super) retries: u32,
    /// Retries as a share of requests.
    pub(super) budget: f64,
}

impl Patience {
    /// With this much time per try, and the lab's options for the rest.
    pub(super) fn new(per_try: Duration, options: &LabOptions) -> Self {
        Self { per_try, retries: options.retries, budget: options.retry_budget }
    }
}

/// The way to the instances of one service.
pub(super) struct Hop<C> {
    service: &'static str,
    peers: Vec<Peer>,
    client: Client<HttpConnector, Empty<Bytes>>,
    chooser: Mutex<C>,
    budget: Mutex<Budget>,
    patience: Patience,
}

/// Why a try brought no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Broken {
    Connection,
    Deadline,
}

impl<C: Choose> Hop<C> {
    /// To these instances; `chooser` knows them by their order.
    pub(super) fn new(service: &'static str, peers: Vec<Peer>, chooser: C, patience: Patience) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(patience.per_try));
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .build(connector);
        let budget = Mutex::new(Budget::new(patience.budget));
        Self { service, peers, client, chooser: Mutex::new(chooser), budget, patience }
    }

    /// The instances, in order.
    pub(super) fn peers(&self) -> &[Peer] {
        &self.peers
    }

    /// The chooser. Never hold it across an await.
    pub(super) fn chooser(&self) -> MutexGuard<'_, C> {
        locked(&self.chooser)
    }

    /// Asks for a path; retries as allowed; answers before `until`.
    pub(super) async fn call(&self, target: &str, until: Instant) -> Reply {
        locked(&self.budget).request();
        let mut tried: Vec<usize> = Vec::new();
        loop {
            let chosen = self.chooser().choose(Instant::now().into_std(), &tried);
            let Some(index) = chosen else {
                let why = "has no healthy instance to ask";
                return Reply::error(StatusCode::SERVICE_UNAVAILABLE, self.service, why);
            };
            let answer = self.attempt(index, target, until.min(Instant::now() + self.patience.per_try)).await;
            self.chooser().report(Instant::now().into_std(), index, answer.is_ok());
            tried.push(index);
            if !self.worth_repeating(&answer, index) || !self.may_repeat(tried.len(), until) {
                return answer.unwrap_or_else(|broken| self.blame(index, broken));
            }
        }
    }

    /// Asks one instance once, for a health check: no choice, no retry. True: it answered 200 in time.
    pub(super) async fn healthy(&self, index: usize, deadline: Duration) -> bool {
        let answer = self.attempt(index, "/healthz", Instant::now() + deadline).await;
        answer.is_ok_and(|reply| reply.status == StatusCode::OK)
    }

    fn worth_repeating(&self, answer: &Result<Reply, Broken>, index: usize) -> bool {
        match answer {
            Err(_) => true,
            Ok(reply) => {
                reply.status == StatusCode::SERVICE_UNAVAILABLE
                    && reply.failed.as_deref() == Some(self.peers[index].name.as_str())
            }
        }
    }

    fn may_repeat(&self, tries: usize, until: Instant) -> bool {
        tries <= self.patience.retries as usize
            && until.saturating_duration_since(Instant::now()) > TRY_MIN
            && locked(&self.budget).take()
    }

    async fn attempt(&self, index: usize, target: &str, end: Instant) -> Result<Reply, Broken> {
        let wait = end.saturating_duration_since(Instant::now());
        let uri = format!("http://{}{target}", self.peers[index].addr);
        let request = Request::get(uri.parse::<Uri>().map_err(|_| Broken::Connection)?)
            .header(DEADLINE, wait.as_millis() as u64)
            .body(Empty::new())
            .map_err(|_| Broken::Connection)?;
        let exchange = async {
            let response = self.client.request(request).await.map_err(|_| Broken::Connection)?;
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, BODY_MAX).collect().await.map_err(|_| Broken::Connection)?;
            Ok(Reply::read(parts.status, &parts.headers, body.to_bytes()))
        };
        tokio::time::timeout_at(end, exchange).await.unwrap_or(Err(Broken::Deadline))
    }

    fn blame(&self, index: usize, broken: Broken) -> Reply {
        let name = &self.peers[index].name;
        match broken {
            Broken::Connection => {
                Reply::error(StatusCode::BAD_GATEWAY, name, "refused or broke the connection")
            }
            Broken::Deadline => {
                Reply::error(StatusCode::GATEWAY_TIMEOUT, name, "did not answer within its deadline")
            }
        }
    }
}

/// Locks a mutex that is never held across an await; a panic of another holder does not spoil plain numbers.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
