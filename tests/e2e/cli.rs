//! The command line: help, exit codes, documents, and a reader or a disk that is not there.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use crate::lifecycle::{MILD, experiment};
use crate::support::{Home, Lab, skipped, turns};

const VERBS: [&str; 10] =
    ["run", "plan", "check", "inject", "recover", "report", "faults", "schema", "doctor", "lab"];

#[test]
fn every_verb_explains_itself() {
    let home = Home::new();
    let help = home.squall(&["--help"]).code(0).out;
    for verb in VERBS {
        assert!(help.contains(&format!("  {verb} ")), "{verb} is not in the help: {help}");
        let own = home.squall(&[verb, "--help"]).code(0);
        assert!(own.out.contains("Usage: squall") && own.err.is_empty(), "{verb}: {own:?}");
        for line in own.out.lines() {
            assert!(line.chars().count() <= 100, "{verb}: a line of more than 100 characters: {line}");
        }
    }
    assert!(!help.contains("__"), "hidden verbs are shown: {help}");
    assert!(help.contains("restoration incomplete: squall recover"), "no table of exit codes: {help}");
    let version = home.squall(&["--version"]).code(0).out;
    assert_eq!(version.trim(), format!("squall {}", env!("CARGO_PKG_VERSION")));
}

#[test]
fn what_is_no_command_is_invalid_input() {
    let home = Home::new();
    let file = home.file("bad.yaml", "squall: v9\n");
    let bad = file.to_str().unwrap();
    let calls: &[&[&str]] = &[
        &[],
        &["rnu"],
        &["run"],
        &["run", "a", "b"],
        &["run", bad],
        &["plan", bad],
        &["check", bad],
        &["check"],
        &["run", bad, "--seed", "x"],
        &["check", bad, "--set", "x"],
        &["inject"],
        &["report", "01NONE"],
        &["report", "--format", "pdf"],
        &["recover", "--run", "01NONE"],
        &["faults", "none"],
        &["lab"],
        &["lab", "up", "--retries", "99"],
        &["lab", "up", "--retry-budget", "200%"],
        &["schema", "none"],
        &["inject", "process-pause", "--port", "1", "--for", "0s"],
        &["inject", "process-pause", "--port", "1", "--for", "-1s"],
        &["inject", "process-pause", "--port", "1", "--for", "1s", "--crash-at", "x"],
    ];
    for call in calls {
        let done = home.squall(call);
        assert_eq!(done.code, 2, "{call:?}: {done:?}");
        assert!(!done.err.is_empty(), "{call:?} says nothing");
        assert!(!done.err.contains("panicked"), "{call:?}: {}", done.err);
        // The same is a document for whoever asks for one.
        let done = home.squall(&[*call, &["--json"]].concat()).code(2);
        let document: Value =
            serde_json::from_str(&done.out).unwrap_or_else(|error| panic!("{call:?}: {error}: {}", done.out));
        assert_eq!((&document["ok"], &document["exit"]), (&Value::Bool(false), &Value::from(2)), "{call:?}");
        let told = document["error"]
            .as_str()
            .map_or(document["files"].is_array(), |error| !error.is_empty() && !error.contains('\n'));
        assert!(told, "{call:?} does not say what is wrong: {document}");
        let events = done.err.lines().all(|line| serde_json::from_str::<Unique>(line).is_ok());
        assert!(events, "{call:?}: {}", done.err);
    }
    assert!(home.run_folders().is_empty());
    home.assert_nothing_left();
}

#[test]
fn a_value_that_begins_with_a_dash_is_told_why_it_is_wrong() {
    let home = Home::new();
    for (option, value) in [("--for", "-1s"), ("--delay", "-5ms"), ("--share", "-1%")] {
        let mut call = vec!["inject", "relay-latency", "--instance", "auth-1"];
        for (name, good) in [("--for", "1s"), ("--delay", "5ms"), ("--share", "5%")] {
            call.extend([name, if name == option { value } else { good }]);
        }
        let done = home.squall(&call).code(2);
        assert!(done.err.contains(option) && done.err.contains("must not be negative"), "{}", done.err);
    }
    // A list may be written as in a file: what is missing then is only the lab.
    let drain = ["inject", "pop-drain", "--pop", "fra", "--soak", "1s", "--for", "1s", "--steps"];
    for steps in ["[50%, 0%]", "50%,0%"] {
        let done = home.squall(&[&drain[..], &[steps]].concat()).code(3);
        assert!(done.err.contains("no lab stands"), "{steps}: {}", done.err);
    }
}

#[test]
fn a_report_says_what_is_wrong_with_its_run_and_its_format() {
    let home = Home::new();
    let done = home.squall(&["report", "/"]).code(2);
    assert!(done.err.contains("/ is no run"), "{}", done.err);
    let done = home.squall(&["report", "-f", "html", "--json"]).code(2);
    assert!(done.err.contains("leave out --json or --format"), "{}", done.err);
    home.squall(&["report", "/dev/zero"]).code(2);
}

