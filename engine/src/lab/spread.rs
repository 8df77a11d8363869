//! How the load balancer spreads requests over PoPs: weight, health, drains with leases. Pure: time comes in.
//!
//! Invariants: at most one drain per PoP lives, and it ends at its lease, whoever set it; no request goes to a PoP that is down or whose weight is zero;
//! over any run of requests the counts follow the weights, to within [`DEVIATION`] requests (smooth weighted round robin,
//! in an order that chance decides: a strict one would fall into step with evenly spaced arrivals, and give each journey
//! PoPs of its own).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::model::BASE_WEIGHT;
use super::retry::{Choose, Passive};
use crate::random::Random;

/// The most drains at a time.
const DRAINS_MAX: usize = 64;
/// The longest id of a drain, in bytes.
const ID_MAX: usize = 256;
/// The longest lease.
const LEASE_MAX: Duration = Duration::from_hours(1);
/// Checks in a row that change a PoP's state, up or down.
const CHECKS: u32 = 2;

/// How far the requests of a PoP may ever be from its share of them, while weights and health stay as they are.
#[cfg(test)]
const DEVIATION: f64 = 2.0;
/// Of the chance in the order: any will do.
const SEED: u64 = 1;

/// The balancer's state.
#[derive(Debug)]
pub(super) struct Spread {
    pops: Vec<Pop>,
    drains: BTreeMap<String, Drain>,
    random: Random,
}

#[derive(Debug)]
struct Pop {
    name: String,
    up: bool,
    /// Checks in a row that speak against `up`.
    against: u32,
    passive: Passive,
    /// Credit of smooth weighted round robin.
    credit: f64,
    requests: u64,
}

#[derive(Debug)]
struct Drain {
    pop: usize,
    /// What remains of the base weight.
    share: f64,
    until: Instant,
    /// Requests per PoP when the share last changed.
    counted_from: Vec<u64>,
}

impl Spread {
    /// Over these PoPs, all of them up.
    pub(super) fn new(pops: impl IntoIterator<Item = String>) -> Self {
        let pop =
            |name| Pop { name, up: true, against: 0, passive: Passive::default(), credit: 0.0, requests: 0 };
        let pops = pops.into_iter().map(pop).collect();
        Self { pops, drains: BTreeMap::new(), random: Random::new(SEED, 0) }
    }

    /// Hears the outcome of one active health check.
    pub(super) fn check(&mut self, index: usize, healthy: bool) {
        let pop = &mut self.pops[index];
        if healthy == pop.up {
            pop.against = 0;
            return;
        }
        pop.against += 1;
        if pop.against >= CHECKS {
            pop.up = healthy;
            pop.against = 0;
            pop.passive = Passive::default();
        }
    }

    /// Weight, share of the base weight, drain, state and requests of every PoP.
    pub(super) fn weights(&mut self, now: Instant) -> Value {
        self.expire(now);
        let describe = |(index, pop): (usize, &Pop)| {
            let share = self.share(index);
            let about = json!({
                "weight": share * BASE_WEIGHT,
                "share_of_base": share,
                "drained_by": self.drains.iter().find(|(_, drain)| drain.pop == index).map(|(id, _)| id),
                "up": pop.up,
                "requests_total": pop.requests,
            });
            (pop.name.clone(), about)
        };
        let pops: serde_json::Map<String, Value> = self.pops.iter().enumerate().map(describe).collect();
        json!({"pops": pops})
    }

