//! What faults that cut flows have in common: only the parameters differ ([`Cutting`]).
//!
//! The change is one table of ours in each namespace ([`rules`]), made and removed as a whole. Its rules look at a lease
//! first, which fades by itself unless it is renewed.

pub(crate) mod loss;
pub(crate) mod proof;
pub(crate) mod rules;
pub(crate) mod sides;

use std::io;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use self::proof::{Seen, Watched};
use self::rules::{By, Rules};
use self::sides::Sides;
use super::shape::{failed, space};
use super::{recall, record};
use crate::about::{About, Args};
use crate::change::{Change, InjectError, Proof, Undone};
use crate::flows::Flows;
use crate::sys::aim::{Aim, Network};
use crate::sys::netlink::{DESTROY, Feature, Network as Kernel, Probe, Reply, Session, Space};
use crate::sys::nft::read::Table;
use crate::sys::nft::{Edit, NAME_MAX};
use crate::target::Target;
use crate::traffic::Whose;
use crate::{Env, Injector, Pending, Request};

/// How long the first and the second look at somebody may take before anything is cut.
const LOOKS: [Duration; 2] = [Duration::from_millis(400), Duration::from_secs(1)];
/// How long a probe waits for an answer that should not come, as a multiple of the time that it took before.
const PATIENCE: u32 = 4;
const PATIENCE_MIN: Duration = Duration::from_millis(100);
const PATIENCE_MAX: Duration = Duration::from_secs(1);
/// The most members whose addresses one other member is tried against.
const TRIED_MAX: usize = 2;

/// What one fault adds to the common part.
pub(crate) trait Cutting: std::fmt::Debug + Sync {
    /// See [`Injector::about`].
    fn about(&self) -> &'static About;

    /// What is cut, and between whom; the text names what is wrong with the parameters.
    fn plan(&self, args: &Args, flows: &Flows, seed: u64) -> Result<Plan, String>;

    /// What serves in place of nftables.
    fn instead(&self) -> &'static str;
}

/// What becomes of packets, and between whom.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) by: By,
    /// Absent where the flows themselves say it.
    pub(crate) sides: Option<Sides>,
}

/// A fault that cuts flows.
#[derive(Debug)]
pub struct Cut<C>(pub C);

/// The part of a fault that is in one namespace.
#[derive(Debug, Serialize, Deserialize)]
struct Part {
    space: Space,
    /// For people.
    name: String,
    rules: Rules,
    watched: Vec<Watched>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Apply {
    parts: Vec<Part>,
    ours: Ours,
    by: By,
}

#[derive(Debug, Serialize, Deserialize)]
struct Undo {
    spaces: Vec<(Space, String)>,
    ours: Ours,
}

/// What our tables are called, and what they say of themselves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Ours {
    table: String,
    comment: String,
}

impl std::fmt::Display for Ours {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.comment)
    }
}

impl Ours {
    pub(super) fn new(id: &str) -> Self {
        let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
        let table: String = "squall_".chars().chain(id.chars().map(plain)).take(NAME_MAX).collect();
        Self { table, comment: format!("squall {id}").chars().take(NAME_MAX).collect() }
    }

    pub(super) fn table(&self) -> &str {
        &self.table
    }

    pub(super) fn comment(&self) -> &str {
        &self.comment
    }

    /// Takes the lease anew.
    pub(super) async fn renew(
        &self,
        network: &dyn Kernel,
        space: &Space,
        name: &str,
    ) -> Result<(), InjectError> {
        // A namespace that has gone has nobody left to be hit.
        let Some(session) = network.enter(space).await.map_err(failed(name))? else { return Ok(()) };
        match session.commit(&rules::renewal(&self.table)).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(InjectError::Deadline(format!(
                "its lease in {name} has run out, or somebody has removed its table"
            ))),
            other => other.map_err(failed(name)),
        }
    }

    /// Our table; an error if somebody else has one of that name.
    fn find(&self, tables: Vec<Table>) -> Result<Option<Table>, String> {
        match tables.into_iter().find(|table| table.name == self.table) {
            Some(table) if table.comment == self.comment => Ok(Some(table)),
            Some(_) => Err(format!("there is a table inet {} that is not squall's", self.table)),
            None => Ok(None),
        }
    }
}

