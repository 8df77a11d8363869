//! What is cut in which namespace, and what is seen of it.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ours::{Ours, gone};
use super::proof::{self, Reply, Seen, Streamed, Watched};
use super::rules::{By, Rules};
use super::sides::Sides;
use crate::Env;
use crate::change::InjectError;
use crate::faults::contained::{Now, Place};
use crate::faults::containers::Hits;
use crate::faults::shape::failed;
use crate::flows::Flows;
use crate::sys::aim::{Aim, Network};
use crate::sys::netlink::{Link, Network as Kernel, Peer, Session, Space, Stream};
use crate::traffic::Traffic;

/// How long the first and the second look at somebody may take before anything is cut.
const LOOKS: [Duration; 2] = [Duration::from_millis(400), Duration::from_secs(1)];
/// How long a probe waits for an answer that should not come, as a multiple of the time that it took before.
const PATIENCE: u32 = 4;
const PATIENCE_MIN: Duration = Duration::from_millis(100);
const PATIENCE_MAX: Duration = Duration::from_secs(1);
/// How many packets of our own go through a loss at each look, and how far apart.
const LOST_OF: u16 = 200;
const PACE: Duration = Duration::from_millis(2);
/// The most members whose addresses one other member is tried against.
const TRIED_MAX: usize = 2;

/// The part of a fault that is in one namespace.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Part {
    pub(super) place: Place,
    pub(super) rules: Rules,
    pub(super) watched: Vec<Watched>,
    /// By what addresses others reach it, if it is one of several.
    #[serde(default)]
    addresses: Vec<Network>,
    /// The other parts from which it is cut off, if it is one of several.
    #[serde(default)]
    severed: Vec<usize>,
    /// Whether it is where a restart has brought its container.
    #[serde(skip)]
    pub(super) moved: bool,
}

/// The one namespace that the flows name.
pub(super) async fn alone(
    network: &dyn Kernel,
    traffic: &Traffic,
    by: By,
    place: Place,
) -> Result<Part, InjectError> {
    let aim = traffic.aim();
    let failed = failed(&place.name);
    let session = network.enter(&place.space).await.map_err(&failed)?.ok_or_else(|| gone(&place.name))?;
    let link = match &traffic.interface {
        Some(name) => named(&session.links().await.map_err(&failed)?, name, &place.name)?,
        None => 0,
    };
    let own = session.addresses().await.map_err(&failed)?;
    let mut peers = proof::peers(&aim, &own, link);
    if matches!(by, By::Lose(_)) {
        if peers.is_empty() && link != 0 {
            let mut known = session.neighbours(link).await.map_err(&failed)?;
            known.retain(|one| aim.peers.is_empty() || aim.peers.iter().any(|net| net.contains(*one)));
            let known = known.into_iter().map(Network::single).collect();
            peers = proof::peers(&Aim { peers: known, ..aim.clone() }, &own, link);
        }
        // There, one packet is met more than once.
        peers.retain(|peer| !peer.address.is_loopback() && !own.contains(&peer.address));
    }
    if link != 0 {
        peers = leading(&*session, link, peers).await;
    }
    drop(session);
    let watched = watch(network, &place.space, &peers).await.map_err(&failed)?;
    let rules = Rules { aim, ways: traffic.ways().to_vec(), interface: traffic.interface.clone(), by };
    Ok(Part { place, rules, watched, addresses: Vec::new(), severed: Vec::new(), moved: false })
}

