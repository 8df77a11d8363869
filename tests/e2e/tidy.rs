//! The rules of the house, as tests: sizes, doors, directions, and what must be absent.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use injectors::registry::INJECTORS;

use crate::support::{root, scenarios};

/// No file is longer, in lines.
const LINES_MAX: usize = 600;
/// Nor is what it adds to the product, without tests and docs.
const PRODUCTION_MAX: usize = 450;

/// A source file: its path below the root, and its text.
struct Source {
    path: String,
    text: String,
}

impl Source {
    /// What belongs to the product: up to the tests at the end of the file.
    fn production(&self) -> &str {
        self.text.split("\n#[cfg(test)]\nmod ").next().unwrap_or_default()
    }

    fn is_product(&self) -> bool {
        let in_crate =
            ["engine/src/", "injectors/src/", "reports/src/"].iter().any(|p| self.path.starts_with(p));
        let test_only = self.path.ends_with("tests.rs") || self.path == "reports/src/sample.rs";
        in_crate && !test_only
    }

    fn code_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let code = |line: &&str| !line.trim_start().starts_with("//");
        self.production()
            .lines()
            .enumerate()
            .filter(move |(_, line)| code(line))
            .map(|(n, line)| (n + 1, line))
    }
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, found);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            found.push(path);
        }
    }
}

fn sources() -> Vec<Source> {
    let root = root();
    let mut paths = Vec::new();
    for part in ["engine", "injectors", "reports", "tests"] {
        walk(&root.join(part), &mut paths);
    }
    paths.sort();
    let read = |path: PathBuf| Source {
        text: std::fs::read_to_string(&path).unwrap(),
        path: path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned(),
    };
    paths.into_iter().map(read).collect()
}

/// Fails with every place at which product code under one of these prefixes holds one of these texts.
#[track_caller]
fn absent(under: &[&str], except: &[&str], texts: &[&str], why: &str) {
    let mut found = String::new();
    let here = |source: &&Source| {
        under.iter().any(|prefix| source.path.starts_with(prefix)) && !except.contains(&source.path.as_str())
    };
    let sources = sources();
    let mut looked = 0;
    for source in sources.iter().filter(|source| source.is_product()).filter(here) {
        looked += 1;
        for (number, line) in source.code_lines() {
            if let Some(text) = texts.iter().find(|text| line.contains(**text)) {
                let _ = writeln!(found, "{}:{number}: {text}", source.path);
            }
        }
    }
    assert!(looked > 0, "nothing was looked at under {under:?}");
    assert!(found.is_empty(), "{why}\n{found}");
}

#[test]
fn files_stay_small() {
    for source in sources() {
        let lines = source.text.lines().count();
        assert!(lines <= LINES_MAX, "{} has {lines} lines; at most {LINES_MAX} are allowed", source.path);
        let production = source.code_lines().count();
        let product = source.is_product();
        assert!(
            !product || production <= PRODUCTION_MAX,
            "{} has {production} lines of product",
            source.path
        );
    }
}

#[test]
fn every_file_says_what_it_is_for() {
    for source in sources() {
        let first = source.text.lines().next().unwrap_or_default();
        let says = first.strip_prefix("//! ").is_some_and(|text| text.len() > 10);
        assert!(says, "{} does not begin with a `//!` that says its purpose: `{first}`", source.path);
    }
}

#[test]
fn heavy_packages_have_one_door_each() {
    let all = ["engine/src/", "injectors/src/", "reports/src/"];
    absent(&all, &["engine/src/experiment/yaml.rs"], &["serde_yaml"], "serde_yaml has one door");
    let netlink: Vec<String> = sources().into_iter().map(|source| source.path).collect();
    let netlink: Vec<&str> = netlink.iter().map(String::as_str).collect();
    let netlink: Vec<&str> =
        netlink.into_iter().filter(|path| path.starts_with("injectors/src/sys/netlink/")).collect();
    absent(&all, &netlink, &["rtnetlink"], "rtnetlink has one door");
    absent(&all, &["injectors/src/sys/docker/api.rs"], &["bollard::"], "bollard has one door");
    absent(&all, &["engine/src/feed.rs"], &["csv::"], "csv has one door");
    absent(&all, &["reports/src/latency.rs"], &["hdrhistogram"], "hdrhistogram has one door");
    absent(&all, &["engine/src/load/journey/goose.rs"], &["use goose::"], "goose has one door");
    absent(&all, &["engine/src/load/journey/client.rs"], &["reqwest::"], "reqwest has one door");
    absent(&all, &["engine/src/load/remote/seal.rs"], &["use ring::"], "ring has one door");
    absent(&all, &["engine/src/journey/extract.rs"], &["use regex::"], "regex has one door");
    let head = [
        "engine/src/load/h2/head.rs",
        "engine/src/load/h2/session_tests.rs",
        "engine/src/load/spec_tests.rs",
    ];
    absent(&all, &head, &["loona_hpack"], "loona-hpack has one door");
    absent(
        &all,
        &["engine/src/load/h3/quic.rs"],
        &["use quinn", " quinn::", "<quinn::", "(quinn::"],
        "quinn has one door",
    );
    let doors = ["engine/src/load/h3/exchange.rs", "engine/src/load/h3/streams.rs"];
    absent(&all, &doors, &["::h3::"], "h3 has two doors");
    absent(&all, &doors[1..], &["h3_quinn"], "h3-quinn has one door");
    absent(&all, &["engine/src/load/message.rs"], &["prost_reflect"], "prost-reflect has one door");
    absent(&["engine/src/"], &["engine/src/load/dns.rs"], &["hickory_proto"], "hickory-proto has one door");
    absent(
        &all,
        &["engine/src/cli/out.rs", "engine/src/cli/view.rs"],
        &["println!", "eprintln!"],
        "one place prints",
    );
}

