//! `container-stop`: ended the polite way, then started again.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::container_kill::tally;
use super::containers::{self, SETTLE, up};
use super::process_kill::wait_end;
use super::{recall, record};
use crate::about::{About, Args, Effect, Param, ParamKind, Presence};
use crate::sys::docker::Act;
use crate::target::{Target, TargetKind};
use crate::{Change, Env, InjectError, Injector, Pending, Proof, ProofStatus, Request, Undone};

use super::containers::Hits;

/// Ends containers as a deployment does.
#[derive(Debug)]
pub struct ContainerStop;

static ABOUT: About = About {
    name: "container-stop",
    summary: "Stops containers the polite way, with a grace, and starts them again afterwards",
    description: "As `docker stop` does, and as a deployment or a drained host does: the container gets its stop signal, and \
                  after the grace SIGKILL. The proof tells whether it ended by itself or had to be killed (exit code \
                  137): a service that ignores its stop signal loses what is in flight. No restart policy has it back \
                  before the fault is over. A container that is labelled squall.protect, in which \
                  squall itself runs, or in whose network namespace others live is never hit.",
    target: TargetKind::Container,
    params: &[GRACE],
    needs: containers::NEEDS,
    effect: Effect::Outage,
    proof: "The main process of every container is gone (number and start time), the engine tells its exit code, and \
            nothing has started it again.",
    undo: "Those that are down are started again, with the same id, networks and volumes. If squall was killed while it \
           stopped them, the undo waits until the grace is over. One that somebody has removed meanwhile carries no \
           fault.",
    example: "- container-stop: {label: app=web, pick: one, grace: 5s}",
};

/// How long a container may take to end by itself.
pub(super) const GRACE: Param = Param {
    name: "grace",
    kind: ParamKind::Span,
    presence: Presence::Default("10s"),
    help: "how long it may take to end by itself before it is killed; whole seconds, at most 20s",
};

/// The longest grace: squall waits no longer for one step.
const GRACE_MAX: Duration = Duration::from_secs(20);

/// The grace that is written, whole seconds.
pub(super) fn grace(args: &Args) -> Result<Duration, String> {
    match args.span("grace").unwrap_or(Duration::from_secs(10)) {
        grace if grace > GRACE_MAX => Err("grace: at most 20s".to_owned()),
        grace if grace.subsec_nanos() != 0 => Err("grace: the engine counts whole seconds".to_owned()),
        grace => Ok(grace),
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Data {
    hits: Hits,
    grace_s: u64,
}

impl Injector for ContainerStop {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn check(&self, args: &Args, _target: &Target) -> Result<(), Vec<String>> {
        grace(args).map(drop).map_err(|mistake| vec![mistake])
    }

    fn undoes(&self, _args: &Args, target: &Target) -> String {
        format!("start {target} again, unless it runs")
    }

    fn prepare<'a>(&'a self, env: &'a Env, request: &'a Request) -> Pending<'a, Result<Change, InjectError>> {
        Box::pin(async move {
            let grace_s = grace(&request.args).map_err(InjectError::Target)?.as_secs();
            let (hits, found) = containers::find(env, request).await?;
            containers::refuse_fleeting(&found, "")?;
            containers::refuse_shared(env, &hits).await?;
            let summary = format!("stop {} with {grace_s} s of grace", hits.names());
            let (claims, manual) = (hits.claims(), hits.by_hand(&["start"]));
            let data = record(&Data { hits, grace_s });
            containers::change(self, env, request, containers::Words { summary, claims, manual }, data).await
        })
    }

    fn apply<'a>(&'a self, env: &'a Env, change: &'a Change) -> Pending<'a, Result<(), InjectError>> {
        Box::pin(async move {
            let Data { hits, grace_s } = recall(ABOUT.name, &change.apply)?;
            let all: Vec<_> = hits.each.iter().collect();
            hits.act(env, &all, &Act::Stop(Duration::from_secs(grace_s))).await
        })
    }

    fn undo<'a>(&'a self, env: &'a Env, undo: &'a Value) -> Pending<'a, Result<Undone, InjectError>> {
        Box::pin(async move {
            let Data { hits, grace_s } = recall(ABOUT.name, undo)?;
            // The engine goes on stopping what it was told to stop, whether or not somebody still waits for it.
            let patience = if cfg!(test) { SETTLE } else { SETTLE + Duration::from_secs(grace_s) };
            hits.settled(env, patience, |hit, now| !up(now) || hit.reborn(now)).await?;
            hits.start_again(env).await
        })
    }

    fn observe<'a>(&'a self, env: &'a Env, change: &'a Change) -> Pending<'a, Result<Proof, InjectError>> {
        Box::pin(async move {
            let hits = recall::<Data>(ABOUT.name, &change.apply)?.hits;
            wait_end(env, &hits.processes(), SETTLE).await?;
            let (all, tally) = (hits.each.len(), tally(env, &hits).await?);
            let confirmed = tally.gone == all && tally.again == 0;
            Ok(Proof {
                status: if confirmed { ProofStatus::Confirmed } else { ProofStatus::Mismatch },
                requested: format!("{all} gone"),
                measured: format!("{} of {all} gone{}", tally.gone, tally.facts),
                tolerance: "all".to_owned(),
                samples: all as u64,
            })
        })
    }

    fn picture<'a>(&'a self, env: &'a Env, undo: &'a Value) -> Pending<'a, Result<Value, InjectError>> {
        Box::pin(async move { recall::<Data>(ABOUT.name, undo)?.hits.states(env).await })
    }
}
