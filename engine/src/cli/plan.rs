//! `squall plan`.

use clap::Args;
use reports::escape::terminal as safe;
use serde_json::json;

use super::out::Out;
use super::source::{self, SourceArgs};
use crate::experiment::Mistakes;
use crate::plan::describe;
use crate::slo::exit;

/// What is planned.
#[derive(Debug, Args)]
pub(super) struct PlanArgs {
    #[command(flatten)]
    source: SourceArgs,
}

pub(super) fn plan(args: &PlanArgs, out: &mut Out) -> u8 {
    let seed = args.source.seed.unwrap_or_else(source::fresh_seed);
    let loaded = match source::load(&args.source.file, &args.source.set, seed) {
        Ok(loaded) => loaded,
        Err(mistakes) => return invalid(out, &mistakes),
    };
    let secrets = &loaded.experiment.secrets;
    if out.json {
        let mut document = serde_json::to_value(&loaded.plan).expect("plans are plain data");
        secrets.hide_in(&mut document);
        out.document(&document);
    } else {
        let text = secrets.hide(&describe(&loaded.plan));
        out.result(text.lines().map(|line| safe(line) + "\n").collect::<String>().as_bytes());
    }
    exit::HELD
}

/// Tells every mistake of a file.
pub(super) fn invalid(out: &mut Out, mistakes: &Mistakes) -> u8 {
    if out.json {
        out.document(&json!({
            "ok": false,
            "exit": exit::INVALID,
            "error": mistakes.to_string(),
            "mistakes": mistakes.diagnostics,
        }));
    } else {
        out.warn(mistakes.render().trim_end());
    }
    exit::INVALID
}
