//! `process-pause`: SIGSTOP, then SIGCONT.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::processes::{self, Anchor};
use super::{recall, record};
use crate::about::{About, Args, Effect};
use crate::sys::proc::SignalName;
use crate::target::{ProcessId, Target, TargetKind};
use crate::{Change, Env, InjectError, Injector, Pending, Proof, ProofStatus, Request, Undone};

/// Stops processes without ending them: a hang that health checks by connection do not see.
#[derive(Debug)]
pub struct ProcessPause;

static ABOUT: About = About {
    name: "process-pause",
    summary: "Stops processes with SIGSTOP, so that they hang while their sockets stay open",
    description: "The kernel still accepts connections for a paused process, so its callers see neither a refusal \
                  nor a reset, only silence: what a deadlock, a long garbage collection or a stuck disk look like. \
                  A pid file means the process and all that \
                  descends from it; a port means every process that listens on it, workers included. Squall itself, its ancestors \
                  and process 1 are never paused.",
    target: TargetKind::Process,
    params: &[],
    needs: &["the right to signal the process: the same user, or CAP_KILL"],
    effect: Effect::Outage,
    proof: "Every process is in state T (stopped).",
    undo: "SIGCONT goes to the same processes (number and start time), which then no longer are in state T. One that \
           somebody else has ended meanwhile, such as a watchdog, must have been replaced: else it is not restored.",
    example: "- process-pause: {service: auth}",
};

#[derive(Debug, Serialize, Deserialize)]
struct Data {
    anchor: Anchor,
    ids: Vec<ProcessId>,
}

const STOPPED: char = 'T';

fn signal(env: &Env, id: ProcessId, name: SignalName) -> Result<bool, InjectError> {
    let failed = |source| InjectError::System { what: format!("signal process {}", id.pid), source };
    env.procs.signal(id, name).map_err(failed)
}

impl Injector for ProcessPause {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn undoes(&self, _args: &Args, target: &Target) -> String {
        format!("SIGCONT to {target}: to each process that was stopped, unless it has ended since")
    }

    fn prepare<'a>(&'a self, env: &'a Env, request: &'a Request) -> Pending<'a, Result<Change, InjectError>> {
        Box::pin(async move {
            let (anchor, found) = processes::find(env, &request.target).await?;
            if let Some(info) = found.iter().find(|info| info.state == STOPPED) {
                let text =
                    format!("process {} ({}) is stopped already, by somebody else", info.id.pid, info.comm);
                return Err(InjectError::Target(text));
            }
            let ids: Vec<ProcessId> = found.iter().map(|info| info.id).collect();
            let pids: Vec<String> = ids.iter().map(|id| id.pid.to_string()).collect();
            let hint = processes::start_by_hand(&anchor).replace(char::is_control, " ");
            let manual = format!("kill -CONT {} # if it has ended meanwhile: {hint}", pids.join(" "));
            let data = record(&Data { anchor, ids: ids.clone() });
            Ok(Change {
                id: request.id.clone(),
                fault: ABOUT.name.to_owned(),
                target: request.target.to_string(),
                summary: format!("pause {}", processes::names(&found)),
                claims: processes::claims(&ids),
                apply: data.clone(),
                picture: self.picture(env, &data).await?,
                undo: data,
                manual,
            })
        })
    }

    fn apply<'a>(&'a self, env: &'a Env, change: &'a Change) -> Pending<'a, Result<(), InjectError>> {
        Box::pin(async move {
            for id in recall::<Data>(ABOUT.name, &change.apply)?.ids {
                if !signal(env, id, SignalName::Stop)? {
                    return Err(InjectError::Target(format!(
                        "process {} ended before it could be paused",
                        id.pid
                    )));
                }
            }
            Ok(())
        })
    }

    fn undo<'a>(&'a self, env: &'a Env, undo: &'a Value) -> Pending<'a, Result<Undone, InjectError>> {
        Box::pin(async move {
            let Data { anchor, ids } = recall(ABOUT.name, undo)?;
            let (mut outcome, mut gone) = (Undone::NothingToDo, None);
            for id in ids {
                // SIGCONT whatever the state says: a stop that is still on its way would show a moment later.
                let stopped = processes::alive(&*env.procs, &[id])?.iter().any(|info| info.state == STOPPED);
                match signal(env, id, SignalName::Cont)? {
                    true if stopped => outcome = Undone::Reverted,
                    true => {}
                    false => gone = Some(id.pid),
                }
            }
            let Some(pid) = gone else { return Ok(outcome) };
            match processes::present(env, &anchor).await? {
                Some(true) => Ok(Undone::Replaced),
                // All that it belonged to is gone: nobody expects it back.
                None => Ok(outcome),
                Some(false) => Err(InjectError::Target(format!(
                    "process {pid} has ended while it was paused, and squall did not end it: {}, then `squall recover`",
                    processes::start_by_hand(&anchor)
                ))),
            }
        })
    }

    fn by_hand(&self, env: &Env, change: &Change) -> String {
        let Ok(Data { anchor, ids }) = recall(ABOUT.name, &change.undo) else { return change.manual.clone() };
        let Ok(living) = processes::alive(&*env.procs, &ids) else { return change.manual.clone() };
        let pids: Vec<String> = living.iter().map(|info| info.id.pid.to_string()).collect();
        let start = processes::start_by_hand(&anchor).replace(char::is_control, " ");
        match pids.as_slice() {
            [] => start,
            pids if pids.len() == ids.len() => format!("kill -CONT {}", pids.join(" ")),
            pids => format!("kill -CONT {} # and {start}", pids.join(" ")),
        }
    }

    fn observe<'a>(&'a self, env: &'a Env, change: &'a Change) -> Pending<'a, Result<Proof, InjectError>> {
        Box::pin(async move {
            let ids = recall::<Data>(ABOUT.name, &change.apply)?.ids;
            let living = processes::alive(&*env.procs, &ids)?;
            let stopped = living.iter().filter(|info| info.state == STOPPED).count();
            let status = if stopped == ids.len() { ProofStatus::Confirmed } else { ProofStatus::Mismatch };
            Ok(Proof {
                status,
                requested: format!("{} stopped", ids.len()),
                measured: format!("{stopped} in state T, {} gone", ids.len() - living.len()),
                tolerance: "all".to_owned(),
                samples: ids.len() as u64,
            })
        })
    }

    fn picture<'a>(&'a self, env: &'a Env, undo: &'a Value) -> Pending<'a, Result<Value, InjectError>> {
        Box::pin(async move {
            let Data { anchor, ids } = recall(ABOUT.name, undo)?;
            let living = processes::alive(&*env.procs, &ids)?;
            let stopped: Vec<u32> =
                living.iter().filter(|info| info.state == STOPPED).map(|info| info.id.pid).collect();
            // A process that has ended is not stopped; whether another one is in its place shows that all is as before.
            let present = processes::present(env, &anchor).await?.unwrap_or(true);
            Ok(json!({"stopped": stopped, "present": present}))
        })
    }
}
