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
                  much per second as it says, all together and at least one block, else as fast as the disk goes. The disk, its queue and its \
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
            the rate but for the block that is being written, or any at all without one. Less is a mismatch: the disk had no more to give.",
    undo: "The stressor is killed, and waited for; the kernel takes its files back.",
    example: "- io-stress: {path: /var/lib/app, workers: 4, rate: 20MB/s}",
};

/// Disks write no less at a time.
const BLOCK_MIN: u64 = 512;
/// Room that stays free beside the files of the stressor.
const RESERVE: u64 = 256 << 20;
/// Less than this tells nothing about a rate.
const SPAN_MIN: f64 = 0.2;

impl Stressing for IoStress {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn check(&self, args: &Args, _target: &Target) -> Result<(), String> {
        if !(BLOCK_MIN..=16 << 20).contains(&args.size("block").unwrap_or_default()) {
            return Err("block must be from 512B to 16MiB".to_owned());
        }
        let block = args.size("block").unwrap_or_default();
        match args.bandwidth("rate") {
            Some(rate) if rate < BLOCK_MIN as f64 => {
                Err(format!("rate must be at least {BLOCK_MIN}B/s: one block of {BLOCK_MIN}B in a second"))
            }
            // Fewer come in bursts, which are not what was asked for.
            Some(rate) if rate < block as f64 => Err(format!(
                "at {}/s, less than one block of {} is written in a second: write a smaller `block`, {}B or less",
                bytes(rate as u64),
                bytes(block),
                rate as u64
            )),
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
        let Task::Io { workers, rate, block, .. } = task else {
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
        let due = rate.map_or(0.0, |rate| 0.9 * rate * seen.elapsed_s);
        if written == 0 && rate.is_some() && due < *block as f64 {
            return Proof::unproven(requested, "not even one block is due so far");
        }
        // The last block may not be due yet.
        let enough = written > 0 && (written + block) as f64 >= due;
        let slow = if enough { "" } else { ": the disk had no more to give" };
        let writes = seen.writes as f64 / seen.elapsed_s;
        Proof {
            status: if enough { ProofStatus::Confirmed } else { ProofStatus::Mismatch },
            requested,
            measured: format!("{}/s in {writes:.0} writes/s{slow}", bytes(got as u64)),
            tolerance: if rate.is_some() {
                "90 % or more, but for one block".to_owned()
            } else {
                "any".to_owned()
            },
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
        // One block in two seconds, of one and a half that were due, is what a rate of 50 kB/s looks like.
        assert_eq!(judge(Some(65536), Some(65536.0 * 0.75)).status, ProofStatus::Confirmed);
        assert_eq!(judge(Some(0), Some(65536.0 * 0.3)).status, ProofStatus::Unproven);
        assert_eq!(judge(Some(0), Some(65536.0 * 0.75)).status, ProofStatus::Mismatch);
    }

    #[test]
    fn a_rate_that_no_whole_block_fits_is_refused_with_the_block_that_would() {
        let check = |rate: &str, block: &str| {
            let args = [
                ("rate".to_owned(), ParamKind::Bandwidth.parse(rate).unwrap()),
                ("block".to_owned(), ParamKind::Size.parse(block).unwrap()),
            ];
            IoStress.check(&Args(args.into()), &Target::Volume("/".into()))
        };
        assert_eq!(
            check("10KB/s", "64KiB").unwrap_err(),
            "at 9.8 KiB/s, less than one block of 64.0 KiB is written in a \
                    second: write a smaller `block`, 10000B or less"
        );
        assert!(check("1B/s", "512B").unwrap_err().contains("at least 512B/s"));
        assert_eq!(check("100KB/s", "64KiB"), Ok(()));
        assert_eq!(check("10KB/s", "4KiB"), Ok(()));
    }
}
