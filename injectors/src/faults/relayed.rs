//! What all faults of a relay have in common: only the parameters and the judgement differ ([`Recipe`]).
//!
//! The change is one fault in the relay's table, under the injection's id. The relay holds the lease, so a fault
//! ends there even if nobody is left to undo it; a relay that is gone took its faults along.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::quoted;
use crate::about::{About, Args};
use crate::change::{Change, InjectError, Proof, Undone};
use crate::relay::Observation;
use crate::relay::fault::{Direction, Match, RelayFault};
use crate::sys::control::ControlError;
use crate::target::{self, Protocol, Target};
use crate::{Env, Injector, LEASE, Pending, Request};

/// What one relay fault adds to the common part.
pub(crate) trait Recipe: std::fmt::Debug + Sync {
    /// See [`Injector::about`].
    fn about(&self) -> &'static About;

    /// The fault that these parameters describe; the text names what is wrong with them.
    fn fault(&self, args: &Args) -> Result<RelayFault, String>;

    /// Requested against measured.
    fn judge(&self, fault: &RelayFault, seen: &Observation) -> Proof;
}

#[derive(Debug, Serialize, Deserialize)]
struct Apply {
    control: PathBuf,
    route: String,
    id: String,
    fault: RelayFault,
    seed: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Undo {
    control: PathBuf,
    route: String,
    id: String,
    /// What of the route the fault occupies: see [`slots`].
    slots: Vec<String>,
}

impl<R: Recipe> Injector for R {
    fn about(&self) -> &'static About {
        Recipe::about(self)
    }

    fn check(&self, args: &Args, _target: &Target) -> Result<(), Vec<String>> {
        // Whether the relay speaks HTTP is known once there is one.
        self.fault(args).and_then(|fault| fault.check(Protocol::Http)).map_err(|mistake| vec![mistake])
    }

    fn prepare<'a>(&'a self, env: &'a Env, request: &'a Request) -> Pending<'a, Result<Change, InjectError>> {
        Box::pin(async move {
            let fault = self.fault(&request.args).map_err(InjectError::Target)?;
            prepare(Recipe::about(self).name, env, request, fault).await
        })
    }

    fn apply<'a>(&'a self, env: &'a Env, change: &'a Change) -> Pending<'a, Result<(), InjectError>> {
        Box::pin(async move {
            let Apply { control, route, id, fault, seed } = data(&change.fault, &change.apply)?;
            let lease = LEASE.as_secs_f64();
            let add = json!({
                "op": "add", "route": route, "id": id, "fault": fault, "lease_s": lease, "seed": seed,
            });
            call(env, &control, &add).await.map_err(failed(&route))?;
            Ok(())
        })
    }

    fn undo<'a>(&'a self, env: &'a Env, undo: &'a Value) -> Pending<'a, Result<Undone, InjectError>> {
        Box::pin(async move {
            let Undo { control, route, id, .. } = data(Recipe::about(self).name, undo)?;
            match call(env, &control, &json!({"op": "clear", "id": id})).await {
                Ok(answer) if answer["cleared"] == Value::Bool(true) => Ok(Undone::Reverted),
                Ok(_) | Err(ControlError::Gone(_)) => Ok(Undone::NothingToDo),
                Err(e) => Err(failed(&route)(e)),
            }
        })
    }

    fn observe<'a>(&'a self, env: &'a Env, change: &'a Change) -> Pending<'a, Result<Proof, InjectError>> {
        Box::pin(async move {
            let Apply { control, route, id, fault, .. } = data(&change.fault, &change.apply)?;
            let seen = match call(env, &control, &json!({"op": "observe", "id": id})).await {
                Ok(answer) => data(&change.fault, &answer["observation"])?,
                Err(ControlError::Gone(_)) => {
                    return Ok(Proof::unproven(&change.summary, "the relay is gone"));
                }
                Err(ControlError::Refused(why)) => return Ok(Proof::unproven(&change.summary, why)),
                Err(e) => return Err(failed(&route)(e)),
            };
            Ok(self.judge(&fault, &seen))
        })
    }

    fn picture<'a>(&'a self, env: &'a Env, undo: &'a Value) -> Pending<'a, Result<Value, InjectError>> {
        Box::pin(async move {
            let Undo { control, route, slots, .. } = data(Recipe::about(self).name, undo)?;
            picture(env, &control, &route, &slots).await
        })
    }

    fn renew<'a>(
        &'a self,
        env: &'a Env,
        change: &'a Change,
        _age: Duration,
    ) -> Pending<'a, Result<(), InjectError>> {
        Box::pin(async move {
            let Apply { control, route, id, .. } = data(&change.fault, &change.apply)?;
            let renew = json!({"op": "renew", "id": id, "lease_s": LEASE.as_secs_f64()});
            call(env, &control, &renew).await.map_err(failed(&route))?;
            Ok(())
        })
    }
}

