//! `squall report`: the record again, judged again.

use clap::Args;
use reports::escape::terminal as safe;
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
    /// How it is shown: terminal (the default), html, markdown, junit or json
    #[arg(long, short, value_name = "FORMAT")]
    format: Option<Format>,
    /// List the runs that there are
    #[arg(long)]
    list: bool,
    /// End with the exit code of the run instead of 0
    #[arg(long)]
    exit_code: bool,
}

pub(super) fn report(global: &Global, args: &ReportArgs, out: &mut Out) -> u8 {
    let store = global.store();
    let format = match (args.format, out.json) {
        (None | Some(Format::Json), true) => Format::Json,
        (Some(_), true) => {
            return out.fail(exit::INVALID, "--json is a format of its own: leave out --json or --format");
        }
        (format, false) => format.unwrap_or(Format::Terminal),
    };
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
        let verdicts = if then == now {
            format!("the verdict stays {now}, but its reasons or figures differ")
        } else {
            format!("{then} then, {now} now")
        };
        let why = if record.squall == env!("CARGO_PKG_VERSION") {
            "the judgement in this record does not follow from its facts; it has been edited since, or another build \
             wrote it"
                .to_owned()
        } else {
            format!(
                "this version judges differently than squall {}, which wrote the record",
                safe(&record.squall)
            )
        };
        out.warn(&format!("squall: {why}: {verdicts}"));
    }
    record.judgement = again;
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
                "verdict": record.judgement.verdict, "exit": record.judgement.exit, "going_on": false,
            }),
            Err(_) => json!({
                "run": id, "experiment": null, "verdict": null, "exit": null, "going_on": store::alive(&folder),
            }),
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
        let none = if row["going_on"] == true { "running" } else { "no record" };
        let verdict = row["verdict"].as_str().unwrap_or(none);
        let name = safe(row["experiment"].as_str().unwrap_or("-"));
        out.result(format!("{}  {verdict:<9} {name}\n", row["run"].as_str().unwrap_or_default()).as_bytes());
    }
    exit::HELD
}
