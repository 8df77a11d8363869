//! The options of the kernel's netem qdisc, as bytes and back. Pure.
//!
//! The format is that of `TCA_OPTIONS` in `linux/pkt_sched.h`: a `tc_netem_qopt`, then attributes. Times are in scheduler
//! ticks of 64 ns (`/proc/net/psched` of every kernel since 2.6.31), shares are 32-bit fractions of one.
//!
//! Invariant: whatever [`Netem::encode`] writes, [`Netem::decode`] reads back as the same options, but for the
//! distribution's table and the seed, which the kernel keeps to itself.

pub mod correlated;
mod tables;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use tables::Shape;

/// Length of one scheduler tick.
const TICK_NS: u128 = 64;
/// Packets that may wait in the qdisc when nothing else is said, as `tc` has it.
pub const LIMIT: u32 = 1000;
/// The kernel's flag for an attribute that holds attributes.
const NESTED: u16 = 0x8000;

/// `TCA_NETEM_*`.
mod attribute {
    pub(super) const CORRELATION: u16 = 1;
    pub(super) const TABLE: u16 = 2;
    pub(super) const REORDER: u16 = 3;
    pub(super) const CORRUPT: u16 = 4;
    pub(super) const LOSS: u16 = 5;
    pub(super) const RATE: u16 = 6;
    pub(super) const RATE64: u16 = 8;
    pub(super) const LATENCY64: u16 = 10;
    pub(super) const JITTER64: u16 = 11;
    pub(super) const SEED: u16 = 14;
}

/// `NETEM_LOSS_*`.
mod loss_model {
    pub(super) const FOUR_STATE: u16 = 1;
    pub(super) const GILBERT_ELLIOTT: u16 = 2;
}

/// A share of packets, and how much each draw depends on the one before; both from 0 to 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Chance {
    /// The share.
    pub share: f64,
    /// The correlation.
    pub correlation: f64,
}

/// How long packets are held.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Delay {
    /// The mean.
    pub delay: Duration,
    /// The deviation.
    pub jitter: Duration,
    /// How much each delay depends on the one before, from 0 to 1.
    pub correlation: f64,
    /// How delays scatter; without one, evenly within the jitter.
    pub shape: Option<Shape>,
}

/// How packets are lost. Probabilities are per packet, from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Loss {
    /// Each by itself, or nearly so.
    Random(Chance),
    /// Gilbert-Elliott: a good and a bad state.
    GilbertElliott {
        /// From good to bad.
        to_bad: f64,
        /// From bad to good.
        to_good: f64,
        /// Loss in the bad state.
        in_bad: f64,
        /// Loss in the good state.
        in_good: f64,
    },
    /// Salsano's four states: 1 received in a gap, 3 lost in a burst, 2 received in a burst, 4 lost alone.
    FourState {
        /// From 1 to 3: a burst begins.
        p13: f64,
        /// From 3 to 1: it ends.
        p31: f64,
        /// From 3 to 2.
        p32: f64,
        /// From 2 to 3.
        p23: f64,
        /// From 1 to 4: one packet alone is lost.
        p14: f64,
    },
}

/// Which packets overtake the others, while those are held back.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Reorder {
    /// How many of those that may.
    pub chance: Chance,
    /// Every so-many-th packet may.
    pub gap: u32,
}

/// How fast packets leave.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    /// Bytes per second.
    pub bytes: u64,
    /// Bytes that each packet counts more than its length; less if negative.
    pub overhead: i32,
}

/// Everything that one netem does. What is absent is not done.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Netem {
    /// Packets that may wait.
    pub limit: u32,
    /// Delay.
    pub delay: Option<Delay>,
    /// Loss.
    pub loss: Option<Loss>,
    /// Packets sent twice.
    pub duplicate: Option<Chance>,
    /// Packets with one bit turned.
    pub corrupt: Option<Chance>,
    /// Packets out of order; needs a delay.
    pub reorder: Option<Reorder>,
    /// Rate.
    pub rate: Option<Rate>,
    /// Decides every random choice; kernels before 6.6 do not look at it.
    pub seed: Option<u64>,
}

impl Default for Netem {
    fn default() -> Self {
        Self {
            limit: LIMIT,
            delay: None,
            loss: None,
            duplicate: None,
            corrupt: None,
            reorder: None,
            rate: None,
            seed: None,
        }
    }
}

/// The bytes are no netem options.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unreadable netem options")]
pub struct Unreadable;

impl Netem {
    /// The payload of `TCA_OPTIONS` for a new netem.
    pub fn encode(&self) -> Vec<u8> {
        self.write(false)
    }

    /// The payload of `TCA_OPTIONS` for one that is there: the kernel keeps what is not mentioned, so that what is not
    /// done is mentioned as well. The table of a distribution stays unless this has another.
    pub fn encode_over(&self) -> Vec<u8> {
        self.write(true)
    }

