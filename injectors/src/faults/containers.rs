//! What the container faults share: finding the containers of a target, and never the wrong ones; having them run again.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::quoted;
use crate::containers::{Containers, Which};
use crate::sys::docker::{Act, Container, Listed, Status, api};
use crate::target::{ProcessId, Target};
use crate::{Change, Env, InjectError, Injector, Request, Undone, pick};

/// What a fault of containers needs.
pub(crate) const NEEDS: &[&str] =
    &["a container engine (Docker or podman) on this host, and the right to use its socket"];
/// More containers than this in one injection are refused: something else was meant.
const HITS_MAX: usize = 64;
/// Containers with this label, whatever its value, are never hit.
pub(crate) const PROTECT: &str = "squall.protect";
/// What was asked of the engine by somebody who has died meanwhile, it may still be doing for so long.
pub(crate) const SETTLE: Duration = Duration::from_millis(if cfg!(test) { 20 } else { 500 });
/// How long a container that was started may take until it runs.
const START_DEADLINE: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 10 });
const POLL: Duration = Duration::from_millis(20);

/// One container that is hit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Hit {
    /// Its full id.
    pub(crate) id: String,
    pub(crate) name: String,
    /// When it was started: one life of it.
    pub(crate) started: String,
    /// Its main process; none if it cannot be seen from here.
    pub(crate) process: Option<ProcessId>,
}

/// The containers of one injection, as they are found again without anything but this.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Hits {
    pub(crate) socket: PathBuf,
    pub(crate) which: Which,
    /// How many of them ran when they were looked for.
    pub(crate) all: usize,
    pub(crate) each: Vec<Hit>,
}

impl Hit {
    /// Whether this is a later life of the container.
    pub(crate) fn reborn(&self, now: &Container) -> bool {
        up(now) && now.started != self.started
    }

    /// Its main process, for faults that act where it lives.
    pub(crate) fn seen(&self) -> Result<ProcessId, InjectError> {
        self.process.ok_or_else(|| {
            InjectError::Lack(format!(
                "the process of container {} cannot be seen from here; run squall on the engine's host, in its pid \
                 namespace (docker run --pid=host)",
                self.name
            ))
        })
    }

    pub(crate) fn short(&self) -> &str {
        self.id.get(..api::SHORT).unwrap_or(&self.id)
    }

    /// `web-1 (3f9ac1b2d3e4)`.
    pub(crate) fn title(&self) -> String {
        format!("{} ({})", self.name, self.short())
    }
}

/// Whether its processes are there.
pub(crate) fn up(container: &Container) -> bool {
    matches!(container.status, Status::Running | Status::Paused)
}

/// What a change says of itself.
pub(crate) struct Words {
    pub(crate) summary: String,
    pub(crate) claims: Vec<String>,
    pub(crate) manual: String,
}

/// The change of a fault whose undo needs the same data as its apply. Only reads.
pub(crate) async fn change(
    injector: &dyn Injector,
    env: &Env,
    request: &Request,
    Words { summary, claims, manual }: Words,
    data: Value,
) -> Result<Change, InjectError> {
    Ok(Change {
        id: request.id.clone(),
        fault: injector.about().name.to_owned(),
        target: request.target.to_string(),
        summary,
        claims,
        apply: data.clone(),
        picture: injector.picture(env, &data).await?,
        undo: data,
        manual,
    })
}

/// The containers that a request means, each with a look at it. Only reads.
pub(crate) async fn find(env: &Env, request: &Request) -> Result<(Hits, Vec<Container>), InjectError> {
    let Target::Containers(wanted) = &request.target else {
        return Err(InjectError::Target(format!("{} is no container", request.target)));
    };
    let socket = env.docker.socket()?;
    let (all, found) = match &wanted.which {
        Which::Named(name) => (1, vec![named(env, &socket, name).await?]),
        which => several(env, &socket, wanted, which, request.seed).await?,
    };
    for container in &found {
        refuse_state(container)?;
    }
    let each = found.iter().map(|container| hit(env, container)).collect::<Result<_, _>>()?;
    Ok((Hits { socket, which: wanted.which.clone(), all, each }, found))
}