/// The number of the interface with this name.
fn named(links: &[Link], name: &str, place: &str) -> Result<u32, InjectError> {
    let found = links.iter().find(|link| link.name == name).map(|link| link.index);
    found.ok_or_else(|| {
        let known: Vec<&str> = links.iter().take(16).map(|link| link.name.as_str()).collect();
        InjectError::Target(format!(
            "there is no interface {name} in {place}; there are {}",
            known.join(", ")
        ))
    })
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
    (members, sides): (&[Place], &Sides),
) -> Result<Vec<Part>, InjectError> {
    let mut homes: Vec<Vec<Network>> = Vec::new();
    for place in members {
        let found = addresses(network, place).await?.ok_or_else(|| gone(&place.name))?;
        if found.is_empty() {
            let text = format!("{} has no address by which others reach it", place.name);
            return Err(InjectError::Target(text));
        }
        homes.push(found);
    }
    // Being cut off is mutual, so that whoever is named here has a part as well.
    let has_part = |at: &usize| !sides.severed[*at].is_empty();
    let number = |member: usize| (0..member).filter(has_part).count();
    let mut parts = Vec::new();
    for (member, place) in members.iter().enumerate().filter(|(member, _)| has_part(member)) {
        let severed = &sides.severed[member];
        let mut traffic = flows.traffic.clone();
        traffic.to = peers(&homes[member], severed.iter().map(|other| &homes[*other]));
        traffic.bounded().map_err(|(_, text)| InjectError::Target(text))?;
        let aim = traffic.aim();
        let asked = tried(&aim, severed.iter().map(|other| &homes[*other][..]));
        let watched = watch(network, &place.space, &asked).await.map_err(failed(&place.name))?;
        parts.push(Part {
            place: place.clone(),
            rules: Rules { aim, ways: traffic.ways().to_vec(), interface: None, by },
            watched,
            addresses: homes[member].clone(),
            severed: severed.iter().map(|other| number(*other)).collect(),
            moved: false,
        });
    }
    Ok(parts)
}

/// By what addresses others reach a place; none if its namespace has gone.
async fn addresses(network: &dyn Kernel, place: &Place) -> Result<Option<Vec<Network>>, InjectError> {
    let failed = failed(&place.name);
    let Some(session) = network.enter(&place.space).await.map_err(&failed)? else { return Ok(None) };
    let found = session.addresses().await.map_err(&failed)?;
    Ok(Some(found.into_iter().map(Network::single).collect()))
}

/// The addresses of others that are not our own as well.
fn peers<'a>(own: &[Network], others: impl Iterator<Item = &'a Vec<Network>>) -> Vec<Network> {
    let mut peers: Vec<Network> =
        others.flatten().filter(|network| !own.contains(network)).copied().collect();
    peers.sort();
    peers.dedup();
    peers
}

/// The parts as they are by now: without those whose containers are down, those whose containers have been restarted in
/// their new namespaces, and each cut off from the addresses that the others have now: after a restart, an address may be
/// that of a friend.
pub(super) async fn follow(env: &Env, parts: &[Part], hits: Option<&Hits>) -> Result<Vec<Part>, InjectError> {
    let (mut now, mut homes) = (Vec::new(), Vec::new());
    for part in parts {
        let (place, moved) = match part.place.now(env, hits).await? {
            Now::Same => (part.place.clone(), false),
            Now::Moved(place) => (place, true),
            Now::Gone => {
                now.push(None);
                homes.push(None);
                continue;
            }
        };
        homes.push(if moved && !part.severed.is_empty() {
            addresses(&*env.network, &place).await?
        } else {
            Some(part.addresses.clone())
        });
        now.push(Some(Part { place, moved, ..part.clone() }));
    }
    let up: Vec<Network> = homes.iter().flatten().flatten().copied().collect();
    for (at, part) in now.iter_mut().enumerate() {
        let Some(part) = part.as_mut().filter(|part| !part.severed.is_empty()) else { continue };
        let mut others: Vec<Network> = Vec::new();
        for other in &part.severed {
            match &homes[*other] {
                Some(home) => others.extend(home),
                // It comes back by its old address, unless somebody else has got that.
                None => others.extend(parts[*other].addresses.iter().filter(|own| !up.contains(own))),
            }
        }
        let others = peers(homes[at].as_deref().unwrap_or_default(), [&others].into_iter());
        // What nobody has any more, nobody needs to ask.
        part.watched.retain(|watched| others.contains(&Network::single(watched.peer.address)));
        // Rules for nobody would be rules for everybody.
        if !others.is_empty() {
            part.rules.aim.peers = others;
        }
    }
    Ok(now.into_iter().flatten().collect())
}

