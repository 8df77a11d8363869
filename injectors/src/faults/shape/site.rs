//! One network in which an injection acts: its namespace, the interface, and what we add to it. An injection may have
//! several; one that has gone took all that was in it along.

use std::io;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::evidence::Counts;
use super::part::Part;
use super::probe::{self, Probe};
use super::rtt::{self, Usual};
use super::tree::{Raised, Seen, Tree};
use super::{failed, gone};
use crate::InjectError;
use crate::sys::netlink::{Link, Network, Session, Space};
use crate::traffic::{Traffic, Whose};

/// The most addresses that names are resolved to at one time.
const ADDRESSES_MAX: usize = 64;

/// One network and what we add to it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Site {
    /// The namespace.
    pub(super) space: Space,
    /// One for each way.
    pub(super) trees: Vec<Tree>,
}

/// A site as it was before.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Known {
    pub(super) site: Site,
    /// What each tree had counted.
    pub(super) before: Vec<Counts>,
    /// Round-trip times, if they are what proves it.
    pub(super) usual: Usual,
    /// Who answers packets of our own.
    pub(super) probe: Option<Probe>,
}

/// Who asks for a part.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owner<'a> {
    pub(super) family: &'a str,
    pub(super) id: &'a str,
}

impl Known {
    /// Looks at a namespace in which packets are to be hit, and if wanted asks who answers there. Only reads.
    pub(super) async fn look(
        network: &dyn Network,
        space: Space,
        (traffic, written): (&Traffic, &Traffic),
        raised: &Raised<'_>,
        asks: bool,
    ) -> Result<(Self, Value), InjectError> {
        let failed = failed(&traffic.to_string());
        let session = network.enter(&space).await.map_err(&failed)?.ok_or_else(gone)?;
        let link = link(&*session, traffic).await?;
        let failed = self::failed(&traffic.by(&link.name).to_string());
        let owner = raised.owner();
        let (mut trees, mut before, mut pictures) = (Vec::new(), Vec::new(), Vec::new());
        for way in traffic.ways() {
            let mut tree = Tree::new(&link, *way, written);
            let seen = tree.see(&*session).await.map_err(&failed)?;
            if let Some(why) = tree.refusal(&seen, raised) {
                return Err(InjectError::Target(why));
            }
            raised.part.join(seen.root.as_ref(), raised.seed).map_err(InjectError::Target)?;
            tree.remember(&seen);
            before.push(Counts::of(&seen));
            pictures.push(tree.picture(&seen, owner.family, owner.id));
            trees.push(tree);
        }
        let usual = match raised.part {
            Part::Delay { .. } => rtt::usual(&*session, raised.aim, &trees).await.map_err(&failed)?,
            _ => Usual::default(),
        };
        let peers = probe::candidates(&*session, raised.aim, &trees).await.map_err(&failed)?;
        // Others may go on while answers are awaited.
        drop(session);
        let probe = if asks { probe::choose(network, &space, &peers).await } else { None };
        Ok((Self { site: Site { space, trees }, before, usual, probe }, Value::Array(pictures)))
    }
}

impl Site {
    /// What there would be, or is, of an aim in a namespace; none if the namespace has gone. Only reads.
    pub(super) async fn at(
        network: &dyn Network,
        space: Space,
        (traffic, written): (&Traffic, &Traffic),
    ) -> Result<Option<Self>, InjectError> {
        let failed = failed(&traffic.to_string());
        let Some(session) = network.enter(&space).await.map_err(&failed)? else { return Ok(None) };
        let link = link(&*session, traffic).await?;
        let failed = self::failed(&traffic.by(&link.name).to_string());
        let mut trees = Vec::new();
        for way in traffic.ways() {
            let mut tree = Tree::new(&link, *way, written);
            tree.remember(&tree.see(&*session).await.map_err(&failed)?);
            trees.push(tree);
        }
        Ok(Some(Self { space, trees }))
    }

    /// Adds a part. False if the namespace has gone.
    pub(super) async fn raise(&self, network: &dyn Network, raised: &Raised<'_>) -> io::Result<bool> {
        let Some(session) = network.enter(&self.space).await? else { return Ok(false) };
        for tree in &self.trees {
            tree.raise(&*session, raised).await?;
        }
        Ok(true)
    }

    /// Adds addresses to those that are hit.
    pub(super) async fn widen(
        &self,
        network: &dyn Network,
        raised: &Raised<'_>,
        new: &[IpAddr],
    ) -> io::Result<()> {
        let Some(session) = network.enter(&self.space).await? else { return Ok(()) };
        for tree in &self.trees {
            tree.widen(&*session, raised, new).await?;
        }
        Ok(())
    }

    /// Takes a part away. Tells whether there was anything to take away.
    pub(super) async fn lower(&self, network: &dyn Network, owner: Owner<'_>) -> io::Result<bool> {
        let Some(session) = network.enter(&self.space).await? else { return Ok(false) };
        let mut any = false;
        for tree in self.trees.iter().rev() {
            any |= tree.lower(&*session, owner.family, owner.id).await?;
        }
        Ok(any)
    }

