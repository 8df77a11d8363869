//! The control operations of a relay, one JSON object each (see [`crate::sys::control`] for the lines).
//!
//! | op | fields | answer |
//! |---|---|---|
//! | `list` | | `routes`: name, listen, upstream, protocol, connections, faults (id, fault, seed, lease_left_s) |
//! | `add` | `route`, `id`, `fault`, `lease_s`, `seed` | |
//! | `renew` | `id`, `lease_s` | an error if the fault is gone |
//! | `clear` | `id` | `cleared`, `observation` (null if unknown) |
//! | `observe` | `id` | `active`, `observation`; works for a while after the end |
//! | `stop` | | ends the relay |

use std::net::SocketAddr;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::Pending;
use crate::sys::host;

use super::Mutex;
use super::fault::RelayFault;
use super::resets::Resets;
use super::route::Route;
use super::table::{Live, Table};

/// How long a probe of a closed port, or its closing, may take.
const PROBE_DEADLINE: Duration = Duration::from_millis(500);
/// How long the answer to `stop` may take to leave.
const FAREWELL: Duration = Duration::from_millis(50);

/// A control request.
#[derive(Debug, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
enum Request {
    List,
    Add {
        route: String,
        id: String,
        fault: RelayFault,
        lease_s: f64,
        #[serde(default)]
        seed: u64,
    },
    Renew {
        id: String,
        lease_s: f64,
    },
    Clear {
        id: String,
    },
    Observe {
        id: String,
    },
    Stop,
}

/// Where requests are answered: the table of faults and the routes that must hear of changes.
#[derive(Debug)]
pub(crate) struct Desk {
    routes: Vec<Arc<Route>>,
    table: Mutex<Table>,
    resets: Mutex<Resets>,
    /// Held while an attempt of our own is under way: its reset must not pass for one to somebody else.
    attempt: tokio::sync::Mutex<()>,
    stop: Notify,
}

impl Desk {
    /// A desk without faults.
    pub(crate) fn new(routes: Vec<Arc<Route>>) -> Self {
        let names = routes.iter().map(|route| (route.name.clone(), route.protocol)).collect();
        Self {
            routes,
            table: Mutex::new(Table::new(names)),
            resets: Mutex::default(),
            attempt: tokio::sync::Mutex::new(()),
            stop: Notify::new(),
        }
    }

    /// Ends once somebody has asked to stop, and the answer had time to leave.
    pub(crate) async fn stopped(&self) {
        self.stop.notified().await;
        tokio::time::sleep(FAREWELL).await;
    }

    /// Connections that are open on all routes.
    pub(crate) fn open(&self) -> usize {
        self.routes.iter().map(|route| route.open()).sum()
    }

    /// Ends faults whose lease has run out, and takes note of what is usual on this host.
    pub(crate) fn expire(&self) {
        let now = Instant::now();
        self.resets().sample(now, host::resets_sent);
        let over = self.table().expire(now);
        for live in over {
            self.publish(live.route);
        }
    }

