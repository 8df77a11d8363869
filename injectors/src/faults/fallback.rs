//! What serves in place of a kernel feature that is missing, where the experiment says `fallback: relay`.
//!
//! The change is then the other fault's own and names it, so whoever lives it or undoes it asks that one; its summary says
//! which one was taken, and why.

use std::net::SocketAddr;

use super::shape::part::Part;
use super::shape::{prepare, require};
use crate::about::{Args, Param, ParamKind, Value};
use crate::change::{Change, InjectError};
use crate::sys::aim::Protocol;
use crate::target::{Relay, Target};
use crate::traffic::{Direction, Traffic};
use crate::{Env, Request, registry};

/// Whether another fault may serve.
pub(crate) const FALLBACK: Param = Param::optional(
    "fallback",
    ParamKind::Choice(&["relay"]),
    "relay: where the kernel lacks what this needs, what comes closest may serve, and the record says so",
);

/// What may serve.
#[derive(Debug)]
pub(crate) enum Serves {
    /// Another qdisc.
    Part(Part),
    /// The same fault with other parameters: who does it, and these.
    Otherwise(&'static str, Args),
    /// A fault of the relay that stands before the target.
    Relay(&'static str, Args),
}

impl Serves {
    /// A relay's fault with those of these parameters that it has as well.
    pub(crate) fn relay(name: &'static str, args: &Args, shared: &[&str]) -> Self {
        let own = args.0.iter().filter(|(name, _)| shared.contains(&name.as_str()));
        Self::Relay(name, Args(own.map(|(name, value)| (name.clone(), value.clone())).collect()))
    }
}

/// The first that can serve.
pub(crate) async fn take(
    own: &'static str,
    serves: Vec<Serves>,
    env: &Env,
    request: &Request,
    lack: String,
) -> Result<Change, InjectError> {
    if request.args.text("fallback").is_none() {
        let hint = if serves.is_empty() { "" } else { "; or say `fallback: relay` and let squall choose" };
        return Err(InjectError::Lack(format!("{lack}{hint}")));
    }
    let why = lack.split(": ").next().unwrap_or_default().to_owned();
    let mut failures = Vec::new();
    for serve in serves {
        let taken = match serve {
            Serves::Part(part) => with_part(own, env, request, part).await.map(|change| ("tbf", change)),
            Serves::Otherwise(by, args) => {
                let injector = registry::find(own).expect("a fault is in the registry");
                injector.prepare(env, &Request { args, ..request.clone() }).await.map(|change| (by, change))
            }
            Serves::Relay(name, args) => {
                with_relay(name, env, request, args).await.map(|change| (name, change))
            }
        };
        match taken {
            Ok((by, mut change)) => {
                // What is done to an interface has found its name; who else serves names himself.
                if !matches!(by, "tbf" | "nft") {
                    change.target = request.target.to_string();
                }
                let target = &change.target;
                change.summary = format!("{own} on {target}: {}; {by} serves, as {why}", request.args.line());
                return Ok(change);
            }
            Err(error) => failures.push(error.to_string()),
        }
    }
    if failures.is_empty() {
        failures.push("nothing else does what these parameters say".to_owned());
    }
    Err(InjectError::Lack(format!("{lack}; `fallback: relay` does not help: {}", failures.join("; "))))
}

async fn with_part(
    own: &'static str,
    env: &Env,
    request: &Request,
    part: Part,
) -> Result<Change, InjectError> {
    require(&*env.network, &part, "nothing").await?;
    prepare(own, env, request, part).await
}

async fn with_relay(
    name: &'static str,
    env: &Env,
    request: &Request,
    mut args: Args,
) -> Result<Change, InjectError> {
    let traffic = match &request.target {
        Target::Traffic(traffic) => traffic,
        Target::Flows(flows) => &flows.traffic,
        other => return Err(InjectError::Target(format!("{other} is no traffic"))),
    };
    let relay = before(env, traffic).map_err(InjectError::Target)?;
    // What goes to the other side goes up.
    let word = match traffic.direction {
        Direction::Out => "up",
        Direction::In => "down",
        Direction::Both => "both",
    };
    let target = Target::Relay(relay.name.clone());
    let injector = registry::find(name).expect("what serves is in the registry");
    if injector.about().params.iter().any(|param| param.name == "direction") {
        args.0.insert("direction".to_owned(), Value::Text(word.to_owned()));
    }
    injector.prepare(env, &Request { args, target, ..request.clone() }).await
}

/// The one relay that stands before the target.
fn before<'e>(env: &'e Env, traffic: &Traffic) -> Result<&'e Relay, String> {
    let found = traffic.found(&env.inventory)?;
    if !found.from.is_empty() {
        return Err(format!("no relay knows who comes from {traffic}: it would hit all who come"));
    }
    if found.to.is_empty() {
        return Err(format!("no relay stands before all of {traffic}: aim it at an instance or an address"));
    }
    let aim = found.aim();
    let hit = |relay: &&Relay| {
        let upstream = relay.upstream.parse::<SocketAddr>().ok();
        let unknown = |peer: SocketAddr| SocketAddr::new(peer.ip(), 0);
        upstream.is_some_and(|peer| aim.hits(Protocol::Tcp, peer, unknown(peer)))
    };
    let found: Vec<&Relay> = env.inventory.relays.iter().filter(hit).collect();
    match found.as_slice() {
        [one] => Ok(one),
        [] => Err(format!("no relay stands before {traffic}: declare one under `relays`")),
        several => Err(format!("{} relays stand before {traffic}: aim it at one instance", several.len())),
    }
}
