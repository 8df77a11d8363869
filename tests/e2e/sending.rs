//! One load by itself, and the search for a capacity, against nginx and a server whose capacity is known.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use injectors::sys::cgroup::{Cgroups as _, Controller, Version, host::Kernel};
use rustix::process::Signal;
use serde_json::Value;

use crate::support::server::Server;
use crate::support::{Home, process, quick, root, skipped, turns, unhindered, until};

/// The server of known capacity; ends with its stdin.
pub(crate) struct Known {
    pub(crate) url: String,
    child: Child,
    stdin: Option<ChildStdin>,
}

impl Known {
    pub(crate) fn new(workers: u32, service_ms: u32) -> Option<Self> {
        let script = root().join("tests/bench.d/known.py");
        let mut command = Command::new("python3");
        command.arg(script).arg("0").arg(workers.to_string()).arg(service_ms.to_string());
        let Ok(mut child) = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn() else {
            skipped("python3 is not installed: apt-get install python3");
            return None;
        };
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let stdin = child.stdin.take();
        Some(Self { url: format!("http://127.0.0.1:{}/", line.trim()), child, stdin })
    }

    fn port(&self) -> u16 {
        self.url.trim_end_matches('/').rsplit_once(':').unwrap().1.parse().unwrap()
    }
}

impl Drop for Known {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _ = self.child.wait();
    }
}

#[test]
fn a_load_that_cannot_be_sent_is_refused_with_the_way_out() {
    let home = Home::new();
    for (args, says) in [
        (&["load", "http://127.0.0.1:1/"][..], "say how fast and for how long"),
        (&["load", "http://127.0.0.1:1/", "--rate", "5", "--for", "1s"], "write 5/s"),
        (&["load", "http://192.0.2.1/", "--rate", "5/s", "--for", "1s"], "--allow-host 192.0.2.1"),
        (&["load", "127.0.0.1:1", "--rate", "5/s", "--for", "1s"], "URL"),
        (&["load", "http://127.0.0.1:1/", "--profile", "storm"], "smoke, soak, stress, spike, breakpoint"),
        (
            &["load", "http://127.0.0.1:1/", "--profile", "smoke", "--objective", "p99 < 1s"],
            "neither >= nor <=",
        ),
        (
            &["load", "http://127.0.0.1:1/", "--profile", "smoke", "--objective", "speed <= 1s"],
            "names nothing",
        ),
        (&["load", "http://127.0.0.1:1/", "--profile", "smoke", "--header", "token"], "no colon"),
        (&["load", "http://127.0.0.1:1/", "--profile", "smoke", "--body", "@/nowhere"], "/nowhere"),
        (
            &["load", "http://127.0.0.1:1/", "--profile", "smoke", "--html", "/nowhere/page.html"],
            "the page cannot be written",
        ),
        (&["capacity", "http://127.0.0.1:1/"], "say what must hold"),
        (
            &["capacity", "http://127.0.0.1:1/", "--objective", "p99 <= 1s", "--max", "1/s"],
            "--max is below --start",
        ),
        (
            &["capacity", "http://127.0.0.1:1/", "--objective", "p99 <= 1s", "--resume", "/nowhere"],
            "/nowhere",
        ),
        (&["load", "http://127.0.0.1:1/", "--find"], "say what must hold"),
        (&["load", "http://127.0.0.1:1/", "--find", "--rate", "5/s"], "cannot be used with"),
        (&["load", "http://127.0.0.1:1/", "--find", "--profile", "smoke"], "cannot be used with"),
        (&["load", "http://127.0.0.1:1/", "--find", "--for", "5s"], "cannot be used with"),
    ] {
        let done = home.squall(args).code(2);
        assert!(done.err.contains(says), "{args:?}: {}", done.err);
        assert!(!done.err.contains("token"), "a header may be secret: {}", done.err);
    }
    home.assert_nothing_left();
}