    fn write(&self, over: bool) -> Vec<u8> {
        let delay = self.delay.unwrap_or_default();
        let random = match self.loss {
            Some(Loss::Random(chance)) => chance,
            _ => Chance::default(),
        };
        let duplicate = self.duplicate.unwrap_or_default();
        let mut out = Vec::new();
        let head = [
            ticks(delay.delay),
            self.limit,
            fraction(random.share),
            self.reorder.map_or(0, |reorder| reorder.gap),
            fraction(duplicate.share),
            ticks(delay.jitter),
        ];
        out.extend(words(&head));
        let correlations = [delay.correlation, random.correlation, duplicate.correlation];
        if over || correlations.iter().any(|correlation| *correlation > 0.0) {
            attribute(&mut out, attribute::CORRELATION, &words(&correlations.map(fraction)));
        }
        let none = over.then(Chance::default);
        if let Some(chance) = self.reorder.map(|reorder| reorder.chance).or(none) {
            attribute(&mut out, attribute::REORDER, &chance.encode());
        }
        if let Some(chance) = self.corrupt.or(none) {
            attribute(&mut out, attribute::CORRUPT, &chance.encode());
        }
        if let Some(model) = self.loss.and_then(Loss::encode_model) {
            attribute(&mut out, attribute::LOSS | NESTED, &model);
        }
        if let Some(rate) = self.rate.or(over.then_some(Rate { bytes: 0, overhead: 0 })) {
            rate.encode(&mut out);
        }
        self.encode_rest(&delay, &mut out);
        out
    }

    fn encode_rest(&self, delay: &Delay, out: &mut Vec<u8>) {
        if let Some(shape) = delay.shape {
            let table: Vec<u8> = shape.table().iter().flat_map(|value| value.to_ne_bytes()).collect();
            attribute(out, attribute::TABLE, &table);
        }
        for (kind, time) in [(attribute::LATENCY64, delay.delay), (attribute::JITTER64, delay.jitter)] {
            // What does not fit into ticks.
            if time.as_nanos() / TICK_NS > u128::from(u32::MAX) {
                let nanos = i64::try_from(time.as_nanos()).unwrap_or(i64::MAX);
                attribute(out, kind, &nanos.to_ne_bytes());
            }
        }
        if let Some(seed) = self.seed {
            attribute(out, attribute::SEED, &seed.to_ne_bytes());
        }
    }

    /// Reads what the kernel tells of a netem. It does not tell the distribution's table.
    ///
    /// # Errors
    /// They are too short, or an attribute is.
    pub fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        let (head, rest) = bytes.split_at_checked(24).ok_or(Unreadable)?;
        let mut netem = Self { limit: word(head, 1)?, ..Self::default() };
        let mut delay =
            Delay { delay: time(word(head, 0)?), jitter: time(word(head, 5)?), ..Delay::default() };
        let mut random = Chance { share: share(word(head, 2)?), correlation: 0.0 };
        let mut duplicate = Chance { share: share(word(head, 4)?), correlation: 0.0 };
        let mut reorder = Chance::default();
        let (mut rate64, mut rate32) = (None, None);
        for found in attributes(rest) {
            let (kind, value) = found?;
            match kind & !NESTED {
                attribute::CORRELATION => {
                    delay.correlation = share(word(value, 0)?);
                    random.correlation = share(word(value, 1)?);
                    duplicate.correlation = share(word(value, 2)?);
                }
                attribute::REORDER => reorder = Chance::decode(value)?,
                attribute::CORRUPT => netem.corrupt = Some(Chance::decode(value)?).filter(Chance::is_some),
                attribute::LOSS => netem.loss = Loss::decode_model(value)?,
                attribute::RATE => {
                    rate32 = Some(Rate {
                        bytes: u64::from(word(value, 0)?),
                        overhead: word(value, 1)?.cast_signed(),
                    });
                }
                attribute::RATE64 => rate64 = Some(u64::from_ne_bytes(array(value)?)),
                attribute::LATENCY64 => delay.delay = nanos(i64::from_ne_bytes(array(value)?)),
                attribute::JITTER64 => delay.jitter = nanos(i64::from_ne_bytes(array(value)?)),
                _ => {}
            }
        }
        let gap = word(head, 3)?;
        netem.rate = rate32.map(|rate| Rate { bytes: rate64.unwrap_or(rate.bytes), ..rate });
        netem.rate = netem.rate.filter(|rate| rate.bytes > 0);
        netem.delay = Some(delay).filter(|delay| !delay.delay.is_zero() || !delay.jitter.is_zero());
        netem.loss = netem.loss.or_else(|| Some(Loss::Random(random)).filter(|_| random.is_some()));
        netem.duplicate = Some(duplicate).filter(Chance::is_some);
        netem.reorder = (gap > 0).then_some(Reorder { chance: reorder, gap });
        Ok(netem)
    }
}

