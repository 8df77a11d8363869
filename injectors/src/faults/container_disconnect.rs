//! `container-disconnect`: detached from networks, then attached the same way.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::containers::{self, Hit, Hits, SETTLE};
use super::{quoted, recall, record};
use crate::about::{About, Args, Effect, Param, ParamKind, Presence};
use crate::sys::docker::{Act, Container, Endpoint};
use crate::target::{Target, TargetKind};
use crate::{Change, Env, InjectError, Injector, Pending, Proof, ProofStatus, Request, Undone};

/// Takes containers off their networks.
#[derive(Debug)]
pub struct ContainerDisconnect;

static ABOUT: About = About {
    name: "container-disconnect",
    summary: "Detaches containers from a network, names and addresses included, and attaches them again",
    description: "As `docker network disconnect` does: the interface goes, and with it the addresses, and the engine's DNS \
                  forgets the names; connections of the container break at both ends without a word. Its processes run \
                  on. Attached again it gets the same aliases, links, driver options and every address that was asked for; one \
                  that the engine had chosen it chooses anew, mostly the same, and the interface inside may have the next number \
                  (eth1 for eth0) until the container restarts. Networks host and none, and a namespace that belongs to another \
                  container, cannot be left. A container that is labelled squall.protect or in which squall itself \
                  runs is never hit.",
    target: TargetKind::Container,
    params: &[Param {
        name: "network",
        kind: ParamKind::Text,
        presence: Presence::Optional,
        help: "the network by its name, or all; required if it has several",
    }],
    needs: containers::NEEDS,
    effect: Effect::Outage,
    proof: "The addresses are gone from the container's own network namespace, and the engine lists no endpoint. Unproven \
            where its processes cannot be seen.",
    undo: "Each network that is missing is attached again as it was. One that somebody has removed in \
           the meantime carries no fault.",
    example: "- container-disconnect: {container: web, network: backend}",
};

/// One container's end of one network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Cut {
    /// The container's id.
    id: String,
    /// The network's name.
    network: String,
    endpoint: Endpoint,
}

#[derive(Debug, Serialize, Deserialize)]
struct Data {
    hits: Hits,
    cuts: Vec<Cut>,
}

impl Data {
    fn of<'a>(&'a self, hit: &'a Hit) -> impl Iterator<Item = &'a Cut> {
        self.cuts.iter().filter(move |cut| cut.id == hit.id)
    }
}

/// The networks of a container that are to be left.
fn cuts(container: &Container, wanted: Option<&str>) -> Result<Vec<Cut>, InjectError> {
    let refuse = |text: String| Err(InjectError::Target(text));
    let name = &container.name;
    if let Some(host) = container.network_mode.strip_prefix("container:") {
        return refuse(format!(
            "container {name} has no network of its own: it lives in that of container {host}"
        ));
    }
    let own: Vec<&String> =
        container.networks.keys().filter(|network| !matches!(network.as_str(), "host" | "none")).collect();
    let listed = || own.iter().map(|network| network.as_str()).collect::<Vec<_>>().join(", ");
    let chosen: Vec<&String> = match wanted {
        _ if own.is_empty() => return refuse(format!("container {name} has no network that it could leave")),
        Some("all") => own.clone(),
        Some(network) if own.iter().any(|one| *one == network) => {
            own.iter().copied().filter(|one| *one == network).collect()
        }
        Some(network) => {
            return refuse(format!(
                "container {name} is not attached to network {network}, only to {}",
                listed()
            ));
        }
        None if own.len() == 1 => own.clone(),
        None => {
            return refuse(format!(
                "container {name} has several networks: name one, or all: network: {}",
                listed()
            ));
        }
    };
    let cut = |network: &String| Cut {
        id: container.id.clone(),
        network: network.clone(),
        endpoint: container.networks[network].clone(),
    };
    Ok(chosen.into_iter().map(cut).collect())
}

/// What a person types to attach all again, whatever somebody has attached instead meanwhile.
fn attach_by_hand(data: &Data) -> String {
    let client = containers::client(&data.hits.socket);
    let lines: Vec<String> = data
        .hits
        .each
        .iter()
        .flat_map(|hit| data.of(hit).map(move |cut| (hit, cut)))
        .map(|(hit, cut)| {
            let end = &cut.endpoint;
            let (network, id) = (quoted(&cut.network), hit.short());
            let mut words = vec![format!("{client} network disconnect {network} {id} 2>/dev/null;")];
            words.push(format!("{client} network connect"));
            words.extend(end.ipv4.iter().map(|ip| format!("--ip {}", quoted(ip))));
            words.extend(end.ipv6.iter().map(|ip| format!("--ip6 {}", quoted(ip))));
            words.extend(end.link_local.iter().map(|ip| format!("--link-local-ip {}", quoted(ip))));
            words.extend(end.aliases.iter().map(|alias| format!("--alias {}", quoted(alias))));
            words.extend(end.links.iter().map(|link| format!("--link {}", quoted(link))));
            words.extend(
                end.options.iter().map(|(k, v)| format!("--driver-opt {}", quoted(&format!("{k}={v}")))),
            );
            words.push(network);
            words.push(id.to_owned());
            words.join(" ")
        })
        .collect();
    lines.join("; ")
}

/// What somebody else has attached meanwhile is theirs.
fn foreign(hit: &Hit, cut: &Cut) -> InjectError {
    InjectError::Target(format!(
        "somebody else has attached {} to {} meanwhile, without the aliases, options or addresses that it had: it is left \
         alone; attach it as it was (by hand) and `squall recover`, or forget it (`squall recover` names the command)",
        hit.name, cut.network
    ))
}

