//! The process faults on real processes of our own.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::about::Value as Arg;
use crate::restore::{by_hand, restore};
use crate::sys::proc::{Host, Procs as _, SignalName};
use crate::{Args, Change, Env, Inventory, Request, Target, Undone, registry};

/// A process of our own behind a pid file.
struct Sleeper {
    child: Child,
    file: PathBuf,
    _dir: tempfile::TempDir,
}

impl Sleeper {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let child = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().unwrap();
        let file = dir.path().join("pid");
        std::fs::write(&file, child.id().to_string()).unwrap();
        Self { child, file, _dir: dir }
    }

    async fn hit_by(&self, fault: &str, args: &[(&str, Arg)]) -> (Env, Change) {
        let env = Env::host(Inventory::default());
        let args = args.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
        let request = Request {
            // Of its own: what a restart has started is known by it on the whole host.
            id: format!("run/{}", self.file.display()),
            args: Args(args.collect::<BTreeMap<_, _>>()),
            target: Target::PidFile(self.file.clone()),
            seed: 1,
        };
        let injector = registry::find(fault).unwrap();
        let change = injector.prepare(&env, &request).await.unwrap();
        injector.apply(&env, &change).await.unwrap();
        (env, change)
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn restart(argv: &[&str]) -> [(&'static str, Arg); 1] {
    [("restart", Arg::Argv(argv.iter().map(|word| (*word).to_owned()).collect()))]
}

#[tokio::test]
async fn a_restart_that_fails_is_quoted_with_its_code_and_last_words() {
    let sleeper = Sleeper::new();
    let argv = ["sh", "-c", "echo reading config; echo port 80 in use >&2; exit 7"];
    let (env, change) = sleeper.hit_by("process-kill", &restart(&argv)).await;
    let error = restore(&env, &change).await.unwrap_err().to_string();
    assert!(error.ends_with("ended with code 7: reading config | port 80 in use"), "{error}");
}

#[tokio::test]
async fn a_restart_that_never_comes_to_be_its_target_is_started_once_and_named() {
    let sleeper = Sleeper::new();
    let (env, change) = sleeper.hit_by("process-kill", &restart(&["sleep", "60"])).await;
    let error = restore(&env, &change).await.unwrap_err().to_string();
    let living = Host.marked(&change.id).unwrap();
    assert_eq!(living.len(), 1, "{living:?}");
    assert!(error.ends_with(&format!("`sleep 60` still runs: sleep {}", living[0].id.pid)), "{error}");
    assert!(Host.signal(living[0].id, SignalName::Kill).unwrap());
}

#[tokio::test]
async fn a_restart_brings_the_process_back() {
    let sleeper = Sleeper::new();
    let script = format!("sleep 60 & echo $! > {}", sleeper.file.display());
    let (env, change) = sleeper.hit_by("process-kill", &restart(&["sh", "-c", &script])).await;
    assert_eq!(restore(&env, &change).await, Ok(Undone::Reverted));
    let pid = Host.pid_file(&sleeper.file).unwrap();
    let back = Host.look(pid).unwrap().expect("it is back");
    assert!(Host.signal(back.id, SignalName::Kill).unwrap());
}

#[tokio::test]
async fn a_permanent_kill_is_told_as_what_it_is() {
    let sleeper = Sleeper::new();
    let (env, change) = sleeper.hit_by("process-kill", &[("permanent", Arg::Flag(true))]).await;
    assert!(change.summary.ends_with(", for good"), "{}", change.summary);
    let undone = restore(&env, &change).await.unwrap();
    assert_eq!(undone, Undone::Permanent);
    assert!(undone.words().contains("on purpose"));
}

#[tokio::test]
async fn a_paused_process_that_somebody_else_kills_is_not_called_restored() {
    let sleeper = Sleeper::new();
    let (env, change) = sleeper.hit_by("process-pause", &[]).await;
    assert_eq!(by_hand(&env, &change), format!("kill -CONT {}", sleeper.child.id()));
    let id = Host.look(sleeper.child.id()).unwrap().unwrap().id;
    assert!(Host.signal(id, SignalName::Kill).unwrap());
    while Host.look(id.pid).unwrap().is_some_and(|info| !info.ended()) {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let error = restore(&env, &change).await.unwrap_err().to_string();
    assert!(error.contains("has ended while it was paused, and squall did not end it"), "{error}");
    assert_eq!(by_hand(&env, &change), format!("start what was behind {} again", change.target));
    // Somebody starts it again: then there is nothing left to do.
    let other = Sleeper::new();
    std::fs::copy(&other.file, &sleeper.file).unwrap();
    assert_eq!(restore(&env, &change).await, Ok(Undone::Replaced));
}
