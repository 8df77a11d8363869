//! Container faults on a real Docker engine, felt by callers of the containers.

mod flows;
mod inside;
mod matrix;

use std::time::Duration;

use injectors::about::Value as Arg;
use injectors::containers::Containers;
use injectors::restore::restore;
use injectors::target::Target;
use injectors::{Args, Change, Env, Inventory, Request, Undone, registry};
use serde_json::Value;

use crate::support::docker::{Container, Dockerd};
use crate::support::{Done, Home, quick, root, turns, until};

const STEPS: [&str; 8] =
    ["prepared", "intended", "held", "applied", "journalled", "undoing", "undone", "settled"];
const HOWS: [&str; 4] = ["error", "kill", "kill-guardian", "kill-both"];
const ALONE: Duration = Duration::from_secs(1);
/// A server in a container may need a moment until it listens.
const START: Duration = Duration::from_secs(5);

fn served(container: &Container<'_>, docker: &Dockerd) {
    until("an answer of a container", START, || docker.serves(&container.address()).then_some(()));
}

/// Waits until no engine and no guardian is at work.
fn alone(home: &Home) {
    until("the end of engines and guardians", ALONE, || {
        (!home.run_folders().iter().any(|folder| engine::run::store::alive(folder))).then_some(())
    });
}

fn proof(done: &Done) -> Value {
    let document: Value = serde_json::from_str(&done.out).unwrap_or_else(|error| panic!("{error}: {done:?}"));
    document["injections"][0]["proof"].clone()
}

#[test]
fn a_fault_of_a_container_is_felt_by_its_callers_confirmed_by_the_kernel_and_gone_afterwards() {
    let Some(docker) = Dockerd::shared("container faults") else { return };
    let (_turn, home) = (turns(1), Home::new());
    let web =
        docker.serving("felt", &["--ip", "10.88.0.20", "--network-alias", "front", "--label", "sq=felt"]);
    served(&web, docker);
    let before = web.picture();
    for (fault, measured, more) in [
        ("container-disconnect", "1 gone from their namespaces", vec![]),
        ("container-kill", "1 of 1 gone (exit code 137)", vec![]),
        ("container-pause", "1 frozen by the kernel's word", vec![]),
        ("container-stop", "1 of 1 gone (exit code", vec!["--grace", "1s"]),
    ] {
        let args = ["inject", fault, "--container", "felt", "--for", "2500ms", "--json"];
        let going = docker.begin(&home, &[&args[..], &more].concat());
        until(&format!("{fault}: callers feel it"), START, || (!docker.serves("10.88.0.20")).then_some(()));
        let done = going.end().code(0);
        let proof = proof(&done);
        assert_eq!(proof["status"], "confirmed", "{fault}: {proof}");
        assert!(proof["measured"].as_str().unwrap().starts_with(measured), "{fault}: {proof}");
        until(&format!("{fault}: the picture before"), START, || (web.picture() == before).then_some(()));
    }
    home.assert_nothing_left();
}

#[test]
fn a_restart_ends_one_life_and_begins_the_next_and_tells_how_long_the_container_was_down() {
    let Some(docker) = Dockerd::shared("a restarted container") else { return };
    let (_turn, home) = (turns(1), Home::new());
    let all = ["again-1", "again-2"].map(|name| docker.serving(name, &["--label", "sq=again"]));
    let before = all.each_ref().map(Container::pid);
    let args = ["inject", "container-restart", "--label", "sq=again", "--pick", "all", "--grace", "1s"];
    let done =
        docker.squall(&home, &[&args[..], &["--every", "1s", "--for", "4s", "--json"]].concat()).code(0);
    let proof = proof(&done);
    assert_eq!(proof["status"], "confirmed", "{proof}");
    assert!(proof["measured"].as_str().unwrap().contains("2 of 2 lives are over, 2 back after"), "{proof}");
    for (container, before) in all.iter().zip(before) {
        assert_ne!(container.pid(), before);
        assert_eq!(container.status(), "running");
    }
    home.assert_nothing_left();
}

