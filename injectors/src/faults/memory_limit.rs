//! `memory-limit`: a control group gets less memory.

use std::time::Duration;

use super::limited::{Counts, Evidence, Limit, Limiting, Seen, Setting, before, get};
use super::stressed::bytes;
use crate::about::{About, Args, Effect, Param, ParamKind, Presence};
use crate::change::{InjectError, Proof, ProofStatus};
use crate::sys::cgroup::{Controller, Version, flat, unreclaimable};
use crate::target::TargetKind;

/// A control group gets less memory.
#[derive(Debug)]
pub struct MemoryLimit;

static ABOUT: About = About {
    name: "memory-limit",
    summary: "Limits the memory of a control group",
    description: "With `at: max` (memory.max of cgroup v2, memory.limit_in_bytes of v1) a group that wants more than `size` first \
                  loses its cached files, then the kernel ends one of its processes: what happens to a pod whose memory limit \
                  is too small. With `at: high` (memory.high, v2 only) it is slowed and squeezed instead, and nothing is \
                  ended. A limit below what the group holds now, cached files apart, is refused without `below-use: true`, since it ends a process \
                  at once; squall does not start that process again. Groups that hold squall, its guardian or its ancestors \
                  are refused, as is the root group. The limit lives in the kernel and has no lease of its own: if both \
                  squall and its guardian are killed, `squall recover` puts it back.",
    target: TargetKind::Group,
    params: &[
        Param {
            name: "size",
            kind: ParamKind::Size,
            presence: Presence::Required,
            help: "how much memory it may use",
        },
        Param {
            name: "at",
            kind: ParamKind::Choice(&["max", "high"]),
            presence: Presence::Default("max"),
            help: "max (what wants more is ended) or high (it is slowed; cgroup v2 only)",
        },
        Param {
            name: "below-use",
            kind: ParamKind::Flag,
            presence: Presence::Default("false"),
            help: "true: the limit may be below what is in use now, and a process may be ended at once",
        },
    ],
    needs: &["root, or a group that was delegated to this user", "the cgroup controller memory, v1 or v2"],
    effect: Effect::Degradation,
    proof: "The group has met the limit since (memory.events, memory.failcnt), and its use is not beyond it. Unproven if it never \
            wanted more.",
    undo: "The former limit is written back, if the limit still is what squall has set.",
    example: "- memory-limit: {cgroup: system.slice/nginx.service, size: 256MiB}",
};

/// Limits are kept in whole pages, and no page is larger than this.
const PAGE_MAX: u64 = 65536;
/// Version 1 shows no limit as the largest number of whole pages.
const NONE: u64 = 1 << 62;

impl Limiting for MemoryLimit {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn check(&self, args: &Args) -> Result<(), String> {
        match args.size("size") {
            Some(size) if size < 1 << 20 => Err("size must be at least 1MiB".to_owned()),
            _ => Ok(()),
        }
    }

    fn controller(&self) -> Controller {
        Controller::Memory
    }

    fn window(&self) -> Duration {
        // Nothing is measured by the time.
        Duration::ZERO
    }

    fn limit(&self, group: &Seen<'_>, args: &Args) -> Result<Limit, InjectError> {
        let asked = args.size("size").unwrap_or_default();
        let size = asked / PAGE_MAX * PAGE_MAX;
        let file = match (group.place.version, args.text("at")) {
            (Version::One, Some("high")) => {
                let text = format!("{group} is of cgroup v1, which has no memory.high: use `at: max`");
                return Err(InjectError::Lack(text));
            }
            (Version::One, _) => "memory.limit_in_bytes",
            (Version::Two, Some("high")) => "memory.high",
            (Version::Two, _) => "memory.max",
        };
        let now = before(group, file, None, "")?;
        if let Some(has) = now.parse::<u64>().ok().filter(|has| *has <= size) {
            return Err(InjectError::Target(format!("{group} has a limit of {} already", bytes(has))));
        }
        let used = unreclaimable(use_of(group)?, &group.read("memory.stat")?);
        if used > size && args.flag("below-use") != Some(true) {
            return Err(InjectError::Target(format!(
                "{group} holds {} now that cannot be dropped, more than {}: the kernel would end a process of it at once; write `below-use: true` \
                 if that is what you want",
                bytes(used),
                bytes(size)
            )));
        }
        let setting = Setting { file: file.to_owned(), device: None, before: now, ours: size.to_string() };
        let asked = [("size".to_owned(), asked)].into();
        Ok(Limit { place: group.place.clone(), settings: vec![setting], asked })
    }

