//! `pop-drain`: moves the traffic of one PoP away in steps, and gives it back.
//!
//! Invariants: the balancer itself ends a drain whose lease is not renewed; a renewal never revives a drain that has
//! ended; the balancer lets one drain per PoP live; the picture is what this injection leaves of this PoP's weight, so that
//! drains of other PoPs, or of this one before and after, do not disturb it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::quoted;
use super::relay_proof::wilson;
use crate::about::{Effect, Param, ParamKind, Presence};
use crate::change::ProofStatus;
use crate::sys::control::{Control, ControlError};
use crate::target::TargetKind;
use crate::units::{Share, Span};
use crate::{
    About, Args, Change, Env, InjectError, Injector, LEASE, Pending, Proof, Request, Target, Undone,
};

/// The fault.
#[derive(Debug)]
pub struct PopDrain;

static ABOUT: About = About {
    name: "pop-drain",
    summary: "Moves the traffic of one PoP away in steps",
    description: "Lowers the weight of a PoP at the load balancer step by step, as a planned drain does, and restores \
                  it. The other PoPs must carry the difference. The balancer restores the weight by itself if squall \
                  is gone for three seconds.",
    target: TargetKind::Pop,
    params: &[
        Param {
            name: "steps",
            kind: ParamKind::Shares,
            presence: Presence::Required,
            help: "what remains of the PoP's weight, step by step",
        },
        Param {
            name: "soak",
            kind: ParamKind::Span,
            presence: Presence::Required,
            help: "time at each step; the last one stays until the fault ends",
        },
    ],
    needs: &[],
    effect: Effect::Shift,
    proof: "The balancer's share of requests to the PoP since the last step, against its share of the weights of all \
            PoPs that are up.",
    undo: "The drain is cleared at the balancer; its lease ends it in any case.",
    example: "- pop-drain: {pop: fra, steps: [50%, 0%], soak: 10s}",
};

/// The fewest requests that prove anything.
const REQUESTS_MIN: u64 = 50;
/// How far observed and expected share may differ beside chance.
const TOLERANCE: f64 = 0.02;

/// What takes traffic from a PoP: a balancer or a router.
trait Drain: Send + Sync {
    /// Sets what remains of the PoP's weight, for the length of a lease.
    fn set<'a>(&'a self, id: &'a str, pop: &'a str, share: f64) -> Pending<'a, Result<(), ControlError>>;
    /// Prolongs a drain that still lives and moves it to this share; an ended one stays ended.
    fn renew<'a>(&'a self, id: &'a str, share: f64) -> Pending<'a, Result<(), ControlError>>;
    /// Ends a drain; says whether there was one.
    fn clear<'a>(&'a self, id: &'a str) -> Pending<'a, Result<bool, ControlError>>;
    /// What happened since the drain's share last changed.
    fn observe<'a>(&'a self, id: &'a str) -> Pending<'a, Result<Seen, ControlError>>;
    /// What now remains of each PoP's base weight, and by whose drain.
    fn weights(&self) -> Pending<'_, Result<BTreeMap<String, Weight>, ControlError>>;
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Weight {
    share_of_base: f64,
    /// The id of the drain that lives, if one does.
    drained_by: Option<String>,
}

/// Traffic since the last step.
#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Seen {
    /// What remains of the drained PoP's base weight.
    share: f64,
    /// Every PoP.
    pops: BTreeMap<String, PopSeen>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
struct PopSeen {
    requests: u64,
    weight: f64,
    up: bool,
}

/// The lab's balancer.
struct Glb<'a> {
    control: &'a dyn Control,
    socket: &'a Path,
}

impl Drain for Glb<'_> {
    fn set<'a>(&'a self, id: &'a str, pop: &'a str, share: f64) -> Pending<'a, Result<(), ControlError>> {
        Box::pin(async move {
            let request =
                json!({"op": "drain", "id": id, "pop": pop, "share": share, "lease_s": LEASE.as_secs_f64()});
            self.control.call(self.socket, &request).await.map(drop)
        })
    }

    fn renew<'a>(&'a self, id: &'a str, share: f64) -> Pending<'a, Result<(), ControlError>> {
        Box::pin(async move {
            let request = json!({"op": "renew", "id": id, "share": share, "lease_s": LEASE.as_secs_f64()});
            self.control.call(self.socket, &request).await.map(drop)
        })
    }

    fn clear<'a>(&'a self, id: &'a str) -> Pending<'a, Result<bool, ControlError>> {
        Box::pin(async move {
            let answer = self.control.call(self.socket, &json!({"op": "clear", "id": id})).await?;
            Ok(answer["cleared"] == Value::Bool(true))
        })
    }

    fn observe<'a>(&'a self, id: &'a str) -> Pending<'a, Result<Seen, ControlError>> {
        Box::pin(async move {
            let answer = self.control.call(self.socket, &json!({"op": "observe", "id": id})).await?;
            Ok(serde_json::from_value(answer)?)
        })
    }

    fn weights(&self) -> Pending<'_, Result<BTreeMap<String, Weight>, ControlError>> {
        Box::pin(async move {
            let answer = self.control.call(self.socket, &json!({"op": "weights"})).await?;
            Ok(serde_json::from_value(answer["pops"].clone())?)
        })
    }
}

