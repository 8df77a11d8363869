//! The open-model load generator: arrivals that keep their intended times, latency from the intended time.
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
mod datagram;
mod dial;
mod dns;
mod h2;
mod http;
mod journey;
mod knobs;
mod lack;
mod lane;
mod origin;
mod part;
mod phase;
pub mod recipe;
pub mod remote;
mod reply;
mod saturation;
mod spec;
mod strain;
mod sums;
mod tally;
mod url;
mod wire;
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
pub use journey::JourneySpec;
pub use knobs::{Knob, Knobs, Turned};
pub use lack::{Lack, Lacks};
pub use origin::OriginError;
pub use phase::PhaseCell;
pub use saturation::{CPU_HOT, Facts, overtaxed, saturation};
pub use spec::{
    Body, CONNECTIONS_MAX, DEADLINE_MAX, Expect, HeaderExpect, HeaderTest, HttpVersion, Identity, JsonExpect,
    LoadSpec, REQUESTS_MAX, Reply, RequestSpec, SOURCES_MAX, STREAMS_MAX, SpecError, TlsSpec,
};

use clock::Clock;
use collect::Collector;
use journey::Seats;
use knobs::PaceCell;
use part::{Load, Outline, Part, Share};
use remote::{Crew, Hands};
use worker::StopCell;

/// The rate up to which one worker is enough, in requests per second.
pub const PER_THREAD: f64 = 20_000.0;
/// Ticks that wait for their reader.
const TICKS: usize = 60;
/// Slices that wait for the collector, per worker.
const SLICES: usize = 8;
/// The most loads of one run.
pub const LOADS_MAX: usize = 64;

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
    /// The socket that changes the rate cannot be opened.
    #[error("cannot listen for changes of the rate: {0}")]
    Control(#[source] io::Error),
    /// A load of journeys is more than its processes can be told.
    #[error(
        "load {load}: its bodies from files and the columns of feeds that it uses are more than {} MiB for each of its \
         processes: use smaller ones, fewer rows, or fewer processes", most >> 20
    )]
    Told {
        /// Its name.
        load: String,
        /// What fits, in bytes.
        most: usize,
    },
    /// A journey cannot be walked.
    #[error("load {load}: {why}")]
    Journey {
        /// The load's name.
        load: String,
        /// Why.
        why: crate::journey::ScriptError,
    },
    /// A worker cannot be had.
    #[error("{worker}: {why}")]
    Worker {
        /// Which.
        worker: String,
        /// Why.
        why: String,
    },
    /// A log is sent from here only.
    #[error("a log is sent again by this process only: leave the workers out")]
    Replay,
    /// Some workers would have no connection.
    #[error("{workers} threads of workers cannot share {connections} connections: allow more, or hire fewer")]
    Connections {
        /// Threads of all workers.
        workers: u32,
        /// What a load may open.
        connections: u32,
    },
}

/// Loads that are checked, and whoever is to send them ready to do so. Nothing has been sent.
pub struct Prepared {
    outlines: Vec<Arc<Outline>>,
    /// What threads of this process send.
    part: Part,
    /// What other processes send.
    crew: Crew,
    /// Threads in all, wherever they are.
    workers: u32,
}

/// Checks the loads, resolves their hosts (once; all addresses are kept and used in turn) and reads certificates.
/// Needs a tokio runtime with time.
///
/// # Errors
/// The first thing that is wrong.
pub async fn prepare(specs: Vec<LoadSpec>) -> Result<Prepared, LoadError> {
    let outlines = outlines(&specs)?;
    let workers = threads_for(&specs, cores());
    let (share, loads) = (Share { first: 0, threads: workers, of: workers }, specs.len());
    let part = Part::new(specs.into_iter().enumerate().collect(), share, loads).await?;
    Ok(Prepared { outlines, part, crew: Crew::nobody(), workers })
}

/// The same, kept within what this process may open; and what had to be lowered for that, in words.
///
/// # Errors
/// As [`prepare`], or not even one connection for each load and thread fits.
pub async fn ready(specs: Vec<LoadSpec>) -> Result<(Prepared, Option<String>), LoadError> {
    let mut prepared = prepare(specs).await?;
    let lowered = prepared.part.within_limits()?;
    Ok((prepared, lowered))
}

