//! `network-partition`: nothing gets through between two sides.

use crate::about::{About, Args, Effect, Param, ParamKind, Presence};
use crate::flows::Flows;
use crate::target::TargetKind;
use crate::traffic::{Direction, Whose};

use super::cut::rules::By;
use super::cut::sides;
use super::cut::{Cutting, Plan};
use super::fallback::FALLBACK;

/// Partition: two sides do not reach each other.
#[derive(Debug)]
pub struct NetworkPartition;

static ABOUT: About = About {
    name: "network-partition",
    summary: "Cuts flows between a network namespace or container and others, or among several, by nftables",
    description: "Packets to and from `to` vanish (`by: drop`), their senders are told that no way leads there (`by: \
                  reject`), or TCP is reset and all else vanishes (`by: reset`), both ways or one way; with `from`, only \
                  those of these addresses of this side. Or write `among` whom it is: namespaces, processes and \
                  containers, as in `among: \"a, pid:4711, container:web-1, label:app=db\"`, with `split: halves`; \
                  `isolate` (one from all others); `bridge` (two halves that both reach one); `majority-ring` (each \
                  reaches a majority, no two the same); which is which is chosen by the seed. Or write the sides: `groups: \"label:app=web | label:app=db\"`. A \
                  container that is restarted meanwhile is parted again within a second, whatever address it gets. Packets \
                  that pass through the namespace are cut as well, behind its translation of addresses. Where \
                  nothing is told, nobody hears of it, neither connections nor datagrams, even of this very host: they \
                  wait for their timeouts, as in a real partition; only a socket that is bound to an interface is told \
                  that it may not send. A rejected TCP connection may take a second to hear of \
                  it. SSH, what `protect` names, the discovery of IPv6 neighbours, and all other flows \
                  are untouched, and so are the tables of others.",
    target: TargetKind::Flows,
    params: &[
        Param {
            name: "by",
            kind: ParamKind::Choice(&["drop", "reject", "reset"]),
            presence: Presence::Default("drop"),
            help: "drop (nobody is told), reject (no way leads there) or reset (TCP; all else is dropped)",
        },
        FALLBACK,
        Param::text(
            "among",
            "who is parted, by commas: namespaces as ip netns lists them, pid:4711, container:web-1, and all containers of \
             label:app=db or image:etcd",
        ),
        Param::optional(
            "split",
            ParamKind::Choice(&["halves", "majority-ring", "isolate", "bridge"]),
            "how they are parted: halves, majority-ring, isolate or bridge",
        ),
        Param::text(
            "groups",
            "the sides themselves, in the same words: a, b | label:app=db; who is in two of them reaches both",
        ),
    ],
    needs: &["root", "Linux with nf_tables (and nft_reject_inet to tell senders)"],
    effect: Effect::Outage,
    proof: "An echo or a TCP connection of our own to single addresses of `to` (or of who is cut off), before and each \
            second, and the counters of our rules. Confirmed if packets met the rules in every namespace and none of our own \
            gets through; a mismatch if one does; unproven if no packet met it.",
    undo: "Our table is removed as a whole, by its handle, in every namespace; no other table is touched. If squall dies, the rules match \
           nothing any more after 3 s: their lease is an element that fades in the kernel.",
    example: "- network-partition: {to: 10.0.0.2}",
};

impl Cutting for NetworkPartition {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn plan(&self, args: &Args, flows: &Flows) -> Result<Plan, String> {
        let sides = sides::read(args)?;
        let traffic = &flows.traffic;
        if sides.is_some() {
            let sided = !traffic.is_to_anybody() || !traffic.from.is_empty();
            if sided || traffic.interface.is_some() || traffic.space != Whose::Own {
                let text = "those among whom it is say all: leave out to, from, interface, netns, pid, container, label and \
                            image";
                return Err(text.to_owned());
            }
            if traffic.direction != Direction::Both {
                return Err("among several it is cut both ways: leave out `direction`".to_owned());
            }
        } else if traffic.is_to_anybody() && traffic.from.is_empty() && traffic.interface.is_none() {
            return Err(
                "it would cut off everything: write `to`, `from`, `interface`, or `among` with `split`; \
                        for ports alone there is port-block"
                    .to_owned(),
            );
        }
        let by = match args.text("by") {
            Some("reject") => By::Unreachable,
            Some("reset") => By::Reset,
            _ => By::Drop,
        };
        Ok(Plan { by, sides })
    }

    fn instead(&self) -> &'static str {
        "use relay-blackhole or relay-reset, which hurt connections"
    }
}
