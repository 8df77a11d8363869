//! The kernel's network configuration, by netlink: the only files that name rtnetlink.
//!
//! [`Network`] is the port through which injectors see and change it; [`host::Kernel`] is the real one. A [`Session`]
//! is one namespace, locked against every other squall process as long as it lives, so that what is read in it still
//! holds when it is changed. Every request has a deadline, every answer a bound.

mod answer;
mod ask;
pub mod echo;
mod filter;
pub mod host;
mod label;
mod probe;
mod removal;
mod sockets;
mod space;
pub mod wire;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Pending;
use crate::sys::aim::{Instruction, Way};
use crate::sys::nft::Edit;
use crate::sys::nft::read::{Counted, Picked, Table};

pub use echo::{Answer, Echoed, Peer, Stream};
pub use label::Label;
pub use probe::{DESTROY, Feature, TABLES};
pub use sockets::Connection;
pub(crate) use space::settle;

/// One network namespace: where it was found, and which one it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Space {
    /// Its file when it was found.
    pub path: PathBuf,
    /// The number by which the kernel tells it from all others that live.
    pub inode: u64,
}

/// One interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Link {
    /// Its number: never given again while the namespace lives, unless all numbers have been used.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// The free text that anybody may attach to it.
    pub alias: String,
    /// Whether somebody has taken it down, or nobody up.
    pub down: bool,
    /// Packets that it has taken in and given out.
    pub packets: (u64, u64),
    /// Bytes that it has taken in and given out.
    pub bytes: (u64, u64),
}

/// One queueing discipline.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Qdisc {
    /// Such as `netem`.
    pub kind: String,
    /// Its handle.
    pub handle: u32,
    /// Where it hangs.
    pub parent: u32,
    /// Its options, as the kernel tells them.
    pub options: Vec<u8>,
    /// Packets that it has dropped.
    pub drops: u64,
    /// Packets that wait in it.
    pub waiting: u64,
    /// Bytes that wait in it.
    pub backlog: u64,
    /// Packets that have left it. A large one that a card would cut counts as many.
    pub packets: u64,
    /// Bytes that have left it.
    pub bytes: u64,
}

/// One filter of a hook.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Such as `bpf`.
    pub kind: String,
    /// Its place in the order.
    pub pref: u16,
    /// Its number among those of its place; 0 for the place itself.
    pub handle: u32,
    /// Packets that it has handed on. A large one that a card would cut counts as many.
    pub packets: u64,
    /// What it does with them: a number that the kernel gave.
    pub action: u32,
    /// What it asks of a packet.
    pub program: Vec<Instruction>,
}

/// One change of the configuration.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Makes an intermediate device, and takes it up.
    AddDevice {
        /// Its name.
        name: String,
    },
    /// Removes a device.
    DeleteDevice {
        /// Which.
        index: u32,
    },
    /// Attaches a text to a device.
    Label {
        /// Which.
        index: u32,
        /// The text.
        text: String,
    },
    /// Gives a device its root qdisc, or other options to the one that it has, which keeps its packets.
    Shape {
        /// Which device.
        index: u32,
        /// The qdisc's kind.
        kind: &'static str,
        /// Its options.
        options: Vec<u8>,
    },
    /// Adds the hooks of an interface, unless it has them.
    AddHooks {
        /// Which interface.
        index: u32,
    },
    /// Removes the hooks of an interface, and all filters on them.
    DeleteHooks {
        /// Which interface.
        index: u32,
    },
    /// Hands the packets that a program picks to another device.
    AddFilter {
        /// Where.
        at: Place,
        /// What the program says of a packet.
        program: Vec<Instruction>,
        /// Where to.
        device: u32,
    },
    /// Gives a filter that is there another program, without a packet in between that meets neither.
    ChangeFilter {
        /// Where.
        at: Place,
        /// What the program says of a packet.
        program: Vec<Instruction>,
        /// Where to, as before.
        device: u32,
        /// The number of its action, which goes on counting.
        action: u32,
    },
    /// Removes that filter.
    DeleteFilter {
        /// Where.
        at: Place,
    },
}

