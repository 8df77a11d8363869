//! The course of a journey by the second: when it broke, and when it held again.
//!
//! A stretch of time is *held* or *missed* only if the whole interval of every objective, or of one, says so; otherwise
//! neighbouring seconds are put together until it does. No data is never good.

use reports::Latencies;
use reports::record::{Bucket, LoadRecord, Objective, Outcomes, Phase, RunRecord, Sli, Verdict};

use super::{measure, stats};

/// Seconds on end that must be good before the objectives count as holding again.
pub const STEADY_SECONDS: usize = 3;

/// One slice of time of one journey, usually a second: what the objectives need to know of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Slice {
    at_s: f64,
    len_s: f64,
    due: u64,
    ok: u64,
    done: u64,
    /// By objective: good answers within its limit, if it has one on latency.
    within: Vec<u64>,
    /// Not cut short by the edge of what is looked at.
    whole: bool,
}

impl Slice {
    /// From what came due and what ended between `at_s` and `at_s + len_s`. All slices of a journey must be given the
    /// same objectives.
    pub fn new(
        own: &[&Objective],
        (at_s, len_s): (f64, f64),
        outcomes: &Outcomes,
        latencies: &Latencies,
    ) -> Self {
        let within = |objective: &&Objective| match objective.sli {
            // Deadline misses have an age, but they are no answers.
            Sli::Latency(_) => latencies.count_within(objective.limit).min(outcomes.ok),
            Sli::Availability | Sli::Throughput => 0,
        };
        Self {
            at_s,
            len_s,
            due: outcomes.due,
            ok: outcomes.ok,
            done: outcomes.done(),
            within: own.iter().map(within).collect(),
            whole: true,
        }
    }

    fn merge(&mut self, other: &Self) {
        self.due += other.due;
        self.ok += other.ok;
        self.done += other.done;
        self.within.iter_mut().zip(&other.within).for_each(|(mine, theirs)| *mine += theirs);
    }
}

/// The slices of a load in some phases, those of one second put together.
fn slices(own: &[&Objective], load: &LoadRecord, wanted: impl Fn(&Bucket) -> bool) -> Vec<Slice> {
    let mut slices: Vec<Slice> = Vec::new();
    for bucket in load.buckets.iter().filter(|bucket| wanted(bucket)) {
        let latencies = Latencies::decode(&bucket.all.latencies).unwrap_or_default();
        let slice = Slice::new(own, (bucket.at_s, bucket.len_s), &bucket.all, &latencies);
        match slices.last_mut() {
            Some(last) if last.at_s == slice.at_s => last.merge(&slice),
            _ => slices.push(slice),
        }
    }
    slices
}

/// Slices put together.
#[derive(Default)]
struct Pool {
    length: f64,
    due: u64,
    ok: u64,
    done: u64,
    within: Vec<u64>,
    /// Good answers per second in each whole slice.
    rates: Vec<f64>,
}

impl Pool {
    fn of(slices: &[Slice]) -> Self {
        let mut pool = Self::default();
        for slice in slices {
            pool.add(slice);
        }
        pool
    }

    fn add(&mut self, slice: &Slice) {
        self.length += slice.len_s;
        self.due += slice.due;
        self.ok += slice.ok;
        self.done += slice.done;
        self.within.resize(slice.within.len(), 0);
        self.within.iter_mut().zip(&slice.within).for_each(|(mine, theirs)| *mine += theirs);
        if slice.whole {
            self.rates.push(slice.ok as f64 / slice.len_s);
        }
    }

