//! `connection-reset`: connections that are open break.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::contained;
use super::cut::features;
use super::shape::{failed, space};
use super::{recall, record};
use crate::about::{About, Args, Effect, Param, ParamKind, Presence};
use crate::flows::Flows;
use crate::relay::chance::Dice;
use crate::sys::aim::{Aim, Protocol};
use crate::sys::netlink::{Connection, DESTROY, Network, Session, Space};
use crate::target::{Target, TargetKind};
use crate::{Change, Env, InjectError, Injector, Pending, Proof, ProofStatus, Request, Undone};

/// Resets: connections that are open break.
#[derive(Debug)]
pub struct ConnectionReset;

static ABOUT: About = About {
    name: "connection-reset",
    summary: "Breaks TCP connections that are open, by the kernel's own hand",
    description: "Of the established connections of the namespace that fit `to`, `from`, `ports` and `local-ports`, a `share` \
                  is aborted: the process here gets ECONNABORTED, the other side a reset. New connections are not \
                  hindered: what is tried is whether both sides open them again. Once at the start, or with \
                  `repeat: true` again each second. Connections that only pass through this host are not hit: for them there is \
                  network-partition with `by: reset`. SSH and what `protect` names are never hit.",
    target: TargetKind::Connections,
    params: &[
        Param {
            name: "share",
            kind: ParamKind::Share,
            presence: Presence::Required,
            help: "how many of them are reset, rounded up",
        },
        Param {
            name: "repeat",
            kind: ParamKind::Flag,
            presence: Presence::Optional,
            help: "true: again each second, as long as the fault lives, also those opened since",
        },
    ],
    needs: &["root", "Linux with tcp_diag and CONFIG_INET_DIAG_DESTROY"],
    effect: Effect::Errors,
    proof: "The connections that were chosen at the start are gone. A mismatch if one of them is still there; unproven \
            if none fitted.",
    undo: "Nothing can be undone and nothing lasts: a connection that was reset does not come back, and nobody is kept \
           from opening another.",
    example: "- connection-reset: {local-ports: \"8080\", share: 50%}",
};

/// The most connections that are chosen at once.
const CHOSEN_MAX: usize = 8192;

#[derive(Debug, Serialize, Deserialize)]
struct Data {
    space: Space,
    aim: Aim,
    share: f64,
    repeat: bool,
    seed: u64,
    /// The numbers of the connections that are reset at the start, and how many fitted.
    chosen: Vec<u64>,
    fitted: usize,
}

impl Injector for ConnectionReset {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn check(&self, args: &Args, target: &Target) -> Result<(), Vec<String>> {
        let Target::Flows(flows) = target else { return Err(vec![format!("{target} is no flow")]) };
        mistake(args, flows).map_or(Ok(()), |mistake| Err(vec![mistake]))
    }

    fn prepare<'a>(&'a self, env: &'a Env, request: &'a Request) -> Pending<'a, Result<Change, InjectError>> {
        Box::pin(prepare(env, request))
    }

    fn apply<'a>(&'a self, env: &'a Env, change: &'a Change) -> Pending<'a, Result<(), InjectError>> {
        Box::pin(async move {
            let data: Data = recall(&change.fault, &change.apply)?;
            let failed = failed(&change.target);
            let session = env.network.enter(&data.space).await.map_err(&failed)?;
            let session = session.ok_or_else(gone)?;
            session.destroy(&data.chosen).await.map(drop).map_err(&failed)
        })
    }

    fn undo<'a>(&'a self, env: &'a Env, undo: &'a Value) -> Pending<'a, Result<Undone, InjectError>> {
        Box::pin(async move {
            let data: Data = recall(ABOUT.name, undo)?;
            let left = left(env, &data).await?;
            Ok(if left == data.chosen.len() { Undone::NothingToDo } else { Undone::Passed })
        })
    }

    fn observe<'a>(&'a self, env: &'a Env, change: &'a Change) -> Pending<'a, Result<Proof, InjectError>> {
        Box::pin(async move {
            let data: Data = recall(&change.fault, &change.apply)?;
            let (chosen, left) = (data.chosen.len(), left(env, &data).await?);
            let requested = format!("{} of {} connections reset", chosen, data.fitted);
            if chosen == 0 {
                return Ok(Proof::unproven(requested, "no connection that fits was open"));
            }
            let status = if left == 0 { ProofStatus::Confirmed } else { ProofStatus::Mismatch };
            Ok(Proof {
                status,
                requested,
                measured: format!("{} of them are gone", chosen - left),
                tolerance: "every one that was chosen".to_owned(),
                samples: chosen as u64,
            })
        })
    }

    fn picture<'a>(&'a self, _env: &'a Env, _undo: &'a Value) -> Pending<'a, Result<Value, InjectError>> {
        // The same before and after on purpose: what was reset is no state that could be put back.
        Box::pin(std::future::ready(Ok(json!({"lasts": "nothing; connections that were reset stay gone"}))))
    }

    fn renew<'a>(
        &'a self,
        env: &'a Env,
        change: &'a Change,
        age: Duration,
    ) -> Pending<'a, Result<(), InjectError>> {
        Box::pin(async move {
            let data: Data = recall(&change.fault, &change.apply)?;
            if !data.repeat {
                return Ok(());
            }
            let failed = failed(&change.target);
            let Some(session) = env.network.enter(&data.space).await.map_err(&failed)? else { return Ok(()) };
            let (chosen, _) = choose(&*session, &data.aim, data.share, data.seed ^ age.as_secs()).await?;
            session.destroy(&chosen).await.map(drop).map_err(&failed)
        })
    }
}

