//! Where the arrivals of one load stand, as far as one thread sends them: a class of them is every W-th. All that decides
//! what comes next follows from seed, class and profile, so any thread can go on with a class at any time, exactly.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::Load;
use super::clock::nanos;
use crate::random::Random;
use crate::schedule::{Arrivals, NEVER, Pace, Profile};

/// The arrivals number k, k + W, k + 2W, … of a load, and when those of them are due at this pace.
pub(super) fn arrivals(
    (profile, poisson): (&Profile, bool),
    place: usize,
    (class, of): (u32, u32),
    seed: u64,
) -> Arrivals {
    if poisson {
        Arrivals::poisson(profile, class, of, seed.wrapping_add(place as u64))
    } else {
        Arrivals::even(profile, class, of)
    }
}

/// See the module.
pub(super) struct Flow {
    arrivals: Arrivals,
    pub(super) next: Option<u64>,
    /// Of the next request with slots: those of class k of W are k, k + W, k + 2W, …
    pub(super) number: u64,
    pub(super) class: u32,
    of: u32,
    pace: Pace,
    random: Random,
}

impl Flow {
    /// Of the load at this place.
    pub(super) fn new(load: &Load, place: usize, (class, of): (u32, u32), seed: u64) -> Self {
        let mut arrivals = arrivals((&load.profile, load.poisson), place, (class, of), seed);
        let next = arrivals.next();
        let random = Random::new(!seed.wrapping_add(place as u64), u64::from(class));
        Self { arrivals, next, number: u64::from(class), class, of, pace: Pace::default(), random }
    }

    /// Goes on at another pace from the time at which it was announced.
    pub(super) fn repace(&mut self, pace: Pace) {
        self.next = self.arrivals.pace(pace.clone());
        self.pace = pace;
    }

    /// The pace.
    pub(super) fn pace(&self) -> &Pace {
        &self.pace
    }

    /// A pause that lasts to the end of the arrivals is their end.
    pub(super) fn end_pause(&mut self, load: &Load, now: u64) {
        if self.next == Some(NEVER) && now >= nanos(load.profile.duration()) {
            self.next = None;
        }
    }

    /// Takes the next arrival: which request it is, and its number.
    pub(super) fn take(&mut self, load: &Load) -> (u16, u64) {
        let kind = match &load.replay {
            Some(trace) => trace.shot(self.number).method,
            None => self.pick(load),
        };
        let number = self.number;
        if load.checked.requests[usize::from(kind)].recipe.slotted() {
            self.number += u64::from(self.of);
        }
        self.next = self.arrivals.next();
        (kind, number)
    }

    fn pick(&mut self, load: &Load) -> u16 {
        let weights = &load.checked.weights;
        match weights.last() {
            Some(sum) if weights.len() > 1 => {
                let drawn = (self.random.unit() * *sum as f64) as u64;
                weights.partition_point(|below| *below <= drawn).min(weights.len() - 1) as u16
            }
            _ => 0,
        }
    }

    /// Leaves out every arrival that is due before this time, as if it had been sent.
    pub(super) fn skip_to(&mut self, load: &Load, at: u64) {
        let requests = &load.checked.requests;
        if requests.len() == 1 && !requests[0].recipe.slotted() && self.next.is_some_and(|due| due < at) {
            (_, self.next) = self.arrivals.skip_to(at);
            return;
        }
        while self.next.is_some_and(|due| due < at) {
            self.take(load);
        }
    }
}

/// A class that a thread takes over from one that is lost.
pub(super) struct Taken {
    /// Which thread.
    pub(super) thread: u32,
    /// With the places of their loads.
    pub(super) flows: Vec<(usize, Flow)>,
}

/// Classes on their way to their new threads.
#[derive(Default)]
pub(super) struct TakeCell {
    version: AtomicU64,
    waiting: Mutex<Vec<Taken>>,
}