#[test]
fn a_load_sends_what_was_intended_and_shows_three_series() {
    let (_turn, home) = (turns(1), Home::new());
    let Some(server) = Server::nginx(&home) else { return };
    let url = format!("http://{}/?token=hush-hush", server.address());
    let args =
        ["load", &url, "--rate", "2000/s", "--for", "3s", "--header", "authorization: Bearer hush-hush"];
    let done = home.squall(&[&args[..], &["--objective", "availability >= 99%", "--json"]].concat()).code(0);
    let result: Value = serde_json::from_str(&done.out).unwrap();
    assert_eq!(
        (&result["intended"], &result["sent"], &result["ok"]),
        (&6000.into(), &6000.into(), &6000.into())
    );
    let p50 = |series: &str| result[series]["p50_s"].as_f64().unwrap();
    assert!(p50("service") <= p50("response") && p50("response") < 0.1, "{result}");
    assert_eq!((&result["lag"]["count"], &result["verdict"]), (&6000.into(), &"held".into()));
    assert!(!done.out.contains("hush-hush") && !done.err.contains("hush-hush"), "{done:?}");
    let text = home.squall(&["load", &url, "--profile", "smoke", "--rate", "50/s", "--for", "2s"]).code(0);
    for word in
        ["intended 100", "response", "p99.9", "generator kept up", "no objective was given", "(smoke)"]
    {
        assert!(text.out.contains(word), "{word} is missing: {}", text.out);
    }
    assert!(text.out.lines().all(|line| line.chars().count() <= 120), "{}", text.out);
    server.end();
    // Nobody answers now: that is no success.
    let done = home.squall(&["load", &url, "--rate", "50/s", "--for", "1s"]).code(6);
    assert!(done.out.contains("refused") && done.out.contains("not one request"), "{}", done.out);
    home.assert_nothing_left();
}

