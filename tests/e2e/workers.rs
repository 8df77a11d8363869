//! Loads that other processes send: counts, losses, strangers, and who outlives whom.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::lifecycle::{MILD, experiment, finding};
use crate::sending::Known;
use crate::support::home::Going;
use crate::support::server::Server;
use crate::support::wait::pass;
use crate::support::{Home, process, quick, turns, unhindered, until};

const TOKEN: &str = "a-token-of-some-length";

/// The children of a coordinator.
fn children(home: &Home) -> Vec<u32> {
    let own = |pid: &u32| process::command_line(*pid).contains("__load-worker");
    process::of_home(home.dir()).into_iter().filter(own).collect()
}

/// A worker that listens, and where.
fn listening(home: &Home, token: &str) -> (Going, String) {
    let mut command = home.command();
    command.args(["worker", "--listen", "127.0.0.1:0"]).env("SQUALL_WORKER_TOKEN", token);
    let mut worker = home.start_as(command);
    worker.says("listening at ", Duration::from_secs(10));
    let story = worker.story();
    let at = story.split("listening at ").nth(1).unwrap().split(';').next().unwrap().to_owned();
    (worker, at)
}

/// A machine with no time to spare is patient, and nginx has connections enough: what is asked is whether all was sent.
const PATIENT: [&str; 6] = ["--deadline", "20s", "--connect-timeout", "20s", "--connections", "64"];

#[test]
fn four_processes_send_exactly_what_one_would() {
    let (_turn, home) = (turns(1), Home::new());
    let Some(server) = Server::nginx(&home) else { return };
    let url = format!("http://{}/", server.address());
    let args = ["load", &url, "--rate", "2000/s", "--for", "3s", "--workers", "4", "--json"];
    // Late is doubted (6), and all the same sent.
    let done = home.squall(&[&args[..], &PATIENT].concat()).code_or_hindered(0);
    let result: Value = serde_json::from_str(&done.out).unwrap();
    for field in ["intended", "sent", "ok"] {
        assert_eq!(result[field], 6000, "{field}: {result}");
    }
    assert_eq!(result["generator"]["workers"], 4);
    for series in ["response", "service", "lag"] {
        assert_eq!(result[series]["count"], 6000, "{series}: the distributions of all four are one");
    }
    let p50 = |series: &str| result[series]["p50_s"].as_f64().unwrap();
    assert!(p50("service") <= p50("response"), "{result}");
    assert!(result["reproduce"].as_str().unwrap().ends_with("--workers 4"));
    server.end();
    home.assert_nothing_left();
}

/// The number that stands before these words.
fn number_before(text: &str, words: &str) -> u64 {
    let before = text.split(words).next().unwrap().trim_end();
    before.rsplit(' ').next().unwrap().replace(',', "").parse().unwrap()
}

#[test]
fn what_a_lost_worker_leaves_undone_is_sent_by_the_others_and_what_is_missing_is_counted() {
    let (_turn, home) = (turns(1), Home::new());
    let Some(server) = Server::nginx(&home) else { return };
    let url = format!("http://{}/", server.address());
    let args = ["load", &url, "--rate", "600/s", "--for", "6s", "--workers", "3", "--json"];
    let mut going = home.start(&args);
    going.says("\"end_s\":2", Duration::from_secs(20));
    let victim = children(&home)[1];
    process::signal(victim, Signal::KILL);
    let done = going.end().code(6);
    let result: Value = serde_json::from_str(&done.out).unwrap();
    let lost = result["changes"][0]["text"].as_str().unwrap();
    assert!(lost.contains(&format!("(process {victim}) was lost after second")), "{result}");
    assert!(lost.contains("from then on the others sent it"), "{lost}");
    let missing = number_before(lost, " requests of its share");
    // Every request was intended, and what is not missing was sent: a third of the seconds around the loss, not of all after.
    assert_eq!(result["intended"], 3600, "{result}");
    assert_eq!(result["sent"].as_u64().unwrap() + missing, 3600, "{result}");
    assert_eq!(result["ok"], result["sent"], "{result}");
    assert!((1..=500).contains(&missing), "{lost}");
    // That is more than one of a thousand.
    let why = result["reasons"][0].as_str().unwrap();
    assert!(why.contains("was lost after second") && why.contains("of a phase"), "{why}");
    server.end();
    home.assert_nothing_left();
}

