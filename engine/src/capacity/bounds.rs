//! Bounds as MLRsearch defines them (draft-ietf-bmwg-mlrsearch-15, appendices A and B), from the same trials: not an
//! interval of confidence, but comparable with others who measure so.

use super::Trial;

/// The share of bad time that a rate may have and still count as carried.
const EXCEED: f64 = 0.5;

/// The relevant bounds, in requests per second.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Bounds {
    /// The highest rate below the upper bound that is carried in any case.
    pub lower: Option<f64>,
    /// The lowest rate that is not carried in any case.
    pub upper: Option<f64>,
}

/// What is known about one rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    Lower,
    Upper,
    Open,
}

/// Seconds of trials at one rate, those of full length and shorter ones apart.
#[derive(Debug, Default)]
struct Seconds {
    full: (f64, f64),
    short: (f64, f64),
}

impl Seconds {
    /// Whether the rate is a bound, whatever the seconds that lack up to `needed` would bring.
    fn known(&self, needed: f64) -> Known {
        let (good, bad) = self.full;
        // Short good time makes up for short bad time; what is left of that counts.
        let bad = bad + (self.short.1 - self.short.0 * EXCEED / (1.0 - EXCEED)).max(0.0);
        let whole = (good + bad).max(needed);
        if bad > whole * EXCEED {
            Known::Upper
        } else if whole - good <= whole * EXCEED {
            Known::Lower
        } else {
            Known::Open
        }
    }
}

/// The bounds: a rate is decided by `needed` seconds of trials that are at least `full` seconds long, or by fewer where
/// the rest cannot change it.
pub(super) fn bounds(trials: &[Trial], full: f64, needed: f64) -> Bounds {
    let mut rates: Vec<f64> = trials.iter().map(|trial| trial.rate).collect();
    rates.sort_by(f64::total_cmp);
    rates.dedup();
    let known = |rate: &f64| {
        let mut seconds = Seconds::default();
        for trial in trials.iter().filter(|trial| trial.rate == *rate) {
            let Some(passed) = trial.passed() else { continue };
            let kind = if trial.seconds >= full { &mut seconds.full } else { &mut seconds.short };
            *(if passed { &mut kind.0 } else { &mut kind.1 }) += trial.seconds;
        }
        seconds.known(needed)
    };
    let known: Vec<(f64, Known)> = rates.iter().map(|rate| (*rate, known(rate))).collect();
    let upper = known.iter().find(|(_, known)| *known == Known::Upper).map(|(rate, _)| *rate);
    let below = |rate: f64| upper.is_none_or(|upper| rate < upper);
    let lower = known.iter().rev().find(|(rate, known)| *known == Known::Lower && below(*rate));
    Bounds { lower: lower.map(|(rate, _)| *rate), upper }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capacity::Answer;

    fn trials(given: &[(f64, f64, bool)]) -> Vec<Trial> {
        let answer = |passed| if passed { Answer::Passed } else { Answer::failed("p99") };
        given.iter().map(|&(rate, seconds, passed)| Trial::new(rate, seconds, answer(passed))).collect()
    }

    #[test]
    fn a_rate_is_decided_as_soon_as_the_rest_cannot_change_it() {
        let both = |given: &[(f64, f64, bool)]| {
            let Bounds { lower, upper } = bounds(&trials(given), 5.0, 20.0);
            (lower, upper)
        };
        assert_eq!(both(&[(100.0, 5.0, true)]), (None, None), "five seconds of twenty");
        assert_eq!(both(&[(100.0, 5.0, true), (100.0, 5.0, true)]), (Some(100.0), None));
        assert_eq!(both(&[(100.0, 5.0, false), (100.0, 5.0, false)]), (None, None), "half may be bad");
        assert_eq!(both(&[(100.0, 5.0, false); 3]), (None, Some(100.0)));
        // Short trials count only where they are bad on balance.
        assert_eq!(both(&[(100.0, 3.0, false); 4]), (None, Some(100.0)));
        assert_eq!(both(&[(100.0, 3.0, true); 9]), (None, None));
    }

    #[test]
    fn a_good_rate_above_a_bad_one_is_no_bound() {
        let given: Vec<(f64, f64, bool)> = [(90.0, true), (100.0, false), (110.0, true)]
            .into_iter()
            .flat_map(|(rate, passed)| [(rate, 5.0, passed); 4])
            .collect();
        assert_eq!(bounds(&trials(&given), 5.0, 20.0), Bounds { lower: Some(90.0), upper: Some(100.0) });
    }

    #[test]
    fn invalid_trials_say_nothing() {
        let invalid = [Trial::new(100.0, 60.0, Answer::Invalid { why: "late".to_owned() })];
        assert_eq!(bounds(&invalid, 5.0, 20.0), Bounds::default());
    }
}
