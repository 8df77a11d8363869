//! The global load balancer: what clients talk to. Spreads over PoPs, checks their health, obeys drains.

use std::sync::Arc;
use std::time::Duration;

use injectors::Pending;
use serde::Deserialize;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use super::LabOptions;
use super::hop::{Hop, Patience, Peer};
use super::model::{self, GLB};
use super::spread::Spread;
use super::wire::{App, Ask, Reply};

/// One try at an edge.
const TO_EDGE: Duration = Duration::from_secs(1);
/// How often each PoP's health is checked.
const CHECK_EVERY: Duration = Duration::from_millis(200);
/// How long one check may take.
const CHECK_DEADLINE: Duration = Duration::from_millis(200);

/// The balancer.
pub(super) struct Glb {
    edges: Hop<Spread>,
}

impl Glb {
    /// Over these edges, one per PoP.
    pub(super) fn new(edges: Vec<Peer>, options: &LabOptions) -> Self {
        let pops = edges.iter().map(|edge| pop_of(&edge.name).to_owned());
        let spread = Spread::new(pops);
        Self { edges: Hop::new("edge", edges, spread, Patience::new(TO_EDGE, options)) }
    }

    /// Checks the health of every PoP until dropped.
    pub(super) async fn check(self: Arc<Self>) {
        let mut checks = JoinSet::new();
        for index in 0..self.edges.peers().len() {
            let glb = Arc::clone(&self);
            checks.spawn(async move {
                let mut ticks = tokio::time::interval(CHECK_EVERY);
                ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                loop {
                    ticks.tick().await;
                    let healthy = glb.edges.healthy(index, CHECK_DEADLINE).await;
                    glb.edges.chooser().check(index, healthy);
                }
            });
        }
        while checks.join_next().await.is_some() {}
    }

    /// Answers one request on the control socket.
    pub(super) fn control(&self, request: Value) -> Result<Value, String> {
        let now = Instant::now().into_std();
        let mut spread = self.edges.chooser();
        match serde_json::from_value(request).map_err(|e| e.to_string())? {
            Op::Weights => Ok(spread.weights(now)),
            Op::Drain { id, pop, share, lease_s } => spread.drain(now, &id, &pop, share, lease(lease_s)?),
            Op::Renew { id, lease_s, share } => spread.renew(now, &id, share, lease(lease_s)?),
            Op::Clear { id } => Ok(spread.clear(now, &id)),
            Op::Observe { id } => spread.observe(now, &id),
        }
    }
}

/// What the control socket understands.
#[derive(Debug, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase", deny_unknown_fields)]
enum Op {
    Weights,
    Drain { id: String, pop: String, share: f64, lease_s: f64 },
    Renew { id: String, lease_s: f64, share: Option<f64> },
    Clear { id: String },
    Observe { id: String },
}

fn lease(seconds: f64) -> Result<Duration, String> {
    Duration::try_from_secs_f64(seconds).map_err(|_| format!("{seconds} is no lease in seconds"))
}

fn pop_of(instance: &str) -> &'static str {
    model::instances()
        .find(|(_, _, name)| *name == instance)
        .and_then(|(service, index, _)| service.pop(index))
        .expect("every edge of the model stands in a PoP")
}

impl App for Glb {
    fn name(&self) -> &str {
        GLB
    }

    fn answer(self: Arc<Self>, ask: Ask) -> Pending<'static, Reply> {
        Box::pin(async move { self.edges.call(&ask.target, ask.until).await })
    }
}
