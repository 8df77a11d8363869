//! `network-rate`: packets leave no faster than a rate.

use crate::about::{About, Args, Effect, Param, ParamKind, Presence};
use crate::change::Proof;
use crate::sys::netem::Rate;
use crate::target::TargetKind;

use super::fallback::{FALLBACK, Serves};
use super::shape::Shaping;
use super::shape::evidence::{Evidence, judge_rate};
use super::shape::part::Part;

/// Bandwidth: packets leave no faster than a rate.
#[derive(Debug)]
pub struct NetworkRate;

static ABOUT: About = About {
    name: "network-rate",
    summary: "Limits the bandwidth of chosen packets of an interface, in the kernel",
    description: "The packets that are hit leave (or arrive) no faster than `rate`; what comes faster waits. With `by: \
                  netem` it goes together with other network faults of the same aim; with `by: tbf`, a token bucket, \
                  it works on kernels without netem, stands alone, lets `burst` bytes pass at once and drops what \
                  would wait longer than `wait`. Everything else on the interface is untouched, and so are SSH and \
                  what `protect` names. The interface's own queueing stays as it is. With `direction: both` each way \
                  has this rate for itself.",
    target: TargetKind::Traffic,
    params: &[
        Param {
            name: "rate",
            kind: ParamKind::Bandwidth,
            presence: Presence::Required,
            help: "how much passes at most",
        },
        Param::optional(
            "overhead",
            ParamKind::Int { min: 0, max: 1000 },
            "bytes that each packet counts more than its length, by netem only",
        ),
        Param {
            name: "by",
            kind: ParamKind::Choice(&["netem", "tbf"]),
            presence: Presence::Default("netem"),
            help: "which qdisc does it: netem or tbf",
        },
        Param::optional(
            "burst",
            ParamKind::Size,
            "how much passes at once, by tbf only: 40 ms of the rate if left out, at least 3 kB; less would be lost where timers are late",
        ),
        Param::optional(
            "wait",
            ParamKind::Span,
            "how long packets wait at most, by tbf only: 100ms if left out",
        ),
        FALLBACK,
    ],
    needs: &["root", "Linux with sch_netem (or sch_tbf), ifb, clsact, cls_bpf, act_mirred"],
    effect: Effect::Degradation,
    proof: "Bytes that left while others waited, against the time. Where hardly anybody sends, echoes of our own to an \
            address in `to`, or to a neighbour or gateway that the kernel knows, fill it for half a second (rates up to 7 \
            Mbit/s). Confirmed within 3%, the length of one packet and the time by which this host was late; unproven if \
            there was never more to send than the rate allows, and mostly below 64 kbit/s, where a packet takes too long.",
    undo: "Our filter goes first, then our device and what waits in it; \
           the interface's own queueing, be it mq, fq_codel or htb with classes, was never touched.",
    example: "- network-rate: {to: 10.0.0.2, rate: 10mbit}",
};

impl Shaping for NetworkRate {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn part(&self, args: &Args) -> Result<Part, String> {
        let rate = args.bandwidth("rate").unwrap_or_default();
        if rate < 1.0 {
            return Err("rate must be at least one byte per second".to_owned());
        }
        let bytes = rate.round() as u64;
        let (overhead, burst, wait) = (args.int("overhead"), args.size("burst"), args.span("wait"));
        if args.text("by") != Some("tbf") {
            if burst.is_some() || wait.is_some() {
                return Err("burst and wait go with `by: tbf`".to_owned());
            }
            return Ok(Part::Rate(Rate { bytes, overhead: overhead.unwrap_or(0) as i32 }));
        }
        if overhead.is_some() {
            return Err("overhead goes with `by: netem`".to_owned());
        }
        let burst = burst.unwrap_or((bytes / 25).clamp(3000, 10_000_000));
        let burst = u32::try_from(burst).map_err(|_| "burst must be below 4 GiB".to_owned())?;
        if burst < 2000 {
            return Err(
                "burst must be at least 2 kB: a packet that does not fit into it never passes".to_owned()
            );
        }
        let wait_s = wait.map_or(0.1, |wait| wait.as_secs_f64());
        if wait_s <= 0.0 || wait_s > 60.0 {
            return Err("wait must be longer than zero and at most 60s".to_owned());
        }
        Ok(Part::Bucket { bytes, burst, wait_s })
    }

    fn judge(&self, part: &Part, evidence: &Evidence) -> Proof {
        let bytes = match part {
            Part::Rate(rate) => rate.bytes,
            Part::Bucket { bytes, .. } => *bytes,
            _ => return Proof::unproven("a rate", "not a rate"),
        };
        let requested = format!("{:.3} Mbit/s", bytes as f64 * 8.0 / 1e6);
        judge_rate(requested, bytes as f64, evidence)
    }

    fn instead(&self) -> &'static str {
        "use `by: tbf`, or relay-bandwidth"
    }

    fn serves(&self, args: &Args) -> Vec<Serves> {
        if args.int("overhead").is_some() {
            return Vec::new();
        }
        let mut bucket = args.clone();
        bucket.0.insert("by".to_owned(), crate::about::Value::Text("tbf".to_owned()));
        let tbf = (args.text("by") != Some("tbf")).then(|| self.part(&bucket).ok()).flatten();
        let relay = Serves::relay("relay-bandwidth", args, &["rate"]);
        tbf.map(Serves::Part).into_iter().chain([relay]).collect()
    }
}
