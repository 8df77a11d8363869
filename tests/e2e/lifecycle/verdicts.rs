//! What a run concludes: held, missed, unknown.

use serde_json::json;

use super::{MILD, experiment, finding, unjudged};
use crate::support::{Home, quick, turns};

#[test]
fn a_service_with_one_instance_that_dies_is_a_confirmed_single_point_of_failure() {
    if quick("auth down") {
        return;
    }
    let _turn = turns(2);
    let home = Home::new();
    let done = home.run_clearly(&experiment("- process-kill: {service: auth}", "")).code(1);
    assert!(done.out.contains("auth") && done.out.contains("confirmed"), "{}", done.out);
    let record = home.record();
    assert_eq!(record["judgement"]["verdict"], "missed");
    assert_eq!(finding(&record, "auth", "login"), "confirmed");
    assert_ne!(finding(&record, "auth", "asset"), "confirmed");
    assert_eq!(record["injections"][0]["proof"]["status"], "confirmed");
    assert_eq!(record["restoration"]["verified"], true);
    assert!(record["judgement"]["detect_s"].as_f64().unwrap() < 3.0, "{}", record["judgement"]);
    home.assert_no_leftovers();
    home.assert_nothing_left();
}

#[test]
fn an_experiment_whose_objectives_hold_in_every_phase_is_held() {
    let _turn = turns(2);
    let home = Home::new();
    home.run_clearly(&experiment(MILD, "")).code(0);
    let record = home.record();
    assert_eq!(record["judgement"]["verdict"], "held");
    assert_eq!(finding(&record, "auth", "login"), "refuted");
    home.assert_no_leftovers();
    home.assert_nothing_left();
}

#[test]
fn an_unsteady_baseline_injects_nothing() {
    if quick("unsteady baseline") {
        return;
    }
    let _turn = turns(2);
    let home = Home::new();
    let text = experiment(MILD, "").replace("<= 1.5s", "<= 500us");
    let done = home.run(&text).code(6);
    assert!(done.err.contains("not steady"), "{}", done.err);
    let record = home.record();
    assert_eq!(record["judgement"]["verdict"], "unknown");
    assert!(record["injections"][0]["applied_s"].is_null(), "{}", record["injections"]);
    let journal = std::fs::read_to_string(home.only_run().join("journal.jsonl")).unwrap();
    assert!(!journal.contains("intend"), "{journal}");
    home.assert_nothing_left();
}

#[test]
fn a_failing_probe_makes_the_baseline_unsteady() {
    if quick("failing probe") {
        return;
    }
    let _turn = turns(2);
    let home = Home::new();
    let probe = "steady-state:\n  - tcp: {name: nobody, address: \"127.0.0.1:1\"}\n";
    let done = home.run(&experiment(MILD, probe)).code(6);
    assert!(done.err.contains("nobody"), "{}", done.err);
    assert!(home.record()["injections"][0]["applied_s"].is_null());
    home.assert_nothing_left();
}

#[test]
fn a_fault_that_nobody_met_proves_nothing() {
    if quick("unproven fault") {
        return;
    }
    let _turn = turns(2);
    let home = Home::new();
    // Only assets are asked for: no request ever reaches auth.
    let text = unjudged(MILD, "").replace("/login", "/asset/other");
    home.run(&text).code(6);
    let record = home.record();
    assert_eq!(record["judgement"]["verdict"], "unknown");
    assert_eq!(record["injections"][0]["proof"]["status"], "unproven");
    assert_eq!(finding(&record, "auth", "login"), "untested");
    home.assert_nothing_left();
}

#[test]
fn a_generator_that_does_not_keep_up_proves_nothing() {
    if quick("saturated generator") {
        return;
    }
    let _turn = turns(2);
    let home = Home::new();
    // One connection carries about a hundred per second.
    let text = experiment(MILD, "")
        .replace("/login\", ", "/login\", connections: 1, ")
        .replace("rate: 40/s", "rate: 1000/s")
        .replace("availability: \">= 80%\", p90: \"<= 1.5s\"", "throughput: \">= 1/s\"");
    home.run(&text).code(6);
    let record = home.record();
    assert_eq!(record["judgement"]["verdict"], "unknown");
    let saturated = record["generator"]["saturated"].as_array().unwrap();
    assert!(!saturated.is_empty(), "{}", record["judgement"]);
    home.assert_nothing_left();
}

#[test]
fn a_plan_and_a_run_with_one_seed_choose_the_same_targets() {
    let home = Home::new();
    let file = home.file("pick.yaml", &experiment("- process-pause: {service: catalog, pick: one}", ""));
    let plan = |seed: &str| {
        home.json(&["plan", file.to_str().unwrap(), "--seed", seed, "--json"])["injections"].clone()
    };
    assert_eq!(plan("7"), plan("7"));
    let others: Vec<_> = (0..20).map(|seed| plan(&seed.to_string())[0]["target"].clone()).collect();
    assert!(others.iter().any(|target| *target != others[0]), "every seed picks {}", others[0]);
    assert_ne!(plan("7"), json!(null));
    assert!(home.run_folders().is_empty());
}

#[test]
fn an_instance_that_was_killed_and_came_back_can_be_killed_again() {
    if quick("an instance killed twice") {
        return;
    }
    let (_turn, home) = (turns(2), Home::new());
    let again = "  - {at: 8s, for: 1s, faults: [{process-kill: {instance: edge-fra}}]}\nrecover-within";
    let text = unjudged("- process-kill: {instance: edge-fra}", "");
    let text = text.replace("recover-within", again).replace("for: 12s", "for: 14s");
    let done = home.run_clearly(&text).code(0);
    let record = home.record();
    for injection in record["injections"].as_array().unwrap() {
        assert_eq!(injection["proof"]["status"], "confirmed", "{}\n{injection:#}", done.out);
    }
    assert_eq!(record["injections"].as_array().unwrap().len(), 2);
    home.assert_no_leftovers();
    home.assert_nothing_left();
}