#[test]
fn the_last_worker_leaves_nobody_behind() {
    let (_turn, home) = (turns(1), Home::new());
    let Some(server) = Server::nginx(&home) else { return };
    let url = format!("http://{}/", server.address());
    let mut going = home.start(&["load", &url, "--rate", "100/s", "--for", "30s", "--workers", "1"]);
    going.says("   1 of 30 s", Duration::from_secs(20));
    process::signal(children(&home)[0], Signal::KILL);
    let done = going.end_within(Duration::from_secs(10)).code(6);
    assert!(done.out.replace('\n', " ").contains("nobody was left to send it"), "{}", done.out);
    server.end();
    home.assert_nothing_left();
}

#[test]
fn a_run_by_three_processes_concludes_what_one_alone_does() {
    if quick("runs by several processes") {
        return;
    }
    let (_turn, home) = (turns(2), Home::new());
    let file = home.file("run.yaml", &experiment("- process-kill: {service: auth}", ""));
    let run = |more: &[&str]| {
        let args = [&["run", file.to_str().unwrap(), "--seed", "7"][..], more].concat();
        home.clearly(|| home.squall(&args)).code(1);
        let record = home.record();
        std::fs::remove_dir_all(home.runs()).unwrap();
        record
    };
    let (alone, three) = (run(&[]), run(&["--workers", "3"]));
    for record in [&alone, &three] {
        assert_eq!(record["judgement"]["verdict"], "missed");
        assert_eq!(finding(record, "auth", "login"), "confirmed");
        assert_ne!(finding(record, "auth", "asset"), "confirmed");
        // Every request was sent, once: 40/s and 20/s for twelve seconds.
        assert_eq!(record["generator"]["due"], 720, "{}", record["generator"]);
        for (load, due) in [(0, 480), (1, 240)] {
            let phases = record["loads"][load]["phases"].as_array().unwrap();
            assert_eq!(phases.iter().map(|stats| stats["all"]["due"].as_u64().unwrap()).sum::<u64>(), due);
        }
        // Not one victim of the kill counts for the baseline, which was steady.
        let baseline = record["loads"][0]["phases"].as_array().unwrap().iter();
        let baseline = baseline.filter(|stats| stats["phase"] == "baseline");
        assert!(
            baseline.clone().all(|stats| stats["all"]["errors"] == json!({})),
            "{:?}",
            baseline.collect::<Vec<_>>()
        );
        let served = |name: &str| record["loads"][0]["phases"][1]["instances"][name].as_u64().unwrap_or(0);
        assert!(served("auth-1") > 0, "answers name who served them: {}", record["loads"][0]["phases"][1]);
    }
    assert_eq!((&alone["generator"]["workers"], &three["generator"]["workers"]), (&1.into(), &3.into()));
    assert!(three["reproduce"].as_str().unwrap().ends_with("--workers 3"));
    home.assert_nothing_left();
}

#[test]
fn a_worker_that_is_killed_in_a_run_is_told_in_journal_and_record() {
    if quick("a worker lost in a run") {
        return;
    }
    let (_turn, home) = (turns(2), Home::new());
    let file = home.file("run.yaml", &experiment(MILD, ""));
    let going = home.start(&["run", file.to_str().unwrap(), "--workers", "3"]);
    until("the baseline", Duration::from_secs(30), || {
        going.story().contains("baseline begins").then_some(())
    });
    pass(Duration::from_millis(1200));
    let victim = children(&home)[0];
    process::signal(victim, Signal::KILL);
    // The rate is changed after the loss: what was taken over changes with the rest.
    pass(Duration::from_millis(900));
    home.squall(&["rate", "latest", "x2"]).code(0);
    let done = going.end_within(Duration::from_secs(60)).code(6);
    assert!(done.out.contains("was lost after second"), "{}", done.out);
    let record = home.record();
    let told = record["events"].as_array().unwrap().iter().find(|event| event["kind"] == "worker").unwrap();
    let missing = number_before(told["text"].as_str().unwrap(), " requests of its share");
    let generator = &record["generator"];
    assert_eq!(
        generator["due"].as_u64().unwrap(),
        generator["sent"].as_u64().unwrap() + missing,
        "{generator}"
    );
    assert!((1..=60).contains(&missing), "{told}");
    let journal = std::fs::read_to_string(home.only_run().join("journal.jsonl")).unwrap();
    let entry = journal.lines().find(|line| line.contains("worker-lost") || line.contains("worker_lost"));
    assert!(entry.is_some_and(|line| line.contains(&victim.to_string())), "{journal}");
    home.assert_no_leftovers();
    home.assert_nothing_left();
}

