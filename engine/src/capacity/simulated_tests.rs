//! A target of known capacity on a simulated clock, for tests and for `examples/searching.rs`.

use super::{Answer, Goal, Purpose, Search, Step, Trial};

/// Seeded random numbers.
struct Draws(u64);

impl Draws {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d)
    }

    /// Uniform in [0, 1).
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// With mean 0 and deviation 1 (Box and Muller).
    fn normal(&mut self) -> f64 {
        (-2.0 * (1.0 - self.unit()).ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos()
    }
}

/// How much it carries varies from trial to trial, and sometimes somebody takes a part of it.
pub(super) struct Target {
    pub(super) capacity: f64,
    /// The spread of the logarithm of what it carries.
    noise: f64,
    /// How often somebody takes 10 to 50 %.
    disturbed: f64,
    draws: Draws,
}

impl Target {
    pub(super) fn new(seed: u64, noise: f64, disturbed: f64) -> Self {
        let mut draws = Draws::new(seed);
        let capacity = 10f64.powf(2.0 + 3.0 * draws.unit());
        Self { capacity, noise, disturbed, draws }
    }

    fn answer(&mut self, purpose: Purpose, rate: f64, seconds: f64) -> Trial {
        // A long trial is judged over more of the noise.
        let noise = self.noise * (5.0 / seconds).sqrt().min(1.0);
        let mut carries = self.capacity * (noise * self.draws.normal()).exp();
        if self.draws.unit() < self.disturbed {
            carries *= 0.5 + 0.4 * self.draws.unit();
        }
        let passed = rate <= carries;
        // What plainly fails is ended early; each trial is followed by a second of rest.
        let share = if passed { 1.0 } else { (0.1 / (rate / carries - 1.0)).clamp(0.2, 1.0) };
        let answer = if passed { Answer::Passed } else { Answer::failed("p99") };
        Trial { purpose, took_s: seconds * share + 1.0, ..Trial::new(rate, seconds, answer) }
    }
}

/// What is looked for.
pub(super) fn goal() -> Goal {
    Goal {
        start: 50.0,
        max: 1e6,
        width: 0.05,
        confidence: 0.9,
        trial_s: 5.0,
        requests: 0.0,
        confirm_s: 20.0,
        within_s: 600.0,
        collapse: false,
        at_generator: false,
        prove: false,
    }
}

/// A search to its end.
pub(super) fn search(target: &mut Target, goal: Goal) -> Search {
    let mut search = Search::new(goal, Vec::new());
    for _ in 0..500 {
        let Step::Try { purpose, rate, seconds } = search.next() else { return search };
        search.learn(target.answer(purpose, rate, seconds));
    }
    panic!("the search never ends: {:?}", search.finding());
}
