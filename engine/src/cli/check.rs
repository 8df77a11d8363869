//! `squall check`.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::out::Out;
use super::source::{self, Source};
use crate::slo::exit;

/// What is checked.
#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// Experiments; - reads one from stdin
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Set a variable: what stands for ${NAME} in the experiments
    #[arg(long, value_name = "NAME=VALUE", value_parser = super::source::pair)]
    set: Vec<(String, String)>,
}

pub(super) fn check(args: &CheckArgs, out: &mut Out) -> u8 {
    let sources: Vec<Source> = args.files.iter().map(|file| Source::read(file)).collect();
    // Of several files, each gets the variables that it names; one that none of them names is a mistake in all.
    let somewhere = |name: &str| sources.iter().any(|source| source.names(name));
    let mut documents = Vec::new();
    let mut wrong = 0;
    for (file, source) in args.files.iter().zip(&sources) {
        let name = file.display().to_string();
        let mut set = args.set.clone();
        set.retain(|(name, _)| source.names(name) || !somewhere(name));
        match source::resolve(source, &set, 1) {
            Ok(loaded) => {
                let hide = |note: &String| loaded.experiment.secrets.hide(note);
                let warnings: Vec<String> = loaded.plan.notes.iter().map(hide).collect();
                let experiment = hide(&loaded.experiment.name);
                if !out.json {
                    out.result(format!("{name}: ok ({experiment})\n").as_bytes());
                    for warning in &warnings {
                        out.tell(&format!("{name}: warning: {warning}"));
                    }
                }
                documents
                    .push(json!({"file": name, "ok": true, "experiment": experiment, "warnings": warnings}));
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
    let code = if wrong == 0 { exit::HELD } else { exit::INVALID };
    if out.json {
        out.document(&json!({"ok": wrong == 0, "exit": code, "files": documents}));
    }
    code
}
