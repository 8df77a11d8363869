//! Pressure in control groups that the test makes: the kill matrix, what others change meanwhile, groups that go, and
//! what is refused. On any kernel with cgroup v1 or v2; without root these tests are skipped and say so.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use injectors::group::Group;
use injectors::restore::restore;
use injectors::sys::cgroup::{Cgroups as _, Controller, Hierarchy, Version, host::Kernel};
use injectors::{Args, Change, Env, Inventory, Request, Target, Undone, registry};

use crate::support::{Home, skipped, turns, until};

const STEPS: [&str; 8] =
    ["prepared", "intended", "held", "applied", "journalled", "undoing", "undone", "settled"];
const HOWS: [&str; 4] = ["error", "kill", "kill-guardian", "kill-both"];
const ALONE: Duration = Duration::from_secs(1);

/// The faults that are tried here.
pub(crate) const FAULTS: &[&str] = &["process-freeze"];

/// How one fault is tried.
struct Case {
    fault: &'static str,
    args: &'static [&'static str],
    controller: Controller,
    /// The files that it writes, in version 1 and in version 2.
    files: [&'static str; 2],
    /// What somebody else writes there.
    foreign: [&'static str; 2],
    /// Who lives in the group, so that something feels it.
    dweller: &'static str,
}

const CASES: &[Case] = &[Case {
    fault: "process-freeze",
    args: &[],
    controller: Controller::Freezer,
    files: ["freezer.state", "cgroup.freeze"],
    foreign: ["THAWED", "0"],
    dweller: "while :; do sleep 0.01; done",
}];

/// A group of the test's own with a process in it.
struct Cage {
    name: String,
    folder: PathBuf,
    version: Version,
    dweller: Child,
}

impl Cage {
    /// None, and why, on a host that gives this test no groups.
    fn new(what: &str, case: &Case) -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("sqt-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let has = |one: &&Hierarchy| match case.controller.name(one.version) {
            Some(name) => one.controllers.iter().any(|known| known == name),
            None => one.version == Version::Two,
        };
        let mut all = Kernel.hierarchies().unwrap();
        all.sort_by_key(|one| one.version == Version::Two);
        let Some(hierarchy) = all.iter().find(has) else {
            skipped(&format!("{what}: no cgroup controller for {}", case.fault));
            return None;
        };
        let folder = hierarchy.mount.join(&name);
        if let Err(error) = std::fs::create_dir(&folder) {
            skipped(&format!("{what}: no control group: {error}"));
            return None;
        }
        let dweller = Command::new("sh").args(["-c", case.dweller]).stdout(Stdio::null()).spawn().unwrap();
        std::fs::write(folder.join("cgroup.procs"), dweller.id().to_string()).unwrap();
        Some(Self { name, folder, version: hierarchy.version, dweller })
    }

    fn file(&self, names: [&str; 2]) -> PathBuf {
        self.folder.join(names[usize::from(self.version == Version::Two)])
    }

    fn says(&self, names: [&str; 2]) -> String {
        std::fs::read_to_string(self.file(names)).unwrap()
    }

    /// Ends who lives in it, and removes it.
    fn remove(&mut self) {
        for thawed in [("freezer.state", "THAWED"), ("cgroup.freeze", "0")] {
            let path = self.folder.join(thawed.0);
            if path.exists() {
                let _ = std::fs::write(path, thawed.1);
            }
        }
        let _ = self.dweller.kill();
        let _ = self.dweller.wait();
        // What the dweller has started ends by itself, a moment later.
        until("the end of the group", Duration::from_secs(5), || {
            let removed = std::fs::remove_dir(&self.folder);
            (removed.is_ok() || !self.folder.exists()).then_some(())
        });
    }
}

impl Drop for Cage {
    fn drop(&mut self) {
        self.remove();
    }
}

impl Case {
    fn inject<'a>(&'a self, cage: &'a Cage, more: &[&'a str]) -> Vec<&'a str> {
        [&["inject", self.fault, "--cgroup", &cage.name][..], self.args, more].concat()
    }

    async fn prepared(&self, cage: &Cage) -> Change {
        let injector = registry::find(self.fault).unwrap();
        let given = self.args.chunks(2).map(|pair| (pair[0].trim_start_matches("--"), pair[1]));
        let given: std::collections::BTreeMap<&str, &str> = given.collect();
        let mut args = Args::default();
        for param in injector.about().params {
            let default = match param.presence {
                injectors::about::Presence::Default(text) => Some(text),
                _ => None,
            };
            let Some(text) = given.get(param.name).copied().or(default) else { continue };
            args.0.insert(param.name.to_owned(), param.kind.parse(text).unwrap());
        }
        let target = Target::Group(Group::Path(cage.name.clone()));
        let request = Request { id: "run/1".to_owned(), args, target, seed: 1 };
        injector.prepare(&env(), &request).await.unwrap()
    }
}

