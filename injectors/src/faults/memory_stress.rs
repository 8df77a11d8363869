//! `memory-stress`: a neighbour that holds memory.

use super::stressed::{Stressing, bytes};
use crate::about::{About, Args, Effect, Param, ParamKind, Presence};
use crate::change::{InjectError, Proof, ProofStatus};
use crate::stress::{Seen, Task};
use crate::sys::cgroup::{self, Controller, Folder, Place, Version, unreclaimable};
use crate::sys::resources::{Memory, Volume};
use crate::target::{Target, TargetKind};
use crate::{Env, Request};

/// A neighbour that holds memory.
#[derive(Debug)]
pub struct MemoryStress;

static ABOUT: About = About {
    name: "memory-stress",
    summary: "Holds memory, on this host or inside a control group",
    description: "A process of squall's own takes `size`, or as much as brings the use to `fill`: of the limit that holds for \
                  the group (its own or that of one above it) where a group or a container is named, else of the host's memory. It takes it at once or evenly over `ramp`, writes to every \
                  page, and touches them again and again so that they are not swapped out. Refused if less than `reserve` \
                  would stay available on the host, or if the group, or one above it, would meet its limit and lose a process; while it \
                  lives it gives memory back when others need the reserve. It is the first that the kernel ends when \
                  memory is short all the same (oom_score_adj 1000). When all others of the group have ended, it leaves; after a restart of the \
                  container it goes on in its next life. It ends with squall, or 3 s after the last renewal.",
    target: TargetKind::Group,
    params: &[
        Param {
            name: "size",
            kind: ParamKind::Size,
            presence: Presence::Optional,
            help: "how much it holds; either this or fill",
        },
        Param {
            name: "fill",
            kind: ParamKind::Share,
            presence: Presence::Optional,
            help: "the share of the memory, or of the limit that holds for the group, that is then in use",
        },
        Param {
            name: "ramp",
            kind: ParamKind::Span,
            presence: Presence::Default("0s"),
            help: "how long it takes until it holds all of it",
        },
        Param {
            name: "reserve",
            kind: ParamKind::Size,
            presence: Presence::Default("512MiB"),
            help: "what stays available on the host: at least 64MiB",
        },
    ],
    needs: &["nothing; in a group or a container: the right to write the group's cgroup.procs (root)"],
    effect: Effect::Degradation,
    proof: "The memory of the stressor that is resident, against what it should hold by now: confirmed within 3% and 8 MiB.",
    undo: "The stressor is killed, and waited for; the kernel takes its memory back.",
    example: "- memory-stress: {fill: 90%, ramp: 10s}",
};

/// What the stressor has of its own, and what is on its way between two looks.
const SLACK: u64 = 8 << 20;
/// The least that it holds.
const SIZE_MIN: u64 = 16 << 20;
/// The least that stays available on the host, whatever `reserve` says: with less, it ends whom it likes.
const RESERVE_MIN: u64 = 64 << 20;
/// What stays free below a group's limit.
const GROUP_RESERVE: u64 = 16 << 20;

impl Stressing for MemoryStress {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn check(&self, args: &Args, _target: &Target) -> Result<(), String> {
        match (args.size("size"), args.share("fill")) {
            (Some(size), None) if size < SIZE_MIN => Err(format!(
                "size must be at least {}: less cannot be told from squall itself",
                bytes(SIZE_MIN)
            )),
            _ if args.size("reserve").is_some_and(|reserve| reserve < RESERVE_MIN) => Err(format!(
                "reserve must be at least {}: with less, the host itself would be short",
                bytes(RESERVE_MIN)
            )),
            (Some(_), None) | (None, Some(_)) => Ok(()),
            _ => Err("say how much: either `size: 1GiB` or `fill: 90%`".to_owned()),
        }
    }

