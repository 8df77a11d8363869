//! What the faults have in common that write into a control group ([`Limiting`]): only what is written, what is counted
//! and the judgement differ.
//!
//! A setting is put back only where it still is what squall has set: what somebody else has written since is theirs. It
//! lives in the kernel and has no lease of its own: engine, guardian or `squall recover` put it back.

mod seen;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub(crate) use self::seen::{STATE, Seen, before};
use self::seen::{line, write};
use super::grouped::{self, Inside};
use super::{processes, quoted, recall, record};
use crate::about::{About, Args};
use crate::change::{Change, InjectError, Proof, ProofStatus, Undone};
use crate::group::Group;
use crate::sys::cgroup::{self, Controller, PROCESSES_MAX, Place};
use crate::target::Target;
use crate::{Env, Injector, Looks, Pending, Request};

/// How far apart the two looks are that tell how fast something goes: several periods of the kernel's.
const WINDOW: Duration = Duration::from_millis(if cfg!(test) { 5 } else { 400 });
/// How long the kernel may take to do what was written.
const SETTLE_DEADLINE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(5);

/// What the kernel counts about a group, by name.
pub(crate) type Counts = BTreeMap<String, u64>;

/// One value of one file of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Setting {
    pub(crate) file: String,
    /// Whose value it is, in a file that has one for each device.
    pub(crate) device: Option<String>,
    pub(crate) before: String,
    pub(crate) ours: String,
}

/// What one such fault writes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Limit {
    pub(crate) place: Place,
    pub(crate) settings: Vec<Setting>,
    /// What was asked for, by name.
    pub(crate) asked: Counts,
}

/// What a proof is judged by.
#[derive(Debug, Clone)]
pub(crate) struct Evidence {
    /// Before the change.
    pub(crate) before: Counts,
    /// A moment ago.
    pub(crate) first: Counts,
    /// Now.
    pub(crate) last: Counts,
    /// Between the two.
    pub(crate) seconds: f64,
}

impl Evidence {
    /// How much a count has grown since before the change.
    pub(crate) fn grown(&self, name: &str) -> u64 {
        get(&self.last, name).saturating_sub(get(&self.before, name))
    }

    /// How fast a count grows now, per second.
    pub(crate) fn rate(&self, name: &str) -> f64 {
        get(&self.last, name).saturating_sub(get(&self.first, name)) as f64 / self.seconds.max(1e-9)
    }

    /// A count as it is now.
    pub(crate) fn now(&self, name: &str) -> u64 {
        get(&self.last, name)
    }
}

/// A count, or nothing.
pub(crate) fn get(counts: &Counts, name: &str) -> u64 {
    counts.get(name).copied().unwrap_or_default()
}

/// What one such fault adds to the common part.
pub(crate) trait Limiting: std::fmt::Debug + Sync {
    /// See [`Injector::about`].
    fn about(&self) -> &'static About;

    /// See [`Injector::check`].
    fn check(&self, args: &Args) -> Result<(), String>;

    /// What of the group it changes.
    fn controller(&self) -> Controller;

    /// What it writes. Only reads, and refuses what would harm more than was asked for.
    fn limit(&self, group: &Seen<'_>, args: &Args) -> Result<Limit, InjectError>;

    /// What the kernel counts of the group.
    fn counts(&self, group: &Seen<'_>, limit: &Limit) -> Result<Counts, InjectError>;

    /// Whether the kernel has done what was written.
    fn settled(&self, _group: &Seen<'_>) -> Result<bool, InjectError> {
        Ok(true)
    }

    /// Requested against measured, while the setting is in force.
    fn judge(&self, limit: &Limit, evidence: &Evidence) -> Proof;

    /// How far apart the two looks are that a proof compares.
    fn window(&self) -> Duration {
        WINDOW
    }

    /// See [`Injector::looks`].
    fn looks(&self) -> Looks {
        Looks::Felt
    }
}

/// A fault that writes into a control group.
#[derive(Debug)]
pub struct Limited<L>(pub L);

#[derive(Debug, Serialize, Deserialize)]
struct Apply {
    limit: Limit,
    before: Counts,
    /// The container that may be restarted meanwhile.
    #[serde(default)]
    inside: Option<Inside>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Undo {
    place: Place,
    settings: Vec<Setting>,
    /// The container that may have been restarted since.
    #[serde(default)]
    inside: Option<Inside>,
}

/// The group that a container has got since by a restart.
async fn later(
    env: &Env,
    inside: Option<&Inside>,
    controller: Controller,
) -> Result<Option<Place>, InjectError> {
    match inside {
        Some(inside) => inside.later(env, controller).await,
        None => Ok(None),
    }
}

impl<L: Limiting> Injector for Limited<L> {
    fn about(&self) -> &'static About {
        self.0.about()
    }

    fn looks(&self) -> Looks {
        self.0.looks()
    }

    fn check(&self, args: &Args, target: &Target) -> Result<(), Vec<String>> {
        let mut mistakes: Vec<String> = self.0.check(args).err().into_iter().collect();
        if *target == Target::Group(Group::Host) {
            mistakes
                .push(
                    "name a control group: `cgroup`, `pid`, or a container (`container`, `label`, `image`); it is not made on the \
                     whole host".to_owned(),
                );
        }
        if mistakes.is_empty() { Ok(()) } else { Err(mistakes) }
    }

    fn prepare<'a>(&'a self, env: &'a Env, request: &'a Request) -> Pending<'a, Result<Change, InjectError>> {
        Box::pin(async move {
            let (narrowed, inside) = grouped::narrowed(env, request).await?;
            let Target::Group(group) = &narrowed.target else {
                return Err(InjectError::Target(format!("{} is no control group", request.target)));
            };
            let place = cgroup::find(&*env.cgroups, group, self.0.controller())?;
            let seen = Seen { env, place: &place };
            refuse_own(&seen)?;
            grouped::refuse_protected(env, &place.folder).await?;
            let limit = self.0.limit(&seen, &request.args)?;
            refuse_settings(&seen, &limit.settings)?;
            let before = self.0.counts(&seen, &limit)?;
            let undo = record(&Undo {
                place: place.clone(),
                settings: limit.settings.clone(),
                inside: inside.clone(),
            });
            let folder = place.folder.path.display().to_string();
            let set = |one: &Setting| format!("{} = {}", one.file, line(one.device.as_deref(), &one.ours));
            let sets: Vec<String> = limit.settings.iter().map(set).collect();
            Ok(Change {
                id: request.id.clone(),
                fault: self.0.about().name.to_owned(),
                target: request.target.to_string(),
                summary: format!(
                    "{} on {}{}: {} in {folder}",
                    self.0.about().name,
                    request.target,
                    grouped::name(inside.as_ref()),
                    sets.join(", ")
                ),
                claims: limit.settings.iter().map(|one| format!("cgroup:{folder}/{}", one.file)).collect(),
                picture: self.picture(env, &undo).await?,
                manual: manual(&place, &limit.settings),
                undo,
                apply: record(&Apply { limit, before, inside }),
            })
        })
    }