    /// Sets what remains of a PoP's weight. The same share again only prolongs the lease.
    pub(super) fn drain(
        &mut self,
        now: Instant,
        id: &str,
        pop: &str,
        share: f64,
        lease: Duration,
    ) -> Result<Value, String> {
        self.expire(now);
        if id.is_empty() || id.len() > ID_MAX {
            return Err(format!("the id must have from 1 to {ID_MAX} bytes"));
        }
        let index = self.pops.iter().position(|known| known.name == pop).ok_or_else(|| {
            let known: Vec<&str> = self.pops.iter().map(|pop| pop.name.as_str()).collect();
            format!("unknown PoP {pop:?}; there are {}", known.join(", "))
        })?;
        if !(0.0..=1.0).contains(&share) {
            return Err(format!("the share must be from 0 to 1, not {share}"));
        }
        let until = now + leased(lease)?;
        let counted_from = self.pops.iter().map(|pop| pop.requests).collect();
        if self.drains.iter().any(|(other, drain)| drain.pop == index && other != id) {
            return Err(format!("PoP {pop} is drained already by another injection"));
        }
        let full = self.drains.len() >= DRAINS_MAX;
        match self.drains.get_mut(id) {
            Some(drain) if drain.pop != index => {
                return Err(format!("drain {id:?} is about {}", self.pops[drain.pop].name));
            }
            Some(drain) if drain.share == share => drain.until = until,
            Some(drain) => *drain = Drain { pop: index, share, until, counted_from },
            None if full => return Err(format!("more than {DRAINS_MAX} drains")),
            None => {
                self.drains.insert(id.to_owned(), Drain { pop: index, share, until, counted_from });
            }
        }
        Ok(json!({"share": share}))
    }

    /// Prolongs a drain that still lives, and moves it to another share if one is given.
    pub(super) fn renew(
        &mut self,
        now: Instant,
        id: &str,
        share: Option<f64>,
        lease: Duration,
    ) -> Result<Value, String> {
        self.expire(now);
        let drain = self.drains.get(id).ok_or_else(|| unknown(id))?;
        let pop = self.pops[drain.pop].name.clone();
        self.drain(now, id, &pop, share.unwrap_or(drain.share), lease)
    }

    /// Ends a drain; says whether there was one.
    pub(super) fn clear(&mut self, now: Instant, id: &str) -> Value {
        self.expire(now);
        json!({"cleared": self.drains.remove(id).is_some()})
    }

    /// Requests per PoP since the drain's share last changed, with the weights that held meanwhile.
    pub(super) fn observe(&mut self, now: Instant, id: &str) -> Result<Value, String> {
        self.expire(now);
        let drain = self.drains.get(id).ok_or_else(|| unknown(id))?;
        let count = |(index, pop): (usize, &Pop)| {
            let about = json!({
                "requests": pop.requests - drain.counted_from[index],
                "weight": self.share(index) * BASE_WEIGHT,
                "up": pop.up,
            });
            (pop.name.clone(), about)
        };
        let pops: serde_json::Map<String, Value> = self.pops.iter().enumerate().map(count).collect();
        Ok(json!({"pop": self.pops[drain.pop].name, "share": drain.share, "pops": pops}))
    }

    fn expire(&mut self, now: Instant) {
        self.drains.retain(|_, drain| now < drain.until);
    }

    /// What remains of a PoP's base weight.
    fn share(&self, index: usize) -> f64 {
        self.drains.values().find(|drain| drain.pop == index).map_or(1.0, |drain| drain.share)
    }

    /// The PoPs that may be asked, with their weights: fresh ones first, then those tried or avoided.
    fn candidates(&self, now: Instant, tried: &[usize]) -> Vec<(usize, f64)> {
        let open = |index: &usize| self.pops[*index].up && self.share(*index) > 0.0;
        let fresh = |index: &usize| !tried.contains(index);
        let calm = |index: &usize| !self.pops[*index].passive.avoided(now);
        let all: Vec<usize> = (0..self.pops.len()).filter(open).collect();
        let best: Vec<usize> = all.iter().copied().filter(|index| fresh(index) && calm(index)).collect();
        let untried: Vec<usize> = all.iter().copied().filter(fresh).collect();
        let chosen = [best, untried, all].into_iter().find(|list| !list.is_empty()).unwrap_or_default();
        chosen.into_iter().map(|index| (index, self.share(index) * BASE_WEIGHT)).collect()
    }
}