/// One load, of either model.
#[derive(Debug, Clone, PartialEq)]
pub enum Work {
    /// Requests that arrive at a rate.
    Open(LoadSpec),
    /// Users or sessions that walk a journey.
    Journey(JourneySpec),
}

/// Loads of both models: requests are sent from here, and each load of journeys by children. They end with the thread that
/// calls this.
///
/// # Errors
/// As [`ready`], or a child cannot be started.
pub async fn ready_all(works: Vec<Work>) -> Result<(Prepared, Option<String>), LoadError> {
    if works.is_empty() || works.len() > LOADS_MAX {
        return Err(LoadError::Count);
    }
    let outline = |work: &Work| match work {
        Work::Open(spec) => Outline::new(spec),
        Work::Journey(spec) => spec.outline(),
    };
    let outlines: Vec<Arc<Outline>> =
        works.iter().map(|work| outline(work).map(Arc::new)).collect::<Result<_, _>>()?;
    let (mut open, mut journeys, loads) = (Vec::new(), Vec::new(), works.len());
    for (place, work) in works.into_iter().enumerate() {
        match work {
            Work::Open(spec) => open.push((place, spec)),
            Work::Journey(spec) => journeys.push((place, spec)),
        }
    }
    let mut part = Part::nothing(loads);
    if !open.is_empty() {
        let specs: Vec<LoadSpec> = open.iter().map(|(_, spec)| spec.clone()).collect();
        let own = threads_for(&specs, cores());
        part = Part::new(open, Share { first: 0, threads: own, of: own }, loads).await?;
    }
    let lowered = part.within_limits()?;
    let first = part.threads();
    let workers = first + journeys.iter().map(|(_, spec)| spec.processes()).sum::<u32>();
    let (crew, told) = send_for(journeys, first, &outlines).await?;
    let lowered: Vec<String> = lowered.into_iter().chain(told).collect();
    let lowered = (!lowered.is_empty()).then(|| lowered.join("; "));
    Ok((Prepared { outlines, part, crew, workers }, lowered))
}

/// Children for each load of journeys.
async fn send_for(
    journeys: Vec<(usize, JourneySpec)>,
    first: u32,
    outlines: &[Arc<Outline>],
) -> Result<(Crew, Vec<String>), LoadError> {
    if journeys.is_empty() {
        return Ok((Crew::nobody(), Vec::new()));
    }
    let mut orders = Vec::new();
    for (place, spec) in journeys {
        let kinds = |load: usize| if load == place { outlines[load].kinds.len() } else { 0 };
        let kinds: Vec<usize> = (0..outlines.len()).map(kinds).collect();
        let (of, spec) = (spec.processes(), spec.told()?);
        for number in 0..of {
            let job = remote::Job::Journey(place, Box::new(spec.clone()), Seats { number, of });
            let first = first + orders.len() as u32;
            orders.push(remote::Order { job, first, threads: 1, of: 1, kinds: kinds.clone() });
        }
    }
    let met = remote::hire(&Hands::Processes(orders.len() as u32)).await?;
    met.brief(orders)
}

/// The same, sent by whoever is named. Children end with the thread that calls this.
///
/// # Errors
/// As [`ready`], or a worker cannot be had.
pub async fn ready_by(specs: Vec<LoadSpec>, hands: &Hands) -> Result<(Prepared, Option<String>), LoadError> {
    if matches!(hands, Hands::Here) {
        return ready(specs).await;
    }
    if specs.iter().any(|spec| spec.replay.is_some()) {
        return Err(LoadError::Replay);
    }
    let elsewhere = |outline| Arc::new(Outline { keeps: Some("is sent by other processes"), ..outline });
    let outlines = outlines(&specs)?.into_iter().filter_map(Arc::into_inner).map(elsewhere).collect();
    let met = remote::hire(hands).await?;
    let cores = met.cores();
    // Each as many as it has processors, and no more than the rate asks for; the arrivals are dealt out one by one.
    let each = threads_for(&specs, u32::MAX).div_ceil(cores.len().max(1) as u32);
    let own: Vec<u32> = match hands {
        // They share one machine.
        Hands::Processes(count) => cores.iter().map(|cores| each.min((cores / count).max(1))).collect(),
        _ => cores.iter().map(|cores| each.min(*cores)).collect(),
    };
    let (of, loads) = (own.iter().sum(), specs.len());
    let connections = specs.iter().map(|spec| spec.max_connections).min().unwrap_or(1);
    if of > connections {
        return Err(LoadError::Connections { workers: of, connections });
    }
    let kinds: Vec<usize> = specs.iter().map(|spec| spec.requests.len()).collect();
    let mut first = 0;
    let orders = own.iter().map(|threads| {
        let job = remote::Job::Open(specs.iter().cloned().enumerate().collect());
        first += threads;
        remote::Order { job, first: first - threads, threads: *threads, of, kinds: kinds.clone() }
    });
    let (crew, lowered) = met.brief(orders.collect())?;
    let lowered = (!lowered.is_empty()).then(|| lowered.join("; "));
    Ok((Prepared { outlines, part: Part::nothing(loads), crew, workers: of }, lowered))
}

