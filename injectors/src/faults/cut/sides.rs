//! Who is cut off from whom among several. Pure and seeded.

use crate::about::Args;
use crate::containers::{Containers, Which};
use crate::relay::chance::Dice;
use crate::traffic::{Whose, is_name};

/// The most members of one partition.
const MEMBERS_MAX: usize = 32;

/// Who is parted, and how, as it is written.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Wanted {
    /// One group of all where they are split, else the groups themselves.
    pub(super) groups: Vec<Vec<Whose>>,
    split: Option<Split>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Split {
    Halves,
    MajorityRing,
    Isolate,
    Bridge,
}

/// Members, and for each those that it cannot reach. Always mutual.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sides {
    /// Names, in the order in which they were found.
    members: Vec<String>,
    /// By position.
    pub(super) severed: Vec<Vec<usize>>,
}

/// Reads `among` with `split`, or `groups`; none if neither is written.
///
/// # Errors
/// What is wrong with them.
pub(crate) fn read(args: &Args) -> Result<Option<Wanted>, String> {
    let wanted = match (args.text("among"), args.text("split"), args.text("groups")) {
        (None, None, None) => return Ok(None),
        (Some(among), Some(split), None) => {
            let split = match split {
                "majority-ring" => Split::MajorityRing,
                "isolate" => Split::Isolate,
                "bridge" => Split::Bridge,
                _ => Split::Halves,
            };
            Wanted { groups: vec![listed(among)?], split: Some(split) }
        }
        (None, None, Some(groups)) => {
            let groups: Result<_, String> = groups.split('|').map(listed).collect();
            Wanted { groups: groups?, split: None }
        }
        (Some(_), None, None) => {
            return Err("`among` needs `split`: halves, majority-ring, isolate or bridge".to_owned());
        }
        (None, Some(_), None) => {
            let text = "`split` needs `among`: who is parted, such as a, b, c or label:app=db";
            return Err(text.to_owned());
        }
        _ => return Err("write either `groups`, or `among` with `split`".to_owned()),
    };
    // How many a label or an image means, the engine will tell.
    let one = |whose: &Whose| match whose {
        Whose::Containers(Containers { which, .. }) => matches!(which, Which::Named(_)),
        _ => true,
    };
    if wanted.groups.iter().flatten().all(one) {
        let mut all: Vec<&Whose> = Vec::new();
        let mut number = |whose| {
            all.iter().position(|known| *known == whose).unwrap_or_else(|| {
                all.push(whose);
                all.len() - 1
            })
        };
        let groups: Vec<Vec<usize>> =
            wanted.groups.iter().map(|group| group.iter().map(&mut number).collect()).collect();
        wanted.sides(vec![String::new(); all.len()], &groups, 0)?;
    }
    Ok(Some(wanted))
}

fn listed(text: &str) -> Result<Vec<Whose>, String> {
    let members: Vec<Whose> = text.split(',').map(|one| member(one.trim())).collect::<Result<_, _>>()?;
    let twice = members.iter().enumerate().find(|(at, one)| members[..*at].contains(one));
    let written = || text.split(',').map(str::trim);
    match twice.and_then(|(at, _)| written().nth(at)) {
        Some(name) => Err(format!("{name} is named twice")),
        None => Ok(members),
    }
}

/// One word of a list: the name of a namespace, or another selector with its value.
fn member(text: &str) -> Result<Whose, String> {
    let wrong = || {
        format!(
            "`{text}` is neither a namespace such as a, nor pid:4711, container:web-1, label:app=web or image:nginx",
            text = text.escape_debug()
        )
    };
    let (kind, name) = text.split_once(':').unwrap_or(("netns", text));
    let containers = |kind: &'static str| {
        let pick = (kind != "container").then(|| ("pick", "all".to_owned()));
        let given = [(kind, name.to_owned())].into_iter().chain(pick).collect();
        let read = Containers::read(&given).map_err(|(_, mistake)| mistake)?;
        read.map(Whose::Containers).ok_or_else(wrong)
    };
    match kind {
        "netns" if is_name(name) => Ok(Whose::Named(name.to_owned())),
        "pid" => name.parse().ok().filter(|pid| *pid > 0).map(Whose::Process).ok_or_else(wrong),
        "container" => containers("container"),
        "label" => containers("label"),
        "image" => containers("image"),
        _ => Err(wrong()),
    }
}

impl Wanted {
    /// Who is cut off from whom among members of these names, of whom each group holds some.
    ///
    /// # Errors
    /// They are too many or too few.
    pub(super) fn sides(
        &self,
        members: Vec<String>,
        groups: &[Vec<usize>],
        seed: u64,
    ) -> Result<Sides, String> {
        let count = members.len();
        if count > MEMBERS_MAX {
            return Err(format!("{count} members are more than the {MEMBERS_MAX} of one partition"));
        }
        let severed = match self.split {
            Some(split) => split.severed(count, seed)?,
            None => {
                // Groups do not reach each other; who is in two of them reaches both.
                let together = |a, b| groups.iter().any(|group| group.contains(&a) && group.contains(&b));
                sever(count, |a, b| !together(a, b))
            }
        };
        if severed.iter().all(Vec::is_empty) {
            return Err("nobody is cut off: write at least two groups, parted by |".to_owned());
        }
        Ok(Sides { members, severed })
    }
}

