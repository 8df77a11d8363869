//! What the faults have in common whose carrier is a stressor ([`crate::stress`]): only the order and the judgement
//! differ ([`Stressing`]).
//!
//! The stressor is found by its mark, from any process and however far its start came; it holds the lease, and the
//! kernel ends it with the engine.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::grouped::{self, Inside};
use super::{processes, quoted, recall, record};
use crate::about::{About, Args};
use crate::change::{Change, InjectError, Proof, ProofStatus, Undone};
use crate::group::Group;
use crate::stress::neighbours::neighbour;
use crate::stress::{Order, Seen, Task, VERB, address};
use crate::sys::cgroup::{self, Controller, Folder, Place, Version};
use crate::sys::control::ControlError;
use crate::sys::proc::{ProcessInfo, SignalName};
use crate::sys::resources::Volume;
use crate::target::{ProcessId, Target};
use crate::{Env, Injector, LEASE, Pending, Request};

/// How long a stressor may take until it answers, and until it has ended.
const DEADLINE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(5);

/// What one such fault adds to the common part.
pub(crate) trait Stressing: std::fmt::Debug + Sync {
    /// See [`Injector::about`].
    fn about(&self) -> &'static About;

    /// See [`Injector::check`].
    fn check(&self, args: &Args, target: &Target) -> Result<(), String>;

    /// What the stressor is to do. Only reads, and refuses what would harm more than was asked for.
    fn task(&self, env: &Env, request: &Request, joined: &[Place]) -> Result<Task, InjectError>;

    /// What of a control group the stressor becomes a part of.
    fn joins(&self) -> &'static [Controller] {
        &[]
    }

    /// Requested against measured.
    fn judge(&self, task: &Task, seen: &Seen, volumes: Option<[Volume; 2]>) -> Proof;
}

/// A fault that a stressor carries.
#[derive(Debug)]
pub struct Stressed<S>(pub S);

#[derive(Debug, Serialize, Deserialize)]
struct Apply {
    order: Order,
    /// The file system before, if one is filled.
    before: Option<Volume>,
    /// The container that may be restarted meanwhile.
    #[serde(default)]
    inside: Option<Inside>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Undo {
    id: String,
}

impl<S: Stressing> Injector for Stressed<S> {
    fn about(&self) -> &'static About {
        self.0.about()
    }

    fn check(&self, args: &Args, target: &Target) -> Result<(), Vec<String>> {
        self.0.check(args, target).map_err(|mistake| vec![mistake])
    }

    fn prepare<'a>(&'a self, env: &'a Env, request: &'a Request) -> Pending<'a, Result<Change, InjectError>> {
        Box::pin(async move {
            let (narrowed, inside) = grouped::narrowed(env, request).await?;
            let (meant, request) = (&request.target, &narrowed);
            let joined = joined(env, &request.target, self.0.joins())?;
            for place in &joined {
                grouped::refuse_protected(env, &place.folder).await?;
            }
            let task = self.0.task(env, request, &joined)?;
            let before = match &task {
                Task::Fill { path, .. } => Some(volume(env, path)?),
                _ => None,
            };
            let name = self.0.about().name;
            let join = folders(joined);
            let undo = record(&Undo { id: request.id.clone() });
            Ok(Change {
                id: request.id.clone(),
                fault: name.to_owned(),
                target: meant.to_string(),
                summary: format!(
                    "{name} on {meant}{}: {}",
                    grouped::name(inside.as_ref()),
                    request.args.line()
                ),
                // It occupies nothing that another one could not share: what there is, is what both are refused by.
                claims: vec![format!("stressor:{}", request.id)],
                apply: record(&Apply { order: Order { id: request.id.clone(), join, task }, before, inside }),
                picture: self.picture(env, &undo).await?,
                undo,
                manual: manual(&request.id),
            })
        })
    }

    fn apply<'a>(&'a self, env: &'a Env, change: &'a Change) -> Pending<'a, Result<(), InjectError>> {
        Box::pin(async move {
            let Apply { order, .. } = recall(&change.fault, &change.apply)?;
            start(env, &order).await
        })
    }

    fn undo<'a>(&'a self, env: &'a Env, undo: &'a Value) -> Pending<'a, Result<Undone, InjectError>> {
        Box::pin(async move {
            let Undo { id } = recall(self.0.about().name, undo)?;
            end(env, &id).await
        })
    }

    fn observe<'a>(&'a self, env: &'a Env, change: &'a Change) -> Pending<'a, Result<Proof, InjectError>> {
        Box::pin(async move {
            let Apply { order, before, inside } = recall(&change.fault, &change.apply)?;
            let seen = match look(env, &order.id).await {
                Ok(seen) => seen,
                Err(ControlError::Gone(_)) => return ended(env, change, &order, inside.as_ref()),
                Err(source) => return Err(control(source)),
            };
            if let Some(why) = seen.failed {
                return Ok(Proof::unproven(&change.summary, why));
            }
            let volumes = match (&order.task, before) {
                (Task::Fill { path, .. }, Some(before)) => Some([before, volume(env, path)?]),
                _ => None,
            };
            let mut proof = self.0.judge(&order.task, &seen, volumes);
            if let Some(inside) = inside
                && inside.over(env)?
            {
                proof.measured += "; covered again after a restart: 1";
            }
            Ok(proof)
        })
    }

    fn picture<'a>(&'a self, env: &'a Env, undo: &'a Value) -> Pending<'a, Result<Value, InjectError>> {
        Box::pin(async move {
            let Undo { id } = recall(self.0.about().name, undo)?;
            Ok(json!({"stressors": living(env, &id)?.len()}))
        })
    }

    fn renew<'a>(
        &'a self,
        env: &'a Env,
        change: &'a Change,
        _age: Duration,
    ) -> Pending<'a, Result<(), InjectError>> {
        Box::pin(async move {
            let Undo { id } = recall(&change.fault, &change.undo)?;
            match env.control.call(&address(&id), &json!({"op": "renew"})).await {
                Ok(_) => Ok(()),
                Err(ControlError::Gone(_)) => again(env, change, self.0.joins()).await,
                Err(source) => Err(control(source)),
            }
        })
    }
}

