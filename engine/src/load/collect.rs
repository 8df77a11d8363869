//! Merges what the workers counted: a tick each second for guards and the live view, records at the end.
//!
//! A thread of its own, so that neither a busy engine nor a slow reader of ticks holds up a worker. Memory is flat:
//! distributions of past slices of time are kept encoded.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;

use injectors::sys::cgroup;
use reports::record::{LoadRecord, Phase};
use tokio::sync::{mpsc, oneshot};

use super::clock::{Clock, MILLISECOND, SECOND};
use super::phase::PhaseCell;
use super::saturation::{CPU_HOT, Facts, STARVED, saturation};
use super::strain::StrainMeter;
use super::sums::LoadSums;
use super::tally::{PhaseSlice, Slice, Tally};
use super::{Errors, LoadOutcome, Loss, Outline};

/// How long after its end a second is waited for.
const PATIENCE: u64 = 150 * MILLISECOND;
/// The same, where other processes send: they begin later by the way to them, and what they tell takes the way back.
const PATIENCE_FAR: u64 = 650 * MILLISECOND;
/// The most time buckets per load and phase.
pub(super) const BUCKETS_MAX: u64 = 900;

/// What happened in one second.
#[derive(Debug, Clone)]
pub struct Tick {
    /// Seconds since the start at its beginning.
    pub second: u64,
    /// Each load, in the order in which they were given.
    pub loads: Vec<LoadTick>,
    /// Start lateness of the 99th percentile, in seconds.
    pub lag_p99_s: Option<f64>,
    /// What the first kind of request of the first load took, from when a connection began with it.
    pub service: reports::Latencies,
    /// The largest share of the second that one worker computed.
    pub cpu: f64,
    /// The largest share of the second for which one worker waited for a core.
    pub waited: f64,
    /// The most connections open.
    pub connections: u64,
    /// Workers that were lost since the last tick.
    pub losses: Vec<Loss>,
}

/// One load in one second.
#[derive(Debug, Clone)]
pub struct LoadTick {
    /// Its name.
    pub name: Arc<str>,
    /// Phases in which something came due or ended, in order.
    pub phases: Vec<PhaseTick>,
}

/// One load in one second and one phase.
#[derive(Debug, Clone)]
pub struct PhaseTick {
    /// The phase to which the requests belong.
    pub phase: Phase,
    /// Arrivals that came due in this second.
    pub due: u64,
    /// Good answers in this second.
    pub ok: u64,
    /// Failures in this second.
    pub errors: Errors,
    /// Latencies of good answers and deadline misses.
    pub latencies: reports::Latencies,
    /// Good answers by PoP.
    pub pops: Vec<(Arc<str>, u64)>,
}

/// A second whose tick is not out yet.
#[derive(Default)]
struct Pending {
    loads: BTreeMap<(usize, usize), PendingPhase>,
    lag: reports::Latencies,
    service: reports::Latencies,
    cpu: f64,
    waited: f64,
    connections: u64,
}

#[derive(Default)]
struct PendingPhase {
    due: u64,
    all: Tally,
    pops: BTreeMap<Arc<str>, u64>,
}

/// See the module.
pub(super) struct Collector {
    loads: Vec<Arc<Outline>>,
    clock: Clock,
    slices: Receiver<Slice>,
    ticks: mpsc::Sender<Tick>,
    sums: Vec<LoadSums>,
    pending: BTreeMap<u64, Pending>,
    /// The first second that has no tick yet.
    next_tick: u64,
    /// By worker: seconds before this one are complete.
    complete: Vec<u64>,
    facts: Facts,
    phase: Arc<PhaseCell>,
    strain: StrainMeter,
    patience: u64,
    /// What is lost on the way; none if nobody can be.
    losses: Option<Receiver<Loss>>,
    /// How many of those were told.
    told: usize,
    /// How long this process had been kept from running at the start.
    throttled: Option<Duration>,
}

