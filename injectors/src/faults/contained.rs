//! Faults inside containers: in the network namespaces of their processes, and in those of the processes that they get
//! when they are restarted meanwhile.
//!
//! Invariant: a later namespace is found by the container's id, never by its number: the kernel gives that to the next
//! one when its owner has gone.

use serde::{Deserialize, Serialize};

use super::containers::{self, Hit, Hits};
use super::{processes, shape};
use crate::containers::Containers;
use crate::sys::docker::{Container, api::SHORT};
use crate::sys::inside;
use crate::sys::netlink::Space;
use crate::target::{ProcessId, Target};
use crate::traffic::Whose;
use crate::{Env, InjectError, Request};

/// One network namespace in which an injection acts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Place {
    pub(crate) space: Space,
    /// For people, behind "in": `container web-1 (3f9ac1b2d3e4)`.
    pub(crate) name: String,
    /// For claims: no other namespace is called so, now or later.
    pub(crate) key: String,
    /// The container that it follows through restarts; none if it stays where it is.
    #[serde(default)]
    pub(crate) of: Option<Followed>,
}

/// A container whose network is meant, whichever it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Followed {
    /// Which of the injection's containers it is.
    at: usize,
    /// The process with which the namespace ends, as far as the container is meant.
    pub(crate) process: ProcessId,
}

/// Where a place is by now.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Now {
    Same,
    /// In the namespace that a restart of its container has made.
    Moved(Place),
    /// Its container is down, or has been removed.
    Gone,
}

impl Place {
    /// Looks where it is by now. The engine is only asked if the process that was there has ended.
    pub(crate) async fn now(&self, env: &Env, hits: Option<&Hits>) -> Result<Now, InjectError> {
        let (Some(hits), Some(of), true) = (hits, self.of, !self.lives(env)?) else { return Ok(Now::Same) };
        let Some(hit) = hits.each.get(of.at) else { return Ok(Now::Gone) };
        let moved = |(process, space)| {
            Now::Moved(Self { space, of: Some(Followed { process, ..of }), ..self.clone() })
        };
        Ok(present(env, hits, hit).await?.map_or(Now::Gone, moved))
    }

    /// Whether the container that it follows still has this namespace.
    pub(crate) fn lives(&self, env: &Env) -> Result<bool, InjectError> {
        self.of.map_or(Ok(true), |of| Ok(!processes::alive(&*env.procs, &[of.process])?.is_empty()))
    }

    /// The same place, of the containers of an injection with several selectors, to which its own is added.
    pub(crate) fn join(mut self, own: Option<&Hits>, all: &mut Option<Hits>) -> Self {
        let hit = own.zip(self.of).and_then(|(own, of)| Some((own, of, own.each.get(of.at)?)));
        if let Some((own, of, hit)) = hit {
            let all = all.get_or_insert_with(|| Hits { each: Vec::new(), ..own.clone() });
            self.of = Some(Followed { at: all.each.len(), ..of });
            all.each.push(hit.clone());
        }
        self
    }

    /// Its name without the word that says what it is.
    pub(crate) fn bare_name(&self) -> &str {
        let words = ["netns ", "container ", "the network of "];
        words.iter().find_map(|word| self.name.strip_prefix(word)).unwrap_or(&self.name)
    }

    /// How a person does something in it, whatever the container's process is by then.
    fn by_hand(&self, hits: Option<&Hits>, command: &str) -> String {
        let followed = hits.zip(self.of).and_then(|(hits, of)| Some((hits, hits.each.get(of.at)?)));
        let enter = match followed {
            Some((hits, hit)) => entrance(hits, hit),
            None if self.space.path.starts_with("/proc/self") => return command.to_owned(),
            None => format!("nsenter --net={}", self.space.path.display()),
        };
        if command.contains(';') {
            format!("{enter} sh -c '{command}'")
        } else {
            format!("{enter} {command}")
        }
    }
}

/// What a person types to do something in each of these places, and the names of the containers in which that is.
pub(crate) fn by_hand<'a>(each: impl Iterator<Item = (&'a Place, String)>, hits: Option<&Hits>) -> String {
    let all: Vec<String> = each.map(|(place, command)| place.by_hand(hits, &command)).collect();
    let names = hits.map_or_else(String::new, |hits| format!(" # {}", hits.line()));
    format!("{}{names}", all.join("; "))
}

/// The namespaces that the containers of these places have got by a restart since.
pub(crate) async fn later_places(
    env: &Env,
    places: &[Place],
    hits: Option<&Hits>,
) -> Result<Vec<Place>, InjectError> {
    let mut later = Vec::new();
    for place in places {
        if let Now::Moved(place) = place.now(env, hits).await? {
            later.push(place);
        }
    }
    Ok(later)
}

