//! The open-model load generator: HTTP/1.1, arrivals that keep their intended times, latency from the intended time.
//!
//! Invariants:
//! - Every arrival ends in exactly one way: a good answer or one [`ErrorClass`]. Only a stop ([`Stop::Now`]) cuts
//!   requests short; those are counted as aborted and in nothing else.
//! - Latencies count from the intended time, so waiting for a connection, the connection itself, the TLS handshake and
//!   the generator's own lateness are part of them. Good answers are recorded when their last byte is there, deadline
//!   misses at their age; other failures have no latency.
//! - Workers share nothing: a thread, a runtime, connections and counts of its own, and every k-th arrival. No lock, no
//!   channel and no allocation per request.
//! - A request belongs to the fault phase if it was dispatched or ended in it, else to the phase of its dispatch.

mod bridge;
mod class;
mod clock;
mod collect;
mod connection;
mod http;
mod knobs;
mod lack;
mod lane;
mod origin;
mod phase;
mod saturation;
mod spec;
mod strain;
mod sums;
mod tally;
mod worker;

use std::io;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Instant;

use reports::record::{GeneratorRecord, LoadRecord};
use tokio::sync::{mpsc, oneshot};

pub use bridge::{specs, verify};
pub use class::{ErrorClass, Errors};
pub use collect::{LoadTick, PhaseTick, Tick};
pub use knobs::{Knob, Knobs, Turned};
pub use lack::{Lack, Lacks};
pub use origin::OriginError;
pub use phase::PhaseCell;
pub use saturation::{CPU_HOT, Facts, overtaxed, saturation};
pub use spec::{
    CONNECTIONS_MAX, DEADLINE_MAX, Expect, LoadSpec, REQUESTS_MAX, RequestSpec, SpecError, TlsSpec,
};

use crate::schedule::Profile;
use clock::Clock;
use collect::Collector;
use knobs::PaceCell;
use origin::Origin;
use spec::Checked;
use worker::{Setup, StopCell};

/// The rate up to which one worker is enough, in requests per second.
pub const PER_THREAD: f64 = 20_000.0;
/// Ticks that wait for their reader.
const TICKS: usize = 60;
/// Slices that wait for the collector, per worker.
const SLICES: usize = 8;
/// The most loads of one run.
pub const LOADS_MAX: usize = 64;

/// Files that are kept from the load: pipes, journal, runtimes, probes, and a control socket or a process handle for
/// each injection under way.
const FILES_RESERVED: u64 = 64;

/// Why there is no load.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// No load at all, or more than [`LOADS_MAX`].
    #[error("1 to {LOADS_MAX} loads can be sent at a time")]
    Count,
    /// A load cannot be sent as it is.
    #[error("load {load}: {why}")]
    Spec {
        /// Its name.
        load: String,
        /// Why.
        why: SpecError,
    },
    /// An origin cannot be used.
    #[error("load {load}: {why}")]
    Origin {
        /// The load's name.
        load: String,
        /// Why.
        why: OriginError,
    },
    /// The socket that changes the rate cannot be opened.
    #[error("cannot listen for changes of the rate: {0}")]
    Control(#[source] io::Error),
    /// No thread could be started.
    #[error("cannot start a load thread: {0}")]
    Thread(#[source] io::Error),
    /// Not even one connection for each load and thread fits below the limit.
    #[error(
        "this process may open {limit} files, and {needed} are needed: raise the limit (`ulimit -n`; `ulimit -Hn` shows \
         how far)"
    )]
    Files {
        /// What the process may open.
        limit: u64,
        /// The least that would do.
        needed: u64,
    },
}

/// A load, ready to be sent.
struct Load {
    name: Arc<str>,
    checked: Checked,
    origins: Vec<Origin>,
    profile: Profile,
    poisson: bool,
    reuse: bool,
    max_connections: u32,
    /// In nanoseconds.
    deadline: u64,
    /// In nanoseconds.
    connect_within: u64,
}

