//! Scenarios of the catalogue on real servers, as a user runs them: with the scripts beside them. Each shows the answer
//! that its comment tells.

use std::fs::File;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::home::Going;
use crate::support::server::{free_port, program};
use crate::support::{Home, quick, root, skipped, turns};

/// What the scripts have set up, in a folder, a group and a network of its own, until this is dropped.
struct Stage {
    home: Home,
    scripts: Vec<&'static str>,
    set: Vec<(&'static str, String)>,
    /// The namespace in which it is; none for that of this test.
    space: Option<String>,
}

impl Stage {
    /// None, and why, where these scripts have not all they need.
    fn new(what: &str, scripts: &[&'static str], needs: &[&str], apart: bool) -> Option<Self> {
        if needs.iter().any(|name| program(name).is_none()) {
            return None;
        }
        if !rustix::process::geteuid().is_root() {
            skipped(&format!("{what}: not root"));
            return None;
        }
        let home = Home::new();
        let mark = format!("sqt-{}-{what}", std::process::id());
        let mut stage = Self { home, scripts: Vec::new(), set: Vec::new(), space: None };
        let own = |name: &str| stage.home.dir().join(name).to_str().unwrap().to_owned();
        let mut set = vec![
            ("SQUALL_REAL", own("real")),
            ("SQUALL_LINK", own("link")),
            ("LINK_SPACE", format!("{mark}-far")),
            ("SQUALL_GROUP", mark.clone()),
        ];
        let ports =
            ["NGINX_PORT", "BACKEND_A_PORT", "BACKEND_B_PORT", "HAPROXY_PORT", "LINK_PORT", "NAMES_PORT"];
        set.extend(ports.map(|port| (port, free_port().to_string())));
        stage.set = set;
        if apart {
            let made = [&["netns", "add", &mark][..], &["-n", &mark, "link", "set", "lo", "up"]]
                .iter()
                .all(|args| Command::new("ip").args(*args).status().is_ok_and(|done| done.success()));
            stage.space = Some(mark);
            if !made {
                skipped(&format!("{what}: no network namespaces"));
                return None;
            }
        }
        for script in scripts {
            stage.scripts.push(script);
            stage.script(script, "up");
        }
        Some(stage)
    }

    /// Starts something where the stage is.
    fn there<T: Send>(&self, start: impl FnOnce() -> T + Send) -> T {
        let Some(space) = &self.space else { return start() };
        let file = File::open(format!("/run/netns/{space}")).unwrap();
        let enter = move || {
            rustix::thread::move_into_link_name_space(file.as_fd(), None).unwrap();
            start()
        };
        std::thread::scope(|scope| scope.spawn(enter).join())
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    fn script(&self, name: &str, word: &str) {
        let mut command = Command::new(root().join("scenarios/real").join(name));
        command.arg(word).envs(self.set.iter().map(|(name, value)| (name, value))).stdin(Stdio::null());
        // Servers keep what they are given open: not a pipe.
        let told = self.home.dir().join(format!("{name}-{word}"));
        let out = File::create(&told).unwrap();
        command.stdout(out.try_clone().unwrap()).stderr(out);
        let code = self.there(|| command.status().unwrap());
        let text = std::fs::read_to_string(told).unwrap_or_default();
        assert!(code.success() || std::thread::panicking(), "{name} {word}: {text}");
    }

    fn begin(&self, args: &[&str]) -> Going {
        let mut command = self.home.command();
        command.args(args).envs(self.set.iter().map(|(name, value)| (name, value)));
        self.there(|| self.home.start_as(command))
    }

    /// Runs a scenario; every fault of it must be confirmed, and restored if it can be. None, and why, if other work on this host left
    /// it so little time that three runs had another answer.
    fn run(&self, file: &str, code: i32) -> Option<Value> {
        let path = format!("scenarios/{file}");
        for _ in 0..3 {
            let done = self.begin(&["run", &path, "--seed", "5", "--quiet"]).end();
            self.home.assert_no_leftovers();
            let record = self.home.record();
            // One record at a time.
            std::fs::remove_dir_all(self.home.runs()).unwrap();
            if done.code != code && busy(&record) {
                continue;
            }
            let done = done.code(code);
            for one in record["injections"].as_array().unwrap() {
                let came = (one["proof"]["status"].as_str().unwrap(), one["undo"].as_str().unwrap());
                // A connection that was reset does not come back.
                let undo = if one["fault"] == "connection-reset" { "not-needed" } else { "restored" };
                assert_eq!(came, ("confirmed", undo), "{one}");
            }
            assert_eq!(record["restoration"]["verified"], true, "{done:?}");
            return Some(record);
        }
        skipped(&format!("{file}: this host has no time for it"));
        None
    }
}

/// Whether some task waited for a processor most of the time, in some phase of a run.
fn busy(record: &Value) -> bool {
    let strain = record["generator"]["strain"].as_array().into_iter().flatten();
    strain.into_iter().any(|phase| phase["waited"].as_f64().is_some_and(|waited| waited > 0.6))
}

impl Drop for Stage {
    fn drop(&mut self) {
        for script in self.scripts.iter().rev() {
            self.script(script, "down");
        }
        if let Some(space) = &self.space {
            let _ = Command::new("ip").args(["netns", "del", space]).status();
        }
    }
}

fn reasons(record: &Value) -> String {
    record["judgement"]["reasons"].to_string()
}

#[test]
fn without_its_name_an_upstream_is_lost_to_nginx_although_it_is_well() {
    if quick("dns-outage.yaml") {
        return;
    }
    let _turn = turns(1);
    let Some(stage) = Stage::new("dns", &["link", "names"], &["nginx", "dnsmasq", "ip"], true) else {
        return;
    };
    let Some(record) = stage.run("real/dns-outage.yaml", 1) else { return };
    assert!(reasons(&record).contains("availability"), "{}", reasons(&record));
}

#[test]
fn a_backend_with_too_little_processor_time_is_felt_behind_haproxy_without_any_error() {
    if quick("throttled-backend.yaml") {
        return;
    }
    let _turn = turns(2);
    let Some(stage) = Stage::new("cpu", &["serve", "cage"], &["nginx", "haproxy"], false) else { return };
    let Some(record) = stage.run("real/throttled-backend.yaml", 1) else { return };
    let reasons = reasons(&record);
    assert!(reasons.contains("p90") && !reasons.contains("availability"), "{reasons}");
}

#[test]
fn a_backend_with_little_memory_and_a_slow_disk_goes_on_serving_what_is_asked_for_all_the_time() {
    if quick("shrunk-backend.yaml") {
        return;
    }
    let _turn = turns(2);
    let Some(stage) = Stage::new("mem", &["serve", "cage"], &["nginx", "haproxy"], false) else { return };
    stage.run("real/shrunk-backend.yaml", 0);
}

#[test]
fn a_batch_job_that_holds_memory_and_writes_to_the_disk_does_not_disturb_the_lab() {
    if quick("nightly-batch.yaml") {
        return;
    }
    let _turn = turns(2);
    let Some(stage) = Stage::new("batch", &[], &[], false) else { return };
    stage.run("nightly-batch.yaml", 0);
}

#[test]
fn a_backend_that_freezes_makes_users_of_haproxy_wait_although_none_fails() {
    if quick("frozen-backend.yaml") {
        return;
    }
    let _turn = turns(1);
    let Some(stage) = Stage::new("ice", &["serve", "cage"], &["nginx", "haproxy"], false) else { return };
    let Some(record) = stage.run("real/frozen-backend.yaml", 1) else { return };
    let reasons = reasons(&record);
    assert!(reasons.contains("p99") && !reasons.contains("availability"), "{reasons}");
}

#[test]
fn a_full_file_system_of_its_log_does_not_disturb_nginx() {
    if quick("full-log.yaml") {
        return;
    }
    let _turn = turns(1);
    let Some(stage) = Stage::new("log", &["serve", "cage"], &["nginx", "haproxy"], false) else { return };
    stage.run("real/full-log.yaml", 0);
}

#[test]
fn pages_are_late_on_a_link_that_is_too_narrow_for_them() {
    if quick("narrow-link.yaml") {
        return;
    }
    let _turn = turns(1);
    let Some(stage) = Stage::new("link", &["link"], &["nginx", "ip"], true) else { return };
    stage.run("real/narrow-link.yaml", 1);
}

#[test]
fn haproxy_hides_a_backend_that_is_cut_off_in_both_ways_or_in_one_and_connections_that_are_reset() {
    if quick("haproxy-firewalled-backend.yaml and two more") {
        return;
    }
    let _turn = turns(1);
    let Some(stage) = Stage::new("cut", &["serve"], &["nginx", "haproxy", "ip"], true) else { return };
    for file in ["haproxy-firewalled-backend", "haproxy-one-way-backend", "haproxy-reset-connections"] {
        stage.run(&format!("real/{file}.yaml"), 0);
    }
}

#[test]
fn users_of_the_lab_notice_an_instance_that_is_far_away_and_a_line_that_is_too_narrow() {
    if quick("far-instance.yaml and narrow-line.yaml") {
        return;
    }
    let _turn = turns(2);
    let Some(stage) = Stage::new("line", &[], &["ip"], true) else { return };
    for (file, objective) in [("far-instance", "p90"), ("narrow-line", "p99")] {
        let Some(record) = stage.run(&format!("{file}.yaml"), 1) else { continue };
        assert!(reasons(&record).contains(objective), "{file}: {}", reasons(&record));
    }
}