    /// One objective's answer, and whether the point estimate is on its good side; none without data.
    fn one(&self, objective: &Objective, within: u64) -> Option<(Verdict, bool)> {
        // Nothing that came back of what was due is a throughput of 0; of the rest it says nothing.
        let due = objective.sli == Sli::Throughput && self.due > 0;
        if self.done == 0 && !due {
            return None;
        }
        match objective.sli {
            Sli::Availability => {
                let measured = measure::share(self.ok, self.done);
                Some((
                    measure::answer(objective, &measured),
                    measured.estimate.is_some_and(|share| measure::good(objective, share)),
                ))
            }
            // The same as comparing the quantile's interval with the limit, without the distribution.
            Sli::Latency(q) => {
                let (low, high) = stats::quantile_ranks(q, self.done);
                let verdict = if high <= self.done && within >= high {
                    Verdict::Held
                } else if within < low.max(1) {
                    Verdict::Missed
                } else {
                    Verdict::Unknown
                };
                Some((verdict, within >= stats::rank(q, self.done)))
            }
            Sli::Throughput => {
                let (mean, low, high) = stats::mean(&self.rates)?;
                let measured = measure::Measured {
                    estimate: Some(mean),
                    low: Some(low),
                    high: Some(high),
                    samples: self.rates.len() as u64,
                };
                Some((measure::answer(objective, &measured), measure::good(objective, mean)))
            }
        }
    }

    /// Of all objectives: missed if one is, held if all are; and whether all have their estimate on the good side.
    fn answer(&self, own: &[&Objective]) -> (Verdict, bool) {
        let (mut verdict, mut good) = (Verdict::Held, true);
        for (objective, within) in own.iter().zip(self.within.iter().chain(std::iter::repeat(&0))) {
            let (one, fine) = self.one(objective, *within).unwrap_or((Verdict::Unknown, false));
            good &= fine;
            verdict = match (verdict, one) {
                (Verdict::Missed, _) | (_, Verdict::Missed) => Verdict::Missed,
                (Verdict::Unknown, _) | (_, Verdict::Unknown) => Verdict::Unknown,
                (Verdict::Held, Verdict::Held) => Verdict::Held,
            };
        }
        (verdict, good)
    }
}

/// Whether a slice is bad by itself: an objective is plainly missed, or nothing came though something was due.
fn bad(own: &[&Objective], slices: &[Slice], at: usize) -> bool {
    let slice = &slices[at];
    // A single request may end in the next second without anything being wrong.
    let comes = slice.due == 1 && slices.get(at + 1).is_some_and(|next| next.done > 0);
    let silent = slice.due > 0 && slice.done == 0 && !comes;
    silent || Pool::of(&slices[at..=at]).answer(own).0 == Verdict::Missed
}

/// Whether the newest seconds of a journey look steady: data, none of them bad, every estimate on the good side. Enough
/// to go on with a run; whether it has recovered is decided from the record.
pub fn looks_steady(own: &[&Objective], slices: &[Slice]) -> bool {
    let Some(start) = slices.len().checked_sub(STEADY_SECONDS) else { return false };
    let (verdict, good) = Pool::of(&slices[start..]).answer(own);
    good && verdict != Verdict::Missed && !(start..slices.len()).any(|at| bad(own, slices, at))
}

/// When a journey held again.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct Again {
    /// The start of the first stretch that held.
    held: Option<f64>,
    /// The earliest start that the data do not exclude.
    not_before: Option<f64>,
}

/// Looks for the first stretch that begins with [`STEADY_SECONDS`] without a bad one and, long enough to be decided,
/// held.
fn again(own: &[&Objective], slices: &[Slice]) -> Again {
    let bad: Vec<bool> = (0..slices.len()).map(|at| bad(own, slices, at)).collect();
    let total: f64 = slices.iter().map(|slice| slice.len_s).sum();
    let wanted = total.min(STEADY_SECONDS as f64);
    let mut not_before = None;
    'start: for (start, first) in slices.iter().enumerate().filter(|(_, slice)| slice.done > 0) {
        let mut pool = Pool::default();
        let mut verdict = Verdict::Unknown;
        for (slice, bad) in slices.iter().zip(&bad).skip(start) {
            if *bad && pool.length < wanted {
                continue 'start;
            }
            pool.add(slice);
            if pool.length >= wanted {
                verdict = pool.answer(own).0;
            }
            if verdict != Verdict::Unknown {
                break;
            }
        }
        if verdict != Verdict::Missed {
            not_before.get_or_insert(first.at_s);
        }
        if verdict == Verdict::Held {
            return Again { held: Some(first.at_s), not_before };
        }
    }
    Again { held: None, not_before }
}

