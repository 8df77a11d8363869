//! `network-delay`: packets are held for a while.

use std::time::Duration;

use crate::about::{About, Args, Effect, Param, ParamKind, Presence};
use crate::change::{Proof, ProofStatus};
use crate::sys::netem::{Chance, Delay, Reorder, Shape};
use crate::target::TargetKind;

use super::fallback::{FALLBACK, Serves};
use super::shape::evidence::{Evidence, Growth, either};
use super::shape::part::Part;
use super::shape::{NEEDS, Shaping, correlation};

/// Delay: packets are held for a while.
#[derive(Debug)]
pub struct NetworkDelay;

static ABOUT: About = About {
    name: "network-delay",
    summary: "Delays the chosen packets of an interface, in the kernel",
    description: "Each packet that is hit is held for `delay`, give or take `jitter`. The delay is per way: with \
                  `direction: both` a round trip takes twice as long, and so it does on the loopback if the answers are \
                  hit as well. A jitter lets packets overtake each other, which TCP takes for loss. There is no correlation \
                  of delays: the kernel takes each draw modulo the jitter, which leaves nothing of the one before, \
                  whatever `tc` is told. With `reorder`, that share of packets is not held at all, so that they \
                  overtake the others; with `gap`, only every so-many-th packet may. Everything else on the interface \
                  is untouched, and so are SSH and what `protect` names. The interface's own queueing stays as it is.",
    target: TargetKind::Traffic,
    params: &[
        Param {
            name: "delay",
            kind: ParamKind::Span,
            presence: Presence::Required,
            help: "how long each packet is held",
        },
        Param::optional("jitter", ParamKind::Span, "how much delays scatter, at most the delay"),
        Param {
            name: "distribution",
            kind: ParamKind::Choice(&["uniform", "normal", "pareto", "paretonormal"]),
            presence: Presence::Default("uniform"),
            help: "how delays scatter: uniform, normal, pareto or paretonormal",
        },
        Param::optional(
            "reorder",
            ParamKind::Share,
            "how many packets are not held and so overtake the others",
        ),
        Param::optional(
            "reorder-correlation",
            ParamKind::Share,
            "how much each choice is like the one before; needs reorder",
        ),
        Param::optional(
            "gap",
            ParamKind::Int { min: 1, max: 1_000_000 },
            "only every so-many-th packet may overtake; needs reorder",
        ),
        FALLBACK,
    ],
    needs: NEEDS,
    effect: Effect::Degradation,
    proof: "Round-trip times that TCP has measured on real connections whose packets are hit, and those of a few echoes \
            (or TCP handshakes, if ports are written) of our own to an address in `to`, or to a neighbour or gateway that \
            the kernel knows; each against those before. Confirmed if the median of the growth is within 10% or 2ms of \
            the delay, and half the jitter; unproven if no connection sent data meanwhile and nobody answers. Echoes wait \
            for delays of up to 1s only.",
    undo: "Our filter goes first, then our device and what it holds; \
           the interface's own queueing, be it mq, fq_codel or htb with classes, was never touched.",
    example: "- network-delay: {to: 10.0.0.2, delay: 50ms, jitter: 5ms}",
};

/// The longest delay that squall makes: longer than any deadline of a protocol.
const DELAY_MAX: Duration = Duration::from_secs(600);