#[test]
fn the_leaves_know_neither_each_other_nor_the_engine() {
    absent(&["reports/src/"], &[], &["tokio", "injectors::", "engine::"], "reports is a leaf without async");
    absent(&["injectors/src/"], &[], &["engine::", "reports::"], "injectors is a leaf");
    let manifest = |name: &str| std::fs::read_to_string(root().join(name).join("Cargo.toml")).unwrap();
    for (leaf, strangers) in
        [("reports", ["tokio", "injectors", "engine"]), ("injectors", ["reports", "engine", "clap"])]
    {
        let text = manifest(leaf);
        let line =
            |name: &str| text.lines().find(|line| line.starts_with(&format!("{name}."))).map(str::to_owned);
        for stranger in strangers {
            assert_eq!(line(stranger), None, "{leaf} depends on {stranger}");
        }
    }
}

#[test]
fn pure_modules_touch_nothing() {
    let pure = [
        "engine/src/experiment/",
        "engine/src/plan/",
        "engine/src/slo/",
        "engine/src/schedule",
        "engine/src/capacity/",
        "engine/src/journey/",
        "engine/src/template",
        "engine/src/feed",
        "engine/src/filling",
        "engine/src/expect",
        "engine/src/connecting.rs",
        "engine/src/load/cause.rs",
        "engine/src/load/h2/frame.rs",
        "engine/src/load/h2/head.rs",
        "engine/src/load/h2/session.rs",
        "engine/src/load/message.rs",
        "engine/src/replay/",
    ];
    let world = [
        "tokio",
        "std::process",
        "std::fs",
        "std::thread",
        "TcpStream",
        "TcpListener",
        "UdpSocket",
        "UnixStream",
        "ToSocketAddrs",
        "Instant",
        "SystemTime",
        "rustix",
    ];
    absent(&pure, &[], &world, "pure modules take values and give values");
}

#[test]
fn no_shell_stands_between_squall_and_a_command() {
    let shells = ["\"sh\"", "\"/bin/sh\"", "\"bash\"", "\"/bin/bash\""];
    absent(&["engine/src/", "injectors/src/"], &[], &shells, "commands are argument lists");
}

#[test]
fn nothing_is_unfinished_or_left_out() {
    // Put together here, so that this file does not find itself.
    let words = [["#[ign", "ore"], ["to", "do!("], ["unimpl", "emented!("], ["FIX", "ME"], ["TO", "DO"]]
        .map(|w| w.concat());
    for source in sources() {
        for word in &words {
            assert!(!source.text.contains(word.as_str()), "{} holds `{word}`", source.path);
        }
    }
}

#[test]
fn every_fault_is_tried_in_a_scenario_that_users_can_run() {
    let texts: String = scenarios().iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
    for name in INJECTORS.iter().map(|injector| injector.about().name) {
        assert!(texts.contains(&format!("- {name}:")), "no scenario tries {name}");
    }
}

#[test]
fn the_catalogue_lists_every_scenario() {
    let list = std::fs::read_to_string(root().join("scenarios/README.md")).unwrap();
    for path in scenarios() {
        let name = path.strip_prefix(root().join("scenarios")).unwrap().to_str().unwrap().to_owned();
        assert!(list.contains(&format!("]({name})")), "scenarios/README.md does not list {name}");
    }
}

#[test]
fn every_scenario_begins_with_the_question_that_it_asks() {
    let scenarios = scenarios();
    assert!(!scenarios.is_empty());
    for path in scenarios {
        let text = std::fs::read_to_string(&path).unwrap();
        let comment: Vec<&str> = text.lines().take_while(|line| line.starts_with('#')).collect();
        let asks = comment.iter().take(3).any(|line| line.contains('?'));
        assert!(asks, "{} does not begin with a comment that asks its question", path.display());
    }
}
