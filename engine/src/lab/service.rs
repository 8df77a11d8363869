//! The services behind the balancer: leaves (kv, auth, catalog), origin and edge.
//!
//! Invariant: everything but `/healthz` passes the instance's worker pool, before anything else is asked.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use hyper::StatusCode;
use injectors::Pending;
use tokio::time::Instant;

use super::LabOptions;
use super::cache::{ASSET, BROWSE, Cache, Keep};
use super::hop::{Hop, Patience, Peer, locked};
use super::model::Service;
use super::pool::Pool;
use super::retry::RoundRobin;
use super::wire::{App, Ask, Reply};

/// One try of the edge at an origin.
const TO_ORIGIN: Duration = Duration::from_millis(700);
/// One try of an origin at auth or catalog.
const TO_LEAF: Duration = Duration::from_millis(400);
/// The edge's one try at kv: optional, so short and never repeated.
const TO_KV: Duration = Duration::from_millis(50);
/// The size of an asset, in bytes.
const ASSET_BYTES: usize = 1024;
/// What the edge assumes before kv has answered for the first time.
const FLAGS: &str = "flags v0\n";

/// The way to each service that an instance calls.
pub(super) type Calls = Hop<RoundRobin>;

/// Builds the way to a service.
pub(super) fn calls(service: &'static str, peers: Vec<Peer>, patience: Patience) -> Calls {
    let chooser = RoundRobin::new(peers.len());
    Hop::new(service, peers, chooser, patience)
}

/// The workers of one instance.
struct Workers {
    name: String,
    pool: Mutex<Pool>,
}

impl Workers {
    fn new(name: &str, service: &Service) -> Self {
        let now = Instant::now().into_std();
        let pool = Pool::new(service.workers, service.work, service.queue, now);
        Self { name: name.to_owned(), pool: Mutex::new(pool) }
    }

    /// Occupies a worker for the service time, or refuses at once.
    async fn work(&self) -> Result<(), Reply> {
        let admitted = locked(&self.pool).admit(Instant::now().into_std());
        let Ok(end) = admitted else {
            let why = "is overloaded: its queue is full";
            return Err(Reply::error(StatusCode::SERVICE_UNAVAILABLE, &self.name, why));
        };
        tokio::time::sleep_until(end.into()).await;
        Ok(())
    }
}

/// kv, auth and catalog: work, then a short answer.
pub(super) struct Leaf {
    workers: Workers,
    body: Bytes,
}

impl Leaf {
    /// An instance of this service.
    pub(super) fn new(name: &str, service: &Service) -> Self {
        let body =
            if service.name == "kv" { "flags v1\n".to_owned() } else { format!("{} ok\n", service.name) };
        Self { workers: Workers::new(name, service), body: body.into() }
    }
}

impl App for Leaf {
    fn name(&self) -> &str {
        &self.workers.name
    }

    fn answer(self: Arc<Self>, _ask: Ask) -> Pending<'static, Reply> {
        Box::pin(async move {
            match self.workers.work().await {
                Ok(()) => Reply::ok(self.body.clone()).through(self.name()),
                Err(refusal) => refusal,
            }
        })
    }
}

/// The origin: needs auth and catalog.
pub(super) struct Origin {
    workers: Workers,
    auth: Calls,
    catalog: Calls,
}

impl Origin {
    /// An instance that calls these peers.
    pub(super) fn new(
        name: &str,
        service: &Service,
        auth: Vec<Peer>,
        catalog: Vec<Peer>,
        options: &LabOptions,
    ) -> Self {
        let patience = Patience::new(TO_LEAF, options);
        Self {
            workers: Workers::new(name, service),
            auth: calls("auth", auth, patience),
            catalog: calls("catalog", catalog, patience),
        }
    }

    async fn checkout(&self, ask: &Ask) -> Reply {
        let (catalog, auth) =
            tokio::join!(self.catalog.call("/item", ask.until), self.auth.call("/session", ask.until));
        let path: Vec<&str> = [&catalog.path, &auth.path]
            .into_iter()
            .map(String::as_str)
            .filter(|path| !path.is_empty())
            .collect();
        let path = path.join(",");
        let reply = [auth, catalog].into_iter().find(|reply| !reply.status.is_success());
        Reply { path, ..reply.unwrap_or_else(|| Reply::ok("checked out\n")) }
    }

