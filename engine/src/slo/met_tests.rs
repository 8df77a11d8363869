//! Laws of findings: what shows that a journey meets a broken thing.

use std::collections::BTreeMap;

use reports::record::*;

use super::tests::{good, injection, objective, outcomes};
use super::{exit, judge};

/// What the answers of a journey before the fault named.
fn name_instances(load: &mut LoadRecord, named: &[(&str, u64)]) {
    for stats in &mut load.phases {
        stats.statuses = BTreeMap::from([(200, 4000)]);
        stats.instances = named.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
    }
}

#[test]
fn what_no_answer_came_through_is_untested_and_holding_says_nothing() {
    let mut run = good();
    run.topology.as_mut().unwrap().services[0].instances.push("auth-2".to_owned());
    name_instances(&mut run.loads[0], &[("edge-1", 4000), ("auth-2", 4000)]);
    let judged = judge(&run);
    assert_eq!(judged.findings[0].status, "untested");
    let evidence = &judged.findings[0].evidence;
    assert!(
        evidence.contains("no answer of checkout came through auth-1 before the fault (0 of 4,000)"),
        "{evidence}"
    );
    assert_eq!((judged.verdict, judged.exit), (Verdict::Unknown, exit::INCONCLUSIVE));
    assert!(judged.reasons[0].contains("no journey's traffic met auth-1"), "{:?}", judged.reasons);
    // A miss is a miss, whoever was met.
    run.recover_within_s = -1.0;
    assert_eq!(judge(&run).exit, exit::MISSED);
}

#[test]
fn a_refuted_finding_says_how_much_was_served_before() {
    let mut run = good();
    name_instances(&mut run.loads[0], &[("auth-1", 1960)]);
    let judged = judge(&run);
    assert_eq!((judged.findings[0].status.as_str(), judged.exit), ("refuted", exit::HELD));
    let evidence = &judged.findings[0].evidence;
    assert!(evidence.contains("auth-1 served 49.00% of its answers before"), "{evidence}");
}

#[test]
fn what_hits_packets_to_an_instance_is_met_by_whoever_the_instance_serves() {
    let mut run = good();
    "packets to auth-1".clone_into(&mut run.injections[0].target);
    name_instances(&mut run.loads[0], &[("auth-1", 1960)]);
    assert_eq!(judge(&run).findings[0].status, "untested", "answers name instances, not packets");
    run.injections[0].instance = Some("auth-1".to_owned());
    let judged = judge(&run);
    assert_eq!((judged.findings[0].status.as_str(), judged.exit), ("refuted", exit::HELD));
}

#[test]
fn requests_that_go_to_addresses_of_an_aim_meet_it() {
    let mut run = good();
    run.topology = None;
    "the interface to 10.0.0.2".clone_into(&mut run.injections[0].target);
    run.injections[0].service = None;
    assert_eq!(judge(&run).findings[0].status, "untested");
    run.injections[0].meets.push("checkout".to_owned());
    let judged = judge(&run);
    assert_eq!(judged.findings[0].status, "refuted");
    let evidence = &judged.findings[0].evidence;
    assert!(
        evidence.contains("requests of checkout go to addresses of the interface to 10.0.0.2"),
        "{evidence}"
    );
}

#[test]
fn one_journey_that_meets_it_is_enough_for_the_verdict_but_not_for_the_other_journey() {
    let mut run = good();
    let mut browse = run.loads[0].clone();
    "browse".clone_into(&mut browse.name);
    run.objectives.push(Objective { journey: "browse".to_owned(), ..objective(Sli::Availability, 0.995) });
    run.topology = None;
    name_instances(&mut run.loads[0], &[("auth-1", 4000)]);
    name_instances(&mut browse, &[("edge-1", 4000)]);
    run.loads.push(browse);
    let judged = judge(&run);
    assert_eq!(judged.exit, exit::HELD, "{:?}", judged.reasons);
    let status =
        |journey: &str| judged.findings.iter().find(|f| f.journey == journey).unwrap().status.clone();
    assert_eq!((status("checkout").as_str(), status("browse").as_str()), ("refuted", "untested"));
}

#[test]
fn a_pop_that_served_nobody_is_not_met() {
    let mut run = good();
    "PoP sin".clone_into(&mut run.injections[0].target);
    run.injections[0].service = None;
    let pops = |name: &str| BTreeMap::from([(name.to_owned(), outcomes(4000, 0, 10))]);
    for stats in &mut run.loads[0].phases {
        stats.statuses = BTreeMap::from([(200, 4000)]);
        stats.pops = pops("fra");
    }
    assert_eq!(judge(&run).exit, exit::INCONCLUSIVE);
    run.loads[0].phases[0].pops = pops("sin");
    let judged = judge(&run);
    assert_eq!(judged.exit, exit::HELD, "{:?}", judged.reasons);
    assert!(judged.findings[0].evidence.contains("PoP sin served 100% of its answers"));
}

