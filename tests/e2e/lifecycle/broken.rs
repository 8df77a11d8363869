//! Murder: the engine, the guardian or the lab is killed or stopped in the middle of a fault.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use super::{PATIENCE, standing, unjudged};
use crate::support::client::{control, get};
use crate::support::{Home, Lab, process, quick, turns, until, wait};

/// A slow relay and a paused process at once.
const BOTH: &str =
    "- relay-latency: {service: auth, delay: 300ms}\n      - process-pause: {instance: catalog-1}";

/// Starts a run against a standing lab and waits until both faults are live.
fn in_the_fault(home: &Home) -> crate::support::home::Going {
    let file = home.file("run.yaml", &unjudged(BOTH, ""));
    let mut going = home.start(&["run", file.to_str().unwrap()]);
    going.says("  pause ", PATIENCE);
    going.says("relay-latency on auth-1: delay", PATIENCE);
    going
}

/// What users see: logins are fast again, and catalog works.
fn assert_unharmed(lab: &Lab) {
    for path in ["/login", "/browse?x=1", "/checkout"] {
        let began = Instant::now();
        let (status, _) = get(&lab.address, path, Duration::from_secs(2)).unwrap();
        assert_eq!(status, 200, "{path}");
        assert!(began.elapsed() < Duration::from_millis(280), "{path} took {:?}", began.elapsed());
    }
}

#[test]
fn one_second_after_the_engine_is_killed_the_relays_pass_traffic_and_paused_processes_run() {
    let _turn = turns(1);
    let (home, lab) = standing();
    let going = in_the_fault(&home);
    let paused = lab.pid("catalog-1").unwrap();
    until("a paused process", Duration::from_secs(1), || (process::state(paused) == Some('T')).then_some(()));
    going.signal(Signal::KILL);
    going.end_within(Duration::from_secs(5)).code(137);
    until("a whole lab", Duration::from_secs(1), || lab.is_whole().then_some(()));
    assert_ne!(process::state(paused), Some('T'));
    assert_unharmed(&lab);
    until("the guardian's last word", Duration::from_secs(1), || {
        home.json(&["recover", "--list", "--json"])["runs"].as_array().unwrap().is_empty().then_some(())
    });
    lab.down(&home);
}

#[test]
fn when_the_guardian_is_killed_the_engine_aborts_and_restores() {
    if quick("killed guardian") {
        return;
    }
    let _turn = turns(1);
    let (home, lab) = standing();
    let going = in_the_fault(&home);
    let guardian = process::of_home(home.dir())
        .into_iter()
        .find(|pid| process::command_line(*pid).contains("__guardian"))
        .unwrap();
    process::signal(guardian, Signal::KILL);
    let done = going.end_within(Duration::from_secs(10)).code(4);
    assert!(done.err.contains("aborted by guardian"), "{}", done.err);
    lab.assert_whole();
    home.assert_no_leftovers();
    lab.down(&home);
}

#[test]
fn when_the_guardian_is_stopped_the_engine_aborts_and_restores_and_leaves_no_guardian() {
    if quick("stopped guardian") {
        return;
    }
    let _turn = turns(1);
    let (home, lab) = standing();
    let file =
        home.file("run.yaml", &unjudged(BOTH, "").replace("for: 3s", "for: 30s").replace("12s", "60s"));
    let mut going = home.start(&["run", file.to_str().unwrap()]);
    going.says("relay-latency on auth-1: delay", PATIENCE);
    going.says("  pause ", PATIENCE);
    let guardian = process::of_home(home.dir())
        .into_iter()
        .find(|pid| process::command_line(*pid).contains("__guardian"))
        .unwrap();
    process::signal(guardian, Signal::STOP);
    let done = going.end_within(Duration::from_secs(25)).code(4);
    assert!(done.err.contains("the guardian did not answer"), "{}", done.err);
    lab.assert_whole();
    until("the end of the guardian", Duration::from_secs(1), || {
        process::state(guardian).is_none().then_some(())
    });
    home.assert_no_leftovers();
    lab.down(&home);
}

#[test]
fn when_the_engine_hangs_the_guardian_restores_and_the_engine_accepts_it() {
    if quick("hung engine") {
        return;
    }
    let _turn = turns(1);
    let (home, lab) = standing();
    let file =
        home.file("run.yaml", &unjudged(BOTH, "").replace("for: 3s", "for: 20s").replace("12s", "40s"));
    let mut going = home.start(&["run", file.to_str().unwrap()]);
    going.says("relay-latency on auth-1: delay", PATIENCE);
    going.says("  pause ", PATIENCE);
    going.signal(Signal::STOP);
    wait::pass(Duration::from_secs(6));
    lab.assert_whole();
    assert_unharmed(&lab);
    going.signal(Signal::CONT);
    let done = going.end_within(Duration::from_secs(15)).code(4);
    assert!(done.err.contains("guardian"), "{}", done.err);
    lab.assert_whole();
    home.assert_no_leftovers();
    lab.down(&home);
}

#[test]
fn when_the_labs_supervisor_is_killed_the_run_ends_cleanly() {
    if quick("killed lab") {
        return;
    }
    let _turn = turns(1);
    let home = Home::new();
    let file = home.file("run.yaml", &unjudged("- process-pause: {service: auth}", ""));
    let mut going = home.start(&["run", file.to_str().unwrap()]);
    going.says("  pause ", PATIENCE);
    let supervisor = process::of_home(home.dir())
        .into_iter()
        .find(|pid| process::command_line(*pid).contains(" __lab "))
        .unwrap();
    process::signal(supervisor, Signal::KILL);
    let done = going.end_within(PATIENCE);
    assert!(matches!(done.code, 1 | 4 | 6), "{done:?}");
    assert_eq!(home.record()["restoration"]["verified"], true);
    home.assert_no_leftovers();
    home.assert_nothing_left();
}

#[test]
fn connections_that_a_fault_held_go_on_after_the_engine_is_killed() {
    if quick("held connections") {
        return;
    }
    let _turn = turns(1);
    let (home, lab) = standing();
    let mut going = home.start(&["inject", "relay-blackhole", "--instance", "auth-1", "--for", "60s"]);
    going.says("relay-blackhole", PATIENCE);
    let relay = lab.relay("auth-1");
    let held = std::thread::spawn(move || get(&relay, "/login", Duration::from_secs(8)));
    until("a held connection", Duration::from_secs(3), || {
        let listed = control(&lab.relays(), &json!({"op": "list"})).unwrap();
        let routes = listed["routes"].as_array().unwrap().clone();
        routes.iter().any(|r| r["name"] == "auth-1" && r["connections"] != 0).then_some(())
    });
    going.signal(Signal::KILL);
    going.end().code(137);
    let (status, _) = held.join().unwrap().unwrap();
    assert_eq!(status, 200, "what waited arrives");
    lab.assert_whole();
    lab.down(&home);
}