async fn prepare(name: &str, env: &Env, request: &Request, fault: RelayFault) -> Result<Change, InjectError> {
    let target::Relay { name: route, control, protocol, .. } = relay(env, &request.target)?;
    fault.check(*protocol).map_err(|why| InjectError::Target(format!("relay {route}: {why}")))?;
    let slots = slots(&fault);
    let picture = picture(env, control, route, &slots).await?;
    if picture["gone"] == Value::Bool(true) {
        return Err(InjectError::Target(format!("relay {route}: nobody listens on {}", control.display())));
    }
    if let Some(other) = picture["faults"].as_array().and_then(|faults| faults.first()) {
        let other = other["id"].as_str().unwrap_or("another injection").escape_debug();
        return Err(InjectError::Target(format!("relay {route} already carries {name} of {other}")));
    }
    let clear = json!({"op": "clear", "id": request.id});
    let claim = |slot: &String| format!("relay:{}:{route}:{slot}", control.display());
    Ok(Change {
        id: request.id.clone(),
        fault: name.to_owned(),
        target: request.target.to_string(),
        summary: match request.args.line() {
            line if line.is_empty() => format!("{name} on {}", request.target),
            line => format!("{name} on {}: {line}", request.target),
        },
        claims: slots.iter().map(claim).collect(),
        manual: format!(
            "nothing: the relay ends it by itself {} s after the last renewal. At once: \
             echo {} | socat - UNIX-CONNECT:{}",
            LEASE.as_secs(),
            quoted(&clear.to_string()),
            quoted(&control.to_string_lossy())
        ),
        undo: json!(Undo { control: control.clone(), route: route.clone(), id: request.id.clone(), slots }),
        apply: json!(Apply {
            control: control.clone(),
            route: route.clone(),
            id: request.id.clone(),
            fault,
            seed: request.seed
        }),
        picture,
    })
}

/// The relay that carries the target's traffic.
fn relay<'a>(env: &'a Env, target: &Target) -> Result<&'a target::Relay, InjectError> {
    let name = match target {
        Target::Relay(name) => name,
        Target::Instance { instance, .. } => {
            let found = env.inventory.instances.iter().find(|candidate| candidate.name == *instance);
            let found = found.ok_or_else(|| InjectError::Target(format!("no instance `{instance}`")))?;
            found.relay.as_ref().ok_or_else(|| {
                InjectError::Target(format!(
                    "no relay stands in front of {instance}: its traffic cannot be hurt"
                ))
            })?
        }
        other => return Err(InjectError::Target(format!("{other} is no relay"))),
    };
    let relay = env.inventory.relays.iter().find(|relay| relay.name == *name);
    relay.ok_or_else(|| InjectError::Target(format!("no relay `{name}`")))
}

/// The parts of a route that a fault occupies: its kind with the ways of its bytes, or the requests it means.
fn slots(fault: &RelayFault) -> Vec<String> {
    let words = match (fault.matching(), fault.direction()) {
        (Some(Match { method, path, header }), _) => {
            let method = method.as_deref().unwrap_or("*").to_ascii_uppercase();
            let path = path.as_deref().unwrap_or("*");
            let header = header.as_deref().unwrap_or("*");
            return vec![format!("{}:{method} {path} {header}", fault.kind())];
        }
        (None, Direction::Both) => &["up", "down"][..],
        (None, Direction::Up) => &["up"],
        (None, Direction::Down) => &["down"],
    };
    words.iter().map(|word| format!("{}:{word}", fault.kind())).collect()
}

/// What lives in these slots of the route, whoever put it there. A relay that is gone holds nothing.
async fn picture(env: &Env, control: &Path, route: &str, slots: &[String]) -> Result<Value, InjectError> {
    let list = match call(env, control, &json!({"op": "list"})).await {
        Ok(list) => list,
        Err(ControlError::Gone(_)) => return Ok(json!({"gone": true})),
        Err(e) => return Err(failed(route)(e)),
    };
    let routes = list["routes"].as_array().map(Vec::as_slice).unwrap_or_default();
    let Some(found) = routes.iter().find(|found| found["name"] == route) else {
        return Err(InjectError::Target(format!("the relay at {} carries no `{route}`", control.display())));
    };
    let mut same = Vec::new();
    for entry in found["faults"].as_array().map(Vec::as_slice).unwrap_or_default() {
        let fault: RelayFault = data("relay", &entry["fault"])?;
        if self::slots(&fault).iter().any(|slot| slots.contains(slot)) {
            same.push(json!({"id": entry["id"], "fault": entry["fault"]}));
        }
    }
    Ok(json!({"faults": same}))
}

async fn call(env: &Env, control: &Path, request: &Value) -> Result<Value, ControlError> {
    env.control.call(control, request).await
}

fn failed(route: &str) -> impl Fn(ControlError) -> InjectError + use<> {
    let what = format!("relay {route}");
    move |source| InjectError::Control { what: what.clone(), source }
}

fn data<T: serde::de::DeserializeOwned>(fault: &str, value: &Value) -> Result<T, InjectError> {
    T::deserialize(value).map_err(|source| InjectError::Data { fault: fault.to_owned(), source })
}
