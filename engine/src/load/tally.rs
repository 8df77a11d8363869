//! What a worker counts: by second for guards and curves, by phase for verdicts. Swapped each second, never shared.
//!
//! Nothing here allocates per request: distributions are made when a phase, kind or PoP is first seen, and names and
//! codes are bounded.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError};

use reports::Latencies;
use reports::record::Phase;

use super::clock::{SECOND, thread_cpu};
use super::http::POP_MAX;
use super::lane::Job;
use super::strain::waits;
use super::{ErrorClass, Errors, Lacks};

/// The most PoP names that are told apart; further ones are counted together.
pub(super) const POPS_MAX: usize = 64;
/// The most status codes that are told apart in a phase.
pub(super) const STATUSES_MAX: usize = 32;
/// The most instance names that are told apart; further ones are counted together.
pub(super) const INSTANCES_MAX: usize = 256;
/// Answers that name no PoP, and failures without an answer.
pub(super) const NO_POP: &str = "-";
/// PoPs and instances beyond their bounds, and names that are too long or not visible ASCII.
pub(super) const OTHER: &str = "other";
/// Status codes beyond [`STATUSES_MAX`] are counted here.
pub(super) const OTHER_STATUS: u16 = 0;

/// Something for each phase that was seen.
pub(super) type ByPhase<T> = [Option<Box<T>>; Phase::ALL.len()];

/// Counts and latencies.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    pub(super) ok: u64,
    pub(super) errors: Errors,
    pub(super) latencies: Latencies,
}

impl Tally {
    fn count(&mut self, failure: Option<ErrorClass>, us: u64) {
        match failure {
            None => self.ok += 1,
            Some(class) => self.errors.count(class),
        }
        if matches!(failure, None | Some(ErrorClass::Deadline)) {
            self.latencies.record(us);
        }
    }

    /// Adds all of another.
    pub(super) fn merge(&mut self, other: &Self) {
        self.ok += other.ok;
        self.errors.merge(&other.errors);
        self.latencies.merge(&other.latencies);
    }

    /// Requests that ended.
    pub(super) fn ended(&self) -> u64 {
        self.ok + self.errors.total()
    }
}

/// How a request ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ending<'a> {
    pub(super) failure: Option<ErrorClass>,
    pub(super) status: Option<u16>,
    pub(super) pop: Option<&'a [u8]>,
    /// The instances that served the answer, separated by commas.
    pub(super) path: Option<&'a [u8]>,
    /// It was given a connection, or the attempt of one.
    pub(super) sent: bool,
    /// But so late that too little of its time was left to say anything about the server.
    pub(super) late: bool,
    /// When its connection took it on, if it had one.
    pub(super) taken_on: Option<u64>,
}

impl Ending<'_> {
    /// It failed before there was an answer.
    pub(super) fn failed(class: ErrorClass) -> Self {
        Self {
            failure: Some(class),
            status: None,
            pop: None,
            path: None,
            sent: true,
            late: false,
            taken_on: None,
        }
    }

    /// Its deadline passed before it had a connection.
    pub(super) fn unsent() -> Self {
        Self { sent: false, ..Self::failed(ErrorClass::Deadline) }
    }
}

/// One load, one second, one phase.
#[derive(Debug, Default)]
pub(super) struct PhaseSlice {
    /// Arrivals that came due in this second, by the phase in which they did.
    pub(super) due: u64,
    /// Requests that ended in this second, by the phase to which they belong.
    pub(super) all: Tally,
    /// Those that never had a connection.
    pub(super) unsent: u64,
    /// Those that had one too late.
    pub(super) late: u64,
    pops: Vec<u64>,
    /// Good answers by PoP; filled when the second is over.
    pub(super) by_pop: Vec<(Arc<str>, u64)>,
}

/// One load in one phase, from the beginning.
#[derive(Debug, Default)]
pub(super) struct PhaseTotals {
    /// TLS handshakes that ended well in this phase.
    pub(super) handshakes: Latencies,
    /// By kind of request; empty if there is only one.
    pub(super) kinds: Vec<Option<Box<Tally>>>,
    /// By kind of request, of good answers: from the moment when their connection took them on.
    pub(super) service: Vec<Option<Box<Latencies>>>,
    pops: Vec<Option<Box<Tally>>>,
    /// By PoP; filled at the end.
    pub(super) by_pop: Vec<(Arc<str>, Box<Tally>)>,
    served: Vec<u64>,
    /// Answers by instance that served them; filled at the end.
    pub(super) by_instance: Vec<(Arc<str>, u64)>,
    pub(super) statuses: Vec<(u16, u64)>,
    /// The first cause of a class of failures, in words.
    pub(super) causes: Vec<(ErrorClass, String)>,
}

