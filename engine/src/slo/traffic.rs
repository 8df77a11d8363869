//! Whether a journey's answers came through a broken thing before it was broken: the load's own evidence.
//!
//! Where nothing names instances or PoPs, nothing is claimed: only counted answers show that a journey meets a thing or
//! does not.

use reports::record::{LoadRecord, Phase, PhaseStats, RunRecord};

use super::finding::{self, Group};

/// Answers that name no PoP, and those that name too many to be told apart.
const NAMELESS: [&str; 2] = ["-", "other"];

/// What the answers before the fault say about a journey and a broken thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Met {
    /// Nothing.
    Unknown,
    /// None of so many answers came through it, though it would have been named.
    Never(u64),
    /// So many answers of all.
    Some(u64, u64),
}

/// Looks at the answers of a load before the first fault.
pub(super) fn met(record: &RunRecord, group: &Group<'_>, load: &LoadRecord) -> Met {
    let before = || load.phases.iter().filter(|stats| stats.phase < Phase::Fault);
    let answers = before().map(|stats| stats.statuses.values().sum::<u64>()).sum();
    let count: u64 = before().map(|stats| group.names().map(|name| named(stats, name)).sum::<u64>()).sum();
    // Names beyond the bound may be anybody's.
    let untold =
        before().any(|stats| stats.instances.contains_key("other") || stats.pops.contains_key("other"));
    let elsewhere = !finding::passes(record, group.service(record), &load.name);
    let would_be_named = || elsewhere || group.names().all(|name| known(record, group, name));
    let names_some = before().any(tells);
    match (count, answers) {
        (1.., _) => Met::Some(count.min(answers), answers),
        (0, 1..) if names_some && !untold && would_be_named() => Met::Never(answers),
        _ => Met::Unknown,
    }
}

/// Answers that name this instance or this PoP.
fn named(stats: &PhaseStats, name: &str) -> u64 {
    match name.strip_prefix("PoP ") {
        Some(pop) => stats.pops.get(pop).map_or(0, reports::record::Outcomes::done),
        None => stats.instances.get(name).copied().unwrap_or_default(),
    }
}

/// Whether answers name anything at all.
fn tells(stats: &PhaseStats) -> bool {
    let pops = stats.pops.keys().any(|pop| !NAMELESS.contains(&pop.as_str()));
    pops || stats.instances.keys().any(|name| !NAMELESS.contains(&name.as_str()))
}

/// Whether answers that come through this thing name it: some answer of the run does, or one names its like.
fn known(record: &RunRecord, group: &Group<'_>, name: &str) -> bool {
    let mut stats = record.loads.iter().flat_map(|load| &load.phases);
    if name.starts_with("PoP ") {
        return stats.any(|stats| stats.pops.keys().any(|pop| !NAMELESS.contains(&pop.as_str())));
    }
    let alike = group.service(record).map_or(&[][..], |service| service.instances.as_slice());
    stats.any(|stats| {
        stats.instances.contains_key(name) || alike.iter().any(|it| stats.instances.contains_key(it))
    })
}
