//! Whether a target is itself again after a fault: short loads at a rate that it is known to carry, until one is good.

use std::time::{Duration, Instant};

use super::search::{Course, answer};
use super::{Asked, Ended, hold, run};
use crate::capacity::Answer;
use crate::load::{LoadError, LoadSpec};
use crate::run::Signals;

/// How long each look is, in seconds.
const LOOK_S: f64 = 2.0;
/// Between two looks.
const REST: Duration = Duration::from_millis(500);

/// How a target came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recovered {
    /// It is itself again.
    Yes,
    /// Not within its time.
    No,
    /// The operator did not want to wait.
    ByOperator,
}

/// Waits until a load at this rate is good again, for no longer than `patience`.
///
/// # Errors
/// The load cannot be sent.
pub async fn recovered(
    asked: Asked<'_>,
    rate: f64,
    patience: Duration,
    signals: &mut Signals,
) -> Result<Recovered, LoadError> {
    let began = Instant::now();
    let profile = hold(rate, LOOK_S);
    let spec = LoadSpec { profile, ..asked.spec.clone() };
    loop {
        let mut course = Course::new(asked.objectives, spec.profile.total());
        let look = Asked { spec: &spec, probe: false, ..asked };
        let finished = run(look, signals, |tick| course.second(tick)).await?;
        if finished.ended == Ended::ByOperator {
            return Ok(Recovered::ByOperator);
        }
        // Two seconds do not show what piles up, nor does it matter here.
        if answer(&finished, asked.objectives, &course, rate) == Answer::Passed {
            return Ok(Recovered::Yes);
        }
        if began.elapsed() >= patience {
            return Ok(Recovered::No);
        }
        tokio::select! {
            () = tokio::time::sleep(REST) => {}
            _ = signals.next() => return Ok(Recovered::ByOperator),
        }
    }
}
