//! The one list of faults. Help, `squall faults`, the JSON Schema, the docs and the plan come from it.

use crate::Injector;
use crate::faults;

/// Every fault, sorted by name.
pub const INJECTORS: &[&dyn Injector] = &[
    &faults::Command,
    &faults::ConnectionReset,
    &faults::ContainerDisconnect,
    &faults::ContainerKill,
    &faults::ContainerPause,
    &faults::ContainerRestart,
    &faults::ContainerStop,
    &faults::Stressed(faults::CpuStress),
    &faults::Limited(faults::CpuThrottle),
    &faults::Stressed(faults::DiskFill),
    &faults::DnsFault,
    &faults::FdExhaust,
    &faults::HttpAbort,
    &faults::HttpDelay,
    &faults::HttpHeader,
    &faults::HttpTruncate,
    &faults::Limited(faults::IoLimit),
    &faults::Stressed(faults::IoStress),
    &faults::Limited(faults::MemoryLimit),
    &faults::Stressed(faults::MemoryStress),
    &faults::Shaped(faults::NetworkCorrupt),
    &faults::Shaped(faults::NetworkDelay),
    &faults::Shaped(faults::NetworkDuplicate),
    &faults::Losing,
    &faults::Cut(faults::NetworkPartition),
    &faults::Shaped(faults::NetworkRate),
    &faults::PopDrain,
    &faults::Cut(faults::PortBlock),
    &faults::Limited(faults::ProcessFreeze),
    &faults::ProcessKill,
    &faults::ProcessPause,
    &faults::RelayBandwidth,
    &faults::RelayBlackhole,
    &faults::RelayLatency,
    &faults::RelayLimitData,
    &faults::RelayRefuse,
    &faults::RelayReset,
    &faults::RelaySlice,
    &faults::RelaySlowClose,
];

/// The fault with this name.
pub fn find(name: &str) -> Option<&'static dyn Injector> {
    INJECTORS.iter().copied().find(|injector| injector.about().name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::about::{Param, Presence};

    /// The keys of an example's one-line map.
    fn keys(example: &str) -> Vec<&str> {
        let inner = example.split_once('{').unwrap().1.rsplit_once('}').unwrap().0;
        // Items of lists have no colon.
        inner.split(", ").filter_map(|pair| pair.split_once(": ").map(|(key, _)| key)).collect()
    }

    #[test]
    fn names_are_sorted_and_unique() {
        let names: Vec<_> = INJECTORS.iter().map(|injector| injector.about().name).collect();
        assert!(names.windows(2).all(|pair| pair[0] < pair[1]), "{names:?}");
        assert!(names.iter().all(|name| find(name).is_some()));
        assert!(find("no-such-fault").is_none());
    }

    #[test]
    fn every_fault_tells_its_users_everything() {
        for about in INJECTORS.iter().map(|injector| injector.about()) {
            let name = about.name;
            assert!(!about.summary.is_empty() && !about.summary.ends_with('.'), "{name}: summary");
            for text in [about.description, about.proof, about.undo] {
                assert!(text.len() > 20 && text.ends_with('.'), "{name}: {text}");
            }
            let params: Vec<&Param> = about.params.iter().chain(about.target.selectors()).collect();
            for param in &params {
                assert!(!param.help.is_empty() && !param.help.ends_with('.'), "{name}: {}", param.name);
                assert_eq!(params.iter().filter(|other| other.name == param.name).count(), 1, "{name}");
                if let Presence::Default(text) = param.presence {
                    assert!(param.kind.parse(text).is_ok(), "{name}: default of {}", param.name);
                }
            }
        }
    }

    #[test]
    fn every_example_names_its_fault_its_required_parameters_and_nothing_unknown() {
        for about in INJECTORS.iter().map(|injector| injector.about()) {
            assert!(about.example.starts_with(&format!("- {}:", about.name)), "{}", about.example);
            if about.example.contains('\n') {
                continue;
            }
            let keys = keys(about.example);
            let params: Vec<&Param> = about.params.iter().chain(about.target.selectors()).collect();
            for key in &keys {
                assert!(params.iter().any(|param| param.name == *key), "{}: {key}", about.name);
            }
            for param in about.params.iter().filter(|param| matches!(param.presence, Presence::Required)) {
                assert!(keys.contains(&param.name), "{}: {} is not shown", about.name, param.name);
            }
        }
    }
}
