//! Was the generator the bottleneck? A pure function of what it measured about itself.

use std::time::Duration;

use reports::Latencies;
use reports::format::count;

use crate::slo::stats;

/// What a generator knows about its own work.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Worker threads.
    pub workers: u32,
    /// Arrivals that came due, without those that were cut short.
    pub due: u64,
    /// Requests that were given a connection, or the attempt of one.
    pub sent: u64,
    /// Like `due`, outside of fault and recovery.
    pub due_steady: u64,
    /// Like `sent`, outside of fault and recovery. A target that hangs may use up every connection; that is the
    /// fault's effect, not the generator's weakness.
    pub sent_steady: u64,
    /// Start lateness.
    pub lag: Latencies,
    /// Seconds of all workers.
    pub worker_seconds: u64,
    /// Those in which the thread computed more than [`CPU_HOT`] of the time.
    pub hot_seconds: u64,
    /// The largest share of one second that one thread computed.
    pub cpu_max: f64,
    /// The most connections open at a time.
    pub connections_max: u64,
    /// Requests that failed for want of local resources.
    pub local_errors: u64,
    /// Stale connections replaced without harm to their request.
    pub reconnects: u64,
    /// Requests that were cut short by a stop; they are in no other count.
    pub aborted: u64,
    /// Slices of time that reached the collector too late for their tick; records have them.
    pub late_slices: u64,
    /// Seconds from the start of the load to its end, and those in which a limit of a control group kept this process from
    /// running.
    pub seconds: f64,
    /// See `seconds`.
    pub throttled_s: f64,
    /// Why threads and workers ended before their time, or are not to be trusted, in sentences.
    pub broken: Vec<String>,
}

/// A thread that computes more than this share of a second has no reserve.
pub const CPU_HOT: f64 = 0.95;
/// The share of the time for which a limit may keep this process from running.
pub(super) const THROTTLED: f64 = 0.01;
/// Lateness below this never matters.
const LAG_ALLOWED_S: f64 = 0.025;
/// The share of requests that may start late.
const LATE_SHARE: f64 = 0.01;
/// Fewer late requests than this, beyond that share, are chance.
const LATE_MIN: f64 = 10.0;

/// The reasons why the numbers must not be trusted; none if the generator kept up. `tightest` is the smallest latency
/// limit of any objective.
pub fn saturation(facts: &Facts, tightest: Option<Duration>) -> Vec<String> {
    let mut reasons = overtaxed(facts, tightest);
    if (facts.sent_steady as f64) < 0.999 * facts.due_steady as f64 {
        reasons.push(format!(
            "only {} of {} requests were sent: the others found every connection busy until their deadline",
            facts.sent_steady, facts.due_steady
        ));
    }
    reasons
}

/// Those of them that no target can cause.
pub fn overtaxed(facts: &Facts, tightest: Option<Duration>) -> Vec<String> {
    let mut reasons = facts.broken.clone();
    let allowed = tightest.map_or(0.0, |limit| 0.1 * limit.as_secs_f64()).max(LAG_ALLOWED_S);
    let started = facts.lag.count();
    let late = started.saturating_sub(facts.lag.count_within(allowed));
    // The interval alone would call two late requests of fifty a habit.
    let plainly = stats::share(late, started).is_some_and(|(low, _)| low > LATE_SHARE);
    if plainly && late as f64 >= LATE_SHARE * started as f64 + LATE_MIN {
        reasons.push(format!(
            "{} of {} requests started more than {:.1} ms late, the latest {:.1} ms",
            count(late),
            count(started),
            allowed * 1e3,
            facts.lag.max().unwrap_or_default() * 1e3
        ));
    }
    if facts.hot_seconds * 10 > facts.worker_seconds {
        reasons.push(format!(
            "a worker had no CPU time left in {} of {} seconds",
            facts.hot_seconds, facts.worker_seconds
        ));
    }
    if facts.throttled_s > THROTTLED * facts.seconds {
        reasons.push(format!(
            "the CPU limit of its control group kept squall from running for {:.2} of {:.1} seconds",
            facts.throttled_s, facts.seconds
        ));
    }
    if facts.local_errors as f64 > 0.001 * facts.due as f64 {
        reasons.push(format!(
            "{} of {} requests failed on this machine: too few file descriptors or ports",
            facts.local_errors, facts.due
        ));
    }
    reasons
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Facts {
        let mut lag = Latencies::default();
        (0..1000).for_each(|_| lag.record(50));
        Facts {
            due: 10_000,
            sent: 10_000,
            due_steady: 10_000,
            sent_steady: 10_000,
            worker_seconds: 10,
            hot_seconds: 1,
            lag,
            ..Facts::default()
        }
    }

    #[test]
    fn a_generator_that_keeps_up_is_not_saturated() {
        assert_eq!(saturation(&good(), None), Vec::<String>::new());
        assert_eq!(saturation(&Facts::default(), None), Vec::<String>::new());
        let hung = Facts { sent: 5_000, ..good() };
        assert_eq!(
            saturation(&hung, None),
            Vec::<String>::new(),
            "unsent during the fault is the fault's effect"
        );
    }

    #[test]
    fn each_limit_is_a_reason_of_its_own() {
        let unsent = Facts { sent_steady: 9_989, ..good() };
        let hot = Facts { hot_seconds: 2, ..good() };
        let local = Facts { local_errors: 11, ..good() };
        let limited = Facts { seconds: 10.0, throttled_s: 0.2, ..good() };
        for (facts, word) in [
            (unsent, "9989 of 10000"),
            (hot, "2 of 10 seconds"),
            (local, "11 of 10000"),
            (limited, "0.20 of 10.0 seconds"),
        ] {
            let reasons = saturation(&facts, None);
            assert!(reasons.len() == 1 && reasons[0].contains(word), "{reasons:?}");
        }
    }

    #[test]
    fn a_thread_that_failed_is_a_reason() {
        let reasons = saturation(
            &Facts { broken: vec!["a load thread failed: it panicked".to_owned()], ..good() },
            None,
        );
        assert_eq!(reasons, ["a load thread failed: it panicked"]);
    }

    #[test]
    fn a_few_late_requests_are_chance_and_many_are_not() {
        let reasons = |late: u64, of: u64| {
            let mut facts = Facts::default();
            (0..of).for_each(|at| facts.lag.record(if at < late { 38_000 } else { 50 }));
            saturation(&facts, None)
        };
        for (late, of) in [(1, 48), (5, 48), (10, 10_000), (105, 10_000)] {
            assert_eq!(reasons(late, of), Vec::<String>::new(), "{late} of {of}");
        }
        assert!(reasons(12, 48)[0].starts_with("12 of 48 requests started more than 25.0 ms late"));
        assert!(!reasons(150, 10_000).is_empty());
    }

    #[test]
    fn lateness_is_measured_against_the_tightest_objective() {
        let mut late = good();
        (0..100).for_each(|_| late.lag.record(40_000));
        let within = |ms| saturation(&late, Some(Duration::from_millis(ms))).is_empty();
        assert!(!saturation(&late, None).is_empty());
        assert!(!within(300));
        assert!(within(500));
    }
}
