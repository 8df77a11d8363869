//! The control state of a relay: which faults live on which route, until when. Pure: the clock is given.
//!
//! Invariants: an id lives at most once; a fault lives exactly until it is cleared or its lease has run out;
//! what ended stays observable for a while; every list is bounded.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::target::Protocol;
use crate::units::Bandwidth;

use super::bucket::Bucket;
use super::fault::{Direction, RelayFault};
use super::stats::Stats;

/// The most faults that one route carries at a time.
pub const FAULTS_MAX: usize = 32;
/// How many ended faults stay observable.
pub const ENDED_MAX: usize = 256;
/// The longest lease.
pub const LEASE_MAX: Duration = Duration::from_hours(1);
/// The longest id, in bytes.
const ID_MAX: usize = 256;

/// One fault on one route.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) id: String,
    /// Index of its route.
    pub(crate) route: usize,
    pub(crate) fault: RelayFault,
    pub(crate) seed: u64,
    pub(crate) stats: Stats,
    buckets: Option<[Mutex<Bucket>; 2]>,
    ended: AtomicBool,
}

impl Live {
    pub(crate) fn new(id: String, route: usize, fault: RelayFault, seed: u64) -> Self {
        let buckets = match &fault {
            RelayFault::Bandwidth { rate: Bandwidth(rate), .. } => {
                Some([Mutex::new(Bucket::new(*rate)), Mutex::new(Bucket::new(*rate))])
            }
            _ => None,
        };
        Self { id, route, fault, seed, stats: Stats::default(), buckets, ended: AtomicBool::new(false) }
    }

    /// Whether it was cleared or has expired.
    pub(crate) fn ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// From here on stages let go of what they hold for it.
    pub(crate) fn mark_ended(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }

    /// The bucket of this way, if it is a bandwidth fault.
    pub(crate) fn bucket(&self, way: Direction) -> Option<&Mutex<Bucket>> {
        let [up, down] = self.buckets.as_ref()?;
        Some(if way == Direction::Up { up } else { down })
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Table {
    routes: Vec<(String, Protocol)>,
    live: Vec<(Arc<Live>, Instant)>,
    ended: VecDeque<Arc<Live>>,
    closed: bool,
}

impl Table {
    /// An empty table for these routes.
    pub(crate) fn new(routes: Vec<(String, Protocol)>) -> Self {
        Self { routes, live: Vec::new(), ended: VecDeque::new(), closed: false }
    }

    /// Adds a fault to a route; returns it.
    pub(crate) fn add(
        &mut self,
        now: Instant,
        route: &str,
        id: &str,
        fault: RelayFault,
        lease: Duration,
        seed: u64,
    ) -> Result<Arc<Live>, String> {
        if self.closed {
            return Err("the relay is ending and takes no more faults".to_owned());
        }
        let Some(index) = self.routes.iter().position(|(name, _)| name == route) else {
            return Err(format!("no route `{}`", route.escape_debug()));
        };
        fault.check(self.routes[index].1)?;
        if id.is_empty() || id.len() > ID_MAX {
            return Err(format!("an id has 1 to {ID_MAX} bytes"));
        }
        check_lease(lease)?;
        self.expire(now);
        if self.live.iter().any(|(live, _)| live.id == id) {
            return Err(format!("`{}` is already there", id.escape_debug()));
        }
        if self.on(index).count() >= FAULTS_MAX {
            return Err(format!("`{route}` already carries {FAULTS_MAX} faults"));
        }
        let live = Arc::new(Live::new(id.to_owned(), index, fault, seed));
        self.live.push((Arc::clone(&live), now + lease));
        Ok(live)
    }

    /// Prolongs a lease, counted from now.
    pub(crate) fn renew(&mut self, now: Instant, id: &str, lease: Duration) -> Result<(), String> {
        check_lease(lease)?;
        match self.live.iter_mut().find(|(live, until)| live.id == id && *until > now) {
            Some((_, until)) => {
                *until = now + lease;
                Ok(())
            }
            None => Err(format!("`{}` is not there: it has expired or was never added", id.escape_debug())),
        }
    }

    /// Ends a fault; returns it if it lived.
    pub(crate) fn clear(&mut self, id: &str) -> Option<Arc<Live>> {
        let at = self.live.iter().position(|(live, _)| live.id == id)?;
        let (live, _) = self.live.remove(at);
        self.end(&live);
        Some(live)
    }

    /// Ends all whose lease has run out; returns them.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<Arc<Live>> {
        let (over, live): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.live).into_iter().partition(|(_, until)| *until <= now);
        self.live = live;
        over.into_iter().map(|(live, _)| live).inspect(|live| self.end(live)).collect()
    }

    /// Ends all, and takes no more.
    pub(crate) fn close(&mut self) {
        self.closed = true;
        for (live, _) in std::mem::take(&mut self.live) {
            self.end(&live);
        }
    }