impl Choose for Spread {
    fn choose(&mut self, now: Instant, tried: &[usize]) -> Option<usize> {
        self.expire(now);
        let candidates = self.candidates(now, tried);
        let total: f64 = candidates.iter().map(|(_, weight)| weight).sum();
        for (index, weight) in &candidates {
            self.pops[*index].credit += weight;
        }
        // Chance of less than one round's credit: it changes the order within rounds, and no counts beyond them.
        let random = &mut self.random;
        let drawn =
            candidates.iter().map(|(index, _)| (*index, self.pops[*index].credit + random.unit() * total));
        let (best, _) = drawn.reduce(|a, b| if b.1 > a.1 { b } else { a })?;
        let pop = &mut self.pops[best];
        pop.credit -= total;
        pop.requests += 1;
        pop.passive.chosen(now);
        Some(best)
    }

    fn report(&mut self, now: Instant, index: usize, answered: bool) {
        self.pops[index].passive.report(now, answered);
    }
}

fn unknown(id: &str) -> String {
    format!("no drain {id:?}: it was never set, was cleared, or its lease ended")
}

fn leased(lease: Duration) -> Result<Duration, String> {
    if lease.is_zero() || lease > LEASE_MAX {
        return Err(format!("the lease must be positive and at most {} s", LEASE_MAX.as_secs()));
    }
    Ok(lease)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LEASE: Duration = Duration::from_secs(3);

    fn spread() -> Spread {
        Spread::new(["fra", "iad", "sin"].map(str::to_owned))
    }

    fn counts(spread: &mut Spread, now: Instant, requests: usize) -> [usize; 3] {
        let mut counts = [0; 3];
        for _ in 0..requests {
            counts[spread.choose(now, &[]).unwrap()] += 1;
        }
        counts
    }

    #[test]
    fn requests_follow_the_weights_until_the_lease_ends() {
        let now = Instant::now();
        let mut spread = spread();
        assert_eq!(counts(&mut spread, now, 300), [100, 100, 100]);
        spread.drain(now, "r/1", "fra", 0.5, LEASE).unwrap();
        assert_eq!(counts(&mut spread, now, 500), [100, 200, 200]);
        spread.renew(now + LEASE / 2, "r/1", Some(0.0), LEASE).unwrap();
        assert_eq!(counts(&mut spread, now + LEASE, 100), [0, 50, 50]);
        assert_eq!(counts(&mut spread, now + LEASE * 2, 300), [100, 100, 100]);
        assert!(
            spread.renew(now + LEASE * 2, "r/1", Some(0.0), LEASE).is_err(),
            "an ended drain must not revive"
        );
    }

    #[test]
    fn no_rhythm_of_arrivals_starves_a_pop_of_a_journey() {
        let now = Instant::now();
        for (every, of) in [(3, 0), (3, 2), (2, 1), (6, 4)] {
            let mut spread = spread();
            let mut seen = [0; 3];
            for request in 0..3000 {
                let pop = spread.choose(now, &[]).unwrap();
                if request % every == of {
                    seen[pop] += 1;
                }
            }
            let fair = 1000 / every;
            assert!(seen.iter().all(|n| (fair / 2..fair * 2).contains(n)), "one of {every}: {seen:?}");
        }
    }

    proptest! {
        #[test]
        fn counts_never_stray_from_the_weights(shares in prop::array::uniform3(0.05f64..1.0), before in 0usize..50) {
            let now = Instant::now();
            let mut spread = spread();
            for (pop, share) in ["fra", "iad", "sin"].into_iter().zip(shares) {
                spread.drain(now, pop, pop, share, LEASE).unwrap();
            }
            let total: f64 = shares.iter().sum();
            let mut seen = [0usize; 3];
            for request in 1..=before + 500 {
                seen[spread.choose(now, &[]).unwrap()] += 1;
                for (n, share) in seen.iter().zip(shares) {
                    let wanted = request as f64 * share / total;
                    prop_assert!((*n as f64 - wanted).abs() <= DEVIATION, "{seen:?} of {request} by {shares:?}");
                }
            }
        }
    }

    #[test]
    fn observation_counts_from_the_last_change_of_share() {
        let now = Instant::now();
        let mut spread = spread();
        counts(&mut spread, now, 30);
        spread.drain(now, "r/1", "iad", 0.5, LEASE).unwrap();
        counts(&mut spread, now, 50);
        spread.renew(now, "r/1", Some(0.5), LEASE).unwrap();
        assert_eq!(spread.observe(now, "r/1").unwrap()["pops"]["iad"]["requests"], 10);
        spread.renew(now, "r/1", Some(0.0), LEASE).unwrap();
        let seen = spread.observe(now, "r/1").unwrap();
        assert_eq!((&seen["pops"]["iad"]["requests"], &seen["share"]), (&json!(0), &json!(0.0)));
    }

    #[test]
    fn clearing_twice_is_clearing_once() {
        let now = Instant::now();
        let mut spread = spread();
        let before = spread.weights(now);
        spread.drain(now, "r/1", "sin", 0.0, LEASE).unwrap();
        assert_ne!(spread.weights(now), before);
        assert_eq!(spread.clear(now, "r/1"), json!({"cleared": true}));
        assert_eq!(spread.clear(now, "r/1"), json!({"cleared": false}));
        assert_eq!(spread.weights(now), before);
    }

    #[test]
    fn a_pop_is_drained_by_one_injection_at_a_time() {
        let now = Instant::now();
        let mut spread = spread();
        spread.drain(now, "r/1", "fra", 0.5, LEASE).unwrap();
        assert_eq!(spread.weights(now)["pops"]["fra"]["drained_by"], json!("r/1"));
        let refused = spread.drain(now, "s/1", "fra", 0.0, LEASE).unwrap_err();
        assert_eq!(refused, "PoP fra is drained already by another injection");
        spread.drain(now, "s/1", "iad", 0.0, LEASE).unwrap();
        spread.drain(now + LEASE, "s/2", "fra", 0.0, LEASE).unwrap();
        assert!(spread.renew(now + LEASE, "r/1", None, LEASE).is_err(), "its lease has ended");
    }

    #[test]
    fn two_checks_take_a_pop_out_and_two_bring_it_back() {
        let now = Instant::now();
        let mut spread = spread();
        spread.check(0, false);
        spread.check(0, true);
        spread.check(0, false);
        assert_eq!(counts(&mut spread, now, 30), [10, 10, 10]);
        spread.check(0, false);
        assert_eq!(counts(&mut spread, now, 30)[0], 0);
        spread.check(0, true);
        spread.check(0, true);
        assert!(counts(&mut spread, now, 30)[0] >= 10);
    }

    #[test]
    fn nobody_is_asked_when_all_are_down_or_drained() {
        let now = Instant::now();
        let mut spread = spread();
        for index in [0, 0, 1, 1] {
            spread.check(index, false);
        }
        assert_eq!(spread.choose(now, &[2]), Some(2));
        spread.drain(now, "r/1", "sin", 0.0, LEASE).unwrap();
        assert_eq!(spread.choose(now, &[]), None);
    }

    #[test]
    fn nonsense_is_refused() {
        let now = Instant::now();
        let mut spread = spread();
        for share in [-0.1, 1.1, f64::NAN] {
            assert!(spread.drain(now, "r/1", "fra", share, LEASE).is_err());
        }
        assert!(spread.drain(now, "r/1", "lhr", 0.5, LEASE).unwrap_err().contains("fra, iad, sin"));
        assert!(spread.drain(now, "r/1", "fra", 0.5, Duration::ZERO).is_err());
        assert!(spread.drain(now, "r/1", "fra", 0.5, LEASE_MAX * 2).is_err());
        assert!(spread.drain(now, &"r".repeat(ID_MAX + 1), "fra", 0.5, LEASE).is_err());
        spread.drain(now, "r/1", "fra", 0.5, LEASE).unwrap();
        assert!(spread.drain(now, "r/1", "iad", 0.5, LEASE).is_err());
    }
}
