//! The container faults on the fake engine: whom they never hit, and what they do when others meddle.

use crate::about::{Args, Value as Arg};
use crate::containers::Containers;
use crate::fake_docker_tests::LABEL;
use crate::fake_tests::World;
use crate::restore::{by_hand, restore};
use crate::sys::docker::{Act, Endpoint, Status};
use crate::{Change, Env, InjectError, Inventory, ProofStatus, Request, Target, Undone, registry};

const ALL: [(&str, &str); 2] = [("label", LABEL), ("pick", "all")];

fn request(given: &[(&'static str, &str)], args: &[(&str, Arg)], seed: u64) -> Request {
    let given = given.iter().map(|(name, text)| (*name, (*text).to_owned())).collect();
    let target = Target::Containers(Containers::read(&given).unwrap().unwrap());
    let args = args.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    Request { id: "run/1".to_owned(), args: Args(args), target, seed }
}

async fn prepare(world: &World, fault: &str, request: &Request) -> Result<Change, InjectError> {
    registry::find(fault).unwrap().prepare(&world.env(Inventory::default()), request).await
}

async fn refused(world: &World, fault: &str, given: &[(&'static str, &str)]) -> String {
    prepare(world, fault, &request(given, &[], 1)).await.unwrap_err().to_string()
}

async fn hit(world: &World, fault: &str, given: &[(&'static str, &str)]) -> (Env, Change) {
    let change = prepare(world, fault, &request(given, &[], 1)).await.unwrap();
    let env = world.env(Inventory::default());
    registry::find(fault).unwrap().apply(&env, &change).await.unwrap();
    (env, change)
}

#[tokio::test]
async fn one_of_several_is_chosen_by_the_seed_and_a_change_names_it_whole() {
    let world = World::new();
    let mut chosen = std::collections::BTreeSet::new();
    for seed in 0..16 {
        let request = request(&[("label", LABEL), ("pick", "one")], &[], seed);
        let change = prepare(&world, "container-pause", &request).await.unwrap();
        assert_eq!(change, prepare(&world, "container-pause", &request).await.unwrap(), "seed {seed}");
        let each = change.undo["hits"]["each"].as_array().unwrap().clone();
        assert_eq!(each.len(), 1);
        assert_eq!(each[0]["id"].as_str().unwrap().len(), 64, "the full id");
        assert!(each[0]["process"]["start_ticks"].is_number() && each[0]["started"].is_string(), "{each:?}");
        assert!(change.claims.iter().any(|claim| claim.starts_with("process:")), "{:?}", change.claims);
        chosen.insert(each[0]["name"].to_string());
    }
    assert_eq!(chosen.len(), 2, "both are chosen at some time");
}

#[tokio::test]
async fn never_more_are_hit_than_the_user_wrote() {
    let world = World::new();
    let several = refused(&world, "container-pause", &[("image", "box")]).await;
    assert!(several.contains("2 containers of image box run: say how many"), "{several}");
    let few = refused(&world, "container-pause", &[("label", LABEL), ("pick", "3")]).await;
    assert!(few.contains("only 2 containers with label app=web run, not 3"), "{few}");
    let none = refused(&world, "container-pause", &[("label", "app=db"), ("pick", "one")]).await;
    assert!(none.contains("none of the containers with label app=db runs"), "{none}");
    let none = refused(&world, "container-pause", &[("container", "db")]).await;
    assert_eq!(none, "there is no container db");
}

#[tokio::test]
async fn what_is_protected_and_what_squall_runs_in_is_never_hit() {
    let world = World::new();
    world.state().container_mut("web-1").labels.insert("squall.protect".to_owned(), String::new());
    let named = refused(&world, "container-kill", &[("container", "web-1")]).await;
    assert!(named.contains("protected by its label squall.protect"), "{named}");
    let change = prepare(&world, "container-kill", &request(&ALL, &[], 1)).await.unwrap();
    assert!(change.summary.contains("web-2") && !change.summary.contains("web-1"), "{}", change.summary);

    let own = world.state().container_mut("web-2").id.clone();
    world.state().fleet.enclosing.insert(own);
    let named = refused(&world, "container-kill", &[("container", "web-2")]).await;
    assert!(named.contains("squall itself runs in container web-2"), "{named}");
    let labelled = refused(&world, "container-kill", &ALL).await;
    assert!(
        labelled.contains("besides 2 in which squall runs or which squall.protect protects"),
        "{labelled}"
    );
}

#[tokio::test]
async fn what_no_undo_could_bring_back_is_refused() {
    let world = World::new();
    world.state().container_mut("web-1").auto_remove = true;
    for fault in ["container-kill", "container-stop"] {
        let fleeting = refused(&world, fault, &[("container", "web-1")]).await;
        assert!(fleeting.contains("was made with --rm"), "{fleeting}");
    }
    world.state().container_mut("web-1").auto_remove = false;
    let host = world.state().container_mut("web-1").id.clone();
    world.state().container_mut("web-2").network_mode = format!("container:{host}");
    for fault in ["container-kill", "container-stop", "container-restart"] {
        let shared = refused(&world, fault, &[("container", "web-1")]).await;
        assert!(shared.contains("web-2 lives in the network namespace of web-1"), "{shared}");
    }
    let guest = refused(&world, "container-disconnect", &[("container", "web-2")]).await;
    assert!(guest.contains("has no network of its own"), "{guest}");
    prepare(&world, "container-pause", &request(&ALL, &[], 1)).await.unwrap();
}

#[tokio::test]
async fn what_somebody_else_has_paused_or_stopped_is_left_to_them() {
    let world = World::new();
    world.state().container_mut("web-1").status = Status::Paused;
    let paused = refused(&world, "container-pause", &ALL).await;
    assert_eq!(paused, "container web-1 is paused already, by somebody else");
    world.state().container_mut("web-1").status = Status::Running;
    let (env, change) = hit(&world, "container-stop", &[("container", "web-1")]).await;
    assert_eq!(
        refused(&world, "container-kill", &[("container", "web-1")]).await,
        "container web-1 does not run"
    );
    restore(&env, &change).await.unwrap();
}

#[tokio::test]
async fn a_container_that_somebody_has_removed_meanwhile_carries_no_fault() {
    for fault in ["container-kill", "container-pause", "container-stop", "container-disconnect"] {
        let world = World::new();
        let (env, change) = hit(&world, fault, &ALL).await;
        world.state().remove_container("web-1");
        assert_eq!(restore(&env, &change).await.unwrap(), Undone::Reverted, "{fault}: the other is undone");
        world.state().remove_container("web-2");
        assert_eq!(restore(&env, &change).await.unwrap(), Undone::NothingToDo, "{fault}");
    }
}

#[tokio::test]
async fn a_container_that_somebody_has_started_anew_meanwhile_is_left_as_it_is() {
    for (fault, outcome) in [("container-pause", Undone::Replaced), ("container-kill", Undone::NothingToDo)] {
        let world = World::new();
        let (env, change) = hit(&world, fault, &[("container", "web-1")]).await;
        world.state().restart_by_hand("web-1");
        let during = world.look();
        assert_eq!(restore(&env, &change).await.unwrap(), outcome, "{fault}");
        assert_eq!(world.look(), during, "{fault}");
        // Nor is it let go, if it is the new life that somebody has frozen.
        world.state().container_mut("web-1").status = Status::Paused;
        let _ = registry::find(fault).unwrap().undo(&env, &change.undo).await;
        assert_eq!(world.state().container_mut("web-1").status, Status::Paused, "{fault}");
    }
}

#[tokio::test]
async fn a_paused_container_that_somebody_has_ended_is_not_restored_before_it_runs() {
    let world = World::new();
    let (env, change) = hit(&world, "container-pause", &[("container", "web-1")]).await;
    world.end_all();
    let error = restore(&env, &change).await.unwrap_err().to_string();
    assert!(error.contains("has ended while it was paused, and squall did not end it: docker -H"), "{error}");
    world.state().restart_by_hand("web-1");
    assert_eq!(restore(&env, &change).await.unwrap(), Undone::Replaced);
}

#[tokio::test]
async fn without_the_engine_nothing_is_called_undone_and_the_command_is_told() {
    for (fault, command) in [
        ("container-kill", "start 000000000000 # web-1"),
        (
            "container-pause",
            "unpause 000000000000 || docker -H unix:///docker.sock start 000000000000 # web-1",
        ),
        ("container-stop", "start 000000000000 # web-1"),
        (
            "container-disconnect",
            "network disconnect backend 000000000000 2>/dev/null; docker -H unix:///docker.sock network connect --ip 10.88.0.1 \
             --alias front backend 000000000000",
        ),
    ] {
        let world = World::new();
        let before = world.look();
        let (env, change) = hit(&world, fault, &[("container", "web-1")]).await;
        world.state().fleet.silent = true;
        let error = restore(&env, &change).await.unwrap_err().to_string();
        assert!(error.contains("no container engine answers on /docker.sock"), "{error}");
        assert_eq!(by_hand(&env, &change), format!("docker -H unix:///docker.sock {command}"));
        world.state().fleet.silent = false;
        assert_eq!(restore(&env, &change).await.unwrap(), Undone::Reverted, "{fault}");
        assert_eq!(world.look(), before, "{fault}");
    }
}

#[tokio::test]
async fn one_network_of_several_is_named_or_refused() {
    let world = World::new();
    let mut second = world.state().container_mut("web-1").networks["backend"].clone();
    second.network = "m".repeat(64);
    world.state().container_mut("web-1").networks.insert("front".to_owned(), second);
    let several = refused(&world, "container-disconnect", &[("container", "web-1")]).await;
    assert!(several.contains("has several networks: name one, or all: network: backend, front"), "{several}");
    let detach =
        |network: &str| request(&[("container", "web-1")], &[("network", Arg::Text(network.to_owned()))], 1);
    let strange = prepare(&world, "container-disconnect", &detach("db")).await.unwrap_err().to_string();
    assert!(strange.contains("is not attached to network db, only to backend, front"), "{strange}");
    let change = prepare(&world, "container-disconnect", &detach("backend")).await.unwrap();
    assert!(change.summary.ends_with("from backend"), "{}", change.summary);
}

#[tokio::test]
async fn restarts_one_by_one_go_on_with_the_age_of_the_fault_and_each_comes_once() {
    let world = World::new();
    let every = Arg::Span("5s".parse().unwrap());
    let change = prepare(&world, "container-restart", &request(&ALL, &[("every", every)], 1)).await.unwrap();
    let (env, injector) = (world.env(Inventory::default()), registry::find("container-restart").unwrap());
    injector.apply(&env, &change).await.unwrap();
    let births = || {
        let started = |name: &str| world.state().container_mut(name).started.clone();
        (started("web-1"), started("web-2"))
    };
    let first = births();
    assert_eq!(first, ("birth 3".to_owned(), "birth 2".to_owned()));
    for (age, second) in [(1, "birth 2"), (4, "birth 2"), (5, "birth 4"), (6, "birth 4"), (20, "birth 4")] {
        injector.renew(&env, &change, std::time::Duration::from_secs(age)).await.unwrap();
        assert_eq!(births(), ("birth 3".to_owned(), second.to_owned()), "at {age} s");
    }
}

/// A network fault of the first container, aimed as this kind of fault is.
fn inside(fault: &str) -> Request {
    let share = |text: &str| ("share".to_owned(), Arg::Share(text.parse().unwrap()));
    let given = |more: [(&'static str, &str); 2]| more.map(|(name, text)| (name, text.to_owned())).into();
    let (target, args) = match fault {
        "network-loss" => {
            let given = given([("container", "web-1"), ("interface", "eth0")]);
            (Target::Traffic(crate::traffic::Traffic::read(&given).unwrap()), vec![share("5%")])
        }
        _ => {
            let given = given([("container", "web-1"), ("to", "10.0.0.2")]);
            let answer = ("answer".to_owned(), Arg::Text("servfail".to_owned()));
            (Target::Flows(crate::flows::Flows::read(&given).unwrap()), vec![share("100%"), answer])
        }
    };
    Request { id: "run/1".to_owned(), args: Args(args.into_iter().collect()), target, seed: 1 }
}

#[tokio::test]
async fn a_network_fault_follows_a_container_into_its_next_life_and_is_taken_away_there() {
    for fault in ["network-loss", "network-partition", "dns-fault"] {
        let world = World::new();
        let before = world.look();
        let change = prepare(&world, fault, &inside(fault)).await.unwrap();
        assert!(change.manual.contains("docker -H unix:///docker.sock inspect"), "{}", change.manual);
        assert!(change.manual.ends_with(" # web-1"), "{}", change.manual);
        assert!(
            change.summary.contains("(web-1 (000000000000") || fault == "dns-fault",
            "{}",
            change.summary
        );
        let (env, injector) = (world.env(Inventory::default()), registry::find(fault).unwrap());
        injector.apply(&env, &change).await.unwrap();
        let raised = world.look()["network"].clone();
        for life in 1..=2 {
            world.state().restart_with_network("web-1");
            assert_eq!(world.look(), before, "{fault}: life {life} begins without it");
            let early = injector.observe(&env, &change).await.unwrap();
            assert_ne!(early.status, ProofStatus::Mismatch, "{fault}: before it is covered, {early:?}");
            for _ in 0..2 {
                injector.renew(&env, &change, std::time::Duration::from_secs(life)).await.unwrap();
            }
            assert_eq!(world.look()["network"], raised, "{fault}: life {life}");
            let proof = injector.observe(&env, &change).await.unwrap();
            assert!(proof.measured.ends_with("; covered again after a restart: 1"), "{fault}: {proof:?}");
        }
        world.state().fleet.silent = true;
        let error = restore(&env, &change).await.unwrap_err().to_string();
        assert!(error.contains("no container engine answers"), "{fault}: {error}");
        world.state().fleet.silent = false;
        assert_eq!(restore(&env, &change).await.unwrap(), Undone::Reverted, "{fault}");
        assert_eq!(world.look(), before, "{fault}");
        assert_eq!(restore(&env, &change).await.unwrap(), Undone::NothingToDo, "{fault}");
    }
}

#[tokio::test]
async fn without_the_engine_a_network_fault_is_taken_away_where_it_is_known_to_be() {
    for fault in ["network-loss", "network-partition", "dns-fault"] {
        let world = World::new();
        let before = world.look();
        let change = prepare(&world, fault, &inside(fault)).await.unwrap();
        let (env, injector) = (world.env(Inventory::default()), registry::find(fault).unwrap());
        injector.apply(&env, &change).await.unwrap();
        world.state().fleet.silent = true;
        assert_eq!(restore(&env, &change).await.unwrap(), Undone::Reverted, "{fault}");
        assert_eq!(world.look(), before, "{fault}");
    }
}

#[tokio::test]
async fn a_process_in_a_container_and_the_container_are_one_claim_and_the_next_life_is_the_same() {
    let world = World::new();
    let pid = world.state().container_mut("web-1").pid.unwrap().to_string();
    let by = |name: &'static str, text: &str| {
        let given = [(name, text.to_owned()), ("to", "10.0.0.2".to_owned())].into();
        Request { target: Target::Flows(crate::flows::Flows::read(&given).unwrap()), ..inside("dns-fault") }
    };
    let one = prepare(&world, "dns-fault", &by("container", "web-1")).await.unwrap();
    assert_eq!(one.claims, ["resolver:10.0.0.2 in container web-1 (000000000000)"]);
    assert_eq!(one.claims, prepare(&world, "dns-fault", &by("pid", &pid)).await.unwrap().claims);
    world.state().restart_with_network("web-1");
    assert_eq!(one.claims, prepare(&world, "dns-fault", &by("container", "web-1")).await.unwrap().claims);
    let own = prepare(&world, "dns-fault", &by("protect", "10.9.9.9")).await.unwrap();
    assert_eq!(own.claims, ["resolver:10.0.0.2 in network namespace 1"]);
}

#[tokio::test]
async fn new_connections_are_reset_in_the_next_life_of_a_container_only_if_that_is_asked_for() {
    for repeat in [false, true] {
        let world = World::new();
        let mut request = inside("connection-reset");
        request.args.0.insert("repeat".to_owned(), Arg::Flag(repeat));
        let change = prepare(&world, "connection-reset", &request).await.unwrap();
        let (env, injector) = (world.env(Inventory::default()), registry::find("connection-reset").unwrap());
        injector.apply(&env, &change).await.unwrap();
        world.state().restart_with_network("web-1");
        injector.renew(&env, &change, std::time::Duration::from_secs(1)).await.unwrap();
        let open = world.look()["network"]["connections"].as_array().unwrap().len();
        assert_eq!(open, if repeat { 0 } else { 4 });
        let told = injector.observe(&env, &change).await.unwrap().measured;
        let what =
            if repeat { "; covered again after a restart: 1" } else { "; left alone after a restart: 1" };
        assert!(told.ends_with(what), "{told}");
    }
}

#[tokio::test]
async fn a_limit_follows_a_container_into_the_group_of_its_next_life_and_is_taken_away_there() {
    let world = World::new();
    let before = world.look();
    let target = crate::group::Group::read(&[("container", "web-1".to_owned())].into()).unwrap();
    let args = Args([("cores".to_owned(), Arg::Cores("0.5".parse().unwrap()))].into());
    let request = Request { id: "run/1".to_owned(), args, target: Target::Group(target), seed: 1 };
    let change = prepare(&world, "cpu-throttle", &request).await.unwrap();
    let (env, injector) = (world.env(Inventory::default()), registry::find("cpu-throttle").unwrap());
    injector.apply(&env, &change).await.unwrap();
    let limited = world.look();
    world.state().restart_with_group("web-1");
    assert_eq!(world.look(), before, "the next life begins without it");
    assert_eq!(injector.observe(&env, &change).await.unwrap().status, crate::ProofStatus::Unproven);
    for _ in 0..2 {
        injector.renew(&env, &change, std::time::Duration::from_secs(1)).await.unwrap();
        assert_eq!(world.look(), limited);
    }
    assert_eq!(restore(&env, &change).await.unwrap(), Undone::Reverted);
    assert_eq!(world.look(), before);
    assert_eq!(restore(&env, &change).await.unwrap(), Undone::NothingToDo);
}

#[tokio::test]
async fn a_stressor_goes_on_in_the_next_life_of_its_container_and_proves_nothing_in_between() {
    let world = World::new();
    let before = world.look();
    let target = crate::group::Group::read(&[("container", "web-1".to_owned())].into()).unwrap();
    let args = [("cores", Arg::Int(1)), ("load", Arg::Share("50%".parse().unwrap()))];
    let args = Args(args.map(|(name, value)| (name.to_owned(), value)).into());
    let request = Request { id: "run/1".to_owned(), args, target: Target::Group(target), seed: 1 };
    let change = prepare(&world, "cpu-stress", &request).await.unwrap();
    let (env, injector) = (world.env(Inventory::default()), registry::find("cpu-stress").unwrap());
    let renew = || injector.renew(&env, &change, std::time::Duration::from_secs(1));
    injector.apply(&env, &change).await.unwrap();
    assert_eq!(world.state().starts, 1);
    // As the real one does when the last process of the group has ended.
    let leave = || world.state().processes.retain(|process| process.info.comm != crate::stress::NAME);
    leave();
    assert!(renew().await.unwrap_err().to_string().contains("squall did not end it"), "its container lives");
    world.state().restart_with_group("web-1");
    let proof = injector.observe(&env, &change).await.unwrap();
    assert_eq!(proof.status, crate::ProofStatus::Mismatch, "{proof:?}");
    assert!(proof.measured.contains("its container has ended"), "{proof:?}");
    for _ in 0..2 {
        renew().await.unwrap();
        assert_eq!(world.state().starts, 2);
    }
    let proof = injector.observe(&env, &change).await.unwrap();
    assert!(proof.measured.ends_with("covered again after a restart: 1"), "{proof:?}");
    assert_eq!(restore(&env, &change).await.unwrap(), Undone::Reverted);
    assert_eq!(world.look(), before);
    world.state().remove_container("web-1");
    renew().await.unwrap();
    assert_eq!(world.state().starts, 2, "it is gone for good");
    let proof = injector.observe(&env, &change).await.unwrap();
    assert_eq!(proof.status, crate::ProofStatus::Mismatch, "{proof:?}");
}

#[tokio::test]
async fn what_somebody_else_has_attached_meanwhile_is_left_alone_with_the_way_out() {
    let world = World::new();
    let before = world.look();
    let (env, change) = hit(&world, "container-disconnect", &[("container", "web-1")]).await;
    let undo = &change.undo;
    let ours: Endpoint = serde_json::from_value(undo["cuts"][0]["endpoint"].clone()).unwrap();
    let socket: std::path::PathBuf = serde_json::from_value(undo["hits"]["socket"].clone()).unwrap();
    let id = undo["cuts"][0]["id"].as_str().unwrap();
    let theirs = Endpoint { aliases: vec!["other".to_owned()], ..ours.clone() };
    env.docker.act(&socket, id, &Act::Connect(Box::new(theirs))).await.unwrap();
    let attached = world.look();
    let error = restore(&env, &change).await.unwrap_err().to_string();
    assert!(error.contains("somebody else has attached web-1") && error.contains("forget it"), "{error}");
    assert_eq!(world.look(), attached, "it is left alone");
    let hand = by_hand(&env, &change);
    assert!(hand.contains("network disconnect") && hand.contains("network connect"), "{hand}");
    env.docker.act(&socket, id, &Act::Disconnect(ours.network.clone())).await.unwrap();
    env.docker.act(&socket, id, &Act::Connect(Box::new(ours))).await.unwrap();
    assert_eq!(restore(&env, &change).await.unwrap(), Undone::NothingToDo);
    assert_eq!(world.look(), before);
}