impl Shaping for NetworkDelay {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn part(&self, args: &Args) -> Result<Part, String> {
        let delay = args.span("delay").unwrap_or_default();
        let jitter = args.span("jitter").unwrap_or_default();
        if delay.is_zero() || delay > DELAY_MAX {
            return Err(format!("delay must be longer than zero and at most {} s", DELAY_MAX.as_secs()));
        }
        if jitter > delay {
            return Err("jitter must not be longer than delay".to_owned());
        }
        let shape = match args.text("distribution") {
            Some("normal") => Some(Shape::Normal),
            Some("pareto") => Some(Shape::Pareto),
            Some("paretonormal") => Some(Shape::ParetoNormal),
            _ => None,
        };
        if jitter.is_zero() && shape.is_some() {
            return Err("distribution needs a jitter".to_owned());
        }
        let reorder = match (args.share("reorder"), args.int("gap")) {
            (Some(share), gap) if share > 0.0 => {
                let gap = gap.map_or(1, |gap| gap as u32);
                let alike = correlation(args, "reorder-correlation")?;
                Some(Reorder { chance: Chance::of(share, alike), gap })
            }
            _ if args.share("reorder-correlation").is_some() => {
                return Err("reorder-correlation needs reorder".to_owned());
            }
            (_, Some(_)) => return Err("gap needs reorder".to_owned()),
            _ => None,
        };
        Ok(Part::Delay { delay: Delay { delay, jitter, correlation: 0.0, shape }, reorder })
    }

    fn judge(&self, part: &Part, evidence: &Evidence) -> Proof {
        let Part::Delay { delay, reorder } = part else { return Proof::unproven("a delay", "not a delay") };
        let (wanted, jitter) = (delay.delay.as_secs_f64(), delay.jitter.as_secs_f64());
        let requested = format!("+{} ±{} per way", millis(wanted), millis(jitter));
        if evidence.counts.handed == 0 {
            return Proof::unproven(requested, "no packet met it");
        }
        let near = Near::new(wanted, jitter, reorder.as_ref(), evidence);
        let tcp = evidence.rtt.map(|growth| near.judge(&requested, &growth, "TCP connections"));
        let own = evidence.felt.as_ref().and_then(|felt| {
            Some(near.judge(
                &requested,
                &felt.growth()?,
                &format!("{} to {} of our own", felt.what, felt.whom),
            ))
        });
        match (tcp, own) {
            (Some(tcp), own) => either(tcp, own),
            (None, Some(own)) => own,
            (None, None) => {
                let why = format!(
                    "{} packets met it, but no TCP connection of this host that is hit has sent enough to tell, and \
                     nobody answers packets of our own",
                    evidence.counts.handed
                );
                Proof::unproven(requested, why)
            }
        }
    }

    fn instead(&self) -> &'static str {
        "use relay-latency, or http-delay"
    }

    fn serves(&self, args: &Args) -> Vec<Serves> {
        // What no relay does.
        if args.share("reorder").is_some() || args.text("distribution") == Some("paretonormal") {
            return Vec::new();
        }
        vec![Serves::relay("relay-latency", args, &["delay", "jitter", "distribution"])]
    }
}

/// How long round trips may grow.
struct Near {
    low: f64,
    high: f64,
    tolerance: f64,
}

impl Near {
    fn new(wanted: f64, jitter: f64, reorder: Option<&Reorder>, evidence: &Evidence) -> Self {
        let tolerance = (0.1 * wanted).max(0.002) + jitter / 2.0;
        // Packets that overtake are not late, and others of the same qdisc may make them later.
        let early = reorder.map_or(0.0, |reorder| reorder.chance.long_run()) * wanted;
        let queued = evidence.netem.is_some_and(|netem| netem.rate.is_some());
        let high = if queued { f64::INFINITY } else { wanted + tolerance };
        Self { low: wanted - tolerance - early, high, tolerance }
    }

    fn judge(&self, requested: &str, growth: &Growth, of: &str) -> Proof {
        let near = (self.low..=self.high).contains(&growth.seconds);
        let status = match (near, growth.compared) {
            (true, _) => ProofStatus::Confirmed,
            (false, true) => ProofStatus::Mismatch,
            (false, false) => ProofStatus::Unproven,
        };
        let compared = if growth.compared {
            "than before"
        } else {
            "than nothing: there was none before to compare with"
        };
        Proof {
            status,
            requested: requested.to_owned(),
            measured: format!(
                "{} per way longer round trips {compared}, the median of {} {of}",
                millis(growth.seconds),
                growth.connections
            ),
            tolerance: millis(self.tolerance),
            samples: growth.connections,
        }
    }
}

fn millis(seconds: f64) -> String {
    format!("{:.1} ms", seconds * 1e3)
}