    /// The state that this part changes.
    pub(super) async fn picture(&self, network: &dyn Network, owner: Owner<'_>) -> io::Result<Value> {
        let Some(session) = network.enter(&self.space).await? else { return Ok(json!({"gone": true})) };
        let mut pictures = Vec::new();
        for tree in &self.trees {
            let seen = tree.see(&*session).await?;
            pictures.push(tree.picture(&seen, owner.family, owner.id));
        }
        Ok(Value::Array(pictures))
    }

    /// Every tree; none if one of them is not as it was made.
    pub(super) async fn see(&self, session: &dyn Session) -> io::Result<Option<Vec<Seen>>> {
        let mut all = Vec::new();
        for tree in &self.trees {
            let seen = tree.see(session).await?;
            if seen.device.is_none() || seen.root.is_none() || seen.filter.is_none() {
                return Ok(None);
            }
            all.push(seen);
        }
        Ok(Some(all))
    }

    /// What a fault of this family claims in the place with this key.
    pub(super) fn claims(&self, key: &str, family: &str) -> Vec<String> {
        let claim = |Tree { interface, device, .. }: &Tree| {
            format!("network:{family} of {interface} ({device}) in {key}")
        };
        self.trees.iter().map(claim).collect()
    }

    /// What a person who is in it types to take it all away.
    pub(super) fn manual(&self) -> String {
        self.trees.iter().map(Tree::manual).collect::<Vec<_>>().join("; ")
    }

    /// The interface, for people.
    pub(super) fn name(&self) -> &str {
        self.trees.first().map_or("", |tree| tree.interface.as_str())
    }
}

/// The addresses of names, asked for from these namespaces, that are reached from there.
pub(in crate::faults) async fn addresses(
    network: &dyn Network,
    spaces: &[&Space],
    names: &[String],
) -> io::Result<Vec<IpAddr>> {
    let mut found = Vec::new();
    for space in spaces {
        let mut here = Vec::new();
        for name in names {
            let asked = network.resolve(space, name).await;
            here.extend(asked.map_err(|error| io::Error::new(error.kind(), format!("{name}: {error}")))?);
        }
        let Some(session) = network.enter(space).await?.filter(|_| !here.is_empty()) else { continue };
        for address in here {
            if !found.contains(&address) && session.route(address, None).await.is_ok() {
                found.push(address);
            }
        }
    }
    found.truncate(ADDRESSES_MAX);
    Ok(found)
}

/// The namespace that is meant.
pub(in crate::faults) fn space(network: &dyn Network, whose: &Whose) -> Result<Space, InjectError> {
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
        Whose::Containers(containers) => format!("{containers}: no namespace{why}"),
    }))
}

/// The name of the interface that packets mean now, where a route or the namespace tells it: none where it is written
/// already, where somebody else would have to be asked, or where this user may not look. Only reads.
pub async fn interface(network: &dyn Network, traffic: &Traffic) -> Option<String> {
    let told = traffic.interface.is_some() || traffic.instance.is_some() || !traffic.names.is_empty();
    if told || matches!(traffic.space, Whose::Containers(_)) {
        return None;
    }
    let session = network.enter(&space(network, &traffic.space).ok()?).await.ok()??;
    link(&*session, traffic).await.ok().map(|link| link.name)
}

/// The interface that is meant.
async fn link(session: &dyn Session, traffic: &Traffic) -> Result<Link, InjectError> {
    let target = traffic.to_string();
    let links = session.links().await.map_err(failed(&target))?;
    let names = |links: &[Link]| {
        let names: Vec<&str> = links.iter().take(16).map(|link| link.name.as_str()).collect();
        names.join(", ")
    };
    if let Some(name) = &traffic.interface {
        let found = links.iter().find(|link| link.name == *name);
        return found.cloned().ok_or_else(|| {
            InjectError::Target(format!("there is no interface {name}; there are {}", names(&links)))
        });
    }
    if traffic.is_to_anybody() {
        // A namespace named on purpose: its one interface besides the loopback and what is ours.
        let ours = |link: &Link| crate::sys::netlink::Label::read(&link.alias).is_some();
        let others: Vec<Link> =
            links.iter().filter(|link| link.name != "lo" && !ours(link)).cloned().collect();
        return match others.as_slice() {
            [one] => Ok(one.clone()),
            [] => Err(InjectError::Target("it has no interface besides the loopback".to_owned())),
            several => Err(InjectError::Target(format!(
                "it has several interfaces: write `interface` ({}) or `to`",
                names(several)
            ))),
        };
    }
    let (mut index, aim) = (None, traffic.aim());
    let own = session.addresses().await.map_err(failed(&target))?;
    for network in &traffic.to {
        let leads = session.route(network.address, aim.source(&own, network.address)).await;
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