#[test]
fn killed_like_a_crash_a_container_is_back_by_its_restart_policy_and_without_one_by_squall() {
    let Some(docker) = Dockerd::shared("a crashed container") else { return };
    let (_turn, home) = (turns(1), Home::new());
    for (name, policy, back) in [("crash-1", "always", true), ("crash-2", "no", false)] {
        let web = docker.serving(name, &["--restart", policy]);
        served(&web, docker);
        let before = web.pid();
        let args = ["inject", "container-kill", "--container", name, "--comes-back", "1s"];
        let done = docker.squall(&home, &[&args[..], &["--for", "2s", "--json"]].concat()).code(0);
        let measured = proof(&done)["measured"].to_string();
        assert_eq!(measured.contains("1 of 1 gone, 1 back after"), back, "{measured}");
        assert_eq!(measured.contains("(exit code 137)"), !back, "{measured}");
        served(&web, docker);
        assert_ne!(web.pid(), before);
    }
    home.assert_nothing_left();
}

#[test]
fn an_operators_kill_lasts_although_the_restart_policy_says_always() {
    let Some(docker) = Dockerd::shared("a killed container with a policy") else { return };
    let (_turn, home) = (turns(1), Home::new());
    let web = docker.serving("lasting", &["--restart", "always"]);
    let before = web.picture()["policy"].clone();
    let args = ["inject", "container-kill", "--container", "lasting", "--for", "2s", "--json"];
    let done = docker.squall(&home, &args).code(0);
    assert_eq!(proof(&done)["measured"], "1 of 1 gone (exit code 137)");
    assert_eq!((web.status().as_str(), &web.picture()["policy"]), ("running", &before));
    home.assert_nothing_left();
}

#[test]
fn whatever_ends_an_injection_at_whatever_step_the_container_is_as_before_within_a_second() {
    if quick("the kill matrix of a container fault") {
        return;
    }
    let Some(docker) = Dockerd::shared("the kill matrix of a container fault") else { return };
    let (_turn, home) = (turns(1), Home::new());
    let web = docker.serving("matrix", &["--ip", "10.88.0.30"]);
    served(&web, docker);
    let before = web.picture();
    for (step, how) in STEPS.iter().flat_map(|step| HOWS.iter().map(move |how| (step, how))) {
        let point = format!("{step}:{how}");
        let args = ["inject", "container-pause", "--container", "matrix", "--for", "100ms"];
        let done = docker.squall(&home, &[&args[..], &["--crash-at", &point]].concat());
        assert_eq!(done.code == 137, matches!(*how, "kill" | "kill-both"), "{point}: {done:?}");
        if *how == "kill-both" {
            alone(&home);
            // Without the environment of the run: the journal knows the engine.
            home.squall(&["recover"]).code(0);
        }
        until(&format!("{point}: the picture before"), ALONE, || (web.picture() == before).then_some(()));
        home.squall(&["recover"]).code(0);
    }
    home.assert_nothing_left();
}

#[test]
fn a_sigkill_before_in_and_after_any_container_fault_leaves_the_container_as_before() {
    if quick("SIGKILL in each container fault") {
        return;
    }
    let Some(docker) = Dockerd::shared("SIGKILL in each container fault") else { return };
    let (_turn, home) = (turns(1), Home::new());
    let web = docker.serving("shot", &["--ip", "10.88.0.31"]);
    served(&web, docker);
    let before = web.picture();
    let faults: [(&str, &[&str]); 5] = [
        ("container-disconnect", &[]),
        ("container-kill", &[]),
        ("container-kill", &["--comes-back", "1s"]),
        ("container-restart", &["--grace", "1s"]),
        ("container-stop", &["--grace", "1s"]),
    ];
    for (fault, more) in faults {
        for (step, how) in
            STEPS[1..6].iter().step_by(2).flat_map(|step| HOWS[1..].iter().map(move |how| (step, how)))
        {
            let point = format!("{step}:{how}");
            let args = ["inject", fault, "--container", "shot", "--for", "100ms", "--crash-at", &point];
            let done = docker.squall(&home, &[&args[..], more].concat());
            assert_eq!(
                done.code == 137,
                how.starts_with("kill") && *how != "kill-guardian",
                "{point}: {done:?}"
            );
            if *how == "kill-both" {
                alone(&home);
                home.squall(&["recover"]).code(0);
            }
            until(&format!("{fault} {point}: the picture before"), START, || {
                (web.picture() == before).then_some(())
            });
            home.squall(&["recover"]).code(0);
        }
    }
    home.assert_nothing_left();
}

