//! `disk-fill`: a file system runs full.

use super::memory_stress::at_hand;
use super::stressed::{Stressing, bytes, writable};
use crate::about::{About, Args, Effect, Param, ParamKind, Presence};
use crate::change::{InjectError, Proof, ProofStatus};
use crate::stress::{Seen, Task};
use crate::sys::cgroup::Place;
use crate::sys::resources::Volume;
use crate::target::{Target, TargetKind};
use crate::{Env, Request};

/// A file system runs full.
#[derive(Debug)]
pub struct DiskFill;

static ABOUT: About = About {
    name: "disk-fill",
    summary: "Takes room on a file system, down to a reserve",
    description: "A process of squall's own makes one file without a name in the folder `path` and lets it grow by `size`, or \
                  until the file system is so full as `fill` says, as `df` counts it. Refused if less than `reserve` would \
                  stay available, of the memory as well where that holds the file system; while it lives, it looks again and again, and gives room back when others have taken the \
                  reserve. For a file system that is full to the last byte write `reserve: 0B`: on the one that holds the \
                  root folder this is refused, and at least 256 MiB stay; squall's own runs (`--runs`) need room elsewhere \
                  then. The kernel takes the file back when the stressor \
                  ends, however that ends: no file is ever left behind. It ends with squall, or 3 s after the last renewal.",
    target: TargetKind::Volume,
    params: &[
        Param {
            name: "size",
            kind: ParamKind::Size,
            presence: Presence::Optional,
            help: "how much it takes; either this or fill",
        },
        Param {
            name: "fill",
            kind: ParamKind::Share,
            presence: Presence::Optional,
            help: "the share of the file system that is then in use",
        },
        Param {
            name: "reserve",
            kind: ParamKind::Size,
            presence: Presence::Default("1GiB"),
            help: "what stays available on the file system",
        },
    ],
    needs: &["the right to make files in the folder"],
    effect: Effect::Errors,
    proof: "The room that the file occupies is what was asked for, within 1%, and the file system shows it: at least 90% of it \
            is missing from what is available, or as full as asked for within half a percent.",
    undo: "The stressor is killed, and waited for; the kernel takes its file back.",
    example: "- disk-fill: {path: /var/log/app, fill: 95%, reserve: 512MiB}",
};

/// The least that it takes.
const SIZE_MIN: u64 = 1 << 20;
/// What stays available on the file system of the root folder, whatever is written.
const ROOT_RESERVE: u64 = 256 << 20;

impl Stressing for DiskFill {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn check(&self, args: &Args, _target: &Target) -> Result<(), String> {
        match (args.size("size"), args.share("fill")) {
            (Some(size), None) if size < SIZE_MIN => {
                Err(format!("size must be at least {}: less is no file system running full", bytes(SIZE_MIN)))
            }
            (Some(_), None) | (None, Some(_)) => Ok(()),
            _ => Err("say how much: either `size: 1GiB` or `fill: 95%`".to_owned()),
        }
    }

    fn task(&self, env: &Env, request: &Request, _joined: &[Place]) -> Result<Task, InjectError> {
        let (path, volume) = writable(env, &request.target)?;
        let reserve = request.args.size("reserve").unwrap_or_default();
        if volume.of_root && reserve < ROOT_RESERVE {
            return Err(InjectError::Target(format!(
                "the {} holds the root folder as well: leave it a `reserve` of {} or more",
                request.target,
                bytes(ROOT_RESERVE)
            )));
        }
        let wanted = match (request.args.size("size"), request.args.share("fill")) {
            (Some(size), _) => size,
            (None, share) => {
                let goal = (share.unwrap_or_default() * (volume.used + volume.available) as f64) as u64;
                goal.checked_sub(volume.used).filter(|more| *more > 0).ok_or_else(|| {
                    let full = volume.full() * 100.0;
                    InjectError::Target(format!("the {} is {full:.1} % full already", request.target))
                })?
            }
        };
        let (available, whose) = room(env, request, &volume)?;
        if wanted.saturating_add(reserve) > available {
            return Err(InjectError::Target(format!(
                "{} more would leave less than the reserve of {}: {} are available {whose}; ask for less, or write a \
                 smaller `reserve`",
                bytes(wanted),
                bytes(reserve),
                bytes(available)
            )));
        }
        Ok(Task::Fill { path, bytes: wanted, reserve })
    }

    fn judge(&self, task: &Task, seen: &Seen, volumes: Option<[Volume; 2]>) -> Proof {
        let (Task::Fill { bytes: wanted, .. }, Some([before, now])) = (task, volumes) else {
            return Proof::unproven("room", "it fills nothing");
        };
        let goal = (before.used + wanted) as f64 / (before.used + before.available).max(1) as f64;
        let requested = format!("{} more, {:.1} % full", bytes(*wanted), goal * 100.0);
        let whole = seen.held >= wanted - wanted / 100;
        let missing = before.available.saturating_sub(now.available) >= wanted - wanted / 10;
        let felt = missing || now.full() >= goal - 0.005;
        let why = seen.held_back.as_ref().map_or_else(String::new, |why| format!(": {why}"));
        Proof {
            status: match (whole && felt, &seen.held_back) {
                (true, _) => ProofStatus::Confirmed,
                // It still grows.
                (false, None) if !whole => ProofStatus::Unproven,
                _ => ProofStatus::Mismatch,
            },
            requested,
            measured: format!(
                "{} taken, {:.1} % full, {} available{why}",
                bytes(seen.held),
                now.full() * 100.0,
                bytes(now.available)
            ),
            tolerance: "1 % of the file, 10 % of what is missing".to_owned(),
            samples: 1,
        }
    }
}

/// What may be taken, and of what: a file system in memory may be larger than the memory.
fn room(env: &Env, request: &Request, volume: &Volume) -> Result<(u64, String), InjectError> {
    let target = &request.target;
    if volume.in_memory {
        let memory = at_hand(env)?;
        if memory.available < volume.available {
            return Ok((memory.available, format!("in the memory, which holds the {target}")));
        }
    }
    Ok((volume.available, format!("on the {target}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_nobody_else_sees_is_no_proof() {
        let volume = |used: u64, available: u64| Volume {
            used: used << 20,
            available: available << 20,
            in_memory: false,
            writable: true,
            of_root: false,
        };
        let judge = |held: u64, now: Volume, held_back: Option<&str>| {
            let seen = Seen { held: held << 20, held_back: held_back.map(str::to_owned), ..Seen::default() };
            let task = Task::Fill { path: "/x".into(), bytes: 100 << 20, reserve: 0 };
            DiskFill.judge(&task, &seen, Some([volume(100, 900), now])).status
        };
        assert_eq!(judge(100, volume(200, 800), None), ProofStatus::Confirmed);
        assert_eq!(judge(100, volume(100, 900), None), ProofStatus::Mismatch);
        assert_eq!(judge(40, volume(140, 860), None), ProofStatus::Unproven);
        assert_eq!(judge(40, volume(140, 860), Some("quota")), ProofStatus::Mismatch);
        // Others have made room meanwhile, and yet it is as full as it was to be.
        assert_eq!(judge(100, volume(198, 830), None), ProofStatus::Mismatch);
        assert_eq!(judge(100, volume(196, 804), None), ProofStatus::Confirmed);
    }
}