impl Collector {
    pub(super) fn new(
        loads: Vec<Arc<Outline>>,
        workers: u32,
        clock: Clock,
        phase: Arc<PhaseCell>,
        slices: Receiver<Slice>,
        ticks: mpsc::Sender<Tick>,
    ) -> Self {
        let longest = loads.iter().map(|load| load.longest).max();
        let bucket = longest.unwrap_or_default().as_secs().saturating_add(1).div_ceil(BUCKETS_MAX);
        Self {
            sums: loads.iter().map(|_| LoadSums::new(bucket)).collect(),
            loads,
            clock,
            slices,
            ticks,
            pending: BTreeMap::new(),
            next_tick: 0,
            complete: vec![0; workers as usize],
            facts: Facts { workers, ..Facts::default() },
            phase,
            strain: StrainMeter::default(),
            patience: PATIENCE,
            losses: None,
            told: 0,
            throttled: throttled(),
        }
    }

    /// Other processes send, and may be lost.
    pub(super) fn hearing_of(mut self, losses: Receiver<Loss>) -> Self {
        (self.patience, self.losses) = (PATIENCE_FAR, Some(losses));
        self
    }

    /// The collector's thread: until every worker has sent its last slice, or died.
    pub(super) fn run(mut self, threads: Vec<JoinHandle<Vec<String>>>, done: oneshot::Sender<LoadOutcome>) {
        while self.complete.iter().any(|second| *second < u64::MAX) {
            match self.slices.recv_timeout(self.patience()) {
                Ok(slice) => self.absorb(slice),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.facts.losses.extend(self.losses.iter().flat_map(Receiver::try_iter));
            let now = self.clock.now();
            self.strain.look(now, self.phase.get());
            self.tick(now);
        }
        self.facts.broken = threads
            .into_iter()
            .flat_map(|thread| {
                thread.join().unwrap_or_else(|_| vec!["a load thread failed: it panicked".to_owned()])
            })
            .collect();
        self.facts.losses.extend(self.losses.iter().flat_map(Receiver::try_iter));
        self.facts.seconds = self.clock.now() as f64 / SECOND as f64;
        if let (Some(before), Some(after)) = (self.throttled, throttled()) {
            // It is counted for each processor.
            self.facts.throttled_s = after.saturating_sub(before).as_secs_f64().min(self.facts.seconds);
        }
        self.facts.ticks = self.strain.ticks();
        // Nobody waits if the run was dropped.
        let _ = done.send(self.outcome());
    }

    /// Until the oldest pending second must go out.
    fn patience(&self) -> Duration {
        let oldest = self.pending.keys().next().map(|second| (second + 1) * SECOND + self.patience);
        let left = oldest.map_or(SECOND, |at| at.saturating_sub(self.clock.now()));
        Duration::from_nanos(left.clamp(MILLISECOND, SECOND))
    }

    fn absorb(&mut self, slice: Slice) {
        let second = slice.second;
        self.facts.lag.merge(&slice.lag);
        self.facts.worker_seconds += 1;
        self.facts.hot_seconds += u64::from(slice.cpu > CPU_HOT);
        self.facts.cpu_max = self.facts.cpu_max.max(slice.cpu);
        // A fault that takes the CPU away is no weakness of the generator, as long as requests start in time.
        if !matches!(self.phase.get(), Phase::Fault | Phase::Recovery) {
            self.facts.steady_seconds += 1;
            self.facts.starved_seconds += u64::from(slice.waited > STARVED);
        }
        self.facts.waited_max = self.facts.waited_max.max(slice.waited);
        self.facts.handed.merge(&slice.handed);
        self.facts.queued += slice.queued;
        self.facts.lacks.merge(&slice.lacks);
        self.facts.reconnects += slice.reconnects;
        let mut pending = (second >= self.next_tick).then(|| self.pending.entry(second).or_default());
        self.facts.late_slices += u64::from(pending.is_none());
        if let Some(pending) = &mut pending {
            pending.lag.merge(&slice.lag);
            pending.service.merge(&slice.service);
            pending.cpu = pending.cpu.max(slice.cpu);
            pending.waited = pending.waited.max(slice.waited);
            pending.connections += slice.connections;
            self.facts.connections_max = self.facts.connections_max.max(pending.connections);
        }
        for (load, phases) in slice.loads.into_iter().enumerate() {
            for (phase, counted) in phases.into_iter().enumerate() {
                let Some(counted) = counted else { continue };
                if let Some(pending) = &mut pending {
                    pending.loads.entry((load, phase)).or_default().add(&counted);
                }
                self.sums[load].add(second, Phase::ALL[phase], &counted);
            }
        }
        self.complete[slice.worker] = match slice.last {
            None => self.complete[slice.worker].max(second + 1),
            Some(aborted) => {
                self.facts.aborted += aborted;
                u64::MAX
            }
        };
        self.sums.iter_mut().zip(slice.totals).for_each(|(sums, phases)| sums.close(phases));
    }

    /// Sends the ticks of the seconds that are complete, or have been waited for long enough.
    fn tick(&mut self, now: u64) {
        let complete = self.complete.iter().copied().min().unwrap_or(u64::MAX);
        while let Some(entry) = self.pending.first_entry() {
            let second = *entry.key();
            if second >= complete && now < (second + 1) * SECOND + self.patience {
                return;
            }
            let mut tick = entry.remove().tick(second, &self.loads);
            tick.losses = self.facts.losses[self.told..].to_vec();
            self.told = self.facts.losses.len();
            self.next_tick = second + 1;
            // A reader that is 60 seconds behind misses ticks; the records have everything.
            let _ = self.ticks.try_send(tick);
        }
    }

    fn outcome(mut self) -> LoadOutcome {
        for sums in &self.sums {
            for (phase, all, unsent, late) in sums.ended() {
                self.facts.due += all.ended();
                self.facts.sent += all.ended() - unsent;
                if !matches!(phase, Phase::Fault | Phase::Recovery) {
                    // What had no data, or was not to wait, was not for the generator to send.
                    let own = all.errors.of(super::ErrorClass::Data) + all.errors.of(super::ErrorClass::Shed);
                    self.facts.due_steady += all.ended() - own;
                    self.facts.sent_steady += all.ended() - unsent - late;
                }
                self.facts.local_errors += all.errors.of(super::ErrorClass::Local);
            }
        }
        for loss in &mut self.facts.losses {
            let all = |load: usize, wanted: Phase| {
                self.sums[load]
                    .ended()
                    .find(|(phase, ..)| *phase == wanted)
                    .map_or(0, |(_, all, ..)| all.ended())
            };
            loss.weigh(all);
            self.facts.due += loss.missing();
        }
        let records: Vec<LoadRecord> =
            self.loads.iter().zip(self.sums).map(|(load, sums)| sums.record(load)).collect();
        let facts = self.facts;
        let generator = reports::record::GeneratorRecord {
            workers: facts.workers,
            due: facts.due,
            sent: facts.sent,
            lag_p50_s: facts.lag.quantile(0.5).unwrap_or_default(),
            lag_p99_s: facts.lag.quantile(0.99).unwrap_or_default(),
            lag_max_s: facts.lag.max().unwrap_or_default(),
            cpu_max: facts.cpu_max,
            waited_max: facts.waited_max,
            queued: facts.queued,
            connections_max: facts.connections_max,
            saturated: saturation(&facts, None),
            strain: self.strain.record(),
        };
        LoadOutcome { loads: records, generator, facts }
    }
}

/// How long this process has been kept from running so far.
pub(super) fn throttled() -> Option<Duration> {
    cgroup::throttled(&cgroup::host::Kernel, std::process::id())
}

impl PendingPhase {
    fn add(&mut self, slice: &PhaseSlice) {
        self.due += slice.due;
        self.all.merge(&slice.all);
        for (name, count) in &slice.by_pop {
            *self.pops.entry(Arc::clone(name)).or_default() += count;
        }
    }
}

impl Pending {
    fn tick(self, second: u64, loads: &[Arc<Outline>]) -> Tick {
        let mut by_load: Vec<LoadTick> =
            loads.iter().map(|load| LoadTick { name: Arc::clone(&load.name), phases: Vec::new() }).collect();
        for ((load, phase), counted) in self.loads {
            by_load[load].phases.push(PhaseTick {
                phase: Phase::ALL[phase],
                due: counted.due,
                ok: counted.all.ok,
                errors: counted.all.errors,
                latencies: counted.all.latencies,
                pops: counted.pops.into_iter().collect(),
            });
        }
        let lag_p99_s = self.lag.quantile(0.99);
        Tick {
            second,
            loads: by_load,
            lag_p99_s,
            service: self.service,
            cpu: self.cpu,
            waited: self.waited,
            connections: self.connections,
            losses: Vec::new(),
        }
    }
}
