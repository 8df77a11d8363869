//! Looking at what a network fault does: the kernel's counts over all its sites, and round trips.

use std::io;
use std::time::{Duration, Instant};

use super::Apply;
use super::evidence::{self, Counts, Evidence, Flow};
use super::part::Part;
use super::rtt::{self, Growth};
use crate::sys::netem::Netem;
use crate::sys::netlink::Network;

/// How often and how far apart a rate is looked at.
const LOOKS: u32 = 6;
const PAUSE: Duration = Duration::from_millis(50);

/// What the kernel counts; the text if what was counted has gone.
pub(super) async fn observe(
    network: &dyn Network,
    apply: &Apply,
) -> io::Result<Result<Evidence, &'static str>> {
    const GONE: &str = "its device has gone";
    let Some((mut counts, netem)) = look(network, apply).await? else { return Ok(Err(GONE)) };
    let (mut flow, mut at) = (None::<Flow>, Instant::now());
    // Only a rate is measured by the time between two looks.
    for _ in 1..if apply.part.family() == "rate" { LOOKS } else { 1 } {
        tokio::time::sleep(PAUSE).await;
        let Some((more, _)) = look(network, apply).await? else { return Ok(Err(GONE)) };
        let (passed, now) = (more.since(counts), Instant::now());
        if counts.waiting > 0 && more.waiting > 0 {
            let flow = flow.get_or_insert(Flow { bytes: 0, packets: 0, seconds: 0.0, full: true });
            flow.bytes += passed.bytes;
            flow.packets += passed.sent;
            flow.seconds += (now - at).as_secs_f64();
            flow.full &= counts.backlog > passed.bytes;
        }
        (counts, at) = (more, now);
    }
    Ok(Ok(Evidence { counts, flow, netem, rtt: growth(network, apply).await? }))
}

/// What all trees have counted since the beginning, and what their netem does. None if one of them has gone, though its
/// namespace has not, or if all namespaces have.
async fn look(network: &dyn Network, apply: &Apply) -> io::Result<Option<(Counts, Option<Netem>)>> {
    let mut all = None;
    for known in &apply.sites {
        let Some(session) = network.enter(&known.site.space).await? else { continue };
        let Some(seen) = known.site.see(&*session).await? else { return Ok(None) };
        let counts = seen.iter().map(Counts::of).fold(Counts::default(), Counts::plus).since(known.before);
        let (sum, netem) = all.unwrap_or((Counts::default(), None));
        all = Some((counts.plus(sum), netem.or_else(|| seen.first().and_then(evidence::netem))));
    }
    Ok(all)
}

/// How much longer round trips take, over all sites.
async fn growth(network: &dyn Network, apply: &Apply) -> io::Result<Option<Growth>> {
    if !matches!(apply.part, Part::Delay { .. }) {
        return Ok(None);
    }
    let mut all = Vec::new();
    for known in &apply.sites {
        let Some(session) = network.enter(&known.site.space).await? else { continue };
        all.extend(rtt::growth(&*session, &apply.aim, &known.site.trees, &known.usual).await?);
    }
    Ok(rtt::of_all(&all))
}