/// What one worker saw in one second.
#[derive(Debug)]
pub(super) struct Slice {
    pub(super) worker: usize,
    pub(super) second: u64,
    /// By load, then phase.
    pub(super) loads: Vec<ByPhase<PhaseSlice>>,
    /// From the intended time to the pacer's turn, in microseconds.
    pub(super) lag: Latencies,
    /// From the intended time until a connection that was open and idle began with it, in microseconds.
    pub(super) handed: Latencies,
    /// Of good answers to the first kind of request of the first load: from when a connection began with it.
    pub(super) service: Latencies,
    /// Requests that found every connection busy.
    pub(super) queued: u64,
    /// Share of the time that the thread computed.
    pub(super) cpu: f64,
    /// Share of the time that it could have, but other threads had its core.
    pub(super) waited: f64,
    /// What failed attempts to connect lacked here.
    pub(super) lacks: Lacks,
    /// The most connections open at a time.
    pub(super) connections: u64,
    /// Stale connections replaced.
    pub(super) reconnects: u64,
    /// By load, then phase: what is only summed up, as far as it was not told before. Empty unless it is the last slice, or
    /// its thread is one of another process, which may be lost.
    pub(super) totals: Vec<ByPhase<PhaseTotals>>,
    /// Of the last slice: requests that were cut short.
    pub(super) last: Option<u64>,
}

impl Slice {
    pub(super) fn new(worker: usize, second: u64, loads: usize) -> Self {
        Self {
            worker,
            second,
            loads: (0..loads).map(|_| Default::default()).collect(),
            lag: Latencies::default(),
            handed: Latencies::default(),
            service: Latencies::default(),
            queued: 0,
            cpu: 0.0,
            waited: 0.0,
            lacks: Lacks::default(),
            connections: 0,
            reconnects: 0,
            totals: Vec::new(),
            last: None,
        }
    }
}

/// The PoP names of one load, as an index.
#[derive(Debug)]
struct Pops {
    names: Vec<Arc<str>>,
    latest: usize,
}

impl Pops {
    fn new() -> Self {
        Self { names: vec![Arc::from(NO_POP), Arc::from(OTHER)], latest: 0 }
    }

    fn index(&mut self, name: Option<&[u8]>) -> usize {
        let Some(name) = name else { return 0 };
        if name == self.names[self.latest].as_bytes() {
            return self.latest;
        }
        let found = self.names.iter().position(|known| known.as_bytes() == name);
        self.latest = match (found, std::str::from_utf8(name)) {
            (Some(index), _) => index,
            (None, Ok(text)) if !text.is_empty() && self.names.len() < POPS_MAX + 2 => {
                self.names.push(Arc::from(text));
                self.names.len() - 1
            }
            _ => 1,
        };
        self.latest
    }
}

/// The instance names of one load, as an index; 0 is [`OTHER`].
#[derive(Debug)]
struct Instances {
    names: Vec<Arc<str>>,
    index: HashMap<Box<[u8]>, usize>,
}

impl Instances {
    fn new() -> Self {
        Self { names: vec![Arc::from(OTHER)], index: HashMap::new() }
    }

    fn index(&mut self, name: &[u8]) -> usize {
        if let Some(index) = self.index.get(name) {
            return *index;
        }
        let fits = (1..=POP_MAX).contains(&name.len()) && name.iter().all(u8::is_ascii_graphic);
        match std::str::from_utf8(name) {
            Ok(text) if fits && self.index.len() < INSTANCES_MAX => {
                self.names.push(Arc::from(text));
                self.index.insert(name.into(), self.names.len() - 1);
                self.names.len() - 1
            }
            _ => 0,
        }
    }
}

struct LoadTotals {
    kinds: usize,
    pops: Pops,
    instances: Instances,
    phases: ByPhase<PhaseTotals>,
}

/// The counts of one worker.
pub(super) struct Recorder {
    slice: Slice,
    totals: Vec<LoadTotals>,
    cut_at: u64,
    cut_cpu: u64,
    cut_waits: Option<u64>,
    often: bool,
    out: SyncSender<Slice>,
}

