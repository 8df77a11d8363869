//! The rate of a load is changed while it is sent, and whose limit a limit is.

use std::time::Duration;

use serde_json::Value;

use crate::support::server::Server;
use crate::support::wait::pass;
use crate::support::{Home, quick, turns, until};

/// How many requests were intended: the rate as it was written, changed at these times.
fn intended(written: f64, length_s: f64, changes: &[(f64, f64)]) -> f64 {
    let mut at = 0.0;
    let (mut rate, mut sum) = (written, 0.0);
    for (when, then) in changes {
        sum += rate * (when - at);
        (at, rate) = (*when, *then);
    }
    sum + rate * (length_s - at)
}

#[test]
fn a_load_is_doubled_paused_and_resumed_and_sends_exactly_what_was_intended() {
    let (_turn, home) = (turns(1), Home::new());
    let Some(server) = Server::nginx(&home) else { return };
    let (url, control) = (format!("http://{}/", server.address()), home.dir().join("control"));
    let socket = control.to_str().unwrap();
    let args = ["load", &url, "--rate", "400/s", "--for", "6s", "--control", socket, "--no-probe"];
    let going = home.start(&[&args[..], &["--json"]].concat());
    until("a control socket", Duration::from_secs(10), || control.exists().then_some(()));
    let turn = |to: &str| {
        pass(Duration::from_millis(700));
        let change = &home.json(&["rate", socket, to, "--json"])["changes"][0];
        (change["at_s"].as_f64().unwrap(), change["rate"].as_f64().unwrap())
    };
    let mut changes = vec![turn("x2"), turn("pause")];
    let wrong = home.squall(&["rate", socket, "faster"]).code(2);
    assert!(wrong.err.contains("x1.5, 500/s, pause or resume"), "{}", wrong.err);
    assert!(home.squall(&["rate", socket, "x2", "--load", "other"]).code(3).err.contains("no load `other`"));
    changes.extend([turn("resume"), turn("300/s"), turn("x1")]);
    assert!(home.squall(&["rate", socket, "resume"]).code(3).err.contains("not paused"));
    let done = going.end_within(Duration::from_secs(20)).code_or_hindered(0);
    let result: Value = serde_json::from_str(&done.out).unwrap();
    let wanted = intended(400.0, 6.0, &changes);
    let got = |name: &str| result[name].as_f64().unwrap();
    assert!((got("intended") - wanted).abs() <= 1.01, "{wanted}: {changes:?} {}", result["intended"]);
    assert_eq!((got("sent"), got("ok")), (got("intended"), got("intended")));
    assert_eq!(
        changes.iter().map(|(_, rate)| rate.round()).collect::<Vec<_>>(),
        [800.0, 0.0, 800.0, 300.0, 400.0]
    );
    assert_eq!(result["changes"].as_array().unwrap().len(), 5, "{}", result["changes"]);
    assert!(!control.exists());
    let ended = home.squall(&["rate", socket, "x2"]).code(2);
    assert!(!ended.err.is_empty());
    server.end();
    home.assert_nothing_left();
}

#[test]
fn the_rate_of_a_run_is_changed_and_its_journal_and_record_say_so() {
    if quick("the rate of a run") {
        return;
    }
    let (_turn, home) = (turns(1), Home::new());
    let Some(server) = Server::nginx(&home) else { return };
    let broken = home.dir().join("broken");
    let experiment = format!(
        "squall: v1\nexperiment: changed\nquestion: Does it matter?\nload:\n  - web:\n      open: {{url: \"http://{}/\", \
         arrivals: [{{hold: {{rate: 100/s, for: 10s}}}}]}}\nobjectives:\n  - web: {{availability: \">= 90%\"}}\n\
         timeline:\n  - at: 4s\n    for: 1s\n    faults:\n      - command: {{do: [touch, {file}], undo: [rm, -f, {file}], \
         effect: [test, -e, {file}]}}\n",
        server.address(),
        file = broken.display()
    );
    let file = home.file("changed.yaml", &experiment);
    assert!(home.squall(&["rate", "latest", "x2"]).code(2).err.contains("no run goes on"));
    let going = home.start(&["run", file.to_str().unwrap(), "--json"]);
    until("a run", Duration::from_secs(10), || {
        let folder = home.run_folders().pop()?;
        folder.join("rate.sock").exists().then_some(())
    });
    pass(Duration::from_millis(1500));
    let change = home.json(&["rate", "latest", "x3", "--json"])["changes"][0].clone();
    let done = going.end_within(Duration::from_secs(40));
    assert!(done.code == 0 || done.code == 6, "{done:?}");
    let folder = home.run_folders().pop().unwrap();
    let record: Value = serde_json::from_slice(&std::fs::read(folder.join("record.json")).unwrap()).unwrap();
    assert!(!folder.join("rate.sock").exists());
    let journal = std::fs::read_to_string(folder.join("journal.jsonl")).unwrap();
    assert!(journal.contains("\"factor\":3.0"), "{journal}");
    let events = record["events"].as_array().unwrap();
    let told = events.iter().find(|event| event["kind"] == "rate").unwrap();
    assert!(told["text"].as_str().unwrap().contains("3.000 times what was written"), "{told}");
    let wanted = intended(100.0, 10.0, &[(change["at_s"].as_f64().unwrap(), 300.0)]);
    assert!((record["generator"]["due"].as_f64().unwrap() - wanted).abs() <= 1.01, "{wanted}: {record:#}");
    server.end();
    home.assert_nothing_left();
}