impl<C: Cutting> Injector for Cut<C> {
    fn about(&self) -> &'static About {
        self.0.about()
    }

    fn check(&self, args: &Args, target: &Target) -> Result<(), Vec<String>> {
        let Target::Flows(flows) = target else { return Err(vec![format!("{target} is no flow")]) };
        self.0.plan(args, flows, 0).map(drop).map_err(|mistake| vec![mistake])
    }

    fn prepare<'a>(&'a self, env: &'a Env, request: &'a Request) -> Pending<'a, Result<Change, InjectError>> {
        Box::pin(async move {
            let Target::Flows(flows) = &request.target else {
                return Err(InjectError::Target(format!("{} is no flow", request.target)));
            };
            let plan = self.0.plan(&request.args, flows, request.seed).map_err(InjectError::Target)?;
            require(&*env.network, plan.by, self.0.instead()).await?;
            let parts = match &plan.sides {
                None => vec![alone(&*env.network, flows, plan.by).await?],
                Some(sides) => among(&*env.network, flows, plan.by, sides).await?,
            };
            prepare(self.0.about().name, &*env.network, request, &plan, parts).await
        })
    }

    fn apply<'a>(&'a self, env: &'a Env, change: &'a Change) -> Pending<'a, Result<(), InjectError>> {
        Box::pin(async move {
            let Apply { parts, ours, .. } = recall(&change.fault, &change.apply)?;
            let failed = failed(&change.target);
            for Part { space, name, rules, .. } in &parts {
                let session = env.network.enter(space).await.map_err(&failed)?;
                let session = session.ok_or_else(|| gone(name))?;
                session.commit(&rules.edits(&ours)).await.map_err(&failed)?;
            }
            Ok(())
        })
    }

    fn undo<'a>(&'a self, env: &'a Env, undo: &'a Value) -> Pending<'a, Result<Undone, InjectError>> {
        Box::pin(async move {
            let Undo { spaces, ours } = recall(self.0.about().name, undo)?;
            let mut any = false;
            for (space, name) in spaces.iter().rev() {
                any |= clear(&*env.network, space, &ours).await.map_err(failed(name))?;
            }
            Ok(if any { Undone::Reverted } else { Undone::NothingToDo })
        })
    }

    fn observe<'a>(&'a self, env: &'a Env, change: &'a Change) -> Pending<'a, Result<Proof, InjectError>> {
        Box::pin(async move {
            let Apply { parts, ours, by } = recall(&change.fault, &change.apply)?;
            let looks = parts.iter().map(|part| look(&*env.network, part, &ours));
            let seen = futures_util::future::join_all(looks).await;
            let seen: Result<Vec<Seen>, io::Error> = seen.into_iter().collect();
            let seen = seen.map_err(failed(&change.target))?;
            Ok(proof::judge(format!("nothing gets through: {}", change.target), by, &seen))
        })
    }

    fn picture<'a>(&'a self, env: &'a Env, undo: &'a Value) -> Pending<'a, Result<Value, InjectError>> {
        Box::pin(async move {
            let Undo { spaces, ours } = recall(self.0.about().name, undo)?;
            picture(&*env.network, &spaces, &ours).await
        })
    }

    fn renew<'a>(
        &'a self,
        env: &'a Env,
        change: &'a Change,
        _age: Duration,
    ) -> Pending<'a, Result<(), InjectError>> {
        Box::pin(async move {
            let Apply { parts, ours, .. } = recall(&change.fault, &change.apply)?;
            for Part { space, name, .. } in &parts {
                ours.renew(&*env.network, space, name).await?;
            }
            Ok(())
        })
    }
}