/// Data of apply, observe and renew.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Do {
    id: String,
    control: PathBuf,
    pop: String,
    steps: Vec<f64>,
    soak_s: f64,
}

impl Do {
    /// What should remain at this age.
    fn share(&self, age: Duration) -> f64 {
        let step = (age.as_secs_f64() / self.soak_s) as usize;
        self.steps.get(step).or(self.steps.last()).copied().unwrap_or(1.0)
    }
}

/// Data of undo and picture.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Undo {
    id: String,
    control: PathBuf,
    pop: String,
}

fn glb<'a>(env: &'a Env, socket: &'a Path) -> Glb<'a> {
    Glb { control: &*env.control, socket }
}

fn failed(source: ControlError) -> InjectError {
    InjectError::Control { what: "the balancer".to_owned(), source }
}

fn data<T: for<'de> Deserialize<'de>>(value: &Value) -> Result<T, InjectError> {
    T::deserialize(value).map_err(|source| InjectError::Data { fault: ABOUT.name.to_owned(), source })
}

/// The weight of a PoP; none if the balancer has ended.
async fn weight(drain: &dyn Drain, pop: &str) -> Result<Option<Weight>, InjectError> {
    let mut weights = match drain.weights().await {
        Ok(weights) => weights,
        Err(ControlError::Gone(_)) => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let weight = weights.remove(pop);
    weight.map(Some).ok_or_else(|| InjectError::Target(format!("the balancer knows no PoP {pop}")))
}

/// What this injection leaves of a PoP's weight. The balancer lets one drain per PoP live: while that of another does,
/// this one takes nothing.
async fn picture(drain: &dyn Drain, id: &str, pop: &str) -> Result<Value, InjectError> {
    Ok(match weight(drain, pop).await? {
        // A balancer that has ended carries no drain.
        None => json!({"gone": true}),
        Some(Weight { drained_by: Some(other), .. }) if other != id => {
            json!({"pop": pop, "share_of_base": 1.0})
        }
        Some(weight) => json!({"pop": pop, "share_of_base": weight.share_of_base}),
    })
}

impl Injector for PopDrain {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn check(&self, args: &Args, _target: &Target) -> Result<(), Vec<String>> {
        let mut mistakes = Vec::new();
        if args.shares("steps").is_some_and(|steps| steps.is_empty()) {
            mistakes.push("`steps` must name at least one share, such as [50%, 0%]".to_owned());
        } else if args.shares("steps").is_some_and(|steps| steps.iter().all(|share| *share >= 1.0)) {
            mistakes.push("`steps` must go below 100%: nothing would move".to_owned());
        }
        if args.span("soak").is_some_and(|soak| soak.is_zero()) {
            mistakes.push("`soak` must be longer than nothing".to_owned());
        }
        if mistakes.is_empty() { Ok(()) } else { Err(mistakes) }
    }

    fn grows(&self, args: &Args) -> Duration {
        let steps = args.shares("steps").map_or(1, |steps| steps.len());
        args.span("soak").unwrap_or_default() * steps.saturating_sub(1) as u32
    }

    fn prepare<'a>(&'a self, env: &'a Env, request: &'a Request) -> Pending<'a, Result<Change, InjectError>> {
        Box::pin(async move {
            let Target::Pop(pop) = &request.target else {
                return Err(InjectError::Target(format!("{} is no PoP", request.target)));
            };
            let balancer = env.inventory.balancer.as_ref().ok_or_else(|| {
                InjectError::Target("no load balancer over PoPs is known; name a lab".to_owned())
            })?;
            if !balancer.pops.contains(pop) {
                let known = balancer.pops.join(", ");
                return Err(InjectError::Target(format!("no PoP is called {pop}; there are {known}")));
            }
            let steps = request.args.shares("steps").unwrap_or_default();
            let soak = request.args.span("soak").unwrap_or_default();
            if steps.is_empty() || soak.is_zero() {
                return Err(InjectError::Target("steps and soak must be written".to_owned()));
            }
            change(env, request, pop, &balancer.control, steps, soak).await
        })
    }

    fn apply<'a>(&'a self, env: &'a Env, change: &'a Change) -> Pending<'a, Result<(), InjectError>> {
        Box::pin(async move {
            let Do { id, control, pop, steps, .. } = data(&change.apply)?;
            let first = steps.first().copied().unwrap_or(1.0);
            glb(env, &control).set(&id, &pop, first).await.map_err(failed)
        })
    }

    fn undo<'a>(&'a self, env: &'a Env, undo: &'a Value) -> Pending<'a, Result<Undone, InjectError>> {
        Box::pin(async move {
            let Undo { id, control, .. } = data(undo)?;
            match glb(env, &control).clear(&id).await {
                Ok(true) => Ok(Undone::Reverted),
                // With the balancer its drains are gone.
                Ok(false) | Err(ControlError::Gone(_)) => Ok(Undone::NothingToDo),
                Err(error) => Err(failed(error)),
            }
        })
    }

    fn observe<'a>(&'a self, env: &'a Env, change: &'a Change) -> Pending<'a, Result<Proof, InjectError>> {
        Box::pin(async move {
            let Do { id, control, pop, .. } = data(&change.apply)?;
            let seen = glb(env, &control).observe(&id).await.map_err(failed)?;
            Ok(judge(&pop, &seen))
        })
    }

    fn picture<'a>(&'a self, env: &'a Env, undo: &'a Value) -> Pending<'a, Result<Value, InjectError>> {
        Box::pin(async move {
            let Undo { id, control, pop } = data(undo)?;
            picture(&glb(env, &control), &id, &pop).await
        })
    }

    fn renew<'a>(
        &'a self,
        env: &'a Env,
        change: &'a Change,
        age: Duration,
    ) -> Pending<'a, Result<(), InjectError>> {
        Box::pin(async move {
            let plan: Do = data(&change.apply)?;
            glb(env, &plan.control).renew(&plan.id, plan.share(age)).await.map_err(failed)
        })
    }
}

