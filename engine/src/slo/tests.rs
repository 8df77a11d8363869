//! Laws of judging: each way to end, each reason for doubt.

use std::collections::BTreeMap;

use reports::Latencies;
use reports::record::*;

use super::{exit, judge};

/// `ok` good answers of `ms` each, and `bad` failures.
fn outcomes(ok: u64, bad: u64, ms: u64) -> Outcomes {
    let mut latencies = Latencies::default();
    for _ in 0..ok {
        latencies.record(ms * 1000);
    }
    let errors = if bad > 0 { BTreeMap::from([("reset".to_owned(), bad)]) } else { BTreeMap::new() };
    Outcomes { due: ok + bad, ok, errors, latencies: latencies.encode() }
}

/// One second of 400 requests in each of `seconds`, with what happens in the fault given by `fault`.
fn load(name: &str, fault: impl Fn(u32) -> Outcomes, recovery_bad_seconds: u32) -> LoadRecord {
    let phase_at = |second: u32| match second {
        0..10 => Phase::Baseline,
        10..20 => Phase::Fault,
        20..26 => Phase::Recovery,
        _ => Phase::After,
    };
    let bucket = |second: u32| {
        let phase = phase_at(second);
        let all = match phase {
            Phase::Fault => fault(second - 10),
            Phase::Recovery if second - 20 < recovery_bad_seconds => outcomes(100, 300, 10),
            _ => outcomes(400, 0, 10),
        };
        Bucket { at_s: f64::from(second), len_s: 1.0, phase, all, pops: BTreeMap::new() }
    };
    let buckets: Vec<Bucket> = (0..36).map(bucket).collect();
    let phases = [Phase::Baseline, Phase::Fault, Phase::Recovery, Phase::After].map(|phase| {
        let parts: Vec<&Bucket> = buckets.iter().filter(|bucket| bucket.phase == phase).collect();
        let all = super::finding::merge(&parts);
        PhaseStats { phase, all, kinds: BTreeMap::new(), pops: BTreeMap::new(), statuses: BTreeMap::new() }
    });
    LoadRecord {
        name: name.to_owned(),
        sends: vec![],
        arrivals: String::new(),
        phases: phases.to_vec(),
        buckets,
    }
}

fn injection(target: &str, service: Option<&str>, from: f64, to: f64) -> InjectionRecord {
    InjectionRecord {
        id: "r/1".to_owned(),
        fault: "process-kill".to_owned(),
        target: target.to_owned(),
        service: service.map(str::to_owned),
        effect: "outage".to_owned(),
        parameters: String::new(),
        summary: String::new(),
        intended_s: from,
        applied_s: Some(from),
        undone_s: Some(to),
        proof: ProofRecord {
            status: "confirmed".to_owned(),
            requested: "1 gone".to_owned(),
            measured: "1 gone".to_owned(),
            tolerance: "all".to_owned(),
            samples: 1,
        },
        undo: "restored".to_owned(),
        error: None,
        manual: String::new(),
    }
}

fn objective(sli: Sli, limit: f64) -> Objective {
    let at_least = !matches!(sli, Sli::Latency(_));
    let phases = vec![Phase::Baseline, Phase::Fault, Phase::After];
    Objective { journey: "checkout".to_owned(), sli, at_least, limit, phases }
}