impl Recorder {
    /// `kinds`: how many kinds of requests each load has.
    pub(super) fn new(worker: usize, kinds: &[usize], out: SyncSender<Slice>) -> Self {
        let totals = kinds.iter().map(|kinds| LoadTotals {
            kinds: *kinds,
            pops: Pops::new(),
            instances: Instances::new(),
            phases: Default::default(),
        });
        let slice = Slice::new(worker, 0, kinds.len());
        Self {
            slice,
            totals: totals.collect(),
            cut_at: 0,
            cut_cpu: thread_cpu(),
            cut_waits: waits(),
            often: false,
            out,
        }
    }

    /// Sums come with each slice.
    pub(super) fn telling_all(mut self) -> Self {
        self.often = true;
        self
    }

    /// Sends the slice of a second that is over. If the collector is behind, the slice grows instead.
    pub(super) fn roll(&mut self, now: u64, open: u64) {
        let second = now / SECOND;
        if second <= self.slice.second {
            return;
        }
        let next = Slice::new(self.slice.worker, second, self.totals.len());
        let mut full = std::mem::replace(&mut self.slice, next);
        self.complete(&mut full, now);
        // A slice that found no room before has some already; what came since then waits for the next one.
        if self.often && full.totals.is_empty() {
            full.totals = self.sums();
        }
        if let Err(TrySendError::Full(kept)) = self.out.try_send(full) {
            self.slice = kept;
        }
        self.slice.connections = self.slice.connections.max(open);
    }

    fn complete(&mut self, slice: &mut Slice, now: u64) {
        let (cpu, took) = (thread_cpu(), now.saturating_sub(self.cut_at));
        // The rest of a second at the very end is too short to say anything.
        if took >= SECOND / 5 {
            let (waits, share) = (waits(), |part: u64| (part as f64 / took as f64).min(1.0));
            slice.cpu = share(cpu - self.cut_cpu);
            let waited = waits.zip(self.cut_waits).map_or(0, |(now, then)| now.saturating_sub(then));
            slice.waited = share(waited);
            (self.cut_at, self.cut_cpu, self.cut_waits) = (now, cpu, waits);
        }
        for (phases, totals) in slice.loads.iter_mut().zip(&self.totals) {
            for phase in phases.iter_mut().flatten() {
                let named = totals.pops.names.iter().zip(&phase.pops).filter(|(_, count)| **count > 0);
                phase.by_pop = named.map(|(name, count)| (Arc::clone(name), *count)).collect();
            }
        }
    }

    /// The worker is done; waits for room, since nothing may get lost now.
    pub(super) fn close(mut self, now: u64, aborted: u64) {
        let next = Slice::new(self.slice.worker, 0, 0);
        let mut last = std::mem::replace(&mut self.slice, next);
        self.complete(&mut last, now);
        if last.totals.is_empty() {
            last.totals = self.sums();
        } else {
            // It found no room so far: what came since then goes ahead with a slice of its own.
            let mut more = Slice::new(last.worker, last.second, last.loads.len());
            more.totals = self.sums();
            let _ = self.out.send(more);
        }
        last.last = Some(aborted);
        // The collector is gone only if nobody wants the result.
        let _ = self.out.send(last);
    }

    /// What was summed up since this was last asked.
    fn sums(&mut self) -> Vec<ByPhase<PhaseTotals>> {
        let sums = |load: &mut LoadTotals| {
            let mut phases = std::mem::take(&mut load.phases);
            for phase in phases.iter_mut().flatten() {
                let tallies = std::mem::take(&mut phase.pops);
                let named = load.pops.names.iter().zip(tallies);
                phase.by_pop = named.filter_map(|(name, tally)| Some((Arc::clone(name), tally?))).collect();
                let served = load.instances.names.iter().zip(&phase.served).filter(|(_, count)| **count > 0);
                phase.by_instance = served.map(|(name, count)| (Arc::clone(name), *count)).collect();
            }
            phases
        };
        self.totals.iter_mut().map(sums).collect()
    }

    /// An arrival came due; `lag` is how late the pacer is, in nanoseconds.
    pub(super) fn due(&mut self, load: usize, phase: Phase, lag: u64) {
        self.slice.loads[load][phase as usize].get_or_insert_default().due += 1;
        self.slice.lag.record(lag / 1000);
    }

