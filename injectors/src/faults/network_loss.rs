//! `network-loss`: packets are lost.

use crate::about::{About, Args, Effect, Param, ParamKind, Presence, Value};
use crate::change::Proof;
use crate::sys::netem::Loss;
use crate::target::TargetKind;

use super::fallback::{FALLBACK, Serves};
use super::shape::evidence::{Evidence, Felt, either, judge_runs};
use super::shape::part::Part;
use super::shape::{CORRELATION, Shaping, chance};

/// Loss: packets do not arrive.
#[derive(Debug)]
pub struct NetworkLoss;

const fn share(name: &'static str, help: &'static str) -> Param {
    Param::optional(name, ParamKind::Share, help)
}

pub(super) static ABOUT: About = About {
    name: "network-loss",
    summary: "Loses a share of the chosen packets of an interface, at random or in bursts, in the kernel",
    description: "With `share`, each packet is lost by chance; a `correlation` makes losses come together, and squall \
                  sets netem so that the share stays what was written. With `model: gilbert-elliott`, losses come in bursts: \
                  `to-bad` and `to-good` are the chances per packet to go from the good to the bad state and back, \
                  `in-bad` (100% if left out) and `in-good` (0%) the loss in each. With `model: four-state`, `p13` \
                  begins a burst of losses, `p31` ends it, `p32` and `p23` go between losses and receptions in a burst, \
                  `p14` loses one packet alone. With `by: nft`, nftables \
                  draws for each packet; it works on kernels without netem, no interface need be found, and no sender \
                  is told. By netem, a sender on this host may feel its own loss at once instead of by timeout. Everything else on the interface is untouched, and so are SSH and what `protect` names. \
                  The interface's own queueing stays as it is.",
    target: TargetKind::Traffic,
    params: &[
        share("share", "how many packets are lost; required unless a model is written"),
        CORRELATION,
        Param::optional(
            "model",
            ParamKind::Choice(&["gilbert-elliott", "four-state"]),
            "losses in bursts: gilbert-elliott or four-state, in place of share",
        ),
        share("to-bad", "gilbert-elliott: from good to bad, per packet"),
        share("to-good", "gilbert-elliott: from bad to good, per packet"),
        share("in-bad", "gilbert-elliott: loss in the bad state; all if left out"),
        share("in-good", "gilbert-elliott: loss in the good state; none if left out"),
        share("p13", "four-state: a burst of losses begins"),
        share("p31", "four-state: a burst of losses ends"),
        share("p32", "four-state: a packet in a burst is received"),
        share("p23", "four-state: losses go on after it"),
        share("p14", "four-state: one packet alone is lost"),
        Param {
            name: "by",
            kind: ParamKind::Choice(&["netem", "nft"]),
            presence: Presence::Default("netem"),
            help: "who loses them: netem, or nft: a plain share, on kernels without netem",
        },
        FALLBACK,
    ],
    needs: &["root", "Linux with sch_netem, ifb, clsact, cls_bpf, act_mirred (or nf_tables and nft_numgen)"],
    effect: Effect::Degradation,
    proof: "What netem or nftables dropped against what it was handed, and what of 200 echoes a second (or 50 TCP handshakes, if \
            ports are written) of our own came back from an address in `to`, or from a neighbour or gateway that the kernel \
            knows. Confirmed if the share that the model means lies in the 99.99% interval of either; unproven if no \
            packet met it, or so few that none was to be lost.",
    undo: "Our filter goes first, then our device (or our table, as a whole); \
           the interface's own queueing, be it mq, fq_codel or htb with classes, was never touched.",
    example: "- network-loss: {to: 10.0.0.2, share: 2%}",
};

const GILBERT: [&str; 4] = ["to-bad", "to-good", "in-bad", "in-good"];
const STATES: [&str; 5] = ["p13", "p31", "p32", "p23", "p14"];