fn gone(name: &str) -> InjectError {
    InjectError::Target(format!("the network namespace {name} has gone"))
}

/// What the kernel can do; refuses a user who may not find out.
pub(super) async fn features(network: &dyn Kernel, instead: &str) -> Result<Vec<Feature>, InjectError> {
    network.cuts().await.map_err(|error| match error.raw_os_error() {
        Some(1 | 13) => InjectError::Lack(format!(
            "network faults need root, or CAP_NET_ADMIN and CAP_SYS_ADMIN; as this user, {instead}"
        )),
        _ => InjectError::System {
            what: "make a network namespace to try the kernel in".to_owned(),
            source: error,
        },
    })
}

/// Refuses a kernel that lacks what the fault needs, and says what would serve.
async fn require(network: &dyn Kernel, by: By, instead: &str) -> Result<(), InjectError> {
    let features = features(network, instead).await?;
    let needed = |name: &str| match name {
        "nft_reject_inet" => matches!(by, By::Unreachable | By::Reset | By::Refuse),
        "nft_numgen" => matches!(by, By::Lose(_)),
        DESTROY => false,
        _ => true,
    };
    let lacks: Vec<String> = features
        .iter()
        .filter(|feature| needed(feature.name))
        .filter_map(|feature| feature.lack.as_ref().map(|why| (feature.name, why)))
        .map(|(name, why)| {
            format!("this kernel has no {name} ({why}): load it (modprobe {name}), or {instead}")
        })
        .collect();
    if lacks.is_empty() { Ok(()) } else { Err(InjectError::Lack(lacks.join("; "))) }
}

/// The one namespace that the flows name.
async fn alone(network: &dyn Kernel, flows: &Flows, by: By) -> Result<Part, InjectError> {
    let traffic = &flows.traffic;
    let space = space(network, &traffic.space)?;
    let aim = traffic.aim();
    // A share is counted; one packet of our own would say nothing.
    let mut probes = if matches!(by, By::Lose(_)) { Vec::new() } else { proof::probes(&aim) };
    if let Some(name) = &traffic.interface {
        let failed = failed(&flows.to_string());
        let session =
            network.enter(&space).await.map_err(&failed)?.ok_or_else(|| gone(&flows.to_string()))?;
        let links = session.links().await.map_err(&failed)?;
        let Some(link) = links.iter().find(|link| link.name == *name) else {
            let known: Vec<&str> = links.iter().take(16).map(|link| link.name.as_str()).collect();
            return Err(InjectError::Target(format!(
                "there is no interface {name}; there are {}",
                known.join(", ")
            )));
        };
        probes = leading(&*session, link.index, probes).await;
    }
    let watched = watch(network, &space, &probes).await.map_err(failed(&flows.to_string()))?;
    let rules = Rules { aim, ways: traffic.ways().to_vec(), interface: traffic.interface.clone(), by };
    Ok(Part { space, name: word(&traffic.space), rules, watched })
}

/// The namespace as one word.
fn word(whose: &Whose) -> String {
    match whose {
        Whose::Own => "of this host".to_owned(),
        Whose::Named(name) => name.clone(),
        Whose::Process(pid) => format!("of process {pid}"),
        Whose::Containers(containers) => format!("of {containers}"),
    }
}

/// Those probes that leave by this interface: others would not be hit.
async fn leading(session: &dyn Session, link: u32, probes: Vec<Probe>) -> Vec<Probe> {
    let mut kept = Vec::new();
    for probe in probes {
        let to = match probe {
            Probe::Echo(address) => address,
            Probe::Connect(to) => to.ip(),
        };
        if session.route(to).await.is_ok_and(|leads| leads == link) {
            kept.push(probe);
        }
    }
    kept
}

