//! Looking at what a network fault does: the kernel's counts over all its sites, and round trips.

use std::io;
use std::time::{Duration, Instant};

use super::Apply;
use super::evidence::{self, Counts, Evidence, Filled, Flow};
use super::part::Part;
use super::probe::{self, Probe};
use super::rtt::{self, Growth};
use super::site::Known;
use super::tree::PREF;
use crate::sys::aim::Way;
use crate::sys::netem::Netem;
use crate::sys::netlink::Network;

/// The most filters of others that are named.
const AHEAD_MAX: usize = 4;
/// How often a rate is looked at, and how far apart: further for one that lets few packets through.
const LOOKS: u32 = 6;
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_millis(300);
/// The bytes that should leave until the last look: some forty of the smallest packets.
const ENOUGH: f64 = 4000.0;
/// The share of a rate up to which nobody counts as sending.
const IDLE: f64 = 0.05;
/// How long one look may take before the host counts as late.
const LOOKING: Duration = Duration::from_millis(5);
/// How long a transfer of our own fills the qdisc before the looks begin, and goes on behind them.
const FILLING: Duration = Duration::from_millis(200);
const TRAILING: Duration = Duration::from_millis(100);

/// What can be seen and felt of a fault; the text if what was counted has gone.
pub(super) async fn observe(
    network: &dyn Network,
    apply: &Apply,
) -> io::Result<Result<Evidence, &'static str>> {
    const GONE: &str = "its device has gone";
    let Some((first, netem)) = look(network, apply).await? else { return Ok(Err(GONE)) };
    let ahead = ahead(network, apply).await?;
    let mut evidence =
        Evidence { counts: first, flow: None, netem, rtt: None, felt: None, filled: None, ahead };
    // Filters of others may let packets of our own through and no others: then these alone tell.
    let asks = evidence.ahead.is_none();
    if let Some(bytes) = apply.part.rate() {
        let pause = Duration::from_secs_f64(ENOUGH / bytes.max(1) as f64 / f64::from(LOOKS - 1));
        let pause = pause.clamp(PAUSE_MIN, PAUSE_MAX);
        let Some((last, flow)) = flow(network, apply, pause).await? else { return Ok(Err(GONE)) };
        evidence.flow = flow;
        // Whoever else sends has the way for himself; a neighbour that asks for an address is nobody.
        let others = last.since(first).bytes as f64;
        if flow.is_none()
            && asks
            && others < IDLE * bytes as f64 * (pause * LOOKS).as_secs_f64()
            && let Some((known, probe)) = probe(network, apply).await?
            && let Some(stream) = probe.transfer(bytes, FILLING + pause * (LOOKS - 1) + TRAILING)
        {
            let sends = network.echo(&known.site.space, &probe.peer, &stream);
            let looks = async {
                tokio::time::sleep(FILLING).await;
                self::flow(network, apply, pause).await
            };
            let (echoed, looked) = tokio::join!(sends, looks);
            let Some((_, flow)) = looked? else { return Ok(Err(GONE)) };
            evidence.flow = flow;
            // Who cannot be asked has not answered.
            let echoed = echoed.unwrap_or_default();
            let (whom, answered) = (probe.peer.name(), echoed.answers.len() as u64);
            evidence.filled = Some(Filled { whom, sent: echoed.sent, answered });
        }
    } else if asks
        && let Some((known, probe)) = probe(network, apply).await?
        && let Some(stream) = probe.stream(&apply.part, netem.as_ref())
    {
        let hit = (&apply.aim, known.site.trees.as_slice());
        evidence.felt = probe.feel(network, &known.site.space, hit, &stream).await;
    }
    evidence.rtt = growth(network, apply).await?;
    let Some((counts, _)) = look(network, apply).await? else { return Ok(Err(GONE)) };
    Ok(Ok(Evidence { counts, ..evidence }))
}

