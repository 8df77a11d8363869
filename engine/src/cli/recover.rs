//! `squall recover`: from the journal alone, put back what a run that was cut off has left.

use std::time::Duration;

use clap::Args;
use injectors::journal::{self, Entry, Journal};
use injectors::restore::{RestoreError, restore};
use injectors::secrets::Secrets;
use injectors::{Env, Inventory};
use serde_json::{Value, json};

use super::Global;
use super::out::{self, Out};
use crate::run::Store;
use crate::run::store::{self, Leftover};
use crate::slo::exit;

/// What is recovered.
#[derive(Debug, Args)]
pub(super) struct RecoverArgs {
    /// Only show what is left
    #[arg(long)]
    list: bool,
    /// Only this run: its id, a unique prefix, or a path
    #[arg(long, value_name = "RUN")]
    run: Option<String>,
}

pub(super) fn recover(global: &Global, args: &RecoverArgs, out: &mut Out) -> u8 {
    let store = global.store();
    let leftovers = match find(&store, args) {
        Ok(leftovers) => leftovers,
        Err((code, error)) => return out.fail(code, &error),
    };
    if args.list {
        return list(&leftovers, out);
    }
    let Ok(runtime) = out::runtime() else { return out.fail(exit::BUG, "this system gives no event queue") };
    let mut done = Vec::new();
    let mut clean = true;
    for left in runtime.block_on(still_guarded(&store)) {
        // A guardian restores within seconds; one that is stopped or hangs must not pass for "nothing is left".
        clean = false;
        out.warn(&format!(
            "squall: run {} ended and its guardian still holds {} changes; look again in some seconds. If they stay, the \
             guardian hangs: end that `__guardian` process by its id, then squall recover --run {}",
            left.run,
            left.open.len(),
            left.run
        ));
    }
    for leftover in &leftovers {
        let (restored, row) = runtime.block_on(one(leftover, out));
        clean &= restored;
        done.push(row);
    }
    if out.json {
        out.document(&json!({"ok": clean, "runs": done}));
    } else if leftovers.is_empty() && clean {
        out.tell("nothing is left to restore");
    }
    if clean { exit::HELD } else { exit::NOT_RESTORED }
}

/// How long a guardian may be at work before it is told of.
const GUARDIAN_PATIENCE: Duration = Duration::from_secs(4);

/// Runs whose guardian has not restored everything within its time.
async fn still_guarded(store: &Store) -> Vec<Leftover> {
    let patience = tokio::time::sleep(GUARDIAN_PATIENCE);
    tokio::pin!(patience);
    loop {
        let guarded = store.guarded();
        if guarded.is_empty() {
            return guarded;
        }
        tokio::select! {
            () = &mut patience => return guarded,
            () = tokio::time::sleep(Duration::from_millis(50)) => {}
        }
    }
}

fn find(store: &Store, args: &RecoverArgs) -> Result<Vec<Leftover>, (u8, String)> {
    let invalid = |error: store::StoreError| (exit::INVALID, error.to_string());
    let Some(name) = &args.run else { return store.leftovers().map_err(invalid) };
    let folder = store.resolve(name).map_err(invalid)?;
    if store::alive(&folder) {
        return Err((
            exit::REFUSED,
            format!("run {name} is still going on, or its guardian is at work: wait, or stop it"),
        ));
    }
    Ok(store::leftover(&folder).map_err(invalid)?.into_iter().collect())
}

fn list(leftovers: &[Leftover], out: &mut Out) -> u8 {
    let rows: Vec<Value> = leftovers
        .iter()
        .map(|left| {
            let changes: Vec<Value> = left
                .open
                .iter()
                .map(|change| json!({"id": change.id, "fault": change.fault, "target": change.target, "summary": change.summary, "manual": change.manual}))
                .collect();
            json!({"run": left.run, "experiment": left.experiment, "changes": changes, "damaged_lines": left.damaged})
        })
        .collect();
    if out.json {
        out.document(&json!({"runs": rows}));
        return exit::HELD;
    }
    if leftovers.is_empty() {
        out.tell("nothing is left to restore");
    }
    for left in leftovers {
        let mut text = format!("{}  {}\n", left.run, left.experiment);
        for change in &left.open {
            text += &format!("  {}; by hand: {}\n", change.summary, change.manual);
        }
        if left.damaged > 0 {
            text += &format!("  {} lines of its journal cannot be read\n", left.damaged);
        }
        out.result(text.as_bytes());
    }
    exit::HELD
}

/// Restores one run, the newest change first, and goes on after failures.
async fn one(leftover: &Leftover, out: &mut Out) -> (bool, Value) {
    let _lock = injectors::guardian::lock(&leftover.folder.join(injectors::guardian::LOCK));
    let env = Env::host(Inventory::default());
    let mut journal = match Journal::open(&leftover.folder, Secrets::default()) {
        Ok(journal) => journal,
        Err(error) => {
            out.warn(&format!("squall: {error}"));
            return (false, json!({"run": leftover.run, "error": error.to_string()}));
        }
    };
    let mut clean = leftover.damaged == 0;
    let mut rows = Vec::new();
    for change in &leftover.open {
        let by = "recover".to_owned();
        let restored = match journal::reveal(change) {
            Ok(change) => restore(&env, &change).await,
            Err(why) => Err(RestoreError::Failed(why)),
        };
        let entry = match restored {
            Ok(outcome) => {
                out.tell(&format!("{} on {} {}", change.fault, change.target, outcome.words()));
                rows.push(json!({"id": change.id, "restored": true, "outcome": outcome}));
                Entry::Undone { id: change.id.clone(), outcome, by }
            }
            Err(error) => {
                clean = false;
                out.warn(&format!(
                    "squall: failed to restore {} on {}: {error}\n  by hand: {}",
                    change.fault, change.target, change.manual
                ));
                rows.push(json!({"id": change.id, "restored": false, "error": error.to_string(), "manual": change.manual}));
                Entry::UndoFailed { id: change.id.clone(), error: error.to_string(), by }
            }
        };
        if let Err(error) = journal.append(entry) {
            clean = false;
            out.warn(&format!("squall: {error}"));
        }
    }
    if leftover.damaged > 0 {
        let aside = leftover.folder.join("journal.damaged");
        let moved = std::fs::rename(leftover.folder.join(journal::FILE), &aside);
        let said = moved.map_or_else(
            |error| error.to_string(),
            |()| format!("the journal is kept as {}", aside.display()),
        );
        out.warn(&format!(
            "squall: {} lines of the journal of run {} cannot be read; what they announced may still be changed: look at its targets. {said}",
            leftover.damaged, leftover.run
        ));
    }
    (clean, json!({"run": leftover.run, "changes": rows, "damaged_lines": leftover.damaged}))
}
