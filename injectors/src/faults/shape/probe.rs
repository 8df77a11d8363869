//! Packets of our own through the fault: who answers, how long it takes, how many come back and how often.
//!
//! Asked is whoever stands in the aim by a single address, else whoever the kernel knows on the interface; no network is
//! ever searched. Where nobody answered before, no loss can be told.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::evidence::Felt;
use super::part::Part;
use super::tree::Tree;
use crate::sys::aim::{Aim, Protocol};
use crate::sys::netem::Netem;
use crate::sys::netlink::{Echoed, Network, Peer, Session, Space, Stream};

/// Bytes of a handshake's first packet, and of an echo besides what it carries.
const HANDSHAKE: u64 = 74;
const ECHO_HEADS: u64 = 42;
/// The most that are asked whether they answer.
const CANDIDATES_MAX: usize = 3;
/// The longest that one stream waits for late answers.
const WAIT_MAX: Duration = Duration::from_secs(3);
/// Longer delays are not waited for.
const DELAY_MAX: Duration = Duration::from_secs(1);
/// The kernel sends the first packet of a connection again after a second: what is answered later was lost.
const HANDSHAKE_WAIT_MAX: Duration = Duration::from_millis(900);

/// Bytes of an echo that is to be corrupted: so many that hardly a bit is one that nobody looks at.
const CORRUPTIBLE: u16 = 1000;

/// Whether anybody answers, and how long it takes.
const CALL: Stream = Stream {
    count: 5,
    pace: Duration::from_millis(5),
    wait: Duration::from_millis(250),
    linger: Duration::ZERO,
    payload: 56,
};

/// Somebody who answers, as it was before.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Probe {
    pub(super) peer: Peer,
    /// The median round trip in microseconds; none if it was not asked before.
    usual: Option<u32>,
}

/// Who might answer, the likeliest first.
pub(super) async fn candidates(session: &dyn Session, aim: &Aim, trees: &[Tree]) -> io::Result<Vec<Peer>> {
    let Some(tree) = trees.first() else { return Ok(Vec::new()) };
    let port = match (aim.protocol, aim.peer_ports.first(), aim.local_ports.is_empty()) {
        (None | Some(Protocol::Tcp), Some(range), true) => Some(*range.start()),
        (None | Some(Protocol::Icmp), None, true) => None,
        _ => return Ok(Vec::new()),
    };
    let own = if aim.locals.is_empty() { Vec::new() } else { session.addresses().await? };
    let mut addresses = Vec::new();
    for network in aim.peers.iter().filter(|network| network.is_single()).take(CANDIDATES_MAX) {
        if session.route(network.address, aim.source(&own, network.address)).await.unwrap_or_default()
            == tree.link
        {
            addresses.push(network.address);
        }
    }
    if tree.interface == "lo" {
        addresses.extend([IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()]);
    }
    addresses.extend(session.neighbours(tree.link).await?);
    let mut peers: Vec<Peer> = Vec::new();
    for address in addresses {
        let Some(peer) = Peer::of(aim, &own, (address, port), tree.link) else { continue };
        if hits(aim, &peer, peer.from.unwrap_or(unspecified(address))) && !peers.contains(&peer) {
            peers.push(peer);
        }
    }
    peers.truncate(CANDIDATES_MAX);
    Ok(peers)
}

/// The first that answers.
pub(super) async fn choose(network: &dyn Network, space: &Space, peers: &[Peer]) -> Option<Probe> {
    for peer in peers {
        // Who cannot be asked is as good as silent.
        let echoed = network.echo(space, peer, &CALL).await.unwrap_or_default();
        if let Some(usual) = median(&echoed) {
            return Some(Probe { peer: *peer, usual: Some((usual * 1e6) as u32) });
        }
    }
    None
}

impl Probe {
    /// One that was not asked before: it can tell of delays and copies, not of losses.
    pub(super) fn new(peer: Peer) -> Self {
        Self { peer, usual: None }
    }

    fn usual(&self) -> Option<f64> {
        self.usual.map(|micros| f64::from(micros) / 1e6)
    }