/// Loads that are checked and whose names are resolved. Nothing has been sent.
pub struct Prepared(Vec<Arc<Load>>, Option<u32>);

/// Checks the loads, resolves their hosts (once; all addresses are kept and used in turn) and reads certificates.
/// Needs a tokio runtime with time.
///
/// # Errors
/// The first thing that is wrong.
pub async fn prepare(specs: Vec<LoadSpec>) -> Result<Prepared, LoadError> {
    if specs.is_empty() || specs.len() > LOADS_MAX {
        return Err(LoadError::Count);
    }
    let mut loads = Vec::new();
    for spec in specs {
        let checked = spec::check(&spec).map_err(|why| LoadError::Spec { load: spec.name.clone(), why })?;
        let origins = origin::prepare(&checked.origins, &spec.tls).await;
        loads.push(Arc::new(Load {
            origins: origins.map_err(|why| LoadError::Origin { load: spec.name.clone(), why })?,
            name: Arc::from(spec.name),
            checked,
            profile: spec.profile,
            poisson: spec.poisson,
            reuse: spec.reuse,
            max_connections: spec.max_connections,
            deadline: clock::nanos(spec.deadline),
            connect_within: clock::nanos(spec.connect_timeout),
        }));
    }
    Ok(Prepared(loads, None))
}

/// The same, kept within what this process may open; and what had to be lowered for that, in words.
///
/// # Errors
/// As [`prepare`], or not even one connection for each load and thread fits.
pub async fn ready(specs: Vec<LoadSpec>) -> Result<(Prepared, Option<String>), LoadError> {
    let mut prepared = prepare(specs).await?;
    let limit = injectors::sys::host::allow_files(prepared.sockets() + FILES_RESERVED);
    let lowered = prepared.fit(limit, FILES_RESERVED)?;
    Ok((prepared, lowered))
}

impl Prepared {
    /// So many threads instead of as many as the rate needs, as far as there are connections for them.
    #[must_use]
    pub fn with_threads(self, threads: u32) -> Self {
        Self(self.0, Some(threads.max(1)))
    }

    /// Threads: one per core at most, one per 20,000/s at most, and each with at least one connection of each load.
    fn workers(&self) -> u32 {
        let peak: f64 = self.0.iter().map(|load| load.profile.peak()).sum();
        let connections = self.0.iter().map(|load| load.max_connections).min().unwrap_or(1);
        self.1.unwrap_or_else(|| threads(peak, PER_THREAD)).min(connections)
    }

    /// The most sockets that the loads may have open at a time.
    pub fn sockets(&self) -> u64 {
        self.0.iter().map(|load| u64::from(load.max_connections) * load.origins.len() as u64).sum()
    }

    /// Keeps the connections of all loads below what this process may open, `reserved` files aside, so that neither
    /// proofs nor undos ever lack a descriptor. Returns what had to be lowered, in words.
    ///
    /// # Errors
    /// Not even one connection for each load, origin and thread fits.
    pub fn fit(&mut self, limit: u64, reserved: u64) -> Result<Option<String>, LoadError> {
        let (wanted, room) = (self.sockets(), limit.saturating_sub(reserved));
        if wanted <= room {
            return Ok(None);
        }
        let workers = u64::from(self.workers());
        let least: u64 = self.0.iter().map(|load| workers * load.origins.len() as u64).sum();
        if least > room {
            return Err(LoadError::Files { limit, needed: least + reserved });
        }
        let share = room as f64 / wanted as f64;
        for load in &mut self.0 {
            let lowered = (f64::from(load.max_connections) * share) as u32;
            let load = Arc::get_mut(load).expect("nothing has been started with it");
            load.max_connections = lowered.max(workers as u32);
        }
        Ok(Some(format!(
            "this process may open {limit} files: at most {} connections are kept instead of {wanted}",
            self.sockets()
        )))
    }
}

