//! `cpu-throttle`: a control group gets less processor time.

use super::limited::{Counts, Evidence, Limit, Limiting, Seen, Setting, before, get};
use crate::about::{About, Args, Effect, Param, ParamKind, Presence};
use crate::change::{InjectError, Proof, ProofStatus};
use crate::sys::cgroup::{Controller, Version, flat};
use crate::target::TargetKind;
use crate::units::Cores;

/// A control group gets less processor time.
#[derive(Debug)]
pub struct CpuThrottle;

static ABOUT: About = About {
    name: "cpu-throttle",
    summary: "Limits the processor time of a control group",
    description: "The quota of the group (cpu.max of cgroup v2, cpu.cfs_quota_us of v1) is set to `cores` for each period, which \
                  stays as it is; the kernel gives no less than a millisecond of it. What would use more is stopped until the next period begins: the tail latency of a pod \
                  whose CPU limit is too small. A limit that is lower already is refused. Groups that hold squall, its \
                  guardian or its ancestors are refused, as is the root group. The limit lives in the kernel and has no \
                  lease of its own: if both squall and its guardian are killed, `squall recover` puts it back.",
    target: TargetKind::Group,
    params: &[Param {
        name: "cores",
        kind: ParamKind::Cores,
        presence: Presence::Required,
        help: "how many cores it may use: 0.5 and 500m are a half of one",
    }],
    needs: &["root, or a group that was delegated to this user", "the cgroup controller cpu, v1 or v2"],
    effect: Effect::Degradation,
    proof: "The kernel has throttled the group since (nr_throttled), and what the group uses is at most the limit, 10% and one \
            period more. Unproven if it never wanted more than the limit.",
    undo: "The former quota is written back, if the quota still is what squall has set.",
    example: "- cpu-throttle: {cgroup: system.slice/nginx.service, cores: 0.5}",
};

/// The kernel takes no quota below a millisecond.
const QUOTA_MIN: u64 = 1000;

impl Limiting for CpuThrottle {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn check(&self, args: &Args) -> Result<(), String> {
        match args.cores("cores") {
            Some(cores) if cores < 0.01 => Err("cores must be at least 0.01".to_owned()),
            _ => Ok(()),
        }
    }

    fn controller(&self) -> Controller {
        Controller::Cpu
    }

    fn limit(&self, group: &Seen<'_>, args: &Args) -> Result<Limit, InjectError> {
        let (file, now, period) = match group.place.version {
            Version::One => {
                let quota = before(group, "cpu.cfs_quota_us", None, "")?;
                (("cpu.cfs_quota_us"), quota, group.read("cpu.cfs_period_us")?.trim().to_owned())
            }
            Version::Two => {
                let text = before(group, "cpu.max", None, "")?;
                let period = text.split(' ').nth(1).unwrap_or("100000").to_owned();
                ("cpu.max", text, period)
            }
        };
        let period: u64 = period.parse().unwrap_or(100_000);
        let cores = args.cores("cores").unwrap_or_default();
        let quota = (cores * period as f64).round() as u64;
        if quota < QUOTA_MIN {
            return Err(InjectError::Target(format!(
                "{group} has a period of {} ms, of which the kernel gives {} ms at least: ask for {} cores or more, or make \
                 its period longer",
                period as f64 / 1e3,
                QUOTA_MIN / 1000,
                // Rounded up, so that it is enough.
                (QUOTA_MIN as f64 / period.max(1) as f64 * 1e3).ceil() / 1e3
            )));
        }
        let limited: Option<u64> = now.split(' ').next().and_then(|word| word.parse().ok());
        if let Some(has) = limited.filter(|has| *has <= quota) {
            let cores = has as f64 / period as f64;
            return Err(InjectError::Target(format!("{group} has a limit of {cores} cores already")));
        }
        let ours = match group.place.version {
            Version::One => quota.to_string(),
            Version::Two => format!("{quota} {period}"),
        };
        let setting = Setting { file: file.to_owned(), device: None, before: now, ours };
        let asked = [("micro".to_owned(), (cores * 1e6).round() as u64), ("quota".to_owned(), quota)].into();
        Ok(Limit { place: group.place.clone(), settings: vec![setting], asked })
    }

    fn counts(&self, group: &Seen<'_>, _limit: &Limit) -> Result<Counts, InjectError> {
        let throttled = flat(&group.read("cpu.stat")?, "nr_throttled").unwrap_or_default();
        Ok([("throttled".to_owned(), throttled), ("cpu_us".to_owned(), group.cpu_us()?)].into())
    }

    fn judge(&self, limit: &Limit, evidence: &Evidence) -> Proof {
        // As it was written, not as it was rounded.
        let (cores, quota) = (get(&limit.asked, "micro") as f64 / 1e6, get(&limit.asked, "quota") as f64);
        let used = evidence.rate("cpu_us") / 1e6;
        let throttled = evidence.grown("throttled");
        let most = cores * 1.1 + quota / 1e6 / evidence.seconds.max(1e-9);
        let requested = format!("at most {cores} cores");
        let measured = format!("{} cores, throttled {throttled} times", Cores((used * 1e3).round() / 1e3));
        if throttled == 0 {
            return Proof::unproven(requested, format!("{measured}: it never wanted more"));
        }
        Proof {
            status: if used <= most { ProofStatus::Confirmed } else { ProofStatus::Mismatch },
            requested,
            measured,
            tolerance: "10 % and one period".to_owned(),
            samples: throttled,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::cgroup::{Folder, Place};

    #[test]
    fn a_group_that_never_wanted_more_has_felt_nothing() {
        let folder = Folder { path: "/g".into(), inode: 1 };
        let asked = [("micro".to_owned(), 500_000), ("quota".to_owned(), 50_000)].into();
        let limit = Limit { place: Place { folder, version: Version::Two }, settings: Vec::new(), asked };
        let judge = |throttled: u64, used: u64| {
            let counts = |throttled: u64, cpu: u64| {
                Counts::from([("throttled".to_owned(), throttled), ("cpu_us".to_owned(), cpu)])
            };
            let (before, first) = (counts(7, 0), counts(7 + throttled, 0));
            let last = counts(7 + throttled, used);
            CpuThrottle.judge(&limit, &Evidence { before, first, last, seconds: 1.0 })
        };
        assert_eq!(judge(0, 30_000).status, ProofStatus::Unproven);
        assert_eq!(judge(9, 510_000).status, ProofStatus::Confirmed);
        assert_eq!(judge(9, 510_000).measured, "0.51 cores, throttled 9 times");
        assert_eq!(judge(9, 510_000).requested, "at most 0.5 cores");
        assert_eq!(judge(9, 900_000).status, ProofStatus::Mismatch);
    }
}
