//! How much longer round trips take: what TCP has measured on the connections whose packets are hit.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::tree::Tree;
use crate::sys::aim::{Aim, Protocol};
use crate::sys::netlink::{Connection, Session};

/// The most connections that are remembered from before, and the most pairs of addresses whose route is asked.
const REMEMBERED_MAX: usize = 256;
const ROUTES_MAX: usize = 64;
/// A connection that has sent fewer segments of data since has not measured enough.
const SENT_MIN: u32 = 4;

/// Round-trip times before, in microseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Usual {
    /// By connection: round-trip time and segments sent.
    known: BTreeMap<u64, (u32, u32)>,
    /// The median of all, for connections that are new.
    median: Option<u32>,
}

/// How much longer round trips take.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Growth {
    /// The median, in seconds, for each time that a round trip meets the fault.
    pub(crate) seconds: f64,
    /// How many connections tell.
    pub(crate) connections: u64,
    /// Whether there were connections before to compare with.
    pub(crate) compared: bool,
}

/// What round trips take now, before anything is changed.
pub(super) async fn usual(session: &dyn Session, aim: &Aim, trees: &[Tree]) -> io::Result<Usual> {
    let hit = hit(session, aim, trees).await?;
    let mut times: Vec<u32> = hit.iter().map(|(one, _)| micros(one.rtt)).collect();
    let known = hit.iter().take(REMEMBERED_MAX).map(|(one, _)| (one.cookie, (micros(one.rtt), one.sent)));
    let known = known.collect();
    times.sort_unstable();
    Ok(Usual { known, median: times.get(times.len() / 2).copied() })
}

/// How much longer they take now.
pub(super) async fn growth(
    session: &dyn Session,
    aim: &Aim,
    trees: &[Tree],
    usual: &Usual,
) -> io::Result<Option<Growth>> {
    let hit = hit(session, aim, trees).await?;
    Ok(grown(&hit, usual))
}

/// The growth over several networks: the median of theirs.
pub(super) fn of_all(all: &[Growth]) -> Option<Growth> {
    let mut sorted = all.to_vec();
    sorted.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
    let median = sorted.get(sorted.len() / 2)?;
    Some(Growth {
        seconds: median.seconds,
        connections: all.iter().map(|one| one.connections).sum(),
        compared: all.iter().all(|one| one.compared),
    })
}

fn grown(hit: &[(Connection, u32)], usual: &Usual) -> Option<Growth> {
    let growth = |(one, times): &(Connection, u32)| {
        let (before, sent) = match usual.known.get(&one.cookie) {
            Some((rtt, sent)) => (*rtt, *sent),
            None => (usual.median.unwrap_or(0), 0),
        };
        // The smoothed time follows a change with an eighth of each measurement; until then, it scatters widely.
        let settled = one.scatter * 4 <= one.rtt && one.sent.saturating_sub(sent) >= SENT_MIN;
        settled.then(|| (one.rtt.as_secs_f64() - f64::from(before) / 1e6) / f64::from(*times))
    };
    let mut all: Vec<f64> = hit.iter().filter_map(growth).collect();
    all.sort_by(f64::total_cmp);
    let median = *all.get(all.len() / 2)?;
    Some(Growth { seconds: median, connections: all.len() as u64, compared: usual.median.is_some() })
}

/// The connections whose packets are hit, and how often a round trip meets the fault.
async fn hit(session: &dyn Session, aim: &Aim, trees: &[Tree]) -> io::Result<Vec<(Connection, u32)>> {
    let Some(tree) = trees.first() else { return Ok(Vec::new()) };
    let loopback = tree.interface == "lo";
    let mut leads: BTreeMap<(IpAddr, IpAddr), bool> = BTreeMap::new();
    let mut found = Vec::new();
    for one in session.connections().await? {
        let times = trees.iter().map(|_| times(aim, loopback, one.peer, one.local)).sum();
        if times == 0 {
            continue;
        }
        let ends = (one.peer.ip(), one.local.ip());
        if !leads.contains_key(&ends) {
            if leads.len() == ROUTES_MAX {
                continue;
            }
            let link = session.route(ends.0, Some(ends.1)).await.unwrap_or_default();
            leads.insert(ends, link == tree.link);
        }
        if leads[&ends] {
            found.push((one, times));
        }
    }
    Ok(found)
}

/// How often a round trip of a connection passes a hook where it is hit. What leaves by the loopback arrives by it.
fn times(aim: &Aim, loopback: bool, peer: SocketAddr, local: SocketAddr) -> u32 {
    u32::from(aim.hits(Protocol::Tcp, peer, local))
        + u32::from(loopback && aim.hits(Protocol::Tcp, local, peer))
}

fn micros(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(cookie: u64, rtt_ms: u64, scatter_ms: u64, sent: u32) -> Connection {
        Connection {
            local: "10.0.0.1:5000".parse().unwrap(),
            peer: "10.0.0.2:80".parse().unwrap(),
            cookie,
            rtt: Duration::from_millis(rtt_ms),
            scatter: Duration::from_millis(scatter_ms),
            sent,
        }
    }

    #[test]
    fn growth_is_against_the_connection_itself_or_the_usual_one_if_it_is_new() {
        let usual = Usual { known: BTreeMap::from([(1, (10_000, 100))]), median: Some(20_000) };
        let of = |one, times| grown(&[(one, times)], &usual).map(|growth| (growth.seconds * 1e3).round());
        assert_eq!(of(connection(1, 60, 5, 110), 1), Some(50.0));
        assert_eq!(of(connection(1, 110, 5, 110), 2), Some(50.0));
        assert_eq!(of(connection(2, 70, 5, 10), 1), Some(50.0));
        assert_eq!(of(connection(1, 60, 5, 102), 1), None, "it has not sent since");
        assert_eq!(of(connection(2, 70, 30, 10), 1), None, "it has not settled");
        let alone = grown(&[(connection(2, 70, 5, 10), 1)], &Usual::default()).unwrap();
        assert!(!alone.compared);
    }

    #[test]
    fn a_round_trip_over_the_loopback_meets_the_fault_twice_if_the_answers_are_hit_too() {
        let (a, b) = ("127.0.0.1:80".parse().unwrap(), "127.0.0.2:5000".parse().unwrap());
        let all = Aim::default();
        let one = Aim { peers: vec!["127.0.0.1".parse().unwrap()], ..Aim::default() };
        assert_eq!(times(&all, true, a, b), 2);
        assert_eq!(times(&one, true, a, b), 1);
        assert_eq!(times(&one, true, b, a), 1);
        assert_eq!(times(&all, false, a, b), 1);
    }
}
