//! Arrivals in one word, built around one rate and one length. What a word means is shown wherever it is used.

use std::time::Duration;

use super::Segment;

/// Arrivals in one word.
#[derive(Debug)]
pub struct Preset {
    /// The word.
    pub name: &'static str,
    /// What it asks.
    pub question: &'static str,
    rate: f64,
    lasting: Duration,
    shape: fn(f64, Duration) -> Vec<Segment>,
}

/// All of them.
pub const PRESETS: &[Preset] = &[
    Preset {
        name: "smoke",
        question: "does it answer at all?",
        rate: 5.0,
        lasting: Duration::from_secs(10),
        shape: |rate, lasting| vec![Segment::Hold { rate, lasting }],
    },
    Preset {
        name: "soak",
        question: "does it stay as it is for long?",
        rate: 50.0,
        lasting: Duration::from_hours(1),
        shape: |rate, lasting| {
            let over = lasting.mul_f64(0.02);
            vec![
                Segment::Ramp { from: 0.0, to: rate, over },
                Segment::Hold { rate, lasting: lasting.saturating_sub(over) },
            ]
        },
    },
    Preset {
        name: "stress",
        question: "does it carry half as much again?",
        rate: 100.0,
        lasting: Duration::from_mins(2),
        shape: |rate, lasting| {
            vec![Segment::Steps { from: 0.5 * rate, to: 1.5 * rate, count: 6, each: lasting / 6 }]
        },
    },
    Preset {
        name: "spike",
        question: "does it survive five times as much, and recover?",
        rate: 50.0,
        lasting: Duration::from_mins(1),
        shape: |rate, lasting| {
            let (at, spike) = (lasting.mul_f64(0.4), lasting.mul_f64(0.1));
            vec![Segment::Spike { base: rate, peak: 5.0 * rate, at, lasting: spike, total: lasting }]
        },
    },
    Preset {
        name: "breakpoint",
        question: "where about does it break? For a number, ask squall capacity",
        rate: 1000.0,
        lasting: Duration::from_mins(2),
        shape: |rate, over| vec![Segment::Ramp { from: 0.0, to: rate, over }],
    },
];

impl Preset {
    /// The arrivals, around a rate and over a time, or around its own.
    pub fn segments(&self, rate: Option<f64>, lasting: Option<Duration>) -> Vec<Segment> {
        (self.shape)(rate.unwrap_or(self.rate), lasting.unwrap_or(self.lasting))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::Profile;

    #[test]
    fn every_preset_is_a_profile_and_lasts_as_long_as_asked_for() {
        for preset in PRESETS {
            let own = Profile::new(preset.segments(None, None)).unwrap();
            assert!(
                (own.duration().as_secs_f64() - preset.lasting.as_secs_f64()).abs() < 1e-3,
                "{}",
                preset.name
            );
            let other = Profile::new(preset.segments(Some(300.0), Some(Duration::from_secs(33)))).unwrap();
            assert!((other.duration().as_secs_f64() - 33.0).abs() < 1e-3, "{}", preset.name);
            assert!(other.peak() >= 299.0, "{}", preset.name);
        }
    }
}
