//! Laws of what is judged by the second: guards, the baseline, the recovery.

use std::sync::Arc;

use reports::record::Sli;

use super::*;
use crate::experiment::parse_guard;
use crate::load::{Errors, LoadTick};

fn tick(second: u64, phase: Phase, ok: u64, failed: u64, ms: u64) -> Tick {
    let mut latencies = Latencies::default();
    (0..ok).for_each(|_| latencies.record(ms * 1000));
    let mut errors = Errors::default();
    (0..failed).for_each(|_| errors.count(crate::load::ErrorClass::Reset));
    let part = PhaseTick { phase, due: ok + failed, ok, errors, latencies, pops: vec![] };
    let load = LoadTick { name: Arc::from("checkout"), phases: vec![part] };
    let service = Latencies::default();
    Tick {
        second,
        loads: vec![load],
        lag_p99_s: None,
        service,
        cpu: 0.0,
        waited: 0.0,
        connections: 0,
        losses: Vec::new(),
    }
}

fn objective() -> Objective {
    Objective {
        journey: "checkout".to_owned(),
        sli: Sli::Availability,
        at_least: true,
        limit: 0.99,
        phases: vec![Phase::Baseline],
    }
}

#[test]
fn a_guard_trips_only_after_its_whole_time_on_end() {
    let guards = [parse_guard("errors of checkout > 25% for 3s").unwrap()];
    let mut watch = Watch::default();
    let mut see =
        |second, failed| watch.second(&tick(second, Phase::Fault, 100 - failed, failed, 5), &guards, &[]);
    assert_eq!((see(0, 50), see(1, 50), see(2, 0)), (None, None, None), "a good second starts it anew");
    assert_eq!((see(3, 50), see(4, 50)), (None, None));
    assert!(see(5, 26).is_some());
    assert_eq!(watch.closest(0), 1.0);
}

#[test]
fn a_guard_within_its_limit_says_how_close_it_came() {
    let guards = [parse_guard("p99 of checkout > 100ms for 2s").unwrap()];
    let mut watch = Watch::default();
    watch.second(&tick(0, Phase::Fault, 100, 0, 50), &guards, &[]);
    assert!((watch.closest(0) - 0.25).abs() < 0.01, "{}", watch.closest(0));
    let low = [parse_guard("throughput of checkout < 50/s for 1s").unwrap()];
    assert!(Watch::default().second(&tick(0, Phase::Fault, 49, 0, 5), &low, &[]).is_some());
    assert!(Watch::default().second(&tick(0, Phase::Fault, 51, 0, 5), &low, &[]).is_none());
}

#[test]
fn a_baseline_without_data_or_on_the_bad_side_is_not_steady() {
    let objectives = [objective()];
    assert!(Watch::default().steady(&objectives).is_err());
    let mut watch = Watch::default();
    watch.second(&tick(0, Phase::Baseline, 100, 0, 5), &[], &objectives);
    assert!(watch.steady(&objectives).is_ok(), "few but good requests do not forbid the fault");
    watch.second(&tick(1, Phase::Baseline, 50, 50, 5), &[], &objectives);
    assert!(watch.steady(&objectives).unwrap_err().contains("availability"));
}

#[test]
fn a_baseline_in_which_everything_fails_is_not_steady_whatever_is_asked() {
    for (sli, at_least, limit) in [(Sli::Throughput, true, 45.0), (Sli::Latency(0.99), false, 0.1)] {
        let objectives = [Objective { sli, at_least, limit, ..objective() }];
        let mut watch = Watch::default();
        for second in 0..4 {
            watch.second(&tick(second, Phase::Baseline, 0, 50, 5), &[], &objectives);
        }
        assert!(watch.steady(&objectives).is_err(), "{sli:?}");
        let mut watch = Watch::default();
        for second in 0..4 {
            watch.second(&tick(second, Phase::Baseline, 50, 0, 5), &[], &objectives);
        }
        assert!(watch.steady(&objectives).is_ok(), "{sli:?}");
    }
}

#[test]
fn recovery_needs_good_seconds_on_end() {
    let objectives = [objective()];
    let mut watch = Watch::default();
    for (second, failed) in [(0, 0), (1, 60), (2, 0), (3, 0)] {
        watch.second(&tick(second, Phase::Recovery, 100 - failed, failed, 5), &[], &objectives);
        assert!(!watch.recovered(&objectives), "after second {second}");
    }
    watch.second(&tick(4, Phase::Recovery, 100, 0, 5), &[], &objectives);
    assert!(watch.recovered(&objectives));
    let other = Objective { journey: "browse".to_owned(), ..objective() };
    assert!(!watch.recovered(&[objective(), other]), "every journey must have recovered");
}

#[test]
fn seconds_without_an_answer_are_no_recovery() {
    let objectives = [objective()];
    let mut watch = Watch::default();
    for second in 0..6 {
        let mut silent = tick(second, Phase::Recovery, 0, 0, 5);
        silent.loads[0].phases[0].due = 50;
        watch.second(&silent, &[], &objectives);
        assert!(!watch.recovered(&objectives));
    }
    let mut watch = Watch::default();
    for second in 0..6 {
        watch.second(&tick(second, Phase::Recovery, 0, 1, 5), &[], &objectives);
        assert!(!watch.recovered(&objectives), "one failure in each second");
    }
}

#[test]
fn failures_trip_a_guard_on_latency() {
    let guards = [parse_guard("p99 of checkout > 100ms for 1s").unwrap()];
    assert!(Watch::default().second(&tick(0, Phase::Fault, 70, 30, 5), &guards, &[]).is_some());
    assert!(Watch::default().second(&tick(0, Phase::Fault, 1000, 1, 5), &guards, &[]).is_none());
}
