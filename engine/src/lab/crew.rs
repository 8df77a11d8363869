//! The supervisor's state: the place of every instance, the relay, the children and their watchers.
//!
//! Invariants: after the first start nothing is started unasked; an instance always returns to its own port, since a
//! bound socket that never listens keeps it (neither a stranger nor an outgoing connection can take it); every child is
//! ended and reaped before the supervisor ends.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use injectors::Inventory;
use injectors::target::{Balancer, Instance, ProcessId, Relay};
use serde_json::{Value, json};
use tokio::net::TcpSocket;
use tokio::process::Child;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::child::{self, Starting};
use super::hop::{Peer, locked};
use super::instance::Duty;
use super::model::{self, GLB, HOST, Service};
use super::status::{Details, InstanceStatus, State, Status};
use super::{LabError, LabOptions, NAME, process};

/// How long one instance may take to start again; less than a control call may take.
const AGAIN_DEADLINE: Duration = Duration::from_millis(1500);
/// How long killed children may take to end.
const END_DEADLINE: Duration = Duration::from_secs(2);

/// Everything that the supervisor looks after.
pub(super) struct Crew {
    me: ProcessId,
    folder: PathBuf,
    options: LabOptions,
    slots: Vec<Arc<Slot>>,
    relays: Mutex<Vec<Relay>>,
    relay: Arc<Mutex<Option<ProcessId>>>,
    began: Instant,
    ready: Mutex<Duration>,
    stop: watch::Sender<bool>,
    watchers: Mutex<JoinSet<()>>,
}

/// The place of one instance: it stays when the process ends.
struct Slot {
    service: Service,
    index: usize,
    name: &'static str,
    addr: SocketAddr,
    /// Bound and never listening: keeps the port.
    _reserved: TcpSocket,
    process: Arc<Mutex<Option<ProcessId>>>,
    /// One start at a time.
    starting: tokio::sync::Mutex<()>,
}

impl Slot {
    fn reserve(service: Service, index: usize, name: &'static str) -> std::io::Result<Self> {
        let reserved = TcpSocket::new_v4()?;
        reserved.set_reuseaddr(true)?;
        reserved.bind(SocketAddr::new(HOST, 0))?;
        Ok(Self {
            service,
            index,
            name,
            addr: reserved.local_addr()?,
            _reserved: reserved,
            process: Arc::default(),
            starting: tokio::sync::Mutex::default(),
        })
    }

    fn running(&self) -> Option<ProcessId> {
        locked(&self.process).filter(|id| process::alive(*id))
    }

    fn instance(&self, supervisor: PathBuf, relays: &[Relay]) -> Instance {
        Instance {
            service: self.service.name.to_owned(),
            name: self.name.to_owned(),
            pop: self.service.pop(self.index).map(str::to_owned),
            addr: self.addr.to_string(),
            process: self.running(),
            supervisor,
            relay: relays.iter().find(|relay| relay.name == self.name).map(|relay| relay.name.clone()),
        }
    }

    fn status(&self) -> InstanceStatus {
        let state = match self.running() {
            Some(id) if process::paused(id) => State::Paused,
            Some(_) => State::Up,
            None => State::Down,
        };
        InstanceStatus {
            name: self.name.to_owned(),
            service: self.service.name.to_owned(),
            state,
            workers: self.service.workers,
            service_time_s: self.service.work.as_secs_f64(),
            queue_s: self.service.queue.as_secs_f64(),
            capacity_per_s: self.service.capacity(),
        }
    }
}

impl Crew {
    /// Reserves every port; starts nothing. Sending `true` through `stop` ends the lab.
    pub(super) fn reserve(
        folder: PathBuf,
        me: ProcessId,
        options: LabOptions,
        stop: watch::Sender<bool>,
    ) -> Result<Self, LabError> {
        let slots: std::io::Result<Vec<_>> = model::instances()
            .map(|(service, index, name)| Slot::reserve(service.tuned(&options), index, name).map(Arc::new))
            .collect();
        Ok(Self {
            me,
            folder,
            options,
            slots: slots.map_err(LabError::system("reserving ports on loopback"))?,
            relays: Mutex::default(),
            relay: Arc::default(),
            began: Instant::now(),
            ready: Mutex::default(),
            stop,
            watchers: Mutex::default(),
        })
    }

    /// The supervisor's own control socket.
    pub(super) fn control_path(&self) -> PathBuf {
        self.folder.join("control.sock")
    }

    /// Starts the relay, then every instance at once, then the balancer, which would see the others as down.
    pub(super) async fn start(&self) -> Result<(), LabError> {
        let fronted = || self.slots.iter().filter(|slot| slot.service.name != GLB);
        let routes: Vec<(&str, SocketAddr)> = fronted().map(|slot| (slot.name, slot.addr)).collect();
        let (relay, relays) = child::start_relay(&self.folder.join("relay.sock"), &routes).await?;
        *locked(&self.relays) = relays;
        let id = relay.id().map(process::find).transpose().map_err(LabError::system("reading /proc"))?;
        self.watch(relay, id.flatten(), &self.relay);
        let starting: Result<Vec<(&Slot, Starting)>, LabError> =
            fronted().map(|slot| Ok((&**slot, child::start_instance(&self.duty(slot))?))).collect();
        for (slot, starting) in starting? {
            let (child, id) = starting.ready().await?;
            self.watch(child, Some(id), &slot.process);
        }
        for slot in self.slots.iter().filter(|slot| slot.service.name == GLB) {
            self.launch(slot).await?;
        }
        *locked(&self.ready) = self.began.elapsed();
        Ok(())
    }