/// Who is asked: one who answered before, else one who might.
async fn probe<'a>(network: &dyn Network, apply: &'a Apply) -> io::Result<Option<(&'a Known, Probe)>> {
    if let Some(found) = apply.sites.iter().find_map(|known| Some((known, known.probe?))) {
        return Ok(Some(found));
    }
    for known in &apply.sites {
        let Some(session) = network.enter(&known.site.space).await? else { continue };
        let peers = probe::candidates(&*session, &apply.aim, &known.site.trees).await?;
        if let Some(peer) = peers.first() {
            return Ok(Some((known, Probe::new(*peer))));
        }
    }
    Ok(None)
}

/// How fast bytes leave while others wait, over some looks, and the last counts; none if what was counted has gone. Each
/// tree has the rate for itself, so they are put side by side.
async fn flow(
    network: &dyn Network,
    apply: &Apply,
    pause: Duration,
) -> io::Result<Option<(Counts, Option<Flow>)>> {
    let Some((mut counts, _)) = look_at_each(network, apply).await? else { return Ok(None) };
    let (mut at, mut flows) = (Instant::now(), vec![Flow::default(); counts.len()]);
    for _ in 1..LOOKS {
        tokio::time::sleep(pause).await;
        let Some((more, _)) = look_at_each(network, apply).await? else { return Ok(None) };
        let now = Instant::now();
        for ((flow, before), after) in flows.iter_mut().zip(&counts).zip(&more) {
            if before.waiting > 0 && after.waiting > 0 {
                let late = (now - at).saturating_sub(pause + LOOKING);
                flow.pass(*before, *after, ((now - at).as_secs_f64(), late.as_secs_f64()));
            }
        }
        (counts, at) = (more, now);
    }
    let sum = counts.into_iter().fold(Counts::default(), Counts::plus);
    Ok(Some((sum, flows.into_iter().filter(|flow| flow.seconds > 0.0).reduce(Flow::beside))))
}

/// What all trees have counted since the beginning; see [`look_at_each`].
async fn look(network: &dyn Network, apply: &Apply) -> io::Result<Option<(Counts, Option<Netem>)>> {
    let each = look_at_each(network, apply).await?;
    Ok(each.map(|(each, netem)| (each.into_iter().fold(Counts::default(), Counts::plus), netem)))
}

/// What each tree has counted since the beginning, and what their netem does. None if one of them has gone, though its
/// namespace has not, or if all namespaces have.
async fn look_at_each(
    network: &dyn Network,
    apply: &Apply,
) -> io::Result<Option<(Vec<Counts>, Option<Netem>)>> {
    let (mut all, mut netem) = (Vec::new(), None);
    for known in &apply.sites {
        let Some(session) = network.enter(&known.site.space).await? else { continue };
        let Some(seen) = known.site.see(&*session).await? else { return Ok(None) };
        all.extend(seen.iter().zip(&known.before).map(|(seen, before)| Counts::of(seen).since(*before)));
        netem = netem.or_else(|| seen.first().and_then(evidence::netem));
    }
    Ok((!all.is_empty()).then_some((all, netem)))
}

/// Filters of others that stand before ours, in words.
async fn ahead(network: &dyn Network, apply: &Apply) -> io::Result<Option<String>> {
    let mut found = Vec::new();
    for known in &apply.sites {
        let Some(session) = network.enter(&known.site.space).await? else { continue };
        for tree in &known.site.trees {
            let others = session.filters(tree.link, tree.way).await?;
            let mut prefs: Vec<u16> = others.iter().map(|one| one.pref).filter(|pref| *pref < PREF).collect();
            prefs.sort_unstable();
            prefs.dedup();
            let prefs: Vec<String> = prefs.iter().take(AHEAD_MAX).map(ToString::to_string).collect();
            if !prefs.is_empty() {
                let way = if tree.way == Way::Out { "egress" } else { "ingress" };
                found.push(format!("{} {way} pref {}", tree.interface, prefs.join(" ")));
            }
        }
    }
    found.truncate(AHEAD_MAX);
    Ok((!found.is_empty()).then(|| format!("filters of others ({})", found.join(", "))))
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
