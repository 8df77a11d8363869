//! What all network faults have in common: only the parameters and the judgement differ ([`Shaping`]).
//!
//! The change is one part of the qdisc of a device of ours, for each way of the traffic ([`tree`]). Parts with the same
//! aim share a device; each is taken away without the others feeling it.

pub(crate) mod evidence;
mod inside;
mod look;
pub(crate) mod part;
mod probe;
mod rtt;
mod site;
mod tree;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::evidence::{Counts, Evidence};
use self::inside::Inside;
use self::part::Part;
pub use self::site::interface;
use self::site::{Known, Owner, Site};
pub(super) use self::site::{addresses, space};
pub(super) use self::tree::ADDRESSES_MAX;
use self::tree::Raised;
use super::fallback::{self, Serves};
use super::{contained, recall, record};
use crate::about::{About, Args, Param, ParamKind};
use crate::change::{Change, InjectError, Proof, ProofStatus, Undone};
use crate::sys::aim::Aim;
use crate::sys::netem::Chance;
use crate::sys::netem::correlated::CORRELATION_MAX;
use crate::sys::netlink::{Network, Space};
use crate::target::Target;
use crate::traffic::Traffic;
use crate::{Env, Injector, Pending, Request};

/// How often names are asked for again, and for how much of that time the engine's visits count.
const ASKED_AGAIN: Duration = Duration::from_secs(5);
const ASKED_FOR: Duration = Duration::from_millis(1700);

/// What one network fault adds to the common part.
pub(crate) trait Shaping: std::fmt::Debug + Sync {
    /// See [`Injector::about`].
    fn about(&self) -> &'static About;

    /// What these parameters do to packets; the text names what is wrong with them.
    fn part(&self, args: &Args) -> Result<Part, String>;

    /// Requested against measured.
    fn judge(&self, part: &Part, evidence: &Evidence) -> Proof;

    /// What serves in place of a netem that the kernel does not have, for people.
    fn instead(&self) -> &'static str;

    /// What serves with `fallback: relay`, the closest first.
    fn serves(&self, _args: &Args) -> Vec<Serves> {
        Vec::new()
    }
}

/// What a fault needs that is made by netem alone.
pub(crate) const NEEDS: &[&str] = &["root", "Linux with sch_netem, ifb, clsact, cls_bpf, act_mirred"];
/// How a fault is undone that holds no packets.
pub(crate) const UNDO: &str = "Our filter goes first, then our device; the interface's own queueing, be it mq, fq_codel or \
                               htb with classes, was never touched.";

/// How much each draw of a chance is like the one before.
pub(crate) const CORRELATION: Param = Param::optional(
    "correlation",
    ParamKind::Share,
    "how much each draw is like the one before: more than 0% makes them come in bursts",
);

/// The chance that `share` and `correlation` mean.
pub(crate) fn chance(args: &Args) -> Result<Chance, String> {
    match args.share("share").unwrap_or_default() {
        share if share > 0.0 => Ok(Chance::of(share, correlation(args, "correlation")?)),
        _ => Err("share must be more than 0%".to_owned()),
    }
}

/// A correlation that can be kept.
pub(crate) fn correlation(args: &Args, name: &str) -> Result<f64, String> {
    match args.share(name).unwrap_or_default() {
        much if much > CORRELATION_MAX => Err(format!(
            "{name} must be at most {:.0}%: beyond, one draw decides hundreds of packets",
            CORRELATION_MAX * 100.0
        )),
        much => Ok(much),
    }
}

/// A network fault.
#[derive(Debug)]
pub struct Shaped<S>(pub S);

#[derive(Debug, Serialize, Deserialize)]
struct Apply {
    sites: Vec<Known>,
    part: Part,
    aim: Aim,
    /// Names whose addresses may change meanwhile.
    #[serde(default)]
    names: Vec<String>,
    /// Containers that may be restarted meanwhile.
    #[serde(default)]
    inside: Option<Inside>,
    id: String,
    seed: u64,
}

impl Apply {
    /// Leaves out the namespaces whose containers have been restarted, takes in those where it was raised later, and
    /// tells how many these are.
    async fn extend(&mut self, env: &Env) -> Result<usize, InjectError> {
        let Some(inside) = &self.inside else { return Ok(0) };
        let later = inside.covered(env, self.raised().owner()).await?;
        let count = later.len();
        let mut at = 0..;
        self.sites.retain(|_| at.next().is_some_and(|at| contained::lives(env, &inside.hits, at)));
        self.sites.extend(later.into_iter().map(|site| Known {
            before: vec![Counts::default(); site.trees.len()],
            usual: rtt::Usual::default(),
            probe: None,
            site,
        }));
        Ok(count)
    }

    fn raised(&self) -> Raised<'_> {
        Raised { part: &self.part, id: &self.id, aim: &self.aim, seed: self.seed }
    }
}

/// Of the sites that are still there, this holds all that taking them back needs.
#[derive(Debug, Serialize, Deserialize)]
struct Undo {
    sites: Vec<Site>,
    /// Containers that may have been restarted since.
    #[serde(default)]
    inside: Option<Inside>,
    family: String,
    id: String,
}

