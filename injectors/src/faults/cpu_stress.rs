//! `cpu-stress`: a neighbour that uses processor time.

use super::stressed::Stressing;
use crate::about::{About, Args, Effect, Param, ParamKind, Presence};
use crate::change::{InjectError, Proof, ProofStatus};
use crate::group::Group;
use crate::stress::{Seen, Task};
use crate::sys::cgroup::{Controller, Place};
use crate::sys::resources::Volume;
use crate::target::{Target, TargetKind};
use crate::{Env, Request};

/// A neighbour that uses processor time.
#[derive(Debug)]
pub struct CpuStress;

static ABOUT: About = About {
    name: "cpu-stress",
    summary: "Burns processor time on some cores, on this host or inside a control group",
    description: "A process of squall's own has one busy thread for each of `cores`, and each of them works for `load` of the \
                  time, in slices of 2 ms: what a noisy neighbour, a runaway batch job or a busy loop takes away. Without \
                  `cgroup` or `pid` it runs in squall's own group, as one more process of this host. With one, it becomes a \
                  member of that group (controllers cpu, cpuacct and cpuset), and shares its limits and its weight: the way \
                  to starve one container and nobody else. When all others of the group have ended, it leaves; after a restart of \
                  the container it goes on in its next life. It ends with squall, or 3 s after the last renewal.",
    target: TargetKind::Group,
    params: &[
        Param {
            name: "cores",
            kind: ParamKind::Int { min: 1, max: 1024 },
            presence: Presence::Required,
            help: "how many threads are busy",
        },
        Param {
            name: "load",
            kind: ParamKind::Share,
            presence: Presence::Required,
            help: "the share of the time in which each of them works",
        },
    ],
    needs: &["nothing; in a group or a container: the right to write the group's cgroup.procs (root)"],
    effect: Effect::Degradation,
    proof: "The processor time that the kernel has given to the stressor, against the time: confirmed within 10% and 0.02 cores of \
            what was asked for. Where it got less, it must have waited for the rest, ready to run, while others had the processors: \
            then they were as full as asked for.",
    undo: "The stressor is killed, and waited for.",
    example: "- cpu-stress: {cores: 2, load: 80%}",
};

/// Less than this tells nothing about a load that goes in slices.
const SPAN_MIN: f64 = 0.2;

impl Stressing for CpuStress {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn check(&self, args: &Args, _target: &Target) -> Result<(), String> {
        match args.share("load") {
            Some(load) if load < 0.01 => Err("load must be at least 1%".to_owned()),
            _ => Ok(()),
        }
    }

    fn joins(&self) -> &'static [Controller] {
        &[Controller::Cpu, Controller::CpuAccount, Controller::CpuSet]
    }

    fn task(&self, env: &Env, request: &Request, _joined: &[Place]) -> Result<Task, InjectError> {
        let cores = request.args.int("cores").unwrap_or(1);
        let (there, whose) = match &request.target {
            Target::Group(Group::Host) => (env.resources.own_cores(), "squall may use"),
            _ => (env.resources.cores(), "this host has"),
        };
        if cores > there as u64 {
            return Err(InjectError::Target(format!("{whose} {there} cores, not {cores}: ask for fewer")));
        }
        Ok(Task::Cpu { cores: cores as u32, load: request.args.share("load").unwrap_or_default() })
    }

    fn judge(&self, task: &Task, seen: &Seen, _volumes: Option<[Volume; 2]>) -> Proof {
        let Task::Cpu { cores, load } = task else { return Proof::unproven("cores", "it burns nothing") };
        let wanted = f64::from(*cores) * load;
        let requested = format!("{wanted:.2} cores ({cores} × {:.0} %)", load * 100.0);
        if seen.elapsed_s < SPAN_MIN {
            return Proof::unproven(requested, format!("only {:.0} ms are over", seen.elapsed_s * 1e3));
        }
        let (got, waited) = (seen.cpu_s / seen.elapsed_s, seen.waited_s / seen.elapsed_s);
        // Its own housekeeping, and the ends of the slices.
        let close = (got - wanted).abs() <= 0.1 * wanted + 0.02;
        // What others do not leave to it, it has to wait for: the processors are full, which is what was asked for.
        let full = got < wanted && got + waited >= 0.9 * wanted;
        let why = if close || got > wanted {
            String::new()
        } else if full {
            format!("; ready to run, it waited for {:.2} more", wanted - got)
        } else {
            ": it was given no more".to_owned()
        };
        Proof {
            status: if close || full { ProofStatus::Confirmed } else { ProofStatus::Mismatch },
            requested,
            measured: format!("{got:.2} cores over {:.1} s{why}", seen.elapsed_s),
            tolerance: "10 % and 0.02 cores".to_owned(),
            samples: 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stressor_that_was_given_less_must_have_waited_for_the_rest() {
        let judge = |elapsed_s: f64, cpu_s: f64, waited_s: f64| {
            let seen = Seen { elapsed_s, cpu_s, waited_s, ..Seen::default() };
            CpuStress.judge(&Task::Cpu { cores: 2, load: 0.8 }, &seen, None)
        };
        assert_eq!(judge(10.0, 15.8, 0.1).status, ProofStatus::Confirmed);
        assert_eq!(judge(10.0, 15.8, 0.1).measured, "1.58 cores over 10.0 s");
        assert_eq!(judge(0.1, 0.16, 0.0).status, ProofStatus::Unproven);
        let full = judge(10.0, 11.0, 6.0);
        assert_eq!(full.status, ProofStatus::Confirmed);
        assert_eq!(full.measured, "1.10 cores over 10.0 s; ready to run, it waited for 0.50 more");
        let idle = judge(10.0, 5.0, 0.2);
        assert_eq!(idle.status, ProofStatus::Mismatch);
        assert!(idle.measured.contains("given no more"), "{idle:?}");
        assert_eq!(judge(10.0, 20.0, 0.0).status, ProofStatus::Mismatch);
    }
}
