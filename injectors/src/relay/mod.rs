//! A user-space hop that carries connections and can hurt them. Needs no privilege.
//!
//! One process (or task) carries any number of routes: each listens on one address and sends to one upstream.
//! Faults are added and cleared through a control socket ([`control`] lists the operations) and take effect on
//! connections that exist as well as on new ones. The relay itself enforces every lease.
//!
//! Invariants: clearing a fault never hangs or drops a connection that the fault did not touch; what a delaying
//! fault held goes on in order; when the parent dies all faults end at once and traffic flows on for a while.
//!
//! Precision: a delay is released within about 0.2 ms of its time (one timerfd, not tokio's 1 ms wheel).

mod alarm;
mod arrivals;
mod bucket;
pub(crate) mod chance;
mod chosen;
mod connection;
pub mod control;
pub mod fault;
mod http;
mod lane;
mod line;
mod resets;
mod route;
mod stage;
pub mod stats;
pub mod table;

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::net::UnixListener;
use tokio::task::JoinSet;

use crate::sys::{host, socket};
use crate::target::{self, Protocol};
use crate::units::Span;

pub use arrivals::LATELY;
pub use connection::CONNECT_DEADLINE;
pub use fault::RelayFault;
pub use http::HEAD_MAX;
pub use route::CONNECTIONS_MAX;
pub use stats::Observation;

use alarm::Alarm;
use control::Desk;
use route::Route;

/// The most routes of one relay.
pub const ROUTES_MAX: usize = 256;
/// The longest configuration, in bytes.
const CONFIG_MAX: u64 = 1 << 20;
/// How long the configuration may take to arrive.
const CONFIG_DEADLINE: Duration = Duration::from_secs(10);
/// How long a relay without a parent waits for new connections before it ends.
const LAST_CALL: Duration = Duration::from_secs(2);
/// How often leases and the end are looked at.
const TICK: Duration = Duration::from_millis(50);

/// What a relay carries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RelayConfig {
    /// Path of the control socket.
    pub control: PathBuf,
    /// What is carried where.
    pub routes: Vec<RouteConfig>,
    /// Whether the end of standard input means that the parent has died. False for a relay that stands alone:
    /// it ends by the control operation `stop` only.
    #[serde(default = "yes")]
    pub parent: bool,
    /// How long connections are carried on, at most, once the parent has died.
    #[serde(default = "half_a_minute")]
    pub linger: Span,
}

/// One route.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteConfig {
    /// Unique in the relay.
    pub name: String,
    /// Where it listens, `127.0.0.1:PORT`; port 0 lets the kernel choose.
    pub listen: String,
    /// Where it sends, `HOST:PORT`.
    pub upstream: String,
    /// What it understands.
    #[serde(default)]
    pub protocol: Protocol,
}

fn yes() -> bool {
    true
}

fn half_a_minute() -> Span {
    Span(Duration::from_secs(30))
}

/// A relay with all its sockets bound, not yet running.
#[derive(Debug)]
pub struct Relay {
    routes: Vec<(Arc<Route>, std::net::TcpListener)>,
    control: UnixListener,
    path: PathBuf,
    linger: Duration,
    desk: Arc<Desk>,
    alarm: Alarm,
}

impl Relay {
    /// Binds every listener and the control socket. Needs a tokio runtime with I/O and time.
    ///
    /// # Errors
    /// A route is named twice, an address is no address or is in use, the control socket cannot be made.
    pub fn bind(config: &RelayConfig) -> io::Result<Self> {
        let invalid = |text: String| io::Error::new(io::ErrorKind::InvalidInput, text);
        if config.routes.len() > ROUTES_MAX {
            return Err(invalid(format!("more than {ROUTES_MAX} routes")));
        }
        let mut routes: Vec<(Arc<Route>, _)> = Vec::new();
        for RouteConfig { name, listen, upstream, protocol } in &config.routes {
            if routes.iter().any(|(route, _)| route.name == *name) {
                return Err(invalid(format!("two routes are named `{}`", name.escape_debug())));
            }
            let addr = listen.parse().map_err(|_| {
                invalid(format!("route `{name}`: `{listen}` is not an address such as 127.0.0.1:8080"))
            })?;
            let (socket, addr) = socket::bind(addr)
                .map_err(|e| io::Error::new(e.kind(), format!("route `{name}`: {listen}: {e}")))?;
            let route = Route::new(name.clone(), addr, upstream.clone(), *protocol);
            routes.push((Arc::new(route), socket));
        }
        let control = crate::sys::control::bind(&config.control)?;
        let desk = Arc::new(Desk::new(routes.iter().map(|(route, _)| Arc::clone(route)).collect()));
        let alarm = Alarm::new()?;
        let (path, linger) = (config.control.clone(), config.linger.0);
        Ok(Self { routes, control, path, linger, desk, alarm })
    }