    fn apply<'a>(&'a self, env: &'a Env, change: &'a Change) -> Pending<'a, Result<(), InjectError>> {
        Box::pin(async move {
            let Apply { limit, .. } = recall(&change.fault, &change.apply)?;
            let seen = Seen { env, place: &limit.place };
            for one in &limit.settings {
                if !write(&seen, one, &one.ours).await? {
                    return Err(InjectError::Target(format!("{seen} has gone")));
                }
            }
            let mut left = SETTLE_DEADLINE.as_millis() / POLL.as_millis();
            while !self.0.settled(&seen)? {
                if left == 0 {
                    let text = format!("{seen} did not follow within {SETTLE_DEADLINE:?}");
                    return Err(InjectError::Deadline(text));
                }
                left -= 1;
                tokio::time::sleep(POLL).await;
            }
            Ok(())
        })
    }

    fn undo<'a>(&'a self, env: &'a Env, undo: &'a Value) -> Pending<'a, Result<Undone, InjectError>> {
        Box::pin(async move {
            let Undo { place, settings, inside } = recall(self.0.about().name, undo)?;
            let place = later(env, inside.as_ref(), self.0.controller()).await?.unwrap_or(place);
            let seen = Seen { env, place: &place };
            let (mut outcome, mut foreign) = (Undone::NothingToDo, None);
            for one in settings.iter().rev() {
                match seen.value(&one.file, one.device.as_deref(), &one.ours)? {
                    // A group that has gone took its settings along.
                    None => return Ok(Undone::NothingToDo),
                    Some(value) if value == one.ours => {
                        write(&seen, one, &one.before).await?;
                        outcome = Undone::Reverted;
                    }
                    Some(value) if value == one.before => {}
                    Some(value) => foreign = Some((one, value)),
                }
            }
            let Some((one, value)) = foreign else { return Ok(outcome) };
            Err(InjectError::Target(format!(
                "somebody else has written {value} into {}, which squall had set from {} to {}: it is left alone; set it \
                 to what you want and forget it (`squall recover` names the command), or back to {}, then `squall recover`",
                place.folder.path.join(&one.file).display(),
                one.before,
                one.ours,
                one.before
            )))
        })
    }

    fn observe<'a>(&'a self, env: &'a Env, change: &'a Change) -> Pending<'a, Result<Proof, InjectError>> {
        Box::pin(async move {
            let Apply { mut limit, mut before, inside } = recall(&change.fault, &change.apply)?;
            let again = later(env, inside.as_ref(), self.0.controller()).await?;
            let restarted = again.is_some();
            if let Some(place) = again {
                // The next group counts from nothing.
                (limit.place, before) = (place, Counts::new());
            }
            let seen = Seen { env, place: &limit.place };
            for one in &limit.settings {
                let value = seen.value(&one.file, one.device.as_deref(), &one.ours)?;
                if restarted && value.as_ref() == Some(&one.before) {
                    return Ok(Proof::unproven(
                        change.summary.clone(),
                        "its container was restarted a moment ago",
                    ));
                }
                if value.as_ref() != Some(&one.ours) {
                    let measured = match value {
                        None => "it is no longer there: the group has gone".to_owned(),
                        Some(value) if value == one.before => {
                            format!("it is {value} again: the guardian or somebody else has put it back")
                        }
                        Some(value) => format!("it is {value}: somebody else has changed it"),
                    };
                    return Ok(Proof {
                        status: ProofStatus::Mismatch,
                        requested: format!("{} = {}", one.file, one.ours),
                        measured,
                        tolerance: "none".to_owned(),
                        samples: 1,
                    });
                }
            }
            let (first, began) = (self.0.counts(&seen, &limit)?, crate::sys::timer::monotonic());
            tokio::time::sleep(self.0.window()).await;
            let (last, ended) = (self.0.counts(&seen, &limit)?, crate::sys::timer::monotonic());
            let seconds = (ended - began) as f64 / 1e9;
            let mut proof = self.0.judge(&limit, &Evidence { before, first, last, seconds });
            if restarted {
                proof.measured += "; covered again after a restart: 1";
            }
            Ok(proof)
        })
    }

    fn renew<'a>(
        &'a self,
        env: &'a Env,
        change: &'a Change,
        _age: Duration,
    ) -> Pending<'a, Result<(), InjectError>> {
        Box::pin(async move {
            let Apply { limit, inside, .. } = recall(&change.fault, &change.apply)?;
            let Some(place) = later(env, inside.as_ref(), self.0.controller()).await? else { return Ok(()) };
            let seen = Seen { env, place: &place };
            for one in &limit.settings {
                // What somebody else has written since is theirs.
                if seen.value(&one.file, one.device.as_deref(), &one.ours)?.as_ref() == Some(&one.before) {
                    write(&seen, one, &one.ours).await?;
                }
            }
            Ok(())
        })
    }

    fn picture<'a>(&'a self, env: &'a Env, undo: &'a Value) -> Pending<'a, Result<Value, InjectError>> {
        Box::pin(async move {
            let Undo { place, settings, inside } = recall(self.0.about().name, undo)?;
            let place = later(env, inside.as_ref(), self.0.controller()).await?.unwrap_or(place);
            let seen = Seen { env, place: &place };
            let mut values = serde_json::Map::new();
            for one in &settings {
                let Some(value) = seen.value(&one.file, one.device.as_deref(), &one.ours)? else {
                    return Ok(json!({"gone": true}));
                };
                values.insert(one.file.clone(), Value::String(line(one.device.as_deref(), &value)));
            }
            Ok(Value::Object(values))
        })
    }
}

