//! The conformance suite on a fake world: every fault of the registry obeys the law, at each call of each step.
//! `tests/e2e/conformance.rs` is the other arm, on real processes and sockets.

mod names_tests;
mod network_tests;
mod pressure_tests;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::about::{ParamKind, Presence, Value as Arg};
use crate::containers::Containers;
use crate::fake_docker_tests::{LABEL, NAME};
use crate::fake_network_tests::INTERFACE;
use crate::fake_pressure_tests::GROUP;
use crate::fake_tests::{Failure, INSTANCE, PORT, World};
use crate::flows::Flows;
use crate::group::Group;
use crate::restore::restore;
use crate::traffic::Traffic;
use crate::{
    Args, Change, Env, InjectError, Injector, Inventory, ProofStatus, Request, Target, Undone, registry,
};

/// One fault in a form that the fake world can carry.
struct Row {
    fault: &'static str,
    /// Parameters as a user writes them; the items of a list are parted by blanks.
    args: &'static [(&'static str, &'static str)],
    aim: Aim,
    /// Whether its proof needs no traffic: the fake world has none.
    state: bool,
    undone: Undone,
    /// Whether there is something to undo once it is applied.
    lasting: bool,
}

#[derive(Clone, Copy)]
enum Aim {
    Instance,
    Port,
    Container,
    AllContainers,
    Pop,
    Packets,
    Named,
    Around,
    BothWays,
    Inside,
    Flows(&'static str),
    FlowsInside,
    Resolver,
    Group,
    GroupOfContainer,
    Host,
    Volume,
    Nothing,
}

const fn row(fault: &'static str, args: &'static [(&'static str, &'static str)], aim: Aim) -> Row {
    Row { fault, args, aim, state: false, undone: Undone::Reverted, lasting: true }
}

const fn state(fault: &'static str, args: &'static [(&'static str, &'static str)], aim: Aim) -> Row {
    Row { state: true, ..row(fault, args, aim) }
}

const RESTART: &[(&str, &str)] = &[("restart", "nginx")];

/// Every fault of the registry, at least once.
const ROWS: &[Row] = &[
    state("command", &[("do", "break it"), ("undo", "mend"), ("effect", "broken")], Aim::Nothing),
    Row { undone: Undone::Passed, ..state("connection-reset", &[("share", "50%")], Aim::Flows("10.0.0.2")) },
    Row { undone: Undone::Passed, ..state("connection-reset", &[("share", "50%")], Aim::FlowsInside) },
    state("container-disconnect", &[], Aim::Container),
    state("container-disconnect", &[("network", "all")], Aim::AllContainers),
    state("container-kill", &[], Aim::Container),
    state("container-kill", &[("signal", "TERM")], Aim::AllContainers),
    Row { undone: Undone::Overdue, ..state("container-kill", &[("comes-back", "20ms")], Aim::AllContainers) },
    Row {
        undone: Undone::Permanent,
        ..state("container-kill", &[("permanent", "true")], Aim::AllContainers)
    },
    state("container-pause", &[], Aim::Container),
    state("container-pause", &[], Aim::AllContainers),
    Row {
        undone: Undone::NothingToDo,
        lasting: false,
        ..state("container-restart", &[], Aim::AllContainers)
    },
    state("container-stop", &[("grace", "1s")], Aim::AllContainers),
    row("cpu-stress", &[("cores", "2"), ("load", "50%")], Aim::Host),
    row("cpu-stress", &[("cores", "1"), ("load", "50%")], Aim::Group),
    row("cpu-stress", &[("cores", "1"), ("load", "50%")], Aim::GroupOfContainer),
    row("cpu-throttle", &[("cores", "0.5")], Aim::Group),
    row("cpu-throttle", &[("cores", "0.5")], Aim::GroupOfContainer),
    row("disk-fill", &[("size", "1GiB")], Aim::Volume),
    state("dns-fault", &[("answer", "servfail"), ("share", "100%")], Aim::Resolver),
    state("dns-fault", &[("answer", "servfail"), ("share", "100%")], Aim::FlowsInside),
    state("fd-exhaust", &[("spare", "0")], Aim::Instance),
    state("fd-exhaust", &[("spare", "0")], Aim::Port),
    row("http-abort", &[("status", "503"), ("share", "50%")], Aim::Instance),
    row("http-delay", &[("delay", "20ms")], Aim::Instance),
    row("http-header", &[("on", "request"), ("remove", "cookie")], Aim::Instance),
    row("http-truncate", &[("bytes", "1B"), ("share", "50%")], Aim::Instance),
    row("io-limit", &[("path", "/"), ("write", "1MB/s"), ("read-ops", "100/s")], Aim::Group),
    row("io-stress", &[("workers", "2")], Aim::Volume),
    row("memory-limit", &[("size", "512MiB")], Aim::Group),
    row("memory-stress", &[("size", "64MiB"), ("ramp", "1s")], Aim::Group),
    row("memory-stress", &[("fill", "80%")], Aim::Host),
    row("network-corrupt", &[("share", "5%"), ("correlation", "25%")], Aim::Packets),
    row("network-delay", &[("delay", "20ms"), ("jitter", "5ms")], Aim::Packets),
    row("network-delay", &[("delay", "20ms"), ("reorder", "10%"), ("gap", "5")], Aim::Around),
    row("network-duplicate", &[("share", "5%")], Aim::Packets),
    row("network-loss", &[("share", "5%")], Aim::Packets),
    row("network-loss", &[("model", "gilbert-elliott"), ("to-bad", "1%"), ("to-good", "20%")], Aim::BothWays),
    row("network-loss", &[("share", "5%"), ("correlation", "50%")], Aim::Named),
    row("network-loss", &[("share", "5%")], Aim::Inside),
    row("network-loss", &[("share", "5%"), ("by", "nft")], Aim::BothWays),
    state("network-partition", &[], Aim::Flows("10.0.0.2")),
    state("network-partition", &[("by", "reset")], Aim::Flows("fd00::2")),
    state("network-partition", &[], Aim::FlowsInside),
    state("network-partition", &[], Aim::Flows("api.example.org")),
    row("network-rate", &[("rate", "1mbit")], Aim::BothWays),
    row("network-rate", &[("rate", "1mbit"), ("by", "tbf")], Aim::Packets),
    row("pop-drain", &[("steps", "50% 0%"), ("soak", "1s")], Aim::Pop),
    state("port-block", &[("by", "reject")], Aim::Flows("10.0.0.2")),
    state("process-freeze", &[], Aim::Group),
    state("process-kill", &[], Aim::Instance),
    state("process-kill", RESTART, Aim::Port),
    Row { undone: Undone::Permanent, ..state("process-kill", &[("permanent", "true")], Aim::Port) },
    state("process-pause", &[], Aim::Instance),
    state("process-pause", &[], Aim::Port),
    row("relay-bandwidth", &[("rate", "1mbit")], Aim::Instance),
    row("relay-blackhole", &[], Aim::Instance),
    row("relay-latency", &[("delay", "20ms")], Aim::Instance),
    row("relay-limit-data", &[("bytes", "1kB")], Aim::Instance),
    row("relay-refuse", &[], Aim::Instance),
    row("relay-reset", &[("share", "50%")], Aim::Instance),
    row("relay-slice", &[("size", "10B"), ("delay", "1ms")], Aim::Instance),
    row("relay-slow-close", &[("delay", "50ms")], Aim::Instance),
];

fn packets(direction: &str) -> Target {
    packets_by(&[("interface", INTERFACE), ("direction", direction)])
}

fn containers(given: &[(&'static str, &str)]) -> Target {
    let given = given.iter().map(|(name, text)| (*name, (*text).to_owned())).collect();
    Target::Containers(Containers::read(&given).unwrap().unwrap())
}

fn packets_by(given: &[(&'static str, &str)]) -> Target {
    let given = given.iter().map(|(name, text)| (*name, (*text).to_owned())).collect();
    Target::Traffic(Traffic::read(&given).unwrap())
}

impl Row {
    /// Whether what it does stays done.
    fn stays(&self) -> bool {
        matches!(self.undone, Undone::Permanent | Undone::Passed)
    }

    fn injector(&self) -> &'static dyn Injector {
        registry::find(self.fault).unwrap()
    }

    fn request(&self) -> Request {
        let mut args = BTreeMap::new();
        for param in self.injector().about().params {
            let written = self.args.iter().find(|(name, _)| *name == param.name).map(|(_, text)| *text);
            let default = if let Presence::Default(text) = param.presence { Some(text) } else { None };
            let Some(text) = written.or(default) else { continue };
            let value = match param.kind {
                ParamKind::Argv => Arg::Argv(text.split(' ').map(str::to_owned).collect()),
                ParamKind::Shares => Arg::Shares(text.split(' ').map(|item| item.parse().unwrap()).collect()),
                kind => kind.parse(text).unwrap(),
            };
            args.insert(param.name.to_owned(), value);
        }
        let target = match self.aim {
            Aim::Instance => Target::Instance { service: "auth".to_owned(), instance: INSTANCE.to_owned() },
            Aim::Port => Target::Port(PORT),
            Aim::Container => containers(&[("container", NAME)]),
            Aim::AllContainers => containers(&[("label", LABEL), ("pick", "all")]),
            Aim::Pop => Target::Pop("fra".to_owned()),
            Aim::Packets => packets("out"),
            Aim::Named => packets_by(&[("to", "api.example.org")]),
            Aim::Around => packets_by(&[("instance", INSTANCE), ("direction", "both")]),
            Aim::BothWays => packets("both"),
            Aim::Inside => {
                let given = [("container", NAME), ("interface", INTERFACE)];
                let given = given.map(|(name, text)| (name, text.to_owned())).into();
                Target::Traffic(Traffic::read(&given).unwrap())
            }
            Aim::Resolver => {
                let given = [("to", "10.0.0.53".to_owned())].into();
                Target::Flows(Flows::read(&given).unwrap())
            }
            Aim::FlowsInside => {
                let given = [("container", NAME), ("to", "10.0.0.2"), ("ports", "443")];
                let given = given.map(|(name, text)| (name, text.to_owned()));
                Target::Flows(Flows::read(&given.into()).unwrap())
            }
            Aim::Flows(to) => {
                let given = [("to", to), ("ports", "443")].map(|(name, text)| (name, text.to_owned()));
                Target::Flows(Flows::read(&given.into()).unwrap()).called(&Args(args.clone()))
            }
            Aim::Group => Target::Group(Group::Path(GROUP.to_owned())),
            Aim::GroupOfContainer => {
                Target::Group(Group::read(&[("container", NAME.to_owned())].into()).unwrap())
            }
            Aim::Volume => Target::Volume("/var/log".into()),
            Aim::Host => Target::Group(Group::Host),
            Aim::Nothing => Target::Nothing.called(&Args(args.clone())),
        };
        Request { id: "run/1".to_owned(), args: Args(args), target, seed: 5 }
    }

    /// A world with this fault prepared, and the ports of somebody who knows the record alone.
    async fn prepared(&self) -> (World, Env, Change) {
        let world = World::new();
        let before = world.look();
        let request = self.request();
        self.injector().check(&request.args, &request.target).unwrap();
        let env = world.env(world.inventory());
        let change = self.injector().prepare(&env, &request).await.unwrap();
        assert_eq!(world.look(), before, "{}: prepare wrote", self.fault);
        assert!(world.state().signalled.is_empty(), "{}: prepare signalled", self.fault);
        let told: Change = serde_json::from_str(&serde_json::to_string(&change).unwrap()).unwrap();
        assert_eq!(told, change, "{}: the journal changes it", self.fault);
        let blind = world.env(Inventory::default());
        (world, blind, told)
    }

    async fn apply(&self, env: &Env, change: &Change) -> Result<(), InjectError> {
        self.injector().apply(env, change).await
    }

    async fn undo(&self, env: &Env, change: &Change) -> Undone {
        self.injector().undo(env, &change.undo).await.unwrap()
    }
}

#[test]
fn every_fault_of_the_registry_has_a_row_and_every_row_a_fault() {
    let known: Vec<&str> = registry::INJECTORS.iter().map(|injector| injector.about().name).collect();
    let mut rows: Vec<&str> = ROWS.iter().map(|row| row.fault).collect();
    rows.dedup();
    assert_eq!(rows, known);
}

#[tokio::test]
async fn apply_changes_what_the_picture_shows_and_undo_brings_it_back_once() {
    for row in ROWS {
        let (world, env, change) = row.prepared().await;
        let (before, fault) = (world.look(), row.fault);
        assert!(!change.claims.is_empty() && !change.manual.is_empty(), "{fault}");
        row.apply(&env, &change).await.unwrap();
        assert!(!row.lasting || world.look() != before, "{fault}: apply changed nothing");
        let proof = row.injector().observe(&env, &change).await.unwrap();
        let expected = if row.state { ProofStatus::Confirmed } else { ProofStatus::Unproven };
        assert_eq!(proof.status, expected, "{fault}: {proof:?}");
        if row.stays() {
            assert_eq!(restore(&env, &change).await.unwrap(), row.undone, "{fault}");
            continue;
        }
        let during = row.injector().picture(&env, &change.undo).await.unwrap();
        assert!(!row.lasting || during != change.picture, "{fault}: the picture does not show it");
        assert_eq!(restore(&env, &change).await.unwrap(), row.undone, "{fault}");
        assert_eq!(world.look(), before, "{fault}: undo left a trace");
        assert_eq!(restore(&env, &change).await.unwrap(), Undone::NothingToDo, "{fault}: undo twice");
        // A late heartbeat must not revive it; whether it is an error is the carrier's affair.
        let _ = row.injector().renew(&env, &change, Duration::from_secs(1)).await;
        assert_eq!(world.look(), before, "{fault}: a renewal revived it");
    }
}

#[tokio::test]
async fn undo_without_apply_does_nothing() {
    for row in ROWS {
        let (world, env, change) = row.prepared().await;
        let before = world.look();
        assert_eq!(restore(&env, &change).await.unwrap(), Undone::NothingToDo, "{}", row.fault);
        assert_eq!(world.look(), before, "{}", row.fault);
    }
}

#[tokio::test]
async fn whatever_call_of_apply_fails_undo_brings_everything_back_or_says_that_it_cannot() {
    for row in ROWS {
        for failure in [Failure::Refused, Failure::Unheard] {
            for number in 1.. {
                let (world, env, change) = row.prepared().await;
                let before = world.look();
                world.fail(Some((number, failure)));
                let applied = row.apply(&env, &change).await;
                let reached = world.calls() >= number;
                world.fail(None);
                let at = format!("{} {:?}, {failure:?} at call {number}", row.fault, row.args);
                assert_eq!(applied.is_err(), reached, "{at}: {applied:?}");
                let undone = row.injector().undo(&env, &change.undo).await;
                let whole = row.stays() || world.look() == before;
                assert_eq!(undone.is_ok(), whole, "{at}: {undone:?}, {}", world.look());
                if whole {
                    restore(&env, &change).await.unwrap_or_else(|error| panic!("{at}: {error}"));
                } else {
                    // Half of a server that was killed cannot be started again, and nothing else ends half undone.
                    let error = undone.unwrap_err().to_string();
                    assert!(
                        error.contains("1 of 2 processes are gone and the others run on"),
                        "{at}: {error}"
                    );
                }
                if !reached {
                    break;
                }
            }
        }
    }
}

#[tokio::test]
async fn an_undo_that_fails_at_any_call_can_be_repeated() {
    for row in ROWS.iter().filter(|row| row.undone == Undone::Reverted) {
        for failure in [Failure::Refused, Failure::Unheard] {
            for number in 1.. {
                let (world, env, change) = row.prepared().await;
                let before = world.look();
                row.apply(&env, &change).await.unwrap();
                world.fail(Some((number, failure)));
                let _ = row.injector().undo(&env, &change.undo).await;
                let reached = world.calls() >= number;
                world.fail(None);
                let at = format!("{} {:?}, {failure:?} at call {number}", row.fault, row.args);
                restore(&env, &change).await.unwrap_or_else(|error| panic!("{at}: {error}"));
                assert_eq!(world.look(), before, "{at}");
                if !reached {
                    break;
                }
            }
        }
    }
}

#[tokio::test]
async fn a_process_that_has_got_the_number_of_another_is_never_signalled() {
    for row in ROWS.iter().filter(|row| row.fault.starts_with("process-")) {
        let (world, env, change) = row.prepared().await;
        world.reuse_all_numbers();
        let _ = row.apply(&env, &change).await;
        let _ = row.injector().undo(&env, &change.undo).await;
        assert!(world.state().signalled.is_empty(), "{}: between prepare and apply", row.fault);

        let (world, env, change) = row.prepared().await;
        row.apply(&env, &change).await.unwrap();
        world.reuse_all_numbers();
        let _ = row.injector().undo(&env, &change.undo).await;
        assert!(world.state().signalled.is_empty(), "{}: between apply and undo", row.fault);
    }
}

#[tokio::test]
async fn a_paused_process_that_somebody_else_has_ended_is_not_restored_before_another_is_in_its_place() {
    let row = ROWS.iter().find(|row| row.fault == "process-pause").unwrap();
    let (world, env, change) = row.prepared().await;
    row.apply(&env, &change).await.unwrap();
    world.end_all();
    let error = restore(&env, &change).await.unwrap_err().to_string();
    assert!(error.contains("has ended while it was paused, and squall did not end it"), "{error}");
    world.bear_instance();
    assert_eq!(restore(&env, &change).await.unwrap(), Undone::Replaced);
}

#[tokio::test]
async fn a_server_that_is_slow_to_start_is_started_once_however_often_its_undo_is_tried() {
    let row = ROWS.iter().find(|row| row.args == RESTART).unwrap();
    let (world, env, change) = row.prepared().await;
    row.apply(&env, &change).await.unwrap();
    world.state().deaf = true;
    for _ in 0..2 {
        // Each by another process: nothing but the record and the world is known.
        let error = row.injector().undo(&world.env(Inventory::default()), &change.undo).await.unwrap_err();
        assert!(error.to_string().contains("`nginx` still runs: nginx 50000"), "{error}");
    }
    assert_eq!(world.state().starts, 1);
    world.listen();
    assert_eq!(row.undo(&env, &change).await, Undone::NothingToDo);
    assert_eq!(world.state().starts, 1);
}

#[tokio::test]
async fn a_program_that_is_not_there_is_refused_before_anything_is_touched() {
    let words = |text: &str| Arg::Argv(vec![text.to_owned()]);
    for (row, param) in ROWS.iter().flat_map(|row| {
        let params: &[&str] = match row.fault {
            "command" => &["do", "undo", "effect"],
            "process-kill" if row.args == RESTART => &["restart"],
            _ => &[],
        };
        params.iter().map(move |param| (row, *param))
    }) {
        let world = World::new();
        let mut request = row.request();
        request.args.0.insert(param.to_owned(), words("python3 srv.py"));
        let env = world.env(world.inventory());
        let error = row.injector().prepare(&env, &request).await.unwrap_err().to_string();
        let help = "write one word per list item: [python3, srv.py]";
        assert_eq!(error, format!("{param}: no program `python3 srv.py`; {help}"));
    }
}

#[tokio::test]
async fn a_pop_that_another_drains_is_left_to_it_before_and_after() {
    let row = ROWS.iter().find(|row| row.fault == "pop-drain").unwrap();
    let world = World::new();
    let env = world.env(world.inventory());
    world.foreign_drain(true);
    let error = row.injector().prepare(&env, &row.request()).await.unwrap_err().to_string();
    assert_eq!(error, "PoP fra is drained already by another injection");
    world.foreign_drain(false);
    // The other is faster, and this one must not wait for its end.
    let (world, env, change) = row.prepared().await;
    world.foreign_drain(true);
    row.apply(&env, &change).await.unwrap_err();
    assert_eq!(restore(&env, &change).await, Ok(Undone::NothingToDo));
}

#[tokio::test]
async fn a_restart_that_fails_says_why() {
    let row = ROWS.iter().find(|row| row.args == RESTART).unwrap();
    let (world, env, change) = row.prepared().await;
    row.apply(&env, &change).await.unwrap();
    world.state().unstartable = true;
    let error = row.injector().undo(&env, &change.undo).await.unwrap_err().to_string();
    assert_eq!(error, "`nginx` ended with code 7: bind: address in use");
    world.state().unstartable = false;
    assert_eq!(row.undo(&env, &change).await, Undone::Reverted);
}