/// Where a filter is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The interface.
    pub index: u32,
    /// The hook.
    pub way: Way,
    /// The place in the order.
    pub pref: u16,
    /// The number there.
    pub handle: u32,
}

/// The kind of the qdisc that gives an interface its hooks.
pub const HOOKS: &str = "clsact";
/// The parent of a device's root qdisc.
pub const ROOT: u32 = u32::MAX;

/// The port to the kernel's network configuration.
pub trait Network: std::fmt::Debug + Send + Sync {
    /// The namespace whose file this is.
    fn space(&self, path: &Path) -> io::Result<Space>;

    /// Opens a namespace, even if its file is gone but something still lives in it; none if nothing does.
    fn enter<'a>(&'a self, space: &'a Space) -> Pending<'a, io::Result<Option<Box<dyn Session>>>>;

    /// The addresses of a name, asked for from a namespace. At most 64.
    fn resolve<'a>(&'a self, space: &'a Space, name: &'a str) -> Pending<'a, io::Result<Vec<IpAddr>>>;

    /// Sends packets of our own from a namespace, and counts what comes back. Takes no lock.
    fn echo<'a>(
        &'a self,
        space: &'a Space,
        peer: &'a Peer,
        stream: &'a Stream,
    ) -> Pending<'a, io::Result<Echoed>>;

    /// What the kernel can do, tried in a namespace of its own that ends with the trial.
    fn features(&self) -> Pending<'_, io::Result<Vec<Feature>>>;

    /// What the kernel can do to cut flows, tried the same way.
    fn cuts(&self) -> Pending<'_, io::Result<Vec<Feature>>>;

    /// Sends one datagram from a namespace and waits for one back; none if none comes. The namespace is not locked.
    fn ask<'a>(
        &'a self,
        space: &'a Space,
        to: SocketAddr,
        query: &'a [u8],
        patience: Duration,
    ) -> Pending<'a, io::Result<Option<Vec<u8>>>>;
}

/// One namespace, locked.
pub trait Session: std::fmt::Debug + Send + Sync {
    /// Every interface.
    fn links(&self) -> Pending<'_, io::Result<Vec<Link>>>;

    /// The number of the interface by which packets to this address leave: those from this own address, if one is named.
    fn route(&self, to: IpAddr, from: Option<IpAddr>) -> Pending<'_, io::Result<u32>>;

    /// Who is known to be there, on an interface: neighbours that have answered, and gateways. At most 16.
    fn neighbours(&self, index: u32) -> Pending<'_, io::Result<Vec<IpAddr>>>;

    /// The qdiscs of an interface.
    fn qdiscs(&self, index: u32) -> Pending<'_, io::Result<Vec<Qdisc>>>;

    /// The filters of one hook of an interface; none if it has no hooks.
    fn filters(&self, index: u32, way: Way) -> Pending<'_, io::Result<Vec<Filter>>>;

    /// Every established TCP connection; none if the kernel does not tell.
    fn connections(&self) -> Pending<'_, io::Result<Vec<Connection>>>;

    /// Ends those established TCP connections whose numbers these are; tells which were there to be ended.
    fn destroy<'a>(&'a self, cookies: &'a [u64]) -> Pending<'a, io::Result<Vec<u64>>>;

    /// The addresses of every interface but the loopback.
    fn addresses(&self) -> Pending<'_, io::Result<Vec<IpAddr>>>;

    /// Every table of packet filters of the family `inet`.
    fn tables(&self) -> Pending<'_, io::Result<Vec<Table>>>;

    /// What the rules of a table have counted, in their order; rules that do not count are left out.
    fn counted<'a>(&'a self, table: &'a str) -> Pending<'a, io::Result<Vec<Counted>>>;

    /// The rules of a table that ask for a single address and count nothing, in their order.
    fn picked<'a>(&'a self, table: &'a str) -> Pending<'a, io::Result<Vec<Picked>>>;

    /// Makes all edits of the packet filters, or none.
    fn commit<'a>(&'a self, edits: &'a [Edit]) -> Pending<'a, io::Result<()>>;

    /// Makes one change. Taking away what is not there is no error.
    fn change<'a>(&'a self, step: &'a Step) -> Pending<'a, io::Result<()>>;
}
