//! Rates that are changed while they are sent: factors on a profile, in the space of its counts.
//!
//! With a factor k(t) on a rate r(t), M(t) = ∫ k·r counts the arrivals intended up to t. Arrival m is due when M(t) reaches
//! m, so the numbering, and with it the sharing among workers, goes on across a change, and no arrival is sent twice or
//! lost. Pure.

use serde::{Deserialize, Serialize};

use super::Profile;

/// The most changes of one load.
pub const CHANGES_MAX: usize = 1000;
/// The largest factor.
pub const FACTOR_MAX: f64 = 1000.0;

/// From one change to the next.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stretch {
    /// When it begins, in seconds.
    at: f64,
    factor: f64,
    /// N at its beginning: arrivals of the profile.
    profile: f64,
    /// M at its beginning: arrivals that were intended.
    intended: f64,
}

/// Factors on a profile over time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Stretch>", into = "Vec<Stretch>")]
pub struct Pace(Vec<Stretch>);

impl From<Pace> for Vec<Stretch> {
    fn from(pace: Pace) -> Self {
        pace.0
    }
}

impl TryFrom<Vec<Stretch>> for Pace {
    type Error = &'static str;

    fn try_from(stretches: Vec<Stretch>) -> Result<Self, Self::Error> {
        let number =
            |s: &Stretch| [s.at, s.factor, s.profile, s.intended].iter().all(|n| n.is_finite() && *n >= 0.0);
        let follows = |pair: &[Stretch]| pair[0].at <= pair[1].at && pair[0].intended <= pair[1].intended;
        let fits = (1..=CHANGES_MAX).contains(&stretches.len())
            && stretches.iter().all(|s| number(s) && s.factor <= FACTOR_MAX)
            && stretches.windows(2).all(follows);
        if fits { Ok(Self(stretches)) } else { Err("changes of a rate that cannot be") }
    }
}

impl Default for Pace {
    /// As the profile says.
    fn default() -> Self {
        Self(vec![Stretch { at: 0.0, factor: 1.0, profile: 0.0, intended: 0.0 }])
    }
}

impl Pace {
    fn last(&self) -> &Stretch {
        self.0.last().expect("there is always one")
    }

    /// From this time on, in seconds, this factor; 0 is a pause. False, and nothing is changed, if there were too many
    /// changes, the factor is none, or the time lies before that of an earlier change.
    #[must_use]
    pub fn change(&mut self, profile: &Profile, at: f64, factor: f64) -> bool {
        let last = self.last();
        let possible = (0.0..=FACTOR_MAX).contains(&factor) && at >= last.at && self.0.len() < CHANGES_MAX;
        if possible {
            let (n, m) = (profile.expected(at), self.intended(profile, at));
            self.0.push(Stretch { at, factor, profile: n, intended: m });
        }
        possible
    }

    /// M(t): arrivals intended up to this time in seconds.
    pub fn intended(&self, profile: &Profile, t: f64) -> f64 {
        let after = self.0.partition_point(|stretch| stretch.at <= t);
        let Stretch { factor, profile: n, intended, .. } = self.0[after.saturating_sub(1)];
        intended + (profile.expected(t) - n).max(0.0) * factor
    }

    /// The factor after all changes.
    pub fn factor(&self) -> f64 {
        self.last().factor
    }

    /// The factor at this time in seconds.
    pub fn factor_at(&self, t: f64) -> f64 {
        let after = self.0.partition_point(|stretch| stretch.at <= t);
        self.0[after.saturating_sub(1)].factor
    }

    /// The last factor that was no pause.
    pub fn before_pause(&self) -> f64 {
        self.0.iter().rev().map(|stretch| stretch.factor).find(|factor| *factor > 0.0).unwrap_or(1.0)
    }

