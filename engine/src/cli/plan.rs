//! `squall plan`.

use std::time::Duration;

use clap::Args;
use injectors::faults::interface;
use injectors::sys::netlink::host::Kernel;
use injectors::{Env, Inventory, Request, Target};
use reports::escape::terminal as safe;
use serde_json::json;

use super::out::{self, Out};
use super::source::{self, Loaded, SourceArgs};
use crate::experiment::{Mistakes, Selector};
use crate::plan::{self, Plan, PlannedInjection, describe};
use crate::slo::exit;

/// How long the host is looked at for one fault.
const LOOKED: Duration = Duration::from_secs(5);

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
    let mut plan = located(&loaded, seed);
    plan.notes.extend(lacks(&plan));
    let plan = &plan;
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

/// Faults that this user and this kernel cannot make, as a run would be told.
fn lacks(plan: &Plan) -> Vec<String> {
    let (Ok(runtime), env) = (out::runtime(), Env::host(Inventory::default())) else { return Vec::new() };
    let cannot = |planned: &PlannedInjection| {
        if planned.args.text("fallback").is_some() {
            return None;
        }
        let (args, target, seed) = (planned.args.clone(), planned.target.clone(), planned.seed);
        let request = Request { id: "plan/0".to_owned(), args, target, seed };
        let able = runtime.block_on(async {
            tokio::time::timeout(LOOKED, planned.injector.able(&env, &request)).await.unwrap_or(Ok(()))
        });
        able.err().map(|error| format!("{} cannot be made here: {error}", planned.fault))
    };
    let mut lacks: Vec<String> = plan.injections.iter().filter_map(cannot).collect();
    lacks.dedup();
    lacks
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
