//! `container-restart`: ended the polite way and started at once, all together or one after the other.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::container_kill::tally;
use super::container_stop::{GRACE, grace};
use super::containers::{self, Hit, Hits, SETTLE, up};
use super::{recall, record};
use crate::about::{About, Args, Effect, Param, ParamKind, Presence};
use crate::sys::docker::Act;
use crate::target::{Target, TargetKind};
use crate::{Change, Env, InjectError, Injector, Pending, Proof, ProofStatus, Request, Undone};

/// Restarts containers.
#[derive(Debug)]
pub struct ContainerRestart;

static ABOUT: About = About {
    name: "container-restart",
    summary: "Restarts containers, all at once or one after the other as a deployment does",
    description: "As `docker restart` does: stop signal, grace, SIGKILL, start. Each container is down only for as long \
                  as that takes; the proof tells how long. With `every` they are restarted one after the other, the \
                  first at once: let `for` be long enough for all. To have them down for a chosen time, use \
                  container-stop. A container that is labelled squall.protect, in which squall itself runs, or in \
                  whose network namespace others live is never hit.",
    target: TargetKind::Container,
    params: &[
        GRACE,
        Param {
            name: "every",
            kind: ParamKind::Span,
            presence: Presence::Optional,
            help: "one after the other, with so much time from one to the next, at least 1s; without it, all at once",
        },
    ],
    needs: containers::NEEDS,
    effect: Effect::Outage,
    proof: "Every container lives a new life: the old main process is gone (number and start time), and another one \
            runs. How long it was down is told by the engine's own times.",
    undo: "No further container is restarted, and one that is down is started.",
    example: "- container-restart: {label: app=web, pick: all, every: 5s}",
};

#[derive(Debug, Serialize, Deserialize)]
struct Data {
    hits: Hits,
    grace_s: u64,
    every_s: Option<f64>,
}

impl Data {
    /// Those whose turn has come at this age of the fault.
    fn due(&self, age: Duration) -> usize {
        let all = self.hits.each.len();
        match self.every_s {
            Some(every) => all.min(1 + (age.as_secs_f64() / every) as usize),
            None => all,
        }
    }

    async fn restart(&self, env: &Env, hits: &[&Hit]) -> Result<(), InjectError> {
        self.hits.act(env, hits, &Act::Restart(Duration::from_secs(self.grace_s))).await
    }
}

impl Injector for ContainerRestart {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn check(&self, args: &Args, _target: &Target) -> Result<(), Vec<String>> {
        let mut mistakes: Vec<String> = grace(args).err().into_iter().collect();
        if args.span("every").is_some_and(|every| every < Duration::from_secs(1)) {
            mistakes.push("every: at least 1s".to_owned());
        }
        if mistakes.is_empty() { Ok(()) } else { Err(mistakes) }
    }

    fn undoes(&self, _args: &Args, target: &Target) -> String {
        format!("restart no more of {target}, and start what is down")
    }

    fn prepare<'a>(&'a self, env: &'a Env, request: &'a Request) -> Pending<'a, Result<Change, InjectError>> {
        Box::pin(async move {
            let grace_s = grace(&request.args).map_err(InjectError::Target)?.as_secs();
            let every_s = request.args.span("every").map(|every| every.as_secs_f64());
            let (hits, _) = containers::find(env, request).await?;
            containers::refuse_shared(env, &hits).await?;
            let one_by_one = every_s.map_or(String::new(), |every| format!(", one every {every} s"));
            let summary = format!("restart {} with {grace_s} s of grace{one_by_one}", hits.names());
            let (claims, manual) = (hits.claims(), hits.by_hand(&["start"]));
            let data = record(&Data { hits, grace_s, every_s });
            containers::change(self, env, request, containers::Words { summary, claims, manual }, data).await
        })
    }

    fn apply<'a>(&'a self, env: &'a Env, change: &'a Change) -> Pending<'a, Result<(), InjectError>> {
        Box::pin(async move {
            let data: Data = recall(ABOUT.name, &change.apply)?;
            let due: Vec<&Hit> = data.hits.each.iter().take(data.due(Duration::ZERO)).collect();
            data.restart(env, &due).await
        })
    }

    fn renew<'a>(
        &'a self,
        env: &'a Env,
        change: &'a Change,
        age: Duration,
    ) -> Pending<'a, Result<(), InjectError>> {
        Box::pin(async move {
            let data: Data = recall(ABOUT.name, &change.apply)?;
            let due = data.due(age);
            for hit in data.hits.each.iter().take(due).skip(1).filter(|_| data.every_s.is_some()) {
                let waits = data.hits.look(env, hit).await?.is_some_and(|now| up(&now) && !hit.reborn(&now));
                if waits {
                    data.restart(env, &[hit]).await?;
                }
            }
            Ok(())
        })
    }

    fn undo<'a>(&'a self, env: &'a Env, undo: &'a Value) -> Pending<'a, Result<Undone, InjectError>> {
        Box::pin(async move {
            let data: Data = recall(ABOUT.name, undo)?;
            // What the engine was told to restart it starts by itself, whether or not somebody still waits for it.
            data.hits.settled(env, SETTLE, |_, now| up(now)).await?;
            data.hits.start_again(env).await
        })
    }

    fn observe<'a>(&'a self, env: &'a Env, change: &'a Change) -> Pending<'a, Result<Proof, InjectError>> {
        Box::pin(async move {
            let data: Data = recall(ABOUT.name, &change.apply)?;
            let (all, tally) = (data.hits.each.len(), tally(env, &data.hits).await?);
            let status = match tally.gone.min(tally.again) {
                done if done == all => ProofStatus::Confirmed,
                // Its turn may still come.
                done if data.every_s.is_some() && done > 0 => ProofStatus::Unproven,
                _ => ProofStatus::Mismatch,
            };
            Ok(Proof {
                status,
                requested: format!("{all} restarted"),
                measured: format!("{} of {all} lives are over{}", tally.gone, tally.facts),
                tolerance: "all".to_owned(),
                samples: all as u64,
            })
        })
    }

    fn picture<'a>(&'a self, env: &'a Env, undo: &'a Value) -> Pending<'a, Result<Value, InjectError>> {
        Box::pin(async move { recall::<Data>(ABOUT.name, undo)?.hits.states(env).await })
    }
}
