//! The container engine of the fake world: two containers with a label, each with one process and one network.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::Pending;
use crate::fake_tests::{State, World};
use crate::sys::docker::{Act, Container, DEADLINE, Docker, DockerError, Endpoint, Listed, Status};
use crate::target::ProcessId;

/// The label of both containers.
pub(crate) const LABEL: &str = "app=web";
/// One of them.
pub(crate) const NAME: &str = "web-1";
/// The network of both.
const NETWORK: &str = "backend";

/// All containers of the engine.
#[derive(Debug, Default)]
pub(crate) struct Fleet {
    boxes: Vec<Crate>,
    births: u64,
    /// Whether the engine has ended.
    pub(crate) silent: bool,
    /// Containers in which this process runs.
    pub(crate) enclosing: BTreeSet<String>,
}

#[derive(Debug)]
struct Crate {
    container: Container,
    process: ProcessId,
    /// The network, for when it is attached again.
    network: String,
}

fn id(number: usize) -> String {
    format!("{number:064x}")
}

impl State {
    /// The containers with which every world begins.
    pub(crate) fn fill_fleet(&mut self) {
        for number in 1..=2 {
            let process = self.bear("web", false);
            let endpoint = Endpoint {
                network: "n".repeat(64),
                aliases: vec!["front".to_owned()],
                ipv4: Some(format!("10.88.0.{number}")),
                addresses: vec![IpAddr::from([10, 88, 0, number])],
                ..Endpoint::default()
            };
            self.fleet.births += 1;
            let container = Container {
                id: id(number.into()),
                name: format!("web-{number}"),
                labels: [("app".to_owned(), "web".to_owned())].into(),
                status: Status::Running,
                pid: Some(process.pid),
                started: format!("birth {}", self.fleet.births),
                was_down: None,
                exit_code: 0,
                policy: None,
                auto_remove: false,
                network_mode: NETWORK.to_owned(),
                networks: [(NETWORK.to_owned(), endpoint)].into(),
            };
            self.fleet.boxes.push(Crate { container, process, network: NETWORK.to_owned() });
        }
    }

    /// All that faults can change, without numbers and times.
    pub(crate) fn fleet_look(&self) -> Value {
        let one = |own: &Crate| {
            let now = self.container(own);
            let networks: BTreeMap<&String, Endpoint> =
                now.networks.iter().map(|(name, end)| (name, end.asked())).collect();
            (now.name.clone(), json!({"status": now.status, "networks": networks}))
        };
        json!(self.fleet.boxes.iter().map(one).collect::<BTreeMap<_, _>>())
    }

    /// Changes a container by hand.
    pub(crate) fn container_mut(&mut self, name: &str) -> &mut Container {
        let own = self.fleet.boxes.iter_mut().find(|own| own.container.name == name);
        &mut own.expect("there is such a container").container
    }

    /// Somebody ends a container, if it lives, and starts it.
    pub(crate) fn restart_by_hand(&mut self, name: &str) {
        let at = self.fleet.boxes.iter().position(|own| own.container.name == name).expect("it is there");
        self.end(at);
        self.start(at);
    }

    /// The same, and its network namespace is a new one.
    pub(crate) fn restart_with_network(&mut self, name: &str) {
        self.restart_by_hand(name);
        // Our resolvers end with the process whose network they serve.
        self.processes.retain(|process| process.info.comm != "squall");
        *self.network() = crate::fake_network_tests::Links::new();
    }

    /// The same, and its control group is a new one.
    pub(crate) fn restart_with_group(&mut self, name: &str) {
        self.restart_by_hand(name);
        self.pressure.make_anew();
    }

    /// Somebody removes a container, by force.
    pub(crate) fn remove_container(&mut self, name: &str) {
        let at = self.fleet.boxes.iter().position(|own| own.container.name == name).expect("it is there");
        let gone = self.fleet.boxes.remove(at);
        self.processes.retain(|process| process.info.id != gone.process);
    }

    fn lives(&self, own: &Crate) -> bool {
        self.processes.iter().any(|process| process.info.id == own.process)
    }

    /// As the engine tells it: a container is down when its process is.
    fn container(&self, own: &Crate) -> Container {
        let mut now = own.container.clone();
        if !self.lives(own) {
            (now.status, now.pid, now.exit_code) = (Status::Down, None, 137);
        }
        now
    }

    fn start(&mut self, at: usize) {
        let process = self.bear("web", false);
        self.fleet.births += 1;
        let own = &mut self.fleet.boxes[at];
        own.process = process;
        own.container.pid = Some(process.pid);
        own.container.status = Status::Running;
        own.container.started = format!("birth {}", self.fleet.births);
    }