#[test]
fn where_answers_name_nobody_nothing_is_claimed() {
    let judged = judge(&good());
    assert_eq!(judged.exit, exit::HELD);
    assert!(
        judged.findings[0].evidence.starts_with("by the topology, checkout passes through it, and it held")
    );
    // Names beyond the bound may be anybody's, and those of others do not show that this one would be named.
    let mut run = good();
    name_instances(&mut run.loads[0], &[("edge-1", 4000), ("other", 10)]);
    assert_eq!(judge(&run).findings[0].status, "refuted");
    name_instances(&mut run.loads[0], &[("edge-1", 4000)]);
    assert_eq!(judge(&run).findings[0].status, "refuted");
}

/// Checkout through the relay `web`, browse to another address; a relay is slow, nothing names anybody.
fn relayed(checkout: &str, browse: Option<&str>) -> RunRecord {
    let mut run = good();
    run.topology = None;
    run.relays = vec![RelayInfo {
        name: "web".to_owned(),
        listen: "127.0.0.1:4001".to_owned(),
        upstream: "127.0.0.1:8080".to_owned(),
    }];
    run.injections = vec![injection("relay web", None, 10.0, 20.0)];
    run.loads[0].sends = vec![format!("GET {checkout}")];
    if let Some(browse) = browse {
        let mut other = run.loads[0].clone();
        "browse".clone_into(&mut other.name);
        other.sends = vec![format!("GET {browse}")];
        run.loads.push(other);
        let of_browse = |o: Objective| Objective { journey: "browse".to_owned(), ..o };
        run.objectives.push(of_browse(objective(Sli::Availability, 0.995)));
    }
    run
}

fn found(run: &RunRecord, journey: &str) -> (String, String) {
    let found = judge(run).findings.into_iter().find(|finding| finding.journey == journey).unwrap();
    (found.status, found.evidence)
}

#[test]
fn a_journey_that_does_not_go_through_a_relay_refutes_nothing_about_it() {
    let run = relayed("http://127.0.0.1:4001/", Some("http://127.0.0.1:9000/"));
    assert_eq!(judge(&run).exit, exit::HELD);
    let (status, evidence) = found(&run, "checkout");
    assert!(
        status == "refuted" && evidence.contains("requests of checkout go through relay web"),
        "{evidence}"
    );
    let (status, evidence) = found(&run, "browse");
    assert!(
        status == "untested" && evidence.starts_with("nothing shows that browse goes through relay web"),
        "{evidence}"
    );
}

#[test]
fn the_only_load_is_the_one_that_a_relay_carries_behind_another_hop() {
    let mut run = relayed("http://127.0.0.1:9000/", None);
    assert_eq!(found(&run, "checkout").0, "refuted");
    // Unless a probe may have been it.
    run.probes.push(ProbeRecord {
        name: "front".to_owned(),
        does: "GET http://127.0.0.1:4001/".to_owned(),
        tolerance: String::new(),
        phases: vec![],
        seen: vec![],
    });
    assert_eq!(found(&run, "checkout").0, "untested");
}

#[test]
fn holding_says_nothing_about_a_process_that_nothing_leads_to() {
    for (target, sends, status) in [
        ("pid file /run/sleep.pid", "http://127.0.0.1:4001/", "untested"),
        ("touch", "http://127.0.0.1:4001/", "untested"),
        ("listener on port 8081", "http://127.0.0.1:8080/", "untested"),
        ("listener on port 8080", "http://127.0.0.1:8080/", "refuted"),
        ("listener on port 8080", "http://localhost:8080/a?b", "refuted"),
        ("listener on port 8080", "http://10.0.0.1:8080/", "untested"),
        ("listener on port 80", "http://127.0.0.1/", "refuted"),
        // The relay leads there.
        ("listener on port 8080", "http://127.0.0.1:4001/", "refuted"),
    ] {
        let mut run = relayed(sends, None);
        target.clone_into(&mut run.injections[0].target);
        let (found, evidence) = found(&run, "checkout");
        assert_eq!(found, status, "{target} {sends}: {evidence}");
        assert_eq!(judge(&run).exit, exit::HELD, "the users did not notice");
    }
}

#[test]
fn many_injections_into_one_thing_are_counted_not_listed() {
    let mut run = relayed("http://127.0.0.1:4001/", None);
    run.injections = vec![injection("relay web", None, 10.0, 20.0); 10];
    assert_eq!(judge(&run).findings[0].target, "relay web (10 injections)");
}