impl Undo {
    fn owner(&self) -> Owner<'_> {
        Owner { family: &self.family, id: &self.id }
    }

    /// Takes the part away from all of these: one that fails keeps none of the others. Tells whether it was anywhere.
    async fn lower(&self, env: &Env, sites: impl Iterator<Item = &Site>) -> Result<bool, InjectError> {
        let (mut any, mut first) = (false, None);
        for site in sites {
            match site.lower(&*env.network, self.owner()).await {
                Ok(there) => any |= there,
                Err(error) => first = first.or(Some(error)),
            }
        }
        first.map_or(Ok(any), |error| Err(self.failed()(error)))
    }

    fn failed(&self) -> impl Fn(std::io::Error) -> InjectError + use<> {
        failed(self.sites.first().map_or("", Site::name))
    }
}

impl<S: Shaping> Injector for Shaped<S> {
    fn about(&self) -> &'static About {
        self.0.about()
    }

    fn check(&self, args: &Args, _target: &Target) -> Result<(), Vec<String>> {
        self.0.part(args).map(drop).map_err(|mistake| vec![mistake])
    }

    fn able<'a>(&'a self, env: &'a Env, request: &'a Request) -> Pending<'a, Result<(), InjectError>> {
        Box::pin(async move {
            let part = self.0.part(&request.args).map_err(InjectError::Target)?;
            require(&*env.network, &part, self.0.instead()).await
        })
    }

    fn prepare<'a>(&'a self, env: &'a Env, request: &'a Request) -> Pending<'a, Result<Change, InjectError>> {
        Box::pin(async move {
            let part = self.0.part(&request.args).map_err(InjectError::Target)?;
            match require(&*env.network, &part, self.0.instead()).await {
                Ok(()) => prepare(self.0.about().name, env, request, part).await,
                Err(InjectError::Lack(lack)) => {
                    let serves = self.0.serves(&request.args);
                    fallback::take(self.0.about().name, serves, env, request, lack).await
                }
                Err(error) => Err(error),
            }
        })
    }

    fn apply<'a>(&'a self, env: &'a Env, change: &'a Change) -> Pending<'a, Result<(), InjectError>> {
        Box::pin(async move {
            let apply: Apply = recall(&change.fault, &change.apply)?;
            let mut any = false;
            for known in &apply.sites {
                let raised = known.site.raise(&*env.network, &apply.raised()).await;
                any |= raised.map_err(failed(&change.target))?;
            }
            if any { Ok(()) } else { Err(gone()) }
        })
    }

    fn undo<'a>(&'a self, env: &'a Env, undo: &'a Value) -> Pending<'a, Result<Undone, InjectError>> {
        Box::pin(async move {
            let undo: Undo = recall(self.0.about().name, undo)?;
            // What is known is taken away before anybody is asked for what came later.
            let mut lowered = undo.lower(env, undo.sites.iter().rev()).await;
            if let Some(inside) = &undo.inside {
                let later = inside.later(env).await?;
                let also = undo.lower(env, later.iter()).await;
                lowered = lowered.and_then(|any| Ok(any | also?));
            }
            lowered.map(|any| if any { Undone::Reverted } else { Undone::NothingToDo })
        })
    }

    fn observe<'a>(&'a self, env: &'a Env, change: &'a Change) -> Pending<'a, Result<Proof, InjectError>> {
        Box::pin(async move {
            let mut apply: Apply = recall(&change.fault, &change.apply)?;
            let again = apply.extend(env).await?;
            match look::observe(&*env.network, &apply).await.map_err(failed(&change.target))? {
                Ok(evidence) => {
                    let mut proof = self.0.judge(&apply.part, &evidence);
                    let asked = apply.sites.iter().any(|known| known.probe.is_some());
                    if let Some(ahead) = &evidence.ahead {
                        proof.measured +=
                            &format!("; {ahead} come first, and what they decide on is not hit");
                    }
                    if proof.status == ProofStatus::Unproven && !apply.aim.locals.is_empty() && !asked {
                        proof.measured += "; from no address of this side in `from` has anybody answered us";
                    }
                    if again > 0 {
                        proof.measured += &format!("; covered again after a restart: {again}");
                    }
                    Ok(proof)
                }
                Err(gone) => Ok(Proof::gone(&change.summary, gone)),
            }
        })
    }

    fn renew<'a>(
        &'a self,
        env: &'a Env,
        change: &'a Change,
        age: Duration,
    ) -> Pending<'a, Result<(), InjectError>> {
        Box::pin(async move {
            let mut apply: Apply = recall(&change.fault, &change.apply)?;
            if let Some(inside) = &apply.inside {
                inside.cover(env, &apply.raised()).await?;
            }
            if apply.names.is_empty() || !is_asked_again(age) {
                return Ok(());
            }
            apply.extend(env).await?;
            let spaces: Vec<&Space> = apply.sites.iter().map(|known| &known.site.space).collect();
            // A name server that is silent for a while changes nothing.
            let Ok(new) = addresses(&*env.network, &spaces, &apply.names).await else { return Ok(()) };
            for known in &apply.sites {
                let widened = known.site.widen(&*env.network, &apply.raised(), &new).await;
                widened.map_err(failed(&change.target))?;
            }
            Ok(())
        })
    }

    fn picture<'a>(&'a self, env: &'a Env, undo: &'a Value) -> Pending<'a, Result<Value, InjectError>> {
        Box::pin(async move {
            let undo: Undo = recall(self.0.about().name, undo)?;
            let mut pictures = Vec::new();
            for site in &undo.sites {
                pictures.push(site.picture(&*env.network, undo.owner()).await.map_err(undo.failed())?);
            }
            if let Some(inside) = &undo.inside {
                pictures.extend(inside.left(env, undo.owner()).await?);
            }
            Ok(Value::Array(pictures))
        })
    }
}