fn gone() -> InjectError {
    InjectError::Target("the network namespace has gone".to_owned())
}

/// What is wrong with the parameters; none if nothing is.
fn mistake(args: &Args, flows: &Flows) -> Option<String> {
    if !flows.is_aimed() {
        return Some("it would reset everything: write `to`, `from`, `ports` or `local-ports`".to_owned());
    }
    if args.share("share").is_some_and(|share| share <= 0.0) {
        return Some("it would reset nothing".to_owned());
    }
    None
}

/// Refuses a kernel that cannot do it, and says what would serve.
async fn require(network: &dyn Network) -> Result<(), InjectError> {
    let features = features(network, "use relay-reset").await?;
    let lack = features.into_iter().find(|feature| feature.name == DESTROY);
    match lack.and_then(|feature| feature.lack) {
        Some(why) => Err(InjectError::Lack(format!(
            "this kernel cannot end connections of others ({why}): it needs CONFIG_INET_DIAG_DESTROY and tcp_diag \
             (modprobe tcp_diag); use network-partition with `by: reset`, or relay-reset"
        ))),
        None => Ok(()),
    }
}

async fn prepare(env: &Env, request: &Request) -> Result<Change, InjectError> {
    let request = &contained::narrowed(env, request).await?;
    let Target::Flows(flows) = &request.target else {
        return Err(InjectError::Target(format!("{} is no flow", request.target)));
    };
    require(&*env.network).await?;
    let space = space(&*env.network, &flows.traffic.space)?;
    let failed = failed(&request.target.to_string());
    let session = env.network.enter(&space).await.map_err(&failed)?.ok_or_else(gone)?;
    let aim = flows.traffic.aim();
    let share = request.args.share("share").unwrap_or_default();
    let (chosen, fitted) = choose(&*session, &aim, share, request.seed).await?;
    let summary = format!(
        "connection-reset on {}: {} of {fitted} open connections, {}",
        request.target,
        chosen.len(),
        request.args.line()
    );
    let claims = vec![format!("connections:{}:{}", space.inode, request.target)];
    let repeat = request.args.flag("repeat").unwrap_or_default();
    let data = Data { space, aim, share, repeat, seed: request.seed, chosen, fitted };
    Ok(Change {
        id: request.id.clone(),
        fault: ABOUT.name.to_owned(),
        target: request.target.to_string(),
        summary,
        claims,
        apply: record(&data),
        undo: record(&data),
        manual: "nothing: a connection that was reset does not come back".to_owned(),
        picture: ConnectionReset.picture(env, &Value::Null).await?,
    })
}

/// The numbers of the connections that are hit, and how many fit. Seeded: the same connections, by their addresses, are
/// chosen alike.
async fn choose(
    session: &dyn Session,
    aim: &Aim,
    share: f64,
    seed: u64,
) -> Result<(Vec<u64>, usize), InjectError> {
    let open = session.connections().await.map_err(failed("its connections"))?;
    let mut fit: Vec<Connection> =
        open.into_iter().filter(|one| aim.hits(Protocol::Tcp, one.peer, one.local)).collect();
    let wanted = (share.clamp(0.0, 1.0) * fit.len() as f64).ceil() as usize;
    if wanted > CHOSEN_MAX {
        return Err(InjectError::Target(format!(
            "{wanted} connections would be reset; at most {CHOSEN_MAX} at once: narrow the aim, or lower the share"
        )));
    }
    fit.sort_by_key(|one| (one.peer, one.local));
    let mut dice = Dice::new(seed, 0);
    // Fisher–Yates, as far as needed.
    for at in 0..wanted {
        let other = at + ((dice.unit() * (fit.len() - at) as f64) as usize).min(fit.len() - at - 1);
        fit.swap(at, other);
    }
    Ok((fit[..wanted].iter().map(|one| one.cookie).collect(), fit.len()))
}

/// How many of those that were chosen at the start are still open.
async fn left(env: &Env, data: &Data) -> Result<usize, InjectError> {
    let failed = failed("its connections");
    let Some(session) = env.network.enter(&data.space).await.map_err(&failed)? else { return Ok(0) };
    let open = session.connections().await.map_err(&failed)?;
    Ok(open.iter().filter(|one| data.chosen.contains(&one.cookie)).count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resetting_everything_is_refused() {
        let refused = |given: &[(&'static str, &str)]| {
            let given = given.iter().map(|(name, text)| (*name, (*text).to_owned())).collect();
            mistake(&Args::default(), &Flows::read(&given).unwrap()).is_some()
        };
        assert!(!refused(&[("to", "10.0.0.2")]));
        assert!(!refused(&[("from", "10.0.0.2")]));
        assert!(!refused(&[("local-ports", "80")]));
        assert!(refused(&[("netns", "a")]));
    }
}