/// Sees to it that the table of a part is there, is the right one, and lives on.
pub(super) async fn cover(env: &Env, part: &Part, ours: &Ours) -> Result<(), InjectError> {
    let Part { place, rules, .. } = part;
    if !part.moved && part.severed.is_empty() {
        return ours.renew(&*env.network, place).await;
    }
    let failed = failed(&place.name);
    let Some(session) = env.network.enter(&place.space).await.map_err(&failed)? else { return Ok(()) };
    let there = ours.find(session.tables().await.map_err(&failed)?).map_err(InjectError::Target)?;
    let done = match there {
        // Only where it was never made it is made now.
        None if part.moved => session.commit(&rules.edits(ours)).await.map_err(&failed),
        _ => {
            let picked = session.picked(ours.table()).await.map_err(&failed)?;
            let edits = if part.severed.is_empty() { Vec::new() } else { rules.aligned(ours, &picked) };
            let aligned = if edits.is_empty() { Ok(()) } else { session.commit(&edits).await };
            drop(session);
            match aligned {
                Ok(()) => ours.renew(&*env.network, place).await,
                Err(error) => Err(failed(error)),
            }
        }
    };
    // One that has gone on to the next life takes the error along.
    if done.is_err() && !place.lives(env)? { Ok(()) } else { done }
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

/// Cuts these addresses as well. Makes nothing anew: what has gone stays gone.
pub(super) async fn widen(network: &dyn Kernel, part: &Part, ours: &Ours, new: &[IpAddr]) -> io::Result<()> {
    let Some(session) = network.enter(&part.place.space).await? else { return Ok(()) };
    if ours.find(session.tables().await?).ok().flatten().is_none() {
        return Ok(());
    }
    let there = session.picked(ours.table()).await?;
    let edits = part.rules.widened(ours, &there, new);
    if edits.is_empty() { Ok(()) } else { session.commit(&edits).await }
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
    let name = part.place.name.clone();
    let gone = |name| Seen { name, probes: Vec::new(), silent: 0, counted: None, felt: None };
    let answering: Vec<Watched> =
        part.watched.iter().filter(|watched| watched.before != Reply::Nothing).copied().collect();
    let silent = part.watched.len() - answering.len();
    let lossy = matches!(part.rules.by, By::Lose(_));
    let felt = if lossy { lose(network, part, patience, answering.first()).await } else { None };
    let peers = answering.iter().filter(|_| !lossy).map(|watched| watched.peer);
    let replies = match ask(network, &part.place.space, peers, patience).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(gone(name)),
        other => other?,
    };
    let Some(session) = network.enter(&part.place.space).await? else { return Ok(gone(name)) };
    let there = ours.find(session.tables().await?).ok().flatten().is_some();
    if part.moved && !there {
        // It was restarted a moment ago: what gets through before it is covered refutes nothing.
        return Ok(gone(name));
    }
    let counted = if there { Some(session.counted(ours.table()).await?) } else { None };
    Ok(Seen { name, probes: answering.into_iter().zip(replies).collect(), silent, counted, felt })
}

/// Sends a stream of our own through a loss, to somebody who answered before; none if nobody could be asked.
async fn lose(
    network: &dyn Kernel,
    part: &Part,
    patience: Duration,
    answering: Option<&Watched>,
) -> Option<Streamed> {
    let peer = answering?.peer;
    let stream =
        Stream { count: LOST_OF, pace: PACE, wait: patience.max(PATIENCE_MIN * 2), ..Stream::once(patience) };
    // Who cannot be asked has not answered.
    let echoed = network.echo(&part.place.space, &peer, &stream).await.ok()?;
    Some(Streamed {
        peer,
        passes: part.rules.ways.len(),
        sent: echoed.sent,
        answered: echoed.answers.len() as u64,
    })
}