/// Refuses a kernel that lacks what the part needs, and says what would serve.
pub(super) async fn require(network: &dyn Network, part: &Part, instead: &str) -> Result<(), InjectError> {
    let features = network.features().await.map_err(|error| match error.raw_os_error() {
        Some(1 | 13) => InjectError::Lack(format!(
            "network faults need root, or CAP_NET_ADMIN and CAP_SYS_ADMIN; as this user, {}",
            by_relay(instead)
        )),
        _ => InjectError::System {
            what: "make a network namespace to try the kernel in".to_owned(),
            source: error,
        },
    })?;
    let (other, instead) = match part.kind() {
        "tbf" => ("netem", by_relay(instead)),
        _ => ("tbf", instead.to_owned()),
    };
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

/// Of what would serve in place of netem, that which needs neither root nor another qdisc.
fn by_relay(instead: &str) -> String {
    match instead.split_once(", or ") {
        Some((first, rest)) if first.contains("`by: ") => format!("use {rest}"),
        _ => instead.to_owned(),
    }
}

pub(super) async fn prepare(
    name: &str,
    env: &Env,
    request: &Request,
    part: Part,
) -> Result<Change, InjectError> {
    let Target::Traffic(meant) = &request.target else {
        return Err(InjectError::Target(format!("{} is no traffic", request.target)));
    };
    let written = meant.found(&env.inventory).map_err(InjectError::Target)?;
    let (places, hits) = contained::places(env, request, &meant.space).await?;
    let all: Vec<&Space> = places.iter().map(|place| &place.space).collect();
    let traffic = &resolved(&*env.network, &all, &written).await?;
    let aim = traffic.aim();
    let raised = Raised { part: &part, id: &request.id, aim: &aim, seed: request.seed };
    let (mut sites, mut pictures) = (Vec::new(), Vec::new());
    for place in &places {
        // One that answers is enough.
        let (space, asks) = (place.space.clone(), sites.iter().all(|known: &Known| known.probe.is_none()));
        let (known, picture) = Known::look(&*env.network, space, (traffic, &written), &raised, asks).await?;
        sites.push(known);
        pictures.push(picture);
    }
    let family = part.family();
    let mut links: Vec<&str> = sites.iter().map(|known| known.site.name()).collect();
    links.sort_unstable();
    links.dedup();
    let target = meant.by(&links.join(", ")).to_string();
    let names = written.names.clone();
    let processes = hits.as_ref().map_or_else(String::new, |hits| format!(" ({})", hits.names()));
    let each = || places.iter().zip(&sites);
    let claims = each().flat_map(|(place, known)| known.site.claims(&place.key, family)).collect();
    let manual = contained::by_hand(each().map(|(place, known)| (place, known.site.manual())), hits.as_ref());
    let inside = hits.map(|hits| Inside { hits, traffic: traffic.clone(), written });
    Ok(Change {
        id: request.id.clone(),
        fault: name.to_owned(),
        summary: format!("{name} on {target}{processes}: {}", request.args.line()),
        target,
        claims,
        manual,
        undo: record(&Undo {
            sites: sites.iter().map(|known| known.site.clone()).collect(),
            inside: inside.clone(),
            family: family.to_owned(),
            id: request.id.clone(),
        }),
        apply: record(&Apply { sites, part, aim, names, inside, id: request.id.clone(), seed: request.seed }),
        picture: Value::Array(pictures),
    })
}

/// Whether names are asked for again at this age: the engine comes by about every second, they are once in a while.
pub(super) fn is_asked_again(age: Duration) -> bool {
    age >= ASKED_AGAIN && age.as_millis() % ASKED_AGAIN.as_millis() < ASKED_FOR.as_millis()
}

/// The same packets, with the addresses that their names have now, asked for from these namespaces.
pub(super) async fn resolved(
    network: &dyn Network,
    spaces: &[&Space],
    traffic: &Traffic,
) -> Result<Traffic, InjectError> {
    let found = addresses(network, spaces, &traffic.names).await;
    let found = found.map_err(|error| InjectError::Target(format!("no address is found for {error}")))?;
    traffic.clone().resolved(&found).map_err(InjectError::Target)
}

fn gone() -> InjectError {
    InjectError::Target("the network namespace has gone".to_owned())
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
