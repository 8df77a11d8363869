//! What trials say about the capacity: a posterior over the rate, on a grid.
//!
//! A trial at rate x passes with probability `lapse` + (1 − `lapse` − `luck`) · σ((ln c − ln x) / s): a psychometric
//! curve, as used to measure thresholds of perception (Watson & Pelli, QUEST, 1983; Kontsevich & Tyler, 1999, for the slope as a
//! second unknown). c is the capacity, the rate at which half of the undisturbed trials pass; s says how wide the
//! band is in which both happen; a lapse is a trial that fails at any rate, since the host or a neighbour disturbed it.

/// Steps of the grid per factor e of the rate: 0.25 % each.
const PER_E: f64 = 400.0;
/// How wide the band may be, as a share of the rate.
const SLOPES: [f64; 5] = [0.0025, 0.01, 0.02, 0.04, 0.08];
/// How often undisturbed rates may fail.
const LAPSES: [f64; 4] = [0.01, 0.05, 0.1, 0.2];
/// How often a rate that is too high passes by luck.
const LUCK: f64 = 0.01;
const CURVES: usize = SLOPES.len() * LAPSES.len();

/// A distribution over the capacity, and over the shapes of the curve.
#[derive(Debug, Clone)]
pub(super) struct Posterior {
    /// The logarithm of the lowest rate of the grid.
    lowest: f64,
    /// By rate, then by curve; it sums to one.
    weights: Vec<[f64; CURVES]>,
    /// [`passes`] by how many steps the capacity lies above the rate, from the most below: exponentials are what costs.
    curves: Vec<[f64; CURVES]>,
}

fn passes(distance: f64, curve: usize) -> f64 {
    let (slope, lapse) = (SLOPES[curve % SLOPES.len()], LAPSES[curve / SLOPES.len()]);
    LUCK + (1.0 - lapse - LUCK) / (1.0 + (-distance / slope).exp())
}

impl Posterior {
    /// All rates between two are as likely, by their logarithm.
    pub(super) fn between(low: f64, high: f64) -> Self {
        let (low, high) = (low.min(high).max(1e-3), high.max(low).max(1e-3));
        let steps = ((high / low).ln() * PER_E).ceil() as usize + 1;
        let weight = 1.0 / (steps * CURVES) as f64;
        let away = |step| (step as f64 - steps as f64) / PER_E;
        let curves = (0..=2 * steps).map(|step| std::array::from_fn(|curve| passes(away(step), curve)));
        Self { lowest: low.ln(), weights: vec![[weight; CURVES]; steps], curves: curves.collect() }
    }

    fn at(&self, index: usize) -> f64 {
        self.lowest + index as f64 / PER_E
    }

    /// By capacity, the chances that a trial at this rate passes: the rate is rounded to the grid.
    fn passing(&self, rate: f64) -> &[[f64; CURVES]] {
        let steps = self.weights.len();
        let at = ((rate.ln() - self.lowest) * PER_E).round().clamp(0.0, steps as f64) as usize;
        &self.curves[steps - at..]
    }

    /// Learns from a trial.
    pub(super) fn learn(&mut self, rate: f64, passed: bool) {
        let times = |(weights, chances): (&[f64; CURVES], &[f64; CURVES])| {
            std::array::from_fn(|at| weights[at] * if passed { chances[at] } else { 1.0 - chances[at] })
        };
        let mut weights: Vec<[f64; CURVES]> =
            self.weights.iter().zip(self.passing(rate)).map(times).collect();
        let sum: f64 = weights.iter().flatten().sum();
        weights.iter_mut().flatten().for_each(|weight| *weight /= sum);
        self.weights = weights;
    }

    /// The rate below which the capacity lies with this probability.
    pub(super) fn quantile(&self, q: f64) -> f64 {
        let mut below = 0.0;
        for (index, curves) in self.weights.iter().enumerate() {
            let mass: f64 = curves.iter().sum();
            if below + mass >= q && mass > 0.0 {
                // Within a step, evenly.
                return (self.at(index) + ((q - below) / mass - 0.5) / PER_E).exp();
            }
            below += mass;
        }
        self.at(self.weights.len() - 1).exp()
    }

    /// How much a trial at this rate would tell about the capacity, in nats: the mutual information of both.
    pub(super) fn information(&self, rate: f64) -> f64 {
        let mut split = Vec::new();
        for (weights, chances) in self.weights.iter().zip(self.passing(rate)) {
            let mass: f64 = weights.iter().sum();
            // What is next to impossible tells nothing.
            if mass > 1e-7 {
                let pass: f64 = weights.iter().zip(chances).map(|(weight, chance)| weight * chance).sum();
                split.push((pass, mass - pass));
            }
        }
        let (pass, fail) = split.iter().fold((0.0, 0.0), |sums, one| (sums.0 + one.0, sums.1 + one.1));
        let part = |joint: f64, marginal: f64, mass: f64| {
            if joint > 0.0 { joint * (joint / (marginal * mass)).ln() } else { 0.0 }
        };
        split.iter().map(|(p, f)| part(*p, pass, p + f) + part(*f, fail, p + f)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_narrows_around_what_divides_passes_from_failures() {
        let mut posterior = Posterior::between(1.0, 1e6);
        assert!((posterior.quantile(0.5) / 1e3 - 1.0).abs() < 0.01, "{}", posterior.quantile(0.5));
        for rate in [800.0, 900.0, 950.0, 980.0, 980.0, 980.0] {
            posterior.learn(rate, true);
        }
        for rate in [1200.0, 1100.0, 1050.0, 1020.0, 1020.0, 1020.0] {
            posterior.learn(rate, false);
        }
        let (low, high) = (posterior.quantile(0.05), posterior.quantile(0.95));
        assert!(low > 900.0 && low < 1000.0 && high > 1000.0 && high < 1100.0, "{low} {high}");
        let sum: f64 = posterior.weights.iter().flatten().sum();
        assert!((sum - 1.0).abs() < 1e-9);
    }

    #[test]
    fn one_disturbed_trial_does_not_move_a_capacity_that_many_have_shown() {
        let mut posterior = Posterior::between(1.0, 1e6);
        for _ in 0..6 {
            posterior.learn(900.0, true);
            posterior.learn(1100.0, false);
        }
        let before = posterior.quantile(0.05);
        posterior.learn(500.0, false);
        assert!(posterior.quantile(0.05) > 0.97 * before);
    }

    #[test]
    fn the_most_is_learnt_where_the_answer_is_open() {
        let mut posterior = Posterior::between(1.0, 1e6);
        posterior.learn(1000.0, true);
        posterior.learn(2000.0, false);
        let told = [100.0, 1400.0, 50_000.0].map(|rate| posterior.information(rate));
        assert!(told[1] > told[0] && told[1] > told[2], "{told:?}");
    }
}
