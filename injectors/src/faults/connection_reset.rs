//! `connection-reset`: connections that are open break.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::contained::{Now, Place, places};
use super::containers::Hits;
use super::cut::features;
use super::fallback::{self, FALLBACK, Serves};
use super::shape::{failed, resolved};
use super::{recall, record};
use crate::about::{About, Args, Effect, Param, ParamKind};
use crate::flows::Flows;
use crate::relay::chance::Dice;
use crate::sys::aim::{Aim, Protocol};
use crate::sys::netlink::{Connection, DESTROY, Network, Session, Space};
use crate::target::{Target, TargetKind};
use crate::{Change, Env, InjectError, Injector, Pending, Proof, ProofStatus, Request, Undone};

/// Resets: connections that are open break.
#[derive(Debug)]
pub struct ConnectionReset;

static ABOUT: About = About {
    name: "connection-reset",
    summary: "Breaks TCP connections that are open, by the kernel's own hand",
    description: "Of the established connections of the namespace, or of each container, that fit `to`, `from`, `ports` and \
                  `local-ports`, a `share` is aborted: the process here gets ECONNABORTED, the other side a reset. New \
                  connections are not hindered: what is tried is whether both sides open them again. Once at the start: a \
                  container that is restarted meanwhile has lost its connections anyway, and is left alone. With \
                  `repeat: true` again each second, also in the next life of such a container. Connections that only pass \
                  through this host are not hit: for them there is network-partition with `by: reset`. SSH and what \
                  `protect` names are never hit.",
    target: TargetKind::Connections,
    params: &[
        Param::share("how many of them are reset, in each container for itself, rounded up"),
        Param::optional(
            "repeat",
            ParamKind::Flag,
            "true: again each second, as long as the fault lives, also those opened since",
        ),
        FALLBACK,
    ],
    needs: &["root", "Linux with tcp_diag and CONFIG_INET_DIAG_DESTROY"],
    effect: Effect::Errors,
    proof: "The connections that were chosen at the start are gone. A mismatch if one of them is still there; unproven \
            if none fitted, in any one of the containers: it has felt nothing.",
    undo: "Nothing can be undone and nothing lasts: a connection that was reset does not come back, and nobody is kept \
           from opening another.",
    example: "- connection-reset: {local-ports: \"8080\", share: 50%}",
};

/// The most connections that are chosen at once.
const CHOSEN_MAX: usize = 8192;
/// The most places that are named in a proof.
const NAMED_MAX: usize = 8;

#[derive(Debug, Serialize, Deserialize)]
struct Data {
    each: Vec<Struck>,
    /// Containers that may be restarted meanwhile.
    hits: Option<Hits>,
    aim: Aim,
    share: f64,
    repeat: bool,
    seed: u64,
}

/// What is reset in one namespace.
#[derive(Debug, Serialize, Deserialize)]
struct Struck {
    place: Place,
    /// The numbers of the connections that are reset at the start, and how many fitted.
    chosen: Vec<u64>,
    fitted: usize,
}

impl Data {
    fn chosen(&self) -> usize {
        self.each.iter().map(|struck| struck.chosen.len()).sum()
    }

    fn fitted(&self) -> usize {
        self.each.iter().map(|struck| struck.fitted).sum()
    }

    /// How many of those that were chosen at the start are still open, in each place.
    async fn left(&self, env: &Env) -> Result<Vec<usize>, InjectError> {
        let mut left = Vec::new();
        for Struck { place, chosen, .. } in &self.each {
            let failed = failed(&place.name);
            let open = match env.network.enter(&place.space).await.map_err(&failed)? {
                Some(session) => session.connections().await.map_err(&failed)?,
                None => Vec::new(),
            };
            left.push(open.iter().filter(|one| chosen.contains(&one.cookie)).count());
        }
        Ok(left)
    }
}