impl Shaping for NetworkLoss {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn part(&self, args: &Args) -> Result<Part, String> {
        let get = |name: &str| args.share(name);
        let need = |name: &str| get(name).ok_or_else(|| format!("this model needs `{name}`"));
        let model = args.text("model");
        let strangers = |own: &[&'static str]| {
            let all = GILBERT.iter().chain(&STATES).chain(&["share", "correlation"]);
            all.copied().find(|name| get(name).is_some() && !own.contains(name))
        };
        let (own, loss): (&[&'static str], Loss) = match model {
            None => {
                get("share").ok_or("it needs `share`, or a `model`")?;
                (&["share", "correlation"], Loss::Random(chance(args)?))
            }
            Some("gilbert-elliott") => {
                let (to_bad, to_good) = (need("to-bad")?, need("to-good")?);
                let (in_bad, in_good) = (get("in-bad").unwrap_or(1.0), get("in-good").unwrap_or(0.0));
                (&GILBERT, Loss::GilbertElliott { to_bad, to_good, in_bad, in_good })
            }
            Some(_) => {
                let (p13, p31) = (need("p13")?, need("p31")?);
                let rest = |name: &str| get(name).unwrap_or(0.0);
                let loss = Loss::FourState { p13, p31, p32: rest("p32"), p23: rest("p23"), p14: rest("p14") };
                (&STATES, loss)
            }
        };
        if let Some(stranger) = strangers(own) {
            return Err(format!("`{stranger}` does not go with {}", model.unwrap_or("a plain share")));
        }
        if mean(&loss) <= 0.0 {
            return Err("it would lose nothing".to_owned());
        }
        Ok(Part::Loss(loss))
    }

    fn judge(&self, part: &Part, evidence: &Evidence) -> Proof {
        let Part::Loss(loss) = part else { return Proof::unproven("loss", "not a loss") };
        let wanted = mean(loss);
        let counts = &evidence.counts;
        let requested = format!("{:.2}% of packets", wanted * 100.0);
        if evidence.netem.is_some_and(|netem| netem.duplicate.is_some()) {
            return Proof::unproven(
                requested,
                "its packets are duplicated as well, and netem counts both as one",
            );
        }
        let all = counts.drops + counts.sent + counts.waiting;
        // Losses in bursts depend on each other.
        let counted = judge_runs(requested.clone(), "packets lost", wanted, (counts.drops, all), run(loss));
        either(counted, evidence.felt.as_ref().and_then(|felt| own(requested, felt, loss, evidence)))
    }

    fn instead(&self) -> &'static str {
        "use `by: nft` for a plain share, or relay-reset or relay-blackhole, which hurt connections"
    }

    fn serves(&self, args: &Args) -> Vec<Serves> {
        // nftables draws a plain share, each packet for itself.
        let plain = args.0.keys().all(|name| ["share", "by", "fallback"].contains(&name.as_str()));
        let Some(share) = args.0.get("share").filter(|_| plain) else { return Vec::new() };
        let drawn = [("share".to_owned(), share.clone()), ("by".to_owned(), Value::Text("nft".to_owned()))];
        vec![Serves::Otherwise("nft", Args(drawn.into()))]
    }
}

/// What our own packets say; nothing if they may be lost for other reasons as well.
fn own(requested: String, felt: &Felt, loss: &Loss, evidence: &Evidence) -> Option<Proof> {
    if evidence.netem.is_some_and(|netem| netem.corrupt.is_some()) {
        return None;
    }
    let lost = (felt.sent - felt.answered, felt.sent);
    Some(judge_runs(requested, &felt.words("lost"), felt.round(mean(loss)), lost, run(loss)))
}

/// The share that a model loses in the long run.
fn mean(loss: &Loss) -> f64 {
    match *loss {
        Loss::Random(chance) => chance.long_run(),
        Loss::GilbertElliott { to_bad, to_good, in_bad, in_good } => {
            let bad = if to_bad > 0.0 { to_bad / (to_bad + to_good) } else { 0.0 };
            bad * in_bad + (1.0 - bad) * in_good
        }
        Loss::FourState { p13, p31, p32, p23, p14 } => {
            // Balance of the flows between the states; state 4 is left after one packet.
            let lost_alone = p14;
            let burst = if p13 > 0.0 { p13 / p31.max(f64::MIN_POSITIVE) } else { 0.0 };
            let pause = if p32 > 0.0 { burst * p32 / p23.max(f64::MIN_POSITIVE) } else { 0.0 };
            (burst + lost_alone) / (1.0 + burst + pause + lost_alone)
        }
    }
}

/// How many packets one independent draw decides.
fn run(loss: &Loss) -> f64 {
    match *loss {
        Loss::Random(chance) => chance.run(),
        Loss::GilbertElliott { to_bad, to_good, .. } => {
            let stay = (1.0 - to_bad - to_good).clamp(-1.0, 0.999);
            ((1.0 + stay) / (1.0 - stay)).max(1.0)
        }
        Loss::FourState { p13, p31, p32, p23, .. } => {
            let slowest =
                [p13 + p31, if p32 > 0.0 { p32 + p23 } else { 1.0 }].into_iter().fold(1.0, f64::min);
            (2.0 / slowest.max(0.001)).max(1.0)
        }
    }
}