    /// Where arrival m lies among those of the profile; none while a pause without an end comes before it.
    pub(super) fn place(&self, m: f64) -> Option<f64> {
        let after = self.0.partition_point(|stretch| stretch.intended <= m);
        let Stretch { factor, profile, intended, .. } = self.0[after.saturating_sub(1)];
        (factor > 0.0).then(|| profile + (m - intended) / factor)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::super::{Arrivals, NEVER, Segment};
    use super::*;

    fn profile() -> Profile {
        let second = Duration::from_secs(1);
        Profile::new(vec![
            Segment::Ramp { from: 0.0, to: 300.0, over: 3 * second },
            Segment::Hold { rate: 300.0, lasting: 4 * second },
            Segment::Sine { mean: 200.0, amplitude: 150.0, period: 2 * second, lasting: 3 * second },
        ])
        .unwrap()
    }

    /// The due times of all workers, each told of a change when its arrivals have come up to 0.2 s before it.
    fn sent(profile: &Profile, workers: u32, changes: &[(f64, f64)], poisson: bool) -> (Vec<f64>, Pace) {
        let mut all = Vec::new();
        let mut last = Pace::default();
        for worker in 0..workers {
            let mut arrivals = if poisson {
                Arrivals::poisson(profile, worker, workers, 7)
            } else {
                Arrivals::even(profile, worker, workers)
            };
            let (mut pace, mut next, mut left) =
                (Pace::default(), arrivals.next(), changes.iter().peekable());
            loop {
                let now = next.map_or(f64::INFINITY, |due| due as f64 / 1e9);
                if let Some((at, factor)) = left.next_if(|(at, _)| now >= at - 0.2) {
                    assert!(pace.change(profile, *at, *factor));
                    next = arrivals.pace(pace.clone());
                    continue;
                }
                match next {
                    Some(due) if due < NEVER => all.push(due as f64 / 1e9),
                    _ => break,
                }
                next = arrivals.next();
            }
            last = pace;
        }
        all.sort_by(f64::total_cmp);
        (all, last)
    }

    fn between(all: &[f64], from: f64, to: f64) -> f64 {
        all.iter().filter(|due| (from..to).contains(*due)).count() as f64
    }

    #[test]
    fn doubling_halving_pausing_and_resuming_send_exactly_what_was_intended() {
        let hold =
            Profile::new(vec![Segment::Hold { rate: 100.0, lasting: Duration::from_secs(10) }]).unwrap();
        for workers in [1, 3] {
            let changes = [(2.0, 2.0), (4.0, 0.5), (6.0, 0.0), (8.0, 1.0)];
            let (all, pace) = sent(&hold, workers, &changes, false);
            for (from, to, count) in
                [(0.0, 2.0, 200.0), (2.0, 4.0, 400.0), (4.0, 6.0, 100.0), (6.0, 8.0, 0.0), (8.0, 10.0, 200.0)]
            {
                assert_eq!(between(&all, from, to), count, "from {from} to {to} with {workers} workers");
            }
            assert_eq!((pace.intended(&hold, 10.0), all.len()), (900.0, 900));
            // The merged stream is even: twice the rate is half the gap.
            let gaps =
                all.windows(2).filter(|pair| (2.0..3.99).contains(&pair[0])).map(|pair| pair[1] - pair[0]);
            assert!(gaps.clone().all(|gap| (gap - 0.005).abs() < 1e-6), "{:?}", gaps.collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_pause_without_an_end_is_no_end_of_the_arrivals() {
        let hold = Profile::new(vec![Segment::Hold { rate: 10.0, lasting: Duration::from_secs(2) }]).unwrap();
        let mut arrivals = Arrivals::even(&hold, 0, 1);
        let mut pace = Pace::default();
        assert!(pace.change(&hold, 0.55, 0.0));
        assert_eq!(arrivals.pace(pace.clone()).or(arrivals.next()), Some(0));
        assert_eq!(arrivals.by_ref().take(6).last(), Some(NEVER));
        assert!(pace.change(&hold, 1.0, 1.0) && pace.before_pause() == 1.0);
        assert_eq!(arrivals.pace(pace).map(|due| due / 1_000_000), Some(1050));
    }

    #[test]
    fn a_change_in_the_past_or_beyond_all_bounds_is_none() {
        let mut pace = Pace::default();
        assert!(pace.change(&profile(), 2.0, 3.0));
        for (at, factor) in [(1.0, 1.0), (3.0, -1.0), (3.0, f64::NAN), (3.0, FACTOR_MAX * 2.0)] {
            assert!(!pace.change(&profile(), at, factor));
        }
        for _ in 0..CHANGES_MAX {
            let _ = pace.change(&profile(), 4.0, 1.0);
        }
        assert_eq!(pace.0.len(), CHANGES_MAX);
        assert!(pace.factor_at(1.0) == 1.0 && pace.factor_at(2.5) == 3.0 && pace.factor() == 1.0);
    }

    proptest! {
        #[test]
        fn between_two_times_come_as_many_as_were_intended(
            workers in 1u32..5,
            steps in prop::collection::vec((0.3f64..2.0, prop_oneof![Just(0.0), 0.1f64..4.0]), 0..6),
            from in 0.0f64..10.0,
            lasting in 0.0f64..5.0,
        ) {
            let profile = profile();
            let mut at = 0.0;
            let changes: Vec<(f64, f64)> = steps.iter().map(|(after, k)| { at += after; (at, *k) }).collect();
            let changes: Vec<(f64, f64)> = changes.into_iter().filter(|(at, _)| *at < 9.9).collect();
            let (all, pace) = sent(&profile, workers, &changes, false);
            let to = (from + lasting).min(10.0);
            let wanted = pace.intended(&profile, to) - pace.intended(&profile, from.min(to));
            prop_assert!((between(&all, from.min(to), to) - wanted).abs() <= 1.001, "{wanted}");
            prop_assert!((all.len() as f64 - pace.intended(&profile, 10.0)).abs() <= 1.001);
            // Nothing twice, but where a pause ends with what was due.
            prop_assert!(all.windows(2).all(|pair| pair[0] < pair[1] || changes.iter().any(|(at, _)| (at - pair[0]).abs() < 1e-6)));
        }
    }

    #[test]
    fn random_arrivals_follow_the_factors_as_well() {
        let hold =
            Profile::new(vec![Segment::Hold { rate: 2000.0, lasting: Duration::from_secs(4) }]).unwrap();
        let (all, _) = sent(&hold, 2, &[(1.0, 2.0), (2.0, 0.0), (3.0, 0.5)], true);
        for (from, wanted) in [(0.0, 2000.0), (1.0, 4000.0), (2.0, 0.0), (3.0, 1000.0f64)] {
            let off = between(&all, from, from + 1.0) - wanted;
            assert!(off.abs() <= 5.0 * wanted.sqrt(), "{off} of {wanted}");
        }
    }
}
