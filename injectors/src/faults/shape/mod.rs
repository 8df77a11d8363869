//! What all network faults have in common: only the parameters and the judgement differ ([`Shaping`]).
//!
//! The change is one part of the qdisc of a device of ours, for each way of the traffic ([`tree`]). Parts with the same
//! aim share a device; each is taken away without the others feeling it.

pub(crate) mod evidence;
pub(crate) mod part;
mod rtt;
mod tree;

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use self::evidence::{Counts, Evidence, Flow};
use self::part::Part;
use self::rtt::Usual;
use self::tree::{Raised, Seen, Tree};
use super::{recall, record};
use crate::about::{About, Args};
use crate::change::{Change, InjectError, Proof, Undone};
use crate::sys::aim::Aim;
use crate::sys::netlink::{Link, Network, Session, Space};
use crate::target::Target;
use crate::traffic::{Traffic, Whose};
use crate::{Env, Injector, Pending, Request};

/// How often and how far apart a rate is looked at.
const LOOKS: u32 = 6;
const PAUSE: Duration = Duration::from_millis(50);

/// What one network fault adds to the common part.
pub(crate) trait Shaping: std::fmt::Debug + Sync {
    /// See [`Injector::about`].
    fn about(&self) -> &'static About;

    /// What these parameters do to packets; the text names what is wrong with them.
    fn part(&self, args: &Args) -> Result<Part, String>;

    /// Requested against measured.
    fn judge(&self, part: &Part, evidence: &Evidence) -> Proof;

    /// What serves in place of a netem that the kernel does not have.
    fn instead(&self) -> &'static str;
}

/// A network fault.
#[derive(Debug)]
pub struct Shaped<S>(pub S);

#[derive(Debug, Serialize, Deserialize)]
struct Apply {
    space: Space,
    trees: Vec<Tree>,
    part: Part,
    aim: Aim,
    id: String,
    seed: u64,
    /// What the trees had counted before.
    before: Counts,
    /// Round-trip times before, if they are what proves it.
    usual: Usual,
}

#[derive(Debug, Serialize, Deserialize)]
struct Undo {
    space: Space,
    trees: Vec<Tree>,
    family: String,
    id: String,
}

impl<S: Shaping> Injector for Shaped<S> {
    fn about(&self) -> &'static About {
        self.0.about()
    }

    fn check(&self, args: &Args, _target: &Target) -> Result<(), Vec<String>> {
        self.0.part(args).map(drop).map_err(|mistake| vec![mistake])
    }

    fn prepare<'a>(&'a self, env: &'a Env, request: &'a Request) -> Pending<'a, Result<Change, InjectError>> {
        Box::pin(async move {
            let part = self.0.part(&request.args).map_err(InjectError::Target)?;
            require(&*env.network, &part, self.0.instead()).await?;
            prepare(self.0.about().name, env, request, part).await
        })
    }

    fn apply<'a>(&'a self, env: &'a Env, change: &'a Change) -> Pending<'a, Result<(), InjectError>> {
        Box::pin(async move {
            let Apply { space, trees, part, aim, id, seed, .. } = recall(&change.fault, &change.apply)?;
            let failed = failed(&change.target);
            let session = env.network.enter(&space).await.map_err(&failed)?;
            let session =
                session.ok_or_else(|| InjectError::Target("the network namespace has gone".to_owned()))?;
            let raised = Raised { part: &part, id: &id, aim: &aim, seed };
            for tree in &trees {
                tree.raise(&*session, &raised).await.map_err(&failed)?;
            }
            Ok(())
        })
    }

    fn undo<'a>(&'a self, env: &'a Env, undo: &'a Value) -> Pending<'a, Result<Undone, InjectError>> {
        Box::pin(async move {
            let Undo { space, trees, family, id } = recall(self.0.about().name, undo)?;
            let failed = failed(&names(&trees));
            // A namespace that has gone took all that was in it along.
            let Some(session) = env.network.enter(&space).await.map_err(&failed)? else {
                return Ok(Undone::NothingToDo);
            };
            let mut any = false;
            for tree in trees.iter().rev() {
                any |= tree.lower(&*session, &family, &id).await.map_err(&failed)?;
            }
            Ok(if any { Undone::Reverted } else { Undone::NothingToDo })
        })
    }

    fn observe<'a>(&'a self, env: &'a Env, change: &'a Change) -> Pending<'a, Result<Proof, InjectError>> {
        Box::pin(async move {
            let apply: Apply = recall(&change.fault, &change.apply)?;
            match observe(&*env.network, &apply).await.map_err(failed(&change.target))? {
                Ok(evidence) => Ok(self.0.judge(&apply.part, &evidence)),
                Err(gone) => Ok(Proof::unproven(&change.summary, gone)),
            }
        })
    }

    fn picture<'a>(&'a self, env: &'a Env, undo: &'a Value) -> Pending<'a, Result<Value, InjectError>> {
        Box::pin(async move {
            let Undo { space, trees, family, id } = recall(self.0.about().name, undo)?;
            let failed = failed(&names(&trees));
            let Some(session) = env.network.enter(&space).await.map_err(&failed)? else {
                return Ok(json!({"gone": true}));
            };
            let mut pictures = Vec::new();
            for tree in &trees {
                let seen = tree.see(&*session).await.map_err(&failed)?;
                pictures.push(tree.picture(&seen, &family, &id));
            }
            // One interface carries all trees of an injection.
            let gone = pictures.iter().all(|picture| picture["gone"] == Value::Bool(true));
            Ok(if gone { json!({"gone": true}) } else { Value::Array(pictures) })
        })
    }
}

