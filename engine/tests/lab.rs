//! Laws of the lab, on the lab itself: real processes, real sockets.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use engine::lab::{Lab, LabOptions, Place, State};
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use injectors::about::Value;
use injectors::change::ProofStatus;
use injectors::sys::control::{Control, Sockets};
use injectors::sys::proc::{Host, Procs, SignalName};
use injectors::target::{Instance, ProcessId};
use injectors::units::{Share, Span};
use injectors::{Args, Env, Request, Target, Undone};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, MutexGuard};
use tokio::task::JoinSet;

/// One lab at a time: there are two cores, and some laws are about time.
static TURN: Mutex<()> = Mutex::const_new(());
const EXE: &str = env!("CARGO_BIN_EXE_squall");

type Http = Client<HttpConnector, Empty<Bytes>>;

/// A lab in a folder of its own.
struct Bench {
    lab: Lab,
    http: Http,
    place: Place,
    _folder: tempfile::TempDir,
    _turn: MutexGuard<'static, ()>,
}

struct Seen {
    status: u16,
    headers: HashMap<String, String>,
    body: String,
    took: Duration,
}

impl Seen {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    fn pop(&self) -> &str {
        self.header("x-squall-pop")
    }
}

fn folder() -> (tempfile::TempDir, Place) {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir_in("/tmp").unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    let place = Place::at(folder.path()).unwrap();
    (folder, place)
}

impl Bench {
    async fn start(options: LabOptions) -> Self {
        let turn = TURN.lock().await;
        let (folder, place) = folder();
        let lab = Lab::start_in(&place, Path::new(EXE), options).await.unwrap();
        let http = Client::builder(TokioExecutor::new()).build_http();
        Self { lab, http, place, _folder: folder, _turn: turn }
    }

    async fn end(self) {
        self.lab.stop().await.unwrap();
    }

    async fn get(&self, path: &str) -> Seen {
        fetch(&self.http, self.lab.address(), path).await.unwrap()
    }

    async fn statuses(&self, path: &str, requests: usize) -> BTreeMap<u16, usize> {
        let mut statuses = BTreeMap::new();
        for n in 0..requests {
            *statuses.entry(self.get(&path.replace('#', &n.to_string())).await.status).or_default() += 1;
        }
        statuses
    }

    /// Requests per PoP out of so many.
    async fn pops(&self, requests: usize) -> BTreeMap<String, usize> {
        let mut pops = BTreeMap::new();
        for _ in 0..requests {
            *pops.entry(self.get("/asset/logo").await.pop().to_owned()).or_default() += 1;
        }
        pops
    }

    fn instance(&self, name: &str) -> &Instance {
        self.lab.inventory().instances.iter().find(|instance| instance.name == name).unwrap()
    }

    fn capacity(&self, name: &str) -> f64 {
        let instances = &self.lab.status().lab.instances;
        instances.iter().find(|instance| instance.name == name).unwrap().capacity_per_s.unwrap()
    }

    async fn kill(&mut self, name: &str) -> ProcessId {
        let id = self.instance(name).process.unwrap();
        assert!(Host.signal(id, SignalName::Kill).unwrap());
        within(Duration::from_secs(2), || !alive(id)).await;
        self.lab.refresh().await.unwrap();
        id
    }

