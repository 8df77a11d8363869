//! The network of the fake world: one namespace with one interface, which behaves as the kernel does where it matters.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::Pending;
use crate::fake_filter_tests::Filters;
use crate::fake_tests::World;
use crate::resolver::message::{NO_ERROR, Question, SERVER_FAILURE};
use crate::sys::aim::{Aim, Instruction, Way};
use crate::sys::netlink::{
    Answer, Connection, DESTROY, Echoed, Feature, Filter, HOOKS, Link, Network, Peer, Place, Qdisc, ROOT,
    Session, Space, Step, Stream,
};
use crate::sys::nft::Edit;
use crate::sys::nft::read::{Counted, Picked, Table};

/// The only interface.
pub(crate) const INTERFACE: &str = "eth0";
const INTERFACE_INDEX: u32 = 2;

/// The number of the namespace in which this process is. Those of others have the numbers of theirs, and what is in
/// them is the same: only one is looked at in any test.
const OWN: u64 = 1;

/// Interfaces with all that hangs on them.
#[derive(Debug)]
pub(crate) struct Links {
    devices: Vec<Link>,
    qdiscs: Vec<(u32, Qdisc)>,
    filters: Vec<(Place, u32, Vec<Instruction>)>,
    /// The addresses of every name.
    pub(crate) addresses: Vec<IpAddr>,
    tables: Filters,
    connections: Vec<Connection>,
    /// Features that this kernel does not have.
    pub(crate) lacks: Vec<&'static str>,
    /// Queries that came to the resolver of a fault.
    hit: u64,
    born: u32,
}

/// A connection on which nothing has been sent.
fn connection(cookie: u64) -> Connection {
    Connection {
        local: ([10, 0, 0, 1], 5000 + cookie as u16).into(),
        peer: ([10, 0, 0, 2], 443).into(),
        cookie,
        rtt: Duration::ZERO,
        scatter: Duration::ZERO,
        sent: 0,
    }
}

impl Links {
    pub(crate) fn new() -> Self {
        let link = Link { index: INTERFACE_INDEX, name: INTERFACE.to_owned(), ..Link::default() };
        let root = Qdisc { kind: "fq_codel".to_owned(), parent: ROOT, ..Qdisc::default() };
        Self {
            devices: vec![link],
            qdiscs: vec![(INTERFACE_INDEX, root)],
            filters: Vec::new(),
            addresses: vec![[10, 0, 0, 2].into()],
            tables: Filters::default(),
            lacks: Vec::new(),
            hit: 0,
            connections: (1..=4).map(connection).collect(),
            born: INTERFACE_INDEX,
        }
    }

    pub(crate) fn look(&self) -> Value {
        let links: Vec<String> =
            self.devices.iter().map(|link| format!("{} {}", link.name, link.alias)).collect();
        let qdiscs: Vec<String> =
            self.qdiscs.iter().map(|(link, q)| format!("{link} {} {:?}", q.kind, q.options)).collect();
        let filters: Vec<String> = self.filters.iter().map(|filter| format!("{filter:?}")).collect();
        let connections: Vec<u64> = self.connections.iter().map(|one| one.cookie).collect();
        json!({"connections": connections, "links": links, "qdiscs": qdiscs, "filters": filters, "tables": self.tables.look()})
    }

    /// What the resolver of a fault answers.
    pub(crate) fn resolver(&self) -> Value {
        json!({"ports": [5353], "seen": {"queries": self.hit, "hit": self.hit}})
    }

    pub(crate) fn hit_addresses(&self) -> Vec<IpAddr> {
        let shaped = self.filters.iter().flat_map(|(_, _, program)| Aim::addresses(program, Way::Out));
        let cut = self.tables.tables().into_iter().flat_map(|table| self.tables.picked(&table.name));
        shaped.chain(cut.filter(|one| one.chain == "out_peers").map(|one| one.address)).collect()
    }

    fn find(&mut self, index: u32) -> io::Result<&mut Link> {
        self.devices
            .iter_mut()
            .find(|link| link.index == index)
            .ok_or_else(|| io::Error::from_raw_os_error(19))
    }