#[test]
fn no_worker_outlives_a_run_that_is_killed() {
    if quick("a run with workers that is killed") {
        return;
    }
    let (_turn, home) = (turns(2), Home::new());
    let file = home.file("run.yaml", &experiment(MILD, ""));
    let mut going = home.start(&["run", file.to_str().unwrap(), "--workers", "3"]);
    going.says("fault begins", Duration::from_secs(60));
    assert_eq!(children(&home).len(), 3);
    going.signal(Signal::KILL);
    assert_eq!(going.end().code, 128 + 9);
    until("no worker", Duration::from_secs(5), || children(&home).is_empty().then_some(()));
    until("nothing left", Duration::from_secs(20), || process::of_home(home.dir()).is_empty().then_some(()));
    home.assert_nothing_left();
}

#[test]
fn a_search_keeps_its_workers_from_trial_to_trial() {
    if quick("a search by workers") {
        return;
    }
    let (_turn, home) = (turns(2), Home::new());
    let Some(known) = Known::new(4, 8) else { return };
    let (mut worker, at) = listening(&home, TOKEN);
    let mut elsewhere = 0;
    let mut search = |hands: &[&str]| {
        let args = [
            &[
                "capacity",
                known.url.as_str(),
                "--objective",
                "p95 <= 40ms",
                "--start",
                "300/s",
                "--trial",
                "4s",
            ][..],
            &["--confirm", "5s", "--width", "20%", "--no-collapse", "--json"],
            hands,
        ]
        .concat();
        let done = unhindered(|| {
            elsewhere += usize::from(hands[0] == "--worker");
            let mut command = home.command();
            command.args(&args).env("SQUALL_WORKER_TOKEN", TOKEN);
            home.start_as(command).end_within(Duration::from_secs(200))
        });
        let done = done.code(0);
        serde_json::from_str::<Value>(&done.out).unwrap()
    };
    for (hands, threads) in [(&["--workers", "2"][..], 2), (&["--worker", &at], 1)] {
        let document = search(hands);
        let finding = &document["finding"];
        let rate = |name: &str| finding[name].as_f64().unwrap();
        // Its truth is 500/s.
        assert!(rate("low") <= 510.0 && rate("high") >= 490.0, "{document:#}");
        assert_eq!(finding["limited_by"], "target", "{document:#}");
        let trials = document["trials"].as_array().unwrap();
        for trial in trials {
            let wanted = if trial["purpose"] == "proof" { 2 * threads } else { threads };
            assert_eq!(trial["seen"]["threads"], wanted, "{trial}");
        }
        assert_eq!(finding["proof"]["carried"], false, "{document:#}");
        assert!(document["calibration"]["rate"].as_f64().unwrap() > 2000.0, "{document:#}");
        assert!(document["asked"].as_str().unwrap().contains(hands[0]));
    }
    // One session for a whole search.
    worker.says(": done", Duration::from_secs(10));
    assert_eq!(worker.story().matches(": done").count(), elsewhere, "{}", worker.story());
    worker.signal(Signal::INT);
    worker.end().code(0);
    home.assert_nothing_left();
}

#[test]
fn a_rate_is_changed_for_all_workers_at_once() {
    let (_turn, home) = (turns(1), Home::new());
    let Some(server) = Server::nginx(&home) else { return };
    let (url, control) = (format!("http://{}/", server.address()), home.dir().join("control"));
    let socket = control.to_str().unwrap();
    let args =
        ["load", &url, "--rate", "300/s", "--for", "4s", "--control", socket, "--workers", "3", "--json"];
    let going = home.start(&[&args[..], &PATIENT].concat());
    until("a control socket", Duration::from_secs(10), || control.exists().then_some(()));
    let turn = |to: &str| {
        pass(Duration::from_millis(700));
        let change = &home.json(&["rate", socket, to, "--json"])["changes"][0];
        (change["at_s"].as_f64().unwrap(), change["rate"].as_f64().unwrap())
    };
    let changes = [turn("x2"), turn("pause"), turn("resume")];
    let done = going.end_within(Duration::from_secs(45)).code_or_hindered(0);
    let result: Value = serde_json::from_str(&done.out).unwrap();
    let (mut at, mut rate, mut wanted) = (0.0, 300.0, 0.0);
    for (when, then) in changes.into_iter().chain([(4.0, 0.0)]) {
        wanted += rate * (when - at);
        (at, rate) = (when, then);
    }
    let intended = result["intended"].as_f64().unwrap();
    assert!((intended - wanted).abs() <= 1.01, "{wanted}: {changes:?} {intended}");
    assert_eq!(result["ok"], result["intended"], "{result}");
    server.end();
    home.assert_nothing_left();
}

