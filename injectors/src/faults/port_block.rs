//! `port-block`: nobody gets in by a port, or out to one.

use crate::about::{About, Args, Effect, Param, ParamKind, Presence};
use crate::flows::Flows;
use crate::target::TargetKind;

use super::cut::rules::By;
use super::cut::{Cutting, Plan};
use super::fallback::FALLBACK;

/// Blocked ports: a firewall that somebody has got wrong.
#[derive(Debug)]
pub struct PortBlock;

static ABOUT: About = About {
    name: "port-block",
    summary: "Blocks ports of a network namespace or of others, as a wrong firewall does, by nftables",
    description: "With `local-ports`, nobody gets in by them; with `ports`, nobody here gets out to them; of `to` alone, \
                  if it is written. TCP and UDP, or the `protocol` that is written. With `by: drop` nobody is told; \
                  with `by: reject` it is as if nobody listened: TCP is reset, UDP is told so. Connections that are \
                  open are hit as well. It also holds on the loopback and for packets that pass through. Port 22, what \
                  `protect` names and all other flows are untouched, and so are the tables of others.",
    target: TargetKind::Flows,
    params: &[
        Param {
            name: "by",
            kind: ParamKind::Choice(&["drop", "reject"]),
            presence: Presence::Default("drop"),
            help: "drop (nobody is told) or reject (as if nobody listened)",
        },
        FALLBACK,
    ],
    needs: &["root", "Linux with nf_tables (and nft_reject_inet to tell senders)"],
    effect: Effect::Outage,
    proof: "A TCP connection of our own to the port, before and each second, where there is one address to try, and \
            the counters of our rules. Confirmed if packets met the rules and none of our own gets through; a mismatch \
            if one does; unproven if no packet met it.",
    undo: "Our table is removed as a whole, by its handle; no other table is touched. If squall dies, the rules match \
           nothing any more after 3 s: their lease is an element that fades in the kernel.",
    example: "- port-block: {local-ports: \"8080\"}",
};

impl Cutting for PortBlock {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn plan(&self, args: &Args, flows: &Flows) -> Result<Plan, String> {
        let traffic = &flows.traffic;
        match (traffic.ports.is_empty(), traffic.local_ports.is_empty()) {
            (true, true) => return Err("write `local-ports` or `ports`".to_owned()),
            (false, false) => {
                return Err(
                    "write either `local-ports` or `ports`: both would mean flows between them alone"
                        .to_owned(),
                );
            }
            _ => {}
        }
        let by = if args.text("by") == Some("reject") { By::Refuse } else { By::Drop };
        Ok(Plan { by, sides: None })
    }

    fn instead(&self) -> &'static str {
        "use relay-blackhole or relay-reset, which hurt connections"
    }
}