    async fn route(&self, ask: &Ask) -> Reply {
        if let Err(refusal) = self.workers.work().await {
            return refusal;
        }
        let reply = match ask.path() {
            "/checkout" => self.checkout(ask).await,
            "/browse" => self.catalog.call("/list", ask.until).await,
            "/login" => self.auth.call("/login", ask.until).await,
            path if path.starts_with("/asset/") => Reply::ok(vec![b'.'; ASSET_BYTES]),
            _ => Reply::unknown(),
        };
        reply.through(&self.workers.name)
    }
}

impl App for Origin {
    fn name(&self) -> &str {
        &self.workers.name
    }

    fn answer(self: Arc<Self>, ask: Ask) -> Pending<'static, Reply> {
        Box::pin(async move { self.route(&ask).await })
    }
}

/// The edge proxy of one PoP: needs origin, would like kv, caches.
pub(super) struct Edge {
    workers: Workers,
    pop: String,
    origin: Calls,
    kv: Calls,
    flags: Mutex<Bytes>,
    cache: Option<Mutex<Cache>>,
}

impl Edge {
    /// The edge of this PoP, calling these peers.
    pub(super) fn new(
        name: &str,
        service: &Service,
        pop: &str,
        origin: Vec<Peer>,
        kv: Vec<Peer>,
        options: &LabOptions,
    ) -> Self {
        let once = Patience { per_try: TO_KV, retries: 0, budget: 0.0 };
        Self {
            workers: Workers::new(name, service),
            pop: pop.to_owned(),
            origin: calls("origin", origin, Patience::new(TO_ORIGIN, options)),
            kv: calls("kv", kv, once),
            flags: Mutex::new(Bytes::from_static(FLAGS.as_bytes())),
            cache: options.cache.then(Mutex::default),
        }
    }

    /// Reads the flags; then what the answer says about them: who gave them, or that the last known ones had to do.
    async fn with_flags(&self, ask: &Ask, answer: impl Future<Output = Reply>) -> Reply {
        let flags = self.kv.call("/flags", ask.until.min(Instant::now() + TO_KV)).await;
        let fresh = flags.status.is_success();
        if fresh {
            *locked(&self.flags) = flags.body;
        }
        let reply = answer.await;
        if fresh { reply.through(&flags.path) } else { Reply { stale: Some("kv".to_owned()), ..reply } }
    }

    async fn cached(&self, ask: &Ask, keep: Keep) -> Reply {
        let Some(cache) = &self.cache else { return self.origin.call(&ask.target, ask.until).await };
        let marked = |reply: Reply, mark: &str| Reply { cache: Some(mark.to_owned()), ..reply };
        let hit = locked(cache).get(Instant::now().into_std(), &ask.target, keep.fresh);
        if let Some(hit) = hit {
            return marked(Reply { path: String::new(), ..hit }, "hit");
        }
        let reply = self.origin.call(&ask.target, ask.until).await;
        if reply.status.is_success() {
            locked(cache).put(Instant::now().into_std(), ask.target.clone(), reply.clone());
        } else if reply.status.is_server_error() {
            let stale = locked(cache).get(Instant::now().into_std(), &ask.target, keep.stale);
            if let Some(stale) = stale {
                return marked(Reply { path: reply.path, ..stale }, "stale");
            }
        }
        marked(reply, "miss")
    }

    async fn route(&self, ask: &Ask) -> Reply {
        if let Err(refusal) = self.workers.work().await {
            return refusal;
        }
        let reply = match ask.path() {
            "/checkout" => self.with_flags(ask, self.origin.call(&ask.target, ask.until)).await,
            "/browse" => self.with_flags(ask, self.cached(ask, BROWSE)).await,
            "/login" => self.origin.call(&ask.target, ask.until).await,
            path if path.starts_with("/asset/") => self.cached(ask, ASSET).await,
            _ => Reply::unknown(),
        };
        reply.through(&self.workers.name)
    }
}

impl App for Edge {
    fn name(&self) -> &str {
        &self.workers.name
    }

    fn answer(self: Arc<Self>, ask: Ask) -> Pending<'static, Reply> {
        Box::pin(async move { Reply { pop: Some(self.pop.clone()), ..self.route(&ask).await } })
    }
}