/// The places that a selector means, and the containers that they follow. Only reads.
pub(crate) async fn places(
    env: &Env,
    request: &Request,
    whose: &Whose,
) -> Result<(Vec<Place>, Option<Hits>), InjectError> {
    if let Whose::Containers(wanted) = whose {
        let (spaces, hits) = spaces(env, request, wanted).await?;
        let place = |(at, (space, hit)): (usize, (Space, &Hit))| {
            let (name, process) = (format!("container {}", hit.title()), hit.seen()?);
            Ok(Place { space, key: name.clone(), name, of: Some(Followed { at, process }) })
        };
        let places: Result<_, InjectError> =
            spaces.into_iter().zip(&hits.each).enumerate().map(place).collect();
        return Ok((places?, Some(hits)));
    }
    let space = shape::space(&*env.network, whose)?;
    let number = format!("network namespace {}", space.inode);
    let (name, key) = match whose {
        Whose::Named(name) => (format!("netns {name}"), number),
        Whose::Process(pid) => match container(env, &space, *pid).await {
            Some(name) => (name.clone(), name),
            None => (format!("the network of process {pid}"), number),
        },
        Whose::Own | Whose::Containers(_) => ("this host".to_owned(), number),
    };
    Ok((vec![Place { space, name, key, of: None }], None))
}

/// The container whose own network namespace a process is in, as far as an engine tells.
async fn container(env: &Env, space: &Space, pid: u32) -> Option<String> {
    let id = inside::container(&env.procs.cgroups(pid).ok()?)?;
    let found = env.docker.look(&env.docker.socket().ok()?, &id).await.ok()??;
    // One that has the network of another, or of the host, is not the one to be called.
    let main = env.network.space(format!("/proc/{}/ns/net", found.pid?).as_ref()).ok()?;
    let own = main.inode == space.inode && refuse_foreign(&found).is_ok();
    own.then(|| format!("container {} ({})", found.name, found.id.get(..SHORT).unwrap_or(&found.id)))
}

/// The namespaces of containers, and the containers, one for each.
async fn spaces(
    env: &Env,
    request: &Request,
    wanted: &Containers,
) -> Result<(Vec<Space>, Hits), InjectError> {
    let request = Request { target: Target::Containers(wanted.clone()), ..request.clone() };
    let (mut hits, found) = containers::find(env, &request).await?;
    found.iter().try_for_each(refuse_foreign)?;
    let mut spaces: Vec<Space> = Vec::new();
    let mut each = Vec::new();
    for hit in hits.each {
        let found = space(env, hit.seen()?.pid)?.ok_or_else(|| hosted(&hit.name))?;
        // Containers that share a namespace are hit once.
        if !spaces.iter().any(|known| known.inode == found.inode) {
            spaces.push(found);
            each.push(hit);
        }
    }
    hits.each = each;
    Ok((spaces, hits))
}

fn hosted(name: &str) -> InjectError {
    let text = format!(
        "container {name} has the network of this host (network host): aim by `interface` or `to` alone"
    );
    InjectError::Target(text)
}

/// Refuses a container whose network is that of others, who were not named.
fn refuse_foreign(container: &Container) -> Result<(), InjectError> {
    let name = &container.name;
    match container.network_mode.strip_prefix("container:") {
        Some(host) => Err(InjectError::Target(format!(
            "container {name} lives in the network of container {}: aim at that one, which hits both",
            host.get(..SHORT).unwrap_or(host)
        ))),
        None if container.network_mode == "host" => Err(hosted(name)),
        None => Ok(()),
    }
}

/// The namespace of a process; none if it is that of squall itself.
fn space(env: &Env, pid: u32) -> Result<Option<Space>, InjectError> {
    let look = |file: &str| {
        let failed = |source| InjectError::System { what: format!("look at {file}"), source };
        env.network.space(file.as_ref()).map_err(failed)
    };
    let (own, found) = (look("/proc/self/ns/net")?, look(&format!("/proc/{pid}/ns/net"))?);
    Ok(Some(found).filter(|found| found.inode != own.inode))
}

/// The namespaces that containers have got by a restart since they were found.
pub(crate) async fn later(env: &Env, hits: &Hits) -> Result<Vec<Space>, InjectError> {
    let mut later: Vec<Space> = Vec::new();
    for (at, hit) in hits.each.iter().enumerate() {
        if lives(env, hits, at) {
            continue;
        }
        let found = present(env, hits, hit).await?.map(|(_, space)| space);
        later.extend(found.filter(|found| !later.iter().any(|known| known.inode == found.inode)));
    }
    Ok(later)
}

/// Whether the first process of the container with this place in the list still lives, and its namespace with it.
pub(crate) fn lives(env: &Env, hits: &Hits, at: usize) -> bool {
    let process = hits.each.get(at).and_then(|hit| hit.process);
    process.is_some_and(|id| processes::alive(&*env.procs, &[id]).is_ok_and(|living| !living.is_empty()))
}

/// The process and the namespace that a container has by now; none if it is down.
async fn present(env: &Env, hits: &Hits, hit: &Hit) -> Result<Option<(ProcessId, Space)>, InjectError> {
    let now = hits.look(env, hit).await?;
    let Some(pid) = now.filter(containers::up).and_then(|now| now.pid) else { return Ok(None) };
    let Some(id) = containers::process(env, &hit.id, pid)? else { return Ok(None) };
    // It may end while it is looked at.
    Ok(space(env, id.pid).ok().flatten().map(|space| (id, space)))
}

/// How a person enters the namespace that a container has then.
fn entrance(hits: &Hits, hit: &Hit) -> String {
    let client = containers::client(&hits.socket);
    format!("nsenter -n -t \"$({client} inspect -f '{{{{.State.Pid}}}}' {})\"", hit.short())
}