    /// Waits until the balancer takes a PoP for up or down.
    async fn until_up(&self, pop: &str, up: bool) {
        let start = Instant::now();
        while self.balancer(json!({"op": "weights"})).await["pops"][pop]["up"] != up {
            assert!(
                start.elapsed() < Duration::from_secs(5),
                "{pop} is not {}",
                if up { "up" } else { "down" }
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn control(&self, request: serde_json::Value) -> serde_json::Value {
        Sockets.call(&self.lab.status().lab.control, &request).await.unwrap()
    }

    async fn balancer(&self, request: serde_json::Value) -> serde_json::Value {
        let balancer = self.lab.inventory().balancer.clone().unwrap();
        Sockets.call(&balancer.control, &request).await.unwrap()
    }
}

async fn fetch(http: &Http, addr: &str, path: &str) -> Result<Seen, String> {
    let start = Instant::now();
    let uri = format!("http://{addr}{path}").parse().unwrap();
    let response =
        tokio::time::timeout(Duration::from_secs(5), http.get(uri)).await.map_err(|e| e.to_string())?;
    let (parts, body) = response.map_err(|e| e.to_string())?.into_parts();
    let body = body.collect().await.map_err(|e| e.to_string())?.to_bytes();
    let headers = parts.headers.iter();
    Ok(Seen {
        status: parts.status.as_u16(),
        headers: headers.map(|(k, v)| (k.to_string(), v.to_str().unwrap().to_owned())).collect(),
        body: String::from_utf8_lossy(&body).into_owned(),
        took: start.elapsed(),
    })
}

fn alive(id: ProcessId) -> bool {
    Host.look(id.pid).unwrap().is_some_and(|info| info.id == id && !info.ended())
}

/// Waits until the condition holds, and fails if it does not in time.
#[track_caller]
fn within(limit: Duration, holds: impl Fn() -> bool) -> impl Future<Output = ()> {
    let caller = std::panic::Location::caller();
    async move {
        let start = Instant::now();
        while !holds() {
            assert!(start.elapsed() < limit, "not within {limit:?} at {caller}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Every process whose parent is this one.
fn children(parent: u32) -> Vec<ProcessId> {
    let of = |pid: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let ppid: u32 = stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()?;
        (ppid == parent).then(|| Host.look(pid).ok()?.map(|info| info.id))?
    };
    let pids = std::fs::read_dir("/proc").unwrap().flatten();
    pids.filter_map(|entry| of(entry.file_name().to_str()?.parse().ok()?)).collect()
}

fn leftovers(root: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(root).unwrap().flatten().map(|entry| entry.path()).collect()
}

#[tokio::test]
async fn everything_is_up_soon_and_answers_name_pop_and_path() {
    let turn = TURN.lock().await;
    let (folder, place) = folder();
    let start = Instant::now();
    let lab = Lab::start_in(&place, Path::new(EXE), LabOptions::default()).await.unwrap();
    let took = start.elapsed();
    println!("the lab was up after {took:?}");
    assert!(took < Duration::from_secs(5));
    let http = Client::builder(TokioExecutor::new()).build_http();
    let bench = Bench { lab, http, place, _folder: folder, _turn: turn };
    let mut pops = Vec::new();
    for _ in 0..3 {
        let seen = bench.get("/checkout").await;
        assert_eq!(seen.status, 200, "{}", seen.body);
        let path: Vec<&str> = seen.header("x-squall-path").split(',').collect();
        let services: Vec<&str> = path.iter().map(|name| name.split('-').next().unwrap()).collect();
        assert_eq!(services, ["edge", "kv", "origin", "catalog", "auth"]);
        assert_eq!(path[0], format!("edge-{}", seen.pop()));
        assert_eq!(seen.header("x-squall-stale"), "");
        pops.push(seen.pop().to_owned());
    }
    pops.sort_unstable();
    assert_eq!(pops, ["fra", "iad", "sin"]);
    assert_eq!(bench.get("/login").await.header("x-squall-path").split(',').next_back(), Some("auth-1"));
    assert_eq!(bench.get("/nowhere").await.status, 404);
    assert_eq!(bench.get("/healthz").await.status, 200);
    bench.end().await;
}

#[tokio::test]
async fn the_inventory_names_every_process_relay_and_pop() {
    let mut bench = Bench::start(LabOptions::default()).await;
    let status = bench.lab.refresh().await.unwrap().clone();
    assert_eq!((status.inventory.instances.len(), status.inventory.relays.len()), (10, 9));
    for instance in &status.inventory.instances {
        assert!(alive(instance.process.unwrap()), "{}", instance.name);
        assert_eq!(instance.relay.is_some(), instance.name != "glb");
        let port = instance.addr.rsplit(':').next().unwrap().parse().unwrap();
        let listeners: Vec<ProcessId> = Host.listeners(port).unwrap().iter().map(|info| info.id).collect();
        assert_eq!(listeners, [instance.process.unwrap()], "{}", instance.name);
    }
    for relay in &status.inventory.relays {
        let instance = bench.instance(&relay.name);
        assert_eq!(relay.upstream, instance.addr);
    }
    let auth = status.lab.instances.iter().find(|instance| instance.name == "auth-1").unwrap();
    assert_eq!((auth.state, auth.capacity_per_s), (State::Up, Some(2000.0)));
    let longest = [status.lab.control.clone(), status.inventory.balancer.clone().unwrap().control];
    assert!(longest.iter().all(|path| path.as_os_str().len() < 100));
    bench.end().await;
}

/// Requests per second that a closed loop of so many connections gets answered with 200, over three seconds.
async fn closed_loop_rate(addr: &str, path: &str, connections: usize) -> f64 {
    let done = Arc::new(AtomicUsize::new(0));
    let mut clients = JoinSet::new();
    for _ in 0..connections {
        let (addr, path, done) = (addr.to_owned(), path.to_owned(), Arc::clone(&done));
        clients.spawn(async move {
            // Plain bytes: on two cores the client must not be what is measured.
            let mut stream = TcpStream::connect(addr).await.unwrap();
            let request = format!("GET {path} HTTP/1.1\r\nhost: lab\r\n\r\n");
            let mut answer = [0u8; 4096];
            loop {
                stream.write_all(request.as_bytes()).await.unwrap();
                let read = stream.read(&mut answer).await.unwrap();
                assert!(
                    answer[..read].starts_with(b"HTTP/1.1 200"),
                    "the queue of auth is longer than this loop"
                );
                done.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (start, before) = (Instant::now(), done.load(Ordering::Relaxed));
    tokio::time::sleep(Duration::from_secs(3)).await;
    let rate = (done.load(Ordering::Relaxed) - before) as f64 / start.elapsed().as_secs_f64();
    clients.shutdown().await;
    rate
}

#[tokio::test]
async fn the_capacity_of_auth_is_what_is_stated() {
    let bench = Bench::start(LabOptions::default()).await;
    let stated = bench.capacity("auth-1");
    let mut rates = Vec::new();
    // Nothing may carry more than is stated. Less is the fault of a busy host, unless it is never reached.
    while rates.len() < 5 && !rates.iter().any(|rate| *rate >= 0.9 * stated) {
        rates.push(closed_loop_rate(&bench.instance("auth-1").addr, "/session", 48).await);
    }
    println!("auth-1 carried {rates:.0?} requests per second, stated are {stated:.0}");
    assert!(rates.iter().any(|rate| *rate >= 0.9 * stated), "{rates:?}");
    assert!(rates.iter().all(|rate| *rate <= 1.1 * stated), "{rates:?}");
    bench.end().await;
}

#[tokio::test]
async fn without_auth_there_is_no_checkout_but_assets_are_served() {
    let mut bench = Bench::start(LabOptions::default()).await;
    assert_eq!(bench.get("/checkout").await.status, 200);
    bench.kill("auth-1").await;
    let seen = bench.get("/checkout").await;
    assert_eq!(seen.status, 502, "{}", seen.body);
    assert!(seen.body.contains("auth-1") && seen.header("x-squall-failed") == "auth-1", "{}", seen.body);
    assert!(seen.header("x-squall-path").contains("origin"), "{}", seen.header("x-squall-path"));
    let statuses = bench.statuses("/checkout", 20).await;
    assert!(statuses.keys().all(|status| matches!(status, 502 | 504)), "{statuses:?}");
    assert_eq!(bench.statuses("/asset/#", 20).await, BTreeMap::from([(200, 20)]));
    assert_eq!(bench.statuses("/browse?#", 20).await, BTreeMap::from([(200, 20)]));
    bench.end().await;
}

#[tokio::test]
async fn a_paused_auth_is_a_gateway_timeout_within_the_client_deadline() {
    let bench = Bench::start(LabOptions::default()).await;
    assert_eq!(bench.get("/checkout").await.status, 200);
    let auth = bench.instance("auth-1").process.unwrap();
    assert!(Host.signal(auth, SignalName::Stop).unwrap());
    let mut blamed = Vec::new();
    for _ in 0..3 {
        let seen = bench.get("/checkout").await;
        assert_eq!(seen.status, 504, "{}", seen.body);
        assert!(seen.took < Duration::from_millis(2500), "{:?}", seen.took);
        blamed.push(seen.header("x-squall-failed").to_owned());
    }
    // A busy host may delay the origin's own answer beyond the patience of its caller, but not always.
    assert!(blamed.iter().any(|name| name == "auth-1"), "{blamed:?}");
    assert!(Host.signal(auth, SignalName::Cont).unwrap());
    assert_eq!(bench.get("/checkout").await.status, 200);
    bench.end().await;
}

#[tokio::test]
async fn without_kv_everything_is_served_with_a_mark() {
    let mut bench = Bench::start(LabOptions::default()).await;
    assert_eq!(bench.get("/checkout").await.header("x-squall-stale"), "");
    bench.kill("kv-1").await;
    for path in ["/checkout", "/browse"] {
        let seen = bench.get(path).await;
        assert_eq!((seen.status, seen.header("x-squall-stale")), (200, "kv"), "{path}: {}", seen.body);
    }
    bench.control(json!({"op": "start", "instance": "kv-1"})).await;
    assert_eq!(bench.get("/checkout").await.header("x-squall-stale"), "");
    bench.end().await;
}

#[tokio::test]
async fn retries_hide_the_loss_of_one_catalog_and_without_them_it_shows() {
    for (retries, hidden) in [(1, true), (0, false)] {
        let mut bench = Bench::start(LabOptions { retries, ..LabOptions::default() }).await;
        assert_eq!(bench.statuses("/checkout", 10).await, BTreeMap::from([(200, 10)]));
        bench.kill("catalog-2").await;
        let statuses = bench.statuses("/checkout", 60).await;
        assert_eq!(statuses == BTreeMap::from([(200, 60)]), hidden, "{statuses:?}");
        bench.end().await;
    }
}

#[tokio::test]
async fn under_load_the_loss_of_one_of_several_costs_no_request() {
    for victim in ["catalog-1", "origin-2", "edge-sin"] {
        let mut bench = Bench::start(LabOptions::default()).await;
        let mut clients = JoinSet::new();
        for _ in 0..8 {
            let (http, addr) = (bench.http.clone(), bench.lab.address().to_owned());
            clients.spawn(async move {
                for _ in 0..40 {
                    let seen = fetch(&http, &addr, "/checkout").await.unwrap();
                    assert_eq!(seen.status, 200, "{}", seen.body);
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            });
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        bench.kill(victim).await;
        while let Some(client) = clients.join_next().await {
            client.unwrap();
        }
        bench.end().await;
    }
}

#[tokio::test]
async fn browse_is_cached_for_a_moment_per_path_and_query_unless_switched_off() {
    let bench = Bench::start(LabOptions::default()).await;
    let mut marks = Vec::new();
    for _ in 0..6 {
        marks.push(bench.get("/browse?page=1").await.header("x-squall-cache").to_owned());
    }
    // One miss per PoP, then hits.
    assert_eq!(marks, ["miss", "miss", "miss", "hit", "hit", "hit"]);
    assert_eq!(bench.get("/browse?page=2").await.header("x-squall-cache"), "miss");
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(bench.get("/browse?page=1").await.header("x-squall-cache"), "miss");
    bench.end().await;
    let bench = Bench::start(LabOptions { cache: false, ..LabOptions::default() }).await;
    for _ in 0..6 {
        assert_eq!(bench.get("/browse").await.header("x-squall-cache"), "");
    }
    bench.end().await;
}

#[tokio::test]
async fn traffic_leaves_a_dead_pop_and_returns_when_it_is_started_again() {
    let mut bench = Bench::start(LabOptions::default()).await;
    let addr = bench.instance("edge-fra").addr.clone();
    let old = bench.kill("edge-fra").await;
    assert!(bench.instance("edge-fra").process.is_none());
    assert_eq!(bench.statuses("/checkout", 60).await, BTreeMap::from([(200, 60)]));
    bench.until_up("fra", false).await;
    assert_eq!(bench.pops(40).await.keys().collect::<Vec<_>>(), ["iad", "sin"]);
    let request = json!({"op": "start", "instance": "edge-fra"});
    assert_eq!(bench.control(request.clone()).await["started"], true);
    assert_eq!(bench.control(request).await["started"], false);
    bench.lab.refresh().await.unwrap();
    let new = bench.instance("edge-fra");
    assert_eq!(new.addr, addr);
    assert_ne!(new.process, Some(old));
    bench.until_up("fra", true).await;
    let pops = bench.pops(60).await;
    assert!(pops.len() == 3 && pops.values().all(|requests| (19..=21).contains(requests)), "{pops:?}");
    bench.end().await;
}

#[tokio::test]
async fn a_drain_moves_shares_and_its_lease_gives_them_back() {
    let bench = Bench::start(LabOptions::default()).await;
    let before = bench.balancer(json!({"op": "weights"})).await;
    assert_eq!(before["pops"]["fra"]["share_of_base"], 1.0);
    bench.balancer(json!({"op": "drain", "id": "t/1", "pop": "fra", "share": 0.5, "lease_s": 20.0})).await;
    assert_eq!(bench.pops(50).await["fra"], 10);
    bench.balancer(json!({"op": "renew", "id": "t/1", "share": 0.0, "lease_s": 2.0})).await;
    assert!(!bench.pops(20).await.contains_key("fra"));
    let seen = bench.balancer(json!({"op": "observe", "id": "t/1"})).await;
    assert_eq!(seen["pops"]["fra"]["requests"], 0);
    tokio::time::sleep(Duration::from_millis(2050)).await;
    assert_eq!(bench.pops(30).await["fra"], 10);
    assert_eq!(bench.balancer(json!({"op": "clear", "id": "t/1"})).await["cleared"], false);
    let after = bench.balancer(json!({"op": "weights"})).await;
    assert_eq!(after["pops"]["fra"]["share_of_base"], before["pops"]["fra"]["share_of_base"]);
    bench.end().await;
}

#[tokio::test]
async fn the_fault_pop_drain_proves_itself_on_the_lab_and_leaves_its_picture() {
    let bench = Bench::start(LabOptions::default()).await;
    let env = Env::host(bench.lab.inventory().clone());
    let injector = injectors::registry::find("pop-drain").unwrap();
    let steps = Value::Shares([0.5, 0.0].map(Share).to_vec());
    let soak = Value::Span(Span(Duration::from_secs(10)));
    let args = Args(BTreeMap::from([("steps".to_owned(), steps), ("soak".to_owned(), soak)]));
    let target = Target::Pop("fra".to_owned());
    let request = Request { id: "t/1".to_owned(), args, target, seed: 1 };
    let change = injector.prepare(&env, &request).await.unwrap();
    assert_eq!(bench.pops(30).await["fra"], 10, "preparing touches nothing");
    assert_eq!(injector.undo(&env, &change.undo).await.unwrap(), Undone::NothingToDo, "before apply");

    injector.apply(&env, &change).await.unwrap();
    assert_eq!(injector.observe(&env, &change).await.unwrap().status, ProofStatus::Unproven);
    for _ in 0..6 {
        bench.pops(10).await;
        injector.renew(&env, &change, Duration::ZERO).await.unwrap();
    }
    let proof = injector.observe(&env, &change).await.unwrap();
    assert_eq!(proof.status, ProofStatus::Confirmed, "{proof:?}");
    injector.renew(&env, &change, Duration::from_secs(11)).await.unwrap();
    assert!(!bench.pops(60).await.contains_key("fra"));
    let proof = injector.observe(&env, &change).await.unwrap();
    assert_eq!((proof.status, proof.samples), (ProofStatus::Confirmed, 60), "{proof:?}");
    assert_ne!(injector.picture(&env, &change.undo).await.unwrap(), change.picture);

    assert_eq!(injector.undo(&env, &change.undo).await.unwrap(), Undone::Reverted);
    assert_eq!(injector.undo(&env, &change.undo).await.unwrap(), Undone::NothingToDo);
    assert_eq!(injector.picture(&env, &change.undo).await.unwrap(), change.picture);
    assert!(
        injector.renew(&env, &change, Duration::from_secs(12)).await.is_err(),
        "an undone drain stays undone"
    );
    assert_eq!(bench.pops(30).await["fra"], 10);
    bench.end().await;
    assert_eq!(injector.undo(&env, &change.undo).await.unwrap(), Undone::NothingToDo, "without a balancer");
}

#[tokio::test]
async fn a_killed_supervisor_takes_everything_with_it_even_paused_children() {
    let bench = Bench::start(LabOptions::default()).await;
    let supervisor = bench.lab.supervisor();
    let family = children(supervisor.pid);
    assert_eq!(family.len(), 11, "ten instances and one relay process");
    let instances = &bench.lab.inventory().instances;
    let relay = family.iter().find(|id| instances.iter().all(|instance| instance.process != Some(**id)));
    for paused in [bench.instance("catalog-1").process.unwrap(), *relay.unwrap()] {
        assert!(Host.signal(paused, SignalName::Stop).unwrap());
    }
    assert!(Host.signal(supervisor, SignalName::Kill).unwrap());
    within(Duration::from_secs(2), || !family.iter().any(|id| alive(*id))).await;
    let ports: Vec<u16> = bench
        .lab
        .inventory()
        .relays
        .iter()
        .map(|r| r.listen.rsplit(':').next().unwrap().parse().unwrap())
        .collect();
    assert!(ports.iter().all(|port| Host.listeners(*port).unwrap().is_empty()));
    let Bench { lab, place, _folder, .. } = bench;
    lab.stop().await.unwrap();
    assert_eq!(leftovers(place.root()), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn the_end_of_stdin_leaves_nothing() {
    let bench = Bench::start(LabOptions::default()).await;
    let supervisor = bench.lab.supervisor();
    let family = children(supervisor.pid);
    assert!(Host.signal(bench.instance("auth-1").process.unwrap(), SignalName::Stop).unwrap());
    let Bench { lab, place, _folder, .. } = bench;
    drop(lab);
    within(Duration::from_secs(3), || !alive(supervisor)).await;
    assert!(!family.iter().any(|id| alive(*id)));
    assert_eq!(leftovers(place.root()), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn the_order_to_stop_leaves_nothing() {
    let bench = Bench::start(LabOptions::default()).await;
    let supervisor = bench.lab.supervisor();
    let family = children(supervisor.pid);
    bench.control(json!({"op": "stop"})).await;
    within(Duration::from_secs(3), || !alive(supervisor)).await;
    assert!(!family.iter().any(|id| alive(*id)));
    assert_eq!(leftovers(bench.place.root()), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn a_lab_whose_folder_is_removed_can_not_be_told_to_stop_so_it_stops() {
    let _turn = TURN.lock().await;
    let (folder, place) = folder();
    let standing = place.up(Path::new(EXE), LabOptions::default()).await.unwrap();
    let family = children(standing.status.lab.supervisor.pid);
    folder.close().unwrap();
    within(Duration::from_secs(5), || !alive(standing.status.lab.supervisor)).await;
    assert!(!family.iter().any(|id| alive(*id)));
}

#[tokio::test]
async fn a_detached_lab_stands_once_is_found_and_goes() {
    let _turn = TURN.lock().await;
    let (_folder, place) = folder();
    assert!(place.standing().is_none() && place.down().await.unwrap().is_none());
    let standing =
        place.up(Path::new(EXE), LabOptions { retries: 2, ..LabOptions::default() }).await.unwrap();
    let found = place.standing().unwrap();
    assert_eq!(found, standing);
    assert_eq!(found.options.retries, 2);
    let session = std::fs::read_to_string(format!("/proc/{}/stat", found.status.lab.supervisor.pid)).unwrap();
    let session = session.rsplit_once(") ").unwrap().1.split(' ').nth(3).unwrap().to_owned();
    assert_eq!(session, found.status.lab.supervisor.pid.to_string(), "it leads a session of its own");
    let again = place.up(Path::new(EXE), LabOptions::default()).await.unwrap_err().to_string();
    assert!(again.contains("already up") && again.contains("squall lab down"), "{again}");
    let http: Http = Client::builder(TokioExecutor::new()).build_http();
    assert_eq!(fetch(&http, &found.address, "/checkout").await.unwrap().status, 200);
    assert_eq!(place.status().await.unwrap().unwrap().lab.supervisor, found.status.lab.supervisor);
    let family = children(found.status.lab.supervisor.pid);
    assert!(place.down().await.unwrap().is_some());
    assert!(!family.iter().any(|id| alive(*id)));
    assert!(place.standing().is_none());
    assert_eq!(leftovers(place.root()), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn the_state_of_a_killed_detached_lab_is_not_believed() {
    let _turn = TURN.lock().await;
    let (_folder, place) = folder();
    let standing = place.up(Path::new(EXE), LabOptions::default()).await.unwrap();
    assert!(Host.signal(standing.status.lab.supervisor, SignalName::Kill).unwrap());
    within(Duration::from_secs(2), || !alive(standing.status.lab.supervisor)).await;
    assert!(place.state_file().exists());
    assert!(place.standing().is_none());
    assert!(!place.state_file().exists());
    let again = place.up(Path::new(EXE), LabOptions::default()).await.unwrap();
    assert_ne!(again.address, standing.address);
    assert!(place.down().await.unwrap().is_some());
    assert_eq!(leftovers(place.root()), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn options_out_of_range_are_refused_before_anything_starts() {
    let (_folder, place) = folder();
    for options in [
        LabOptions { retries: 11, ..LabOptions::default() },
        LabOptions { retry_budget: f64::NAN, ..LabOptions::default() },
        LabOptions { retry_budget: 1.5, ..LabOptions::default() },
    ] {
        assert!(Lab::start_in(&place, Path::new(EXE), options).await.is_err());
    }
    assert_eq!(leftovers(place.root()), Vec::<PathBuf>::new());
}