/// One part for each member that is cut off from another.
async fn among(network: &dyn Kernel, flows: &Flows, by: By, sides: &Sides) -> Result<Vec<Part>, InjectError> {
    let mut homes: Vec<(Space, Vec<Network>)> = Vec::new();
    for name in &sides.members {
        let space = space(network, &Whose::Named(name.clone()))?;
        if let Some(at) = homes.iter().position(|(other, _)| other.inode == space.inode) {
            let other = &sides.members[at];
            return Err(InjectError::Target(format!("{name} and {other} are the same network namespace")));
        }
        let failed = failed(name);
        let session = network.enter(&space).await.map_err(&failed)?.ok_or_else(|| gone(name))?;
        let addresses = session.addresses().await.map_err(&failed)?;
        if addresses.is_empty() {
            return Err(InjectError::Target(format!("{name} has no address by which others reach it")));
        }
        let whole =
            |address: std::net::IpAddr| Network { address, bits: if address.is_ipv4() { 32 } else { 128 } };
        homes.push((space, addresses.into_iter().map(whole).collect()));
    }
    let mut parts = Vec::new();
    for ((space, own), (name, severed)) in homes.iter().zip(sides.members.iter().zip(&sides.severed)) {
        if severed.is_empty() {
            continue;
        }
        let mut traffic = flows.traffic.clone();
        let others = severed.iter().flat_map(|other| &homes[*other].1);
        traffic.to = others.filter(|network| !own.contains(network)).copied().collect();
        traffic.bounded().map_err(|(_, text)| InjectError::Target(text))?;
        let aim = traffic.aim();
        let probes = tried(&aim, severed.iter().map(|other| &homes[*other].1[..]));
        let watched = watch(network, space, &probes).await.map_err(failed(name))?;
        let rules = Rules { aim, ways: traffic.ways().to_vec(), interface: None, by };
        parts.push(Part { space: space.clone(), name: name.clone(), rules, watched });
    }
    Ok(parts)
}

/// Probes of the first address of each family of a few others.
fn tried<'a>(aim: &Aim, others: impl Iterator<Item = &'a [Network]>) -> Vec<Probe> {
    let mut peers = Vec::new();
    for other in others.take(TRIED_MAX) {
        for ipv4 in [true, false] {
            let global = |network: &&Network| match network.address {
                std::net::IpAddr::V4(address) => ipv4 && !address.is_link_local(),
                std::net::IpAddr::V6(address) => !ipv4 && !address.is_unicast_link_local(),
            };
            peers.extend(other.iter().find(global));
        }
    }
    if peers.is_empty() { Vec::new() } else { proof::probes(&Aim { peers, ..aim.clone() }) }
}

/// Looks whether the probes are answered while nothing is cut: twice, as the first may get lost.
async fn watch(network: &dyn Kernel, space: &Space, probes: &[Probe]) -> io::Result<Vec<Watched>> {
    let mut watched: Vec<Watched> =
        probes.iter().map(|probe| Watched { probe: *probe, before: Reply::Nothing }).collect();
    for patience in LOOKS {
        let silent: Vec<&mut Watched> =
            watched.iter_mut().filter(|watched| watched.before == Reply::Nothing).collect();
        if silent.is_empty() {
            break;
        }
        let again: Vec<Probe> = silent.iter().map(|watched| watched.probe).collect();
        let replies = network.reach(space, &again, patience).await?;
        for (watched, reply) in silent.into_iter().zip(replies) {
            watched.before = reply;
        }
    }
    Ok(watched)
}