    /// A fault by id, alive or ended, and whether it lives.
    pub(crate) fn find(&self, id: &str) -> Option<(Arc<Live>, bool)> {
        let alive = self.live.iter().map(|(live, _)| (live, true));
        let ended = self.ended.iter().rev().map(|live| (live, false));
        alive.chain(ended).find(|(live, _)| live.id == id).map(|(live, alive)| (Arc::clone(live), alive))
    }

    /// What lives on a route, in order of arrival, with the end of its lease.
    pub(crate) fn on(&self, route: usize) -> impl Iterator<Item = &(Arc<Live>, Instant)> {
        self.live.iter().filter(move |(live, _)| live.route == route)
    }

    fn end(&mut self, live: &Arc<Live>) {
        live.mark_ended();
        self.ended.push_back(Arc::clone(live));
        if self.ended.len() > ENDED_MAX {
            self.ended.pop_front();
        }
    }
}

fn check_lease(lease: Duration) -> Result<(), String> {
    if lease.is_zero() || lease > LEASE_MAX {
        return Err(format!("a lease is longer than zero and at most {LEASE_MAX:?}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(3);

    fn table() -> Table {
        Table::new(vec![("a".to_owned(), Protocol::Tcp), ("b".to_owned(), Protocol::Http)])
    }

    fn ids(table: &Table, route: usize) -> Vec<String> {
        table.on(route).map(|(live, _)| live.id.clone()).collect()
    }

    #[test]
    fn faults_compose_in_order_of_arrival() {
        let (mut table, now) = (table(), Instant::now());
        for id in ["x", "y", "z"] {
            table.add(now, "a", id, RelayFault::Refuse, LEASE, 0).unwrap();
        }
        table.clear("y");
        assert_eq!(ids(&table, 0), ["x", "z"]);
        assert!(ids(&table, 1).is_empty());
    }

    #[test]
    fn a_fault_ends_when_its_lease_runs_out_unless_renewed() {
        let (mut table, now) = (table(), Instant::now());
        table.add(now, "a", "x", RelayFault::Refuse, LEASE, 0).unwrap();
        table.add(now, "a", "y", RelayFault::Refuse, LEASE, 0).unwrap();
        table.renew(now + LEASE / 2, "y", LEASE).unwrap();
        let over = table.expire(now + LEASE);
        assert_eq!(over.iter().map(|l| l.id.as_str()).collect::<Vec<_>>(), ["x"]);
        assert!(over[0].ended());
        assert!(table.renew(now + LEASE, "x", LEASE).unwrap_err().contains("expired"));
        assert_eq!(ids(&table, 0), ["y"]);
    }

    #[test]
    fn a_lease_that_has_run_out_cannot_be_renewed_even_before_it_is_noticed() {
        let (mut table, now) = (table(), Instant::now());
        table.add(now, "a", "x", RelayFault::Refuse, LEASE, 0).unwrap();
        assert!(table.renew(now + LEASE, "x", LEASE).is_err());
    }

    #[test]
    fn clear_is_idempotent_and_what_ended_stays_observable_for_a_while() {
        let (mut table, now) = (table(), Instant::now());
        table.add(now, "a", "first", RelayFault::Refuse, LEASE, 0).unwrap();
        assert!(table.clear("first").is_some());
        assert!(table.clear("first").is_none());
        assert!(!table.find("first").unwrap().1);
        for n in 0..ENDED_MAX {
            let id = n.to_string();
            table.add(now, "a", &id, RelayFault::Refuse, LEASE, 0).unwrap();
            table.clear(&id);
        }
        assert!(table.find("first").is_none());
        assert!(table.find("0").is_some());
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let (mut table, now) = (table(), Instant::now());
        let mut add = |route: &str, id: &str, lease| table.add(now, route, id, RelayFault::Refuse, lease, 0);
        assert!(add("c", "x", LEASE).unwrap_err().contains("no route"));
        assert!(add("a", "", LEASE).is_err());
        assert!(add("a", "x", Duration::ZERO).is_err());
        assert!(add("a", "x", LEASE_MAX * 2).is_err());
        add("a", "x", LEASE).unwrap();
        assert!(add("b", "x", LEASE).unwrap_err().contains("already"));
        for n in 1..FAULTS_MAX {
            add("a", &format!("x{n}"), LEASE).unwrap();
        }
        assert!(add("a", "one-more", LEASE).is_err());
    }

    #[test]
    fn an_ending_relay_takes_no_more_faults() {
        let (mut table, now) = (table(), Instant::now());
        table.add(now, "a", "x", RelayFault::Refuse, LEASE, 0).unwrap();
        table.close();
        assert!(ids(&table, 0).is_empty());
        assert!(table.add(now, "a", "y", RelayFault::Refuse, LEASE, 0).is_err());
    }
}
