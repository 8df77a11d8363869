//! Who is cut off from whom among several. Pure and seeded.

use crate::about::Args;
use crate::relay::chance::Dice;

/// The most namespaces of one partition.
pub(super) const MEMBERS_MAX: usize = 32;

/// Members, and for each those that it cannot reach. Always mutual.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sides {
    /// Names, in the order in which they were written.
    pub(super) members: Vec<String>,
    /// By position.
    pub(super) severed: Vec<Vec<usize>>,
}

/// Reads `among` with `split`, or `groups`; none if neither is written.
///
/// # Errors
/// What is wrong with them.
pub(crate) fn read(args: &Args, seed: u64) -> Result<Option<Sides>, String> {
    match (args.text("among"), args.text("split"), args.text("groups")) {
        (None, None, None) => Ok(None),
        (Some(among), Some(split), None) => {
            let members = names(among)?;
            split_among(members, split, seed).map(Some)
        }
        (None, None, Some(groups)) => grouped(groups).map(Some),
        (Some(_), None, None) => {
            Err("`among` needs `split`: halves, majority-ring, isolate or bridge".to_owned())
        }
        (None, Some(_), None) => Err("`split` needs `among`: the namespaces that are parted".to_owned()),
        _ => Err("write either `groups`, or `among` with `split`".to_owned()),
    }
}

fn names(text: &str) -> Result<Vec<String>, String> {
    let names: Vec<String> = text.split(',').map(|name| name.trim().to_owned()).collect();
    if names.iter().any(|name| !crate::traffic::is_name(name)) {
        return Err(format!("`{text}` is no list of namespaces such as a, b, c"));
    }
    if let Some(twice) = names.iter().enumerate().find(|(at, name)| names[..*at].contains(name)) {
        return Err(format!("{} is named twice", twice.1));
    }
    bounded(names.len())?;
    Ok(names)
}

fn bounded(count: usize) -> Result<(), String> {
    if count > MEMBERS_MAX {
        return Err(format!("{count} namespaces are more than the {MEMBERS_MAX} of one partition"));
    }
    Ok(())
}

/// Groups that do not reach each other; who is in two of them reaches both.
fn grouped(text: &str) -> Result<Sides, String> {
    let groups: Vec<Vec<String>> = text.split('|').map(names).collect::<Result<_, _>>()?;
    let mut members: Vec<String> = Vec::new();
    for name in groups.iter().flatten() {
        if !members.contains(name) {
            members.push(name.clone());
        }
    }
    bounded(members.len())?;
    let together = |a: usize, b: usize| {
        groups.iter().any(|group| group.contains(&members[a]) && group.contains(&members[b]))
    };
    let severed = sever(members.len(), |a, b| !together(a, b));
    if severed.iter().all(Vec::is_empty) {
        return Err("nobody is cut off: write at least two groups, parted by |".to_owned());
    }
    Ok(Sides { members, severed })
}

fn split_among(members: Vec<String>, split: &str, seed: u64) -> Result<Sides, String> {
    let count = members.len();
    let least = match split {
        "majority-ring" => 4,
        "bridge" => 3,
        _ => 2,
    };
    if count < least {
        return Err(format!("{split} needs at least {least} namespaces"));
    }
    let place = shuffled(count, seed);
    let half = count / 2;
    let severed = match split {
        "isolate" => sever(count, |a, b| (place[a] == 0) != (place[b] == 0)),
        "bridge" => sever(count, |a, b| {
            // The first of the larger half reaches both.
            place[a] != half && place[b] != half && (place[a] < half) != (place[b] < half)
        }),
        "majority-ring" => {
            // Each sees as many neighbours on either side as make a majority with itself; no two see the same.
            let reach = half.div_ceil(2);
            sever(count, |a, b| {
                let apart = place[a].abs_diff(place[b]);
                apart.min(count - apart) > reach
            })
        }
        _ => sever(count, |a, b| (place[a] < half) != (place[b] < half)),
    };
    Ok(Sides { members, severed })
}

fn sever(count: usize, apart: impl Fn(usize, usize) -> bool) -> Vec<Vec<usize>> {
    (0..count).map(|a| (0..count).filter(|b| *b != a && apart(a, *b)).collect()).collect()
}

/// For each member, its place in a random order (Fisher–Yates).
fn shuffled(count: usize, seed: u64) -> Vec<usize> {
    let mut dice = Dice::new(seed, 0);
    let mut place: Vec<usize> = (0..count).collect();
    for at in (1..count).rev() {
        let other = ((dice.unit() * (at + 1) as f64) as usize).min(at);
        place.swap(at, other);
    }
    place
}

