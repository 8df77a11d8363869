//! The capacity of an experiment, alone and with something broken, on a lab whose truth is known: two workers of each of
//! three PoPs that take 40 ms are 150/s, and 100/s without one of them.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{Done, Home, Lab, quick, turns, unhindered, until};

/// How the lab is made so small, as options of `lab up`.
const SMALL: [&str; 4] = ["--service-time", "edge=40ms", "--retries", "0"];
/// Short searches: a queue that is full answers 503 at once, so trials need not wait for what piles up.
const SHORT: [&str; 8] = ["--trial", "2s", "--confirm", "3s", "--width", "20%", "--no-calibrate", "--json"];
/// Longer than all searches of a test take on a busy host.
const PATIENCE: Duration = Duration::from_secs(400);

/// The load of a lab of known capacity; `more` is appended.
fn experiment(more: &str) -> String {
    format!(
        r#"# How much is carried?
squall: v1
experiment: small
question: How much is carried?
lab: {{edge: {{service-time: {{edge: 40ms}}, retries: 0}}}}
load:
  - asset:
      open: {{url: "http://${{lab.edge}}/asset/logo", arrivals: [{{hold: {{rate: 80/s, for: 30s}}}}]}}
  - browse:
      open: {{url: "http://${{lab.edge}}/browse", arrivals: [{{hold: {{rate: 10/s, for: 30s}}}}]}}
  - shop:
      sessions: {{arrivals: [{{hold: {{rate: 1/s, for: 30s}}}}], journey: {{base: "http://${{lab.edge}}", steps: [{{look: {{path: /login}}}}]}}}}
objectives:
  - asset: {{availability: ">= 97%", p95: "<= 400ms", throughput: ">= 5/s"}}
timeline:
  - {{at: 20s, for: 5s, faults: [{{process-kill: {{instance: kv-1}}}}]}}
  - {{at: 10s, for: 5s, faults: [{{process-kill: {{instance: edge-fra}}}}]}}
{more}"#
    )
}