/// A change on a container, and the ports of somebody who knows the record alone.
async fn prepared(docker: &Dockerd, fault: &str, name: &str) -> (Env, Change) {
    let given = [("container", name.to_owned())].into();
    let target = Target::Containers(Containers::read(&given).unwrap().unwrap());
    let span = |text: &str| Arg::Span(text.parse().unwrap());
    let args = [("grace".to_owned(), span("1s")), ("signal".to_owned(), Arg::Text("KILL".to_owned()))];
    let request = Request { id: format!("{name}/1"), args: Args(args.into()), target, seed: 3 };
    let env = Env::host(Inventory::default());
    // As the engine would find it with this environment; only `prepare` looks there.
    let near = Env { docker: std::sync::Arc::new(At(docker.socket())), ..env.clone() };
    let change = registry::find(fault).unwrap().prepare(&near, &request).await.unwrap();
    (env, change)
}

/// The real engine, at a socket of our own.
#[derive(Debug)]
struct At(std::path::PathBuf);

mod at {
    use std::path::{Path, PathBuf};

    use injectors::Pending;
    use injectors::sys::docker::api::Sockets;
    use injectors::sys::docker::{Act, Container, Docker, DockerError, Listed};

    impl Docker for super::At {
        fn socket(&self) -> Result<PathBuf, DockerError> {
            Ok(self.0.clone())
        }

        fn version<'a>(&'a self, socket: &'a Path) -> Pending<'a, Result<String, DockerError>> {
            Sockets.version(socket)
        }

        fn running<'a>(&'a self, socket: &'a Path) -> Pending<'a, Result<Vec<Listed>, DockerError>> {
            Sockets.running(socket)
        }

        fn look<'a>(
            &'a self,
            socket: &'a Path,
            name: &'a str,
        ) -> Pending<'a, Result<Option<Container>, DockerError>> {
            Sockets.look(socket, name)
        }

        fn act<'a>(
            &'a self,
            socket: &'a Path,
            id: &'a str,
            act: &'a Act,
        ) -> Pending<'a, Result<(), DockerError>> {
            Sockets.act(socket, id, act)
        }
    }
}

fn block_on<T>(act: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(act)
}

const LASTING: [&str; 4] = ["container-disconnect", "container-kill", "container-pause", "container-stop"];

#[test]
fn undo_without_apply_and_undo_twice_find_nothing_to_do() {
    let Some(docker) = Dockerd::shared("undo twice") else { return };
    let _turn = turns(1);
    // With an address that the engine chooses.
    let web = docker.serving("twice", &["--network-alias", "twice-alias"]);
    served(&web, docker);
    let before = web.picture();
    for fault in LASTING {
        block_on(async {
            let (env, change) = prepared(docker, fault, "twice").await;
            assert_eq!(restore(&env, &change).await.unwrap(), Undone::NothingToDo, "{fault} without apply");
            registry::find(fault).unwrap().apply(&env, &change).await.unwrap();
            assert_ne!(web.picture(), before, "{fault}");
            assert_eq!(restore(&env, &change).await.unwrap(), Undone::Reverted, "{fault}");
            assert_eq!(restore(&env, &change).await.unwrap(), Undone::NothingToDo, "{fault} twice");
        });
        until(&format!("{fault}: the picture before"), START, || (web.picture() == before).then_some(()));
    }
}

#[test]
fn a_container_that_is_removed_meanwhile_carries_no_fault_and_one_that_is_restarted_is_left_alone() {
    let Some(docker) = Dockerd::shared("a container that goes") else { return };
    let _turn = turns(1);
    for fault in LASTING {
        let web = docker.serving("going", &[]);
        block_on(async {
            let (env, change) = prepared(docker, fault, "going").await;
            registry::find(fault).unwrap().apply(&env, &change).await.unwrap();
            docker.docker(&["rm", "-f", &web.id]);
            assert_eq!(restore(&env, &change).await.unwrap(), Undone::NothingToDo, "{fault}");
        });
    }
    for (fault, outcome) in [
        ("container-disconnect", Undone::Reverted),
        ("container-kill", Undone::NothingToDo),
        ("container-pause", Undone::Replaced),
        ("container-stop", Undone::NothingToDo),
    ] {
        let web = docker.serving("anew", &[]);
        let before = web.picture();
        block_on(async {
            let (env, change) = prepared(docker, fault, "anew").await;
            registry::find(fault).unwrap().apply(&env, &change).await.unwrap();
            if fault == "container-pause" {
                docker.docker(&["unpause", &web.id]);
            }
            docker.docker(&["restart", "-t", "0", &web.id]);
            assert_eq!(restore(&env, &change).await.unwrap(), outcome, "{fault}");
        });
        until(&format!("{fault}: the picture before"), START, || (web.picture() == before).then_some(()));
    }
}