/// Refuses a kernel that lacks what the part needs, and says what would serve.
async fn require(network: &dyn Network, part: &Part, instead: &str) -> Result<(), InjectError> {
    let features = network.features().await.map_err(|error| match error.raw_os_error() {
        Some(1 | 13) => InjectError::Lack(format!(
            "network faults need root, or CAP_NET_ADMIN and CAP_SYS_ADMIN; as this user, {instead}"
        )),
        _ => InjectError::System {
            what: "make a network namespace to try the kernel in".to_owned(),
            source: error,
        },
    })?;
    let other = if part.kind() == "tbf" { "netem" } else { "tbf" };
    let lacks = features.iter().filter(|feature| feature.name != other);
    let lacks: Vec<String> = lacks
        .filter_map(|feature| feature.lack.as_ref().map(|why| (feature.name, why)))
        .map(|(name, why)| match name {
            "netem" => format!(
                "this kernel has no sch_netem ({why}): load it (modprobe sch_netem; on some systems it is in the package \
                 kernel-modules-extra or linux-modules-extra), or {instead}"
            ),
            name => format!("this kernel has no {name} ({why}): load its module, or {instead}"),
        })
        .collect();
    if lacks.is_empty() { Ok(()) } else { Err(InjectError::Lack(lacks.join("; "))) }
}

async fn prepare(name: &str, env: &Env, request: &Request, part: Part) -> Result<Change, InjectError> {
    let Target::Traffic(traffic) = &request.target else {
        return Err(InjectError::Target(format!("{} is no traffic", request.target)));
    };
    let space = space(&*env.network, &traffic.space)?;
    let failed = failed(&request.target.to_string());
    let session = env.network.enter(&space).await.map_err(&failed)?;
    let session = session.ok_or_else(|| InjectError::Target("the network namespace has gone".to_owned()))?;
    let link = link(&*session, traffic).await?;
    let aim = traffic.aim();
    let (mut trees, mut before) = (Vec::new(), Counts::default());
    let mut pictures = Vec::new();
    for way in traffic.ways() {
        let mut tree = Tree::new(&link, *way, &aim);
        let seen = tree.see(&*session).await.map_err(&failed)?;
        if let Some(why) = tree.refusal(&seen, &part, &request.id) {
            return Err(InjectError::Target(why));
        }
        part.join(seen.root.as_ref(), request.seed).map_err(InjectError::Target)?;
        tree.remember(&seen);
        before = before.plus(Counts::of(&seen));
        pictures.push(tree.picture(&seen, part.family(), &request.id));
        trees.push(tree);
    }
    let usual = match part {
        Part::Delay { .. } => rtt::usual(&*session, &aim, &trees).await.map_err(&failed)?,
        _ => Usual::default(),
    };
    let claims =
        trees.iter().map(|tree| format!("network:{}:{}:{}", space.inode, tree.device, part.family()));
    Ok(Change {
        id: request.id.clone(),
        fault: name.to_owned(),
        target: request.target.to_string(),
        summary: format!("{name} on {}: {}", request.target, request.args.line()),
        claims: claims.collect(),
        manual: manual(&traffic.space, &trees),
        undo: record(&Undo {
            space: space.clone(),
            trees: trees.clone(),
            family: part.family().to_owned(),
            id: request.id.clone(),
        }),
        apply: record(&Apply {
            space,
            trees,
            part,
            aim,
            id: request.id.clone(),
            seed: request.seed,
            before,
            usual,
        }),
        picture: Value::Array(pictures),
    })
}

pub(super) fn space(network: &dyn Network, whose: &Whose) -> Result<Space, InjectError> {
    let mut last = None;
    for file in whose.files() {
        match network.space(&file) {
            Ok(space) => return Ok(space),
            Err(error) => last = last.or(Some(error)),
        }
    }
    let why = last.map_or_else(String::new, |error| format!(": {error}"));
    Err(InjectError::Target(match whose {
        Whose::Own => format!("this process has no network namespace{why}"),
        Whose::Named(name) => format!("there is no network namespace {name}{why}"),
        Whose::Process(pid) => format!("process {pid} has no network namespace{why}"),
    }))
}