async fn named(env: &Env, socket: &Path, name: &str) -> Result<Container, InjectError> {
    let found = env.docker.look(socket, name).await?;
    let found = found.ok_or_else(|| InjectError::Target(format!("there is no container {name}")))?;
    if env.procs.enclosing().contains(&found.id) {
        return Err(InjectError::Target(format!("squall itself runs in container {name}; refused")));
    }
    if found.labels.contains_key(PROTECT) {
        return Err(InjectError::Target(format!("container {name} is protected by its label {PROTECT}")));
    }
    Ok(found)
}

/// How many running containers are meant, and those of them that the seed has chosen, sorted by name.
async fn several(
    env: &Env,
    socket: &Path,
    wanted: &Containers,
    which: &Which,
    seed: u64,
) -> Result<(usize, Vec<Container>), InjectError> {
    let own = env.procs.enclosing();
    let mut meant = meant(env, socket, which).await?;
    let running = meant.len();
    meant.retain(|listed| !own.contains(&listed.id) && !listed.labels.contains_key(PROTECT));
    // By name: the same seed chooses the same ones after all of them were made anew.
    meant.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
    let free = meant.len();
    let spared = match running - free {
        0 => String::new(),
        spared => format!(", besides {spared} in which squall runs or which {PROTECT} protects"),
    };
    let refuse = |text: String| Err(InjectError::Target(text));
    let count = match wanted.pick {
        _ if free == 0 => return refuse(format!("none of the {which} runs{spared}")),
        None if free == 1 => 1,
        None => {
            let text = format!("{free} {which} run: say how many are hit: pick: one, pick: 50%, pick: all");
            return refuse(text);
        }
        Some(pick) => pick.of(free),
    };
    if count > free {
        return refuse(format!("only {free} {which} run, not {count}{spared}"));
    }
    if count > HITS_MAX {
        return refuse(format!("{count} containers are meant, more than {HITS_MAX} at once; refused"));
    }
    let mut found = Vec::new();
    for listed in pick::chosen(seed, meant, count) {
        let container = env.docker.look(socket, &listed.id).await?;
        let gone = || InjectError::Target(format!("container {} has just been removed", listed.name));
        found.push(container.ok_or_else(gone)?);
    }
    Ok((running, found))
}

/// The running containers that are meant, whoever protects them.
async fn meant(env: &Env, socket: &Path, which: &Which) -> Result<Vec<Listed>, InjectError> {
    let mut listed = env.docker.running(socket).await?;
    listed.retain(|one| match which {
        Which::Named(name) => one.name == *name || one.id.starts_with(name.as_str()),
        which => which.means(&one.image, &one.labels),
    });
    Ok(listed)
}

fn refuse_state(container: &Container) -> Result<(), InjectError> {
    let name = &container.name;
    Err(InjectError::Target(match container.status {
        Status::Running => return Ok(()),
        Status::Paused => format!("container {name} is paused already, by somebody else"),
        Status::Restarting => format!("container {name} is waiting for its restart policy to start it"),
        Status::Down => format!("container {name} does not run"),
    }))
}

fn hit(env: &Env, container: &Container) -> Result<Hit, InjectError> {
    let Container { id, name, started, .. } = container;
    let process = match container.pid {
        Some(pid) => process(env, id, pid)?,
        None => None,
    };
    Ok(Hit { id: id.clone(), name: name.clone(), started: started.clone(), process })
}

