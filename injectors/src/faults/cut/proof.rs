//! Requested against measured: what our rules have counted, and whether our own probes get through. Pure.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::rules::{By, cut};
use crate::change::{Proof, ProofStatus};
use crate::faults::shape::evidence::{either, judge_share};
use crate::sys::aim::{Aim, Protocol, Way};
use crate::sys::netlink::{Echoed, Peer};
use crate::sys::nft::read::Counted;

/// The most probes of one namespace.
const PROBES_MAX: usize = 4;

/// What came of one packet of our own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Reply {
    /// An answer, after this many microseconds.
    Answered(u64),
    /// A refusal.
    Refused,
    /// Nothing in time, or no way there.
    Nothing,
}

impl Reply {
    /// What a stream of one packet tells.
    pub(super) fn of(echoed: &Echoed) -> Self {
        match echoed.answers.first() {
            Some(_) if echoed.refused > 0 => Self::Refused,
            Some(answer) => Self::Answered(u64::try_from(answer.took.as_micros()).unwrap_or(u64::MAX)),
            None => Self::Nothing,
        }
    }
}

/// Somebody who is asked, and what came of it before anything was cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Watched {
    pub(super) peer: Peer,
    pub(super) before: Reply,
}

/// What was seen in one namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    /// Whose it is.
    pub(super) name: String,
    /// What came of each probe that had an answer before, then and now.
    pub(super) probes: Vec<(Watched, Reply)>,
    /// Probes that had none, and were not sent again.
    pub(super) silent: usize,
    /// What each rule that counts has counted; none if the table is not there.
    pub(super) counted: Option<Vec<Counted>>,
    /// What became of a stream of our own, where a share is lost.
    pub(super) felt: Option<Streamed>,
}

/// A stream of packets of our own through a loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Streamed {
    /// To whom.
    pub(super) peer: Peer,
    /// How often a round trip meets the loss.
    pub(super) passes: usize,
    /// How many were sent.
    pub(super) sent: u64,
    /// How many were answered.
    pub(super) answered: u64,
}

/// Who is asked by packets that an aim should hit: each single address of the other side, from one of our own that it
/// asks for, as far as one can be made. `link` leads to those that only one interface knows.
pub(super) fn peers(aim: &Aim, own: &[IpAddr], link: u32) -> Vec<Peer> {
    let spared = |peer: &Peer| {
        aim.exempt.iter().any(|exempt| {
            exempt.peer.is_none_or(|network| network.contains(peer.address))
                && exempt.port.is_none_or(|port| peer.port == Some(port))
        })
    };
    let ported = aim.peer_ports.first().map(|range| *range.start());
    let port = match (aim.protocol, ported) {
        // Nobody can choose our own port, nor answer what he does not know.
        _ if !aim.local_ports.is_empty() => return Vec::new(),
        (Some(Protocol::Udp), _) | (Some(Protocol::Tcp), None) => return Vec::new(),
        (_, port) => port,
    };
    let single = aim.peers.iter().filter(|network| network.is_single());
    let all = single.filter_map(|network| Peer::of(aim, own, (network.address, port), link));
    all.filter(|peer| !spared(peer)).take(PROBES_MAX).collect()
}

impl By {
    /// Whether a reply shows that a probe got through the cut.
    fn lets_through(self, reply: Reply) -> bool {
        match reply {
            Reply::Answered(_) => true,
            Reply::Refused => matches!(self, Self::Drop | Self::Unreachable),
            Reply::Nothing => false,
        }
    }
}

/// Judges a cut: confirmed if our rules were met and nothing of ours gets through; a mismatch if something does.
pub(super) fn judge(requested: String, by: By, all: &[Seen]) -> Proof {
    if let By::Lose(share) = by {
        return lost(share, all);
    }
    let probes = || all.iter().flat_map(|seen| &seen.probes);
    let through: Vec<String> = all
        .iter()
        .flat_map(|seen| {
            let leaks = seen.probes.iter().filter(|(_, now)| by.lets_through(*now));
            leaks.map(|(watched, now)| format!("{} {}{}", watched.peer.name(), reply(*now), of(all, seen)))
        })
        .collect();
    let (out, inward) = (hits(all, Way::Out), hits(all, Way::In));
    let idle = all.iter().find(|seen| seen.counted.as_ref().is_none_or(|all| total(all) == 0));
    let status = match idle {
        _ if !through.is_empty() => ProofStatus::Mismatch,
        Some(seen) if seen.counted.is_none() => ProofStatus::Gone,
        Some(_) => ProofStatus::Unproven,
        None => ProofStatus::Confirmed,
    };
    let mut words = Vec::new();
    match idle {
        _ if !through.is_empty() => words.push(format!("{}: it gets through", through.join(", "))),
        Some(seen) if seen.counted.is_none() => words.push(format!("its rules are gone{}", of(all, seen))),
        Some(seen) => words.push(format!("no packet met it{}", of(all, seen))),
        None => {}
    }
    let lost = probes().filter(|(_, now)| !by.lets_through(*now)).count();
    let silent: usize = all.iter().map(|seen| seen.silent).sum();
    match (lost, probes().next()) {
        (0, _) => {}
        (1, Some((watched, now))) if probes().count() == 1 => words.push(format!(
            "{} {} before, and now {}",
            watched.peer.name(),
            reply(watched.before),
            reply(*now)
        )),
        _ => words.push(format!("{lost} of {} that answered before do not answer now", lost + through.len())),
    }
    if probes().next().is_none() && silent == 0 {
        words.push("no packet of our own could be tried".to_owned());
    }
    if silent > 0 {
        words.push(format!("{silent} of our own probes had no answer before, and show nothing"));
    }
    words.push(format!("{out} packets out and {inward} in were cut off"));
    Proof {
        status,
        requested,
        measured: words.join("; "),
        tolerance: "not one of our own probes gets through".to_owned(),
        samples: out + inward,
    }
}