impl TakeCell {
    /// For whichever thread it names.
    pub(super) fn give(&self, taken: Taken) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(taken);
        self.version.fetch_add(1, Ordering::Release);
    }

    /// What this thread has to take over, if there is something new since the version that it saw last.
    pub(super) fn look(&self, thread: u32, seen: &mut u64) -> Vec<(usize, Flow)> {
        let version = self.version.load(Ordering::Acquire);
        if version == *seen {
            return Vec::new();
        }
        *seen = version;
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let (own, others) = std::mem::take(&mut *waiting).into_iter().partition(|one| one.thread == thread);
        *waiting = others;
        let own: Vec<Taken> = own;
        own.into_iter().flat_map(|taken| taken.flows).collect()
    }
}

/// What threads of one process can be told on the way.
#[derive(Clone)]
pub(super) struct Reins {
    pub(super) paces: Arc<super::knobs::PaceCell>,
    pub(super) takes: Arc<TakeCell>,
    /// Threads that have nothing more to send stay this long, in nanoseconds from the start: there may be something to take
    /// over.
    pub(super) stay: u64,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::load::part::Part;
    use crate::load::{LoadSpec, RequestSpec, Share};
    use crate::schedule::Segment;

    fn part(poisson: bool, weights: &[u32]) -> Part {
        let hold = Segment::Hold { rate: 500.0, lasting: Duration::from_secs(4) };
        let request = |(at, weight): (usize, &u32)| RequestSpec {
            name: format!("r{at}"),
            weight: *weight,
            // The second one has slots.
            ..RequestSpec::get(if at == 1 { "http://127.0.0.1:1/${counter}" } else { "http://127.0.0.1:1/" })
        };
        let requests = weights.iter().enumerate().map(request).collect();
        let mut spec = LoadSpec::new("a", requests, Profile::new(vec![hold]).unwrap());
        spec.poisson = poisson;
        let share = Share { first: 0, threads: 1, of: 3 };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(Part::new(vec![(0, spec)], share, 1)).unwrap()
    }

    fn rest(part: &Part, flow: &mut Flow) -> Vec<(u64, u16, u64)> {
        std::iter::from_fn(|| {
            let due = flow.next.filter(|due| *due < NEVER)?;
            let (kind, number) = flow.take(&part.loads()[0].1);
            Some((due, kind, number))
        })
        .collect()
    }

    #[test]
    fn a_class_goes_on_elsewhere_exactly_where_it_was() {
        for (poisson, weights) in [(false, &[1][..]), (true, &[1]), (false, &[3, 2]), (true, &[1, 4, 2])] {
            let part = part(poisson, weights);
            let profile = &part.loads()[0].1.profile;
            let mut pace = Pace::default();
            assert!(pace.change(profile, 0.7, 2.0) && pace.change(profile, 1.5, 0.0));
            assert!(pace.change(profile, 1.8, 0.5));
            for class in 0..3 {
                let mut flows = part.flows(class, 0, 9, std::slice::from_ref(&pace));
                let whole = rest(&part, &mut flows[0].1);
                for from in [0, 500_000_000, 1_600_000_000, 2_500_000_000, 9_000_000_000] {
                    let mut flows = part.flows(class, from, 9, std::slice::from_ref(&pace));
                    let later: Vec<_> = whole.iter().copied().filter(|(due, ..)| *due >= from).collect();
                    assert_eq!(
                        rest(&part, &mut flows[0].1),
                        later,
                        "class {class} of {weights:?} from {from}"
                    );
                }
            }
        }
    }

    #[test]
    fn only_the_thread_that_is_named_takes_over() {
        let (cell, part) = (TakeCell::default(), part(false, &[1]));
        cell.give(Taken { thread: 2, flows: part.flows(1, 0, 9, &[]) });
        let (mut one, mut two) = (0, 0);
        assert!(cell.look(1, &mut one).is_empty());
        assert_eq!(cell.look(2, &mut two).len(), 1);
        assert!(cell.look(2, &mut two).is_empty());
    }
}