async fn change(
    env: &Env,
    request: &Request,
    pop: &str,
    control: &Path,
    steps: Vec<f64>,
    soak: Duration,
) -> Result<Change, InjectError> {
    let shown: Vec<String> = steps.iter().map(|share| Share(*share).to_string()).collect();
    let id = request.id.clone();
    let (pop, control) = (pop.to_owned(), control.to_owned());
    if weight(&glb(env, &control), &pop).await?.is_some_and(|weight| weight.drained_by.is_some()) {
        return Err(InjectError::Target(format!("PoP {pop} is drained already by another injection")));
    }
    let before = picture(&glb(env, &control), &id, &pop).await?;
    let clear = json!({"op": "clear", "id": id});
    Ok(Change {
        id: id.clone(),
        fault: ABOUT.name.to_owned(),
        target: request.target.to_string(),
        summary: format!("drain {pop} to {}, {} at each step", shown.join(", "), Span(soak)),
        claims: vec![format!("balancer {} pop {pop}", control.display())],
        manual: format!(
            "printf '%s\\n' {} | socat - UNIX-CONNECT:{}",
            quoted(&clear.to_string()),
            quoted(&control.to_string_lossy())
        ),
        apply: json!(Do {
            id: id.clone(),
            control: control.clone(),
            pop: pop.clone(),
            steps,
            soak_s: soak.as_secs_f64()
        }),
        undo: json!(Undo { id, control, pop }),
        picture: before,
    })
}