impl Injector for ContainerDisconnect {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn undoes(&self, args: &Args, target: &Target) -> String {
        let network =
            args.text("network").filter(|name| *name != "all").unwrap_or("each network that it has left");
        format!(
            "attach {target} to {network} again, with the same aliases, links, options and fixed addresses"
        )
    }

    fn prepare<'a>(&'a self, env: &'a Env, request: &'a Request) -> Pending<'a, Result<Change, InjectError>> {
        Box::pin(async move {
            let (hits, found) = containers::find(env, request).await?;
            let wanted = request.args.text("network");
            let cuts: Vec<Vec<Cut>> =
                found.iter().map(|container| cuts(container, wanted)).collect::<Result<_, _>>()?;
            let cuts: Vec<Cut> = cuts.into_iter().flatten().collect();
            let mut networks: Vec<&str> = cuts.iter().map(|cut| cut.network.as_str()).collect();
            networks.sort_unstable();
            networks.dedup();
            let summary = format!("detach {} from {}", hits.names(), networks.join(", "));
            let claims = hits.claims();
            let data = Data { hits, cuts };
            let manual = attach_by_hand(&data);
            let data = record(&data);
            containers::change(self, env, request, containers::Words { summary, claims, manual }, data).await
        })
    }

    fn apply<'a>(&'a self, env: &'a Env, change: &'a Change) -> Pending<'a, Result<(), InjectError>> {
        Box::pin(async move {
            let data: Data = recall(ABOUT.name, &change.apply)?;
            for hit in &data.hits.each {
                for cut in data.of(hit) {
                    data.hits.act(env, &[hit], &Act::Disconnect(cut.endpoint.network.clone())).await?;
                }
            }
            Ok(())
        })
    }

    fn undo<'a>(&'a self, env: &'a Env, undo: &'a Value) -> Pending<'a, Result<Undone, InjectError>> {
        Box::pin(async move {
            let data: Data = recall(ABOUT.name, undo)?;
            let left = |cut: &Cut, now: &Container| !now.networks.contains_key(&cut.network);
            let seen =
                data.hits.settled(env, SETTLE, |hit, now| data.of(hit).all(|cut| left(cut, now))).await?;
            let (mut outcome, mut failed) = (Undone::NothingToDo, None);
            for (hit, now) in seen {
                let Some(now) = now else { continue };
                let other = |cut: &&Cut| {
                    let end = now.networks.get(&cut.network);
                    end.is_some_and(|end| end.asked() != cut.endpoint.asked())
                };
                if let Some(cut) = data.of(hit).find(other) {
                    failed.get_or_insert(foreign(hit, cut));
                }
                for cut in data.of(hit).filter(|cut| left(cut, &now)) {
                    match data.hits.act(env, &[hit], &Act::Connect(Box::new(cut.endpoint.clone()))).await {
                        Ok(()) => outcome = Undone::Reverted,
                        // The others are to be attached all the same.
                        Err(error) => failed = failed.or(Some(error)),
                    }
                }
            }
            failed.map_or(Ok(outcome), Err)
        })
    }

    fn observe<'a>(&'a self, env: &'a Env, change: &'a Change) -> Pending<'a, Result<Proof, InjectError>> {
        Box::pin(async move {
            let data: Data = recall(ABOUT.name, &change.apply)?;
            let (all, mut gone, mut unseen) = (data.cuts.len(), 0, 0);
            for hit in &data.hits.each {
                let Some(now) = data.hits.look(env, hit).await? else { continue };
                let process =
                    now.pid.map(|pid| containers::process(env, &hit.id, pid)).transpose()?.flatten();
                let inside = process.and_then(|id| env.procs.addresses(id.pid).ok());
                for cut in data.of(hit) {
                    let had = &cut.endpoint.addresses;
                    match &inside {
                        Some(inside) if !had.is_empty() => {
                            let listed = now.networks.contains_key(&cut.network);
                            gone +=
                                usize::from(!listed && !had.iter().any(|address| inside.contains(address)));
                        }
                        _ => unseen += 1,
                    }
                }
            }
            let requested = format!("{all} endpoints gone");
            if unseen > 0 {
                return Ok(Proof::unproven(requested, "its network namespace cannot be seen from here"));
            }
            Ok(Proof {
                status: if gone == all { ProofStatus::Confirmed } else { ProofStatus::Mismatch },
                requested,
                measured: format!("{gone} gone from their namespaces and from the engine's list"),
                tolerance: "all".to_owned(),
                samples: all as u64,
            })
        })
    }

    fn picture<'a>(&'a self, env: &'a Env, undo: &'a Value) -> Pending<'a, Result<Value, InjectError>> {
        Box::pin(async move {
            let data: Data = recall(ABOUT.name, undo)?;
            let (mut missing, mut other) = (Vec::new(), Vec::new());
            for hit in &data.hits.each {
                let Some(now) = data.hits.look(env, hit).await? else { continue };
                for cut in data.of(hit) {
                    let words = format!("{} in {}", hit.name, cut.network);
                    match now.networks.get(&cut.network) {
                        None => missing.push(words),
                        Some(end) if end.asked() != cut.endpoint.asked() => other.push(words),
                        Some(_) => {}
                    }
                }
            }
            Ok(json!({"missing": missing, "changed": other}))
        })
    }
}