#[test]
fn what_cannot_be_done_is_refused() {
    let home = Home::new();
    let refused = home.squall(&["inject", "process-pause", "--port", "1", "--for", "1s"]);
    assert!(matches!(refused.code, 3 | 4), "{refused:?}");
    assert!(refused.err.contains("no running process"), "{}", refused.err);
    let own = std::process::id().to_string();
    let file = home.file("pid", &own);
    let refused =
        home.squall(&["inject", "process-pause", "--pid-file", file.to_str().unwrap(), "--for", "1s"]);
    assert_eq!(refused.code, 3, "{refused:?}");
    assert!(refused.err.contains("ancestors"), "{}", refused.err);
    home.assert_no_leftovers();
}

#[test]
fn documents_are_documents() {
    let _turn = turns(1);
    let home = Home::new();
    let good = home.file("good.yaml", &experiment(MILD, ""));
    let bad = home.file("bad.yaml", "squall: v9\n");
    let (good, bad) = (good.to_str().unwrap(), bad.to_str().unwrap());
    let lab = Lab::up(&home);
    let calls: &[(&[&str], i32)] = &[
        (&["check", good], 0),
        (&["check", good, bad], 2),
        (&["plan", good], 0),
        (&["plan", bad], 2),
        (&["run", bad], 2),
        (&["faults"], 0),
        (&["faults", "command"], 0),
        (&["faults", "none"], 2),
        (&["schema"], 0),
        (&["schema", "record"], 0),
        (&["doctor"], 0),
        (&["lab", "status"], 0),
        (&["recover", "--list"], 0),
        (&["recover"], 0),
        (&["report"], 2),
        (&["report", "--list"], 0),
        (&["inject", "process-pause", "--service", "auth", "--for", "100ms"], 0),
        (&["inject", "process-pause", "--service", "none", "--for", "100ms"], 2),
    ];
    for (call, code) in calls {
        let mut args = call.to_vec();
        args.push("--json");
        let done = home.squall(&args).code(*code);
        let document: Value =
            serde_json::from_str(&done.out).unwrap_or_else(|error| panic!("{call:?}: {error}: {}", done.out));
        assert!(document.is_object(), "{call:?}");
        if *code != 0 {
            assert_eq!(document["ok"], false, "{call:?}: {document}");
        }
    }
    lab.down(&home);
    assert_eq!(home.json(&["lab", "status", "--json"])["up"], false);
}

#[test]
fn a_standing_lab_is_found_and_taken_down() {
    let _turn = turns(1);
    let home = Home::new();
    assert!(home.squall(&["lab", "status"]).code(0).err.contains("no lab stands"));
    home.squall(&["lab", "down"]).code(0);
    let lab = Lab::up(&home);
    let status = home.squall(&["lab", "status"]).code(0).out;
    assert!(status.contains(&lab.address) && status.contains("auth-1"), "{status}");
    let twice = home.squall(&["lab", "up"]).code(2);
    assert!(twice.err.contains("already up") && twice.err.contains("squall lab down"), "{}", twice.err);
    lab.assert_whole();
    lab.down(&home);
}

#[test]
fn the_doctor_looks_at_the_host_as_root_and_as_somebody() {
    let home = Home::new();
    let well = home.squall(&["doctor"]).code(0);
    assert!(well.out.contains("pidfd work"), "{}", well.out);
    if !rustix::process::geteuid().is_root() {
        skipped("the doctor as another user: only root can become one");
        return;
    }
    // The binary may lie where nobody else can go, so it is copied.
    let folder = tempfile::Builder::new().prefix("sqe-").tempdir_in("/tmp").unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let copy = folder.path().join("squall");
    // By another process: a file that this one has open for writing, a child of another test would keep open.
    let copied = std::process::Command::new("cp").arg(crate::support::exe()).arg(&copy).status().unwrap();
    assert!(copied.success());
    std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = std::process::Command::new(&copy);
    command.arg("doctor").env_clear().env("HOME", "/nonexistent").uid(65534).gid(65534).stdin(Stdio::null());
    let done = home.start_as(command).end().code(3);
    assert!(done.out.contains("user 65534") && done.out.contains("FAIL"), "{}", done.out);
    assert!(done.out.contains("choose another with --runs"), "{}", done.out);
}

