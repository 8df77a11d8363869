//! When requests are due: arrival rates over time, in closed form. Pure; no clock, no sockets.
//!
//! A profile is a rate r(t). Its integral N(t) counts the arrivals expected up to t, and arrival n is due when N(t)
//! reaches n. Arrivals so keep their intended times whatever the target does, and the workers share one stream
//! without talking to each other.

use std::f64::consts::TAU;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

mod arrivals;
mod pace;
pub mod presets;

pub use arrivals::{Arrivals, NEVER};
pub use pace::{CHANGES_MAX, FACTOR_MAX, Pace};

/// The highest rate, in requests per second.
pub const MAX_RATE: f64 = 10_000_000.0;
/// The longest profile.
pub const MAX_DURATION: Duration = Duration::from_hours(7 * 24);
/// The most pieces (a step is a piece) in a profile.
pub const MAX_PIECES: usize = 10_000;

/// A part of a profile. Rates are in requests per second.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Segment {
    /// One rate.
    Hold {
        /// The rate.
        rate: f64,
        /// How long.
        lasting: Duration,
    },
    /// From one rate to another, evenly.
    Ramp {
        /// The rate at the start.
        from: f64,
        /// The rate at the end.
        to: f64,
        /// How long.
        over: Duration,
    },
    /// Several rates one after another, evenly spaced, both ends included.
    Steps {
        /// The first rate.
        from: f64,
        /// The last rate.
        to: f64,
        /// How many steps; one step holds `from`.
        count: u32,
        /// How long each is.
        each: Duration,
    },
    /// One rate, interrupted by another.
    Spike {
        /// The rate before and after.
        base: f64,
        /// The rate of the spike.
        peak: f64,
        /// When the spike starts, from the start of the segment.
        at: Duration,
        /// How long the spike is.
        lasting: Duration,
        /// How long the segment is.
        total: Duration,
    },
    /// mean + amplitude × sin(2πt / period).
    Sine {
        /// The rate in the middle.
        mean: f64,
        /// How far it swings; at most the mean.
        amplitude: f64,
        /// How long one swing is.
        period: Duration,
        /// How long the segment is.
        lasting: Duration,
    },
}

/// Why a list of segments is no profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProfileError {
    /// No segment at all, or no arrival in any of them.
    #[error("the arrivals have no request in them")]
    Empty,
    /// A rate is not a number, negative or too high.
    #[error("a rate must be between 0/s and {MAX_RATE}/s")]
    Rate,
    /// A segment has no length, or all of them are too long.
    #[error("a part of the arrivals has no length, or they last more than 7 days")]
    Length,
    /// More than [`MAX_PIECES`].
    #[error("the arrivals have more than {MAX_PIECES} steps")]
    TooMany,
    /// The amplitude of a sine is larger than its mean.
    #[error("the amplitude of a sine must not exceed its mean")]
    Amplitude,
    /// The spike does not lie within its segment.
    #[error("a spike must end within its segment")]
    Spike,
}

/// The rate over a piece, by the time since the piece's start.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Shape {
    Line { from: f64, slope: f64 },
    Wave { mean: f64, amplitude: f64, omega: f64 },
}

/// A stretch of time with one shape, and the arrivals before it.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Piece {
    shape: Shape,
    start: f64,
    length: f64,
    before: f64,
    count: f64,
}

impl Shape {
    fn rate(self, t: f64) -> f64 {
        match self {
            Self::Line { from, slope } => (from + slope * t).max(0.0),
            Self::Wave { mean, amplitude, omega } => (mean + amplitude * (omega * t).sin()).max(0.0),
        }
    }

    fn arrivals(self, t: f64) -> f64 {
        match self {
            Self::Line { from, slope } => t * (from + 0.5 * slope * t),
            Self::Wave { mean, amplitude, omega } => mean * t + amplitude / omega * (1.0 - (omega * t).cos()),
        }
    }

    /// The time at which `arrivals` reaches n.
    fn due(self, n: f64, length: f64) -> f64 {
        match self {
            // The form of the quadratic's root that does not cancel, also right for a slope of zero.
            Self::Line { from, slope } => {
                let root = from + (from * from + 2.0 * slope * n).max(0.0).sqrt();
                if n <= 0.0 { 0.0 } else { (2.0 * n / root).min(length) }
            }
            Self::Wave { .. } => self.due_in_wave(n, length),
        }
    }