/// The interpreter that has HdrHistogram's package, as `tests/run` installs it, or else the system's.
fn with_hdrhistogram() -> Option<String> {
    let python = std::env::var("SQUALL_HDR_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let tried = Command::new(&python).args(["-c", "import hdrh"]).output();
    if tried.is_ok_and(|done| done.status.success()) {
        return Some(python);
    }
    skipped("HdrHistogram's package is not installed: pip install hdrhistogram");
    None
}

#[test]
fn hdrhistograms_own_package_reads_the_log_and_finds_the_same() {
    let (_turn, home) = (turns(1), Home::new());
    let (Some(python), Some(known)) = (with_hdrhistogram(), Known::new(4, 2)) else { return };
    let (log, page) = (home.dir().join("load.hlog"), home.dir().join("load.html"));
    let (written, drawn) = (log.to_str().unwrap(), page.to_str().unwrap());
    let began = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
    let args = ["load", &known.url, "--rate", "500/s", "--for", "3s", "--objective", "p99 <= 1s"];
    let done = home.squall(&[&args[..], &["--log", written, "--html", drawn, "--json"]].concat()).code(0);
    let said: Value = serde_json::from_str(&done.out).unwrap();
    let script = root().join("tests/e2e/sending/read_log.py");
    let read = Command::new(python).arg(script).arg(&log).output().unwrap();
    assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    let read: Value = serde_json::from_slice(&read.stdout).unwrap();
    let response = &said["response"];
    assert_eq!((&read["count"], &read["count"]), (&response["count"], &1500.into()));
    for (theirs, ours) in
        [("p50", "p50_s"), ("p90", "p90_s"), ("p99", "p99_s"), ("p99.9", "p99_9_s"), ("max", "max_s")]
    {
        assert_eq!(read[theirs], response[ours], "{theirs}: {read}, {response}");
    }
    let (theirs, ours) = (read["mean"].as_f64().unwrap(), response["mean_s"].as_f64().unwrap());
    assert!((theirs / ours - 1.0).abs() < 1e-3, "{theirs}, {ours}");
    let starts: Vec<f64> = read["starts"].as_array().unwrap().iter().filter_map(Value::as_f64).collect();
    assert!((began..began + 10.0).contains(&starts[0]), "{began}, {starts:?}");
    let apart = |pair: &[f64]| (pair[1] - pair[0] - 1.0).abs() < 0.002;
    assert!(starts.len() >= 3 && starts.windows(2).all(apart), "a line for each second: {starts:?}");
    let page = std::fs::read_to_string(&page).unwrap();
    for part in ["by percentile", "as a heat map", "p99 ≤ 1 s", "1,500", "held"] {
        assert!(page.contains(part), "{part} is missing in the page");
    }
    home.assert_nothing_left();
}

#[test]
fn a_load_is_missed_or_ended_early_and_says_so() {
    let (_turn, home) = (turns(1), Home::new());
    let Some(known) = Known::new(4, 8) else { return };
    let url = known.url.as_str();
    let slow = ["load", url, "--rate", "100/s", "--for", "2s", "--objective", "p50 <= 5ms"];
    let done = home.squall(&slow).code(1);
    assert!(done.out.contains("missed") && done.out.contains("p50 ≤ 5 ms"), "{}", done.out);
    let mut going = home.start(&["load", url, "--rate", "100/s", "--for", "60s"]);
    going.says("   2 of 60 s", Duration::from_secs(20));
    going.signal(Signal::INT);
    let done = going.end_within(Duration::from_secs(10)).code(4);
    assert!(done.out.contains("ended by the operator") && done.out.contains("response"), "{}", done.out);
    home.assert_nothing_left();
}

/// A target that queues is the target's fault: the probe beside the load waits as well.
#[test]
fn an_overloaded_target_is_not_taken_for_an_overloaded_generator() {
    if quick("an overloaded target and a probe") {
        return;
    }
    let (_turn, home) = (turns(2), Home::new());
    let Some(known) = Known::new(40, 8) else { return };
    let args =
        ["load", &known.url, "--rate", "5500/s", "--for", "4s", "--objective", "p99 <= 100ms", "--json"];
    let done = home.squall(&args);
    let result: Value = serde_json::from_str(&done.out).unwrap();
    assert_eq!((done.code, &result["verdict"]), (1, &"missed".into()), "{result}");
    let p50 = |series: &str| result[series]["p50_s"].as_f64().unwrap();
    assert!(p50("probe") > 0.03 && p50("probe") > p50("service") / 5.0, "{result}");
    home.assert_nothing_left();
}

#[test]
fn too_few_connections_are_not_taken_for_a_slow_target() {
    if quick("a search with two connections") {
        return;
    }
    let (_turn, home) = (turns(2), Home::new());
    // Two connections carry 250/s of it, and it is well at 500/s.
    let Some(known) = Known::new(4, 8) else { return };
    let asked = [&known.url, "--connections", "2", "--objective", "p95 <= 40ms", "--json"];
    let load = [&["load"], &asked[..], &["--rate", "400/s", "--for", "4s", "--deadline", "1s"]].concat();
    let search =
        [&["capacity"], &asked[..], &["--start", "200/s", "--trial", "2s", "--no-calibrate"]].concat();
    for (args, verdict) in [(load, "/verdict"), (search, "/finding/limited_by")] {
        let done = home.start(&args).end_within(Duration::from_secs(100)).code(6);
        let result: Value = serde_json::from_str(&done.out).unwrap();
        let wanted = if verdict == "/verdict" { "unknown" } else { "generator" };
        assert_eq!(result.pointer(verdict), Some(&wanted.into()), "{result:#}");
        assert!(result["reasons"].to_string().contains("all 2 connections busy"), "{result:#}");
    }
    home.assert_nothing_left();
}

#[test]
fn an_option_without_an_effect_is_refused_and_so_are_two_outputs_in_one_file() {
    let home = Home::new();
    let feed = format!("u={},random", home.file("users.csv", "id\n1\n").display());
    for (url, more, says) in [
        ("http", &["--rate", "1e9/s"][..], "with all its digits (1000000000/s)"),
        ("http", &["--insecure"], "there is no TLS"),
        ("http", &["--ca", "x.pem"], "there is no TLS"),
        ("dns", &["--body", "x"], "a DNS query has none"),
        ("http", &["--feed", &feed], "no ${u.COLUMN} is in the URL"),
        ("http", &["--log", "/tmp/x", "--html", "/tmp/../tmp/x"], "--log and --html name one file"),
        ("http", &["--html", "/tmp/x", "-o", "/tmp/x"], "--html and --output name one file"),
        ("http", &["--method", "A B"], "squall: request http"),
        ("http", &["--methods", "GET"], "--methods and --keep-secrets belong to --replay"),
        ("http", &["--expect", "json /a contains b"], "is no expectation"),
        ("http", &["-o", "/nowhere/x"], "nothing was sent"),
    ] {
        let url = format!("{url}://127.0.0.1:1/a");
        let pace: &[&str] = if more[0] == "--rate" { &[] } else { &["--rate", "5/s"] };
        let done = home.squall(&[&["load", &url, "--for", "1s"], pace, more].concat()).code(2);
        assert!(done.err.contains(says), "{more:?}: {}", done.err);
    }
}

#[test]
fn a_failed_handshake_says_why() {
    let (_turn, home) = (turns(1), Home::new());
    let Some(server) = Server::nginx(&home) else { return };
    let url = format!("https://{}/", server.address());
    for more in [&[][..], &["--workers", "2"]] {
        let args = [&["load", &url, "--rate", "20/s", "--for", "1s"], more].concat();
        let done = home.squall(&args).code(6);
        assert!(done.out.contains("tls 20 (100%): the server speaks no TLS"), "{}", done.out);
        let result = home.json(&[&args[..], &["--json"]].concat());
        assert_eq!(result["causes"]["tls"], "the server speaks no TLS");
    }
    server.end();
    home.assert_nothing_left();
}

#[test]
fn the_capacity_of_a_server_is_found_where_it_is_and_a_search_goes_on_where_it_was() {
    if quick("the search for a capacity") {
        return;
    }
    let (_turn, home) = (turns(2), Home::new());
    let Some(known) = Known::new(4, 8) else { return };
    let search = [
        "capacity",
        known.url.as_str(),
        "--objective",
        "p95 <= 40ms",
        "--start",
        "300/s",
        "--trial",
        "4s",
        "--confirm",
        "5s",
        "--width",
        "10%",
    ];
    let part = home.squall(&[&search[..], &["--within", "5s", "--json"]].concat()).code(6);
    let first: Value = serde_json::from_str(&part.out).unwrap();
    assert_eq!(first["finding"]["limited_by"], "undecided", "{first}");
    let file = home.file("search.json", &part.out);
    let resumed = [&search[..], &["--json", "--resume", file.to_str().unwrap()]].concat();
    let done = unhindered(|| home.start(&resumed).end_within(Duration::from_secs(240)));
    let whole: Value = serde_json::from_str(&done.out).unwrap();
    assert_eq!(done.code, 0, "{whole:#}");
    let finding = &whole["finding"];
    let rate = |name: &str| finding[name].as_f64().unwrap();
    // Its truth is 500/s.
    assert!(rate("low") <= 505.0 && rate("high") >= 495.0, "{whole:#}");
    assert_eq!(
        (&finding["limited_by"], &finding["fails_first"]),
        (&"target".into(), &"p95".into()),
        "{whole:#}"
    );
    // The rate that failed fails from twice the threads as well, and this machine could have sent much more.
    let proof = &finding["proof"];
    assert_eq!(
        (&proof["carried"], proof["rate"].as_f64().unwrap() > 500.0),
        (&false.into(), true),
        "{whole:#}"
    );
    let calibration = &whole["calibration"];
    assert!(calibration["rate"].as_f64().unwrap() > 2000.0, "{calibration}");
    assert!(calibration["took_s"].as_f64().unwrap() <= 5.0, "{calibration}");
    assert!(finding["collapse"]["recovered_at"].as_f64().unwrap() < 500.0, "{whole:#}");
    let trials = whole["trials"].as_array().unwrap();
    assert_eq!(trials[..first["trials"].as_array().unwrap().len()], first["trials"].as_array().unwrap()[..]);
    let other = home.squall(&[
        "capacity",
        &known.url,
        "--objective",
        "p99 <= 1s",
        "--resume",
        file.to_str().unwrap(),
    ]);
    assert!(other.code(2).err.contains("it is of another search"));
    home.assert_nothing_left();
}

#[test]
fn what_a_fault_costs_is_found_by_the_same_search_while_it_lives() {
    if quick("the search for a capacity under a fault") {
        return;
    }
    let (_turn, home) = (turns(2), Home::new());
    let (Some(one), Some(other)) = (Known::new(4, 16), Known::new(4, 16)) else { return };
    let Some(server) = Server::balancing(&home, &[one.port(), other.port()]) else { return };
    let (url, pause) =
        (format!("http://{}/", server.address()), format!("process-pause --port {}", other.port()));
    let args = [
        "capacity",
        &url,
        "--objective",
        "p95 <= 60ms",
        "--start",
        "150/s",
        "--trial",
        "4s",
        "--confirm",
        "5s",
        "--width",
        "20%",
        "--no-collapse",
        "--under",
        &pause,
        "--json",
    ];
    let done = home.start(&args).end_within(Duration::from_secs(300));
    let document: Value = serde_json::from_str(&done.out).unwrap();
    assert_eq!(done.code, 0, "{document:#}");
    let (row, finding) = (&document["under"][0], &document["finding"]);
    // Alone both carry 500/s; one of them is paused.
    assert!((finding["capacity"].as_f64().unwrap() / 500.0 - 1.0).abs() < 0.15, "{document:#}");
    let lost = |name: &str| row["lost"][name].as_f64().unwrap();
    assert!(lost("low") <= 0.5 && lost("high") >= 0.5 && lost("low") > 0.25, "{document:#}");
    let proof = &row["proof"][0];
    assert_eq!((&proof["status"], &proof["undo"]), (&"confirmed".into(), &"restored".into()), "{document:#}");
    // Neither the end of squall nor the operator's word leaves the fault behind. What was found alone is resumed.
    let file = home.file("alone.json", &done.out);
    let again = [&args[..args.len() - 1], &["--resume", file.to_str().unwrap()]].concat();
    for (signal, code) in [(Signal::KILL, 137), (Signal::INT, 4)] {
        let mut going = home.start(&again);
        let paused = || process::state(other.child.id()) == Some('T');
        until("a paused server", Duration::from_secs(20), || paused().then_some(()));
        going.says("bracket", Duration::from_secs(20));
        going.signal(signal);
        until("a server that goes on", Duration::from_secs(3), || (!paused()).then_some(()));
        let done = going.end().code(code);
        assert!(code != 4 || done.out.contains("the fault was put back"), "{done:?}");
        home.squall(&["recover"]).code(0);
    }
    server.end();
    home.assert_nothing_left();
}

/// Puts a process into a control group that gives it hardly any CPU; none, and why, if this host has no such groups.
fn throttled(pid: u32) -> Option<std::path::PathBuf> {
    let mut all = Kernel.hierarchies().unwrap();
    all.sort_by_key(|one| one.version == Version::Two);
    let hierarchy = all.iter().find(|one| one.has(Controller::Cpu))?;
    let folder = hierarchy.mount.join(format!("sqt-load-{}", std::process::id()));
    if let Err(error) = std::fs::create_dir(&folder) {
        skipped(&format!("a throttled generator: no control group: {error}"));
        return None;
    }
    let quota = match hierarchy.version {
        Version::One => ("cpu.cfs_quota_us", "2000"),
        Version::Two => ("cpu.max", "2000 100000"),
    };
    std::fs::write(folder.join(quota.0), quota.1).unwrap();
    std::fs::write(folder.join("cgroup.procs"), pid.to_string()).unwrap();
    Some(folder)
}

#[test]
fn a_generator_without_time_is_the_limit_and_not_the_target() {
    if quick("a throttled generator") {
        return;
    }
    let (_turn, home) = (turns(1), Home::new());
    let Some(server) = Server::nginx(&home) else { return };
    let url = format!("http://{}/", server.address());
    let args =
        ["capacity", &url, "--objective", "p99 <= 100ms", "--start", "1000/s", "--trial", "2s", "--json"];
    let going = home.start(&args);
    let Some(group) = throttled(going.pid()) else {
        going.signal(Signal::INT);
        going.end();
        return server.end();
    };
    let done = going.end();
    std::fs::remove_dir(group).unwrap();
    server.end();
    let document: Value = serde_json::from_str(&done.out).unwrap();
    assert_eq!((done.code, &document["finding"]["limited_by"]), (6, &"generator".into()), "{document:#}");
    let trials = document["trials"].as_array().unwrap();
    assert!(trials.len() <= 4, "two invalid trials in a row are enough: {document:#}");
    home.assert_nothing_left();
}