#[test]
fn without_its_engine_a_container_is_not_restored_and_the_command_is_told_and_with_it_recover_does_it() {
    if quick("an engine that is killed") {
        return;
    }
    let Some(docker) = Dockerd::own("an engine that is killed") else { return };
    let (_turn, home) = (turns(1), Home::new());
    let web = docker.serving("orphan", &[]);
    let before = web.picture();
    let mut going =
        docker.begin(&home, &["inject", "container-pause", "--container", "orphan", "--for", "60s"]);
    going.says("pause orphan", START);
    docker.kill();
    going.signal(rustix::process::Signal::INT);
    let done = going.end().code(5);
    let (client, id) = (format!("docker -H {}", docker.host()), &web.id[..12]);
    let by_hand = format!("{client} unpause {id} || {client} start {id} # orphan");
    assert!(done.err.contains("no container engine answers on"), "{done:?}");
    let failed = home.squall(&["recover"]).code(5);
    assert!(failed.err.contains(&by_hand), "{by_hand}: {failed:?}");
    docker.restart();
    home.squall(&["recover"]).code(0);
    until("the picture before", START, || (web.picture() == before).then_some(()));
    home.assert_nothing_left();
}

#[test]
fn a_container_that_a_run_holds_is_refused_to_another_and_so_is_its_process() {
    let Some(docker) = Dockerd::shared("a held container") else { return };
    let (_turn, home) = (turns(1), Home::new());
    let web = docker.serving("held", &[]);
    let pid_file = home.file("held.pid", &web.pid().to_string()).display().to_string();
    let mut going =
        docker.begin(&home, &["inject", "container-pause", "--container", "held", "--for", "60s"]);
    going.says("pause held", START);
    let elsewhere = ["--runs", "elsewhere", "--for", "1s"];
    let disconnect = ["inject", "container-disconnect", "--container", "held"];
    let refused = docker.squall(&home, &[&disconnect[..], &elsewhere].concat()).code(3);
    assert!(refused.err.contains("container held is paused already"), "{}", refused.err);
    let kill = ["inject", "process-kill", "--pid-file", &pid_file, "--permanent=true"];
    let refused = docker.squall(&home, &[&kill[..], &elsewhere].concat()).code(3);
    assert!(refused.err.contains(&format!("another run holds process {}", web.pid())), "{}", refused.err);
    going.signal(rustix::process::Signal::INT);
    going.end();
    let mut going = docker.begin(&home, &[&disconnect[..], &["--for", "60s"]].concat());
    going.says("detach held", START);
    let pause = ["inject", "container-pause", "--container", "held"];
    let refused = docker.squall(&home, &[&pause[..], &elsewhere].concat()).code(3);
    let claim = format!("another run holds container held ({})", &web.id[..12]);
    assert!(refused.err.contains(&claim), "{}", refused.err);
    going.signal(rustix::process::Signal::INT);
    going.end();
    home.assert_nothing_left();
}

#[test]
fn squall_never_hits_the_container_in_which_it_runs() {
    let Some(docker) = Dockerd::shared("squall inside a container") else { return };
    let (_turn, home) = (turns(1), Home::new());
    let web = docker.serving("around", &["--label", "sq=around"]);
    // A process of ours joins the cgroup of the container, and becomes squall.
    let cgroups = std::fs::read_to_string(format!("/proc/{}/cgroup", web.pid())).unwrap();
    let path = cgroups.lines().find(|line| line.contains(":pids:")).or(cgroups.lines().last()).unwrap();
    let path = path.splitn(3, ':').nth(2).unwrap().to_owned();
    let join = format!(
        "for root in /sys/fs/cgroup/pids /sys/fs/cgroup; do \
         if [ -d $root{path} ]; then echo $$ > $root{path}/cgroup.procs; break; fi; done; exec \"$@\""
    );
    for aim in [&["--container", "around"][..], &["--label", "sq=around", "--pick", "all"]] {
        let mut command = home.command();
        let exe = command.get_program().to_owned();
        let args = ["inject", "container-pause", "--for", "1s"];
        let environment: Vec<_> =
            command.get_envs().map(|(k, v)| (k.to_owned(), v.unwrap().to_owned())).collect();
        command = std::process::Command::new("sh");
        command.env_clear().envs(environment).env("DOCKER_HOST", docker.host());
        command.args(["-c", &join, "sh"]).arg(exe).args(args).args(aim);
        let refused = home.start_as(command).end().code(3);
        assert!(
            refused.err.contains("in which squall runs") || refused.err.contains("squall itself runs in"),
            "{refused:?}"
        );
        assert_eq!(web.status(), "running");
    }
}