    /// Ends all faults and takes no more.
    pub(crate) fn close(&self) {
        self.table().close();
        for index in 0..self.routes.len() {
            self.publish(index);
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn resets(&self) -> MutexGuard<'_, Resets> {
        self.resets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, index: usize) {
        let faults = self.table().on(index).map(|(live, _)| Arc::clone(live)).collect();
        if let Some(route) = self.routes.get(index) {
            route.publish(faults);
        }
    }

    /// Waits until the listener has followed the faults, so that an answer means that it has happened.
    async fn settled(&self, index: usize) {
        let Some(route) = self.routes.get(index) else { return };
        let wait = async {
            while !route.settled() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let _ = tokio::time::timeout(PROBE_DEADLINE, wait).await;
    }

    /// Answers one request.
    pub(crate) fn answer(self: Arc<Self>, request: Value) -> Pending<'static, Result<Value, String>> {
        Box::pin(async move {
            let request = serde_json::from_value(request).map_err(|e| format!("not a request: {e}"))?;
            self.handle(request).await
        })
    }

    async fn handle(&self, request: Request) -> Result<Value, String> {
        match request {
            Request::List => Ok(self.list()),
            Request::Add { route, id, fault, lease_s, seed } => {
                let live = self.table().add(Instant::now(), &route, &id, fault, seconds(lease_s)?, seed)?;
                self.look_before(&live).await;
                self.publish(live.route);
                self.settled(live.route).await;
                Ok(json!({}))
            }
            Request::Renew { id, lease_s } => {
                self.table().renew(Instant::now(), &id, seconds(lease_s)?)?;
                Ok(json!({}))
            }
            Request::Clear { id } => {
                self.probe(&id).await;
                let cleared = self.table().clear(&id);
                if let Some(live) = &cleared {
                    self.publish(live.route);
                    self.settled(live.route).await;
                }
                let seen = self.table().find(&id).map(|(live, _)| live.stats.observation());
                Ok(json!({"cleared": cleared.is_some(), "observation": seen}))
            }
            Request::Observe { id } => {
                self.probe(&id).await;
                let found = self.table().find(&id);
                let (live, active) = found.ok_or_else(|| format!("no fault `{}`", id.escape_debug()))?;
                Ok(json!({"active": active, "observation": live.stats.observation()}))
            }
            Request::Stop => {
                self.close();
                self.stop.notify_one();
                Ok(json!({}))
            }
        }
    }

    fn list(&self) -> Value {
        let (now, table) = (Instant::now(), self.table());
        let fault = |(live, until): &(Arc<Live>, Instant)| {
            json!({
                "id": live.id,
                "fault": live.fault,
                "seed": live.seed,
                "lease_left_s": until.saturating_duration_since(now).as_secs_f64(),
            })
        };
        let routes = self.routes.iter().enumerate().map(|(index, route)| {
            json!({
                "name": route.name,
                "listen": route.listen.to_string(),
                "upstream": route.upstream,
                "protocol": route.protocol,
                "connections": route.open(),
                "faults": table.on(index).map(fault).collect::<Vec<_>>(),
            })
        });
        json!({"routes": routes.collect::<Vec<_>>()})
    }

    /// Takes note of what shows later whether somebody wanted in at a port that is about to close.
    async fn look_before(&self, live: &Live) {
        let (RelayFault::Refuse, Some(route)) = (&live.fault, self.routes.get(live.route)) else { return };
        let _alone = self.attempt.lock().await;
        let start = host::resets_sent().map(|sent| self.resets().start(Instant::now(), sent));
        let mut stats = live.stats.edit();
        (stats.seen.came_before, stats.seen.open_before) = (route.came_lately(), route.open() as u64);
        stats.resets_from = start;
    }

    /// A closed port sees nothing of those that it refuses, so the effect of `refuse` is seen from outside: by an
    /// attempt of our own, and by the resets that the kernel has sent to others.
    async fn probe(&self, id: &str) {
        let Some((live, true)) = self.table().find(id) else { return };
        let (RelayFault::Refuse, Some(route)) = (&live.fault, self.routes.get(live.route)) else { return };
        let mut addr: SocketAddr = route.listen;
        if addr.ip().is_unspecified() {
            let loopback: [std::net::IpAddr; 2] =
                [std::net::Ipv4Addr::LOCALHOST.into(), std::net::Ipv6Addr::LOCALHOST.into()];
            addr.set_ip(loopback[usize::from(addr.is_ipv6())]);
        }
        let _alone = self.attempt.lock().await;
        let outcome = tokio::time::timeout(PROBE_DEADLINE, TcpStream::connect(addr)).await;
        let refused = matches!(&outcome, Ok(Err(e)) if e.kind() == std::io::ErrorKind::ConnectionRefused);
        let mut resets = self.resets();
        resets.own += u64::from(refused);
        let mut stats = live.stats.edit();
        stats.seen.probes += 1;
        stats.seen.refused += u64::from(refused);
        if let (Some(start), Some(sent)) = (stats.resets_from, host::resets_sent()) {
            let (others, usual) = resets.since(start, Instant::now(), sent);
            (stats.seen.refused_others, stats.seen.usual_resets) = (Some(others), usual);
        }
    }
}

fn seconds(value: f64) -> Result<Duration, String> {
    Duration::try_from_secs_f64(value).map_err(|_| format!("{value} is no lease"))
}