    /// The lab as it is now.
    pub(super) fn status(&self) -> Status {
        let relays = locked(&self.relays).clone();
        let addr = self.slots.iter().find(|slot| slot.service.name == GLB).map(|slot| slot.addr.to_string());
        let address = addr.unwrap_or_default();
        let pops = model::SERVICES.iter().flat_map(|service| service.pops).map(|pop| (*pop).to_owned());
        let balancer =
            Balancer { control: self.balancer_path(), pops: pops.collect(), addr: address.clone() };
        let instance = |slot: &Arc<Slot>| slot.instance(self.control_path(), &relays);
        let instances = self.slots.iter().map(instance).collect();
        let lab = Details {
            name: NAME.to_owned(),
            address,
            options: self.options.clone(),
            supervisor: self.me,
            control: self.control_path(),
            folder: self.folder.clone(),
            ready_s: locked(&self.ready).as_secs_f64(),
            relay_up: locked(&self.relay).is_some_and(process::alive),
            instances: self.slots.iter().map(|slot| slot.status()).collect(),
        };
        Status { inventory: Inventory { instances, relays, balancer: Some(balancer) }, lab }
    }

    /// Answers one request on the control socket.
    pub(super) async fn answer(&self, request: &Value) -> Result<Value, String> {
        match request["op"].as_str() {
            Some("status") => self.status().to_json().map_err(|e| e.to_string()),
            Some("start") => {
                let name = request["instance"].as_str().unwrap_or_default();
                let slot = self.slots.iter().find(|slot| slot.name == name);
                let slot = slot.ok_or_else(|| format!("no instance is called {name:?}"))?;
                let started = tokio::time::timeout(AGAIN_DEADLINE, self.start_again(slot)).await;
                match started {
                    Ok(Ok(started)) => {
                        Ok(json!({"instance": name, "started": started, "process": slot.running()}))
                    }
                    Ok(Err(error)) => Err(error.to_string()),
                    Err(_) => Err(format!("{name} was not up within {} s", AGAIN_DEADLINE.as_secs_f64())),
                }
            }
            Some("stop") => {
                self.stop.send_replace(true);
                Ok(json!({}))
            }
            _ => Err("unknown op; there are status, start and stop".to_owned()),
        }
    }

    /// Ends every child and waits until all are reaped.
    pub(super) async fn end(&self) {
        self.stop.send_replace(true);
        let mut watchers = std::mem::take(&mut *locked(&self.watchers));
        let all = async { while watchers.join_next().await.is_some() {} };
        // Killed processes end at once; one in an uninterruptible wait is left to the kernel.
        let _ = tokio::time::timeout(END_DEADLINE, all).await;
    }

    fn balancer_path(&self) -> PathBuf {
        self.folder.join("glb.sock")
    }

    /// Starts an instance unless it runs; says whether it had to.
    async fn start_again(&self, slot: &Slot) -> Result<bool, LabError> {
        let _one_at_a_time = slot.starting.lock().await;
        if slot.running().is_some() {
            return Ok(false);
        }
        self.launch(slot).await?;
        Ok(true)
    }

    async fn launch(&self, slot: &Slot) -> Result<(), LabError> {
        let (child, id) = child::start_instance(&self.duty(slot))?.ready().await?;
        self.watch(child, Some(id), &slot.process);
        Ok(())
    }

    fn duty(&self, slot: &Slot) -> Duty {
        let relays = locked(&self.relays);
        let peer = |slot: &Arc<Slot>| {
            let relay = relays.iter().find(|relay| relay.name == slot.name)?;
            Some(Peer { name: relay.name.clone(), addr: relay.listen.clone() })
        };
        let peers = |service: &str| {
            self.slots.iter().filter(|slot| slot.service.name == service).filter_map(peer).collect()
        };
        let callees: BTreeMap<String, Vec<Peer>> =
            model::callees(slot.service.name).iter().map(|name| ((*name).to_owned(), peers(name))).collect();
        Duty {
            name: slot.name.to_owned(),
            port: slot.addr.port(),
            options: self.options.clone(),
            callees,
            control: (slot.service.name == GLB).then(|| self.balancer_path()),
        }
    }

    /// Enters a child where it is looked up, reaps it when it ends, and ends it when the lab stops.
    fn watch(&self, mut child: Child, id: Option<ProcessId>, entry: &Arc<Mutex<Option<ProcessId>>>) {
        *locked(entry) = id;
        let entry = Arc::clone(entry);
        let mut stopped = self.stop.subscribe();
        let mut watchers = locked(&self.watchers);
        while watchers.try_join_next().is_some() {}
        // Waiting closes a child's stdin, and the relay ends with its own.
        let stdin = child.stdin.take();
        watchers.spawn(async move {
            tokio::select! {
                _ = child.wait() => {}
                () = async { drop(stopped.wait_for(|stop| *stop).await) } => {}
            }
            child::end(&mut child, END_DEADLINE).await;
            drop(stdin);
            // A successor may have taken the entry already.
            let mut entry = locked(&entry);
            if *entry == id {
                *entry = None;
            }
        });
    }
}