/// How many threads a rate needs, one per core at most.
pub fn threads(rate: f64, per_thread: f64) -> u32 {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    ((rate / per_thread).ceil() as u32).clamp(1, cores as u32)
}

/// How to end before the profile does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// No more arrivals; requests under way end by themselves, at the latest at their deadline.
    Graceful,
    /// Requests under way are cut short.
    Now,
}

/// A load that is being sent. Dropping it stops everything at once.
pub struct Running {
    stop: Arc<StopCell>,
    ticks: Option<mpsc::Receiver<Tick>>,
    knobs: Knobs,
    done: oneshot::Receiver<LoadOutcome>,
}

/// What a load came to.
#[derive(Debug, Default)]
pub struct LoadOutcome {
    /// One per load, in the order in which they were given.
    pub loads: Vec<LoadRecord>,
    /// How the generator did; judged without knowledge of the objectives (see [`saturation`]).
    pub generator: GeneratorRecord,
    /// What it was judged by.
    pub facts: Facts,
}

/// Starts the threads. Time 0 of the profiles is `origin`, which should lie some 50 ms ahead. The same seed gives the
/// same arrivals.
///
/// # Errors
/// A thread cannot be started.
pub fn start(
    prepared: Prepared,
    phase: &Arc<PhaseCell>,
    origin: Instant,
    seed: u64,
) -> Result<Running, LoadError> {
    let workers = prepared.workers();
    let (clock, loads) = (Clock::new(origin), prepared.0);
    let (out, slices) = sync_channel(SLICES * workers as usize);
    let (tick, ticks) = mpsc::channel(TICKS);
    let (done, outcome) = oneshot::channel();
    // Stops the workers that did start if a later one does not.
    let running = Running {
        stop: Arc::new(StopCell::default()),
        ticks: Some(ticks),
        knobs: Knobs(Arc::new(PaceCell::new(loads.clone(), clock))),
        done: outcome,
    };
    let collector = Collector::new(loads.clone(), workers, clock, Arc::clone(phase), slices, tick);
    let mut threads = Vec::new();
    for worker in 0..workers {
        let setup = Setup {
            worker,
            workers,
            loads: loads.clone(),
            clock,
            phase: Arc::clone(phase),
            stop: Arc::clone(&running.stop),
            paces: Arc::clone(&running.knobs.0),
            seed,
            out: out.clone(),
        };
        let thread = std::thread::Builder::new().name(format!("load-{worker}"));
        threads.push(thread.spawn(move || worker::run(&setup)).map_err(LoadError::Thread)?);
    }
    // Only the workers hold the sending side now: when they are gone, the collector ends too.
    drop(out);
    let thread = std::thread::Builder::new().name("load-collect".to_owned());
    thread.spawn(move || collector.run(threads, done)).map_err(LoadError::Thread)?;
    Ok(running)
}

impl Running {
    /// One tick per second, at most 200 ms after the second's end. Can be taken once; a reader that falls 60 seconds
    /// behind misses some.
    pub fn ticks(&mut self) -> Option<mpsc::Receiver<Tick>> {
        self.ticks.take()
    }

    /// What changes its rate while it goes on.
    pub fn knobs(&self) -> Knobs {
        self.knobs.clone()
    }

    /// Ends the load early. Threads are gone within 100 ms, or, if graceful, that long after the longest deadline.
    pub fn stop(&self, how: Stop) {
        self.stop.request(match how {
            Stop::Graceful => StopCell::GRACEFUL,
            Stop::Now => StopCell::NOW,
        });
    }

    /// Waits until all requests have ended. What a thread that failed has counted is missing, and [`saturation`] says so.
    pub async fn finish(mut self) -> LoadOutcome {
        (&mut self.done).await.unwrap_or_else(|_| LoadOutcome {
            facts: Facts { broken: vec!["the collector is gone".to_owned()], ..Facts::default() },
            ..LoadOutcome::default()
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop(Stop::Now);
    }
}