    /// Sends what shows this part, and tells what came back; none if nobody could be asked.
    pub(super) async fn feel(
        &self,
        network: &dyn Network,
        space: &Space,
        (aim, trees): (&Aim, &[Tree]),
        stream: &Stream,
    ) -> Option<Felt> {
        let echoed = network.echo(space, &self.peer, stream).await.ok()?;
        let local = echoed.from?;
        let loopback = trees.first().is_some_and(|tree| tree.interface == "lo");
        let back = Peer { address: local, ..self.peer };
        let passes: u32 = trees
            .iter()
            .map(|_| {
                // The answer to a handshake goes to a port that nobody aims at.
                let answer =
                    loopback && hits(aim, &Peer { port: back.port.map(|_| 0), ..back }, self.peer.address);
                u32::from(hits(aim, &self.peer, local)) + u32::from(answer)
            })
            .sum();
        (passes > 0).then(|| Felt {
            whom: self.peer.name(),
            what: if self.peer.port.is_some() { "handshakes" } else { "echoes" },
            bytes: if self.peer.port.is_some() { HANDSHAKE } else { u64::from(stream.payload) + ECHO_HEADS },
            damaged: echoed.damaged,
            passes,
            sent: echoed.sent,
            answered: echoed.answers.len() as u64,
            twice: echoed.answers.iter().filter(|answer| answer.times > 1).count() as u64,
            rtt: median(&echoed),
            usual: self.usual(),
        })
    }

    /// The stream that shows a part, while the qdisc does all this.
    pub(super) fn stream(&self, part: &Part, netem: Option<&Netem>) -> Option<Stream> {
        let held = netem.and_then(|netem| netem.delay).unwrap_or_default();
        // There and back, and both ways each.
        let longest = (held.delay + 3 * held.jitter) * 4;
        let usual = Duration::from_secs_f64(2.0 * self.usual().unwrap_or(0.0));
        let cap = if self.peer.port.is_some() { HANDSHAKE_WAIT_MAX } else { WAIT_MAX };
        let wait = (Duration::from_millis(300) + usual + longest).min(cap);
        let stream = |count, pace_ms, payload| Stream {
            count,
            pace: Duration::from_millis(pace_ms),
            wait,
            linger: Duration::from_millis(5),
            payload,
        };
        Some(match part {
            // Nobody waits for that long to learn what the counters say as well.
            Part::Delay { delay, .. } if delay.delay > DELAY_MAX => return None,
            Part::Delay { delay, .. } if delay.jitter.is_zero() => {
                Stream { wait: wait.max(usual + longest).min(WAIT_MAX), ..stream(12, 10, 56) }
            }
            Part::Delay { .. } => {
                Stream { wait: wait.max(usual + longest).min(WAIT_MAX), ..stream(40, 5, 56) }
            }
            Part::Loss(_) if self.usual.is_some() => stream(200, 2, 56),
            Part::Corrupt(_) if self.usual.is_some() => stream(200, 2, CORRUPTIBLE),
            Part::Duplicate(_) if self.peer.port.is_none() => {
                Stream { linger: Duration::from_millis(50) + longest.min(wait), ..stream(200, 2, 56) }
            }
            _ => return None,
        })
    }

    /// A short transfer that is more than a rate lets through; none if that would be too many packets.
    pub(super) fn transfer(&self, bytes: u64, lasting: Duration) -> Option<Stream> {
        const COUNT_MAX: f64 = crate::sys::netlink::echo::COUNT_MAX as f64;
        if self.peer.port.is_some() {
            return None;
        }
        let rate = bytes as f64;
        let payload = (rate * 0.002).clamp(56.0, 1400.0);
        let size = payload + 42.0;
        let most = COUNT_MAX * size / lasting.as_secs_f64();
        let offered = (2.5 * rate).min(most);
        (offered >= 1.2 * rate).then(|| Stream {
            count: (offered * lasting.as_secs_f64() / size).ceil() as u16,
            pace: Duration::from_secs_f64(size / offered),
            wait: Duration::from_millis(50),
            linger: Duration::ZERO,
            payload: payload as u16,
        })
    }
}

fn unspecified(like: IpAddr) -> IpAddr {
    if like.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}

fn hits(aim: &Aim, peer: &Peer, local: IpAddr) -> bool {
    let protocol = if peer.port.is_some() { Protocol::Tcp } else { Protocol::Icmp };
    aim.hits(protocol, SocketAddr::new(peer.address, peer.port.unwrap_or(0)), (local, 0).into())
}

fn median(echoed: &Echoed) -> Option<f64> {
    let mut times: Vec<Duration> = echoed.answers.iter().map(|answer| answer.took).collect();
    times.sort_unstable();
    times.get(times.len() / 2).map(Duration::as_secs_f64)
}
