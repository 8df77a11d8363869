//! `container-kill`: a signal that ends containers, and whatever brings them back.

use std::fmt::Write as _;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::containers::{self, Hits, SETTLE, up};
use super::process_kill::wait_end;
use super::{processes, recall, record};
use crate::about::{About, Args, Effect, Param, ParamKind, Presence};
use crate::sys::docker::{Act, Container};
use crate::sys::proc::SignalName;
use crate::target::{Target, TargetKind};
use crate::{Change, Env, InjectError, Injector, Pending, Proof, ProofStatus, Request, Undone};

/// Ends containers by a signal.
#[derive(Debug)]
pub struct ContainerKill;

static ABOUT: About = About {
    name: "container-kill",
    summary: "Ends containers by a signal, and has them back afterwards",
    description: "Without another word the engine sends the signal, as `docker kill` does: it takes that for an \
                  operator's wish, so no restart policy has the container back before the fault is over; then it is \
                  started again. With `comes-back` its main process is killed behind the engine's back, as a crash would: \
                  its restart policy, or an orchestrator, must have it back within this time after the fault; else it is started \
                  all the same, and the record says so. `permanent: true`: it stays down. The main process of a container ignores signals that it does not \
                  handle, all but KILL. A container that is labelled squall.protect, in which squall itself \
                  runs, or in whose network namespace others live is never hit.",
    target: TargetKind::Container,
    params: &[
        Param {
            name: "signal",
            kind: ParamKind::Choice(&["KILL", "TERM", "INT", "QUIT", "ABRT", "HUP"]),
            presence: Presence::Default("KILL"),
            help: "the signal to send to its main process",
        },
        Param {
            name: "comes-back",
            kind: ParamKind::Span,
            presence: Presence::Optional,
            help: "killed like a crash: its restart policy or an orchestrator has it back, within this time after the fault, at most 20s",
        },
        Param {
            name: "permanent",
            kind: ParamKind::Flag,
            presence: Presence::Optional,
            help: "true: it is meant to stay down",
        },
    ],
    needs: containers::NEEDS,
    effect: Effect::Outage,
    proof: "The main process of every container is gone (number and start time), the engine tells its exit code, and \
            without `comes-back` nothing has started it again; with it, how long it was down by the engine's own times.",
    undo: "Those that are down are started again, with the same id, networks and volumes. One that somebody has removed \
           meanwhile carries no fault.",
    example: "- container-kill: {label: app=web, pick: one}",
};

/// How long a container may take to end after a signal that it can handle.
const END_DEADLINE: Duration = Duration::from_millis(if cfg!(test) { 20 } else { 5000 });
/// The longest `comes-back`: an undo waits no longer.
const COMES_BACK_MAX: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(20);

#[derive(Debug, Serialize, Deserialize)]
struct Data {
    hits: Hits,
    signal: String,
    back: Back,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Back {
    Started,
    ByItself(f64),
    Never,
}

impl Back {
    fn of(args: &Args) -> Result<Self, String> {
        match (args.span("comes-back"), args.flag("permanent").unwrap_or(false)) {
            (Some(_), true) => Err("comes-back and permanent exclude each other".to_owned()),
            (Some(span), _) if span > COMES_BACK_MAX => {
                Err("comes-back: at most 20s; what needs longer gets it by a longer `for`".to_owned())
            }
            (Some(span), false) => Ok(Self::ByItself(span.as_secs_f64())),
            (None, true) => Ok(Self::Never),
            (None, false) => Ok(Self::Started),
        }
    }
}

impl Data {
    /// How long those that were hit may take to end.
    fn grace(&self) -> Duration {
        if self.signal == "KILL" { SETTLE } else { END_DEADLINE }
    }