/// A container's process, if it is the one that has this number here: an engine in another machine or pid namespace
/// counts its own.
pub(crate) fn process(env: &Env, id: &str, pid: u32) -> Result<Option<ProcessId>, InjectError> {
    let failed = |source| InjectError::System { what: format!("look at process {pid}"), source };
    let Some(info) = env.procs.look(pid).map_err(failed)? else { return Ok(None) };
    let inside = env.procs.cgroups(pid).is_ok_and(|cgroups| cgroups.contains(id));
    Ok(Some(info.id).filter(|_| inside))
}

/// Refuses to end a container in whose network namespace others live: they would stay behind in a dead one, and no
/// undo could bring them out.
pub(crate) async fn refuse_shared(env: &Env, hits: &Hits) -> Result<(), InjectError> {
    for guest in env.docker.running(&hits.socket).await? {
        // By id, a part of it, or its name, as it was written when the guest was made.
        let Some(host) = guest.network_mode.strip_prefix("container:").filter(|host| !host.is_empty()) else {
            continue;
        };
        if let Some(hit) = hits.each.iter().find(|hit| hit.id.starts_with(host) || hit.name == host) {
            return Err(InjectError::Target(format!(
                "container {} lives in the network namespace of {} and would stay behind in a dead one; use \
                 container-pause or a network fault, or restart both by `command`",
                guest.name, hit.name
            )));
        }
    }
    Ok(())
}

/// Refuses to end a container that nothing can start again.
pub(crate) fn refuse_fleeting(found: &[Container], way: &str) -> Result<(), InjectError> {
    match found.iter().find(|container| container.auto_remove) {
        Some(container) => Err(InjectError::Target(format!(
            "container {} was made with --rm: the engine removes it when it ends, and nothing can start it again{way}",
            container.name
        ))),
        None => Ok(()),
    }
}

impl Hits {
    /// `web-1 (3f9ac1b2d3e4, process 4711)`, and so on.
    pub(crate) fn names(&self) -> String {
        let one = |hit: &Hit| {
            let process = hit.process.map_or(String::new(), |id| format!(", process {}", id.pid));
            format!("{} ({}{process})", hit.name, hit.short())
        };
        let shown: Vec<String> = self.each.iter().take(8).map(one).collect();
        let rest = self.each.len() - shown.len();
        let rest = if rest > 0 { format!(" and {rest} more") } else { String::new() };
        format!("{}{rest}", shown.join(", "))
    }

    /// The only one, for faults that take one at a time.
    pub(crate) fn only(&self) -> Result<&Hit, InjectError> {
        match self.each.as_slice() {
            [one] => Ok(one),
            several => Err(InjectError::Target(format!(
                "{} containers are meant, and this fault takes one: pick: one",
                several.len()
            ))),
        }
    }

    /// Each container, and its process: a fault of processes must not meet it.
    pub(crate) fn claims(&self) -> Vec<String> {
        let containers = self.each.iter().map(|hit| format!("container:{}", hit.title()));
        let processes = self.each.iter().filter_map(|hit| Some(format!("process:{}", hit.process?.pid)));
        containers.chain(processes).collect()
    }

    pub(crate) fn processes(&self) -> Vec<ProcessId> {
        self.each.iter().filter_map(|hit| hit.process).collect()
    }

    /// `web-1, web-2`.
    pub(crate) fn line(&self) -> String {
        self.each.iter().map(|hit| hit.name.as_str()).collect::<Vec<_>>().join(", ")
    }

    /// What a person types to have all of them as they were: the first that works.
    pub(crate) fn by_hand(&self, verbs: &[&str]) -> String {
        let ids: Vec<&str> = self.each.iter().map(Hit::short).collect();
        let (client, ids) = (client(&self.socket), ids.join(" "));
        let tries: Vec<String> = verbs.iter().map(|verb| format!("{client} {verb} {ids}")).collect();
        format!("{} # {}", tries.join(" || "), self.line())
    }

    pub(crate) async fn look(&self, env: &Env, hit: &Hit) -> Result<Option<Container>, InjectError> {
        Ok(env.docker.look(&self.socket, &hit.id).await?)
    }