    /// The routes as an inventory lists them, with the addresses that they really listen on.
    pub fn entries(&self) -> Vec<target::Relay> {
        let entry = |(route, _): &(Arc<Route>, _)| target::Relay {
            name: route.name.clone(),
            control: self.path.clone(),
            listen: route.listen.to_string(),
            upstream: route.upstream.clone(),
            protocol: route.protocol,
        };
        self.routes.iter().map(entry).collect()
    }

    /// Carries traffic until the control operation `stop`, or until `parent` is over and the connections have
    /// ended (see [`RelayConfig::linger`]). Removes the control socket.
    ///
    /// # Errors
    /// A listener or the timer broke.
    pub async fn run(self, parent: impl Future<Output = ()>) -> io::Result<()> {
        let Self { routes, control, path, linger, desk, alarm } = self;
        let mut tasks = JoinSet::new();
        for (route, listener) in routes {
            tasks.spawn(route.run(listener, alarm.clone()));
        }
        tasks.spawn(async move { alarm.run().await });
        let answering = Arc::clone(&desk);
        tasks.spawn(async move {
            crate::sys::control::serve(control, move |request| Arc::clone(&answering).answer(request)).await;
            Ok(())
        });
        let ended = async {
            let life = async {
                parent.await;
                desk.close();
                last_call(&desk, linger).await;
            };
            tokio::select! {
                () = life => {}
                () = desk.stopped() => {}
            }
        };
        let broken = async {
            match tasks.join_next().await {
                Some(Ok(Err(e))) => Err(e),
                Some(Err(e)) => Err(io::Error::other(e)),
                Some(Ok(Ok(()))) | None => Ok(()),
            }
        };
        let outcome = tokio::select! {
            () = ended => Ok(()),
            () = leases(&desk) => Ok(()),
            outcome = broken => outcome,
        };
        // Its absence tells a later run that the relay is gone; a dead socket tells the same.
        let _ = std::fs::remove_file(&path);
        outcome
    }
}

/// Ends faults whose lease has run out, for ever.
async fn leases(desk: &Desk) {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        desk.expire();
    }
}

/// Waits until no connection is left, at least a moment for those that are just coming, at most `linger`.
async fn last_call(desk: &Desk, linger: Duration) {
    let quiet = async {
        tokio::time::sleep(LAST_CALL).await;
        while desk.open() > 0 {
            tokio::time::sleep(TICK).await;
        }
    };
    let _ = tokio::time::timeout(linger, quiet).await;
}

/// Binds and runs a relay: [`Relay::bind`] and [`Relay::run`] in one. `ready` gets the entries once all is bound.
///
/// # Errors
/// As those two.
pub async fn serve(
    config: RelayConfig,
    parent: impl Future<Output = ()>,
    ready: impl FnOnce(&[target::Relay]),
) -> io::Result<()> {
    let relay = Relay::bind(&config)?;
    ready(&relay.entries());
    relay.run(parent).await
}

/// The life of a relay process: reads one JSON line with a [`RelayConfig`], binds, writes one JSON line with the
/// entries ([`target::Relay`]) or with an `error`, serves.
///
/// # Errors
/// The configuration does not come in time or cannot be used; see [`Relay::bind`] and [`Relay::run`].
pub async fn main(stdin: impl AsyncRead + Unpin, mut stdout: impl Write) -> io::Result<()> {
    let mut stdin = BufReader::new(stdin);
    let mut line = Vec::new();
    let mut limited = (&mut stdin).take(CONFIG_MAX);
    tokio::time::timeout(CONFIG_DEADLINE, limited.read_until(b'\n', &mut line))
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no configuration on standard input"))??;
    let config: RelayConfig = serde_json::from_slice(&line)?;
    host::raise_file_limit();
    let bound = Relay::bind(&config);
    // Whoever started this process reads one line: the entries, or why there are none.
    let mut said = match &bound {
        Ok(relay) => serde_json::to_vec(&relay.entries())?,
        Err(error) => serde_json::to_vec(&serde_json::json!({"error": error.to_string()}))?,
    };
    said.push(b'\n');
    stdout.write_all(&said)?;
    stdout.flush()?;
    let relay = bound?;
    let standing = !config.parent;
    let parent = async move {
        if standing {
            std::future::pending::<()>().await;
        }
        let mut rest = [0; 1024];
        while stdin.read(&mut rest).await.is_ok_and(|read| read > 0) {}
    };
    relay.run(parent).await
}

/// [`main`] for a binary: makes a current-thread runtime and uses the process's own pipes.
///
/// # Errors
/// As [`main`]; also if standard input is not a pipe.
pub fn main_blocking() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    let outcome = runtime.block_on(async {
        let stdin = tokio::net::unix::pipe::Receiver::from_owned_fd(host::standard_input()?)?;
        main(stdin, io::stdout()).await
    });
    // A name lookup that hangs must not keep the process.
    runtime.shutdown_background();
    outcome
}