    fn joins(&self) -> &'static [Controller] {
        &[Controller::Memory]
    }

    fn task(&self, env: &Env, request: &Request, joined: &[Place]) -> Result<Task, InjectError> {
        let args = &request.args;
        let host = at_hand(env)?;
        let levels = joined.first().map_or(Ok(Vec::new()), |group| levels(env, group))?;
        let tightest = levels.iter().filter(|level| level.limit < host.total).min_by_key(|level| level.limit);
        let (all, used) = match tightest {
            Some(level) => (level.limit, level.used),
            None => (host.total, host.total - host.available.min(host.total)),
        };
        let wanted = match (args.size("size"), args.share("fill")) {
            (Some(size), _) => size,
            (None, _) if !joined.is_empty() && tightest.is_none() => {
                return Err(InjectError::Target(format!(
                    "{} has no limit of memory that `fill` could be a share of: write `size`",
                    request.target
                )));
            }
            (None, share) => {
                let goal = (share.unwrap_or_default() * all as f64) as u64;
                goal.checked_sub(used).filter(|more| *more > 0).ok_or_else(|| {
                    InjectError::Target(format!("{} of {} are in use already", bytes(used), bytes(all)))
                })?
            }
        };
        let reserve = args.size("reserve").unwrap_or_default();
        if wanted.saturating_add(reserve) > host.available {
            return Err(InjectError::Target(format!(
                "{} more would leave less than the reserve of {}: {} are available on this host; ask for less, or write a \
                 smaller `reserve`",
                bytes(wanted),
                bytes(reserve),
                bytes(host.available)
            )));
        }
        let meets =
            |level: &&Level| level.used.saturating_add(wanted).saturating_add(GROUP_RESERVE) > level.limit;
        if let Some(Level { name, limit, used }) = levels.iter().find(meets) {
            return Err(InjectError::Target(format!(
                "{} more would meet the limit of {name}, {} (in use {}), and the kernel would end a process of it: ask \
                 for less; to make it meet its limit on purpose, use memory-limit",
                bytes(wanted),
                bytes(*limit),
                bytes(*used)
            )));
        }
        let ramp_s = args.span("ramp").unwrap_or_default().as_secs_f64();
        Ok(Task::Memory { bytes: wanted, ramp_s, reserve })
    }

    fn judge(&self, task: &Task, seen: &Seen, _volumes: Option<[Volume; 2]>) -> Proof {
        let Task::Memory { bytes: wanted, .. } = task else {
            return Proof::unproven("memory", "it holds nothing");
        };
        let all = if seen.due < *wanted { format!(" of {} so far", bytes(*wanted)) } else { String::new() };
        let requested = format!("{}{all}", bytes(seen.due));
        // What is on its way counts as well: the last chunk, and the program itself.
        let close = seen.held.abs_diff(seen.due) <= SLACK + (0.03 * seen.due as f64) as u64;
        let why = seen.held_back.as_ref().map_or_else(String::new, |why| format!(": {why}"));
        Proof {
            status: match close {
                true if seen.due > SLACK || seen.due == *wanted => ProofStatus::Confirmed,
                true => ProofStatus::Unproven,
                false => ProofStatus::Mismatch,
            },
            requested,
            measured: format!("{} resident{why}", bytes(seen.held)),
            tolerance: "3 % and 8 MiB".to_owned(),
            samples: 1,
        }
    }
}

/// A limit that holds for a group: its own, or that of one above it. In bytes.
#[derive(Debug, Clone)]
struct Level {
    name: String,
    limit: u64,
    /// Without pages of files, which the kernel can drop.
    used: u64,
}

/// The memory of this host, or what the limits leave that hold for squall itself, as in a container.
pub(super) fn at_hand(env: &Env) -> Result<Memory, InjectError> {
    let failed = |source| InjectError::System { what: "look at the memory".to_owned(), source };
    let mut host = env.resources.memory().map_err(failed)?;
    let own = cgroup::place_of(&*env.cgroups, std::process::id(), Controller::Memory).map_err(failed)?;
    for level in own.map_or(Ok(Vec::new()), |own| levels(env, &own))? {
        host.total = host.total.min(level.limit);
        host.available = host.available.min(level.limit.saturating_sub(level.used));
    }
    Ok(host)
}

/// All limits that hold for a group, its own first.
fn levels(env: &Env, place: &Place) -> Result<Vec<Level>, InjectError> {
    let failed = |source| InjectError::System {
        what: format!("look at the limits above {}", place.folder.path.display()),
        source,
    };
    let mut folders = vec![place.folder.clone()];
    folders.extend(cgroup::above(&*env.cgroups, &place.folder).map_err(failed)?);
    let mut found = Vec::new();
    for folder in &folders {
        found.extend(level(env, folder, place.version)?);
    }
    Ok(found)
}

fn level(env: &Env, folder: &Folder, version: Version) -> Result<Option<Level>, InjectError> {
    let read = |file: &str| match env.cgroups.read(folder, file) {
        Ok(text) => Ok(text.unwrap_or_default()),
        // The root group of version 2 has none, nor has one without the controller.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(source) => {
            Err(InjectError::System { what: format!("read {}/{file}", folder.path.display()), source })
        }
    };
    let (limit, used) = match version {
        Version::One => ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        Version::Two => ("memory.max", "memory.current"),
    };
    let Ok(limit) = read(limit)?.trim().parse() else { return Ok(None) };
    let used = read(used)?.trim().parse().unwrap_or_default();
    let name = format!("cgroup {}", folder.path.display());
    Ok(Some(Level { name, limit, used: unreclaimable(used, &read("memory.stat")?) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_judged_by_what_is_due_on_the_ramp() {
        let judge = |due: u64, held: u64| {
            let seen = Seen { due: due << 20, held: held << 20, ..Seen::default() };
            MemoryStress.judge(&Task::Memory { bytes: 1 << 30, ramp_s: 10.0, reserve: 0 }, &seen, None)
        };
        assert_eq!(judge(1024, 1030).status, ProofStatus::Confirmed);
        assert_eq!(judge(512, 510).requested, "512.0 MiB of 1.0 GiB so far");
        assert_eq!(judge(1024, 700).status, ProofStatus::Mismatch);
        assert_eq!(judge(0, 3).status, ProofStatus::Unproven);
    }

    #[test]
    fn how_much_is_written_in_one_way() {
        use crate::about::Value;
        let size = || ("size".to_owned(), Value::Size("64MiB".parse().unwrap()));
        let fill = || ("fill".to_owned(), Value::Share("90%".parse().unwrap()));
        let check = |args: Vec<(String, Value)>| {
            MemoryStress.check(&Args(args.into_iter().collect()), &Target::Group(crate::group::Group::Host))
        };
        assert_eq!(check(vec![size()]), Ok(()));
        assert_eq!(check(vec![fill()]), Ok(()));
        assert!(check(vec![]).is_err() && check(vec![size(), fill()]).is_err());
    }
}
