//! What one network fault adds to the qdisc of its packets, and how it is taken out again. Pure.

use serde::{Deserialize, Serialize};

use crate::sys::netem::{Chance, Delay, Loss, Netem, Rate, Reorder, Shape};
use crate::sys::netlink::{Qdisc, wire::Bucket};

/// One fault's part of a qdisc that several may share.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Part {
    /// Packets are held.
    Delay {
        /// How long.
        delay: Delay,
        /// Which overtake the others.
        reorder: Option<Reorder>,
    },
    /// Packets are lost.
    Loss(Loss),
    /// Packets arrive twice.
    Duplicate(Chance),
    /// Packets arrive with one bit turned.
    Corrupt(Chance),
    /// Packets leave no faster than this, by netem.
    Rate(Rate),
    /// The same, by a token bucket: for kernels without netem. It shares its qdisc with nothing.
    Bucket {
        /// Bytes per second.
        bytes: u64,
        /// Bytes that may pass at once.
        burst: u32,
        /// How long packets wait at most, in seconds.
        wait_s: f64,
    },
}

/// Why parts do not go together.
pub(crate) type Clash = String;

impl Part {
    /// The word under which a device's label says whose it is. A device has one of each.
    pub(crate) fn family(&self) -> &'static str {
        match self {
            Self::Delay { .. } => "delay",
            Self::Loss(_) => "loss",
            Self::Duplicate(_) => "duplicate",
            Self::Corrupt(_) => "corrupt",
            Self::Rate(_) | Self::Bucket { .. } => "rate",
        }
    }

    /// Bytes per second, if it limits them.
    pub(crate) fn rate(&self) -> Option<u64> {
        match self {
            Self::Rate(Rate { bytes, .. }) | Self::Bucket { bytes, .. } => Some(*bytes),
            _ => None,
        }
    }

    /// The kind of the qdisc that it lives in.
    pub(crate) fn kind(&self) -> &'static str {
        if matches!(self, Self::Bucket { .. }) { "tbf" } else { "netem" }
    }

    /// The options of the qdisc with this part besides those that it has.
    pub(crate) fn join(&self, root: Option<&Qdisc>, seed: u64) -> Result<Vec<u8>, Clash> {
        if let Self::Bucket { bytes, burst, wait_s } = *self {
            if let Some(other) = root {
                return Err(format!(
                    "its packets pass a {} already, and a tbf shares with nothing",
                    other.kind
                ));
            }
            let wait = std::time::Duration::from_secs_f64(wait_s);
            return Ok(Bucket { bytes, burst, wait }.encode());
        }
        let Some(root) = root else {
            let mut netem = Netem { seed: Some(seed), ..Netem::default() };
            self.put(&mut netem);
            return Ok(netem.encode());
        };
        let mut netem = read(root)?;
        self.put(&mut netem);
        if let (Self::Delay { .. }, Some(delay)) = (self, netem.delay.as_mut()) {
            // The kernel may still have the table of a delay that is over.
            delay.shape = delay.shape.or(Some(Shape::Uniform));
        }
        Ok(netem.encode_over())
    }

    fn put(&self, netem: &mut Netem) {
        match *self {
            Self::Delay { delay, reorder } => {
                netem.delay = Some(delay);
                netem.reorder = reorder;
            }
            Self::Loss(loss) => netem.loss = Some(loss),
            Self::Duplicate(chance) => netem.duplicate = Some(chance),
            Self::Corrupt(chance) => netem.corrupt = Some(chance),
            Self::Rate(rate) => netem.rate = Some(rate),
            Self::Bucket { .. } => {}
        }
        netem.limit = netem.limit.max(LIMIT);
    }
}

/// Packets that may wait: enough for 100 ms of ten gigabit, so that a delay does not become a loss.
const LIMIT: u32 = 100_000;

/// The options of a qdisc without the parts of a family.
pub(crate) fn without(family: &str, root: &Qdisc) -> Result<Vec<u8>, Clash> {
    let mut netem = read(root)?;
    match family {
        "delay" => (netem.delay, netem.reorder) = (None, None),
        "loss" => netem.loss = None,
        "duplicate" => netem.duplicate = None,
        "corrupt" => netem.corrupt = None,
        _ => netem.rate = None,
    }
    Ok(netem.encode_over())
}

/// What the netem of a device does now.
pub(crate) fn read(root: &Qdisc) -> Result<Netem, Clash> {
    if root.kind != "netem" {
        return Err(format!("its packets pass a {} already, with which netem cannot share", root.kind));
    }
    Netem::decode(&root.options).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const HALF: Chance = Chance { share: 0.5, correlation: 0.25 };

    fn qdisc(options: Vec<u8>) -> Qdisc {
        Qdisc { kind: "netem".to_owned(), options, ..Qdisc::default() }
    }

    fn parts() -> Vec<Part> {
        let jitter = Duration::from_millis(5);
        let delay =
            Delay { delay: Duration::from_millis(20), jitter, correlation: 0.5, shape: Some(Shape::Normal) };
        vec![
            Part::Delay { delay, reorder: Some(Reorder { chance: HALF, gap: 3 }) },
            Part::Loss(Loss::Random(HALF)),
            Part::Duplicate(HALF),
            Part::Corrupt(HALF),
            Part::Rate(Rate { bytes: 125_000, overhead: 14 }),
        ]
    }

    #[test]
    fn parts_that_join_and_leave_in_any_order_leave_the_others_as_they_were() {
        for (index, one) in parts().into_iter().enumerate() {
            let mut others = parts();
            others.remove(index);
            let mut root = qdisc(others[0].join(None, 1).unwrap());
            for part in &others[1..] {
                root = qdisc(part.join(Some(&root), 1).unwrap());
            }
            let before = Netem::decode(&root.options).unwrap();
            let joined = qdisc(one.join(Some(&root), 2).unwrap());
            assert_ne!(Netem::decode(&joined.options).unwrap(), before, "{one:?} does nothing");
            let left = without(one.family(), &joined).unwrap();
            assert_eq!(Netem::decode(&left).unwrap(), before, "{one:?} left something");
        }
    }

    #[test]
    fn a_delay_without_a_shape_that_joins_brings_a_table_in_place_of_an_old_one() {
        let loss = qdisc(Part::Loss(Loss::Random(HALF)).join(None, 1).unwrap());
        let Part::Delay { delay, .. } = parts()[0] else { panic!("the first is a delay") };
        let plain = Part::Delay { delay: Delay { shape: None, ..delay }, reorder: None };
        assert!(plain.join(Some(&loss), 1).unwrap().len() > 8192);
        assert!(plain.join(None, 1).unwrap().len() < 8192);
    }

    #[test]
    fn a_bucket_shares_with_nothing() {
        let bucket = Part::Bucket { bytes: 1000, burst: 2000, wait_s: 0.1 };
        let netem = qdisc(parts()[1].join(None, 1).unwrap());
        assert!(bucket.join(Some(&netem), 1).is_err());
        let tbf = Qdisc { kind: "tbf".to_owned(), ..Qdisc::default() };
        assert!(parts()[1].join(Some(&tbf), 1).is_err());
    }
}