    /// Waits for what somebody else starts, and starts it where nobody does.
    async fn have_back(&self, env: &Env, patience: Duration) -> Result<Undone, InjectError> {
        let end = tokio::time::Instant::now() + patience;
        let mut waited = false;
        loop {
            let (mut down, mut removed) = (false, None);
            for hit in &self.hits.each {
                match self.hits.look(env, hit).await? {
                    Some(now) => down |= !up(&now),
                    None => removed = Some(hit),
                }
            }
            if !down && (removed.is_none() || self.hits.as_many(env).await?) {
                return Ok(if waited { Undone::Reverted } else { Undone::NothingToDo });
            }
            if tokio::time::Instant::now() < end {
                waited = true;
                tokio::time::sleep(POLL).await;
                continue;
            }
            let started = self.hits.start_again(env).await?;
            return match removed {
                None if started == Undone::Reverted => Ok(Undone::Overdue),
                None => Ok(started),
                Some(hit) => Err(InjectError::Target(format!(
                    "container {} was removed when it had ended, and nothing has started another within {patience:?}",
                    hit.name
                ))),
            };
        }
    }
}

impl Injector for ContainerKill {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn check(&self, args: &Args, _target: &Target) -> Result<(), Vec<String>> {
        Back::of(args).map(drop).map_err(|mistake| vec![mistake])
    }

    fn undoes(&self, args: &Args, target: &Target) -> String {
        match Back::of(args) {
            Ok(Back::ByItself(seconds)) => {
                format!("see that {target} runs again within {seconds} s, and start what does not")
            }
            Ok(Back::Never) => "nothing: it stays down".to_owned(),
            _ => format!("start {target} again, unless it runs"),
        }
    }

    fn prepare<'a>(&'a self, env: &'a Env, request: &'a Request) -> Pending<'a, Result<Change, InjectError>> {
        Box::pin(async move {
            let back = Back::of(&request.args).map_err(InjectError::Target)?;
            let (hits, found) = containers::find(env, request).await?;
            if back == Back::Started {
                let way =
                    "; write `comes-back: 20s` if something else starts a new one, or `permanent: true`";
                containers::refuse_fleeting(&found, way)?;
            }
            let unseen = hits.each.iter().find(|hit| hit.process.is_none());
            if let (Back::ByItself(_), Some(hit)) = (&back, unseen) {
                return Err(InjectError::Lack(format!(
                    "comes-back: the process of container {} cannot be seen from here, so it cannot crash; run squall \
                     on the engine's host, in its pid namespace (docker run --pid=host)",
                    hit.name
                )));
            }
            containers::refuse_shared(env, &hits).await?;
            let signal = request.args.text("signal").unwrap_or("KILL").to_owned();
            let for_good = if back == Back::Never { ", for good" } else { "" };
            let summary = format!("send SIG{signal} to {}{for_good}", hits.names());
            let manual = match back {
                Back::Never => "nothing to do: it was meant to stay down".to_owned(),
                _ => hits.by_hand(&["start"]),
            };
            let claims = hits.claims();
            let data = record(&Data { hits, signal, back });
            containers::change(self, env, request, containers::Words { summary, claims, manual }, data).await
        })
    }

    fn apply<'a>(&'a self, env: &'a Env, change: &'a Change) -> Pending<'a, Result<(), InjectError>> {
        Box::pin(async move {
            let data: Data = recall(ABOUT.name, &change.apply)?;
            if let Back::ByItself(_) = data.back {
                return crash(env, &data);
            }
            let all: Vec<_> = data.hits.each.iter().collect();
            data.hits.act(env, &all, &Act::Kill(data.signal)).await
        })
    }

    fn undo<'a>(&'a self, env: &'a Env, undo: &'a Value) -> Pending<'a, Result<Undone, InjectError>> {
        Box::pin(async move {
            let data: Data = recall(ABOUT.name, undo)?;
            // One that was hit a moment ago still shows, and must not pass for one that was never hit.
            let ended = |hit: &containers::Hit, now: &Container| !up(now) || hit.reborn(now);
            let seen = data.hits.settled(env, data.grace(), ended).await?;
            match data.back {
                Back::Never => {
                    let untouched =
                        seen.iter().all(|(hit, now)| now.as_ref().is_some_and(|now| !ended(hit, now)));
                    Ok(if untouched { Undone::NothingToDo } else { Undone::Permanent })
                }
                Back::Started => data.hits.start_again(env).await,
                Back::ByItself(seconds) => data.have_back(env, Duration::from_secs_f64(seconds)).await,
            }
        })
    }

    fn observe<'a>(&'a self, env: &'a Env, change: &'a Change) -> Pending<'a, Result<Proof, InjectError>> {
        Box::pin(async move {
            let data: Data = recall(ABOUT.name, &change.apply)?;
            wait_end(env, &data.hits.processes(), data.grace()).await?;
            let comes_back = matches!(data.back, Back::ByItself(_));
            let tally = tally(env, &data.hits).await?;
            let all = data.hits.each.len();
            let confirmed = tally.gone == all && (comes_back || tally.again == 0);
            let mut measured = format!("{} of {all} gone{}", tally.gone, tally.facts);
            if !comes_back && tally.again > 0 {
                measured += ", started again by somebody else";
            }
            Ok(Proof {
                status: if confirmed { ProofStatus::Confirmed } else { ProofStatus::Mismatch },
                requested: format!("{all} gone"),
                measured,
                tolerance: "all".to_owned(),
                samples: all as u64,
            })
        })
    }

    fn picture<'a>(&'a self, env: &'a Env, undo: &'a Value) -> Pending<'a, Result<Value, InjectError>> {
        Box::pin(async move {
            let data: Data = recall(ABOUT.name, undo)?;
            if data.back == Back::Never {
                return Ok(json!({"down": "given up"}));
            }
            data.hits.states(env).await
        })
    }
}