    fn change(&mut self, step: &Step) -> io::Result<()> {
        match step {
            Step::AddDevice { name } => {
                assert!(self.devices.iter().all(|link| link.name != *name), "{name} twice");
                self.born += 1;
                self.devices.push(Link { index: self.born, name: name.clone(), ..Link::default() });
            }
            Step::DeleteDevice { index } => {
                let points = |(_, device, _): &(Place, u32, _)| device == index;
                assert!(!self.filters.iter().any(points), "a filter without its device swallows packets");
                self.devices.retain(|link| link.index != *index);
                self.qdiscs.retain(|(link, _)| link != index);
            }
            Step::Label { index, text } => self.find(*index)?.alias.clone_from(text),
            Step::Shape { index, kind, options } => {
                self.find(*index)?;
                self.qdiscs.retain(|(link, _)| link != index);
                let qdisc = Qdisc {
                    kind: (*kind).to_owned(),
                    parent: ROOT,
                    options: options.clone(),
                    ..Qdisc::default()
                };
                self.qdiscs.push((*index, qdisc));
            }
            Step::AddHooks { index } => {
                self.find(*index)?;
                self.qdiscs.push((*index, Qdisc { kind: HOOKS.to_owned(), ..Qdisc::default() }));
            }
            Step::DeleteHooks { index } => {
                assert!(
                    self.filters.iter().all(|(place, ..)| place.index != *index),
                    "filters of others go with them"
                );
                self.qdiscs.retain(|(link, qdisc)| link != index || qdisc.kind != HOOKS);
            }
            Step::AddFilter { at, device, program } => {
                self.find(*device)?;
                self.filters.push((*at, *device, program.clone()));
            }
            Step::ChangeFilter { at, program, .. } => {
                let found = self.filters.iter_mut().find(|(place, ..)| place == at);
                found.ok_or(io::ErrorKind::NotFound)?.2.clone_from(program);
            }
            Step::DeleteFilter { at } => self.filters.retain(|(place, ..)| place != at),
        }
        Ok(())
    }

    fn filters(&self, index: u32, way: Way) -> Vec<Filter> {
        let own = self.filters.iter().filter(|(place, ..)| place.index == index && place.way == way);
        let filter = |(place, _, program): &(Place, u32, Vec<Instruction>)| Filter {
            kind: "bpf".to_owned(),
            pref: place.pref,
            handle: place.handle,
            packets: 0,
            action: 1,
            program: program.clone(),
        };
        own.map(filter).collect()
    }
}

impl Network for World {
    fn space(&self, path: &Path) -> io::Result<Space> {
        let process = path.to_str().and_then(|path| path.strip_prefix("/proc/")?.strip_suffix("/ns/net"));
        let inode = process.and_then(|pid| pid.parse().ok()).unwrap_or(OWN);
        self.net(|_| Ok(Space { path: path.to_owned(), inode }))
    }

    fn enter<'a>(&'a self, space: &'a Space) -> Pending<'a, io::Result<Option<Box<dyn Session>>>> {
        let entered = self.call(io::Error::other("as told"), |state| {
            let lives =
                |pid: u64| state.processes.iter().any(|process| u64::from(process.info.id.pid) == pid);
            let there = space.inode == OWN || lives(space.inode);
            Ok(there.then(|| Box::new(self.clone()) as Box<dyn Session>))
        });
        Box::pin(std::future::ready(entered))
    }

