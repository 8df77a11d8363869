//! Which faults of a route chose one connection: decided once per connection and fault, and counted there.

use std::sync::Arc;

use tokio::net::TcpStream;

use super::chance;
use super::fault::{Direction, RelayFault};
use super::route::Route;
use super::table::Live;
use crate::sys::socket;

/// The faults of the route, and which of them chose this connection.
#[derive(Debug)]
pub(crate) struct Faults {
    number: u64,
    /// The faults of bytes and connections, and whether they hurt this connection.
    pub(crate) decided: Vec<(Arc<Live>, bool)>,
    /// The faults of messages; they choose requests, not connections.
    pub(crate) http: Vec<Arc<Live>>,
}

impl Faults {
    /// Nothing decided yet.
    pub(crate) fn new(number: u64) -> Self {
        Self { number, decided: Vec::new(), http: Vec::new() }
    }

    /// Takes the route's faults over; true if one of them resets this connection now.
    pub(crate) fn update(&mut self, route: &Route) -> bool {
        self.decided.retain(|(live, _)| !live.ended());
        self.http.retain(|live| !live.ended());
        let mut reset = false;
        for live in route.faults().iter() {
            let known = |old: &Arc<Live>| Arc::ptr_eq(old, live);
            if self.decided.iter().any(|(old, _)| known(old)) || self.http.iter().any(known) {
                continue;
            }
            let mut stats = live.stats.edit();
            stats.seen.connections_seen += 1;
            if live.fault.matching().is_some() {
                self.http.push(Arc::clone(live));
                continue;
            }
            let chosen = !matches!(live.fault, RelayFault::Refuse)
                && chance::chosen(live.seed, self.number, live.fault.share());
            stats.seen.connections_affected += u64::from(chosen);
            if matches!(live.fault, RelayFault::Reset { after: None, .. }) {
                stats.case(chosen);
                reset |= chosen;
            }
            self.decided.push((Arc::clone(live), chosen));
        }
        reset
    }

    fn partitions(&self) -> impl Iterator<Item = &Arc<Live>> {
        self.decided
            .iter()
            .filter(|(live, chosen)| *chosen && is_partition(&live.fault))
            .map(|(live, _)| live)
    }

    /// Whether no handshake with the upstream could succeed.
    pub(crate) fn partitioned(&self) -> bool {
        self.partitions().next().is_some()
    }

    /// Notes that this connection waits behind a partition before it has reached the upstream.
    pub(crate) fn held(&self, client: &TcpStream) {
        for live in self.partitions() {
            let mut stats = live.stats.edit();
            stats.seen.held_connections += 1;
            stats.seen.held_bytes += socket::waiting(client);
        }
    }
}

fn is_partition(fault: &RelayFault) -> bool {
    matches!(fault, RelayFault::Blackhole { direction: Direction::Both, .. })
}
