//! Whether a journey's answers came through a broken thing before it was broken: the load's own evidence.
//!
//! Counted answers that name an instance or a PoP show that a journey meets it or does not. Where nothing is named, the
//! topology may say so, or the addresses to which the requests go; else nothing is claimed.

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

/// What shows that a journey meets a broken thing where no answer names it; none if nothing does.
pub(super) fn shown(record: &RunRecord, group: &Group<'_>, load: &LoadRecord) -> Option<String> {
    let journey = &load.name;
    if finding::path(record, group.service(record), journey) == Some(true) {
        return Some(format!("by the topology, {journey} passes through it"));
    }
    if group.meets(journey) {
        let names: Vec<&str> = group.names().collect();
        return Some(format!("requests of {journey} go to addresses of {}", names.join(", ")));
    }
    let addresses = addresses(record, load);
    group.names().find_map(|name| {
        let relay = name.strip_prefix("relay ");
        if let Some(relay) = record.relays.iter().find(|known| relay == Some(known.name.as_str())) {
            if addresses.contains(&plain(&relay.listen)) {
                return Some(format!("requests of {journey} go through {name}"));
            }
            // Nobody else knows where a relay of this run listens, and its proof counted traffic.
            let probed = record.probes.iter().any(|probe| probe.does.contains(&relay.listen));
            return (record.loads.len() == 1 && !probed)
                .then(|| format!("{name} carried traffic, and {journey} is the only load"));
        }
        let port = name.strip_prefix("listener on port ")?;
        let here = |address: &String| address.strip_prefix("127.0.0.1:") == Some(port);
        addresses.iter().any(here).then(|| format!("requests of {journey} go to port {port}"))
    })
}

/// `host:port` of everything to which the requests of a load go, relays of the run and what is behind them included.
pub(crate) fn addresses(record: &RunRecord, load: &LoadRecord) -> Vec<String> {
    let mut addresses: Vec<String> = load.sends.iter().filter_map(|sends| address(sends)).collect();
    // Each relay adds its upstream once, so this ends.
    let mut relays: Vec<_> = record.relays.iter().collect();
    while let Some(at) = relays.iter().position(|relay| addresses.contains(&plain(&relay.listen))) {
        addresses.push(plain(&relays.remove(at).upstream));
    }
    addresses
}

/// `host:port` of `GET http://host:port/path`.
fn address(sends: &str) -> Option<String> {
    let (scheme, rest) = sends.split_whitespace().last()?.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let port = if scheme == "https" { 443 } else { 80 };
    Some(plain(&if has_port { authority.to_owned() } else { format!("{authority}:{port}") }))
}

/// An address with one name for this host.
fn plain(address: &str) -> String {
    match address.rsplit_once(':') {
        Some((host, port)) if host == "localhost" || host == "[::1]" || host.starts_with("127.") => {
            format!("127.0.0.1:{port}")
        }
        _ => address.to_owned(),
    }
}
