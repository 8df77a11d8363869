//! `squall plan`.

use clap::Args;

use super::out::Out;
use super::source::{self, SourceArgs};
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
    match source::load(&args.source.file, &args.source.set, seed) {
        Ok(loaded) if out.json => out.document(&loaded.plan),
        Ok(loaded) => out.result(describe(&loaded.plan).as_bytes()),
        Err(mistakes) => return invalid(out, &mistakes),
    }
    exit::HELD
}

/// Tells every mistake of a file.
pub(super) fn invalid(out: &mut Out, mistakes: &crate::experiment::Mistakes) -> u8 {
    out.warn(mistakes.render().trim_end());
    if out.json {
        out.document(
            &serde_json::json!({"ok": false, "exit": exit::INVALID, "mistakes": mistakes.diagnostics}),
        );
    }
    exit::INVALID
}