impl Split {
    fn severed(self, count: usize, seed: u64) -> Result<Vec<Vec<usize>>, String> {
        let (name, least) = match self {
            Self::Halves => ("halves", 2),
            Self::MajorityRing => ("majority-ring", 4),
            Self::Isolate => ("isolate", 2),
            Self::Bridge => ("bridge", 3),
        };
        if count < least {
            return Err(format!("{name} needs at least {least} members, and there are {count}"));
        }
        let place = shuffled(count, seed);
        let half = count / 2;
        Ok(match self {
            Self::Halves => sever(count, |a, b| (place[a] < half) != (place[b] < half)),
            Self::Isolate => sever(count, |a, b| (place[a] == 0) != (place[b] == 0)),
            Self::Bridge => sever(count, |a, b| {
                // The first of the larger half reaches both.
                place[a] != half && place[b] != half && (place[a] < half) != (place[b] < half)
            }),
            Self::MajorityRing => {
                // Each sees as many neighbours on either side as make a majority with itself; no two see the same.
                let reach = half.div_ceil(2);
                sever(count, |a, b| {
                    let apart = place[a].abs_diff(place[b]);
                    apart.min(count - apart) > reach
                })
            }
        })
    }
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

    fn wanted(given: &[(&str, &str)]) -> Result<Option<Wanted>, String> {
        let given = given.iter().map(|(name, text)| ((*name).to_owned(), Value::Text((*text).to_owned())));
        read(&Args(given.collect()))
    }

    fn among(split: &str, count: usize, seed: u64) -> Sides {
        let names: Vec<String> = (0..count).map(|n| format!("n{n}")).collect();
        let wanted = wanted(&[("among", &names.join(",")), ("split", split)]).unwrap().unwrap();
        wanted.sides(names, &[(0..count).collect()], seed).unwrap()
    }

    fn groups(text: &str, groups: &[&[usize]]) -> Sides {
        let wanted = wanted(&[("groups", text)]).unwrap().unwrap();
        let count = groups.iter().copied().flatten().max().unwrap() + 1;
        let names = ["a", "b", "c", "d"][..count].iter().map(|name| (*name).to_owned()).collect();
        let groups: Vec<Vec<usize>> = groups.iter().map(|group| group.to_vec()).collect();
        wanted.sides(names, &groups, 0).unwrap()
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
        let two = groups("a, b | c, d", &[&[0, 1], &[2, 3]]);
        assert_eq!(two.severed, [vec![2, 3], vec![2, 3], vec![0, 1], vec![0, 1]]);
        assert_eq!(two.words(), "a, b | c, d");
        let bridge = groups("a,b | b,c", &[&[0, 1], &[1, 2]]);
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
            &[("among", "a,pod:b"), ("split", "halves")],
            &[("among", "a,pid:x"), ("split", "halves")],
            &[("among", "a,container:../b"), ("split", "halves")],
            &[("among", "a,label:"), ("split", "halves")],
            &[("groups", "container:a | container:a")],
            &[("among", "a,b,c"), ("split", "majority-ring")],
            &[("among", "a,b"), ("split", "halves"), ("groups", "a | b")],
        ] {
            assert!(wanted(wrong).is_err(), "{wrong:?}");
        }
        assert_eq!(wanted(&[]).unwrap(), None);
    }

    #[test]
    fn members_are_namespaces_processes_and_containers_by_the_words_of_the_selectors() {
        let read = wanted(&[("groups", "a, pid:7, container:web-1 | label:app=db, image:etcd:3")]);
        let [near, far] = &read.unwrap().unwrap().groups[..] else { panic!("two groups are written") };
        let words = |group: &[Whose]| {
            let word = |whose: &Whose| match whose {
                Whose::Containers(containers) => containers.to_string(),
                other => format!("{other:?}"),
            };
            group.iter().map(word).collect::<Vec<_>>().join("; ")
        };
        assert_eq!(words(near), r#"Named("a"); Process(7); container web-1"#);
        assert_eq!(words(far), "all containers with label app=db; all containers of image etcd:3");
        // How many there are, the engine tells.
        let ring = wanted(&[("among", "label:app=db"), ("split", "majority-ring")]).unwrap().unwrap();
        let three = || vec![String::new(); 3];
        let few = ring.sides(three(), &[vec![0, 1, 2]], 0).unwrap_err();
        assert_eq!(few, "majority-ring needs at least 4 members, and there are 3");
    }
}
