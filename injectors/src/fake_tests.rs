//! A small world behind the ports `Procs`, `Control`, `Network` and `Docker`: processes, a lab, a relay, a balancer, an
//! interface, containers, and a thing that commands can break. It does what it is told, and one call of a chosen number can fail.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::relay::fault::RelayFault;
use crate::relay::table::Table;
use crate::stress::{Seen, VERB};
use crate::sys::control::{Control, ControlError};
use crate::sys::proc::{Output, ProcessInfo, Procs, SignalName, Started};
use crate::target::{Balancer, Instance, Inventory, ProcessId, Protocol, Relay, Scope};
use crate::{Env, Pending};

/// The only instance of the lab; it has a master and a worker behind [`PORT`].
pub(crate) const INSTANCE: &str = "auth-1";
/// Where the processes of a server that is no lab's listen.
pub(crate) const PORT: u16 = 80;
/// Beyond any number that a kernel gives, so that none is our own.
const FIRST_PID: u32 = 5_000_000;

/// What a failing call leaves behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Nothing was done.
    Refused,
    /// It was done, and the answer got lost.
    Unheard,
}

#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) info: ProcessInfo,
    listens: bool,
    mark: String,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) processes: Vec<Process>,
    pub(crate) fleet: crate::fake_docker_tests::Fleet,
    born: u64,
    /// The lab's instance, while it runs.
    instance: Option<ProcessId>,
    table: Table,
    drains: BTreeMap<String, f64>,
    /// Whether programs that are started run on without ever listening.
    pub(crate) deaf: bool,
    /// How many programs were started.
    pub(crate) starts: usize,
    broken: bool,
    pub(crate) network: crate::fake_network_tests::Links,
    pub(crate) pressure: crate::fake_pressure_tests::Pressure,
    /// Whether programs that are started say why they cannot.
    pub(crate) unstartable: bool,
    /// Processes that a signal has reached.
    pub(crate) signalled: Vec<ProcessId>,
    calls: usize,
    failing: Option<(usize, Failure)>,
}

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct World(Arc<Mutex<State>>);

