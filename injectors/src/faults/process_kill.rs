//! `process-kill`: a signal that ends a process, and whatever brings it back.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::processes::{self, Anchor};
use super::{by_hand, failure, recall, record, refuse_missing};
use crate::about::{About, Args, Effect, Param, ParamKind, Presence};
use crate::sys::control::ControlError;
use crate::sys::proc::{ProcessInfo, SignalName};
use crate::target::{ProcessId, Target, TargetKind};
use crate::{Change, Env, InjectError, Injector, Pending, Proof, ProofStatus, Request, Undone};

/// Ends processes by a signal.
#[derive(Debug)]
pub struct ProcessKill;

static ABOUT: About = About {
    name: "process-kill",
    summary: "Ends processes by a signal, and has them back afterwards",
    description: "A lab instance is started again by its supervisor. Any other process needs one of three words: \
                  `restart` (the command that starts it), `comes-back` (something else, such as systemd, starts it \
                  within this time) or `permanent: true` (it stays down; nothing will be undone). A `restart` that fails is run once more, \
                  to show what it prints. A pid file \
                  means the process and all that descends from it; a port means every process that listens on it, \
                  workers included. Squall itself, its ancestors and process 1 are \
                  never hit.",
    target: TargetKind::Process,
    params: &[
        Param {
            name: "signal",
            kind: ParamKind::Choice(&["KILL", "TERM", "INT", "QUIT", "ABRT", "HUP"]),
            presence: Presence::Default("KILL"),
            help: "the signal to send",
        },
        Param {
            name: "restart",
            kind: ParamKind::Argv,
            presence: Presence::Optional,
            help: "command that starts it again, given to no shell",
        },
        Param {
            name: "comes-back",
            kind: ParamKind::Span,
            presence: Presence::Optional,
            help: "something else starts it again, within this time after the fault",
        },
        Param {
            name: "permanent",
            kind: ParamKind::Flag,
            presence: Presence::Optional,
            help: "true: it is meant to stay down",
        },
    ],
    needs: &["the right to signal the process: the same user, or CAP_KILL"],
    effect: Effect::Outage,
    proof: "Every process that was hit is gone (number and start time), and nothing has taken its place.",
    undo: "The process runs again, started by the lab's supervisor, by `restart`, or by whatever `comes-back` stands for.",
    example: "- process-kill: {service: auth}",
};

/// How long a process that was started again may take until it is there.
const START_DEADLINE: Duration = Duration::from_secs(if cfg!(test) { 2 } else { 10 });
/// How long a `restart` that has failed may take the second time, when it is listened to.
const LISTEN_DEADLINE: Duration = Duration::from_secs(5);
/// How long a process may take to end after a signal that it can handle.
const END_DEADLINE: Duration = Duration::from_secs(5);
/// How long processes of which only some were hit may take to be as many as before.
const HALF_DEADLINE: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(20);

#[derive(Debug, Serialize, Deserialize)]
struct Data {
    /// The injection's id: the mark of what `restart` starts, so that every later try knows it, from any process.
    id: String,
    anchor: Anchor,
    ids: Vec<ProcessId>,
    signal: String,
    back: Back,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Back {
    Supervisor,
    Restart(Vec<String>),
    ByItself(f64),
    Never,
}

impl Back {
    fn of(args: &Args, target: &Target) -> Result<Self, String> {
        let mut ways = Vec::new();
        if matches!(target, Target::Instance { .. }) {
            ways.push(Self::Supervisor);
        }
        ways.extend(args.argv("restart").map(|argv| Self::Restart(argv.to_vec())));
        ways.extend(args.span("comes-back").map(|span| Self::ByItself(span.as_secs_f64())));
        ways.extend(args.flag("permanent").filter(|yes| *yes).map(|_| Self::Never));
        match ways.len() {
            1 => Ok(ways.remove(0)),
            0 => {
                Err("say how it comes back: `restart: [program, …]`, `comes-back: 30s` or `permanent: true`"
                    .to_owned())
            }
            _ if matches!(target, Target::Instance { .. }) => {
                Err("the lab starts its own instances again: leave out restart, comes-back and permanent"
                    .to_owned())
            }
            _ => Err("restart, comes-back and permanent exclude each other".to_owned()),
        }
    }
}

impl Data {
    /// Whether what the target names is there, apart from those processes that were hit and are ending.
    async fn present(&self, env: &Env) -> Result<bool, InjectError> {
        Ok(processes::present(env, &self.anchor).await?.unwrap_or(true))
    }

    /// How long those that were hit may take to end.
    fn grace(&self) -> Duration {
        if self.signal == "KILL" { Duration::from_millis(500) } else { END_DEADLINE }
    }