fn lost(share: f64, all: &[Seen]) -> Proof {
    let (mut met, mut dropped) = (0, 0);
    for counted in all.iter().filter_map(|seen| seen.counted.as_ref()) {
        for way in [Way::Out, Way::In] {
            let mut own = counted.iter().filter(|one| one.chain == cut(way)).map(|one| one.packets);
            met += own.next().unwrap_or(0);
            dropped += own.next().unwrap_or(0);
        }
    }
    let requested = format!("{:.2}% of packets", share * 100.0);
    if let Some(seen) = all.iter().find(|seen| seen.counted.is_none()) {
        return Proof::gone(requested, format!("its rules are gone{}", of(all, seen)));
    }
    let counted = judge_share(requested.clone(), "packets lost", share, dropped, met);
    let felt = all.iter().find_map(|seen| seen.felt).map(|own| {
        let round = 1.0 - (1.0 - share).powi(own.passes as i32);
        let kind = if own.peer.port.is_some() { "handshakes" } else { "echoes" };
        let what = format!("{kind} of our own to {} lost", own.peer.name());
        judge_share(requested, &what, round, own.sent - own.answered.min(own.sent), own.sent)
    });
    either(counted, felt)
}

fn hits(all: &[Seen], way: Way) -> u64 {
    let counted = all.iter().filter_map(|seen| seen.counted.as_ref()).flatten();
    counted.filter(|one| one.chain == cut(way)).map(|one| one.packets).sum()
}

fn total(counted: &[Counted]) -> u64 {
    counted.iter().map(|one| one.packets).sum()
}

/// Where it was seen, if there are several places.
fn of(all: &[Seen], seen: &Seen) -> String {
    if all.len() > 1 { format!(" in {}", seen.name) } else { String::new() }
}