impl Injector for ConnectionReset {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn check(&self, args: &Args, target: &Target) -> Result<(), Vec<String>> {
        let Target::Flows(flows) = target else { return Err(vec![format!("{target} is no flow")]) };
        mistake(args, flows).map_or(Ok(()), |mistake| Err(vec![mistake]))
    }

    fn able<'a>(&'a self, env: &'a Env, _request: &'a Request) -> Pending<'a, Result<(), InjectError>> {
        Box::pin(require(&*env.network))
    }

    fn prepare<'a>(&'a self, env: &'a Env, request: &'a Request) -> Pending<'a, Result<Change, InjectError>> {
        Box::pin(prepare(env, request))
    }

    fn apply<'a>(&'a self, env: &'a Env, change: &'a Change) -> Pending<'a, Result<(), InjectError>> {
        Box::pin(async move {
            let data: Data = recall(&change.fault, &change.apply)?;
            let mut any = false;
            for Struck { place, chosen, .. } in &data.each {
                let failed = failed(&place.name);
                let Some(session) = env.network.enter(&place.space).await.map_err(&failed)? else { continue };
                session.destroy(chosen).await.map_err(&failed)?;
                any = true;
            }
            if any { Ok(()) } else { Err(gone(&change.target)) }
        })
    }

    fn undo<'a>(&'a self, env: &'a Env, undo: &'a Value) -> Pending<'a, Result<Undone, InjectError>> {
        Box::pin(async move {
            let data: Data = recall(ABOUT.name, undo)?;
            let left: usize = data.left(env).await?.into_iter().sum();
            Ok(if left == data.chosen() { Undone::NothingToDo } else { Undone::Passed })
        })
    }

    fn observe<'a>(&'a self, env: &'a Env, change: &'a Change) -> Pending<'a, Result<Proof, InjectError>> {
        Box::pin(async move {
            let data: Data = recall(&change.fault, &change.apply)?;
            let mut proof = judge(&data, &data.left(env).await?);
            let mut again = 0;
            for struck in &data.each {
                let now = struck.place.now(env, data.hits.as_ref()).await?;
                again += usize::from(matches!(now, Now::Moved(_)));
            }
            if again > 0 {
                let what = if data.repeat { "covered again" } else { "left alone" };
                proof.measured += &format!("; {what} after a restart: {again}");
            }
            Ok(proof)
        })
    }

    fn picture<'a>(&'a self, _env: &'a Env, _undo: &'a Value) -> Pending<'a, Result<Value, InjectError>> {
        // The same before and after on purpose: what was reset is no state that could be put back.
        Box::pin(std::future::ready(Ok(json!({"lasts": "nothing; connections that were reset stay gone"}))))
    }

    fn renew<'a>(
        &'a self,
        env: &'a Env,
        change: &'a Change,
        age: Duration,
    ) -> Pending<'a, Result<(), InjectError>> {
        Box::pin(async move {
            let data: Data = recall(&change.fault, &change.apply)?;
            if !data.repeat {
                return Ok(());
            }
            for (at, Struck { place, .. }) in data.each.iter().enumerate() {
                let place = match place.now(env, data.hits.as_ref()).await? {
                    Now::Same => place.clone(),
                    Now::Moved(place) => place,
                    Now::Gone => continue,
                };
                let failed = failed(&place.name);
                let Some(session) = env.network.enter(&place.space).await.map_err(&failed)? else { continue };
                let draws = Dice::new(data.seed ^ age.as_secs(), at as u64);
                let (chosen, _) = choose(&*session, &data.aim, data.share, draws).await?;
                session.destroy(&chosen).await.map_err(&failed)?;
            }
            Ok(())
        })
    }
}

fn gone(name: &str) -> InjectError {
    InjectError::Target(format!("the network namespace of {name} has gone"))
}

/// What is wrong with the parameters; none if nothing is.
fn mistake(args: &Args, flows: &Flows) -> Option<String> {
    if !flows.is_aimed() {
        return Some("it would reset everything: write `to`, `from`, `ports` or `local-ports`".to_owned());
    }
    if args.share("share").is_some_and(|share| share <= 0.0) {
        return Some("it would reset nothing".to_owned());
    }
    None
}