    /// Newton's steps within a bracket; where they leave it, or do not shrink by half (they can go to and fro for ever), the
    /// bracket is halved instead.
    fn due_in_wave(self, n: f64, length: f64) -> f64 {
        let (mut low, mut high) = (0.0, length);
        let mut before = length;
        let mut t = length * (n / self.arrivals(length)).clamp(0.0, 1.0);
        for _ in 0..100 {
            let off = self.arrivals(t) - n;
            if off > 0.0 {
                high = t;
            } else {
                low = t;
            }
            let newton = t - off / self.rate(t);
            let fast = newton > low && newton < high && (newton - t).abs() <= 0.5 * before;
            let next = if fast { newton } else { 0.5 * (low + high) };
            before = (next - t).abs();
            if (next - t).abs() <= 1e-12 * length.max(1.0) {
                return next;
            }
            t = next;
        }
        t
    }

    fn peak(self, length: f64) -> f64 {
        match self {
            Self::Line { from, slope } => from.max(from + slope * length),
            Self::Wave { mean, amplitude, .. } => mean + amplitude,
        }
    }
}

/// Arrival rates over time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Sent", into = "Sent")]
pub struct Profile {
    segments: Vec<Segment>,
    pieces: Arc<[Piece]>,
    /// The arrivals themselves, in nanoseconds, if they are known one by one; `pieces` then are their mean rates.
    times: Option<Arc<[u64]>>,
}

impl Profile {
    /// The segments one after another.
    ///
    /// # Errors
    /// See [`ProfileError`].
    pub fn new(segments: Vec<Segment>) -> Result<Self, ProfileError> {
        let mut pieces = Vec::new();
        for segment in &segments {
            segment.pieces(&mut pieces)?;
        }
        let profile = Self { segments, pieces: pieces.into(), times: None };
        if profile.total() < 1e-6 {
            return Err(ProfileError::Empty);
        }
        if profile.seconds() > MAX_DURATION.as_secs_f64() {
            return Err(ProfileError::Length);
        }
        Ok(profile)
    }

    /// Arrivals at these times, in nanoseconds from the start and sorted.
    ///
    /// # Errors
    /// There is none, or the last is later than [`MAX_DURATION`].
    pub fn trace(mut times: Vec<u64>) -> Result<Self, ProfileError> {
        times.sort_unstable();
        let last = *times.last().ok_or(ProfileError::Empty)?;
        if Duration::from_nanos(last) >= MAX_DURATION {
            return Err(ProfileError::Length);
        }
        // The last arrival lies within it.
        let length = (last as f64 / 1e9 + 1e-3).max(1.0);
        let many = (length.floor() as usize).clamp(1, MAX_PIECES);
        let width = length / many as f64;
        let mut pieces = Vec::with_capacity(many);
        let mut before = 0;
        for nth in 0..many {
            let end = if nth + 1 == many { u64::MAX } else { ((nth + 1) as f64 * width * 1e9) as u64 };
            let until = times.partition_point(|at| *at < end);
            let count = (until - before) as f64;
            pieces.push(Piece {
                shape: Shape::Line { from: count / width, slope: 0.0 },
                start: nth as f64 * width,
                length: width,
                before: before as f64,
                count,
            });
            before = until;
        }
        Ok(Self { segments: Vec::new(), pieces: pieces.into(), times: Some(times.into()) })
    }

    /// The segments that it was made of; none if its arrivals are known one by one.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// From the first to the last moment.
    pub fn duration(&self) -> Duration {
        Duration::from_secs_f64(self.seconds())
    }

    fn seconds(&self) -> f64 {
        self.pieces.last().map_or(0.0, |p| p.start + p.length)
    }

    /// All arrivals expected.
    pub fn total(&self) -> f64 {
        self.pieces.last().map_or(0.0, |p| p.before + p.count)
    }

    /// N(t): arrivals expected up to this time in seconds; all of them beyond the end.
    pub fn expected(&self, t: f64) -> f64 {
        let after = self.pieces.partition_point(|p| p.start <= t);
        match after.checked_sub(1).map(|i| &self.pieces[i]) {
            None => 0.0,
            Some(p) => p.before + p.shape.arrivals((t - p.start).min(p.length)).min(p.count),
        }
    }

    /// The rate at this time in seconds; 0 outside the profile.
    pub fn rate_at(&self, t: f64) -> f64 {
        let after = self.pieces.partition_point(|p| p.start <= t);
        let piece = after.checked_sub(1).map(|i| &self.pieces[i]);
        piece.filter(|p| t < p.start + p.length).map_or(0.0, |p| p.shape.rate(t - p.start))
    }

    /// The highest rate.
    pub fn peak(&self) -> f64 {
        self.pieces.iter().map(|p| p.shape.peak(p.length)).fold(0.0, f64::max)
    }