impl Home {
    fn capacity(&self, file: &str, more: &[&str]) -> (i32, Value, Done) {
        let args = [&["capacity", file, "--load", "asset"][..], &SHORT, more].concat();
        let done = unhindered(|| self.start(&args).end_within(PATIENCE));
        let document = serde_json::from_str(&done.out).unwrap_or_else(|error| panic!("{error}: {done:?}"));
        (done.code, document, done)
    }
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// Fails unless this is what is carried, within what a busy machine takes from it.
#[track_caller]
fn carries(finding: &Value, truth: f64) {
    assert_eq!(finding["limited_by"], "target", "{finding:#}");
    let (low, high) = (number(&finding["low"]), number(&finding["high"]));
    assert!(low <= truth * 1.08 && high >= truth * 0.85, "{truth}/s: {finding:#}");
}

#[test]
fn with_any_one_of_three_pops_down_a_third_of_the_capacity_is_lost() {
    if quick("the capacity at N-1") {
        return;
    }
    let (_turn, home) = (turns(3), Home::new());
    let file = home.file("small.yaml", &experiment(""));
    let file = file.to_str().unwrap();
    let (code, document, done) =
        home.capacity(file, &["--no-timeline", "--n-1", "pop", "--at-least", "120/s"]);
    carries(&document["finding"], 150.0);
    let rows = document["under"].as_array().unwrap();
    assert_eq!(rows.len(), 3, "{document:#}");
    for row in rows {
        carries(&row["finding"], 100.0);
        let lost = |name: &str| number(&row["lost"][name]);
        // The interval covers the third; how far beyond it may lie is what this machine was busy with.
        assert!(lost("low") <= 0.34 && lost("high") >= 0.3, "{row:#}");
        assert!((lost("share") - 1.0 / 3.0).abs() < 0.15, "{row:#}");
        let proof = &row["proof"][0];
        assert_eq!((&proof["status"], &proof["undo"]), (&"confirmed".into(), &"restored".into()), "{row:#}");
        assert_eq!((&row["kind"], &row["finding"]["fails_first"]), (&"pop".into(), &"availability".into()));
    }
    let shares: Vec<f64> = rows.iter().map(|row| number(&row["lost"]["share"])).collect();
    assert!(shares.is_sorted_by(|a, b| a >= b), "the worst comes first: {shares:?}");
    // 100/s are too few for 120/s, and enough for the 80/s that the experiment sends.
    assert_eq!(code, 1, "{document:#}");
    let worst = &document["worst"];
    assert_eq!(number(&worst["demand"]), 80.0);
    assert!((number(&worst["headroom"]) - 20.0).abs() < 15.0, "{worst:#}");
    let reasons = document["reasons"].to_string();
    assert!(reasons.contains("only asset was sent, not browse, shop"), "{reasons}");
    assert!(reasons.contains("throughput >= 5/s was not asked for"), "{reasons}");
    assert!(done.err.contains("\"purpose\":\"bracket\""), "{}", done.err);
    home.assert_nothing_left();
    home.assert_no_leftovers();
}

#[test]
fn a_fault_of_the_timeline_lives_as_long_as_its_search_and_no_longer_whoever_ends_it() {
    if quick("the capacity under a fault of the timeline") {
        return;
    }
    let (_turn, home) = (turns(3), Home::new());
    // It stands, so that it is seen afterwards.
    let up = [&["lab", "up", "--json"][..], &SMALL].concat();
    let lab = Lab::of(home.json(&up));
    let file = home.file("small.yaml", &experiment(""));
    let file = file.to_str().unwrap();
    // By time, the one of edge-fra is the first.
    let (code, document, done) = home.capacity(file, &["--only", "1"]);
    assert_eq!(code, 0, "{document:#}");
    carries(&document["finding"], 150.0);
    let rows = document["under"].as_array().unwrap();
    assert_eq!((rows.len(), &rows[0]["what"]), (1, &"1: process-kill on edge-fra".into()), "{document:#}");
    carries(&rows[0]["finding"], 100.0);
    assert!(lab.is_whole());
    // What was found alone is resumed; another experiment is another search.
    let alone = home.file("alone.json", &done.out);
    let resume = ["--only", "1", "--resume", alone.to_str().unwrap()];
    let other = home.file("other.yaml", &experiment("recover-within: 7s\n"));
    let (code, refused, _) = home.capacity(other.to_str().unwrap(), &resume);
    assert!(code == 2 && refused["error"].to_string().contains("another search"), "{refused}");
    let again = [&["capacity", file, "--load", "asset"][..], &SHORT[..7], &resume].concat();
    for (signal, code) in [(Signal::KILL, 137), (Signal::INT, 4)] {
        let mut going = home.start(&again);
        going.says("bracket", Duration::from_secs(40));
        assert_eq!(lab.pid("edge-fra"), None, "{}", going.story());
        going.signal(signal);
        until("an instance that is back", Duration::from_secs(5), || lab.pid("edge-fra"));
        let done = going.end().code(code);
        assert!(code != 4 || done.out.contains("the fault was put back"), "{done:?}");
        home.squall(&["recover"]).code(0);
        lab.assert_whole();
    }
    home.assert_no_leftovers();
    lab.down(&home);
}

#[test]
fn a_guard_ends_the_search_and_an_experiment_with_guards_is_not_overloaded_on_purpose() {
    if quick("a guard of a capacity") {
        return;
    }
    let (_turn, home) = (turns(1), Home::new());
    let guard = "guards:\n  - abort: {when: \"errors of asset > 5% for 1s\"}\n";
    let file = home.file("small.yaml", &experiment(guard));
    let (code, document, _) = home.capacity(file.to_str().unwrap(), &["--only", "2"]);
    assert_eq!(code, 4, "{document:#}");
    let reasons = document["reasons"].to_string();
    assert!(reasons.contains("the guard `errors of asset > 5% for 1s` ended it"), "{reasons}");
    assert!(reasons.contains("1 of 1 searches under a fault were not made"), "{reasons}");
    assert_eq!(
        (document["under"].as_array().unwrap().len(), &document["goal"]["collapse"]),
        (0, &false.into())
    );
    home.assert_nothing_left();
}

#[test]
fn a_server_that_always_fails_is_told_soon_and_with_its_reason() {
    if quick("a server that always fails") {
        return;
    }
    let (_turn, home) = (turns(1), Home::new());
    let port = crate::support::server::free_port();
    let url = format!("http://127.0.0.1:{port}/");
    let args = ["capacity", &url, "--objective", "availability >= 99%", "--no-calibrate", "--json"];
    let identity = ["--cert", "/dev/null", "--key", "/dev/null"];
    let done = home.squall(&[&args[..], &identity].concat()).code(2);
    assert!(done.err.contains("--cert has no effect on http: there is no TLS"), "{}", done.err);
    let done = home.squall(&args).code(1);
    let document: Value = serde_json::from_str(&done.out).unwrap();
    assert_eq!(document["trials"].as_array().unwrap().len(), 2, "{document:#}");
    let why = document["finding"]["why"].to_string();
    assert!(why.contains("not even 1.0/s is carried") && why.contains("× refused"), "{why}");
}

#[test]
fn what_cannot_be_searched_is_refused_before_anything_is_started() {
    let home = Home::new();
    let file = home.file("small.yaml", &experiment(""));
    let file = file.to_str().unwrap();
    let bare =
        home.file("bare.yaml", &experiment("").replace("objectives:\n  - asset", "objectives:\n  - browse"));
    let bare = bare.to_str().unwrap();
    for (args, says) in [
        (&["capacity", file][..], "several loads: say which by --load (asset, browse)"),
        (&["capacity", file, "--load", "aset"], "there is no load `aset`"),
        (&["capacity", file, "--load", "shop"], "is a journey"),
        (&["capacity", file, "--load", "browse"], "has no objective"),
        (&["capacity", file, "--load", "asset", "--only", "kill"], "no such fault"),
        (&["capacity", file, "--load", "asset", "--n-1", "rack"], "there are instance, zone and pop"),
        (&["capacity", file, "--load", "asset", "--method", "PUT"], "leave out --method"),
        (&["capacity", file, "--load", "asset", "--under", "process-pause --port 1"], "--under is for a URL"),
        (&["capacity", file, "--load", "asset", "--max", "100/s", "--at-least", "200/s"], "beyond --max"),
        (&["capacity", file, "--load", "asset", "--set", "x=1"], "stands nowhere"),
        (&["capacity", bare, "--load", "asset"], "has no objective"),
        (&["capacity", "/nowhere.yaml"], "cannot be read"),
        (&["capacity", "http://127.0.0.1:1/", "--objective", "p99 <= 1s", "--n-1", "pop"], "this is a URL"),
    ] {
        let done = home.squall(args).code(2);
        assert!(done.err.contains(says), "{args:?}: {}", done.err);
    }
    assert!(home.run_folders().is_empty());
    home.assert_nothing_left();
}