#[test]
fn what_cannot_be_is_refused_before_anything_is_touched_with_the_way_out() {
    let Some(docker) = Dockerd::shared("refusals") else { return };
    let (_turn, home) = (turns(1), Home::new());
    let web = docker.serving("refused-1", &["--label", "sq=refused", "--rm"]);
    let lives_in = ["--network", "container:refused-1", "--label", "squall.protect=yes"];
    let guest = docker.run("refused-2", &lives_in, &["sleep", "1000"]);
    let before = (web.inspect(), guest.inspect());
    for (words, says) in [
        (&["container-kill", "--container", "refused-1"][..], "was made with --rm"),
        (
            &["container-restart", "--container", "refused-1"],
            "refused-2 lives in the network namespace of refused-1",
        ),
        (&["container-pause", "--container", "refused-2"], "protected by its label squall.protect"),
        (&["container-pause", "--container", "nobody"], "there is no container nobody"),
        (
            &["container-pause", "--label", "sq=nobody", "--pick", "one"],
            "none of the containers with label sq=nobody runs",
        ),
        (&["container-pause", "--image", "sqbox", "--pick", "200"], "run, not 200"),
        (
            &["container-disconnect", "--container", "refused-1", "--network", "db"],
            "is not attached to network db, only to sqnet",
        ),
    ] {
        let done = docker.squall(&home, &[&["inject"], words, &["--for", "1s"]].concat()).code(3);
        assert!(done.err.contains(says), "{words:?}: {done:?}");
    }
    assert_eq!((web.inspect(), guest.inspect()), before);
    for (host, says) in [
        ("unix:///nowhere/docker.sock", "no container engine answers on /nowhere/docker.sock"),
        ("tcp://192.0.2.1:2375", "only an engine of this host can be used"),
    ] {
        let mut command = home.command();
        command
            .args(["inject", "container-pause", "--container", "refused-1", "--for", "1s"])
            .env("DOCKER_HOST", host);
        let done = home.start_as(command).end().code(3);
        assert!(done.err.contains(says), "{done:?}");
    }
    assert!(home.run_folders().is_empty());
}

#[test]
fn a_user_who_may_not_use_the_engine_is_told_so() {
    use std::os::unix::process::CommandExt;
    let Some(docker) = Dockerd::shared("a user without rights") else { return };
    let (_turn, home) = (turns(1), Home::new());
    let _web = docker.serving("closed", &[]);
    let open = tempfile::Builder::new().prefix("sqe-").tempdir().unwrap();
    let exe = open.path().join("squall");
    std::fs::copy(crate::support::exe(), &exe).unwrap();
    std::os::unix::fs::chown(open.path(), Some(65534), Some(65534)).unwrap();
    let mut command = std::process::Command::new(&exe);
    command.env_clear().uid(65534).gid(65534).current_dir("/").env("DOCKER_HOST", docker.host());
    command.env("XDG_RUNTIME_DIR", open.path()).env("SQUALL_RUNS", open.path().join("runs"));
    command.args(["inject", "container-pause", "--container", "closed", "--for", "1s"]);
    let done = home.start_as(command).end().code(3);
    assert!(done.err.contains("is closed to this user: run squall as root"), "{done:?}");
}

#[test]
fn the_doctor_says_which_engine_answers() {
    let Some(docker) = Dockerd::shared("the doctor") else { return };
    let home = Home::new();
    let done = docker.squall(&home, &["doctor"]).code(0);
    let version = docker.docker(&["version", "--format", "{{.Server.Version}}"]);
    assert!(done.out.contains(&format!("Docker {version}, API ")), "{}", done.out);
}

