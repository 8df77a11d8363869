//! `squall check`.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::out::Out;
use super::source;
use crate::slo::exit;

/// What is checked.
#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// Experiments
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Set a variable of the experiments
    #[arg(long, value_name = "NAME=VALUE", value_parser = super::source::pair)]
    set: Vec<(String, String)>,
}

pub(super) fn check(args: &CheckArgs, out: &mut Out) -> u8 {
    let mut documents = Vec::new();
    let mut wrong = 0;
    for file in &args.files {
        let name = file.display().to_string();
        match source::load(file, &args.set, 1) {
            Ok(loaded) => {
                if !out.json {
                    out.result(format!("{name}: ok ({})\n", loaded.experiment.name).as_bytes());
                    for note in &loaded.plan.notes {
                        out.tell(&format!("{name}: note: {note}"));
                    }
                }
                documents.push(json!({"file": name, "ok": true, "experiment": loaded.experiment.name, "notes": loaded.plan.notes}));
            }
            Err(mistakes) => {
                wrong += 1;
                if !out.json {
                    out.warn(mistakes.render().trim_end());
                }
                documents.push(json!({"file": name, "ok": false, "mistakes": mistakes.diagnostics}));
            }
        }
    }
    if out.json {
        out.document(&json!({"ok": wrong == 0, "files": documents}));
    }
    if wrong == 0 { exit::HELD } else { exit::INVALID }
}
