//! Laws of judging: each way to end, each reason for doubt.

use std::collections::BTreeMap;

use reports::Latencies;
use reports::record::*;

use super::{exit, judge};

/// `ok` good answers of `ms` each, and `bad` failures.
pub(super) fn outcomes(ok: u64, bad: u64, ms: u64) -> Outcomes {
    let mut latencies = Latencies::default();
    for _ in 0..ok {
        latencies.record(ms * 1000);
    }
    let errors = if bad > 0 { BTreeMap::from([("reset".to_owned(), bad)]) } else { BTreeMap::new() };
    Outcomes { due: ok + bad, ok, errors, latencies: latencies.encode(), ..Outcomes::default() }
}

/// One second of 400 requests in each of `seconds`, with what happens in the fault given by `fault`.
fn load(name: &str, fault: impl Fn(u32) -> Outcomes, recovery_bad_seconds: u32) -> LoadRecord {
    course(name, |second, phase| match phase {
        Phase::Fault => fault(second - 10),
        Phase::Recovery if second - 20 < recovery_bad_seconds => outcomes(100, 300, 10),
        _ => outcomes(400, 0, 10),
    })
}

/// 36 seconds: ten of baseline, ten of fault, six of recovery, ten after.
fn course(name: &str, outcomes: impl Fn(u32, Phase) -> Outcomes) -> LoadRecord {
    let phase_at = |second: u32| match second {
        0..10 => Phase::Baseline,
        10..20 => Phase::Fault,
        20..26 => Phase::Recovery,
        _ => Phase::After,
    };
    let bucket = |second: u32| {
        let phase = phase_at(second);
        let all = outcomes(second, phase);
        Bucket { at_s: f64::from(second), len_s: 1.0, phase, all, pops: BTreeMap::new() }
    };
    let buckets: Vec<Bucket> = (0..36).map(bucket).collect();
    let phases = [Phase::Baseline, Phase::Fault, Phase::Recovery, Phase::After].map(|phase| {
        let parts: Vec<&Bucket> = buckets.iter().filter(|bucket| bucket.phase == phase).collect();
        let all = super::finding::merge(&parts);
        PhaseStats {
            causes: BTreeMap::new(),
            unsent: 0,
            handshakes: String::new(),
            phase,
            all,
            kinds: BTreeMap::new(),
            pops: BTreeMap::new(),
            instances: BTreeMap::new(),
            statuses: BTreeMap::new(),
        }
    });
    LoadRecord {
        name: name.to_owned(),
        sends: vec![],
        arrivals: String::new(),
        phases: phases.to_vec(),
        buckets,
    }
}