    fn end(&mut self, at: usize) {
        let process = self.fleet.boxes[at].process;
        self.processes.retain(|other| other.info.id != process);
    }

    fn perform(&mut self, at: usize, act: &Act) -> Result<(), DockerError> {
        let refused = |text: &str| Err(DockerError::Refused(text.to_owned()));
        let lives = self.lives(&self.fleet.boxes[at]);
        let paused = self.fleet.boxes[at].container.status == Status::Paused;
        match act {
            Act::Kill(_) if !lives => return refused("it is not running"),
            Act::Kill(_) | Act::Stop(_) => self.end(at),
            Act::Start if lives => {}
            Act::Start => self.start(at),
            Act::Restart(_) => {
                self.end(at);
                self.start(at);
            }
            Act::Pause if paused || !lives => return refused("it is paused already, or not running"),
            Act::Unpause if !paused => return refused("it is not paused"),
            Act::Pause => self.fleet.boxes[at].container.status = Status::Paused,
            Act::Unpause => self.fleet.boxes[at].container.status = Status::Running,
            Act::Disconnect(network) => {
                let networks = &mut self.fleet.boxes[at].container.networks;
                let before = networks.len();
                networks.retain(|_, end| end.network != *network);
                if networks.len() == before {
                    return refused("it is not connected");
                }
            }
            Act::Connect(end) => {
                let own = &mut self.fleet.boxes[at];
                if own.container.networks.insert(own.network.clone(), (**end).clone()).is_some() {
                    return refused("it is connected already");
                }
            }
        }
        Ok(())
    }

    /// The container in which a process lives.
    fn of_process(&self, pid: u32) -> Option<&Crate> {
        self.fleet.boxes.iter().find(|own| own.process.pid == pid)
    }

    pub(crate) fn container_of(&self, pid: u32) -> String {
        self.of_process(pid).map_or("0::/\n".to_owned(), |own| format!("0::/docker/{}\n", own.container.id))
    }

    pub(crate) fn is_frozen(&self, pid: u32) -> Option<bool> {
        self.of_process(pid).map(|own| own.container.status == Status::Paused)
    }

    pub(crate) fn inner_addresses(&self, pid: u32) -> Vec<IpAddr> {
        let ends = self.of_process(pid).into_iter().flat_map(|own| own.container.networks.values());
        ends.flat_map(|end| end.addresses.clone()).collect()
    }
}

impl World {
    fn engine<T>(
        &self,
        act: impl FnOnce(&mut State) -> Result<T, DockerError>,
    ) -> Pending<'_, Result<T, DockerError>>
    where
        T: Send + 'static,
    {
        let done = self.call(DockerError::Deadline(DEADLINE), |state| {
            if state.fleet.silent {
                let why = "connection refused".to_owned();
                return Err(DockerError::Silent { socket: "/docker.sock".to_owned(), why });
            }
            act(state)
        });
        Box::pin(std::future::ready(done))
    }
}

impl Docker for World {
    fn socket(&self) -> Result<PathBuf, DockerError> {
        Ok("/docker.sock".into())
    }

    fn version<'a>(&'a self, _socket: &'a Path) -> Pending<'a, Result<String, DockerError>> {
        self.engine(|_| Ok("fake 1".to_owned()))
    }

    fn running<'a>(&'a self, _socket: &'a Path) -> Pending<'a, Result<Vec<Listed>, DockerError>> {
        self.engine(|state| {
            let own = state.fleet.boxes.iter().filter(|own| state.lives(own)).map(|own| &own.container);
            let listed = own.map(|own| Listed {
                id: own.id.clone(),
                name: own.name.clone(),
                image: "box:1".to_owned(),
                labels: own.labels.clone(),
                network_mode: own.network_mode.clone(),
            });
            Ok(listed.collect())
        })
    }

    fn look<'a>(
        &'a self,
        _socket: &'a Path,
        name: &'a str,
    ) -> Pending<'a, Result<Option<Container>, DockerError>> {
        self.engine(|state| {
            let own =
                state.fleet.boxes.iter().find(|own| own.container.name == name || own.container.id == name);
            Ok(own.map(|own| state.container(own)))
        })
    }

    fn act<'a>(
        &'a self,
        _socket: &'a Path,
        id: &'a str,
        act: &'a Act,
    ) -> Pending<'a, Result<(), DockerError>> {
        self.engine(|state| {
            let at = state.fleet.boxes.iter().position(|own| own.container.id == id);
            state.perform(at.ok_or(DockerError::Unknown)?, act)
        })
    }
}
