//! Was the generator the bottleneck? A pure function of what it measured about itself.

use std::time::Duration;

use reports::Latencies;
use reports::format::{count, share};

use super::{Lacks, Loss};
use crate::slo::stats;

/// What a generator knows about its own work.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Worker threads.
    pub workers: u32,
    /// Arrivals that came due, without those that were cut short, and with those of which nothing is known since their worker
    /// is lost.
    pub due: u64,
    /// Requests that were given a connection, or the attempt of one.
    pub sent: u64,
    /// Like `due`, outside of fault and recovery.
    pub due_steady: u64,
    /// Those of them that had it before half of their deadline had passed, outside of fault and recovery. A target that
    /// hangs may use up every connection; that is the fault's effect, not the generator's weakness.
    pub sent_steady: u64,
    /// Start lateness.
    pub lag: Latencies,
    /// From the intended time until a connection that was open and idle began with the request: nobody but the
    /// generator was to blame for that time.
    pub handed: Latencies,
    /// Requests that found every connection busy: what they waited for is the target.
    pub queued: u64,
    /// Seconds of all workers.
    pub worker_seconds: u64,
    /// Those in which the thread computed more than [`CPU_HOT`] of the time.
    pub hot_seconds: u64,
    /// The largest share of one second that one thread computed.
    pub cpu_max: f64,
    /// Seconds of all workers outside of fault and recovery.
    pub steady_seconds: u64,
    /// Those in which the thread waited for a core for more than half of the time.
    pub starved_seconds: u64,
    /// The largest share of one second for which one thread waited for a core.
    pub waited_max: f64,
    /// Ticks of all CPUs, and those of them that a hypervisor gave to others.
    pub ticks: (f64, f64),
    /// The most connections open at a time.
    pub connections_max: u64,
    /// Requests that failed for want of local resources.
    pub local_errors: u64,
    /// What they lacked.
    pub lacks: Lacks,
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
    /// Workers that were lost.
    pub losses: Vec<Loss>,
    /// Why threads and workers ended before their time, or are not to be trusted, in sentences.
    pub broken: Vec<String>,
}

/// A thread that computes more than this share of a second has no reserve.
pub const CPU_HOT: f64 = 0.95;
/// The share of the time for which a limit may keep this process from running.
pub(super) const THROTTLED: f64 = 0.01;
/// A thread that waits for a core for more than this share of a second is served less than it is left waiting. Less than
/// that is the daily bread of a busy host: a thread that has little to do is served at once, and what its waits cost shows
/// as lateness.
pub(super) const STARVED: f64 = 0.5;
/// The share of all CPU time that a hypervisor may give to others (load.md, 6.4): beyond it, half of the lateness that is
/// allowed otherwise is too much, for answers are read as late as requests are sent. By itself it says little: on a busy
/// host it may be a neighbour's time that was taken (8 % beside a parallel build, and no request was late).
const STOLEN: f64 = 0.02;
/// The share beyond which nothing that was measured can be trusted.
const STOLEN_MOST: f64 = 0.25;
/// Fewer stolen ticks than this are too coarse a measure of a short load.
const STOLEN_MIN: f64 = 10.0;
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
            "only {} of {} requests were sent in time: the others found all {} connections busy for at least half of their \
             deadline ({} had to wait)",
            count(facts.sent_steady),
            count(facts.due_steady),
            count(facts.connections_max),
            count(facts.queued)
        ));
    }
    reasons
}