    /// The time, in seconds, at which N reaches n; where N stands still, the end of the standstill. None beyond the end.
    pub fn due(&self, n: f64) -> Option<f64> {
        let at = self.pieces.partition_point(|p| p.before + p.count <= n);
        self.pieces.get(at).filter(|_| n >= 0.0).map(|p| p.due(n))
    }
}

/// A profile as it is told to others: what it was made of.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
enum Sent {
    Segments(Vec<Segment>),
    Times(Vec<u64>),
}

impl TryFrom<Sent> for Profile {
    type Error = ProfileError;

    fn try_from(sent: Sent) -> Result<Self, ProfileError> {
        match sent {
            Sent::Segments(segments) => Self::new(segments),
            Sent::Times(times) => Self::trace(times),
        }
    }
}

impl From<Profile> for Sent {
    fn from(profile: Profile) -> Self {
        match profile.times {
            None => Self::Segments(profile.segments),
            Some(times) => Self::Times(times.to_vec()),
        }
    }
}

impl Piece {
    fn due(&self, n: f64) -> f64 {
        self.start + self.shape.due(n - self.before, self.length)
    }
}

impl Segment {
    fn pieces(&self, out: &mut Vec<Piece>) -> Result<(), ProfileError> {
        match *self {
            Self::Hold { rate, lasting } => push(out, Shape::Line { from: rate, slope: 0.0 }, lasting),
            Self::Ramp { from, to, over } => {
                check_rate(to)?;
                push(out, Shape::Line { from, slope: (to - from) / over.as_secs_f64() }, over)
            }
            Self::Steps { from, to, count, each } => {
                check_rate(to)?;
                (0..count).try_for_each(|i| {
                    let share = f64::from(i) / f64::from(count.max(2) - 1);
                    push(out, Shape::Line { from: from + (to - from) * share, slope: 0.0 }, each)
                })
            }
            Self::Spike { base, peak, at, lasting, total } => {
                let rest = at
                    .checked_add(lasting)
                    .and_then(|end| total.checked_sub(end))
                    .ok_or(ProfileError::Spike)?;
                let mut hold = |from, length| push(out, Shape::Line { from, slope: 0.0 }, length);
                if !at.is_zero() {
                    hold(base, at)?;
                }
                hold(peak, lasting)?;
                if rest.is_zero() { Ok(()) } else { hold(base, rest) }
            }
            Self::Sine { mean, amplitude, period, lasting } => {
                check_rate(amplitude)?;
                if amplitude > mean {
                    return Err(ProfileError::Amplitude);
                }
                if period.is_zero() {
                    return Err(ProfileError::Length);
                }
                push(out, Shape::Wave { mean, amplitude, omega: TAU / period.as_secs_f64() }, lasting)
            }
        }
    }
}

fn check_rate(rate: f64) -> Result<(), ProfileError> {
    if (0.0..=MAX_RATE).contains(&rate) { Ok(()) } else { Err(ProfileError::Rate) }
}

fn push(out: &mut Vec<Piece>, shape: Shape, lasting: Duration) -> Result<(), ProfileError> {
    if lasting.is_zero() || lasting > MAX_DURATION {
        return Err(ProfileError::Length);
    }
    if out.len() == MAX_PIECES {
        return Err(ProfileError::TooMany);
    }
    let length = lasting.as_secs_f64();
    check_rate(match shape {
        Shape::Line { from, .. } => from,
        Shape::Wave { mean, .. } => mean,
    })?;
    let (start, before) = out.last().map_or((0.0, 0.0), |p: &Piece| (p.start + p.length, p.before + p.count));
    out.push(Piece { shape, start, length, before, count: shape.arrivals(length).max(0.0) });
    Ok(())
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(times) = &self.times {
            return write!(f, "{} requests of a log over {:.1?}", times.len(), self.duration());
        }
        for (i, segment) in self.segments.iter().enumerate() {
            f.write_str(if i == 0 { "" } else { ", " })?;
            segment.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hold { rate, lasting } => write!(f, "hold {rate}/s for {lasting:?}"),
            Self::Ramp { from, to, over } => write!(f, "ramp {from}/s to {to}/s over {over:?}"),
            Self::Steps { from, to, count, each } => {
                write!(f, "{count} steps from {from}/s to {to}/s of {each:?} each")
            }
            Self::Spike { base, peak, at, lasting, total } => {
                write!(f, "{base}/s with a spike of {peak}/s after {at:?} for {lasting:?}, {total:?} in all")
            }
            Self::Sine { mean, amplitude, period, lasting } => {
                write!(f, "{mean}/s ± {amplitude}/s every {period:?} for {lasting:?}")
            }
        }
    }
}

#[cfg(test)]
#[path = "schedule_tests.rs"]
mod tests;
