//! `io-stress`: a neighbour that keeps a disk busy.

use super::stressed::{Stressing, bytes, writable};
use crate::about::{About, Args, Effect, Param, ParamKind, Presence};
use crate::change::{InjectError, Proof, ProofStatus};
use crate::stress::{Seen, Task, io::FILE_MAX};
use crate::sys::cgroup::Place;
use crate::sys::resources::Volume;
use crate::target::{Target, TargetKind};
use crate::{Env, Request};

/// A neighbour that keeps a disk busy.
#[derive(Debug)]
pub struct IoStress;

static ABOUT: About = About {
    name: "io-stress",
    summary: "Writes to the disk below a folder and waits for each write to arrive there",
    description: "A process of squall's own has `workers` threads, each with a file without a name in the folder `path`. They \
                  write `block` after `block`, each synchronously (O_DSYNC), as a database does with its log: with `rate` as \
                  much per second as it says, all together, else as fast as the disk goes. The disk, its queue and its \
                  journal are shared with whatever else lives there. A file is written over from its beginning after \
                  64 MiB, and the kernel takes it back when the stressor ends, however that ends. Refused on file systems in \
                  memory, which have no disk. It ends with squall, or 3 s after the last renewal.",
    target: TargetKind::Volume,
    params: &[
        Param {
            name: "workers",
            kind: ParamKind::Int { min: 1, max: 64 },
            presence: Presence::Required,
            help: "how many threads write at a time",
        },
        Param {
            name: "block",
            kind: ParamKind::Size,
            presence: Presence::Default("64KiB"),
            help: "bytes of one write",
        },
        Param {
            name: "rate",
            kind: ParamKind::Bandwidth,
            presence: Presence::Optional,
            help: "what all of them write together; without it, as much as goes",
        },
    ],
    needs: &["the right to make files in the folder"],
    effect: Effect::Degradation,
    proof: "Bytes that the kernel has sent to storage for the stressor (/proc/PID/io), against what it was told: at least 90% of \
            the rate, or any at all without one. Less is a mismatch: the disk had no more to give.",
    undo: "The stressor is killed, and waited for; the kernel takes its files back.",
    example: "- io-stress: {path: /var/lib/app, workers: 4, rate: 20MB/s}",
};

/// Room that stays free beside the files of the stressor.
const RESERVE: u64 = 256 << 20;
/// Less than this tells nothing about a rate.
const SPAN_MIN: f64 = 0.2;

impl Stressing for IoStress {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn check(&self, args: &Args, _target: &Target) -> Result<(), String> {
        if !(512..=16 << 20).contains(&args.size("block").unwrap_or_default()) {
            return Err("block must be from 512B to 16MiB".to_owned());
        }
        match args.bandwidth("rate") {
            Some(rate) if rate < 1.0 => Err("rate must be at least one byte per second".to_owned()),
            _ => Ok(()),
        }
    }

    fn task(&self, env: &Env, request: &Request, _joined: &[Place]) -> Result<Task, InjectError> {
        let (path, volume) = writable(env, &request.target)?;
        if volume.in_memory {
            let text =
                format!("the {} is in memory: nothing that is written there meets a disk", request.target);
            return Err(InjectError::Target(text));
        }
        let workers = request.args.int("workers").unwrap_or(1);
        let block = request.args.size("block").unwrap_or_default();
        let need = workers * (FILE_MAX + block) + RESERVE;
        if volume.available < need {
            return Err(InjectError::Target(format!(
                "the {} has {} available, and {workers} workers need {} of it: ask for fewer",
                request.target,
                bytes(volume.available),
                bytes(need)
            )));
        }
        Ok(Task::Io { path, workers: workers as u32, block, rate: request.args.bandwidth("rate") })
    }

    fn judge(&self, task: &Task, seen: &Seen, _volumes: Option<[Volume; 2]>) -> Proof {
        let Task::Io { workers, rate, .. } = task else {
            return Proof::unproven("writes", "it writes nothing");
        };
        let requested = match rate {
            Some(rate) => format!("{}/s by {workers} workers", bytes(*rate as u64)),
            None => format!("as much as goes by {workers} workers"),
        };
        let Some(written) = seen.written else {
            return Proof::unproven(requested, "this kernel does not count what reaches the storage");
        };
        if seen.elapsed_s < SPAN_MIN {
            return Proof::unproven(requested, format!("only {:.0} ms are over", seen.elapsed_s * 1e3));
        }
        let got = written as f64 / seen.elapsed_s;
        let enough = rate.map_or(written > 0, |rate| got >= 0.9 * rate);
        let slow = if enough { "" } else { ": the disk had no more to give" };
        let writes = seen.writes as f64 / seen.elapsed_s;
        Proof {
            status: if enough { ProofStatus::Confirmed } else { ProofStatus::Mismatch },
            requested,
            measured: format!("{}/s in {writes:.0} writes/s{slow}", bytes(got as u64)),
            tolerance: if rate.is_some() { "90 % or more".to_owned() } else { "any".to_owned() },
            samples: seen.writes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_is_slower_than_asked_for_is_a_mismatch() {
        let judge = |written: Option<u64>, rate: Option<f64>| {
            let seen = Seen { elapsed_s: 2.0, written, writes: 40, ..Seen::default() };
            let task = Task::Io { path: "/".into(), workers: 2, block: 65536, rate };
            IoStress.judge(&task, &seen, None)
        };
        assert_eq!(judge(Some(2_000_000), Some(1e6)).status, ProofStatus::Confirmed);
        assert_eq!(judge(Some(1_000_000), Some(1e6)).status, ProofStatus::Mismatch);
        assert_eq!(judge(Some(65536), None).status, ProofStatus::Confirmed);
        assert_eq!(judge(Some(0), None).status, ProofStatus::Mismatch);
        assert_eq!(judge(None, None).status, ProofStatus::Unproven);
    }
}