/// The interface that is meant.
async fn link(session: &dyn Session, traffic: &Traffic) -> Result<Link, InjectError> {
    let target = traffic.to_string();
    let links = session.links().await.map_err(failed(&target))?;
    if let Some(name) = &traffic.interface {
        let found = links.iter().find(|link| link.name == *name);
        return found.cloned().ok_or_else(|| {
            let known: Vec<&str> = links.iter().take(16).map(|link| link.name.as_str()).collect();
            InjectError::Target(format!("there is no interface {name}; there are {}", known.join(", ")))
        });
    }
    let mut index = None;
    for network in &traffic.to {
        let leads = session.route(network.address).await;
        let leads =
            leads.map_err(|error| InjectError::Target(format!("no route leads to {network}: {error}")))?;
        if *index.get_or_insert(leads) != leads {
            let text = "these networks are reached by different interfaces: write `interface`".to_owned();
            return Err(InjectError::Target(text));
        }
    }
    let found = links.into_iter().find(|link| Some(link.index) == index);
    found.ok_or_else(|| InjectError::Target("the route leads to no interface".to_owned()))
}

/// What the kernel counts; the text if what was counted has gone.
async fn observe(network: &dyn Network, apply: &Apply) -> std::io::Result<Result<Evidence, &'static str>> {
    const GONE: &str = "its device has gone";
    let Some((mut counts, netem)) = look(network, apply).await? else { return Ok(Err(GONE)) };
    let (mut flow, mut at) = (None::<Flow>, Instant::now());
    // Only a rate is measured by the time between two looks.
    for _ in 1..if apply.part.family() == "rate" { LOOKS } else { 1 } {
        tokio::time::sleep(PAUSE).await;
        let Some((more, _)) = look(network, apply).await? else { return Ok(Err(GONE)) };
        let (passed, now) = (more.since(counts), Instant::now());
        if counts.waiting > 0 && more.waiting > 0 {
            let flow = flow.get_or_insert(Flow { bytes: 0, packets: 0, seconds: 0.0, full: true });
            flow.bytes += passed.bytes;
            flow.packets += passed.sent;
            flow.seconds += (now - at).as_secs_f64();
            flow.full &= counts.backlog > passed.bytes;
        }
        (counts, at) = (more, now);
    }
    let rtt = rtt_of(network, apply).await?;
    Ok(Ok(Evidence { counts: counts.since(apply.before), flow, netem, rtt }))
}

/// The counts of all trees, and what their netem does; none if one of them has gone.
async fn look(
    network: &dyn Network,
    apply: &Apply,
) -> std::io::Result<Option<(Counts, Option<crate::sys::netem::Netem>)>> {
    let Some(seen) = look_at(network, apply).await? else { return Ok(None) };
    let counts = seen.iter().map(Counts::of).fold(Counts::default(), Counts::plus);
    Ok(Some((counts, seen.first().and_then(evidence::netem))))
}

async fn rtt_of(network: &dyn Network, apply: &Apply) -> std::io::Result<Option<rtt::Growth>> {
    if !matches!(apply.part, Part::Delay { .. }) {
        return Ok(None);
    }
    let Some(session) = network.enter(&apply.space).await? else { return Ok(None) };
    rtt::growth(&*session, &apply.aim, &apply.trees, &apply.usual).await
}

/// Every tree; none if one of them is not as it was made.
async fn look_at(network: &dyn Network, apply: &Apply) -> std::io::Result<Option<Vec<Seen>>> {
    let Some(session) = network.enter(&apply.space).await? else { return Ok(None) };
    let mut all = Vec::new();
    for tree in &apply.trees {
        let seen = tree.see(&*session).await?;
        if seen.device.is_none() || seen.root.is_none() || seen.filter.is_none() {
            return Ok(None);
        }
        all.push(seen);
    }
    Ok(Some(all))
}

fn names(trees: &[Tree]) -> String {
    trees.first().map(|tree| tree.interface.clone()).unwrap_or_default()
}

fn manual(whose: &Whose, trees: &[Tree]) -> String {
    let commands: Vec<String> = trees.iter().map(Tree::manual).collect();
    let commands = commands.join("; ");
    let file = whose.files().into_iter().next().unwrap_or_default();
    match whose {
        Whose::Own => commands,
        _ => format!("nsenter --net={} sh -c '{commands}'", file.display()),
    }
}

/// The error of a request about this.
pub(super) fn failed(what: &str) -> impl Fn(std::io::Error) -> InjectError + use<> {
    let what = format!("the network of {what}");
    move |source| match source.raw_os_error() {
        Some(1) => {
            InjectError::Lack("network faults need root, or CAP_NET_ADMIN and CAP_SYS_ADMIN".to_owned())
        }
        _ => InjectError::System { what: what.clone(), source },
    }
}