/// Those of them that no target can cause.
pub fn overtaxed(facts: &Facts, tightest: Option<Duration>) -> Vec<String> {
    let mut reasons = facts.broken.clone();
    let lost = facts.losses.iter().filter(|loss| loss.matters());
    reasons.extend(lost.map(|loss| format!("{} ({} of a phase)", loss.words(), share(loss.weighs))));
    let allowed = tightest.map_or(0.0, |limit| 0.1 * limit.as_secs_f64()).max(LAG_ALLOWED_S);
    let lag = late(&facts.lag, allowed, "");
    reasons.extend(lag.or_else(|| late(&facts.handed, allowed, " although a connection was idle")));
    if facts.hot_seconds * 10 > facts.worker_seconds {
        reasons.push(format!(
            "a worker had no CPU time left in {} of {} seconds",
            facts.hot_seconds, facts.worker_seconds
        ));
    }
    if facts.starved_seconds * 10 > facts.steady_seconds {
        reasons.push(format!(
            "a worker waited for a core more than half of the time in {} of {} seconds: other processes have them",
            facts.starved_seconds, facts.steady_seconds
        ));
    }
    let (ticks, stolen) = facts.ticks;
    let felt = stolen > STOLEN_MOST * ticks || late(&facts.lag, allowed / 2.0, "").is_some();
    if felt && stolen > STOLEN * ticks && stolen >= STOLEN_MIN {
        reasons.push(format!(
            "the hypervisor gave {} of this machine's CPU time to others",
            share(stolen / ticks)
        ));
    }
    if facts.throttled_s > THROTTLED * facts.seconds {
        reasons.push(format!(
            "the CPU limit of its control group kept squall from running for {:.2} of {:.1} seconds",
            facts.throttled_s, facts.seconds
        ));
    }
    if facts.local_errors as f64 > 0.001 * facts.due as f64 {
        let lack = facts.lacks.worst().map(|lack| format!(": {}", lack.words())).unwrap_or_default();
        reasons
            .push(format!("{} of {} requests failed on this machine{lack}", facts.local_errors, facts.due));
    }
    reasons
}

/// How many were plainly later than allowed, and how late the latest was; none if it was chance.
fn late(series: &Latencies, allowed: f64, although: &str) -> Option<String> {
    let all = series.count();
    let late = all.saturating_sub(series.count_within(allowed));
    // The interval alone would call two late requests of fifty a habit.
    let plainly = stats::share(late, all).is_some_and(|(low, _)| low > LATE_SHARE);
    (plainly && late as f64 >= LATE_SHARE * all as f64 + LATE_MIN).then(|| {
        format!(
            "{} of {} requests started more than {:.1} ms late{although}, the latest {:.1} ms",
            count(late),
            count(all),
            allowed * 1e3,
            series.max().unwrap_or_default() * 1e3
        )
    })
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
        let mut lacks = Lacks::default();
        lacks.count(&std::io::Error::from_raw_os_error(24));
        let local = Facts { local_errors: 11, lacks, ..good() };
        let starved = Facts { steady_seconds: 10, starved_seconds: 2, ..good() };
        let mut lag = good().lag;
        (0..100).for_each(|_| lag.record(14_000));
        let stolen = Facts { ticks: (1000.0, 21.0), lag, ..good() };
        let robbed = Facts { ticks: (1000.0, 260.0), ..good() };
        let mut handed = Latencies::default();
        (0..1000).for_each(|n| handed.record(if n < 50 { 30_000 } else { 50 }));
        let slow = Facts { handed, ..good() };
        let limited = Facts { seconds: 10.0, throttled_s: 0.2, ..good() };
        for (facts, word) in [
            (unsent, "9,989 of 10,000"),
            (hot, "2 of 10 seconds"),
            (
                local,
                "11 of 10000 requests failed on this machine: this process had too many files open (EMFILE)",
            ),
            (starved, "2 of 10 seconds"),
            (robbed, "gave 26"),
            (stolen, "2.1"),
            (slow, "50 of 1,000 requests started more than 25.0 ms late although a connection was idle"),
            (limited, "0.20 of 10.0 seconds"),
        ] {
            let reasons = saturation(&facts, None);
            assert!(reasons.len() == 1 && reasons[0].contains(word), "{reasons:?}");
        }
    }

    #[test]
    fn a_busy_host_that_suffices_is_no_reason() {
        for facts in [
            Facts { steady_seconds: 20, starved_seconds: 2, waited_max: 0.9, ..good() },
            // Six ticks of a short load, and two hundredths of a long one.
            Facts { ticks: (200.0, 6.0), ..good() },
            Facts { ticks: (10_000.0, 200.0), ..good() },
            // Much of it, and nobody was late.
            Facts { ticks: (10_000.0, 800.0), ..good() },
            // What the target keeps busy is the target's.
            Facts { queued: 9_000, ..good() },
        ] {
            assert_eq!(saturation(&facts, None), Vec::<String>::new());
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
