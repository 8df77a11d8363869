//! Whose fault a miss is: a request that waited for a connection, or started late, says nothing about the target as long as
//! what came after that was well. Pure.

use std::collections::BTreeMap;

use reports::Latencies;
use reports::format::{count, share};
use reports::record::{Objective, Outcomes, PhaseStats, Sli};

use super::measure;

/// Why a clause that does not hold says nothing about the target; none if the target is to blame, or may be for all that is
/// known. `queued` requests found every connection busy, of which there were `connections` at most.
pub fn for_a_connection(
    objective: &Objective,
    stats: &PhaseStats,
    queued: u64,
    connections: u64,
) -> Option<String> {
    let waited = match objective.sli {
        Sli::Latency(_) => queued.max(stats.unsent),
        _ => stats.unsent,
    };
    let due = stats.all.done();
    (much(objective, waited, due) && holds_afterwards(objective, stats)).then(|| {
        format!(
            "{} of {} requests found all {} connections busy, and those that had one did well enough: allow more connections",
            count(waited.min(due)),
            count(due),
            count(connections)
        )
    })
}

/// The same where `late` requests of this phase started later than half of a latency's limit.
pub fn for_the_generator(objective: &Objective, stats: &PhaseStats, late: u64) -> Option<String> {
    let due = stats.all.done();
    let latency = matches!(objective.sli, Sli::Latency(_));
    (latency && much(objective, late, due) && holds_afterwards(objective, stats)).then(|| {
        format!(
            "{} of the requests started more than {:.1} ms late, which is half of what {} may be, and what came after that was \
             fast enough",
            share(late as f64 / due as f64),
            objective.limit * 500.0,
            objective.sli.name()
        )
    })
}

/// Whether so many could break the clause by themselves.
fn much(objective: &Objective, part: u64, due: u64) -> bool {
    part > 0 && part as f64 > measure::allowed(objective) * due as f64
}

/// Whether it would hold had no request waited before a connection took it on.
fn holds_afterwards(objective: &Objective, stats: &PhaseStats) -> bool {
    let all = &stats.all;
    let mut errors: BTreeMap<String, u64> = all.errors.clone();
    // What never had a connection in time met its deadline.
    if let Some(deadline) = errors.get_mut("deadline") {
        *deadline = deadline.saturating_sub(stats.unsent);
    }
    let rest = Outcomes { errors, latencies: String::new(), ..all.clone() };
    let measured = match objective.sli {
        Sli::Availability => measure::share(rest.ok, rest.done()),
        Sli::Latency(q) => {
            let Ok(service) = Latencies::decode(&all.service) else { return false };
            measure::latency(&rest, &service, q)
        }
        Sli::Throughput => return false,
    };
    measured.estimate.is_some_and(|estimate| measure::good(objective, estimate))
}

#[cfg(test)]
mod tests {
    use reports::record::Phase;

    use super::*;
    use crate::experiment::objective;

    /// 1,000 requests: so many were never sent in time, so many were sent and died, the others took so many milliseconds.
    fn stats(unsent: u64, died: u64, service_ms: u64) -> PhaseStats {
        let mut service = Latencies::default();
        let ok = 1000 - unsent - died;
        (0..ok).for_each(|_| service.record(service_ms * 1000));
        let errors = [("deadline".to_owned(), unsent + died)].into();
        let all = Outcomes { due: 1000, ok, errors, latencies: service.encode(), service: service.encode() };
        PhaseStats {
            phase: Phase::Baseline,
            all,
            kinds: BTreeMap::new(),
            pops: BTreeMap::new(),
            instances: BTreeMap::new(),
            statuses: BTreeMap::new(),
            causes: BTreeMap::new(),
            unsent,
            handshakes: String::new(),
        }
    }

    fn clause(text: &str) -> Objective {
        objective("load", text).unwrap()
    }

    #[test]
    fn what_waited_for_a_connection_is_no_fault_of_a_target_that_did_well_otherwise() {
        let said = |text: &str, stats, queued| for_a_connection(&clause(text), &stats, queued, 16);
        let why = said("availability >= 99%", stats(700, 2, 500), 800).unwrap();
        assert!(why.starts_with("700 of 1,000 requests found all 16 connections busy"), "{why}");
        let why = said("p99 <= 600ms", stats(100, 0, 500), 800).unwrap();
        assert!(why.starts_with("800 of 1,000"), "{why}");
        for (text, stats, queued) in [
            // It was slow, or failed, by itself.
            ("p99 <= 400ms", stats(100, 0, 500), 800),
            ("availability >= 99%", stats(700, 50, 500), 800),
            // Too few waited to matter.
            ("p99 <= 600ms", stats(0, 20, 500), 9),
            ("availability >= 99%", stats(0, 20, 500), 800),
        ] {
            assert_eq!(said(text, stats, queued), None, "{text}");
        }
    }

    #[test]
    fn a_late_start_is_the_generators() {
        let said = |text: &str, stats, late| for_the_generator(&clause(text), &stats, late);
        let why = said("p99 <= 5ms", stats(0, 0, 1), 70).unwrap();
        assert!(why.contains("7.00% of the requests started more than 2.5 ms late"), "{why}");
        assert_eq!(said("p99 <= 5ms", stats(0, 0, 6), 70), None, "slow by itself");
        assert_eq!(said("p99 <= 50ms", stats(0, 11, 1), 3), None, "not that many are late");
        assert_eq!(said("availability >= 99%", stats(0, 20, 1), 70), None);
    }
}