/// Observed against expected share.
fn judge(pop: &str, seen: &Seen) -> Proof {
    let up = || seen.pops.values().filter(|pop| pop.up);
    let total: u64 = seen.pops.values().map(|pop| pop.requests).sum();
    let weights: f64 = up().map(|pop| pop.weight).sum();
    let own = seen.pops.get(pop);
    let weight = own.filter(|pop| pop.up).map_or(0.0, |pop| pop.weight);
    let expected = if weights > 0.0 { weight / weights } else { 0.0 };
    let requested =
        format!("{} of the weight of {pop}, {:.1}% of all requests", Share(seen.share), expected * 100.0);
    if own.is_none_or(|pop| !pop.up) {
        // Its traffic was gone before, or went for another reason.
        return Proof::unproven(requested, format!("{pop} is down: nothing is left to drain"));
    }
    if seen.share >= 1.0 {
        return Proof::unproven(requested, "this step moves nothing");
    }
    if total < REQUESTS_MIN {
        let why = format!("only {total} requests since the last step; {REQUESTS_MIN} are needed");
        return Proof { samples: total, ..Proof::unproven(requested, why) };
    }
    let hits = own.map_or(0, |pop| pop.requests);
    let observed = hits as f64 / total as f64;
    let (low, high) = wilson(hits, total);
    let near = (observed - expected).abs() <= TOLERANCE || (low..=high).contains(&expected);
    Proof {
        status: if near { ProofStatus::Confirmed } else { ProofStatus::Mismatch },
        requested,
        measured: format!("{:.1}% of {total} requests since the last step", observed * 100.0),
        tolerance: "2 percentage points or the 99.99% interval".to_owned(),
        samples: total,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(share: f64, pops: &[(&str, u64, f64, bool)]) -> Seen {
        let pops = pops.iter().map(|(name, requests, weight, up)| {
            ((*name).to_owned(), PopSeen { requests: *requests, weight: *weight, up: *up })
        });
        Seen { share, pops: pops.collect() }
    }

    #[test]
    fn the_share_is_judged_against_the_weights_of_pops_that_are_up() {
        let half = [("fra", 200, 50.0, true), ("iad", 400, 100.0, true), ("sin", 400, 100.0, true)];
        assert_eq!(judge("fra", &seen(0.5, &half)).status, ProofStatus::Confirmed);
        let unmoved = [("fra", 333, 50.0, true), ("iad", 333, 100.0, true), ("sin", 334, 100.0, true)];
        assert_eq!(judge("fra", &seen(0.5, &unmoved)).status, ProofStatus::Mismatch);
        let one_down = [("fra", 333, 50.0, true), ("iad", 667, 100.0, true), ("sin", 0, 100.0, false)];
        assert_eq!(judge("fra", &seen(0.5, &one_down)).status, ProofStatus::Confirmed);
    }

    #[test]
    fn a_pop_that_is_down_or_a_step_that_moves_nothing_proves_nothing() {
        let down = [("fra", 0, 0.0, false), ("iad", 500, 100.0, true), ("sin", 500, 100.0, true)];
        let proof = judge("fra", &seen(0.0, &down));
        assert_eq!(proof.status, ProofStatus::Unproven);
        assert_eq!(proof.measured, "fra is down: nothing is left to drain");
        let whole = [("fra", 333, 100.0, true), ("iad", 333, 100.0, true), ("sin", 334, 100.0, true)];
        assert_eq!(judge("fra", &seen(1.0, &whole)).status, ProofStatus::Unproven);
    }

    #[test]
    fn few_requests_prove_nothing() {
        let few = [("fra", 0, 0.0, true), ("iad", 24, 100.0, true), ("sin", 25, 100.0, true)];
        let proof = judge("fra", &seen(0.0, &few));
        assert_eq!((proof.status, proof.samples), (ProofStatus::Unproven, 49));
    }

    #[test]
    fn a_few_requests_more_than_none_are_no_proof_of_a_full_drain() {
        let leak = [("fra", 60, 0.0, true), ("iad", 470, 100.0, true), ("sin", 470, 100.0, true)];
        assert_eq!(judge("fra", &seen(0.0, &leak)).status, ProofStatus::Mismatch);
    }

    #[test]
    fn the_step_follows_from_the_age_and_the_last_one_stays() {
        let plan = Do {
            id: String::new(),
            control: PathBuf::new(),
            pop: String::new(),
            steps: vec![0.5, 0.25, 0.0],
            soak_s: 10.0,
        };
        let at = |seconds| plan.share(Duration::from_secs(seconds));
        assert_eq!([at(0), at(9), at(10), at(20), at(500)], [0.5, 0.5, 0.25, 0.0, 0.0]);
    }

    #[test]
    fn steps_and_soak_must_say_something() {
        use crate::about::Value as Arg;
        let args = Args(BTreeMap::from([
            ("steps".to_owned(), Arg::Shares(Vec::new())),
            ("soak".to_owned(), Arg::Span(Span(Duration::ZERO))),
        ]));
        assert_eq!(PopDrain.check(&args, &Target::Pop("fra".to_owned())).unwrap_err().len(), 2);
        let args = Args(BTreeMap::from([("steps".to_owned(), Arg::Shares(vec![Share(1.0), Share(1.0)]))]));
        let mistakes = PopDrain.check(&args, &Target::Pop("fra".to_owned())).unwrap_err();
        assert!(mistakes[0].contains("below 100%"), "{mistakes:?}");
    }
}
