//! What is cut in which namespace, and what is seen of it.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Ours;
use super::proof::{self, Reply, Seen, Watched};
use super::rules::{By, Rules};
use super::sides::Sides;
use crate::change::InjectError;
use crate::faults::shape::{failed, space};
use crate::flows::Flows;
use crate::sys::aim::{Aim, Network};
use crate::sys::netlink::{Link, Network as Kernel, Peer, Session, Space, Stream};
use crate::traffic::Whose;

/// How long the first and the second look at somebody may take before anything is cut.
const LOOKS: [Duration; 2] = [Duration::from_millis(400), Duration::from_secs(1)];
/// How long a probe waits for an answer that should not come, as a multiple of the time that it took before.
const PATIENCE: u32 = 4;
const PATIENCE_MIN: Duration = Duration::from_millis(100);
const PATIENCE_MAX: Duration = Duration::from_secs(1);
/// The most members whose addresses one other member is tried against.
const TRIED_MAX: usize = 2;

/// The part of a fault that is in one namespace.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Part {
    pub(super) space: Space,
    /// For people.
    pub(super) name: String,
    pub(super) rules: Rules,
    pub(super) watched: Vec<Watched>,
}

pub(super) fn gone(name: &str) -> InjectError {
    InjectError::Target(format!("the network namespace {name} has gone"))
}

/// The one namespace that the flows name.
pub(super) async fn alone(
    network: &dyn Kernel,
    flows: &Flows,
    by: By,
    (space, name): (Space, String),
) -> Result<Part, InjectError> {
    let traffic = &flows.traffic;
    let aim = traffic.aim();
    let failed = failed(&flows.to_string());
    let session = network.enter(&space).await.map_err(&failed)?.ok_or_else(|| gone(&flows.to_string()))?;
    let link = match &traffic.interface {
        Some(name) => named(&session.links().await.map_err(&failed)?, name)?,
        None => 0,
    };
    // A share is counted; one packet of our own would say nothing.
    let mut peers = Vec::new();
    if !matches!(by, By::Lose(_)) {
        peers = proof::peers(&aim, &session.addresses().await.map_err(&failed)?, link);
    }
    if link != 0 {
        peers = leading(&*session, link, peers).await;
    }
    drop(session);
    let watched = watch(network, &space, &peers).await.map_err(&failed)?;
    let rules = Rules { aim, ways: traffic.ways().to_vec(), interface: traffic.interface.clone(), by };
    Ok(Part { space, name, rules, watched })
}

/// The number of the interface with this name.
fn named(links: &[Link], name: &str) -> Result<u32, InjectError> {
    let found = links.iter().find(|link| link.name == name).map(|link| link.index);
    found.ok_or_else(|| {
        let known: Vec<&str> = links.iter().take(16).map(|link| link.name.as_str()).collect();
        InjectError::Target(format!("there is no interface {name}; there are {}", known.join(", ")))
    })
}

/// The namespace as one word.
pub(super) fn word(whose: &Whose) -> String {
    match whose {
        Whose::Own => "of this host".to_owned(),
        Whose::Named(name) => name.clone(),
        Whose::Process(pid) => format!("of process {pid}"),
        Whose::Containers(containers) => format!("of {containers}"),
    }
}

/// Those who are reached by this interface: what goes to others would not be hit.
async fn leading(session: &dyn Session, link: u32, peers: Vec<Peer>) -> Vec<Peer> {
    let mut kept = Vec::new();
    for peer in peers {
        if session.route(peer.address, peer.from).await.is_ok_and(|leads| leads == link) {
            kept.push(peer);
        }
    }
    kept
}