fn env() -> Env {
    Env::host(Inventory::default())
}

fn block_on<T>(act: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(act)
}

#[test]
fn every_fault_of_a_group_is_tried_here() {
    let cases: Vec<&str> = CASES.iter().map(|case| case.fault).collect();
    assert_eq!(cases, FAULTS);
}

#[test]
fn a_fault_of_a_group_is_felt_and_leaves_the_group_as_it_was() {
    for case in CASES {
        let Some(cage) = Cage::new("a fault of a group", case) else { continue };
        let _turn = turns(1);
        let home = Home::new();
        let before = cage.says(case.files);
        // A host that has no time for the dweller leaves it without anything to feel.
        let lengths = ["2s", "4s", "8s"];
        let mut tries = lengths.iter().map(|length| home.squall(&case.inject(&cage, &["--for", length])));
        let done = tries.find(|done| done.code != 6).expect("a proof within one of three tries").code(0);
        assert!(done.out.contains("confirmed"), "{}", done.out);
        assert_eq!(cage.says(case.files), before, "{}", case.fault);
        home.assert_nothing_left();
    }
}

#[test]
fn whatever_ends_an_injection_at_whatever_step_the_group_is_as_before_within_a_second() {
    for case in CASES {
        let Some(cage) = Cage::new("the kill matrix of a fault of a group", case) else { continue };
        let _turn = turns(1);
        let home = Home::new();
        let before = cage.says(case.files);
        for (step, how) in STEPS.iter().flat_map(|step| HOWS.iter().map(move |how| (step, how))) {
            let point = format!("{step}:{how}");
            let done = home.squall(&case.inject(&cage, &["--for", "100ms", "--crash-at", &point]));
            assert_eq!(done.code == 137, matches!(*how, "kill" | "kill-both"), "{point}: {done:?}");
            if *how == "kill-both" {
                until("the end of engines and guardians", ALONE, || {
                    (!home.run_folders().iter().any(|folder| engine::run::store::alive(folder))).then_some(())
                });
                home.squall(&["recover"]).code(0);
            }
            until(&format!("{} {point}: the group as before", case.fault), ALONE, || {
                (cage.says(case.files) == before).then_some(())
            });
            home.squall(&["recover"]).code(0);
        }
        home.assert_nothing_left();
    }
}

#[test]
fn undo_without_apply_and_undo_twice_find_nothing_to_do_in_a_group() {
    for case in CASES {
        let Some(cage) = Cage::new("undo twice in a group", case) else { continue };
        let before = cage.says(case.files);
        block_on(async {
            let change = case.prepared(&cage).await;
            let injector = registry::find(case.fault).unwrap();
            assert_eq!(restore(&env(), &change).await.unwrap(), Undone::NothingToDo);
            injector.apply(&env(), &change).await.unwrap();
            assert_ne!(cage.says(case.files), before, "{}", case.fault);
            assert_eq!(restore(&env(), &change).await.unwrap(), Undone::Reverted);
            assert_eq!(cage.says(case.files), before, "{}", case.fault);
            assert_eq!(restore(&env(), &change).await.unwrap(), Undone::NothingToDo);
        });
    }
}

#[test]
fn a_group_that_has_gone_or_was_made_again_under_its_name_is_left_alone() {
    for case in CASES {
        let Some(mut cage) = Cage::new("a group that goes", case) else { continue };
        let change = block_on(async {
            let change = case.prepared(&cage).await;
            registry::find(case.fault).unwrap().apply(&env(), &change).await.unwrap();
            change
        });
        cage.remove();
        assert_eq!(block_on(restore(&env(), &change)).unwrap(), Undone::NothingToDo, "{}", case.fault);
        std::fs::create_dir(&cage.folder).unwrap();
        let fresh = cage.says(case.files);
        assert_eq!(block_on(restore(&env(), &change)).unwrap(), Undone::NothingToDo, "{}", case.fault);
        assert_eq!(cage.says(case.files), fresh);
    }
}

#[test]
fn squall_never_touches_the_group_that_it_is_in_itself() {
    let case = CASES.iter().find(|case| case.fault == "process-freeze").unwrap();
    let Some(cage) = Cage::new("a group of squall's own", case) else { return };
    let home = Home::new();
    let before = cage.says(case.files);
    // A shell joins the group, and becomes squall there.
    let script = format!("echo $$ > {}; exec \"$@\" $$", cage.folder.join("cgroup.procs").display());
    let squall = home.command();
    let mut command = Command::new("sh");
    command.args(["-c", &script, "sh"]).arg(squall.get_program());
    command.args(["inject", case.fault, "--for", "1s", "--pid"]);
    command.envs(squall.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let done = home.start_as(command).end().code(3);
    assert!(done.err.contains("which is squall itself"), "{done:?}");
    assert_eq!(cage.says(case.files), before);
}