/// Refuses a kernel that cannot do it, and says what would serve.
async fn require(network: &dyn Network) -> Result<(), InjectError> {
    let features = features(network, "use relay-reset").await?;
    let lack = features.into_iter().find(|feature| feature.name == DESTROY);
    match lack.and_then(|feature| feature.lack) {
        Some(why) => Err(InjectError::Lack(format!(
            "this kernel cannot end connections of others ({why}): it needs CONFIG_INET_DIAG_DESTROY and tcp_diag \
             (modprobe tcp_diag); use network-partition with `by: reset`, or relay-reset"
        ))),
        None => Ok(()),
    }
}

async fn prepare(env: &Env, request: &Request) -> Result<Change, InjectError> {
    let Target::Flows(flows) = &request.target else {
        return Err(InjectError::Target(format!("{} is no flow", request.target)));
    };
    match require(&*env.network).await {
        Ok(()) => {}
        Err(InjectError::Lack(lack)) => {
            let serves = vec![Serves::relay("relay-reset", &request.args, &["share"])];
            return fallback::take(ABOUT.name, serves, env, request, lack).await;
        }
        Err(error) => return Err(error),
    }
    let (places, hits) = places(env, request, &flows.traffic.space).await?;
    let spaces: Vec<&Space> = places.iter().map(|place| &place.space).collect();
    let aim = resolved(&*env.network, &spaces, &flows.traffic).await?.aim();
    let share = request.args.share("share").unwrap_or_default();
    let mut each = Vec::new();
    for (at, place) in places.into_iter().enumerate() {
        let session = env.network.enter(&place.space).await.map_err(failed(&place.name))?;
        let session = session.ok_or_else(|| gone(&place.name))?;
        let draws = Dice::new(request.seed, at as u64);
        let (chosen, fitted) = choose(&*session, &aim, share, draws).await?;
        each.push(Struck { place, chosen, fitted });
    }
    let repeat = request.args.flag("repeat").unwrap_or_default();
    let names = hits.as_ref().map_or_else(String::new, |hits| format!(" ({})", hits.names()));
    let data = Data { each, hits, aim, share, repeat, seed: request.seed };
    bounded(data.chosen())?;
    let claim = |struck: &Struck| format!("connections:to {} in {}", request.target, struck.place.key);
    Ok(Change {
        id: request.id.clone(),
        fault: ABOUT.name.to_owned(),
        target: request.target.to_string(),
        summary: format!(
            "connection-reset on {}{names}: {} of {} open connections, {}",
            request.target,
            data.chosen(),
            data.fitted(),
            request.args.line()
        ),
        claims: data.each.iter().map(claim).collect(),
        apply: record(&data),
        undo: record(&data),
        manual: "nothing: a connection that was reset does not come back".to_owned(),
        picture: ConnectionReset.picture(env, &Value::Null).await?,
    })
}

fn bounded(wanted: usize) -> Result<(), InjectError> {
    if wanted <= CHOSEN_MAX {
        return Ok(());
    }
    Err(InjectError::Target(format!(
        "{wanted} connections would be reset; at most {CHOSEN_MAX} at once: narrow the aim, or lower the share"
    )))
}

/// The numbers of the connections that are hit, and how many fit. Seeded: the same connections, by their addresses, are
/// chosen alike.
async fn choose(
    session: &dyn Session,
    aim: &Aim,
    share: f64,
    mut dice: Dice,
) -> Result<(Vec<u64>, usize), InjectError> {
    let open = session.connections().await.map_err(failed("its connections"))?;
    let mut fit: Vec<Connection> =
        open.into_iter().filter(|one| aim.hits(Protocol::Tcp, one.peer, one.local)).collect();
    let wanted = (share.clamp(0.0, 1.0) * fit.len() as f64).ceil() as usize;
    bounded(wanted)?;
    fit.sort_by_key(|one| (one.peer, one.local));
    // Fisher–Yates, as far as needed.
    for at in 0..wanted {
        let other = at + ((dice.unit() * (fit.len() - at) as f64) as usize).min(fit.len() - at - 1);
        fit.swap(at, other);
    }
    Ok((fit[..wanted].iter().map(|one| one.cookie).collect(), fit.len()))
}

