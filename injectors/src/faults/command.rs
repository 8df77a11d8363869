//! `command`: the user's own fault, as three commands.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{by_hand, failure, recall, record, refuse_missing};
use crate::about::{About, Args, Effect, Param, ParamKind, Presence};
use crate::sys::proc::Output;
use crate::target::{Target, TargetKind};
use crate::{Change, Env, InjectError, Injector, Pending, Proof, ProofStatus, Request, Undone};

/// Runs the user's commands.
#[derive(Debug)]
pub struct Command;

static ABOUT: About = About {
    name: "command",
    summary: "Breaks and restores something by commands of your own",
    description: "Three commands, each a list of texts that no shell ever sees: `do` breaks, `undo` restores, \
                  `effect` answers whether it is broken (exit code 0: broken). `effect` must say no before the \
                  fault, yes while it lives and no again after `undo`; so the proof and the restoration are yours to \
                  measure and squall's to judge. `undo` must be idempotent: it also runs when `do` ran half or \
                  never, even from another process after a crash.",
    target: TargetKind::Nothing,
    params: &[
        Param {
            name: "do",
            kind: ParamKind::Argv,
            presence: Presence::Required,
            help: "breaks; must exit with 0",
        },
        Param {
            name: "undo",
            kind: ParamKind::Argv,
            presence: Presence::Required,
            help: "restores; idempotent",
        },
        Param {
            name: "effect",
            kind: ParamKind::Argv,
            presence: Presence::Required,
            help: "exits with 0 while the thing is broken, with another code while it is not",
        },
        Param {
            name: "deadline",
            kind: ParamKind::Span,
            presence: Presence::Default("10s"),
            help: "how long each command may take; then it is ended with all that it started",
        },
    ],
    needs: &["whatever the commands need"],
    effect: Effect::Custom,
    proof: "The effect command exits with 0 while the fault lives.",
    undo: "The undo command runs, after which the effect command no longer exits with 0.",
    example: "- command: {do: [touch, /tmp/squall-broken], undo: [rm, -f, /tmp/squall-broken], effect: [test, -e, /tmp/squall-broken]}",
};

#[derive(Debug, Serialize, Deserialize)]
struct Data {
    r#do: Vec<String>,
    undo: Vec<String>,
    effect: Vec<String>,
    deadline_s: f64,
}

impl Data {
    async fn run(&self, env: &Env, argv: &[String]) -> Result<Output, InjectError> {
        let finished = env.procs.run(argv, Duration::from_secs_f64(self.deadline_s), None).await;
        finished.map_err(|source| InjectError::System { what: format!("run {}", argv.join(" ")), source })
    }

    async fn broken(&self, env: &Env) -> Result<bool, InjectError> {
        Ok(self.run(env, &self.effect).await?.code == Some(0))
    }
}

impl Injector for Command {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn undoes(&self, args: &Args, _target: &Target) -> String {
        let argv = |name: &str| args.argv(name).unwrap_or_default().join(" ");
        format!("run `{}`, until `{}` no longer exits with 0", argv("undo"), argv("effect"))
    }

    fn prepare<'a>(&'a self, env: &'a Env, request: &'a Request) -> Pending<'a, Result<Change, InjectError>> {
        Box::pin(async move {
            let argv = |name: &str| request.args.argv(name).unwrap_or_default().to_vec();
            let deadline_s = request.args.span("deadline").unwrap_or(Duration::from_secs(10)).as_secs_f64();
            let data = Data { r#do: argv("do"), undo: argv("undo"), effect: argv("effect"), deadline_s };
            for (param, argv) in [("do", &data.r#do), ("undo", &data.undo), ("effect", &data.effect)] {
                refuse_missing(env, param, argv)?;
            }
            if data.broken(env).await? {
                let text = format!("`{}` says that it is broken already", data.effect.join(" "));
                return Err(InjectError::Target(text));
            }
            let recorded = record(&data);
            Ok(Change {
                id: request.id.clone(),
                fault: ABOUT.name.to_owned(),
                target: request.target.to_string(),
                summary: format!("run `{}`", data.r#do.join(" ")),
                claims: vec![format!("command:{}", data.r#do.join(" "))],
                apply: recorded.clone(),
                undo: recorded,
                manual: by_hand(&data.undo),
                picture: json!({"broken": false}),
            })
        })
    }

    fn apply<'a>(&'a self, env: &'a Env, change: &'a Change) -> Pending<'a, Result<(), InjectError>> {
        Box::pin(async move {
            let data: Data = recall(ABOUT.name, &change.apply)?;
            let output = data.run(env, &data.r#do).await?;
            if output.code == Some(0) { Ok(()) } else { Err(failure(&data.r#do, &output)) }
        })
    }

    fn undo<'a>(&'a self, env: &'a Env, undo: &'a Value) -> Pending<'a, Result<Undone, InjectError>> {
        Box::pin(async move {
            let data: Data = recall(ABOUT.name, undo)?;
            let was_broken = data.broken(env).await?;
            // Run it even if nothing shows: `do` may have run half.
            let output = data.run(env, &data.undo).await?;
            if output.code != Some(0) && data.broken(env).await? {
                return Err(failure(&data.undo, &output));
            }
            Ok(if was_broken { Undone::Reverted } else { Undone::NothingToDo })
        })
    }

    fn observe<'a>(&'a self, env: &'a Env, change: &'a Change) -> Pending<'a, Result<Proof, InjectError>> {
        Box::pin(async move {
            let data: Data = recall(ABOUT.name, &change.apply)?;
            let output = data.run(env, &data.effect).await?;
            let confirmed = output.code == Some(0);
            Ok(Proof {
                status: if confirmed { ProofStatus::Confirmed } else { ProofStatus::Mismatch },
                requested: format!("`{}` exits with 0", data.effect.join(" ")),
                measured: output
                    .code
                    .map_or("ended by a signal".to_owned(), |code| format!("exit code {code}")),
                tolerance: "none".to_owned(),
                samples: 1,
            })
        })
    }

    fn picture<'a>(&'a self, env: &'a Env, undo: &'a Value) -> Pending<'a, Result<Value, InjectError>> {
        Box::pin(async move {
            let data: Data = recall(ABOUT.name, undo)?;
            Ok(json!({"broken": data.broken(env).await?}))
        })
    }
}
