//! `network-loss` by either of two: netem, or, on kernels without it, a draw of nftables for each packet.

use std::time::Duration;

use serde_json::Value;

use super::rules::By;
use super::{Cut, Cutting, Plan};
use crate::about::{About, Args};
use crate::change::{Change, InjectError, Proof, Undone};
use crate::faults::network_loss::{ABOUT, NetworkLoss};
use crate::faults::shape::Shaped;
use crate::flows::Flows;
use crate::target::Target;
use crate::{Env, Injector, Pending, Request};

/// Loss, by netem or by nftables.
#[derive(Debug)]
pub struct Losing;

/// Loss by a draw for each packet.
#[derive(Debug)]
struct Drawn;

static NETEM: Shaped<NetworkLoss> = Shaped(NetworkLoss);
static DRAWN: Cut<Drawn> = Cut(Drawn);

fn by_nft(args: &Args) -> bool {
    args.text("by") == Some("nft")
}

/// Who has done it, as his record shows.
fn recorded(data: &Value) -> &'static dyn Injector {
    if data.get("ours").is_some() { &DRAWN } else { &NETEM }
}

/// The same packets, as those who cut flows take them.
fn flows(target: &Target) -> Target {
    match target {
        Target::Traffic(traffic) => Target::Flows(Flows { traffic: traffic.clone(), among: None }),
        other => other.clone(),
    }
}

impl Injector for Losing {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn check(&self, args: &Args, target: &Target) -> Result<(), Vec<String>> {
        if by_nft(args) { DRAWN.check(args, &flows(target)) } else { NETEM.check(args, target) }
    }

    fn able<'a>(&'a self, env: &'a Env, request: &'a Request) -> Pending<'a, Result<(), InjectError>> {
        Box::pin(async move {
            if !by_nft(&request.args) {
                return NETEM.able(env, request).await;
            }
            DRAWN.able(env, &Request { target: flows(&request.target), ..request.clone() }).await
        })
    }

    fn prepare<'a>(&'a self, env: &'a Env, request: &'a Request) -> Pending<'a, Result<Change, InjectError>> {
        Box::pin(async move {
            if !by_nft(&request.args) {
                return NETEM.prepare(env, request).await;
            }
            DRAWN.prepare(env, &Request { target: flows(&request.target), ..request.clone() }).await
        })
    }

    fn apply<'a>(&'a self, env: &'a Env, change: &'a Change) -> Pending<'a, Result<(), InjectError>> {
        recorded(&change.apply).apply(env, change)
    }

    fn undo<'a>(&'a self, env: &'a Env, undo: &'a Value) -> Pending<'a, Result<Undone, InjectError>> {
        recorded(undo).undo(env, undo)
    }

    fn by_hand(&self, env: &Env, change: &Change) -> String {
        recorded(&change.undo).by_hand(env, change)
    }

    fn observe<'a>(&'a self, env: &'a Env, change: &'a Change) -> Pending<'a, Result<Proof, InjectError>> {
        recorded(&change.apply).observe(env, change)
    }

    fn picture<'a>(&'a self, env: &'a Env, undo: &'a Value) -> Pending<'a, Result<Value, InjectError>> {
        recorded(undo).picture(env, undo)
    }

    fn renew<'a>(
        &'a self,
        env: &'a Env,
        change: &'a Change,
        age: Duration,
    ) -> Pending<'a, Result<(), InjectError>> {
        recorded(&change.apply).renew(env, change, age)
    }
}

impl Cutting for Drawn {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn plan(&self, args: &Args, flows: &Flows) -> Result<Plan, String> {
        let plain = ["share", "by"];
        if let Some(stranger) = args.0.keys().find(|name| !plain.contains(&name.as_str())) {
            return Err(format!("`{stranger}` does not go with `by: nft`, which knows a plain share only"));
        }
        if flows.traffic.instance.is_some() {
            return Err("`by: nft` takes no instances: write its address and port".to_owned());
        }
        if !flows.is_aimed() {
            return Err("it is aimed at nothing: write `interface`, `to` or both".to_owned());
        }
        match args.share("share") {
            Some(share) if share > 0.0 => Ok(Plan { by: By::Lose(share), sides: None }),
            Some(_) => Err("it would lose nothing".to_owned()),
            None => Err("it needs `share`".to_owned()),
        }
    }

    fn instead(&self) -> &'static str {
        "use `by: netem`, or relay-reset or relay-blackhole, which hurt connections"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::about::Value as Arg;
    use crate::traffic::Traffic;
    use crate::units::Share;

    #[test]
    fn what_nftables_cannot_aim_at_is_refused_instead_of_hitting_everything() {
        let args = [("by", Arg::Text("nft".to_owned())), ("share", Arg::Share(Share(0.5)))];
        let args = Args(args.map(|(name, value)| (name.to_owned(), value)).into());
        let refused = |given: &[(&'static str, &str)]| {
            let given = given.iter().map(|(name, text)| (*name, (*text).to_owned())).collect();
            Losing.check(&args, &Target::Traffic(Traffic::read(&given).unwrap())).is_err()
        };
        assert!(!refused(&[("to", "10.0.0.2")]));
        assert!(!refused(&[("interface", "eth0")]));
        assert!(!refused(&[("interface", "eth0"), ("to", "example.org")]));
        assert!(!refused(&[("from", "10.0.0.1"), ("interface", "eth0")]));
        assert!(refused(&[("interface", "eth0"), ("instance", "auth-1")]));
        assert!(refused(&[("netns", "a")]));
    }
}