fn record(load: LoadRecord) -> RunRecord {
    let span = |phase, start_s, end_s| PhaseSpan { phase, start_s, end_s };
    RunRecord {
        schema: SCHEMA.to_owned(),
        run: "r".to_owned(),
        squall: String::new(),
        started_unix_s: 0.0,
        ended_unix_s: 36.0,
        seed: 1,
        reproduce: String::new(),
        experiment: ExperimentInfo {
            name: "e".to_owned(),
            question: "?".to_owned(),
            owner: None,
            file: String::new(),
            text: String::new(),
        },
        host: HostInfo { kernel: String::new(), cores: 1, target: String::new() },
        phases: vec![
            span(Phase::Baseline, 0.0, 10.0),
            span(Phase::Fault, 10.0, 20.0),
            span(Phase::Recovery, 20.0, 26.0),
            span(Phase::After, 26.0, 36.0),
        ],
        topology: Some(TopologyInfo {
            services: vec![ServiceInfo {
                name: "auth".to_owned(),
                instances: vec!["auth-1".to_owned()],
                requires: vec![],
                uses: vec![],
                journeys: vec!["checkout".to_owned()],
            }],
        }),
        loads: vec![load],
        generator: GeneratorRecord {
            workers: 1,
            due: 0,
            sent: 0,
            lag_p50_s: 0.0,
            lag_p99_s: 0.0,
            lag_max_s: 0.0,
            cpu_max: 0.0,
            connections_max: 0,
            saturated: vec![],
        },
        injections: vec![injection("auth-1", Some("auth"), 10.0, 20.0)],
        probes: vec![],
        guards: vec![],
        objectives: vec![objective(Sli::Availability, 0.995), objective(Sli::Latency(0.99), 0.1)],
        recover_within_s: 5.0,
        end: End::Completed,
        restoration: Restoration { verified: true, seconds: 0.01, left: vec![] },
        events: vec![],
        judgement: Judgement {
            verdict: Verdict::Unknown,
            exit: 6,
            reasons: vec![],
            results: vec![],
            detect_s: None,
            recover_s: None,
            findings: vec![],
        },
    }
}

fn good() -> RunRecord {
    record(load("checkout", |_| outcomes(400, 0, 10), 0))
}

fn broken() -> RunRecord {
    record(load("checkout", |_| outcomes(0, 400, 10), 0))
}

#[test]
fn what_nobody_noticed_has_held() {
    let judged = judge(&good());
    assert_eq!((judged.verdict, judged.exit), (Verdict::Held, exit::HELD), "{:?}", judged.reasons);
    assert_eq!((judged.detect_s, judged.recover_s), (None, Some(0.0)));
    assert_eq!(judged.findings[0].status, "refuted");
    assert!(judged.findings[0].remedy.is_empty());
}

#[test]
fn a_journey_that_never_meets_the_broken_thing_refutes_nothing() {
    let mut run = good();
    let topology = run.topology.as_mut().unwrap();
    topology.services[0].journeys.clear();
    topology.services.push(ServiceInfo {
        name: "edge".to_owned(),
        instances: vec!["edge-1".to_owned()],
        requires: vec![],
        uses: vec![],
        journeys: vec!["checkout".to_owned()],
    });
    assert_eq!(judge(&run).findings[0].status, "untested");
    run.topology.as_mut().unwrap().services[1].uses.push("auth".to_owned());
    assert_eq!(judge(&run).findings[0].status, "refuted", "an optional dependency is met as well");
}

#[test]
fn an_outage_is_missed_and_names_its_single_point_of_failure() {
    let judged = judge(&broken());
    assert_eq!((judged.verdict, judged.exit), (Verdict::Missed, exit::MISSED));
    assert_eq!(judged.findings[0].status, "confirmed");
    assert!(judged.findings[0].target.contains("auth (its only instance)"));
    assert!(judged.findings[0].remedy.contains("second instance of auth"));
    assert_eq!((judged.detect_s, judged.recover_s), (Some(1.0), Some(0.0)));
}

#[test]
fn slow_answers_are_missed_though_all_of_them_came() {
    let judged = judge(&record(load("checkout", |_| outcomes(400, 0, 300), 0)));
    assert_eq!(judged.verdict, Verdict::Missed);
    assert!(judged.reasons[0].contains("p99"), "{:?}", judged.reasons);
}

#[test]
fn too_few_requests_are_unknown_and_never_held() {
    let judged = judge(&record(load("checkout", |_| outcomes(5, 0, 10), 0)));
    assert_eq!((judged.verdict, judged.exit), (Verdict::Unknown, exit::INCONCLUSIVE));
}