#[test]
fn a_reader_that_has_gone_is_no_failure() {
    let home = Home::new();
    let file = home.file("good.yaml", &experiment(MILD, ""));
    for args in
        [vec!["--help"], vec!["faults", "--json"], vec!["schema"], vec!["plan", file.to_str().unwrap()]]
    {
        let mut child =
            home.command().args(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        drop(child.stderr.take());
        let code = crate::support::process::wait(&mut child, Duration::from_secs(10));
        assert_eq!(code, 0, "{args:?}");
    }
}

#[test]
fn a_run_whose_watchers_have_gone_restores_and_ends() {
    let _turn = turns(1);
    let home = Home::new();
    let lab = Lab::up(&home);
    let mut child = home
        .command()
        .args(["inject", "process-pause", "--service", "auth", "--for", "1s"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    drop(child.stderr.take());
    assert_eq!(crate::support::process::wait(&mut child, Duration::from_secs(10)), 0);
    lab.assert_whole();
    lab.down(&home);
}

#[test]
fn runs_that_cannot_be_kept_are_refused_before_anything_is_touched() {
    let home = Home::new();
    let file = home.file("good.yaml", &experiment(MILD, ""));
    for folder in ["/proc/nowhere", "/dev/null/runs"] {
        let done = home.squall(&["run", file.to_str().unwrap(), "--runs", folder]).code(3);
        assert!(done.err.contains(folder), "{}", done.err);
        home.squall(&["doctor", "--runs", folder]).code(3);
    }
    home.assert_nothing_left();
}

#[test]
fn results_go_where_they_are_wanted() {
    let _turn = turns(2);
    let home = Home::new();
    let file = home.file("good.yaml", &experiment(MILD, ""));
    let (result, markdown) = (home.dir().join("result.txt"), home.dir().join("run.md"));
    let run = || {
        let mut command = home.command();
        command.env("NO_COLOR", "1").args([
            "run",
            file.to_str().unwrap(),
            "--quiet",
            "-o",
            result.to_str().unwrap(),
        ]);
        command.args(["--markdown", markdown.to_str().unwrap()]);
        home.start_as(command).end()
    };
    let done = home.clearly(run).code(0);
    assert!(done.out.is_empty() && done.err.is_empty(), "--quiet with -o is silent: {done:?}");
    let text = std::fs::read_to_string(&result).unwrap();
    assert!(text.contains("held") && !text.contains('\u{1b}'), "{text}");
    assert!(std::fs::read_to_string(&markdown).unwrap().contains("held"));

    let listed = home.json(&["report", "--list", "--json"]);
    assert_eq!(listed["runs"].as_array().unwrap().len(), 1);
    let run = listed["runs"][0]["run"].as_str().unwrap().to_owned();
    let html = home.dir().join("again.html");
    home.squall(&["report", &run[..20], "-f", "html", "-o", html.to_str().unwrap()]).code(0);
    assert!(std::fs::read_to_string(&html).unwrap().starts_with("<!doctype html>"));
    home.squall(&["report", &run, "-o", "/nowhere/x.html"]).code(2);
    home.assert_nothing_left();
}

/// A JSON document in which no key stands twice.
struct Unique;

impl<'de> serde::Deserialize<'de> for Unique {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UniqueKeys)
    }
}

struct UniqueKeys;

impl<'de> serde::de::Visitor<'de> for UniqueKeys {
    type Value = Unique;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a document")
    }

    fn visit_unit<E>(self) -> Result<Unique, E> {
        Ok(Unique)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Unique, E> {
        Ok(Unique)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Unique, E> {
        Ok(Unique)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Unique, E> {
        Ok(Unique)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Unique, E> {
        Ok(Unique)
    }

    fn visit_str<E>(self, _: &str) -> Result<Unique, E> {
        Ok(Unique)
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut items: A) -> Result<Unique, A::Error> {
        while items.next_element::<Unique>()?.is_some() {}
        Ok(Unique)
    }

    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut entries: A) -> Result<Unique, A::Error> {
        let mut seen = std::collections::BTreeSet::new();
        while let Some((key, Unique)) = entries.next_entry::<String, Unique>()? {
            if !seen.insert(key.clone()) {
                return Err(serde::de::Error::custom(format!("`{key}` stands here twice")));
            }
        }
        Ok(Unique)
    }
}

#[test]
fn events_are_one_document_per_line() {
    let _turn = turns(2);
    let home = Home::new();
    let file = home.file("good.yaml", &experiment(MILD, ""));
    let done = home.clearly(|| home.squall(&["run", file.to_str().unwrap(), "--json"])).code(0);
    let summary: Value = serde_json::from_str(&done.out).unwrap();
    assert_eq!((&summary["ok"], &summary["exit"]), (&Value::Bool(true), &Value::from(0)), "{summary}");
    let events: Vec<Value> = done.err.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for kind in ["started", "phase", "second", "injected", "proof", "undone"] {
        assert!(events.iter().any(|event| event["event"] == kind), "no event `{kind}`");
    }
    for line in done.err.lines() {
        let unique: Result<Unique, _> = serde_json::from_str(line);
        unique.unwrap_or_else(|error| panic!("{error}: {line}"));
    }
    home.assert_nothing_left();
}
