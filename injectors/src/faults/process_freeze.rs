//! `process-freeze`: a whole control group stands still.

use std::time::Duration;

use super::limited::{Counts, Evidence, Limit, Limiting, STATE, Seen, Setting, before};
use crate::Looks;
use crate::about::{About, Args, Effect};
use crate::change::{InjectError, Proof, ProofStatus};
use crate::sys::cgroup::{Controller, Version, flat};
use crate::target::TargetKind;

/// A whole control group stands still.
#[derive(Debug)]
pub struct ProcessFreeze;

static ABOUT: About = About {
    name: "process-freeze",
    summary: "Freezes all processes of a control group at once, so that they hang while their sockets stay open",
    description: "What `docker pause` does: the kernel stops every process of the group and of the groups below it, and those \
                  that start there meanwhile, without a signal that they or their parents could see. Callers meet silence: \
                  connections are accepted and nobody answers. With cgroup v2 (cgroup.freeze) or v1 (freezer.state). Groups \
                  that hold squall, its guardian or its ancestors are refused, as is the root group. A frozen group stays \
                  frozen if both squall and its guardian are killed: `squall recover` thaws it.",
    target: TargetKind::Group,
    params: &[],
    needs: &["root, or a group that was delegated to this user", "cgroup v2, or the v1 controller freezer"],
    effect: Effect::Outage,
    proof: "The kernel says that the group is frozen, and none of its processes has had any processor time between two looks.",
    undo: "The group is thawed if it still is frozen as squall has frozen it. One above it that somebody else has frozen stays so.",
    example: "- process-freeze: {cgroup: system.slice/nginx.service}",
};

impl Limiting for ProcessFreeze {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn check(&self, _args: &Args) -> Result<(), String> {
        Ok(())
    }

    fn controller(&self) -> Controller {
        Controller::Freezer
    }

    fn window(&self) -> Duration {
        // Whoever runs at all has had some time by then.
        Duration::from_millis(50)
    }

    fn looks(&self) -> Looks {
        Looks::State
    }

    fn limit(&self, group: &Seen<'_>, _args: &Args) -> Result<Limit, InjectError> {
        let (file, ours) = match group.place.version {
            Version::One => (STATE, "FROZEN"),
            Version::Two => ("cgroup.freeze", "1"),
        };
        let before = before(group, file, None, ours)?;
        if before == ours || frozen(group)? {
            return Err(InjectError::Target(format!("{group} is frozen already, by somebody else")));
        }
        let setting = Setting { file: file.to_owned(), device: None, before, ours: ours.to_owned() };
        let place = group.place.clone();
        Ok(Limit { place, settings: vec![setting], asked: Counts::new() })
    }

    fn counts(&self, group: &Seen<'_>, _limit: &Limit) -> Result<Counts, InjectError> {
        Ok([
            ("frozen".to_owned(), u64::from(frozen(group)?)),
            ("processes".to_owned(), group.processes()?.len() as u64),
            ("cpu_us".to_owned(), group.cpu_us()?),
        ]
        .into())
    }

    fn settled(&self, group: &Seen<'_>) -> Result<bool, InjectError> {
        frozen(group)
    }

    fn judge(&self, _limit: &Limit, evidence: &Evidence) -> Proof {
        let (frozen, processes) = (evidence.now("frozen") == 1, evidence.now("processes"));
        let used = evidence.rate("cpu_us") * evidence.seconds / 1e3;
        let word = if frozen { "frozen" } else { "not frozen" };
        Proof {
            // What is still on its way into the ice when a look begins may take a moment of time.
            status: if frozen && used < 1.0 { ProofStatus::Confirmed } else { ProofStatus::Mismatch },
            requested: "all frozen".to_owned(),
            measured: format!(
                "{word}; {processes} processes had {used:.0} ms of processor time in {:.0} ms",
                evidence.seconds * 1e3
            ),
            tolerance: "none".to_owned(),
            samples: processes,
        }
    }
}

/// Whether everything in the group stands still.
fn frozen(group: &Seen<'_>) -> Result<bool, InjectError> {
    Ok(match group.place.version {
        Version::One => group.read(STATE)?.trim() == "FROZEN",
        Version::Two => flat(&group.read("cgroup.events")?, "frozen") == Some(1),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::cgroup::{Folder, Place};

    #[test]
    fn a_group_that_works_on_is_a_mismatch_whatever_its_state_says() {
        let folder = Folder { path: "/g".into(), inode: 1 };
        let limit = Limit {
            place: Place { folder, version: Version::Two },
            settings: Vec::new(),
            asked: Counts::new(),
        };
        let judge = |frozen: u64, used: u64| {
            let counts = |cpu: u64| Counts::from([("frozen".to_owned(), frozen), ("cpu_us".to_owned(), cpu)]);
            let (first, last) = (counts(5_000), counts(5_000 + used));
            let evidence = Evidence { before: Counts::new(), first, last, seconds: 0.4 };
            ProcessFreeze.judge(&limit, &evidence).status
        };
        assert_eq!(judge(1, 0), ProofStatus::Confirmed);
        assert_eq!(judge(1, 20_000), ProofStatus::Mismatch);
        assert_eq!(judge(0, 0), ProofStatus::Mismatch);
    }
}