/// Ends the main processes behind the engine's back.
fn crash(env: &Env, data: &Data) -> Result<(), InjectError> {
    let signal = SignalName::parse(&data.signal).unwrap_or(SignalName::Kill);
    for hit in &data.hits.each {
        let Some(id) = hit.process else { continue };
        let failed = |source| InjectError::System { what: format!("signal process {}", id.pid), source };
        if !env.procs.signal(id, signal).map_err(failed)? {
            return Err(InjectError::Target(format!(
                "container {} ended before it could be killed",
                hit.name
            )));
        }
    }
    Ok(())
}

/// What has become of containers that were to end.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Those whose life at the time of the fault is over.
    pub(super) gone: usize,
    /// Those that live again.
    pub(super) again: usize,
    /// How they ended and came back, in words; empty or beginning with a blank.
    pub(super) facts: String,
}

/// Looks at the processes, or at the engine's word where no process can be seen from here.
pub(super) async fn tally(env: &Env, hits: &Hits) -> Result<Tally, InjectError> {
    let mut tally = Tally::default();
    let (mut codes, mut pauses): (Vec<i64>, Vec<f64>) = (Vec::new(), Vec::new());
    for hit in &hits.each {
        let now = hits.look(env, hit).await?;
        let over = now.as_ref().is_none_or(|now| !up(now) || hit.reborn(now));
        let dead = match hit.process {
            Some(id) => processes::alive(&*env.procs, &[id])?.is_empty(),
            None => true,
        };
        tally.gone += usize::from(over && dead);
        let Some(now) = now else { continue };
        if hit.reborn(&now) {
            tally.again += 1;
            pauses.extend(now.was_down.map(|down| down.as_secs_f64()));
        } else if !up(&now) {
            codes.push(now.exit_code);
        }
    }
    codes.sort_unstable();
    codes.dedup();
    if !codes.is_empty() {
        let codes: Vec<String> = codes.iter().map(ToString::to_string).collect();
        let _ = write!(tally.facts, " (exit code {})", codes.join(", "));
    }
    if let Some(longest) = pauses.into_iter().reduce(f64::max) {
        let _ = write!(tally.facts, ", {} back after {longest:.1} s", tally.again);
    }
    Ok(tally)
}
