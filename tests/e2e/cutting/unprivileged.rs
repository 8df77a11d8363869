//! Cuts by somebody who is not root: refused, or done by a relay where the experiment says so.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use super::*;
use crate::support::server::Server;

/// A copy of squall that everybody may run, and a folder for what it keeps.
struct Somebody {
    folder: tempfile::TempDir,
}

impl Somebody {
    fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("sqe-").tempdir_in("/tmp").unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        // By another process: a file that this one has open for writing, a child of another test would keep open.
        let copied =
            Command::new("cp").arg(crate::support::exe()).arg(folder.path().join("squall")).status().unwrap();
        assert!(copied.success());
        Self { folder }
    }

    fn squall(&self, args: &[&str]) -> Command {
        let path = self.folder.path();
        let mut command = Command::new(path.join("squall"));
        command.args(args).env_clear().env("HOME", path).env("XDG_RUNTIME_DIR", path);
        command.env("SQUALL_RUNS", path.join("runs")).current_dir(path).uid(65534).gid(65534);
        command
    }
}

#[test]
fn somebody_who_is_not_root_is_refused_and_told_what_would_serve() {
    let Some(net) = net("cuts by somebody") else { return };
    let (home, somebody) = (Home::new(), Somebody::new());
    let before = ruleset(&net);
    for (fault, serves, more) in [
        ("network-partition", "relay-blackhole", &[][..]),
        ("port-block", "relay-reset", &["--ports", "7000"]),
        ("connection-reset", "relay-reset", &["--share", "50%"]),
    ] {
        let args = [&["inject", fault, "--netns", &net.name, "--to", "10.77.0.2", "--for", "5s"], more].concat();
        let done = home.start_as(somebody.squall(&args)).end().code(3);
        assert!(done.err.contains("root") && done.err.contains(serves), "{fault}: {}", done.err);
    }
    // The plan knows it already.
    let text = "squall: v1\nexperiment: cut\nquestion: Is it cut?\nload:\n  - page: {open: {url: \"http://127.0.0.1:1/\", \
                arrivals: [{hold: {rate: 5/s, for: 20s}}]}}\nobjectives:\n  - page: {availability: \">= 1%\"}\ntimeline:\n  \
                - {at: 9s, for: 3s, faults: [{port-block: {to: 127.0.0.1, ports: \"7\"}}]}\n";
    std::fs::write(somebody.folder.path().join("cut.yaml"), text).unwrap();
    let plan = home.start_as(somebody.squall(&["plan", "cut.yaml"])).end().code(0);
    assert!(plan.out.contains("port-block cannot be made here") && plan.out.contains("root"), "{}", plan.out);
    assert_eq!(ruleset(&net), before);
}

#[test]
fn a_relay_cuts_for_somebody_who_is_not_root_if_the_experiment_says_that_it_may() {
    if quick("a cut by a relay") {
        return;
    }
    let (_turn, home, somebody) = (crate::support::turns(1), Home::new(), Somebody::new());
    let Some(server) = Server::nginx(&home) else { return };
    let address = server.address();
    let port = address.rsplit_once(':').unwrap().1;
    for (fault, served) in [
        (format!("port-block: {{to: 127.0.0.1, ports: \"{port}\""), "by relay-blackhole: "),
        (format!("port-block: {{to: 127.0.0.1, ports: \"{port}\", by: reject"), "by relay-reset: "),
        (format!("network-partition: {{to: 127.0.0.1, ports: \"{port}\""), "by relay-blackhole: "),
    ] {
        let text = format!(
            "squall: v1\nexperiment: relayed\nquestion: Is it cut?\nwarm-up: 0s\nrelays:\n  - web: {{upstream: \"{address}\"}}\n\
             load:\n  - page: {{open: {{url: \"http://${{relay.web}}/\", deadline: 300ms, reuse: false, arrivals: [{{hold: \
             {{rate: 50/s, for: 7s}}}}]}}}}\nobjectives:\n  - page: {{availability: \">= 90%\"}}\ntimeline:\n  - at: 2s\n    \
             for: 3s\n    faults:\n      - {fault}, fallback: relay}}\n"
        );
        let file = somebody.folder.path().join("run.yaml");
        std::fs::write(&file, text).unwrap();
        let done = home.start_as(somebody.squall(&["run", "run.yaml", "--json"])).end().code(1);
        let record: serde_json::Value = serde_json::from_str(&done.out).unwrap();
        let one = &record["injections"][0];
        assert_eq!((&one["proof"]["status"], &one["undo"]), (&"confirmed".into(), &"restored".into()), "{one}");
        assert!(one["proof"]["measured"].as_str().unwrap().starts_with(served), "{one}");
    }
}