fn outlines(specs: &[LoadSpec]) -> Result<Vec<Arc<Outline>>, LoadError> {
    if specs.is_empty() || specs.len() > LOADS_MAX {
        return Err(LoadError::Count);
    }
    specs.iter().map(|spec| Outline::new(spec).map(Arc::new)).collect()
}

fn cores() -> u32 {
    std::thread::available_parallelism().map_or(1, |cores| cores.get() as u32)
}

/// Threads for loads: one per core at most, one per 20,000/s at most, and each with at least one connection of each load.
fn threads_for(specs: &[LoadSpec], cores: u32) -> u32 {
    let peak: f64 = specs.iter().map(|spec| spec.profile.peak()).sum();
    let connections = specs.iter().map(|spec| spec.max_connections).min().unwrap_or(1);
    ((peak / PER_THREAD).ceil() as u32).clamp(1, cores).min(connections)
}

impl Prepared {
    /// The most sockets that the loads may have open at a time in this process.
    pub fn sockets(&self) -> u64 {
        self.part.sockets()
    }

    /// Keeps the connections of all loads below what this process may open, `reserved` files aside, so that neither
    /// proofs nor undos ever lack a descriptor. Returns what had to be lowered, in words.
    ///
    /// # Errors
    /// Not even one connection for each load, origin and thread fits.
    pub fn fit(&mut self, limit: u64, reserved: u64) -> Result<Option<String>, LoadError> {
        self.part.fit(limit, reserved)
    }

    /// So many threads of this process instead of as many as the rate needs, as far as there are connections for them.
    /// Nothing changes where other processes send.
    #[must_use]
    pub fn with_threads(mut self, threads: u32) -> Self {
        if self.part.threads() == self.workers {
            self.workers = self.part.spread(threads);
        }
        self
    }
}

/// How many threads a rate needs, one per core at most.
pub fn threads(rate: f64, per_thread: f64) -> u32 {
    ((rate / per_thread).ceil() as u32).clamp(1, cores())
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

/// Starts it. Time 0 of the profiles is `origin`, which should lie some 50 ms ahead. The same seed gives the same
/// arrivals.
///
/// # Errors
/// A thread cannot be started.
pub fn start(
    prepared: Prepared,
    phase: &Arc<PhaseCell>,
    origin: Instant,
    seed: u64,
) -> Result<Running, LoadError> {
    let Prepared { outlines, part, crew, workers } = prepared;
    let clock = Clock::new(origin);
    let (out, slices) = sync_channel(SLICES * workers as usize);
    let (tick, ticks) = mpsc::channel(TICKS);
    let (done, outcome) = oneshot::channel();
    // Stops the workers that did start if a later one does not.
    let running = Running {
        stop: Arc::new(StopCell::default()),
        ticks: Some(ticks),
        knobs: Knobs(Arc::new(PaceCell::new(outlines.clone(), clock))),
        done: outcome,
    };
    let collector = Collector::new(outlines, workers, clock, Arc::clone(phase), slices, tick);
    let mut threads = part.start(clock, seed, phase, &running.stop, &running.knobs.0, &out)?;
    threads.extend(crew.start(origin, seed, phase, &running.stop, &out)?);
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
            facts: Facts {
                broken: vec!["a load thread failed: the collector is gone".to_owned()],
                ..Facts::default()
            },
            ..LoadOutcome::default()
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop(Stop::Now);
    }
}