/// Starts the stressor, and waits until it is at work.
async fn start(env: &Env, order: &Order) -> Result<(), InjectError> {
    let program = env.program.to_string_lossy().into_owned();
    let text = record(order).to_string();
    let argv = [program, VERB.to_owned(), std::process::id().to_string(), text];
    let failed = |source| InjectError::System { what: "start the stressor".to_owned(), source };
    let mut started = env.procs.start(&argv, &order.id).map_err(failed)?;
    let patience = async {
        loop {
            match look(env, &order.id).await {
                Ok(Seen { failed: Some(why), .. }) => return Err(InjectError::Target(why)),
                Ok(_) => return Ok(()),
                Err(ControlError::Gone(_)) => {}
                Err(source) => return Err(control(source)),
            }
            if let Some(status) = started.ended().map_err(failed)? {
                let text = format!("the stressor ended at its start: {status}");
                return Err(InjectError::Command(text));
            }
            tokio::time::sleep(POLL).await;
        }
    };
    let late = || InjectError::Deadline(format!("the stressor did not answer within {DEADLINE:?}"));
    tokio::time::timeout(DEADLINE, patience).await.unwrap_or_else(|_| Err(late()))
}

/// Ends the stressor, and waits until it has ended.
async fn end(env: &Env, id: &str) -> Result<Undone, InjectError> {
    let mut hit: Vec<ProcessId> = Vec::new();
    let mut left = DEADLINE.as_millis() / POLL.as_millis();
    loop {
        let mut living = living(env, id)?;
        for info in &living {
            let what = || format!("end the stressor, process {}", info.id.pid);
            let failed = |source| InjectError::System { what: what(), source };
            env.procs.signal(info.id, SignalName::Kill).map_err(failed)?;
            if !hit.contains(&info.id) {
                hit.push(info.id);
            }
        }
        // An ending process loses its mark first, and what it holds a moment later.
        living.extend(processes::alive(&*env.procs, &hit)?);
        if living.is_empty() {
            return Ok(if hit.is_empty() { Undone::NothingToDo } else { Undone::Reverted });
        }
        if left == 0 {
            return Err(InjectError::Deadline(format!(
                "the stressor does not end: {}; the kernel ends no process of a group that is frozen",
                processes::names(&living)
            )));
        }
        left -= 1;
        tokio::time::sleep(POLL).await;
    }
}

/// Whether the stressor has joined groups in which nobody is left: then it has left them, and ended.
fn deserted(env: &Env, order: &Order) -> Result<bool, InjectError> {
    let failed =
        |source| InjectError::System { what: "look for who is left in the group".to_owned(), source };
    let left = neighbour(&*env.cgroups, &*env.procs, &order.join).map_err(failed)?;
    Ok(!order.join.is_empty() && left.is_none())
}

/// What is to be said of a stressor that has ended.
fn ended(env: &Env, change: &Change, order: &Order, inside: Option<&Inside>) -> Result<Proof, InjectError> {
    let over = inside.map_or(Ok(false), |inside| inside.over(env))?;
    let why = if over {
        "its container has ended; the stressor left the group with it"
    } else if deserted(env, order)? {
        "nobody is left in the group to feel it: all have ended, and the stressor has left"
    } else {
        return Ok(Proof::unproven(&change.summary, "the stressor has ended"));
    };
    Ok(Proof {
        status: ProofStatus::Mismatch,
        requested: change.summary.clone(),
        measured: why.to_owned(),
        tolerance: "none".to_owned(),
        samples: 1,
    })
}

