//! `squall recover`: from the journal alone, put back what an earlier run has left changed.

use std::time::Duration;

use clap::Args;
use injectors::journal::{self, Entry, Journal};
use injectors::restore::{RestoreError, by_hand, restore};
use injectors::secrets::Secrets;
use injectors::{Change, Env, Inventory};
use reports::escape::terminal as safe;
use serde_json::{Value, json};

use super::Global;
use super::forget;
use super::out::{self, Out, plural};
use crate::run::Store;
use crate::run::store::{self, Leftover};
use crate::slo::exit;

/// What is recovered.
#[derive(Debug, Args)]
pub(super) struct RecoverArgs {
    /// Only show what is left, with the commands that restore it by hand
    #[arg(long)]
    list: bool,
    /// Only this run: its id, a unique prefix, or a path
    #[arg(long, value_name = "RUN")]
    run: Option<String>,
    /// Declare a change of this run put right by hand, when its undo can never succeed: its number from --list.
    /// Nothing is undone; the journal keeps who said so
    #[arg(long, value_name = "NUMBER", requires = "run", conflicts_with = "list")]
    forget: Vec<String>,
}

pub(super) fn recover(global: &Global, args: &RecoverArgs, out: &mut Out) -> u8 {
    let store = global.store();
    let runtime = match out::runtime() {
        Ok(runtime) => runtime,
        Err(error) => return out.no_queue(&error),
    };
    // First those: what a guardian gives up meanwhile is among the leftovers then.
    let guarded = if args.list { store.guarded() } else { runtime.block_on(still_guarded(&store)) };
    let leftovers = match find(&store, args) {
        Ok(leftovers) => leftovers,
        Err((code, error)) => return out.fail(code, &error),
    };
    if args.list {
        return list(&leftovers, &guarded, out);
    }
    if !args.forget.is_empty() {
        return forget::forget(&leftovers, &args.forget, out);
    }
    let mut done = Vec::new();
    let mut clean = true;
    for left in guarded {
        // It restores within seconds; one that is stopped or hangs must not pass for "nothing is left".
        clean = false;
        out.warn(&format!(
            "squall: run {} ended and its guardian still holds {}; look again in some seconds. If that stays so, the \
             guardian hangs: end that `__guardian` process by its id, then squall recover --run {}",
            left.run,
            plural(left.open.len(), "change"),
            left.run
        ));
    }
    for leftover in &leftovers {
        let (restored, row) = runtime.block_on(one(leftover, out));
        clean &= restored;
        done.push(row);
    }
    let code = if clean { exit::HELD } else { exit::NOT_RESTORED };
    if out.json {
        out.document(&json!({"ok": clean, "exit": code, "runs": done}));
    } else if leftovers.is_empty() && clean {
        out.tell("nothing is left to restore");
    }
    code
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

fn list(leftovers: &[Leftover], guarded: &[Leftover], out: &mut Out) -> u8 {
    let both = || guarded.iter().map(|left| (left, true)).chain(leftovers.iter().map(|left| (left, false)));
    let row = |(left, guarded): (&Leftover, bool)| {
        let changes: Vec<Value> = left.open.iter().map(|change| open_change(left, change)).collect();
        json!({
            "run": left.run, "experiment": left.experiment, "ended": left.ended, "guarded": guarded,
            "changes": changes, "damaged_lines": left.damaged,
        })
    };
    let rows: Vec<Value> = both().map(row).collect();
    if out.json {
        out.document(&json!({"runs": rows}));
        return exit::HELD;
    }
    if rows.is_empty() {
        out.tell("nothing is left to restore");
    }
    for (left, guarded) in both() {
        let how = match (guarded, left.ended) {
            (true, _) => "has ended; its guardian is still restoring",
            (false, true) => "ended with what it could not undo",
            (false, false) => "was cut off",
        };
        let mut text = format!("{}  {}  {how}\n", left.run, safe(&left.experiment));
        for change in &left.open {
            text += &format!("  {}  {}\n", number(change), safe(&change.summary));
            if let Some(error) = left.failure(change) {
                text += &format!("     undo failed: {}\n", safe(error));
            }
            let by_hand = by_hand(&Env::host(Inventory::default()), change);
            text += &format!("     by hand: {}\n", safe(&by_hand));
        }
        if left.damaged > 0 {
            text += &format!("  {} of its journal cannot be read\n", plural(left.damaged, "line"));
        }
        out.result(text.as_bytes());
    }
    exit::HELD
}

/// The number of an injection within its run: what `--forget` takes.
pub(super) fn number(change: &Change) -> &str {
    change.id.rsplit_once('/').map_or(change.id.as_str(), |(_, number)| number)
}

/// An open change as data.
pub(super) fn open_change(left: &Leftover, change: &Change) -> Value {
    json!({
        "id": change.id, "fault": change.fault, "target": change.target, "summary": change.summary,
        "manual": change.manual, "undo_failed": left.failure(change),
    })
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
    let mut clean = true;
    let mut rows = Vec::new();
    for change in &leftover.open {
        out.tell(&format!("restoring: {} on {}", safe(&change.fault), safe(&change.target)));
        let by = "recover".to_owned();
        let entry = match undo(&env, change).await {
            Ok(outcome) => {
                out.tell(&format!("{} on {} {}", safe(&change.fault), safe(&change.target), outcome.words()));
                rows.push(json!({"id": change.id, "restored": true, "outcome": outcome}));
                Entry::Undone { id: change.id.clone(), outcome, by }
            }
            Err(error) => {
                clean = false;
                let change = &Change { manual: by_hand(&env, change), ..change.clone() };
                out.warn(&failed(leftover, change, &error));
                rows.push(
                    json!({"id": change.id, "restored": false, "error": error, "manual": change.manual}),
                );
                Entry::UndoFailed { id: change.id.clone(), error, by }
            }
        };
        if let Err(error) = journal.append(entry) {
            clean = false;
            out.warn(&format!("squall: {error}"));
        }
    }
    if leftover.damaged > 0 {
        damaged(leftover, clean, out);
        clean = false;
    }
    (clean, json!({"run": leftover.run, "changes": rows, "damaged_lines": leftover.damaged}))
}

/// Undoes a change; what went wrong is told without the secrets that the undo needed.
async fn undo(env: &Env, change: &Change) -> Result<injectors::Undone, String> {
    let (change, secrets) = journal::reveal(change)?;
    restore(env, &change).await.map_err(|error: RestoreError| secrets.hide(&error.to_string()))
}

/// What a failed undo means for whoever has typed `recover`.
fn failed(leftover: &Leftover, change: &Change, error: &str) -> String {
    let again = if leftover.failure(change).is_some() { ", as before" } else { "" };
    format!(
        "squall: failed to restore {} on {}{again}: {}\n  by hand: {}\n  if no undo can succeed any more (its target is gone for \
         good, say): put it right by hand, then squall recover --run {} --forget {}",
        safe(&change.fault),
        safe(&change.target),
        safe(error),
        safe(&change.manual),
        leftover.run,
        number(change)
    )
}

/// Tells of unreadable lines. Once nothing readable is open any more, the journal is put aside, so that it is told once.
fn damaged(leftover: &Leftover, settled: bool, out: &mut Out) {
    let said = if settled {
        let aside = leftover.folder.join("journal.damaged");
        let moved = std::fs::rename(leftover.folder.join(journal::FILE), &aside);
        moved.map_or_else(
            |error| error.to_string(),
            |()| format!("The journal is kept as {}", aside.display()),
        )
    } else {
        "The journal stays until everything else is restored".to_owned()
    };
    out.warn(&format!(
        "squall: {} of the journal of run {} cannot be read; what was announced there may still be changed: look at its \
         targets. {said}",
        plural(leftover.damaged, "line"),
        leftover.run
    ));
}