    /// Acts on all at once; the first error, when all have been tried.
    pub(crate) async fn act(&self, env: &Env, hits: &[&Hit], act: &Act) -> Result<(), InjectError> {
        let acts = hits.iter().map(|hit| async move {
            let done = env.docker.act(&self.socket, &hit.id, act).await;
            done.map_err(|error| named_error(&hit.name, error.into()))
        });
        futures_util::future::join_all(acts).await.into_iter().collect()
    }

    /// Looks at all until each that is still there is touched, or until nothing can be under way any more.
    pub(crate) async fn settled(
        &self,
        env: &Env,
        patience: Duration,
        touched: impl Fn(&Hit, &Container) -> bool,
    ) -> Result<Vec<(&Hit, Option<Container>)>, InjectError> {
        let end = Instant::now() + patience;
        loop {
            let mut seen = Vec::new();
            for hit in &self.each {
                seen.push((hit, self.look(env, hit).await?));
            }
            let whole = seen.iter().all(|(hit, now)| now.as_ref().is_none_or(|now| touched(hit, now)));
            if whole || Instant::now() >= end {
                return Ok(seen);
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Whether as many run as when they were looked for: somebody else starts new ones.
    pub(crate) async fn as_many(&self, env: &Env) -> Result<bool, InjectError> {
        Ok(meant(env, &self.socket, &self.which).await?.len() >= self.all)
    }

    /// Starts those that are down, and waits until they run. One that has been removed carries no fault.
    pub(crate) async fn start_again(&self, env: &Env) -> Result<Undone, InjectError> {
        let (mut outcome, mut failed) = (Undone::NothingToDo, None);
        for hit in &self.each {
            match self.start(env, hit).await {
                Ok(true) => outcome = Undone::Reverted,
                Ok(false) => {}
                // The others are to run all the same.
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(outcome), Err)
    }

    async fn start(&self, env: &Env, hit: &Hit) -> Result<bool, InjectError> {
        let now = self.look(env, hit).await?;
        if now.is_none_or(|now| up(&now)) {
            return Ok(false);
        }
        self.act(env, &[hit], &Act::Start).await?;
        let patience = async {
            while self.look(env, hit).await?.is_some_and(|now| !up(&now)) {
                tokio::time::sleep(POLL).await;
            }
            Ok(())
        };
        let late = || {
            Err(InjectError::Deadline(format!(
                "{}: it does not run {START_DEADLINE:?} after its start",
                hit.name
            )))
        };
        tokio::time::timeout(START_DEADLINE, patience).await.unwrap_or_else(|_| late())?;
        Ok(true)
    }

    /// Those that are not as they should be.
    pub(crate) async fn states(&self, env: &Env) -> Result<Value, InjectError> {
        let (mut down, mut paused) = (Vec::new(), Vec::new());
        for hit in &self.each {
            match self.look(env, hit).await?.map(|now| now.status) {
                Some(Status::Down | Status::Restarting) => down.push(&hit.name),
                Some(Status::Paused) => paused.push(&hit.name),
                Some(Status::Running) | None => {}
            }
        }
        Ok(json!({"down": down, "paused": paused}))
    }
}

/// The command by which people speak to the engine behind a socket.
pub(crate) fn client(socket: &Path) -> String {
    let path = socket.display().to_string();
    match path.as_str() {
        "/var/run/docker.sock" => "docker".to_owned(),
        path if path.ends_with("podman.sock") => "podman".to_owned(),
        path => format!("docker -H {}", quoted(&format!("unix://{path}"))),
    }
}

/// The same error, with the container that it is about.
fn named_error(name: &str, error: InjectError) -> InjectError {
    match error {
        InjectError::Target(text) => InjectError::Target(format!("container {name}: {text}")),
        InjectError::Deadline(text) => InjectError::Deadline(format!("container {name}: {text}")),
        other => other,
    }
}
