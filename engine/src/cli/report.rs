//! `squall report`: the record again, judged again.

use clap::Args;
use reports::{Format, render};
use serde_json::json;

use super::Global;
use super::out::Out;
use crate::run::store;
use crate::slo::{self, exit};

/// Which run, and how it is shown.
#[derive(Debug, Args)]
pub(super) struct ReportArgs {
    /// A run: its id, a unique prefix, a path, or latest
    #[arg(value_name = "RUN", default_value = "latest")]
    run: String,
    /// How it is shown: terminal, html, markdown, junit or json
    #[arg(long, short, value_name = "FORMAT", default_value = "terminal")]
    format: Format,
    /// List the runs that there are
    #[arg(long)]
    list: bool,
    /// End with the exit code of the run instead of 0
    #[arg(long)]
    exit_code: bool,
}

pub(super) fn report(global: &Global, args: &ReportArgs, out: &mut Out) -> u8 {
    let store = global.store();
    if args.list {
        return list(&store, out);
    }
    let mut record = match store.read(&args.run) {
        Ok(record) => record,
        Err(error) => return out.fail(exit::INVALID, &error.to_string()),
    };
    // The verdict follows from the facts; what was written down is only compared.
    let again = slo::judge(&record);
    if again != record.judgement {
        let (then, now) = (record.judgement.verdict.name(), again.verdict.name());
        out.warn(&format!(
            "squall: this version judges differently: {then} then, {now} now (squall {} wrote it)",
            record.squall
        ));
    }
    record.judgement = again;
    let format = if out.json { Format::Json } else { args.format };
    match render(&record, format, out.colour()) {
        Ok(bytes) => out.result(&bytes),
        Err(error) => return out.fail(exit::INVALID, &error.to_string()),
    }
    if args.exit_code { record.judgement.exit } else { exit::HELD }
}

fn list(store: &store::Store, out: &mut Out) -> u8 {
    let mut rows = Vec::new();
    for folder in store.folders() {
        let id = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let row = match store.read(&id) {
            Ok(record) => json!({
                "run": id, "experiment": record.experiment.name,
                "verdict": record.judgement.verdict, "exit": record.judgement.exit,
            }),
            Err(_) => json!({"run": id, "experiment": null, "verdict": null, "exit": null}),
        };
        rows.push(row);
    }
    if out.json {
        out.document(&json!({"runs": rows, "folder": store.root()}));
        return exit::HELD;
    }
    if rows.is_empty() {
        out.tell(&format!("no runs in {}", store.root().display()));
    }
    for row in rows {
        let verdict = row["verdict"].as_str().unwrap_or("cut off");
        let name = row["experiment"].as_str().unwrap_or("-");
        out.result(format!("{}  {verdict:<8} {name}\n", row["run"].as_str().unwrap_or_default()).as_bytes());
    }
    exit::HELD
}
