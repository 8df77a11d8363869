//! A worker that is lost: what is missing of its share, and whether that matters. Pure.

use reports::record::Phase;

/// The share of a load's requests in one phase that may be missing: as many as may be never sent.
const MISSING: f64 = 0.001;

/// See the module.
#[derive(Debug, Clone, PartialEq)]
pub struct Loss {
    /// Which worker.
    pub worker: String,
    /// How it was lost.
    pub why: String,
    /// Until then it has told what it did, in seconds since the start.
    pub from_s: f64,
    /// From then on others send its share; if nobody could, the end of the arrivals.
    pub to_s: f64,
    /// By load: requests of its share that were due until `to_s` and of which nothing is known. They may have been sent.
    pub missing: Vec<u64>,
    /// Others send its share from `to_s` on.
    pub taken_over: bool,
    /// The phases in which it was lost, the first and the last.
    pub phases: (Phase, Phase),
    /// The largest share of a load's requests, in one of these phases, that is missing.
    pub weighs: f64,
}

impl Loss {
    /// How many requests are missing.
    pub fn missing(&self) -> u64 {
        self.missing.iter().sum()
    }

    /// Whether what is missing is too much for the rest to be trusted: more than one of a thousand requests of a load in a
    /// phase that is judged.
    pub fn matters(&self) -> bool {
        self.weighs > MISSING
    }

    /// Compares it with the requests that ended, by load and phase. It may all belong to any of its phases.
    pub(super) fn weigh(&mut self, ended: impl Fn(usize, Phase) -> u64) {
        let phases = Phase::ALL
            .into_iter()
            .filter(|phase| (self.phases.0..=self.phases.1).contains(phase) && *phase != Phase::WarmUp);
        let share = |missing: u64, ended: u64| missing as f64 / (missing + ended).max(1) as f64;
        let shares = phases.flat_map(|phase| {
            self.missing.iter().enumerate().map(move |(load, missing)| (load, phase, *missing))
        });
        self.weighs =
            shares.map(|(load, phase, missing)| share(missing, ended(load, phase))).fold(0.0, f64::max);
    }

    /// In words.
    pub fn words(&self) -> String {
        let Self { worker, why, from_s, to_s, .. } = self;
        let count = reports::format::count(self.missing());
        if self.taken_over {
            format!(
                "{worker} was lost after second {from_s} ({why}): nothing is known of {count} requests of its share, due \
                 until second {to_s:.2}; from then on the others sent it"
            )
        } else {
            format!(
                "{worker} was lost after second {from_s} ({why}): nothing is known of {count} requests of its share, and \
                 nobody was left to send it"
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_matters_where_more_than_one_of_a_thousand_is_missing() {
        let loss = |missing: &[u64], phases, ended: u64| {
            let mut loss = Loss {
                worker: "worker 1 of 2".to_owned(),
                why: "it hung up".to_owned(),
                from_s: 3.0,
                to_s: 4.5,
                missing: missing.to_vec(),
                taken_over: true,
                phases,
                weighs: 0.0,
            };
            loss.weigh(|load, _| if load == 0 { ended } else { 1_000_000 });
            loss
        };
        let baseline = (Phase::Baseline, Phase::Baseline);
        assert!(!loss(&[1], baseline, 999).matters());
        assert!(loss(&[2], baseline, 999).matters());
        assert!(!loss(&[0, 900], baseline, 10).matters(), "each load by itself");
        assert!(loss(&[1, 0], (Phase::WarmUp, Phase::Baseline), 0).matters());
        assert!(!loss(&[500], (Phase::WarmUp, Phase::WarmUp), 10).matters(), "nothing is judged there");
        let words = loss(&[1234], baseline, 10).words();
        assert!(words.contains("1,234 requests") && words.contains("until second 4.50"), "{words}");
    }
}
