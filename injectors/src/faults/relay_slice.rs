//! Slice: bytes arrive in small pieces.

use crate::about::{About, Args, Effect, Param, ParamKind, Presence};
use crate::change::Proof;
use crate::relay::Observation;
use crate::relay::fault::{RelayFault, Scatter};
use crate::target::TargetKind;
use crate::units::Size;

use super::relay_params::{DIRECTION, SHARE, direction, share, size, span};
use super::relay_proof::{delay_tolerance, judged, time};
use super::relayed::Recipe;

/// Slice: bytes arrive in small pieces.
#[derive(Debug)]
pub struct RelaySlice;

static ABOUT: About = About {
    name: "relay-slice",
    summary: "Cuts what passes into small pieces with pauses between them",
    description: "What passes is cut into pieces of `size` bytes, give or take `variation`, each sent by \
                  itself, `delay` apart. Finds parsers that take one read for one message, and timeouts \
                  that count from the last byte. The rate falls to about `size / delay`. Senders are \
                  slowed by TCP itself. Needs a relay in front of the target: a lab has one before each \
                  instance, and `relays` in an experiment declares more.",
    target: TargetKind::Relay,
    params: &[
        Param { name: "size", kind: ParamKind::Size, presence: Presence::Required, help: "bytes in a piece" },
        Param {
            name: "variation",
            kind: ParamKind::Size,
            presence: Presence::Default("0B"),
            help: "pieces are larger or smaller by up to this; less than the size",
        },
        Param {
            name: "delay",
            kind: ParamKind::Span,
            presence: Presence::Required,
            help: "the pause between two pieces; may be 0",
        },
        DIRECTION,
        SHARE,
    ],
    needs: &[],
    effect: Effect::Degradation,
    proof: "The relay counts pieces and measures the pauses between them. Confirmed if \
                  the median pause is within 5% or 2ms of the requested one; unproven if nothing was longer \
                  than a piece.",
    undo: "What waits goes on at once, in order; connections stay open.",
    example: "- relay-slice: {service: auth, size: 64B, variation: 16B, delay: 5ms}",
};

impl Recipe for RelaySlice {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn fault(&self, args: &Args) -> Result<RelayFault, String> {
        Ok(RelayFault::Slice {
            direction: direction(args),
            size: size(args, "size")?,
            variation: Size(args.size("variation").unwrap_or_default()),
            delay: span(args, "delay")?,
            share: share(args),
        })
    }

    fn judge(&self, fault: &RelayFault, seen: &Observation) -> Proof {
        let RelayFault::Slice { size, delay, .. } = fault else {
            return Proof::unproven("slices", "not slices");
        };
        let requested = format!("pieces of {size}, {delay} apart");
        if seen.pieces == 0 {
            return Proof::unproven(requested, "nothing passed that could have been cut");
        }
        let scatter = Scatter { delay: *delay, ..Scatter::default() };
        let (gaps, median) = (seen.delays.samples, seen.delays.p50);
        let measured = format!("{} pieces of {} chunks, {} apart", seen.pieces, seen.chunks, time(median));
        if seen.pieces <= seen.chunks || (gaps == 0 && !delay.0.is_zero()) {
            return Proof::unproven(requested, format!("{measured}: nothing was longer than one piece"));
        }
        let tolerance = delay_tolerance(&scatter, gaps);
        let paused = delay.0.is_zero() || (median - scatter.mean()).abs() <= tolerance;
        judged(paused, requested, measured, format!("pause ±{}", time(tolerance)), gaps)
    }
}