#[test]
fn idle_strangers_make_room_and_a_worker_sends_to_nobody_it_may_not() {
    let (_turn, home) = (turns(1), Home::new());
    let Some(server) = Server::nginx(&home) else { return };
    let (worker, at) = listening(&home, TOKEN);
    let strangers: Vec<TcpStream> = (0..50).map(|_| TcpStream::connect(&at).unwrap()).collect();
    let load = |url: &str, more: &[&str]| {
        let mut command = home.command();
        command.args(["load", url, "--rate", "50/s", "--for", "1s", "--worker", &at]).args(more);
        command.env("SQUALL_WORKER_TOKEN", TOKEN);
        home.start_as(command).end()
    };
    load(&format!("http://{}/", server.address()), &[]).code_or_hindered(0);
    drop(strangers);
    // Whatever the coordinator may.
    let done = load("http://192.0.2.1/", &["--allow-host", "192.0.2.1"]).code(3);
    assert!(done.err.contains("squall worker --allow-host 192.0.2.1"), "{}", done.err);
    worker.signal(Signal::INT);
    worker.end().code(0);
    let file = home.file("run.yaml", &experiment(MILD, ""));
    let file = file.to_str().unwrap();
    for (args, code, says) in [
        (&["run", file, "--worker", "192.0.2.1:9"][..], 2, "the worker's own machine"),
        (&["run", file, "--worker", "127.0.0.1:1"], 3, "no connection"),
        (&["run", "scenarios/shoppers.yaml", "--workers", "2"], 2, "users of a journey"),
        (&["run", file, "--workers", "2", "--worker", "127.0.0.1:1"], 2, "cannot be used with"),
    ] {
        let done = home.squall(args).code(code);
        assert!(done.err.contains(says), "{args:?}: {}", done.err);
    }
    server.end();
    home.assert_nothing_left();
}

#[test]
fn no_worker_outlives_its_coordinator() {
    if quick("workers whose coordinator is killed") {
        return;
    }
    let (_turn, home) = (turns(1), Home::new());
    let Some(server) = Server::nginx(&home) else { return };
    let url = format!("http://{}/", server.address());
    let mut going = home.start(&["load", &url, "--rate", "400/s", "--for", "60s", "--workers", "3"]);
    going.says("   1 of 60 s", Duration::from_secs(20));
    assert_eq!(children(&home).len(), 3);
    going.signal(Signal::KILL);
    assert_eq!(going.end().code, 128 + 9);
    until("no worker", Duration::from_secs(5), || children(&home).is_empty().then_some(()));
    // ^C ends them in peace.
    let mut going = home.start(&["load", &url, "--rate", "400/s", "--for", "60s", "--workers", "2"]);
    going.says("   1 of 60 s", Duration::from_secs(20));
    going.signal(Signal::INT);
    let done = going.end_within(Duration::from_secs(10)).code(4);
    assert!(done.out.contains("ended by the operator") && !done.out.contains("lost"), "{}", done.out);
    server.end();
    home.assert_nothing_left();
}