#[test]
fn no_data_is_unknown() {
    let mut silent = good();
    for stats in &mut silent.loads[0].phases {
        stats.all = Outcomes::default();
    }
    silent.loads[0].buckets.clear();
    assert_eq!(judge(&silent).exit, exit::INCONCLUSIVE);
    silent.loads.clear();
    let judged = judge(&silent);
    assert_eq!(judged.exit, exit::INCONCLUSIVE, "{:?}", judged.reasons);
}

#[test]
fn a_fault_without_proof_decides_nothing_whatever_the_objectives_say() {
    for (mut run, status, words) in
        [(good(), "unproven", "is unproven:"), (broken(), "mismatch", "does not match:")]
    {
        status.clone_into(&mut run.injections[0].proof.status);
        let judged = judge(&run);
        assert_eq!((judged.verdict, judged.exit), (Verdict::Unknown, exit::INCONCLUSIVE));
        assert!(judged.reasons[0].contains(words), "{:?}", judged.reasons);
        assert_eq!(judged.findings[0].status, "untested");
    }
}

#[test]
fn a_generator_that_did_not_keep_up_blames_nobody() {
    let mut run = broken();
    run.generator.saturated = vec!["late".to_owned()];
    let judged = judge(&run);
    assert_eq!(judged.exit, exit::INCONCLUSIVE);
    assert_eq!(judged.findings[0].status, "untested");
}

#[test]
fn endings_have_their_own_exit_codes_and_restoration_comes_first() {
    let mut run = broken();
    run.end = End::Aborted { by: "guard".to_owned(), why: "x".to_owned(), at_s: 12.0 };
    assert_eq!(judge(&run).exit, exit::ABORTED);
    run.restoration.verified = false;
    assert_eq!(judge(&run).exit, exit::NOT_RESTORED);
    let mut run = good();
    run.end = End::NotSteady("p99".to_owned());
    assert_eq!(judge(&run).exit, exit::INCONCLUSIVE);
}

#[test]
fn a_recovery_that_takes_too_long_is_missed() {
    let mut run = record(load("checkout", |_| outcomes(400, 0, 10), 4));
    assert_eq!(judge(&run).recover_s, Some(4.0));
    assert_eq!(judge(&run).exit, exit::HELD);
    run.recover_within_s = 3.0;
    assert_eq!(judge(&run).exit, exit::MISSED);
}

#[test]
fn nobody_is_blamed_while_several_things_are_broken_at_once() {
    let mut run = broken();
    run.injections.push(injection("cache", None, 12.0, 18.0));
    let judged = judge(&run);
    assert_eq!(judged.exit, exit::MISSED);
    assert!(judged.findings.iter().all(|finding| finding.status == "untested"), "{:?}", judged.findings);
    // One after the other, each stands for itself.
    run.injections[0].undone_s = Some(13.0);
    run.injections[1].applied_s = Some(15.0);
    assert!(judge(&run).findings.iter().all(|finding| finding.status == "confirmed"));
}

#[test]
fn a_probe_outside_its_tolerance_is_missed() {
    let mut run = good();
    run.probes.push(ProbeRecord {
        name: "front-door".to_owned(),
        does: String::new(),
        tolerance: String::new(),
        phases: vec![Phase::Fault],
        seen: vec![ProbeSeen {
            phase: Phase::Fault,
            held: 9,
            missed: 1,
            last_miss: Some("refused".to_owned()),
        }],
    });
    assert_eq!(judge(&run).exit, exit::MISSED);
}

#[test]
fn the_same_record_gives_the_same_answer_after_a_trip_through_json() {
    let run = broken();
    let text = serde_json::to_string(&run).unwrap();
    let back: RunRecord = serde_json::from_str(&text).unwrap();
    assert_eq!(judge(&back), judge(&run));
}