/// Requested against what is still open in each place.
fn judge(data: &Data, left: &[usize]) -> Proof {
    let requested = format!("{} of {} connections reset", data.chosen(), data.fitted());
    if data.chosen() == 0 {
        return Proof::unproven(requested, "no connection that fits was open");
    }
    let open: usize = left.iter().sum();
    let idle = data.each.iter().any(|struck| struck.chosen.is_empty());
    let status = match (open, idle) {
        (0, false) => ProofStatus::Confirmed,
        (0, true) => ProofStatus::Unproven,
        _ => ProofStatus::Mismatch,
    };
    let one = |(struck, left): (&Struck, &usize)| match struck.chosen.len() {
        0 => format!("none fitted in {}", struck.place.name),
        chosen => format!("{} of {chosen} in {}", chosen - left, struck.place.name),
    };
    let mut words = format!("{} of them are gone", data.chosen() - open);
    if data.each.len() > 1 {
        // Those that felt nothing come first.
        let mut each: Vec<(&Struck, &usize)> = data.each.iter().zip(left).collect();
        each.sort_by_key(|(struck, _)| !struck.chosen.is_empty());
        let named: Vec<String> = each.into_iter().take(NAMED_MAX).map(one).collect();
        words += &format!(": {}", named.join(", "));
        let more = data.each.len() - named.len();
        words += &if more > 0 { format!(" and {more} more") } else { String::new() };
    }
    Proof {
        status,
        requested,
        measured: words,
        tolerance: "every one that was chosen".to_owned(),
        samples: data.chosen() as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_in_which_nothing_fitted_has_felt_nothing_and_is_named() {
        let struck = |name: &str, chosen: &[u64]| {
            let space = crate::sys::netlink::Space { path: "/proc/1/ns/net".into(), inode: 1 };
            let place = Place { space, name: name.to_owned(), key: name.to_owned(), of: None };
            Struck { place, chosen: chosen.to_vec(), fitted: chosen.len() }
        };
        let data = |each| {
            let aim = Aim::default();
            Data { each, hits: None, aim, share: 1.0, repeat: false, seed: 1 }
        };
        let both = data(vec![struck("a", &[1, 2]), struck("b", &[3])]);
        let proof = judge(&both, &[0, 0]);
        assert_eq!(proof.status, ProofStatus::Confirmed);
        assert_eq!(proof.measured, "3 of them are gone: 2 of 2 in a, 1 of 1 in b");
        assert_eq!(judge(&both, &[1, 0]).status, ProofStatus::Mismatch);
        let proof = judge(&data(vec![struck("a", &[1, 2]), struck("b", &[])]), &[0, 0]);
        assert_eq!(proof.status, ProofStatus::Unproven);
        assert_eq!(proof.measured, "2 of them are gone: none fitted in b, 2 of 2 in a");
        assert_eq!(judge(&data(vec![struck("a", &[1])]), &[0]).measured, "1 of them are gone");
        assert_eq!(judge(&data(vec![struck("a", &[])]), &[0]).status, ProofStatus::Unproven);
    }

    #[test]
    fn resetting_everything_is_refused() {
        let refused = |given: &[(&'static str, &str)]| {
            let given = given.iter().map(|(name, text)| (*name, (*text).to_owned())).collect();
            mistake(&Args::default(), &Flows::read(&given).unwrap()).is_some()
        };
        assert!(!refused(&[("to", "10.0.0.2")]));
        assert!(!refused(&[("from", "10.0.0.2")]));
        assert!(!refused(&[("local-ports", "80")]));
        assert!(refused(&[("netns", "a")]));
    }
}