fn reply(reply: Reply) -> String {
    match reply {
        Reply::Answered(micros) => format!("answered in {:.1} ms", micros as f64 / 1e3),
        Reply::Refused => "refused".to_owned(),
        Reply::Nothing => "does not answer".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aim(peers: &[&str], protocol: Option<Protocol>, port: Option<u16>) -> Aim {
        Aim {
            peers: peers.iter().map(|peer| peer.parse().unwrap()).collect(),
            protocol,
            peer_ports: port.map(|port| port..=port).into_iter().collect(),
            exempt: crate::flows::Flows::read(&[("protect", "10.0.0.9".to_owned())].into())
                .unwrap()
                .traffic
                .aim()
                .exempt,
            ..Aim::default()
        }
    }

    fn seen(before: Reply, now: Reply, out: u64) -> Seen {
        let peer = Peer { address: "10.0.0.2".parse().unwrap(), link: 2, port: None, from: None };
        let watched = Watched { peer, before };
        let counted = Counted { chain: "out_cut".to_owned(), packets: out, bytes: 0 };
        let (probes, silent) = if before == Reply::Nothing { (vec![], 1) } else { (vec![(watched, now)], 0) };
        Seen { name: "a".to_owned(), probes, silent, counted: Some(vec![counted]), felt: None }
    }

    const FAST: Reply = Reply::Answered(100);

    #[test]
    fn a_cut_is_confirmed_only_if_packets_met_it_and_no_probe_gets_through() {
        let status = |by, before, now, out| judge(String::new(), by, &[seen(before, now, out)]).status;
        assert_eq!(status(By::Drop, FAST, Reply::Nothing, 3), ProofStatus::Confirmed);
        let others = status(By::Drop, Reply::Nothing, Reply::Nothing, 3);
        assert_eq!(others, ProofStatus::Confirmed, "they are not ours");
        assert_eq!(status(By::Drop, Reply::Nothing, Reply::Nothing, 0), ProofStatus::Unproven);
        assert_eq!(status(By::Drop, FAST, FAST, 3), ProofStatus::Mismatch);
        assert_eq!(
            status(By::Drop, FAST, Reply::Refused, 3),
            ProofStatus::Mismatch,
            "a refusal is an answer"
        );
        assert_eq!(status(By::Reset, FAST, Reply::Refused, 3), ProofStatus::Confirmed, "this one is ours");
        assert_eq!(status(By::Drop, FAST, Reply::Nothing, 0), ProofStatus::Unproven, "somebody else's doing");
    }

    #[test]
    fn every_namespace_of_a_partition_must_have_met_it() {
        let met = seen(FAST, Reply::Nothing, 3);
        let idle = Seen { name: "b".to_owned(), ..seen(FAST, Reply::Nothing, 0) };
        let proof = judge(String::new(), By::Drop, &[met.clone(), idle]);
        assert_eq!(proof.status, ProofStatus::Unproven);
        assert!(proof.measured.starts_with("no packet met it in b"), "{}", proof.measured);
        let both = judge(String::new(), By::Drop, &[met.clone(), met.clone()]);
        assert_eq!((both.status, both.samples), (ProofStatus::Confirmed, 6));
        let gone = Seen { counted: None, ..met };
        assert!(judge(String::new(), By::Drop, &[gone]).measured.starts_with("its rules are gone"));
    }

    #[test]
    fn only_single_addresses_that_the_aim_hits_are_asked() {
        let peers = |aim: &Aim| -> Vec<String> {
            peers(aim, &["10.0.0.1".parse().unwrap()], 2).iter().map(Peer::name).collect()
        };
        assert_eq!(peers(&aim(&["10.0.0.2", "10.1.0.0/16", "fd00::1"], None, None)), ["10.0.0.2", "fd00::1"]);
        assert_eq!(peers(&aim(&["10.0.0.2"], Some(Protocol::Tcp), Some(80))), ["10.0.0.2:80"]);
        assert_eq!(peers(&aim(&["10.0.0.2"], None, Some(80))), ["10.0.0.2:80"]);
        assert_eq!(peers(&aim(&["10.0.0.2"], Some(Protocol::Icmp), None)), ["10.0.0.2"]);
        assert!(peers(&aim(&["10.0.0.2"], Some(Protocol::Udp), Some(53))).is_empty());
        assert!(peers(&aim(&["10.0.0.2"], Some(Protocol::Tcp), None)).is_empty());
        assert!(peers(&aim(&["10.0.0.9"], None, None)).is_empty(), "it is protected");
        assert!(peers(&aim(&["10.0.0.2"], None, Some(22))).is_empty(), "SSH is exempt");
    }

    #[test]
    fn they_are_asked_from_an_own_address_of_the_aim_and_not_at_all_if_it_is_of_others() {
        let from = |from: &str| {
            let locals = vec![from.parse().unwrap()];
            let aim = Aim { locals, ..aim(&["10.0.0.2"], None, Some(80)) };
            let own = ["10.0.0.1", "10.0.0.7"].map(|text| text.parse().unwrap());
            peers(&aim, &own, 2).first().and_then(|peer| peer.from).map(|from| from.to_string())
        };
        assert_eq!(from("10.0.0.7").as_deref(), Some("10.0.0.7"));
        assert_eq!(from("192.0.2.0/24"), None);
    }

    #[test]
    fn a_share_is_judged_by_what_was_met_and_what_was_lost() {
        let rule = |packets| Counted { chain: "out_cut".to_owned(), packets, bytes: 0 };
        let seen = Seen { counted: Some(vec![rule(1000), rule(52)]), ..seen(FAST, FAST, 0) };
        assert_eq!(
            judge(String::new(), By::Lose(0.05), std::slice::from_ref(&seen)).status,
            ProofStatus::Confirmed
        );
        assert_eq!(
            judge(String::new(), By::Lose(0.20), std::slice::from_ref(&seen)).status,
            ProofStatus::Mismatch
        );
        // Both ways: what is asked or answered gets lost.
        let own = |answered| Streamed { peer: seen.probes[0].0.peer, passes: 2, sent: 200, answered };
        let quiet = |answered| Seen { counted: Some(Vec::new()), felt: Some(own(answered)), ..seen.clone() };
        assert_eq!(judge(String::new(), By::Lose(0.30), &[quiet(100)]).status, ProofStatus::Confirmed);
        assert_eq!(judge(String::new(), By::Lose(0.30), &[quiet(195)]).status, ProofStatus::Mismatch);
        let gone = Seen { counted: None, ..quiet(100) };
        assert_eq!(judge(String::new(), By::Lose(0.30), &[gone]).status, ProofStatus::Gone);
    }
}