/// One part for each member that is cut off from another.
pub(super) async fn among(
    network: &dyn Kernel,
    flows: &Flows,
    by: By,
    sides: &Sides,
) -> Result<Vec<Part>, InjectError> {
    let mut homes: Vec<(Space, Vec<Network>)> = Vec::new();
    for name in &sides.members {
        let space = space(network, &Whose::Named(name.clone()))?;
        if let Some(at) = homes.iter().position(|(other, _)| other.inode == space.inode) {
            let other = &sides.members[at];
            return Err(InjectError::Target(format!("{name} and {other} are the same network namespace")));
        }
        let failed = failed(name);
        let session = network.enter(&space).await.map_err(&failed)?.ok_or_else(|| gone(name))?;
        let addresses = session.addresses().await.map_err(&failed)?;
        if addresses.is_empty() {
            return Err(InjectError::Target(format!("{name} has no address by which others reach it")));
        }
        homes.push((space, addresses.into_iter().map(Network::single).collect()));
    }
    let mut parts = Vec::new();
    for ((space, own), (name, severed)) in homes.iter().zip(sides.members.iter().zip(&sides.severed)) {
        if severed.is_empty() {
            continue;
        }
        let mut traffic = flows.traffic.clone();
        let others = severed.iter().flat_map(|other| &homes[*other].1);
        traffic.to = others.filter(|network| !own.contains(network)).copied().collect();
        traffic.bounded().map_err(|(_, text)| InjectError::Target(text))?;
        let aim = traffic.aim();
        let peers = tried(&aim, severed.iter().map(|other| &homes[*other].1[..]));
        let watched = watch(network, space, &peers).await.map_err(failed(name))?;
        let rules = Rules { aim, ways: traffic.ways().to_vec(), interface: None, by };
        parts.push(Part { space: space.clone(), name: name.clone(), rules, watched });
    }
    Ok(parts)
}

/// The first address of each family of a few others.
fn tried<'a>(aim: &Aim, others: impl Iterator<Item = &'a [Network]>) -> Vec<Peer> {
    let mut peers = Vec::new();
    for other in others.take(TRIED_MAX) {
        for ipv4 in [true, false] {
            let global = |network: &&Network| match network.address {
                IpAddr::V4(address) => ipv4 && !address.is_link_local(),
                IpAddr::V6(address) => !ipv4 && !address.is_unicast_link_local(),
            };
            peers.extend(other.iter().find(global));
        }
    }
    if peers.is_empty() { Vec::new() } else { proof::peers(&Aim { peers, ..aim.clone() }, &[], 0) }
}

/// Looks whether they answer while nothing is cut: twice, as the first packet may get lost.
async fn watch(network: &dyn Kernel, space: &Space, peers: &[Peer]) -> io::Result<Vec<Watched>> {
    let mut watched: Vec<Watched> =
        peers.iter().map(|peer| Watched { peer: *peer, before: Reply::Nothing }).collect();
    for patience in LOOKS {
        let silent: Vec<&mut Watched> =
            watched.iter_mut().filter(|watched| watched.before == Reply::Nothing).collect();
        if silent.is_empty() {
            break;
        }
        let replies = ask(network, space, silent.iter().map(|watched| watched.peer), patience).await?;
        for (watched, reply) in silent.into_iter().zip(replies) {
            watched.before = reply;
        }
    }
    Ok(watched)
}

/// Asks each once, all at the same time, and tells what came of it in the same order.
async fn ask(
    network: &dyn Kernel,
    space: &Space,
    peers: impl Iterator<Item = Peer>,
    patience: Duration,
) -> io::Result<Vec<Reply>> {
    let stream = Stream::once(patience);
    let all = peers.map(|peer| async move {
        let echoed = network.echo(space, &peer, &stream).await?;
        Ok(Reply::of(&echoed))
    });
    futures_util::future::join_all(all).await.into_iter().collect()
}

/// Looks at one part: asks first, since that is counted as well. Whoever has never answered is not asked again: that
/// would show nothing, and what is counted would be our own.
pub(super) async fn look(network: &dyn Kernel, part: &Part, ours: &Ours) -> io::Result<Seen> {
    let slowest = part.watched.iter().filter_map(|watched| match watched.before {
        Reply::Answered(micros) => Some(Duration::from_micros(micros)),
        _ => None,
    });
    let patience = slowest.max().map_or(PATIENCE_MIN * 2, |rtt| rtt.saturating_mul(PATIENCE));
    let patience = patience.clamp(PATIENCE_MIN, PATIENCE_MAX);
    let name = part.name.clone();
    let gone = |name| Seen { name, probes: Vec::new(), silent: 0, counted: None };
    let answering: Vec<Watched> =
        part.watched.iter().filter(|watched| watched.before != Reply::Nothing).copied().collect();
    let silent = part.watched.len() - answering.len();
    let peers = answering.iter().map(|watched| watched.peer);
    let replies = match ask(network, &part.space, peers, patience).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(gone(name)),
        other => other?,
    };
    let Some(session) = network.enter(&part.space).await? else { return Ok(gone(name)) };
    let there = ours.find(session.tables().await?).ok().flatten().is_some();
    let counted = if there { Some(session.counted(ours.table()).await?) } else { None };
    Ok(Seen { name, probes: answering.into_iter().zip(replies).collect(), silent, counted })
}