    /// A TLS handshake ended well; `took` is in nanoseconds.
    pub(super) fn shook_hands(&mut self, load: usize, phase: Phase, took: u64) {
        let total = self.totals[load].phases[phase as usize].get_or_insert_default();
        total.handshakes.record((took + 500) / 1000);
    }

    /// An idle connection began with a request so many nanoseconds after it was due.
    pub(super) fn begun(&mut self, after: u64) {
        self.slice.handed.record(after / 1000);
    }

    /// A request found every connection busy.
    pub(super) fn queued(&mut self) {
        self.slice.queued += 1;
    }

    /// An attempt to connect failed on this machine.
    pub(super) fn lacked(&mut self, error: &std::io::Error) {
        self.slice.lacks.count(error);
    }

    /// Why a class of failures happens; only the first cause is kept.
    pub(super) fn explained(&mut self, load: usize, phase: Phase, class: ErrorClass, cause: String) {
        let causes = &mut self.totals[load].phases[phase as usize].get_or_insert_default().causes;
        if causes.iter().all(|(known, _)| *known != class) {
            causes.push((class, cause));
        }
    }

    /// A stale connection was replaced, or a request sent again that no server had acted on.
    pub(super) fn reconnected(&mut self) {
        self.slice.reconnects += 1;
    }

    /// So many connections are open now.
    pub(super) fn opened(&mut self, open: u64) {
        self.slice.connections = self.slice.connections.max(open);
    }

    /// Something of this kind that is not among the requests has taken so many nanoseconds.
    pub(super) fn beside(
        &mut self,
        load: usize,
        kind: u16,
        phase: Phase,
        took: u64,
        failure: Option<ErrorClass>,
    ) {
        let total = self.totals[load].phases[phase as usize].get_or_insert_default();
        slot(&mut total.kinds, usize::from(kind)).count(failure, (took + 500) / 1000);
    }

    /// A request has ended now, in this phase.
    pub(super) fn ended(&mut self, load: usize, job: &Job, phase: Phase, now: u64, ending: &Ending<'_>) {
        let (since, kind) = (|then: u64| (now.saturating_sub(then) + 500) / 1000, usize::from(job.kind));
        let us = since(job.due);
        let second = self.slice.loads[load][phase as usize].get_or_insert_default();
        second.all.count(ending.failure, us);
        second.unsent += u64::from(!ending.sent);
        second.late += u64::from(ending.sent && ending.late);
        let LoadTotals { kinds, pops, instances, phases } = &mut self.totals[load];
        let pop = pops.index(ending.pop);
        if ending.failure.is_none() {
            add(&mut second.pops, pop, 1);
        }
        let total = phases[phase as usize].get_or_insert_default();
        if *kinds > 1 {
            slot(&mut total.kinds, kind).count(ending.failure, us);
        }
        slot(&mut total.pops, pop).count(ending.failure, us);
        if let (None, Some(taken_on)) = (ending.failure, ending.taken_on) {
            slot(&mut total.service, kind).record(since(taken_on));
            if (load, kind) == (0, 0) {
                self.slice.service.record(since(taken_on));
            }
        }
        if let Some(status) = ending.status {
            total.status(status);
        }
        for name in ending.path.into_iter().flat_map(|path| path.split(|byte| *byte == b',')) {
            add(&mut total.served, instances.index(name.trim_ascii()), 1);
        }
    }
}

impl PhaseTotals {
    fn status(&mut self, status: u16) {
        match self.statuses.iter().position(|(code, _)| *code == status) {
            Some(at) => self.statuses[at].1 += 1,
            None if self.statuses.len() < STATUSES_MAX => self.statuses.push((status, 1)),
            None if status == OTHER_STATUS => self.statuses.push((OTHER_STATUS, 1)),
            None => self.status(OTHER_STATUS),
        }
    }
}

fn add(counts: &mut Vec<u64>, index: usize, n: u64) {
    if counts.len() <= index {
        counts.resize(index + 1, 0);
    }
    counts[index] += n;
}

fn slot<T: Default>(slots: &mut Vec<Option<Box<T>>>, index: usize) -> &mut T {
    if slots.len() <= index {
        slots.resize_with(index + 1, || None);
    }
    slots[index].get_or_insert_default()
}

#[cfg(test)]
#[path = "tally_tests.rs"]
mod tests;
