//! The words of the protocol, and slices as words. Pure.
//!
//! What comes from the other side is checked before it is believed: places within what was asked for, names and lists
//! within the bounds that the recorder keeps itself, counts that cannot overflow a sum.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use reports::Latencies;
use reports::record::Phase;
use serde::{Deserialize, Serialize};

use super::Job;
use crate::load::cause::bounded;
use crate::load::tally::{
    ByPhase, INSTANCES_MAX, POPS_MAX, PhaseSlice, PhaseTotals, STATUSES_MAX, Slice, Tally,
};
use crate::load::{ErrorClass, Errors, Lacks};
use crate::schedule::Pace;

/// No load counts further: sums of all workers stay far from what a number can hold.
const COUNT_MAX: u64 = 1 << 48;
/// The longest name of a PoP or an instance, in bytes.
const NAME_MAX: usize = 64;
/// No load lasts longer, in seconds.
const SECONDS_MAX: u64 = 14 * 24 * 3600;

/// What a coordinator says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "word", rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Order {
    /// First of all.
    Hello {
        /// The version that it speaks.
        protocol: u32,
        /// Its random number, in base64.
        nonce: String,
    },
    /// The answer to a challenge, in base64. Everything after it is sealed, both ways.
    Proof {
        /// See [`super::seal::Meeting::proof`].
        proof: String,
    },
    /// What is to be sent.
    Plan(Box<Plan>),
    /// It begins.
    Start {
        /// Time 0 is so many microseconds ahead.
        in_us: u64,
        /// Decides every random choice.
        seed: u64,
        /// The phase now.
        phase: Phase,
    },
    /// The run has entered a phase.
    Enter {
        /// Which.
        phase: Phase,
    },
    /// The rates of all loads have been changed, or will be.
    Pace {
        /// By load, from the beginning.
        paces: Vec<Pace>,
    },
    /// Another worker is lost: a class of the arrivals is this one's from now on.
    Take {
        /// Which.
        class: u32,
        /// The thread that sends it.
        thread: u32,
        /// From when on, in nanoseconds since the start.
        from: u64,
    },
    /// The coordinator lives: the lease begins anew.
    Renew,
    /// The end, before its time.
    Stop {
        /// Requests under way are cut short.
        now: bool,
    },
}

/// What a worker sends, and which part of it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Plan {
    /// What.
    pub(super) job: Job,
    /// Its first thread among all.
    pub(super) first: u32,
    /// How many threads it starts.
    pub(super) threads: u32,
    /// The threads of all workers.
    pub(super) of: u32,
    /// How many loads there are in all.
    pub(super) loads: usize,
}

/// What a worker says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "word", rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Answer {
    /// To a hello.
    Challenge {
        /// The version that it speaks.
        protocol: u32,
        /// Its random number, in base64.
        nonce: String,
        /// Proves to the coordinator that it knows the token, in base64.
        proof: String,
        /// The threads that its machine runs at a time.
        cores: u32,
    },
    /// To a plan: it could start at once.
    Ready {
        /// What had to be lowered, in words.
        lowered: Option<String>,
    },
    /// One thread's second.
    Slice(Box<SliceWord>),
    /// What ends from now on belongs to this phase.
    Entered {
        /// Which.
        phase: Phase,
    },
    /// All threads have sent their last slice.
    Ended {
        /// Why its numbers must not be trusted.
        doubts: Vec<String>,
    },
    /// No.
    Refused {
        /// Why.
        why: String,
    },
}