    fn resolve<'a>(&'a self, _space: &'a Space, _name: &'a str) -> Pending<'a, io::Result<Vec<IpAddr>>> {
        Box::pin(std::future::ready(self.net(|net| Ok(net.addresses.clone()))))
    }

    fn echo<'a>(
        &'a self,
        _space: &'a Space,
        peer: &'a Peer,
        _stream: &'a Stream,
    ) -> Pending<'a, io::Result<Echoed>> {
        // Everybody answers handshakes unless he is cut off, and nobody echoes.
        let echoed = self.net(|net| {
            let took = peer.port.and_then(|_| net.tables.reach());
            let answers = took.map(|took| Answer { took, at: took, times: 1 }).into_iter().collect();
            Ok(Echoed { from: peer.from, sent: 1, answers, ..Echoed::default() })
        });
        Box::pin(std::future::ready(echoed))
    }

    fn features(&self) -> Pending<'_, io::Result<Vec<Feature>>> {
        let features = |net: &mut Links| {
            let lack = |name| net.lacks.contains(&name).then(|| "the kernel does not know it".to_owned());
            Ok(["ifb", "netem", "tbf", "clsact"].map(|name| Feature { name, lack: lack(name) }).to_vec())
        };
        Box::pin(std::future::ready(self.net(features)))
    }

    fn cuts(&self) -> Pending<'_, io::Result<Vec<Feature>>> {
        let feature = |name, net: &Links| Feature {
            name,
            lack: net.lacks.contains(&name).then(|| "the kernel does not know it".to_owned()),
        };
        let names = ["nf_tables", "nft_reject_inet", "nft_numgen", DESTROY];
        let found = self.net(|net| Ok(names.map(|name| feature(name, net)).to_vec()));
        Box::pin(std::future::ready(found))
    }

    fn ask<'a>(
        &'a self,
        _space: &'a Space,
        _to: SocketAddr,
        query: &'a [u8],
        _patience: Duration,
    ) -> Pending<'a, io::Result<Option<Vec<u8>>>> {
        let answer = self.net(|net| {
            let question = Question::read(query).unwrap();
            let hit = net.tables.reach().is_none();
            net.hit += u64::from(hit);
            Ok(Some(question.empty(if hit { SERVER_FAILURE } else { NO_ERROR })))
        });
        Box::pin(std::future::ready(answer))
    }
}

impl Session for World {
    fn links(&self) -> Pending<'_, io::Result<Vec<Link>>> {
        Box::pin(std::future::ready(self.net(|net| Ok(net.devices.clone()))))
    }

    fn route(&self, _to: IpAddr, _from: Option<IpAddr>) -> Pending<'_, io::Result<u32>> {
        Box::pin(std::future::ready(self.net(|_| Ok(INTERFACE_INDEX))))
    }

    fn neighbours(&self, _index: u32) -> Pending<'_, io::Result<Vec<IpAddr>>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    fn qdiscs(&self, index: u32) -> Pending<'_, io::Result<Vec<Qdisc>>> {
        let own = |net: &mut Links| {
            let own = net.qdiscs.iter().filter(|(link, _)| *link == index);
            Ok(own.map(|(_, qdisc)| qdisc.clone()).collect())
        };
        Box::pin(std::future::ready(self.net(own)))
    }

    fn filters(&self, index: u32, way: Way) -> Pending<'_, io::Result<Vec<Filter>>> {
        Box::pin(std::future::ready(self.net(|net| Ok(net.filters(index, way)))))
    }

    fn connections(&self) -> Pending<'_, io::Result<Vec<Connection>>> {
        Box::pin(std::future::ready(self.net(|net| Ok(net.connections.clone()))))
    }

    fn destroy<'a>(&'a self, cookies: &'a [u64]) -> Pending<'a, io::Result<Vec<u64>>> {
        let destroy = |net: &mut Links| {
            let there = net.connections.iter().map(|one| one.cookie);
            let ended = there.filter(|cookie| cookies.contains(cookie)).collect();
            net.connections.retain(|one| !cookies.contains(&one.cookie));
            Ok(ended)
        };
        Box::pin(std::future::ready(self.net(destroy)))
    }

    fn addresses(&self) -> Pending<'_, io::Result<Vec<IpAddr>>> {
        let own = vec![IpAddr::from([10, 0, 0, 1])];
        Box::pin(std::future::ready(self.net(|_| Ok(own))))
    }

    fn tables(&self) -> Pending<'_, io::Result<Vec<Table>>> {
        Box::pin(std::future::ready(self.net(|net| Ok(net.tables.tables()))))
    }

    fn counted<'a>(&'a self, table: &'a str) -> Pending<'a, io::Result<Vec<Counted>>> {
        Box::pin(std::future::ready(self.net(|net| Ok(net.tables.counted(table)))))
    }

    fn picked<'a>(&'a self, table: &'a str) -> Pending<'a, io::Result<Vec<Picked>>> {
        Box::pin(std::future::ready(self.net(|net| Ok(net.tables.picked(table)))))
    }

    fn commit<'a>(&'a self, edits: &'a [Edit]) -> Pending<'a, io::Result<()>> {
        Box::pin(std::future::ready(self.net(|net| net.tables.commit(edits))))
    }

    fn change<'a>(&'a self, step: &'a Step) -> Pending<'a, io::Result<()>> {
        Box::pin(std::future::ready(self.net(|net| net.change(step))))
    }
}
