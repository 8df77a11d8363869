//! Runs that do not reach their end: guards, the operator, and refusals before the start.

use std::time::Duration;

use rustix::process::Signal;

use super::{MILD, PATIENCE, standing, unjudged};
use crate::support::{Home, quick, turns, until, wait};

/// The undo of this one takes two seconds. `@` stands for a folder.
const SLOW: &str = "- command: {do: [touch, \"@/broken\"], undo: [sh, -c, \"sleep 2; rm -f @/broken\"], effect: [test, -e, \"@/broken\"]}";

#[test]
fn a_guard_aborts_and_everything_is_restored() {
    if quick("guard") {
        return;
    }
    let _turn = turns(1);
    let (home, lab) = standing();
    let guard = "guards:\n  - abort: {when: \"errors of login > 50% for 1s\"}\n";
    let text = unjudged("- http-abort: {service: auth, status: 503, share: 100%}", guard);
    let done = home.run(&text).code(4);
    assert!(done.err.contains("aborted by guard"), "{}", done.err);
    lab.assert_whole();
    let record = home.record();
    assert_eq!(record["restoration"]["verified"], true);
    assert!(record["restoration"]["seconds"].as_f64().unwrap() < 0.5, "{}", record["restoration"]);
    assert!(record["guards"][0]["tripped_s"].as_f64().unwrap() > 4.0, "{}", record["guards"]);
    lab.down(&home);
}

#[test]
fn the_first_interrupt_aborts_and_restores_and_writes_the_report() {
    let _turn = turns(1);
    let (home, lab) = standing();
    let file = home.file("run.yaml", &unjudged("- process-pause: {service: auth}", ""));
    let mut going = home.start(&["run", file.to_str().unwrap()]);
    going.says("  pause ", PATIENCE);
    going.signal(Signal::INT);
    let done = going.end_within(Duration::from_secs(10)).code(4);
    assert!(done.err.contains("aborted by operator"), "{}", done.err);
    assert!(lab.is_whole());
    assert!(home.only_run().join("report.html").exists());
    assert_eq!(home.record()["judgement"]["exit"], 4);
    lab.down(&home);
}

#[test]
fn an_interrupt_before_the_fault_injects_nothing() {
    if quick("early interrupt") {
        return;
    }
    let _turn = turns(1);
    let home = Home::new();
    let file = home.file("run.yaml", &unjudged(MILD, ""));
    let mut going = home.start(&["run", file.to_str().unwrap()]);
    going.says("baseline begins", PATIENCE);
    going.signal(Signal::TERM);
    going.end_within(Duration::from_secs(10)).code(4);
    assert!(home.record()["injections"][0]["applied_s"].is_null());
    home.assert_nothing_left();
}

#[test]
fn the_second_interrupt_still_restores() {
    if quick("second interrupt") {
        return;
    }
    let _turn = turns(1);
    let home = Home::new();
    let text = unjudged(&SLOW.replace('@', home.dir().to_str().unwrap()), "");
    let file = home.file("run.yaml", &text);
    let mut going = home.start(&["run", file.to_str().unwrap()]);
    going.says("run `touch", PATIENCE);
    going.signal(Signal::INT);
    going.says("aborted by operator", PATIENCE);
    going.signal(Signal::INT);
    going.says("again", PATIENCE);
    going.end_within(Duration::from_secs(12)).code(4);
    assert!(!home.dir().join("broken").exists());
    home.assert_no_leftovers();
    home.assert_nothing_left();
}

#[test]
fn the_third_interrupt_leaves_the_rest_to_the_guardian() {
    if quick("third interrupt") {
        return;
    }
    let _turn = turns(1);
    let home = Home::new();
    let text = unjudged(&SLOW.replace('@', home.dir().to_str().unwrap()), "");
    let file = home.file("run.yaml", &text);
    let mut going = home.start(&["run", file.to_str().unwrap()]);
    going.says("run `touch", PATIENCE);
    for said in ["aborted by operator", "again", "a third time"] {
        going.signal(Signal::INT);
        going.says(said, PATIENCE);
    }
    // What the engine has not seen restored, it must not call restored.
    let done = going.end_within(Duration::from_secs(10)).code(5);
    assert!(done.err.contains("squall recover"), "{}", done.err);
    let broken = home.dir().join("broken");
    until("the guardian's undo", Duration::from_secs(8), || (!broken.exists()).then_some(()));
    home.assert_nothing_left();
    home.assert_no_leftovers();
}

