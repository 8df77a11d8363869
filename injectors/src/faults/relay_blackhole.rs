//! Blackhole: nothing passes, nothing is lost.

use crate::about::{About, Args, Effect};
use crate::change::Proof;
use crate::relay::Observation;
use crate::relay::fault::{Direction, RelayFault};
use crate::target::TargetKind;

use super::relay_params::{DIRECTION_BOTH, SHARE, direction, share};
use super::relay_proof::judged;
use super::relayed::Recipe;

/// Blackhole: nothing passes, nothing is lost.
#[derive(Debug)]
pub struct RelayBlackhole;

static ABOUT: About = About {
    name: "relay-blackhole",
    summary: "Lets nothing pass, as a partition does, and everything once it heals",
    description: "The relay stops reading in the given direction: bytes, closes and resets wait, senders \
                  are slowed and then stopped by TCP, nobody is told. New connections are accepted, as a \
                  distant load balancer would, but with `direction: both` the upstream is not dialled \
                  before the end. Afterwards everything that still waits flows on at once, \
                  as after a healed partition: the server meets all held requests in one burst, also those \
                  whose clients have long given up. Needs a relay in front of the target: a lab has one before each instance, \
                  and `relays` in an experiment declares more.",
    target: TargetKind::Relay,
    params: &[DIRECTION_BOTH, SHARE],
    needs: &[],
    effect: Effect::Outage,
    proof: "The relay counts connections on which something waits and bytes that were read \
                  nevertheless. Confirmed if something waited and nothing passed; unproven if nobody \
                  sent.",
    undo: "Reading goes on; connections stay open and what waited arrives, in order.",
    example: "- relay-blackhole: {instance: auth-1}",
};

impl Recipe for RelayBlackhole {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn fault(&self, args: &Args) -> Result<RelayFault, String> {
        let direction = args.text("direction").map_or(Direction::Both, |_| direction(args));
        Ok(RelayFault::Blackhole { direction, share: share(args) })
    }

    fn judge(&self, fault: &RelayFault, seen: &Observation) -> Proof {
        let requested = format!("nothing passes ({})", fault.direction().word());
        if seen.bytes > 0 {
            return judged(
                false,
                requested,
                format!("{} B passed", seen.bytes),
                "none",
                seen.connections_affected,
            );
        }
        if seen.held_connections == 0 {
            return Proof::unproven(requested, "nobody sent anything that could have been held");
        }
        let (held, bytes) = (seen.held_connections, seen.held_bytes);
        judged(
            true,
            requested,
            format!("{held} connections held with at least {bytes} B, 0 B passed"),
            "none",
            held,
        )
    }
}
