//! What failed, in one line for each journey and phase: how many requests of how many, and why.

use crate::format::{count, share};
use crate::record::{LoadRecord, PhaseStats, RunRecord};

/// The most classes named in one line.
const CLASSES_MAX: usize = 4;

/// One line for each journey and phase in which requests failed, not yet escaped, those with the most failures first:
/// `checkout in fault: 312 of 4,500 failed (6.93%): status-503 290, deadline 22`.
pub(super) fn lines(record: &RunRecord) -> Vec<String> {
    let mut failed: Vec<_> = record.loads.iter().flat_map(of_load).collect();
    failed.sort_by_key(|(load, stats)| (std::cmp::Reverse(stats.all.failed()), &load.name, stats.phase));
    failed
        .into_iter()
        .map(|(load, stats)| format!("{} in {}: {}", load.name, stats.phase.name(), line(stats)))
        .collect()
}

/// The same lines for one journey, without its name; by phase, if phases are told apart.
pub(super) fn lines_of(load: &LoadRecord, by_phase: bool) -> Vec<String> {
    let told = |(_, stats): (_, &PhaseStats)| {
        if by_phase { format!("In {}: {}", stats.phase.name(), line(stats)) } else { line(stats) }
    };
    of_load(load).map(told).collect()
}

fn of_load(load: &LoadRecord) -> impl Iterator<Item = (&LoadRecord, &PhaseStats)> {
    load.phases.iter().filter(|stats| stats.all.failed() > 0).map(move |stats| (load, stats))
}

fn line(stats: &PhaseStats) -> String {
    let all = &stats.all;
    let classes = classes(stats);
    let mut told: Vec<_> =
        classes.iter().take(CLASSES_MAX).map(|(class, n)| named(stats, class, *n)).collect();
    if classes.len() > CLASSES_MAX {
        let rest = classes[CLASSES_MAX..].iter().map(|(_, n)| n).sum();
        told.push(format!("other {}", count(rest)));
    }
    format!(
        "{} of {} failed ({}): {}",
        count(all.failed()),
        count(all.done()),
        share(all.failed() as f64 / all.done() as f64),
        told.join(", ")
    )
}

/// How often, and why, where that is known.
fn named(stats: &PhaseStats, class: &str, n: u64) -> String {
    let cause = stats.causes.get(class).map(|cause| format!(" ({cause})")).unwrap_or_default();
    format!("{class} {}{cause}", count(n))
}

/// Classes and how often they occurred, the most frequent first. The class `status` is told by code where the codes
/// outside of 2xx explain all of it; where another answer than 2xx was expected they cannot.
fn classes(stats: &PhaseStats) -> Vec<(String, u64)> {
    let codes = || stats.statuses.iter().filter(|(code, _)| !(200..300).contains(*code));
    let explained: u64 = codes().map(|(_, n)| n).sum();
    let mut classes = Vec::new();
    for (class, n) in &stats.all.errors {
        if class == "status" && explained == *n {
            classes.extend(codes().map(|(code, n)| (format!("status-{code:03}"), *n)));
        } else {
            classes.push((class.clone(), *n));
        }
    }
    classes.retain(|(_, n)| *n > 0);
    classes.sort_by(|one, other| other.1.cmp(&one.1).then_with(|| one.0.cmp(&other.0)));
    classes
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::record::{Outcomes, Phase};

    fn stats(errors: &[(&str, u64)], statuses: &[(u16, u64)]) -> PhaseStats {
        let errors = errors.iter().map(|(class, n)| ((*class).to_owned(), *n)).collect();
        PhaseStats {
            causes: [("tls".to_owned(), "unknown issuer".to_owned())].into(),
            unsent: 0,
            handshakes: String::new(),
            phase: Phase::Fault,
            all: Outcomes { due: 4500, ok: 4188, errors, ..Outcomes::default() },
            kinds: BTreeMap::new(),
            pops: BTreeMap::new(),
            instances: BTreeMap::new(),
            statuses: statuses.iter().copied().collect(),
        }
    }

    #[test]
    fn failures_are_told_by_class_and_status_the_most_frequent_first() {
        let seen = stats(&[("deadline", 22), ("status", 290)], &[(200, 4188), (503, 280), (404, 10)]);
        let told = "312 of 4,500 failed (6.93%): status-503 280, deadline 22, status-404 10";
        assert_eq!(line(&seen), told);
    }

    #[test]
    fn a_class_whose_cause_is_known_tells_it() {
        let seen = stats(&[("tls", 312)], &[]);
        assert_eq!(line(&seen), "312 of 4,500 failed (6.93%): tls 312 (unknown issuer)");
    }

    #[test]
    fn codes_that_do_not_explain_the_class_are_not_named() {
        let seen = stats(&[("status", 312)], &[(302, 4188), (503, 312)]);
        assert_eq!(line(&seen), "312 of 4,500 failed (6.93%): status 312");
    }

    #[test]
    fn rare_classes_are_summed_up() {
        let seen =
            stats(&[("a", 100), ("b", 90), ("c", 80), ("d", 39), ("e", 2), ("f", 1), ("none", 0)], &[]);
        assert_eq!(line(&seen), "312 of 4,500 failed (6.93%): a 100, b 90, c 80, d 39, other 3");
    }
}