#[test]
fn an_ad_hoc_fault_ends_at_an_interrupt() {
    let _turn = turns(1);
    let (home, lab) = standing();
    let mut going = home.start(&["inject", "process-pause", "--service", "auth", "--for", "60s"]);
    going.says("  pause ", PATIENCE);
    lab.assert_broken();
    going.signal(Signal::INT);
    let done = going.end_within(Duration::from_secs(5));
    assert!(matches!(done.code, 0 | 4), "{done:?}");
    assert!(lab.is_whole());
    lab.down(&home);
}

#[test]
fn leftovers_refuse_the_next_run_and_say_what_to_type() {
    let _turn = turns(1);
    let (home, lab) = standing();
    let crash =
        ["inject", "process-pause", "--service", "auth", "--for", "1s", "--crash-at", "applied:kill-both"];
    home.squall(&crash).code(137);
    lab.assert_broken();
    let before = home.run_folders();
    let done = home.run(&unjudged(MILD, "")).code(3);
    let run = before[0].file_name().unwrap().to_str().unwrap();
    assert!(done.err.contains(&format!("squall recover --run {run}")), "{}", done.err);
    assert_eq!(home.run_folders(), before, "a refused run leaves no folder");
    home.squall(&["doctor"]).code(3);
    home.squall(&["recover"]).code(0);
    lab.assert_whole();
    home.squall(&["doctor"]).code(0);
    lab.down(&home);
}

#[test]
fn of_two_runs_against_one_target_only_the_first_breaks_it() {
    if quick("two runs") {
        return;
    }
    let _turn = turns(2);
    let (home, lab) = standing();
    let file = home.file("run.yaml", &unjudged("- process-pause: {service: kv}", ""));
    let mut first = home.start(&["run", file.to_str().unwrap()]);
    first.says("baseline begins", PATIENCE);
    wait::pass(Duration::from_secs(1));
    let second = home.start(&["run", file.to_str().unwrap()]).end_within(PATIENCE).code(4);
    let why = ["another run holds", "stopped already, by somebody else"];
    assert!(why.iter().any(|why| second.err.contains(why)), "{}", second.err);
    let first = first.end_within(PATIENCE);
    // kv is optional: whether that is enough is not what is asked here.
    assert!(matches!(first.code, 0 | 1), "{first:?}");
    lab.assert_whole();
    home.assert_no_leftovers();
    lab.down(&home);
}

#[test]
fn what_an_operator_leaves_to_the_guardian_is_listed_and_blocks_the_next_fault_until_it_is_undone() {
    if quick("left to the guardian") {
        return;
    }
    let _turn = turns(1);
    let home = Home::new();
    let (mark, tries) = (home.dir().join("broken"), home.dir().join("tries"));
    let (mark, tries) = (mark.to_str().unwrap(), tries.to_str().unwrap());
    let slow = format!("echo x >> {tries}; [ $(wc -l < {tries}) -gt 2 ] || sleep 4; rm -f {mark}");
    let undo = home.file("undo.sh", &slow);
    let words =
        ["inject", "command", "--for", "60s", "--do", "touch", "--do", mark, "--undo", "sh", "--undo"];
    let effect = [undo.to_str().unwrap(), "--effect", "test", "--effect", "-e", "--effect", mark];
    let inject: Vec<&str> = words.into_iter().chain(effect).collect();
    let mut going = home.start(&inject);
    going.says("run `touch", PATIENCE);
    for word in ["SIGINT: restoring\n", "SIGINT: restoring at once"] {
        going.signal(Signal::INT);
        going.says(word, PATIENCE);
    }
    going.signal(Signal::INT);
    let done = going.end().code(5);
    assert!(done.err.contains("to restore it: squall recover --run"), "{}", done.err);
    let listed = home.json(&["recover", "--list", "--json"]);
    assert_eq!(listed["runs"][0]["guarded"], true, "{listed}");
    let refused = home.squall(&inject).code(3);
    assert!(refused.err.contains("its guardian is still restoring"), "{}", refused.err);
    until("the guardian's work", Duration::from_secs(20), || {
        home.json(&["recover", "--list", "--json"])["runs"].as_array().unwrap().is_empty().then_some(())
    });
    assert!(!std::path::Path::new(mark).exists());
    home.assert_nothing_left();
}