async fn prepare(
    name: &str,
    network: &dyn Kernel,
    request: &Request,
    plan: &Plan,
    parts: Vec<Part>,
) -> Result<Change, InjectError> {
    let ours = Ours::new(&request.id);
    let spaces: Vec<(Space, String)> =
        parts.iter().map(|part| (part.space.clone(), part.name.clone())).collect();
    for (space, name) in &spaces {
        let session = network.enter(space).await.map_err(failed(name))?.ok_or_else(|| gone(name))?;
        let tables = session.tables().await.map_err(failed(name))?;
        if ours.find(tables).map_err(InjectError::Target)?.is_some() {
            return Err(InjectError::Target(format!("{} is there already", ours.comment)));
        }
    }
    let claims = spaces.iter().map(|(space, _)| format!("network:{}:{}", space.inode, ours.table)).collect();
    let picture = picture(network, &spaces, &ours).await?;
    let who = plan.sides.as_ref().map_or(String::new(), |sides| format!(" ({})", sides.words()));
    Ok(Change {
        id: request.id.clone(),
        fault: name.to_owned(),
        target: request.target.to_string(),
        summary: format!("{name} on {}{who}: {}", request.target, request.args.line()),
        claims,
        manual: manual(&spaces, &ours),
        undo: record(&Undo { spaces, ours: ours.clone() }),
        apply: record(&Apply { parts, ours, by: plan.by }),
        picture,
    })
}

/// Removes our table, if it is there and ours. Tells whether it was.
pub(super) async fn clear(network: &dyn Kernel, space: &Space, ours: &Ours) -> io::Result<bool> {
    // A namespace that has gone took all that was in it along.
    let Some(session) = network.enter(space).await? else { return Ok(false) };
    let Ok(Some(table)) = ours.find(session.tables().await?) else { return Ok(false) };
    match session.commit(&[Edit::DropTable { handle: table.handle }]).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        other => other.map(|()| true),
    }
}

/// Where our table is.
async fn picture(
    network: &dyn Kernel,
    spaces: &[(Space, String)],
    ours: &Ours,
) -> Result<Value, InjectError> {
    Ok(json!({"table": ours.table, "in": tables(network, spaces, ours).await?}))
}

/// In which of these our table is.
pub(super) async fn tables(
    network: &dyn Kernel,
    spaces: &[(Space, String)],
    ours: &Ours,
) -> Result<Vec<String>, InjectError> {
    let mut left = Vec::new();
    for (space, name) in spaces {
        let Some(session) = network.enter(space).await.map_err(failed(name))? else { continue };
        let tables = session.tables().await.map_err(failed(name))?;
        left.extend(ours.find(tables).ok().flatten().map(|_| name.clone()));
    }
    Ok(left)
}

/// Looks at one part: probes first, since they are counted as well.
async fn look(network: &dyn Kernel, part: &Part, ours: &Ours) -> io::Result<Seen> {
    let probes: Vec<Probe> = part.watched.iter().map(|watched| watched.probe).collect();
    let slowest = part.watched.iter().filter_map(|watched| match watched.before {
        Reply::Answered(micros) => Some(Duration::from_micros(micros)),
        _ => None,
    });
    let patience = slowest.max().map_or(PATIENCE_MIN * 2, |rtt| rtt.saturating_mul(PATIENCE));
    let patience = patience.clamp(PATIENCE_MIN, PATIENCE_MAX);
    let name = part.name.clone();
    let gone = |name| Seen { name, probes: Vec::new(), counted: None };
    let replies = match network.reach(&part.space, &probes, patience).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(gone(name)),
        other => other?,
    };
    let Some(session) = network.enter(&part.space).await? else { return Ok(gone(name)) };
    let there = ours.find(session.tables().await?).ok().flatten().is_some();
    let counted = if there { Some(session.counted(&ours.table).await?) } else { None };
    Ok(Seen { name, probes: part.watched.iter().copied().zip(replies).collect(), counted })
}

/// What a person types to remove the tables.
pub(super) fn manual(spaces: &[(Space, String)], ours: &Ours) -> String {
    let one = |(space, _): &(Space, String)| {
        let command = format!("nft delete table inet {}", ours.table);
        if space.path.starts_with("/proc/self") {
            command
        } else {
            format!("nsenter --net={} {command}", space.path.display())
        }
    };
    spaces.iter().map(one).collect::<Vec<_>>().join("; ")
}