/// squall must be able to undo what it does: it never slows itself or what guards it.
fn refuse_own(seen: &Seen<'_>) -> Result<(), InjectError> {
    let procs = &*seen.env.procs;
    let inside = seen.processes()?;
    if inside.is_empty() {
        return Err(InjectError::Target(format!("{seen} holds no process")));
    }
    if inside.len() > PROCESSES_MAX {
        return Err(InjectError::Target(format!(
            "{seen} holds more than {PROCESSES_MAX} processes; refused"
        )));
    }
    let mut protected = processes::protected(procs);
    let own = std::process::id();
    let name = |pid| procs.look(pid).ok().flatten().map(|info| info.comm);
    // The guardian and the relays are children of the same program.
    protected
        .extend(inside.iter().filter(|pid| procs.parent(**pid) == Some(own) && name(**pid) == name(own)));
    match inside.iter().find(|pid| protected.contains(pid)) {
        Some(pid) => Err(InjectError::Target(format!(
            "{seen} holds process {pid}, which is squall itself, a process that guards or serves it, one of its ancestors or process 1; refused"
        ))),
        None => Ok(()),
    }
}

/// Settings that cannot be made, or are made already.
fn refuse_settings(seen: &Seen<'_>, settings: &[Setting]) -> Result<(), InjectError> {
    for one in settings {
        if one.before == one.ours {
            return Err(InjectError::Target(format!("{seen} has {} = {} already", one.file, one.ours)));
        }
        if !seen.env.cgroups.writable(&seen.place.folder, &one.file) {
            let path = seen.place.folder.path.join(&one.file);
            return Err(InjectError::Lack(format!("{} cannot be written; it needs root", path.display())));
        }
    }
    Ok(())
}

fn manual(place: &Place, settings: &[Setting]) -> String {
    let one = |one: &Setting| {
        let path = place.folder.path.join(&one.file);
        let text = line(one.device.as_deref(), &one.before);
        format!("echo {} > {}", quoted(&text), quoted(&path.to_string_lossy()))
    };
    settings.iter().rev().map(one).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::seen::device_value;

    #[test]
    fn a_device_without_a_line_has_no_limit() {
        let one = "8:0 4096\n253:0 17\n";
        assert_eq!(device_value(one, "8:0", "5"), "4096");
        assert_eq!(device_value(one, "8:16", "5"), "0");
        let two = "8:0 rbps=max wbps=4096 riops=max wiops=10\n";
        assert_eq!(device_value(two, "8:0", "wbps=1 wiops=1"), "wbps=4096 wiops=10");
        assert_eq!(device_value(two, "8:16", "rbps=1"), "rbps=max");
    }
}
