//! How short of CPU the host was, phase by phase: what the kernel says about everybody's waiting, not only ours.
//!
//! A light thread such as the generator's is served first on a busy host and may notice nothing, while the processes
//! under test queue up: its own lateness is no measure of theirs.

use std::fs;

use reports::record::{Phase, Strain};

use super::clock::SECOND;

/// What the kernel has counted since its start.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Counts {
    /// Microseconds in which some task waited for a CPU; none if this kernel does not say.
    waited_us: Option<f64>,
    /// Ticks of all CPUs, and those that a hypervisor took.
    ticks: f64,
    stolen: f64,
}

impl Counts {
    fn read() -> Option<Self> {
        let pressure = fs::read_to_string("/proc/pressure/cpu").ok();
        Self::parse(pressure.as_deref(), &fs::read_to_string("/proc/stat").ok()?)
    }

    fn parse(pressure: Option<&str>, stat: &str) -> Option<Self> {
        let some = pressure.and_then(|text| text.lines().find(|line| line.starts_with("some ")));
        let waited_us = some.and_then(|line| line.rsplit_once("total=")?.1.trim().parse().ok());
        let fields = stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace();
        // Guests' time is in that of their host; the first eight are all.
        let ticks: Vec<f64> = fields.take(8).map(|field| field.parse().ok()).collect::<Option<_>>()?;
        Some(Self { waited_us, ticks: ticks.iter().sum(), stolen: *ticks.get(7)? })
    }
}

/// For how long this thread has waited for a core that others had, in nanoseconds since its start; none if this kernel
/// does not say (proc(5): /proc/PID/schedstat), or no file can be opened.
pub(super) fn waits() -> Option<u64> {
    waited(&fs::read_to_string("/proc/thread-self/schedstat").ok()?)
}

fn waited(schedstat: &str) -> Option<u64> {
    schedstat.split_whitespace().nth(1)?.parse().ok()
}

/// Adds up, second by second.
#[derive(Debug, Default)]
pub(super) struct StrainMeter {
    last: Option<(u64, Counts)>,
    /// By phase: seconds, seconds in which somebody waited, ticks, stolen ticks.
    sums: [(f64, f64, f64, f64); Phase::ALL.len()],
}

impl StrainMeter {
    /// Called about once a second: what has happened since the last call belongs to this phase.
    pub(super) fn look(&mut self, now: u64, phase: Phase) {
        if self.last.is_some_and(|(at, _)| now < at + SECOND / 2) {
            return;
        }
        if let Some(counts) = Counts::read() {
            self.see(now, phase, counts);
        }
    }

    fn see(&mut self, now: u64, phase: Phase, counts: Counts) {
        if let Some((at, before)) = self.last.replace((now, counts)) {
            let (seconds, waited, ticks, stolen) = &mut self.sums[phase as usize];
            *seconds += now.saturating_sub(at) as f64 / SECOND as f64;
            if let (Some(from), Some(to)) = (before.waited_us, counts.waited_us) {
                *waited += (to - from).max(0.0) / 1e6;
            }
            *ticks += (counts.ticks - before.ticks).max(0.0);
            *stolen += (counts.stolen - before.stolen).max(0.0);
        }
    }

    /// Ticks of all CPUs, and those of them that a hypervisor took.
    pub(super) fn ticks(&self) -> (f64, f64) {
        self.sums.iter().fold((0.0, 0.0), |(all, stolen), sums| (all + sums.2, stolen + sums.3))
    }

    /// By phase, those that were seen.
    pub(super) fn record(&self) -> Vec<Strain> {
        let share = |part: f64, of: f64| if of > 0.0 { (part / of).clamp(0.0, 1.0) } else { 0.0 };
        let seen = Phase::ALL.into_iter().zip(self.sums).filter(|(_, sums)| sums.0 > 0.0);
        seen.map(|(phase, (seconds, waited, ticks, stolen))| Strain {
            phase,
            waited: share(waited, seconds),
            stolen: share(stolen, ticks),
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRESSURE: &str =
        "some avg10=44.09 avg60=44.76 avg300=39.55 total=4716223397\nfull avg10=0.00 total=0\n";
    const STAT: &str = "cpu  100 10 50 800 20 0 10 10 7 0\ncpu0 1 2 3\n";

    #[test]
    fn the_kernels_counts_are_read() {
        let counts = Counts::parse(Some(PRESSURE), STAT).unwrap();
        assert_eq!(counts, Counts { waited_us: Some(4_716_223_397.0), ticks: 1000.0, stolen: 10.0 });
        assert_eq!(Counts::parse(None, STAT).unwrap().waited_us, None);
        assert_eq!(Counts::parse(Some(PRESSURE), "intr 1 2 3"), None);
    }

    #[test]
    fn a_threads_waiting_is_read() {
        assert_eq!(waited("2624164 1780 41\n"), Some(1780));
        assert_eq!((waited("12\n"), waited("1 x 2\n"), waited("")), (None, None, None));
    }

    #[test]
    fn each_phase_has_its_own_shares() {
        let mut meter = StrainMeter::default();
        let at = |second: f64, waited_s: f64, stolen: f64| {
            (
                (second * SECOND as f64) as u64,
                Counts { waited_us: Some(waited_s * 1e6), ticks: second * 200.0, stolen },
            )
        };
        for (phase, (now, counts)) in [
            (Phase::Baseline, at(0.0, 100.0, 0.0)),
            (Phase::Baseline, at(1.0, 100.1, 0.0)),
            (Phase::Fault, at(2.0, 100.9, 100.0)),
            (Phase::Fault, at(3.0, 101.7, 100.0)),
        ] {
            meter.see(now, phase, counts);
        }
        let strain = meter.record();
        let shown: Vec<_> = strain.iter().map(|s| (s.phase, s.waited, s.stolen)).collect();
        assert_eq!(shown.len(), 2);
        assert!((shown[0].1 - 0.1).abs() < 1e-6 && (shown[1].1 - 0.8).abs() < 1e-6, "{shown:?}");
        assert!(shown[0].2 == 0.0 && (shown[1].2 - 0.25).abs() < 1e-6, "{shown:?}");
    }
}