/// What a thread saw in one second.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SliceWord {
    worker: usize,
    second: u64,
    /// With the places of their load and phase.
    phases: Vec<(usize, usize, PhaseWord)>,
    lag: String,
    handed: String,
    service: String,
    queued: u64,
    cpu: f64,
    waited: f64,
    lacks: Vec<u64>,
    connections: u64,
    reconnects: u64,
    /// What is only summed up over phases, since it was last told: with the places of load and phase.
    totals: Vec<(usize, usize, TotalsWord)>,
    /// Of the last one: requests that were cut short.
    last: Option<u64>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PhaseWord {
    due: u64,
    unsent: u64,
    late: u64,
    all: TallyWord,
    pops: Vec<(String, u64)>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TallyWord {
    ok: u64,
    errors: BTreeMap<String, u64>,
    /// HdrHistogram V2 with deflate, in base64.
    latencies: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TotalsWord {
    handshakes: String,
    kinds: Vec<Option<TallyWord>>,
    service: Vec<Option<String>>,
    pops: Vec<(String, TallyWord)>,
    instances: Vec<(String, u64)>,
    statuses: Vec<(u16, u64)>,
    /// By class of failure, in words.
    causes: Vec<(String, String)>,
}

impl From<&Tally> for TallyWord {
    fn from(tally: &Tally) -> Self {
        Self { ok: tally.ok, errors: tally.errors.by_name(), latencies: tally.latencies.encode() }
    }
}

impl From<&Slice> for SliceWord {
    fn from(slice: &Slice) -> Self {
        let totals = places(&slice.totals, |totals| TotalsWord {
            handshakes: totals.handshakes.encode(),
            kinds: totals.kinds.iter().map(|kind| kind.as_deref().map(TallyWord::from)).collect(),
            service: totals.service.iter().map(|kind| kind.as_deref().map(Latencies::encode)).collect(),
            pops: totals.by_pop.iter().map(|(name, tally)| (name.to_string(), (&**tally).into())).collect(),
            instances: totals.by_instance.iter().map(|(name, n)| (name.to_string(), *n)).collect(),
            statuses: totals.statuses.clone(),
            causes: totals
                .causes
                .iter()
                .map(|(class, cause)| (class.name().to_owned(), cause.clone()))
                .collect(),
        });
        Self {
            worker: slice.worker,
            second: slice.second,
            phases: places(&slice.loads, |phase| PhaseWord {
                due: phase.due,
                unsent: phase.unsent,
                late: phase.late,
                all: (&phase.all).into(),
                pops: phase.by_pop.iter().map(|(name, n)| (name.to_string(), *n)).collect(),
            }),
            lag: slice.lag.encode(),
            handed: slice.handed.encode(),
            service: slice.service.encode(),
            queued: slice.queued,
            cpu: slice.cpu,
            waited: slice.waited,
            lacks: slice.lacks.counts().to_vec(),
            connections: slice.connections,
            reconnects: slice.reconnects,
            totals,
            last: slice.last,
        }
    }
}

/// Everything that is there, with its places.
fn places<T, W>(loads: &[ByPhase<T>], word: impl Fn(&T) -> W) -> Vec<(usize, usize, W)> {
    let mut words = Vec::new();
    for (load, phases) in loads.iter().enumerate() {
        for (phase, counted) in phases.iter().enumerate() {
            words.extend(counted.as_deref().map(|counted| (load, phase, word(counted))));
        }
    }
    words
}

/// What a worker may say about: its own threads, and the kinds of requests of all loads.
#[derive(Debug, Clone)]
pub(super) struct Bounds {
    pub(super) first: usize,
    pub(super) threads: usize,
    /// By load.
    pub(super) kinds: Vec<usize>,
}

impl Bounds {
    /// Its threads.
    pub(super) fn all(&self) -> Range<usize> {
        self.first..self.first + self.threads
    }
}

type Checked<T> = Result<T, String>;

impl SliceWord {
    /// The slice, if it is one that this worker may send.
    pub(super) fn slice(self, bounds: &Bounds) -> Checked<Slice> {
        if !bounds.all().contains(&self.worker) {
            return Err(format!("a slice of thread {}", self.worker));
        }
        if self.second > SECONDS_MAX {
            return Err(format!("a slice of second {}", self.second));
        }
        let mut slice = Slice::new(self.worker, self.second, bounds.kinds.len());
        slice.lag = latencies(&self.lag)?;
        slice.handed = latencies(&self.handed)?;
        slice.service = latencies(&self.service)?;
        slice.queued = count(self.queued)?;
        let share = |share: f64| if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 };
        (slice.cpu, slice.waited) = (share(self.cpu), share(self.waited));
        for n in &self.lacks {
            count(*n)?;
        }
        slice.lacks = Lacks::of_counts(&self.lacks).ok_or("a lack that is not known")?;
        slice.connections = count(self.connections)?;
        slice.reconnects = count(self.reconnects)?;
        for (load, phase, word) in self.phases {
            *place(&mut slice.loads, load, phase)? = Some(Box::new(word.slice()?));
        }
        if !self.totals.is_empty() {
            slice.totals = bounds.kinds.iter().map(|_| Default::default()).collect();
        }
        for (load, phase, word) in self.totals {
            let kinds = bounds.kinds.get(load).copied().unwrap_or_default();
            *place(&mut slice.totals, load, phase)? = Some(Box::new(word.totals(kinds)?));
        }
        slice.last = self.last.map(count).transpose()?;
        Ok(slice)
    }
}

fn place<T>(loads: &mut [ByPhase<T>], load: usize, phase: usize) -> Checked<&mut Option<Box<T>>> {
    let found = loads.get_mut(load).and_then(|phases| phases.get_mut(phase));
    found.ok_or_else(|| format!("something about load {load} in phase {phase}"))
}

impl PhaseWord {
    fn slice(self) -> Checked<PhaseSlice> {
        let mut slice = PhaseSlice::default();
        slice.due = count(self.due)?;
        slice.unsent = count(self.unsent)?;
        slice.late = count(self.late)?;
        slice.all = self.all.tally()?;
        slice.by_pop = named(self.pops, POPS_MAX + 2, count)?;
        Ok(slice)
    }
}

impl TallyWord {
    fn tally(self) -> Checked<Tally> {
        let mut errors = Errors::default();
        for (name, n) in &self.errors {
            errors.add(ErrorClass::of_name(name).ok_or("a class of errors that is not known")?, count(*n)?);
        }
        Ok(Tally { ok: count(self.ok)?, errors, latencies: latencies(&self.latencies)? })
    }
}

impl TotalsWord {
    fn totals(self, kinds: usize) -> Checked<PhaseTotals> {
        if self.kinds.len() > kinds || self.service.len() > kinds {
            return Err("more kinds of requests than there are".to_owned());
        }
        if self.statuses.len() > STATUSES_MAX + 1 {
            return Err("more statuses than are told apart".to_owned());
        }
        let mut totals = PhaseTotals::default();
        totals.handshakes = latencies(&self.handshakes)?;
        for kind in self.kinds {
            totals.kinds.push(kind.map(TallyWord::tally).transpose()?.map(Box::new));
        }
        for kind in self.service {
            totals.service.push(kind.map(|text| latencies(&text)).transpose()?.map(Box::new));
        }
        totals.by_pop = named(self.pops, POPS_MAX + 2, |word| word.tally().map(Box::new))?;
        totals.by_instance = named(self.instances, INSTANCES_MAX + 1, count)?;
        for (_, n) in &self.statuses {
            count(*n)?;
        }
        totals.statuses = self.statuses;
        if self.causes.len() > ErrorClass::ALL.len() {
            return Err("more causes than there are classes of errors".to_owned());
        }
        for (name, cause) in self.causes {
            let class = ErrorClass::of_name(&name).ok_or("a class of errors that is not known")?;
            totals.causes.push((class, bounded(&cause)));
        }
        Ok(totals)
    }
}

fn count(n: u64) -> Checked<u64> {
    if n <= COUNT_MAX { Ok(n) } else { Err("a count that cannot be".to_owned()) }
}

fn latencies(text: &str) -> Checked<Latencies> {
    let read = Latencies::decode(text).map_err(|error| error.to_string())?;
    count(read.count())?;
    Ok(read)
}

/// Names with something each.
fn named<W, T>(
    words: Vec<(String, W)>,
    most: usize,
    read: impl Fn(W) -> Checked<T>,
) -> Checked<Vec<(Arc<str>, T)>> {
    if words.len() > most {
        return Err("more names than are told apart".to_owned());
    }
    let fits =
        |name: &str| (1..=NAME_MAX).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_graphic());
    let one = |(name, word): (String, W)| {
        if fits(&name) { Ok((Arc::from(name), read(word)?)) } else { Err("a name that cannot be".to_owned()) }
    };
    words.into_iter().map(one).collect()
}

#[cfg(test)]
#[path = "word_tests.rs"]
mod tests;