/// What a renewal does when the stressor has ended: it goes on in the next life of its container. A group in which
/// nobody is left takes none; the proof says so.
async fn again(env: &Env, change: &Change, joins: &[Controller]) -> Result<(), InjectError> {
    let Apply { order, inside, .. } = recall(&change.fault, &change.apply)?;
    let over = inside.as_ref().map_or(Ok(false), |inside| inside.over(env))?;
    let Some(inside) = inside.filter(|_| over) else {
        return if deserted(env, &order)? { Ok(()) } else { Err(lost()) };
    };
    let Some(id) = inside.reborn(env).await? else { return Ok(()) };
    let next = async {
        let join = folders(joined(env, &Target::Group(Group::Process(id.pid)), joins)?);
        start(env, &Order { join, ..order }).await
    };
    match next.await {
        // This life is over as well: the next renewal looks again.
        Err(_) if processes::alive(&*env.procs, &[id])?.is_empty() => end(env, &change.id).await.map(drop),
        done => done,
    }
}

fn lost() -> InjectError {
    InjectError::Target(
        "the stressor has ended, and squall did not end it: the kernel may have been short of memory, see `dmesg`"
            .to_owned(),
    )
}

fn folders(places: Vec<Place>) -> Vec<Folder> {
    let mut all: Vec<Folder> = places.into_iter().map(|place| place.folder).collect();
    all.sort();
    all.dedup();
    all
}

/// The groups that the stressor joins. None on the host as a whole: it runs where squall runs.
fn joined(env: &Env, target: &Target, controllers: &[Controller]) -> Result<Vec<Place>, InjectError> {
    let Target::Group(group) = target else { return Ok(Vec::new()) };
    if *group == Group::Host {
        return Ok(Vec::new());
    }
    let mut joined = Vec::new();
    for (number, controller) in controllers.iter().enumerate() {
        let place = match cgroup::find(&*env.cgroups, group, *controller) {
            Ok(place) => place,
            // The first is what it is about; the others are joined where the group is known to them.
            Err(_) if number > 0 => continue,
            Err(error) => return Err(error),
        };
        let path = place.folder.path.display();
        if !env.cgroups.writable(&place.folder, "cgroup.procs") {
            let text =
                format!("the stressor cannot join {path}: cgroup.procs cannot be written; it needs root");
            return Err(InjectError::Lack(text));
        }
        if place.version == Version::Two {
            let read = |file: &str| {
                let failed = |source| InjectError::System { what: format!("read {path}/{file}"), source };
                env.cgroups.read(&place.folder, file).map(Option::unwrap_or_default).map_err(failed)
            };
            if !read("cgroup.subtree_control")?.trim().is_empty() {
                let text =
                    format!("{path} only holds other groups, which takes no processes: name one of those");
                return Err(InjectError::Target(text));
            }
            if read("cgroup.freeze")?.trim() == "1" {
                let text = format!("{path} is frozen: nothing in it runs");
                return Err(InjectError::Target(text));
            }
        }
        joined.push(place);
    }
    Ok(joined)
}

pub(crate) fn volume(env: &Env, path: &std::path::Path) -> Result<Volume, InjectError> {
    let failed = |source| InjectError::System { what: format!("look at {}", path.display()), source };
    env.resources.volume(path).map_err(failed)
}

/// A file system on which the stressor is to make files.
pub(crate) fn writable(env: &Env, target: &Target) -> Result<(std::path::PathBuf, Volume), InjectError> {
    let Target::Volume(path) = target else {
        return Err(InjectError::Target(format!("{target} is no file system")));
    };
    let volume = volume(env, path)?;
    if !volume.writable {
        let text = format!("no files can be made in {}, as this user or at all", path.display());
        return Err(InjectError::Lack(text));
    }
    Ok((path.clone(), volume))
}

async fn look(env: &Env, id: &str) -> Result<Seen, ControlError> {
    let answer = env.control.call(&address(id), &json!({"op": "observe"})).await?;
    Ok(serde_json::from_value(answer["seen"].clone())?)
}

fn living(env: &Env, id: &str) -> Result<Vec<ProcessInfo>, InjectError> {
    let failed = |source| InjectError::System { what: "look for the stressor".to_owned(), source };
    env.procs.marked(id).map_err(failed)
}

fn control(source: ControlError) -> InjectError {
    InjectError::Control { what: "the stressor".to_owned(), source }
}

fn manual(id: &str) -> String {
    let mark = quoted(&format!("SQUALL_RESTART={id}"));
    format!(
        "nothing: it ends by itself {} s after the last renewal, and with squall. At once: kill -9 $(grep -alz {mark} \
         /proc/[0-9]*/environ | cut -d/ -f3)",
        LEASE.as_secs()
    )
}

/// Bytes as people read them.
pub(crate) fn bytes(count: u64) -> String {
    let steps = [(1_u64 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match steps.iter().find(|(scale, _)| count >= *scale) {
        Some((scale, unit)) => format!("{:.1} {unit}", count as f64 / *scale as f64),
        None => format!("{count} B"),
    }
}