impl Chance {
    /// The chance by which netem hits this share in the long run, each draw so much like the one before.
    pub fn of(share: f64, correlation: f64) -> Self {
        Self { share: correlated::threshold(share, correlation), correlation }
    }

    /// The share that is hit in the long run.
    pub fn long_run(&self) -> f64 {
        correlated::long_run(self.share, self.correlation)
    }

    /// How many packets one independent draw decides, at most.
    pub fn run(&self) -> f64 {
        (1.0 + self.correlation) / (1.0 - self.correlation.min(correlated::CORRELATION_MAX))
    }

    fn encode(self) -> Vec<u8> {
        words(&[fraction(self.share), fraction(self.correlation)])
    }

    fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        Ok(Self { share: share(word(bytes, 0)?), correlation: share(word(bytes, 1)?) })
    }

    fn is_some(&self) -> bool {
        self.share > 0.0
    }
}

impl Loss {
    /// A loss by states; none for a random one, which the head holds.
    fn encode_model(self) -> Option<Vec<u8>> {
        let (kind, chances) = match self {
            Self::Random(_) => return None,
            // The kernel's third number is the share that survives the bad state.
            Self::GilbertElliott { to_bad, to_good, in_bad, in_good } => {
                (loss_model::GILBERT_ELLIOTT, vec![to_bad, to_good, 1.0 - in_bad, in_good])
            }
            Self::FourState { p13, p31, p32, p23, p14 } => {
                (loss_model::FOUR_STATE, vec![p13, p31, p32, p14, p23])
            }
        };
        let mut out = Vec::new();
        let chances: Vec<u32> = chances.into_iter().map(fraction).collect();
        attribute(&mut out, kind, &words(&chances));
        Some(out)
    }

    fn decode_model(bytes: &[u8]) -> Result<Option<Self>, Unreadable> {
        let Some(found) = attributes(bytes).next() else { return Ok(None) };
        let (kind, value) = found?;
        let at = |index| word(value, index).map(share);
        Ok(match kind & !NESTED {
            loss_model::GILBERT_ELLIOTT => Some(Self::GilbertElliott {
                to_bad: at(0)?,
                to_good: at(1)?,
                in_bad: 1.0 - at(2)?,
                in_good: at(3)?,
            }),
            loss_model::FOUR_STATE => {
                Some(Self::FourState { p13: at(0)?, p31: at(1)?, p32: at(2)?, p23: at(4)?, p14: at(3)? })
            }
            _ => None,
        })
    }
}

impl Rate {
    fn encode(self, out: &mut Vec<u8>) {
        let low = u32::try_from(self.bytes).unwrap_or(u32::MAX);
        if u64::from(low) != self.bytes {
            attribute(out, attribute::RATE64, &self.bytes.to_ne_bytes());
        }
        attribute(out, attribute::RATE, &words(&[low, self.overhead.cast_unsigned(), 0, 0]));
    }
}

/// Appends one netlink attribute.
pub(crate) fn attribute(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(value.len() + 4).expect("no attribute of netem is longer than its table");
    out.extend(length.to_ne_bytes());
    out.extend(kind.to_ne_bytes());
    out.extend(value);
    out.resize(out.len().next_multiple_of(4), 0);
}

/// Kind and value of each attribute; an error ends them.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = Result<(u16, &[u8]), Unreadable>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let parsed = || {
            let head: [u8; 4] = bytes.get(..4)?.try_into().ok()?;
            let length = usize::from(u16::from_ne_bytes([head[0], head[1]]));
            let value = bytes.get(4..length)?;
            Some((u16::from_ne_bytes([head[2], head[3]]), value, length))
        };
        let Some((kind, value, length)) = parsed() else {
            bytes = &[];
            return Some(Err(Unreadable));
        };
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Ok((kind, value)))
    })
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn word(bytes: &[u8], index: usize) -> Result<u32, Unreadable> {
    let bytes = bytes.get(index * 4..index * 4 + 4).ok_or(Unreadable)?;
    Ok(u32::from_ne_bytes(array(bytes)?))
}

fn array<const N: usize>(bytes: &[u8]) -> Result<[u8; N], Unreadable> {
    bytes.try_into().map_err(|_| Unreadable)
}

fn ticks(time: Duration) -> u32 {
    u32::try_from(time.as_nanos() / TICK_NS).unwrap_or(u32::MAX)
}

fn time(ticks: u32) -> Duration {
    Duration::from_nanos(u64::from(ticks) * TICK_NS as u64)
}

fn nanos(nanos: i64) -> Duration {
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
}

fn fraction(share: f64) -> u32 {
    (share.clamp(0.0, 1.0) * f64::from(u32::MAX)).round_ties_even() as u32
}

fn share(fraction: u32) -> f64 {
    f64::from(fraction) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests;