/// What a record says about the time after the last undo.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Recovery {
    /// Until the slowest journey held again.
    pub(super) seconds: Option<f64>,
    /// Why there is no such time.
    pub(super) note: Option<String>,
    /// It took too long.
    pub(super) missed: Vec<String>,
    /// It cannot be told whether it took too long.
    pub(super) doubts: Vec<String>,
}

/// From the last undo until every journey held again.
pub(super) fn recovery(record: &RunRecord) -> Recovery {
    let Some(undone) = last_undo(record) else { return Recovery::default() };
    let allowed = record.recover_within_s;
    let mut found = Recovery { seconds: Some(0.0), ..Recovery::default() };
    for load in &record.loads {
        let own = own(record, &load.name);
        if own.is_empty() {
            continue;
        }
        let name = &load.name;
        let mut slices = slices(&own, load, |b| b.phase > Phase::Fault && b.at_s + b.len_s > undone);
        let last = slices.len().saturating_sub(1);
        for (at, slice) in slices.iter_mut().enumerate() {
            // What an edge cuts short would look like a drop of throughput.
            slice.whole = at != last && slice.at_s >= undone;
        }
        let Again { held, not_before } = again(&own, &slices);
        // A second that began before the undo and is good means: at once.
        let after = |at: Option<f64>| at.map(|at| (at - undone).max(0.0));
        let silent = slices.iter().all(|slice| slice.due == 0 && slice.done == 0);
        let note = match (after(held), after(not_before)) {
            _ if silent => {
                format!("no request of {name} after the last undo: nobody can tell when it held again")
            }
            (_, None) => {
                let why = format!("the objectives of {name} did not hold again before the load ended");
                found.missed.push(why.clone());
                why
            }
            (held, Some(soonest)) if soonest > allowed => {
                let (least, took) = held.map_or((" at least", soonest), |took| ("", took));
                let why = format!(
                    "recovery of {name} took{least} {took:.1} s, longer than the {allowed:.1} s allowed"
                );
                found.missed.push(why.clone());
                if let Some(took) = held {
                    found.seconds = found.seconds.map(|slowest| slowest.max(took));
                    continue;
                }
                why
            }
            (Some(took), _) if took <= allowed => {
                found.seconds = found.seconds.map(|slowest| slowest.max(took));
                continue;
            }
            (Some(took), _) => {
                format!(
                    "too few requests of {name} to tell when it held again: {took:.1} s after the last undo at the latest"
                )
            }
            (None, _) => format!("too few requests of {name} to tell when it held again"),
        };
        found.seconds = None;
        found.doubts.push(note.clone());
        found.note.get_or_insert(note);
    }
    if !found.missed.is_empty() {
        found.doubts.clear();
    }
    found
}

/// From the first injection until an objective was plainly missed: by a second of its own, or by all seconds so far.
pub(super) fn detection(record: &RunRecord) -> Option<f64> {
    let applied = record.injections.iter().filter_map(|i| i.applied_s).reduce(f64::min)?;
    let undone = last_undo(record).unwrap_or(f64::INFINITY);
    let broke = record.loads.iter().filter_map(|load| {
        let mut own = own(record, &load.name);
        // What is not judged in the fault cannot break there.
        own.retain(|objective| objective.phases.contains(&Phase::Fault));
        let mut slices = slices(&own, load, |b| b.phase == Phase::Fault && b.at_s < undone);
        for slice in &mut slices {
            slice.whole = slice.at_s >= applied && slice.at_s + slice.len_s <= undone;
        }
        let mut so_far = Pool::default();
        let broken = |slice: &&Slice| {
            so_far.add(slice);
            let alone = Pool::of(std::slice::from_ref(*slice));
            [&alone, &so_far].into_iter().any(|pool| pool.answer(&own).0 == Verdict::Missed)
        };
        let first = slices.iter().find(broken)?;
        Some(first.at_s + first.len_s)
    });
    broke.reduce(f64::min).map(|at| (at - applied).max(0.0))
}

/// The objectives of a journey.
fn own<'r>(record: &'r RunRecord, journey: &str) -> Vec<&'r Objective> {
    record.objectives.iter().filter(|objective| objective.journey == journey).collect()
}

fn last_undo(record: &RunRecord) -> Option<f64> {
    record.injections.iter().filter_map(|i| i.undone_s).reduce(f64::max)
}