pub(super) fn injection(target: &str, service: Option<&str>, from: f64, to: f64) -> InjectionRecord {
    InjectionRecord {
        id: "r/1".to_owned(),
        fault: "process-kill".to_owned(),
        target: target.to_owned(),
        service: service.map(str::to_owned),
        instance: None,
        meets: Vec::new(),
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

pub(super) fn objective(sli: Sli, limit: f64) -> Objective {
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
        relays: vec![],
        loads: vec![load],
        generator: GeneratorRecord {
            workers: 1,
            due: 0,
            sent: 0,
            lag_p50_s: 0.0,
            lag_p99_s: 0.0,
            lag_max_s: 0.0,
            cpu_max: 0.0,
            waited_max: 0.0,
            queued: 0,
            connections_max: 0,
            saturated: vec![],
            strain: vec![],
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
            recover_note: None,
            findings: vec![],
        },
    }
}

pub(super) fn good() -> RunRecord {
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
    let mut missed = broken();
    missed.topology.clone_from(&run.topology);
    let found = &judge(&missed).findings[0];
    assert!(
        found.status == "confirmed" && found.evidence.starts_with("though checkout does not pass"),
        "{found:?}"
    );
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
    for (mut run, status, words) in [
        (good(), "unproven", "was not proven:"),
        (broken(), "mismatch", "did not have the requested effect:"),
    ] {
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

#[test]
fn seconds_with_too_few_requests_do_not_show_a_recovery() {
    let judged = judge(&record(course("checkout", |_, phase| match phase {
        Phase::Baseline | Phase::Fault => outcomes(400, 0, 10),
        _ => outcomes(2, 0, 10),
    })));
    assert_eq!(judged.recover_s, None);
    assert!(judged.recover_note.as_ref().unwrap().contains("too few requests"), "{:?}", judged.recover_note);
    assert!(judged.reasons.iter().any(|reason| reason.contains("to tell when")), "{:?}", judged.reasons);
    assert_eq!(judged.exit, exit::INCONCLUSIVE);
}

#[test]
fn few_requests_are_put_together_until_they_decide() {
    let mut run = record(course("checkout", |_, _| outcomes(40, 0, 10)));
    run.objectives = vec![objective(Sli::Availability, 0.97)];
    let judged = judge(&run);
    assert_eq!((judged.recover_s, judged.exit), (Some(0.0), exit::HELD), "{:?}", judged.reasons);
}

#[test]
fn an_outage_that_goes_on_after_the_undo_is_missed_however_few_requests_show_it() {
    let run = record(course("checkout", |second, phase| match (second, phase) {
        (20..26, _) => outcomes(0, 2, 10),
        (26.., _) => outcomes(2, 0, 10),
        _ => outcomes(400, 0, 10),
    }));
    let judged = judge(&run);
    assert_eq!((judged.recover_s, judged.exit), (None, exit::MISSED), "{:?}", judged.reasons);
    assert!(judged.reasons.iter().any(|reason| reason.contains("at least 6.0 s")), "{:?}", judged.reasons);
}

#[test]
fn a_journey_that_is_broken_until_the_end_never_recovered() {
    let judged = judge(&record(course("checkout", |second, _| match second {
        20.. => outcomes(0, 400, 10),
        _ => outcomes(400, 0, 10),
    })));
    assert_eq!((judged.recover_s, judged.exit), (None, exit::MISSED));
    assert!(judged.recover_note.unwrap().contains("did not hold again"));
}

#[test]
fn a_second_in_which_nothing_comes_back_is_not_good() {
    let silence = |second, _| match second {
        20..23 => Outcomes { due: 400, ..outcomes(0, 0, 10) },
        _ => outcomes(400, 0, 10),
    };
    assert_eq!(judge(&record(course("checkout", silence))).recover_s, Some(3.0));
    // One request that ends in the next second is no silence.
    let slow = |second, _| match second {
        20 | 22 | 24 => Outcomes { due: 1, ..outcomes(0, 0, 10) },
        21 | 23 | 25 => Outcomes { due: 0, ..outcomes(1, 0, 10) },
        _ => outcomes(400, 0, 10),
    };
    assert_eq!(judge(&record(course("checkout", slow))).recover_s, Some(1.0));
}

#[test]
fn a_journey_without_a_request_after_the_undo_tells_nothing() {
    let mut run = good();
    run.loads[0].buckets.retain(|bucket| bucket.phase <= Phase::Fault);
    run.loads[0].phases.retain(|stats| stats.phase <= Phase::Fault);
    let judged = judge(&run);
    assert_eq!((judged.recover_s, judged.exit), (None, exit::INCONCLUSIVE));
}

#[test]
fn what_no_single_second_shows_is_detected_in_all_of_them() {
    let mut run = record(course("checkout", |_, phase| match phase {
        Phase::Fault => outcomes(37, 3, 10),
        _ => outcomes(400, 0, 10),
    }));
    run.objectives = vec![objective(Sli::Availability, 0.95)];
    let judged = judge(&run);
    assert_eq!(judged.exit, exit::MISSED);
    assert!(judged.detect_s.is_some_and(|seconds| seconds > 1.0), "{:?}", judged.detect_s);
}

#[test]
fn failures_are_slower_than_any_answer() {
    let mut run = record(load("checkout", |_| outcomes(280, 120, 10), 0));
    run.objectives = vec![objective(Sli::Latency(0.99), 0.1)];
    let judged = judge(&run);
    assert_eq!((judged.verdict, judged.exit), (Verdict::Missed, exit::MISSED), "{:?}", judged.reasons);
    assert!(
        judged.reasons[0].contains("beyond measure: 30.000% of the requests failed"),
        "{:?}",
        judged.reasons
    );
    let fault = judged.results.iter().find(|result| result.phase == Phase::Fault).unwrap();
    assert_eq!((fault.estimate, fault.samples), (None, 4000));
    assert_eq!(judged.findings[0].status, "confirmed");
    // Fewer failures than the quantile leaves out: the answers decide.
    let mut run = record(load("checkout", |_| outcomes(399, 1, 10), 0));
    run.objectives = vec![objective(Sli::Latency(0.99), 0.1)];
    assert_eq!(judge(&run).exit, exit::HELD);
}

#[test]
fn a_deadline_miss_is_a_failure_whatever_its_age() {
    let mut late = outcomes(280, 0, 10);
    let mut latencies = Latencies::decode(&late.latencies).unwrap();
    (0..120).for_each(|_| latencies.record(2_000_000));
    late.latencies = latencies.encode();
    late.errors.insert("deadline".to_owned(), 120);
    let mut run = record(load("checkout", |_| late.clone(), 0));
    run.objectives = vec![objective(Sli::Latency(0.99), 5.0)];
    assert_eq!(judge(&run).exit, exit::MISSED, "a limit beyond the deadline forgives nothing");
}

/// 5 % of the answers in the fault take 300 ms, on a host that was this short of CPU.
fn slow_tail(baseline: f64, fault: f64, stolen: f64) -> RunRecord {
    let tail = |_| {
        let mut latencies = Latencies::default();
        (0..400).for_each(|i| latencies.record(if i % 20 == 0 { 300_000 } else { 10_000 }));
        Outcomes { latencies: latencies.encode(), ..outcomes(400, 0, 10) }
    };
    let mut run = record(load("checkout", tail, 0));
    let strain = |phase, waited, stolen| Strain { phase, waited, stolen };
    run.generator.strain = vec![strain(Phase::Baseline, baseline, 0.0), strain(Phase::Fault, fault, stolen)];
    run
}

#[test]
fn the_host_s_shortage_of_cpu_is_not_held_against_the_target() {
    for run in [slow_tail(0.3, 0.9, 0.0), slow_tail(0.3, 0.4, 0.2)] {
        let judged = judge(&run);
        assert_eq!(
            (judged.verdict, judged.exit),
            (Verdict::Unknown, exit::INCONCLUSIVE),
            "{:?}",
            judged.reasons
        );
        assert!(judged.reasons[0].contains("it may be the host's fault"), "{:?}", judged.reasons);
        assert_eq!(judged.findings[0].status, "untested");
    }
}

#[test]
fn the_host_is_no_excuse_for_what_it_did_not_do() {
    assert_eq!(judge(&slow_tail(0.3, 0.45, 0.0)).exit, exit::MISSED, "a host with CPU to spare");
    assert_eq!(judge(&slow_tail(0.9, 0.9, 0.0)).exit, exit::MISSED, "as short in the baseline, which held");
    let mut throttled = slow_tail(0.3, 0.9, 0.0);
    "cpu-throttle".clone_into(&mut throttled.injections[0].fault);
    assert_eq!(judge(&throttled).exit, exit::MISSED, "it was asked for");
    throttled.generator.strain[1].stolen = 0.2;
    assert_eq!(judge(&throttled).exit, exit::INCONCLUSIVE, "a hypervisor was not");
    let mut all_slow = record(load("checkout", |_| outcomes(400, 0, 300), 0));
    all_slow.generator.strain = slow_tail(0.3, 0.9, 0.0).generator.strain;
    assert_eq!(judge(&all_slow).exit, exit::MISSED, "most requests missed");
    let mut failing = record(load("checkout", |_| outcomes(380, 20, 10), 0));
    failing.generator.strain = slow_tail(0.3, 0.9, 0.0).generator.strain;
    assert_eq!(judge(&failing).exit, exit::MISSED, "failures are no delays");
}

#[test]
fn a_record_from_before_these_facts_were_kept_is_judged_all_the_same() {
    let run = good();
    let mut old = serde_json::to_value(&run).unwrap();
    old["generator"].as_object_mut().unwrap().remove("strain");
    old["judgement"].as_object_mut().unwrap().remove("recover_note");
    for stats in old["loads"][0]["phases"].as_array_mut().unwrap() {
        stats.as_object_mut().unwrap().remove("instances");
    }
    let old: RunRecord = serde_json::from_value(old).unwrap();
    assert_eq!(judge(&old), judge(&run));
}

#[test]
fn a_load_that_fails_with_nobody_to_judge_it_leaves_the_verdict_open() {
    let side = |fault: fn(u32) -> Outcomes| {
        let mut run = good();
        run.loads.push(load("home", fault, 0));
        run
    };
    let mut run = side(|_| outcomes(10, 390, 10));
    let judged = judge(&run);
    assert_eq!((judged.verdict, judged.exit), (Verdict::Unknown, exit::INCONCLUSIVE));
    let reason = &judged.reasons[0];
    assert!(reason.starts_with("97.50% of home failed in fault, and no objective judges it"), "{reason}");
    // Whatever it may lose, saying so settles it.
    run.objectives.push(Objective { journey: "home".to_owned(), ..objective(Sli::Availability, 0.0) });
    assert_eq!(judge(&run).exit, exit::HELD, "{:?}", judge(&run).reasons);
    assert_eq!(judge(&side(|_| outcomes(400, 0, 10))).exit, exit::HELD);
    assert_eq!(judge(&side(|second| outcomes(400, u64::from(second == 1), 10))).exit, exit::HELD);
    let mut missed = side(|_| outcomes(10, 390, 10));
    missed.loads[0] = broken().loads.remove(0);
    assert_eq!(judge(&missed).exit, exit::MISSED, "a miss is a miss");
}

#[test]
fn a_throughput_without_a_single_answer_is_zero_if_requests_were_due_and_no_data_if_not() {
    let silent = |due: u64| {
        let mut run = record(course("checkout", |_, phase| match phase {
            Phase::Fault => Outcomes { due, ..Outcomes::default() },
            _ => outcomes(400, 0, 10),
        }));
        run.objectives = vec![objective(Sli::Throughput, 300.0)];
        // What came due and has not ended is in no phase.
        run.loads[0].phases.retain(|stats| stats.phase != Phase::Fault);
        judge(&run)
    };
    let result = |judged: &Judgement| {
        let fault = judged.results.iter().find(|result| result.phase == Phase::Fault).unwrap();
        (fault.estimate, fault.verdict)
    };
    let missed = silent(400);
    assert_eq!((result(&missed), missed.exit), ((Some(0.0), Verdict::Missed), exit::MISSED));
    assert!(missed.detect_s.is_some());
    assert_eq!(missed.findings[0].status, "confirmed");
    let unknown = silent(0);
    assert_eq!((result(&unknown), unknown.exit), ((None, Verdict::Unknown), exit::INCONCLUSIVE));
}

#[test]
fn what_is_not_judged_in_the_fault_does_not_break_there() {
    let mut run = broken();
    for objective in &mut run.objectives {
        objective.phases = vec![Phase::Baseline, Phase::After];
    }
    let judged = judge(&run);
    assert_eq!((judged.detect_s, judged.exit), (None, exit::HELD), "{:?}", judged.reasons);
}

#[test]
fn the_one_injection_in_doubt_is_named_by_its_number_and_time() {
    let mut run = good();
    run.injections = vec![injection("auth-1", Some("auth"), 10.0, 11.0); 180];
    "unproven".clone_into(&mut run.injections[136].proof.status);
    run.injections[136].applied_s = Some(18.6);
    let reasons = judge(&run).reasons;
    assert!(reasons[0].starts_with("F137, process-kill on auth-1, at 18.6 s, was not proven"), "{reasons:?}");
}