/// Scenarios of the catalogue. Their containers have addresses of their own from here on, two each.
const SCENARIOS: [&str; 5] = [
    "container-crash.yaml",
    "container-detached.yaml",
    "container-hung.yaml",
    "container-rolling-restart.yaml",
    "container-stopped.yaml",
];
const ADDRESSES: usize = 60;

/// One of them, on two containers behind HAProxy.
fn scenario(file: &str, code: i32) -> Option<Value> {
    use std::process::{Command, Stdio};
    if quick(file) {
        return None;
    }
    let docker = Dockerd::shared(file)?;
    let haproxy = crate::support::server::program("haproxy")?;
    let (_turn, home) = (turns(1), Home::new());
    let label = format!("app={}", file.trim_end_matches(".yaml"));
    let first = ADDRESSES + 2 * SCENARIOS.iter().position(|one| *one == file).unwrap();
    // A front that finds them by address needs the same ones after a restart.
    let pages = [("a", first), ("b", first + 1)].map(|(name, last)| {
        let options = ["--label", &label, "--restart", "always", "--ip", &format!("10.88.0.{last}")];
        docker.serving(&format!("{}-{name}", &label[4..]), &options)
    });
    let port = crate::support::server::free_port().to_string();
    let config = std::fs::read_to_string(root().join("scenarios/real/containers/haproxy.cfg")).unwrap();
    let config = config.replace("18091", &port).replace(" resolvers docker init-addr last,libc,none", "");
    let config = config.replace("a a:80", &format!("a {}:80", pages[0].address()));
    let config = home.file("haproxy.cfg", &config.replace("b b:80", &format!("b {}:80", pages[1].address())));
    let mut front = docker.inside(|| {
        let mut front = Command::new(haproxy);
        front.arg("-db").arg("-f").arg(config).stdin(Stdio::null());
        front.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    });
    let text = std::fs::read_to_string(root().join("scenarios/real").join(file)).unwrap();
    let text =
        text.replace("label: app=web", &format!("label: {label}")).replace("${FRONT_PORT:-18091}", &port);
    let text = home.file(file, &text);
    let run = ["run", text.to_str().unwrap(), "--seed", "5", "--quiet"];
    until("an answer of the front", START, || {
        let get = || crate::support::client::get(&format!("127.0.0.1:{port}"), "/index.html", ALONE);
        docker.inside(get).ok().filter(|(status, _)| *status == 200)
    });
    let done = home.clearly(|| docker.squall(&home, &run)).code(code);
    front.kill().unwrap();
    front.wait().unwrap();
    let record = home.record();
    assert_eq!(record["injections"][0]["proof"]["status"], "confirmed", "{done:?}");
    assert_eq!(record["restoration"]["verified"], true);
    Some(record)
}

#[test]
fn a_crash_of_one_of_two_containers_behind_haproxy_is_hidden_and_its_restart_policy_has_it_back() {
    let Some(record) = scenario("container-crash.yaml", 0) else { return };
    let proof = &record["injections"][0]["proof"];
    assert!(proof["measured"].as_str().unwrap().starts_with("1 of 1 gone, 1 back after"), "{proof}");
}

#[test]
fn a_hang_of_one_of_two_containers_behind_haproxy_shows_in_the_tail() {
    let Some(record) = scenario("container-hung.yaml", 1) else { return };
    let reasons = record["judgement"]["reasons"].to_string();
    assert!(reasons.contains("p95") && !reasons.contains("availability"), "{reasons}");
}

#[test]
fn a_rolling_restart_of_all_containers_behind_haproxy_is_hidden() {
    let Some(record) = scenario("container-rolling-restart.yaml", 0) else { return };
    let proof = &record["injections"][0]["proof"];
    assert!(proof["measured"].as_str().unwrap().contains("2 of 2 lives are over"), "{proof}");
}

#[test]
fn a_stop_of_one_of_two_containers_behind_haproxy_is_hidden_and_its_restart_policy_does_not_undo_it() {
    let Some(record) = scenario("container-stopped.yaml", 0) else { return };
    let proof = &record["injections"][0]["proof"];
    assert!(proof["measured"].as_str().unwrap().starts_with("1 of 1 gone (exit code"), "{proof}");
}

#[test]
fn a_container_without_its_network_is_hidden_by_haproxy_and_is_found_again_afterwards() {
    scenario("container-detached.yaml", 0);
}