    /// Waits, where only some of the processes are gone, for others in their place: a master starts its workers again.
    /// Those that live on are not killed to make a restart possible: perhaps nothing of this was squall's doing.
    async fn wait_whole(&self, env: &Env) -> Result<(), InjectError> {
        let Anchor::Found(target) = &self.anchor else { return Ok(()) };
        let all = self.ids.len();
        let mut left = HALF_DEADLINE.as_millis() / POLL.as_millis();
        loop {
            let living = processes::alive(&*env.procs, &self.ids)?.len();
            if living == 0 || living == all || processes::count(env, target)? >= all {
                return Ok(());
            }
            if left == 0 {
                return Err(InjectError::Target(format!(
                    "{} of {all} processes are gone and the others run on: {}",
                    all - living,
                    processes::start_by_hand(&self.anchor)
                )));
            }
            left -= 1;
            tokio::time::sleep(POLL).await;
        }
    }

    async fn wait_present(&self, env: &Env, deadline: Duration) -> Result<(), InjectError> {
        let patience = async {
            loop {
                if self.present(env).await? {
                    return Ok(());
                }
                tokio::time::sleep(POLL).await;
            }
        };
        tokio::time::timeout(deadline, patience)
            .await
            .unwrap_or_else(|_| Err(InjectError::Deadline(format!("it was not back after {deadline:?}"))))
    }
}

/// Runs the user's command and waits until what it starts is there. What an earlier try has started and still runs, in
/// whatever process that try was, is waited for instead: there is never a second copy of a server that starts slowly.
async fn start_again(env: &Env, data: &Data, argv: &[String]) -> Result<(), InjectError> {
    let patience = async {
        while !marked(env, data)?.is_empty() {
            if data.present(env).await? {
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
        start(env, data, argv).await
    };
    match tokio::time::timeout(START_DEADLINE, patience).await {
        Ok(outcome) => outcome,
        Err(_) => {
            let state = match marked(env, data)?.as_slice() {
                [] => "was started and is not seen to run".to_owned(),
                left => format!("still runs: {}", processes::names(left)),
            };
            let text =
                format!("it was not back after {START_DEADLINE:?}, though `{}` {state}", argv.join(" "));
            Err(InjectError::Deadline(text))
        }
    }
}

async fn start(env: &Env, data: &Data, argv: &[String]) -> Result<(), InjectError> {
    let failed = |source| InjectError::System { what: format!("start `{}`", argv.join(" ")), source };
    let mut started = env.procs.start(argv, &data.id).map_err(failed)?;
    loop {
        if data.present(env).await? {
            return Ok(());
        }
        if let Some(status) = started.ended().map_err(failed)?.filter(|status| !status.success()) {
            let left = marked(env, data)?;
            if left.is_empty() {
                return start_and_listen(env, data, argv).await;
            }
            let (line, left) = (argv.join(" "), processes::names(&left));
            return Err(InjectError::Command(format!(
                "`{line}` ended with {status}, but left running: {left}"
            )));
        }
        tokio::time::sleep(POLL).await;
    }
}

/// What lives of all that was started to have the target back.
fn marked(env: &Env, data: &Data) -> Result<Vec<ProcessInfo>, InjectError> {
    let failed = |source| InjectError::System { what: "look for what was started".to_owned(), source };
    env.procs.marked(&data.id).map_err(failed)
}

/// Runs a command that has failed once more, to hear why. Not the first time: a server that stays in the foreground
/// would lose whoever reads its output when squall ends.
async fn start_and_listen(env: &Env, data: &Data, argv: &[String]) -> Result<(), InjectError> {
    let failed = |source| InjectError::System { what: format!("start `{}`", argv.join(" ")), source };
    let output = env.procs.run(argv, LISTEN_DEADLINE, Some(&data.id)).await.map_err(failed)?;
    if output.code != Some(0) {
        return Err(failure(argv, &output));
    }
    data.wait_present(env, START_DEADLINE).await
}

impl Injector for ProcessKill {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn check(&self, args: &Args, target: &Target) -> Result<(), Vec<String>> {
        Back::of(args, target).map(drop).map_err(|mistake| vec![mistake])
    }

    fn undoes(&self, args: &Args, target: &Target) -> String {
        match Back::of(args, target) {
            Ok(Back::Supervisor) => format!("the lab's supervisor starts {target} again"),
            Ok(Back::Restart(argv)) => format!("run `{}` if {target} is not there", argv.join(" ")),
            Ok(Back::ByItself(seconds)) => {
                format!("nothing but to see that {target} is there again, within {seconds} s")
            }
            Ok(Back::Never) => "nothing: it stays down".to_owned(),
            Err(_) => ABOUT.undo.to_owned(),
        }
    }

    fn prepare<'a>(&'a self, env: &'a Env, request: &'a Request) -> Pending<'a, Result<Change, InjectError>> {
        Box::pin(async move {
            let (anchor, found) = processes::find(env, &request.target).await?;
            let signal = request.args.text("signal").unwrap_or("KILL").to_owned();
            let back = Back::of(&request.args, &request.target).map_err(InjectError::Target)?;
            if let Back::Restart(argv) = &back {
                refuse_missing(env, "restart", argv)?;
            }
            let ids: Vec<ProcessId> = found.iter().map(|info| info.id).collect();
            let manual = match (&anchor, &back) {
                (_, Back::Restart(argv)) => by_hand(argv),
                (_, Back::Never) => "nothing to do: it was meant to stay down".to_owned(),
                (anchor, _) => processes::start_by_hand(anchor),
            };
            let for_good = if back == Back::Never { ", for good" } else { "" };
            let data = record(&Data {
                id: request.id.clone(),
                anchor,
                ids: ids.clone(),
                signal: signal.clone(),
                back,
            });
            Ok(Change {
                id: request.id.clone(),
                fault: ABOUT.name.to_owned(),
                target: request.target.to_string(),
                summary: format!("send SIG{signal} to {}{for_good}", processes::names(&found)),
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
            let data: Data = recall(ABOUT.name, &change.apply)?;
            let signal = SignalName::parse(&data.signal).unwrap_or(SignalName::Kill);
            for id in data.ids {
                let failed =
                    |source| InjectError::System { what: format!("signal process {}", id.pid), source };
                env.procs.signal(id, signal).map_err(failed)?;
            }
            Ok(())
        })
    }

    fn undo<'a>(&'a self, env: &'a Env, undo: &'a Value) -> Pending<'a, Result<Undone, InjectError>> {
        Box::pin(async move {
            let data: Data = recall(ABOUT.name, undo)?;
            // One that was hit a moment ago still shows, and must not pass for one that was never hit.
            wait_end(env, &data.ids, data.grace()).await?;
            if data.back == Back::Never {
                let untouched = processes::alive(&*env.procs, &data.ids)?.len() == data.ids.len();
                return Ok(if untouched { Undone::NothingToDo } else { Undone::Permanent });
            }
            if let (Anchor::Instance { instance, supervisor }, Back::Supervisor) = (&data.anchor, &data.back)
            {
                if processes::running(env, supervisor, instance).await? != Some(false) {
                    // A killed instance stays a moment until its supervisor has seen the end.
                    let ending = processes::alive(&*env.procs, &data.ids)?.is_empty();
                    if !ending {
                        return Ok(Undone::NothingToDo);
                    }
                }
                return match env.control.call(supervisor, &json!({"op": "start", "instance": instance})).await
                {
                    // It may be back already: then nothing was started.
                    Ok(answer) if answer["started"] == Value::Bool(false) => Ok(Undone::NothingToDo),
                    Ok(_) => Ok(Undone::Reverted),
                    Err(ControlError::Gone(_)) => Ok(Undone::NothingToDo),
                    Err(source) => Err(InjectError::Control { what: "the lab".to_owned(), source }),
                };
            }
            data.wait_whole(env).await?;
            if data.present(env).await? {
                return Ok(Undone::NothingToDo);
            }
            match &data.back {
                Back::Restart(argv) => start_again(env, &data, argv).await?,
                Back::ByItself(seconds) => {
                    data.wait_present(env, Duration::from_secs_f64(*seconds)).await?;
                }
                Back::Supervisor | Back::Never => data.wait_present(env, Duration::ZERO).await?,
            }
            Ok(Undone::Reverted)
        })
    }

    fn observe<'a>(&'a self, env: &'a Env, change: &'a Change) -> Pending<'a, Result<Proof, InjectError>> {
        Box::pin(async move {
            let data: Data = recall(ABOUT.name, &change.apply)?;
            wait_end(env, &data.ids, data.grace()).await?;
            let living = processes::alive(&*env.procs, &data.ids)?.len();
            let meant_to_return = matches!(data.back, Back::ByItself(_));
            let replaced = living == 0 && !meant_to_return && data.present(env).await?;
            let confirmed = living == 0 && !replaced;
            let place = if replaced { ", but another process has taken its place" } else { "" };
            Ok(Proof {
                status: if confirmed { ProofStatus::Confirmed } else { ProofStatus::Mismatch },
                requested: format!("{} gone", data.ids.len()),
                measured: format!("{} gone{place}", data.ids.len() - living),
                tolerance: "all".to_owned(),
                samples: data.ids.len() as u64,
            })
        })
    }

    fn picture<'a>(&'a self, env: &'a Env, undo: &'a Value) -> Pending<'a, Result<Value, InjectError>> {
        Box::pin(async move {
            let data: Data = recall(ABOUT.name, undo)?;
            if data.back == Back::Never {
                return Ok(json!({"present": "given up"}));
            }
            Ok(json!({"present": data.present(env).await?}))
        })
    }
}

/// Waits until the processes have ended, at most this long; running out of it is no error.
pub(super) async fn wait_end(env: &Env, ids: &[ProcessId], deadline: Duration) -> Result<(), InjectError> {
    let patience = async {
        while !processes::alive(&*env.procs, ids)?.is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    };
    tokio::time::timeout(deadline, patience).await.unwrap_or(Ok(()))
}
