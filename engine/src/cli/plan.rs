//! `squall plan`.

use clap::Args;
use injectors::Target;
use injectors::faults::interface;
use injectors::sys::netlink::host::Kernel;
use reports::escape::terminal as safe;
use serde_json::json;

use super::out::{self, Out};
use super::source::{self, Loaded, SourceArgs};
use crate::experiment::{Mistakes, Selector};
use crate::plan::{self, Plan, describe};
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
    let plan = &located(&loaded, seed);
    let secrets = &loaded.experiment.secrets;
    if out.json {
        let mut document = serde_json::to_value(plan).expect("plans are plain data");
        secrets.hide_in(&mut document);
        out.document(&document);
    } else {
        let text = secrets.hide(&describe(plan));
        out.result(text.lines().map(|line| safe(line) + "\n").collect::<String>().as_bytes());
    }
    exit::HELD
}

/// The plan with the names of the interfaces that routes lead to here and now. A run looks when its faults begin; where
/// this user may not look, or what is meant does not exist yet, the plan stays as it is.
fn located(loaded: &Loaded, seed: u64) -> Plan {
    let Ok(runtime) = out::runtime() else { return loaded.plan.clone() };
    let mut experiment = loaded.experiment.clone();
    for used in experiment.timeline.iter_mut().flat_map(|step| &mut step.faults) {
        // What nftables does holds on every interface.
        let everywhere = used.args.text("by") == Some("nft");
        if let (Selector::Exactly(Target::Traffic(traffic)), false) = (&mut used.selector, everywhere)
            && let Some(name) = runtime.block_on(interface(&Kernel, traffic))
        {
            *traffic = traffic.by(&name);
        }
    }
    plan::resolve(&experiment, seed).unwrap_or_else(|_| loaded.plan.clone())
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
