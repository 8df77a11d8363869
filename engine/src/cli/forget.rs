//! `squall recover --forget`: the way out for a change whose undo can never succeed, such as a command on a machine that
//! has been rebuilt. Nothing is undone. A person answers for it, and the journal keeps who and what.

use injectors::guardian;
use injectors::journal::{Entry, Journal};
use injectors::secrets::Secrets;
use injectors::sys::host::user;
use reports::escape::terminal as safe;
use serde_json::{Value, json};

use super::out::{Out, plural};
use super::recover::{number, open_change};
use crate::run::store::Leftover;
use crate::slo::exit;

/// Declares changes of one run put right by hand.
pub(super) fn forget(leftovers: &[Leftover], numbers: &[String], out: &mut Out) -> u8 {
    let Some(leftover) = leftovers.first() else {
        return out.fail(exit::INVALID, "that run has left nothing: there is nothing to forget");
    };
    let mut chosen = Vec::new();
    for wanted in numbers {
        match leftover.open.iter().find(|change| number(change) == wanted || change.id == *wanted) {
            Some(change) => chosen.push(change),
            None => {
                let open: Vec<&str> = leftover.open.iter().map(number).collect();
                let open = if open.is_empty() { "none".to_owned() } else { open.join(", ") };
                let text = format!("run {} has no open change `{wanted}`; open: {open}", leftover.run);
                return out.fail(exit::INVALID, &text);
            }
        }
    }
    let _lock = guardian::lock(&leftover.folder.join(guardian::LOCK));
    let declared = Journal::open(&leftover.folder, Secrets::default()).and_then(|mut journal| {
        chosen.iter().try_for_each(|change| {
            let left = format!("{}; by hand: {}", change.summary, change.manual);
            journal.append(Entry::Declared { id: change.id.clone(), by: who(), left })
        })
    });
    if let Err(error) = declared {
        return out.fail(exit::REFUSED, &error.to_string());
    }
    for change in &chosen {
        let why = leftover.failure(change).map_or("no undo was tried".to_owned(), safe);
        out.tell(&format!(
            "declared put right by {}: {} of run {}\n  squall did not undo it ({why})\n  and believes it may still be \
             there: {}\n  by hand: {}",
            who(),
            change.id,
            leftover.run,
            safe(&change.summary),
            safe(&change.manual)
        ));
    }
    let still = leftover.open.iter().filter(|change| !chosen.iter().any(|one| one.id == change.id)).count();
    let code = if still == 0 && leftover.damaged == 0 { exit::HELD } else { exit::NOT_RESTORED };
    if out.json {
        let rows: Vec<Value> = chosen.iter().map(|change| open_change(leftover, change)).collect();
        let run = json!({"run": leftover.run, "declared": rows, "by": who(), "open": still, "damaged_lines": leftover.damaged});
        out.document(&json!({"ok": code == exit::HELD, "exit": code, "runs": [run]}));
    } else if still > 0 {
        out.warn(&format!("squall: run {} still has {}", leftover.run, plural(still, "open change")));
    }
    code
}

/// Who types this, as far as the system tells.
fn who() -> String {
    let names = ["SUDO_USER", "USER", "LOGNAME"];
    let name = names.iter().find_map(|name| std::env::var(name).ok().filter(|name| !name.is_empty()));
    let uid = format!("uid {}", user());
    name.map_or(uid.clone(), |name| format!("{} ({uid})", safe(&name)))
}