impl World {
    pub(crate) fn new() -> Self {
        let routes = vec![("r".to_owned(), Protocol::Http)];
        let mut state = State {
            processes: Vec::new(),
            fleet: crate::fake_docker_tests::Fleet::default(),
            born: 0,
            instance: None,
            table: Table::new(routes),
            drains: BTreeMap::new(),
            deaf: false,
            starts: 0,
            broken: false,
            network: crate::fake_network_tests::Links::new(),
            pressure: crate::fake_pressure_tests::Pressure::new(),
            unstartable: false,
            signalled: Vec::new(),
            calls: 0,
            failing: None,
        };
        state.instance = Some(state.bear("auth", false));
        state.bear("nginx", true);
        state.bear("nginx", true);
        state.fill_fleet();
        Self(Arc::new(Mutex::new(state)))
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// The ports to this world. Without an inventory, only what needs none works.
    pub(crate) fn env(&self, inventory: Inventory) -> Env {
        let world = || Arc::new(self.clone());
        Env {
            inventory,
            procs: world(),
            control: world(),
            network: world(),
            cgroups: world(),
            resources: world(),
            docker: world(),
            program: "squall".into(),
        }
    }

    pub(crate) fn inventory(&self) -> Inventory {
        let instance = Instance {
            service: "auth".to_owned(),
            name: INSTANCE.to_owned(),
            pop: None,
            addr: "127.0.0.1:1".to_owned(),
            process: self.state().instance,
            supervisor: "/lab".into(),
            relay: Some("r".to_owned()),
        };
        let relay = Relay {
            name: "r".to_owned(),
            control: "/relay".into(),
            listen: "127.0.0.1:2".to_owned(),
            upstream: "127.0.0.1:1".to_owned(),
            protocol: Protocol::Http,
        };
        let pops = vec!["fra".to_owned(), "iad".to_owned()];
        let balancer = Balancer { control: "/glb".into(), pops, addr: "127.0.0.1:3".to_owned() };
        Inventory { instances: vec![instance], relays: vec![relay], balancer: Some(balancer) }
    }

    /// All that faults can change, without the numbers of processes.
    pub(crate) fn look(&self) -> Value {
        let state = self.state();
        let mut running: Vec<String> =
            state.processes.iter().map(|p| format!("{} {}", p.info.comm, p.info.state)).collect();
        running.sort();
        let faults: Vec<&str> = state.table.on(0).map(|(live, _)| live.id.as_str()).collect();
        json!({
            "running": running,
            "instance": state.instance.is_some(),
            "faults": faults,
            "drains": state.drains,
            "broken": state.broken,
            "network": state.network.look(),
            "pressure": state.pressure.look(),
            "containers": state.fleet_look(),
        })
    }

    /// From here on, the call with this number (from 1) fails; none if all go well.
    pub(crate) fn fail(&self, failing: Option<(usize, Failure)>) {
        let mut state = self.state();
        (state.calls, state.failing) = (0, failing);
    }

    /// Calls since [`World::fail`].
    pub(crate) fn calls(&self) -> usize {
        self.state().calls
    }

    /// All processes end, and others get their numbers: what a reboot or a full round of numbers does.
    pub(crate) fn reuse_all_numbers(&self) {
        let mut state = self.state();
        for index in 0..state.processes.len() {
            state.born += 1;
            state.processes[index].info.id.start_ticks = state.born;
            state.processes[index].info.state = 'S';
        }
        state.instance = state.processes.first().map(|process| process.info.id);
        state.signalled.clear();
    }

    /// Somebody else ends every process, even those that are stopped.
    pub(crate) fn end_all(&self) {
        let mut state = self.state();
        state.processes.clear();
        state.instance = None;
    }

    /// What was started hears at last.
    pub(crate) fn listen(&self) {
        self.state().processes.iter_mut().filter(|p| !p.mark.is_empty()).for_each(|p| p.listens = true);
    }

    /// Somebody else drains a PoP, or no longer.
    pub(crate) fn foreign_drain(&self, lives: bool) {
        let drains = &mut self.state().drains;
        drains.retain(|id, _| id != "other/1");
        drains.extend(lives.then(|| ("other/1".to_owned(), 0.5)));
    }

    /// A kernel without these.
    pub(crate) fn lacks(&self, features: &[&'static str]) {
        self.state().network.lacks = features.to_vec();
    }

    /// What every name means from now on.
    pub(crate) fn name_means(&self, addresses: &[std::net::IpAddr]) {
        self.state().network.addresses = addresses.to_vec();
    }

    /// The addresses that filters of what leaves ask for.
    pub(crate) fn hit_addresses(&self) -> Vec<std::net::IpAddr> {
        self.state().network.hit_addresses()
    }

    /// Somebody else has the lab's instance again.
    pub(crate) fn bear_instance(&self) {
        let mut state = self.state();
        state.instance = Some(state.bear("auth", false));
    }

    /// Does one call, or fails as told.
    pub(crate) fn call<T, E>(&self, failed: E, act: impl FnOnce(&mut State) -> Result<T, E>) -> Result<T, E> {
        let mut state = self.state();
        state.calls += 1;
        match state.failing {
            Some((number, Failure::Refused)) if number == state.calls => Err(failed),
            Some((number, Failure::Unheard)) if number == state.calls => act(&mut state).and(Err(failed)),
            _ => act(&mut state),
        }
    }

    /// One call to the kernel about its network.
    pub(crate) fn net<T>(
        &self,
        act: impl FnOnce(&mut crate::fake_network_tests::Links) -> io::Result<T>,
    ) -> io::Result<T> {
        self.call(io::Error::other("as told"), |state| act(&mut state.network))
    }

    /// One call to the kernel about groups, limits and room.
    pub(crate) fn os<T>(&self, act: impl FnOnce(&mut State) -> T) -> io::Result<T> {
        self.call(io::Error::other("as told"), |state| Ok(act(state)))
    }
}

impl State {
    /// All interfaces.
    pub(crate) fn network(&mut self) -> &mut crate::fake_network_tests::Links {
        &mut self.network
    }

    pub(crate) fn bear(&mut self, comm: &str, listens: bool) -> ProcessId {
        self.born += 1;
        let id = ProcessId { pid: FIRST_PID + self.born as u32, start_ticks: self.born };
        let info = ProcessInfo { id, comm: comm.to_owned(), state: 'S' };
        self.processes.push(Process { info, listens, mark: String::new() });
        id
    }

    /// Whether this very process runs.
    pub(crate) fn has(&self, id: ProcessId) -> bool {
        self.processes.iter().any(|process| process.info.id == id)
    }

    /// The processes of the server that is no lab's.
    pub(crate) fn servers(&self) -> Vec<u32> {
        self.infos(|process| process.info.comm == "nginx").into_iter().map(|info| info.id.pid).collect()
    }

    fn infos(&self, which: impl Fn(&Process) -> bool) -> Vec<ProcessInfo> {
        self.processes.iter().filter(|process| which(process)).map(|process| process.info.clone()).collect()
    }

    fn signal(&mut self, id: ProcessId, signal: SignalName) -> bool {
        let Some(at) = self.processes.iter().position(|process| process.info.id == id) else { return false };
        self.signalled.push(id);
        match signal {
            SignalName::Stop => self.processes[at].info.state = 'T',
            SignalName::Cont => self.processes[at].info.state = 'S',
            _ => {
                self.processes.remove(at);
                self.instance = self.instance.filter(|instance| *instance != id);
            }
        }
        true
    }

    fn relay(&mut self, request: &Value) -> Result<Value, String> {
        let (now, text) = (Instant::now(), |name: &str| request[name].as_str().unwrap_or_default());
        let lease = || Duration::from_secs_f64(request["lease_s"].as_f64().unwrap());
        match text("op") {
            "list" => {
                let fault = |(live, _): &(Arc<_>, _)| {
                    let live: &crate::relay::table::Live = live;
                    json!({"id": live.id, "fault": live.fault})
                };
                let faults: Vec<Value> = self.table.on(0).map(fault).collect();
                Ok(json!({"routes": [{"name": "r", "faults": faults}]}))
            }
            "add" => {
                let fault: RelayFault = serde_json::from_value(request["fault"].clone()).unwrap();
                let seed = request["seed"].as_u64().unwrap();
                self.table.add(now, text("route"), text("id"), fault, lease(), seed)?;
                Ok(json!({}))
            }
            "renew" => self.table.renew(now, text("id"), lease()).map(|()| json!({})),
            "clear" => Ok(json!({"cleared": self.table.clear(text("id")).is_some()})),
            "observe" => {
                let (live, _) = self.table.find(text("id")).ok_or("no such fault")?;
                Ok(json!({"observation": live.stats.observation()}))
            }
            other => Err(format!("no relay does {other}")),
        }
    }

    fn lab(&mut self, request: &Value) -> Result<Value, String> {
        match request["op"].as_str() {
            Some("status") => Ok(json!({"instances": [{"name": INSTANCE, "process": self.instance}]})),
            Some("start") => {
                let started = self.instance.is_none();
                if started {
                    self.instance = Some(self.bear("auth", false));
                }
                Ok(json!({"started": started}))
            }
            other => Err(format!("no lab does {other:?}")),
        }
    }

    fn balancer(&mut self, request: &Value) -> Result<Value, String> {
        let id = request["id"].as_str().unwrap_or_default().to_owned();
        let left = self.drains.values().copied().fold(1.0, f64::min);
        match request["op"].as_str() {
            Some("weights") => Ok(json!({"pops": {
                "fra": {"share_of_base": left, "drained_by": self.drains.keys().next()},
                "iad": {"share_of_base": 1.0},
            }})),
            Some("drain") if self.drains.keys().any(|other| *other != id) => {
                Err("drained already".to_owned())
            }
            Some("drain") => {
                self.drains.insert(id, request["share"].as_f64().unwrap());
                Ok(json!({}))
            }
            Some("renew") => {
                let drain = self.drains.get_mut(&id).ok_or("no such drain")?;
                *drain = request["share"].as_f64().unwrap();
                Ok(json!({}))
            }
            Some("clear") => Ok(json!({"cleared": self.drains.remove(&id).is_some()})),
            Some("observe") => Ok(json!({"share": left, "pops": {
                "fra": {"requests": 0, "weight": left * 100.0, "up": true},
                "iad": {"requests": 0, "weight": 100.0, "up": true},
            }})),
            other => Err(format!("no balancer does {other:?}")),
        }
    }
}

impl Control for World {
    fn call<'a>(&'a self, path: &'a Path, request: &'a Value) -> Pending<'a, Result<Value, ControlError>> {
        let answer = |state: &mut State| {
            let answer = match path.to_str() {
                Some("/relay") => state.relay(request),
                Some("/lab") => state.lab(request),
                Some("/glb") => state.balancer(request),
                Some(resolver) if resolver.starts_with("\0squall-resolver-") => {
                    if !state.processes.iter().any(|process| process.info.comm == "squall") {
                        return Err(ControlError::Gone(path.to_owned()));
                    }
                    Ok(state.network.resolver())
                }
                Some(name) if name.starts_with("\0squall-stress-") => {
                    let id = name.trim_start_matches("\0squall-stress-");
                    let lives = state.processes.iter().any(|process| process.mark == id);
                    // It has done nothing yet: there is no time in this world.
                    if lives {
                        Ok(json!({"seen": Seen::default()}))
                    } else {
                        return Err(ControlError::Gone(path.into()));
                    }
                }
                _ => return Err(ControlError::Gone(path.to_owned())),
            };
            answer.map_err(ControlError::Refused)
        };
        let answer = World::call(self, ControlError::Deadline(path.to_owned()), answer);
        Box::pin(std::future::ready(answer))
    }
}