impl Sides {
    /// In words: `a, c | b, d` where there are sides, `a reaches b, d; …` where there are none.
    pub(super) fn words(&self) -> String {
        let name = |at: &usize| self.members[*at].as_str();
        let everyone = 0..self.members.len();
        let reached = |at: usize| -> Vec<usize> {
            everyone.clone().filter(|other| !self.severed[at].contains(other)).collect()
        };
        let mut sides: Vec<Vec<usize>> = everyone.clone().map(reached).collect();
        let whole = everyone.clone().all(|at| sides[at].iter().all(|other| sides[*other] == sides[at]));
        let list = |of: &[usize]| of.iter().map(name).collect::<Vec<_>>().join(", ");
        if whole {
            sides.sort();
            sides.dedup();
            return sides.iter().map(|side| list(side)).collect::<Vec<_>>().join(" | ");
        }
        let each = everyone.map(|at| {
            let others: Vec<usize> = sides[at].iter().copied().filter(|other| *other != at).collect();
            format!("{} reaches {}", name(&at), list(&others))
        });
        each.collect::<Vec<_>>().join("; ")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::about::Value;

    fn sides(given: &[(&str, &str)], seed: u64) -> Result<Option<Sides>, String> {
        let given = given.iter().map(|(name, text)| ((*name).to_owned(), Value::Text((*text).to_owned())));
        read(&Args(given.collect()), seed)
    }

    fn among(split: &str, count: usize, seed: u64) -> Sides {
        let names: Vec<String> = (0..count).map(|n| format!("n{n}")).collect();
        sides(&[("among", &names.join(",")), ("split", split)], seed).unwrap().unwrap()
    }

    /// For each member, how many it sees, itself included.
    fn seen(sides: &Sides) -> Vec<usize> {
        sides.severed.iter().map(|severed| sides.members.len() - severed.len()).collect()
    }

    proptest! {
        #[test]
        fn being_cut_off_is_mutual_and_nobody_is_cut_off_from_himself(
            count in 4_usize..20, seed: u64, which in 0_usize..4
        ) {
            let split = ["halves", "majority-ring", "isolate", "bridge"][which];
            let sides = among(split, count, seed);
            prop_assert!(sides.severed.iter().any(|severed| !severed.is_empty()));
            for (at, severed) in sides.severed.iter().enumerate() {
                prop_assert!(severed.iter().all(|other| *other != at && sides.severed[*other].contains(&at)));
            }
        }

        #[test]
        fn halves_isolate_and_bridge_part_as_they_say(count in 3_usize..20, seed: u64) {
            let half = count / 2;
            let halves = seen(&among("halves", count, seed));
            prop_assert_eq!(halves.iter().filter(|seen| **seen == half).count() % half, 0);
            prop_assert!(halves.iter().all(|seen| *seen == half || *seen == count - half));
            let isolated = seen(&among("isolate", count, seed));
            prop_assert_eq!(isolated.iter().filter(|seen| **seen == 1).count(), if count == 2 { 2 } else { 1 });
            let bridge = seen(&among("bridge", count, seed));
            prop_assert_eq!(bridge.iter().filter(|seen| **seen == count).count(), 1);
        }

        #[test]
        fn in_a_majority_ring_each_sees_a_majority_and_no_two_the_same(count in 4_usize..20, seed: u64) {
            let sides = among("majority-ring", count, seed);
            prop_assert!(seen(&sides).iter().all(|seen| *seen > count / 2 && *seen < count));
            let mut severed = sides.severed.clone();
            severed.sort();
            severed.dedup();
            prop_assert_eq!(severed.len(), count);
        }
    }

    #[test]
    fn the_same_seed_parts_the_same_and_another_may_not() {
        assert_eq!(among("halves", 8, 7), among("halves", 8, 7));
        assert!((0..20).any(|seed| among("halves", 8, seed) != among("halves", 8, 7)));
    }

    #[test]
    fn groups_are_parted_and_who_is_in_two_reaches_both() {
        let two = sides(&[("groups", "a, b | c, d")], 0).unwrap().unwrap();
        assert_eq!(two.severed, [vec![2, 3], vec![2, 3], vec![0, 1], vec![0, 1]]);
        assert_eq!(two.words(), "a, b | c, d");
        let bridge = sides(&[("groups", "a,b | b,c")], 0).unwrap().unwrap();
        assert_eq!(bridge.severed, [vec![2], vec![], vec![0]]);
        assert_eq!(bridge.words(), "a reaches b; b reaches a, c; c reaches b");
    }

    #[test]
    fn what_parts_nobody_is_refused() {
        for wrong in [
            &[("among", "a,b")][..],
            &[("split", "halves")],
            &[("groups", "a,b,c")],
            &[("groups", "a,,b | c")],
            &[("among", "a"), ("split", "halves")],
            &[("among", "a,a"), ("split", "halves")],
            &[("among", "a,../b"), ("split", "halves")],
            &[("among", "a,b,c"), ("split", "majority-ring")],
            &[("among", "a,b"), ("split", "halves"), ("groups", "a | b")],
        ] {
            assert!(sides(wrong, 0).is_err(), "{wrong:?}");
        }
        assert_eq!(sides(&[], 0).unwrap(), None);
    }
}
