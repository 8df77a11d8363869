//! How many of several alike things are hit: one, all, a number or a share; which ones, the seed decides.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::relay::chance;
use crate::units::Share;

/// A millionth of all.
const WHOLE: u64 = 1_000_000;

/// How many are hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pick {
    /// A number of them.
    Count(u32),
    /// A share of them in millionths, rounded up.
    Millionths(u32),
    /// All of them.
    All,
}

impl Pick {
    /// How many of so many; it may be more than there are.
    pub fn of(self, all: usize) -> usize {
        match self {
            Self::All => all,
            Self::Count(count) => count as usize,
            Self::Millionths(share) => (u64::from(share) * all as u64).div_ceil(WHOLE) as usize,
        }
    }
}

/// So many of these, decided by the seed, in the order in which they came; all of them if there are not more.
pub(crate) fn chosen<T>(seed: u64, all: Vec<T>, count: usize) -> Vec<T> {
    let mut dice = chance::Dice::new(seed, 0);
    let mut order: Vec<usize> = (0..all.len()).collect();
    // Fisher–Yates, as far as needed.
    for i in 0..count.min(all.len()) {
        let j = dice.between(i as u64, all.len() as u64 - 1) as usize;
        order.swap(i, j);
    }
    order.truncate(count);
    let among = |at: &usize| order.contains(at);
    all.into_iter().enumerate().filter(|(at, _)| among(at)).map(|(_, one)| one).collect()
}

impl FromStr for Pick {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "one" => Ok(Self::Count(1)),
            "all" => Ok(Self::All),
            _ if text.ends_with('%') => {
                let share = text.parse::<Share>().map_err(|error| error.to_string())?.0;
                let millionths = (share * WHOLE as f64).round() as u32;
                if millionths == 0 {
                    Err(format!("{text} picks nothing"))
                } else {
                    Ok(Self::Millionths(millionths))
                }
            }
            _ => match text.parse() {
                Ok(count) if count > 0 => Ok(Self::Count(count)),
                _ => Err("write one, all, a number or a percentage".to_owned()),
            },
        }
    }
}

impl fmt::Display for Pick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(1) => f.write_str("one"),
            Self::Count(count) => write!(f, "{count}"),
            Self::Millionths(share) => write!(f, "{}", Share(f64::from(*share) / WHOLE as f64)),
            Self::All => f.write_str("all"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pick_reads_as_it_is_shown_and_shares_are_rounded_up() {
        for text in ["one", "all", "3", "50%", "0.1%"] {
            assert_eq!(text.parse::<Pick>().unwrap().to_string(), text);
        }
        let of = |text: &str, all| text.parse::<Pick>().unwrap().of(all);
        assert_eq!((of("one", 5), of("all", 5), of("3", 5), of("50%", 5), of("1%", 5)), (1, 5, 3, 3, 1));
        for wrong in ["0", "0%", "none", "-1", "120%", ""] {
            assert!(wrong.parse::<Pick>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_seed_decides_who_is_chosen_and_each_is_chosen_at_some_time() {
        let all = || vec!["a", "b", "c", "d"];
        assert_eq!(chosen(7, all(), 2), chosen(7, all(), 2));
        for count in 0..=5 {
            assert_eq!(chosen(1, all(), count).len(), count.min(4));
        }
        for one in all() {
            assert!((0..64).any(|seed| chosen(seed, all(), 1) == [one]), "{one} is never chosen");
        }
    }
}