#[test]
fn a_worker_elsewhere_stops_by_its_own_lease() {
    if quick("a worker's lease") {
        return;
    }
    let (_turn, home) = (turns(1), Home::new());
    let Some(server) = Server::nginx(&home) else { return };
    let url = format!("http://{}/", server.address());
    let (mut worker, at) = listening(&home, TOKEN);
    let coordinator = |length: &str| {
        let mut command = home.command();
        command.args(["load", &url, "--rate", "300/s", "--for", length, "--worker", &at]);
        command.env("SQUALL_WORKER_TOKEN", TOKEN);
        home.start_as(command)
    };
    coordinator("2s").end().code_or_hindered(0);
    let mut going = coordinator("60s");
    going.says("   1 of 60 s", Duration::from_secs(20));
    // While it serves one, another is told so.
    let done = coordinator("2s").end().code(3);
    assert!(done.err.contains("it is sending another load"), "{}", done.err);
    // Stopped, it hangs up nothing: only the lease tells.
    going.signal(Signal::STOP);
    worker.says("it said nothing for 5 s", Duration::from_secs(15));
    going.signal(Signal::CONT);
    let done = going.end().code(6);
    assert!(done.out.replace('\n', " ").contains("was lost after second"), "{}", done.out);
    // It serves the next.
    coordinator("2s").end().code_or_hindered(0);
    worker.signal(Signal::INT);
    worker.end().code(0);
    server.end();
    home.assert_nothing_left();
}

#[test]
fn strangers_are_answered_in_time_and_get_nothing() {
    let (_turn, home) = (turns(1), Home::new());
    let (worker, at) = listening(&home, TOKEN);
    let answer = |bytes: &[u8]| {
        let mut socket = TcpStream::connect(&at).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        socket.write_all(bytes).unwrap();
        let (began, mut said) = (Instant::now(), Vec::new());
        // Ends with its hanging up.
        let _ = socket.read_to_end(&mut said);
        assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
        String::from_utf8_lossy(&said).into_owned()
    };
    let framed = |text: &str| [&(text.len() as u32).to_be_bytes()[..], text.as_bytes()].concat();
    let nonce = "A".repeat(43) + "=";
    let hello =
        |version: u32| framed(&format!(r#"{{"word":"hello","protocol":{version},"nonce":"{nonce}"}}"#));
    let guess = framed(r#"{"word":"proof","proof":"AAAA"}"#);
    let says = |bytes: &[u8], text: &str| {
        let said = answer(bytes);
        assert!(said.contains("refused") && said.contains(text), "{said}");
        assert!(!said.contains(TOKEN));
    };
    // All at once: the silent ones take the five seconds that they are given.
    std::thread::scope(|scope| {
        scope.spawn(|| says(b"", "it said nothing for 5 s"));
        scope.spawn(|| says(&hello(3)[..30], "it said nothing for 5 s"));
        scope.spawn(|| says(&hello(3), "it said nothing for 5 s"));
        scope.spawn(|| says(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", "a frame of"));
        scope.spawn(|| says(&framed("{}"), "no word that is known"));
        scope.spawn(|| says(&framed(r#"{"word":"renew"}"#), "that was no hello"));
        scope.spawn(|| says(&hello(1), "version 1 of the protocol"));
        scope.spawn(|| says(&[hello(3), guess.clone()].concat(), "its token is another one"));
    });
    let url = "http://127.0.0.1:1/";
    let load = |token: &str| {
        let mut command = home.command();
        command.args(["load", url, "--rate", "5/s", "--for", "1s", "--worker", &at]);
        home.start_as({
            command.env("SQUALL_WORKER_TOKEN", token);
            command
        })
    };
    let done = load("another-token-of-length").end().code(3);
    assert!(done.err.contains("its token is another one"), "{}", done.err);
    // Nobody answers at port 1, but it is sent all the same: the worker is as good as new.
    assert!(load(TOKEN).end().code(6).out.contains("refused"));
    worker.signal(Signal::INT);
    worker.end().code(0);
    for (args, code, says) in [
        (&["worker", "--listen", "0.0.0.0:0"][..], 2, "--token-file"),
        (&["worker", "--listen", "nonsense"], 2, "write it as"),
        (&["worker", "--token-file", "/nowhere"], 2, "/nowhere"),
        (&["load", url, "--rate", "5/s", "--for", "1s", "--worker", "127.0.0.1:1"], 3, "no connection"),
        (&["load", url, "--rate", "5/s", "--for", "1s", "--workers", "65"], 2, "1..=64"),
        (
            &["load", url, "--rate", "5/s", "--for", "1s", "--workers", "4", "--connections", "2"],
            2,
            "cannot share 2",
        ),
    ] {
        let done = home.squall(args).code(code);
        assert!(done.err.contains(says), "{args:?}: {}", done.err);
    }
    home.assert_nothing_left();
}
