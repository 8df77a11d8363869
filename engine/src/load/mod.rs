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
mod cause;
mod class;
mod clock;
mod collect;
mod connection;
mod datagram;
mod dial;
mod dns;
mod flow;
mod h2;
#[cfg(feature = "http3")]
mod h3;
mod http;
mod journey;
mod knobs;
mod lack;
mod lane;
mod loss;
mod message;
mod multiplex;
mod null;
mod origin;
mod part;
mod phase;
mod ready;
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
pub use loss::Loss;
pub use origin::OriginError;
pub use phase::PhaseCell;
pub use ready::{Prepared, Threads, Work, prepare, ready, suits};
pub use saturation::{CPU_HOT, Facts, overtaxed, saturation};
pub use spec::{
    Body, CONNECTIONS_MAX, DEADLINE_MAX, Expect, HeaderExpect, HeaderTest, HttpVersion, Identity, JsonExpect,
    LoadSpec, PROTOSET_MAX, Protoset, REQUESTS_MAX, Reply, RequestSpec, SOURCES_MAX, STREAMS_MAX, SpecError,
    TlsSpec,
};

pub use url::host;

use clock::Clock;
use collect::Collector;
use flow::Reins;
use knobs::PaceCell;
use part::{Load, Outline, Part, Share};
use remote::{Member, Task};
use worker::StopCell;

/// The rate up to which one worker is enough, in requests per second.
pub const PER_THREAD: f64 = 20_000.0;
/// Ticks that wait for their reader.
const TICKS: usize = 60;
/// Slices that wait for the collector, per worker.
const SLICES: usize = 8;
/// How long other processes may take to hear of a phase.
const ENTERING: std::time::Duration = std::time::Duration::from_secs(1);
/// How often it is looked whether they have.
const LOOK: std::time::Duration = std::time::Duration::from_millis(1);
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
    #[error("a log is sent again by one process only: leave the workers out")]
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
    members: Vec<Arc<Member>>,
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
    let Prepared { outlines, mut part, crew, workers } = prepared;
    let far = !crew.is_nobody();
    let clock = Clock::new(origin);
    let (out, slices) = sync_channel(SLICES * workers as usize);
    let (tick, ticks) = mpsc::channel(TICKS);
    let (done, outcome) = oneshot::channel();
    let paces = Arc::new(PaceCell::new(outlines.clone(), clock));
    // Stops the workers that did start if a later one does not.
    let running = Running {
        stop: Arc::new(StopCell::default()),
        ticks: Some(ticks),
        knobs: Knobs(Arc::clone(&paces)),
        members: crew.members(),
        done: outcome,
    };
    let reins = Reins { paces: Arc::clone(&paces), takes: Arc::default(), stay: 0 };
    let mut threads = part.start(clock, seed, phase, &running.stop, &reins, &out)?;
    let task = Task {
        outlines: outlines.clone(),
        origin,
        clock,
        seed,
        phase: Arc::clone(phase),
        stop: Arc::clone(&running.stop),
        paces,
    };
    let (listening, losses) = crew.start(task, &out)?;
    threads.extend(listening);
    let collector = Collector::new(outlines, workers, clock, Arc::clone(phase), slices, tick);
    let collector = if far { collector.hearing_of(losses) } else { collector };
    // Only the workers hold the sending side now: when they are gone, the collector ends too.
    drop(out);
    let thread = std::thread::Builder::new().name("load-collect".to_owned());
    thread.spawn(move || collector.run(threads, done)).map_err(LoadError::Thread)?;
    Ok(running)
}

impl Running {
    /// One tick per second, at most 200 ms after the second's end (where other processes send, 700 ms). Can be taken once; a reader that falls 60 seconds
    /// behind misses some.
    pub fn ticks(&mut self) -> Option<mpsc::Receiver<Tick>> {
        self.ticks.take()
    }

    /// What changes its rate while it goes on.
    pub fn knobs(&self) -> Knobs {
        self.knobs.clone()
    }

    /// Until every other process that sends has entered this phase; at most a second, for one of them may be lost.
    pub fn everyone_in(&self, phase: reports::record::Phase) -> impl Future<Output = ()> + Send + 'static {
        let members = self.members.clone();
        async move {
            let until = tokio::time::Instant::now() + ENTERING;
            while members.iter().any(|member| !member.is_in(phase)) && tokio::time::Instant::now() < until {
                tokio::time::sleep(LOOK).await;
            }
        }
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