/// A program that has ended, or has become a process of the world.
#[derive(Debug)]
struct Program(Option<ExitStatus>);

impl Started for Program {
    fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        Ok(self.0)
    }
}

impl Procs for World {
    fn look(&self, pid: u32) -> io::Result<Option<ProcessInfo>> {
        self.os(|state| state.infos(|process| process.info.id.pid == pid).pop())
    }

    fn parent(&self, _pid: u32) -> Option<u32> {
        None
    }

    fn descendants(&self, _pid: u32) -> io::Result<Vec<ProcessInfo>> {
        self.os(|_| Vec::new())
    }

    fn signal(&self, id: ProcessId, signal: SignalName) -> io::Result<bool> {
        self.os(|state| state.signal(id, signal))
    }

    fn listeners(&self, port: u16) -> io::Result<Vec<ProcessInfo>> {
        self.os(|state| state.infos(|process| process.listens && port == PORT))
    }

    fn named(&self, command: &str, _scope: &Scope) -> io::Result<Vec<ProcessInfo>> {
        self.os(|state| state.infos(|process| process.info.comm == command))
    }

    fn pid_file(&self, _path: &Path) -> io::Result<u32> {
        self.os(|state| state.processes.iter().find(|process| process.listens).map(|p| p.info.id.pid))?
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn has_program(&self, name: &str) -> bool {
        ["nginx", "break", "mend", "broken"].contains(&name)
    }

    fn marked(&self, mark: &str) -> io::Result<Vec<ProcessInfo>> {
        self.os(|state| state.infos(|process| process.mark == mark))
    }

    fn cgroups(&self, pid: u32) -> io::Result<String> {
        self.os(|state| state.container_of(pid))
    }

    fn frozen(&self, pid: u32) -> io::Result<Option<bool>> {
        self.os(|state| state.is_frozen(pid))
    }

    fn addresses(&self, pid: u32) -> io::Result<Vec<IpAddr>> {
        self.os(|state| state.inner_addresses(pid))
    }

    fn enclosing(&self) -> BTreeSet<String> {
        self.state().fleet.enclosing.clone()
    }

    fn start(&self, argv: &[String], mark: &str) -> io::Result<Box<dyn Started>> {
        self.os(|state| -> Box<dyn Started> {
            state.starts += 1;
            if state.unstartable {
                return Box::new(Program(Some(ExitStatus::from_raw(7 << 8))));
            }
            let verb = argv.get(1).map(String::as_str);
            if verb == Some(VERB) || argv[0] == "squall" {
                let name = if verb == Some(VERB) { "squall-stress" } else { "squall" };
                let id = state.bear(name, false);
                let born = state.processes.iter_mut().find(|process| process.info.id == id);
                mark.clone_into(&mut born.expect("it was just born").mark);
                return Box::new(Program(None));
            }
            // As nginx does: a master and a worker.
            let listens = !state.deaf;
            for id in [state.bear(&argv[0], listens), state.bear(&argv[0], listens)] {
                let born = state.processes.iter_mut().find(|process| process.info.id == id);
                mark.clone_into(&mut born.expect("it was just born").mark);
            }
            Box::new(Program(None))
        })
    }

    fn run<'a>(
        &'a self,
        argv: &'a [String],
        _deadline: Duration,
        _mark: Option<&'a str>,
    ) -> Pending<'a, io::Result<Output>> {
        let output = self.os(|state| {
            let mut text = String::new();
            let code = match argv[0].as_str() {
                "break" => {
                    state.broken = true;
                    0
                }
                "mend" => {
                    state.broken = false;
                    0
                }
                "broken" => i32::from(!state.broken),
                _ => {
                    "bind: address in use\n".clone_into(&mut text);
                    7
                }
            };
            Output { code: Some(code), text }
        });
        Box::pin(std::future::ready(output))
    }
}