    fn counts(&self, group: &Seen<'_>, limit: &Limit) -> Result<Counts, InjectError> {
        let (met, ended) = match group.place.version {
            Version::One => (
                group.read("memory.failcnt")?.trim().parse().unwrap_or_default(),
                flat(&group.read_if_there("memory.oom_control"), "oom_kill"),
            ),
            Version::Two => {
                let events = group.read("memory.events")?;
                let name =
                    if limit.settings.iter().any(|one| one.file == "memory.high") { "high" } else { "max" };
                (flat(&events, name).unwrap_or_default(), flat(&events, "oom_kill"))
            }
        };
        Ok([
            ("met".to_owned(), met),
            ("ended".to_owned(), ended.unwrap_or_default()),
            ("used".to_owned(), use_of(group)?),
        ]
        .into())
    }

    fn judge(&self, limit: &Limit, evidence: &Evidence) -> Proof {
        let (size, used) = (get(&limit.asked, "size"), evidence.now("used"));
        let (met, ended) = (evidence.grown("met"), evidence.grown("ended"));
        let ends = if ended > 0 { format!(", {ended} processes ended by the kernel") } else { String::new() };
        let requested = format!("at most {}", bytes(size));
        let measured = format!("{} in use, limit met {met} times{ends}", bytes(used));
        if met == 0 {
            return Proof::unproven(requested, format!("{measured}: it never wanted more"));
        }
        // The kernel charges in batches for each processor.
        let slack = size / 20 + (4 << 20);
        Proof {
            status: if used <= size + slack { ProofStatus::Confirmed } else { ProofStatus::Mismatch },
            requested,
            measured,
            tolerance: "5 % and 4 MiB".to_owned(),
            samples: met,
        }
    }
}

fn use_of(group: &Seen<'_>) -> Result<u64, InjectError> {
    let file = match group.place.version {
        Version::One => "memory.usage_in_bytes",
        Version::Two => "memory.current",
    };
    Ok(group.read(file)?.trim().parse::<u64>().unwrap_or_default().min(NONE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::cgroup::{Folder, Place};

    #[test]
    fn a_limit_that_was_never_met_is_unproven_and_one_that_is_exceeded_a_mismatch() {
        let folder = Folder { path: "/g".into(), inode: 1 };
        let asked = [("size".to_owned(), 100 << 20)].into();
        let limit = Limit { place: Place { folder, version: Version::Two }, settings: Vec::new(), asked };
        let judge = |met: u64, ended: u64, used: u64| {
            let counts = |met: u64, ended: u64| {
                Counts::from([
                    ("met".to_owned(), met),
                    ("ended".to_owned(), ended),
                    ("used".to_owned(), used << 20),
                ])
            };
            let (before, last) = (counts(5, 1), counts(5 + met, 1 + ended));
            MemoryLimit.judge(&limit, &Evidence { before, first: last.clone(), last, seconds: 0.4 })
        };
        assert_eq!(judge(0, 0, 30).status, ProofStatus::Unproven);
        assert_eq!(judge(3, 0, 100).status, ProofStatus::Confirmed);
        assert_eq!(
            judge(3, 2, 20).measured,
            "20.0 MiB in use, limit met 3 times, 2 processes ended by the kernel"
        );
        assert_eq!(judge(3, 0, 150).status, ProofStatus::Mismatch);
    }
}
