//! Knobs of a load that is being sent: its rate is changed, paused and resumed while it goes on.
//!
//! A change is announced a little ahead, so that all workers make it at the same intended time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

use super::clock::{Clock, MILLISECOND, SECOND};
use super::part::Outline;
use crate::schedule::{FACTOR_MAX, MAX_RATE, Pace};

/// How far ahead a change is announced: every worker looks several times as often.
const AHEAD: u64 = 200 * MILLISECOND;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Knob {
    /// So many times the rate that was written.
    Times(f64),
    /// This rate now, in requests per second; what was written goes on in proportion.
    Rate(f64),
    /// Nothing is sent any more.
    Pause,
    /// As before the pause.
    Resume,
}

impl Knob {
    /// `x1.5`, `500/s`, `pause` or `resume`.
    ///
    /// # Errors
    /// What can be written.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no rate: write x1.5, 500/s, pause or resume");
        match text {
            "pause" => Ok(Self::Pause),
            "resume" => Ok(Self::Resume),
            _ => match text.strip_prefix('x') {
                Some(times) => {
                    let times = times.parse().ok().filter(|times| (0.001..=FACTOR_MAX).contains(times));
                    times.map(Self::Times).ok_or_else(|| format!("{}; x from 0.001 to {FACTOR_MAX}", wrong()))
                }
                None => {
                    let rate = text.parse::<injectors::units::Rate>().map_err(|_| wrong())?.0;
                    if rate > 0.0 { Ok(Self::Rate(rate)) } else { Err(format!("{}; 0/s is pause", wrong())) }
                }
            },
        }
    }
}

/// A change that all workers will make.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Turned {
    /// Of which load.
    pub load: String,
    /// When, in seconds since the start.
    pub at_s: f64,
    /// So many times what was written, until then and from then on.
    pub before: f64,
    /// See `before`.
    pub factor: f64,
    /// The rate from then on, in requests per second.
    pub rate: f64,
}

impl Turned {
    /// In words.
    pub fn words(&self) -> String {
        let rate = reports::format::rate(self.rate);
        match self.factor {
            0.0 => format!("{} is paused", self.load),
            factor => format!("{} goes on at {rate}, {factor:.3} times what was written", self.load),
        }
    }
}

/// The paces of all loads, shared with the workers.
pub(super) struct PaceCell {
    clock: Clock,
    loads: Vec<Arc<Outline>>,
    version: AtomicU64,
    paces: Mutex<Vec<Pace>>,
}

impl PaceCell {
    pub(super) fn new(loads: Vec<Arc<Outline>>, clock: Clock) -> Self {
        let paces = Mutex::new(vec![Pace::default(); loads.len()]);
        Self { clock, loads, version: AtomicU64::new(0), paces }
    }

    /// The paces now.
    pub(super) fn now(&self) -> Vec<Pace> {
        self.paces.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Others have changed them.
    pub(super) fn set(&self, paces: Vec<Pace>) {
        *self.paces.lock().unwrap_or_else(PoisonError::into_inner) = paces;
        self.version.fetch_add(1, Ordering::Release);
    }

    /// So many loads of which nothing but the pace is known.
    pub(super) fn of(loads: usize, clock: Clock) -> Self {
        Self { paces: Mutex::new(vec![Pace::default(); loads]), ..Self::new(Vec::new(), clock) }
    }

    /// The paces, if they have changed since the version that was seen last.
    pub(super) fn look(&self, seen: &mut u64) -> Option<Vec<Pace>> {
        let version = self.version.load(Ordering::Acquire);
        if version == *seen {
            return None;
        }
        *seen = version;
        Some(self.now())
    }
}

/// A handle on them.
#[derive(Clone)]
pub struct Knobs(pub(super) Arc<PaceCell>);

impl Knobs {
    /// Changes the rate of one load, or of all of them; all or none.
    ///
    /// # Errors
    /// Why nothing was changed.
    pub fn turn(&self, load: Option<&str>, knob: Knob) -> Result<Vec<Turned>, String> {
        let PaceCell { clock, loads, version, paces } = &*self.0;
        let mut paces = paces.lock().unwrap_or_else(PoisonError::into_inner);
        let at_s = (clock.now() + AHEAD) as f64 / SECOND as f64;
        let meant = |one: &&Arc<Outline>| load.is_none_or(|name| *one.name == *name);
        if let Some((kept, why)) = loads.iter().filter(meant).find_map(|one| Some((one, one.keeps?))) {
            return Err(format!("the load {} {why}: its rate cannot be changed on the way", kept.name));
        }
        if !loads.iter().any(|one| meant(&one)) {
            let names: Vec<&str> = loads.iter().map(|load| &*load.name).collect();
            return Err(format!("there is no load `{}`; there are {}", load.unwrap_or(""), names.join(", ")));
        }
        if matches!(knob, Knob::Rate(_)) && load.is_none() && loads.len() > 1 {
            return Err("there are several loads: say which one with --load, or write x1.5".to_owned());
        }
        let (mut changed, mut turned) = (paces.clone(), Vec::new());
        for (one, pace) in loads.iter().zip(&mut changed).filter(|(one, _)| meant(one)) {
            let Some(profile) = &one.profile else { continue };
            let written = profile.rate_at(at_s);
            let factor = match knob {
                Knob::Times(times) => times,
                Knob::Rate(_) if written <= 0.0 => {
                    return Err(format!("the load {} has no rate at this time: write x1.5", one.name));
                }
                Knob::Rate(rate) => rate / written,
                Knob::Pause => 0.0,
                Knob::Resume if pace.factor() > 0.0 => {
                    return Err(format!("the load {} is not paused", one.name));
                }
                Knob::Resume => pace.before_pause(),
            };
            let before = pace.factor();
            if at_s >= profile.duration().as_secs_f64() {
                return Err(format!("the load {} has come to its end", one.name));
            }
            if factor * profile.peak() > MAX_RATE {
                return Err(format!(
                    "the load {} would come to more than {MAX_RATE}/s, the most that is sent",
                    one.name
                ));
            }
            if !pace.change(profile, at_s, factor) {
                return Err(format!("the load {} has been changed too often", one.name));
            }
            turned.push(Turned { load: one.name.to_string(), at_s, before, factor, rate: written * factor });
        }
        *paces = changed;
        version.fetch_add(1, Ordering::Release);
        Ok(turned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knobs_are_read_and_mistakes_are_told() {
        for (text, knob) in [
            ("x1.5", Knob::Times(1.5)),
            ("500/s", Knob::Rate(500.0)),
            ("pause", Knob::Pause),
            ("resume", Knob::Resume),
        ] {
            assert_eq!(Knob::parse(text), Ok(knob));
        }
        for text in ["", "x", "x0", "x-1", "xNaN", "x1e9", "500", "0/s", "faster"] {
            let why = Knob::parse(text).unwrap_err();
            assert!(why.contains("write x1.5, 500/s, pause or resume"), "{text}: {why}");
        }
    }
}
