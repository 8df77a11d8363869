//! The resolver: a process of its own that stands before the real ones of a network namespace and answers some queries
//! as it is told. All others it passes on to the one that was asked.
//!
//! It listens on the loopback of that namespace alone; packet filters lead queries to it. The kernel ends it with its
//! parent, the engine; it ends by itself with the process whose namespace it is, which lives on as long as anybody is in it.
//! It holds at most `QUERIES_MAX` queries and `PEERS_MAX` connections, each with a deadline.
//!
//! Its control operation: `observe` answers with `ports` (one for each of the real ones) and `seen` (what it has counted).

pub(crate) mod message;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::task::JoinSet;

use self::message::{MESSAGE_MAX, NO_NAME, Question, REFUSED, SERVER_FAILURE};
use crate::Pending;
use crate::relay::chance::chosen;
use crate::sys::netlink::{self, Space};
use crate::sys::{control, ends, host, socket};
use crate::target::ProcessId;

/// The hidden verb of the binary that becomes a resolver.
pub const VERB: &str = "__resolver";
/// Our own queries are told from those of others by how far they may travel.
pub(crate) const HOPS: u8 = 253;
/// The port of DNS.
pub(crate) const PORT: u16 = 53;
const QUERIES_MAX: usize = 512;
const PEERS_MAX: usize = 64;
const KEPT_MAX: usize = 1024;
/// How long the real one may take, and how long a connection may be silent.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often a port that is free for UDP may be taken for TCP.
const TRIES: u32 = 16;

/// What a resolver is told at its start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Order {
    /// The injection, and which of its namespaces.
    pub(crate) id: String,
    /// The namespace whose queries it gets.
    pub(crate) space: Space,
    /// The process with which it ends; none if it ends with its parent alone.
    pub(crate) lives: Option<ProcessId>,
    /// The real ones.
    pub(crate) upstreams: Vec<IpAddr>,
    /// What becomes of which queries.
    pub(crate) asked: Asked,
}

/// What becomes of which queries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Asked {
    /// Names that are hit, with `*.` before an end; all, if empty.
    pub(crate) names: Vec<String>,
    /// Types that are hit; all, if empty.
    pub(crate) types: Vec<u16>,
    /// The share of them that is hit.
    pub(crate) share: f64,
    /// What becomes of them.
    pub(crate) answer: Answer,
    /// Decides which are hit.
    pub(crate) seed: u64,
}

/// What becomes of a query.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Answer {
    /// There is no such name.
    Nxdomain,
    /// The server has failed.
    Servfail,
    /// The server will not.
    Refused,
    /// Nothing comes.
    Timeout,
    /// The true answer, so many seconds later.
    Delay(f64),
    /// These addresses.
    Wrong(Vec<IpAddr>),
    /// What the first such query was answered.
    Stale,
}

/// What it has seen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Seen {
    /// Queries.
    pub(crate) queries: u64,
    /// Those that were hit.
    pub(crate) hit: u64,
}

/// The address of the resolver of an injection: a name of the kernel's own, which ends with its process.
pub(crate) fn address(id: &str) -> PathBuf {
    let mut name = b"\0squall-resolver-".to_vec();
    name.extend(id.bytes().filter(u8::is_ascii_graphic).take(64));
    std::ffi::OsStr::from_bytes(&name).into()
}

/// Runs a resolver to its end: `squall __resolver PARENT ORDER`. True: it has ended as it should.
pub fn main_blocking(args: &[String]) -> bool {
    let [parent, order] = args else { return false };
    let (Ok(parent), Ok(order)) = (parent.parse(), serde_json::from_str::<Order>(order)) else {
        return false;
    };
    // Whoever started it has ended already: nobody wants it.
    if host::die_with(parent).is_err() {
        return false;
    }
    host::call_it("squall-resolver");
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build() else {
        return false;
    };
    runtime.block_on(tokio::task::LocalSet::new().run_until(serve(order))).is_ok()
}

/// What all of its parts share.
#[derive(Debug)]
struct Desk {
    order: Order,
    queries: Arc<AtomicU64>,
    hit: Arc<AtomicU64>,
    /// First answers, by question.
    kept: RefCell<BTreeMap<(String, u16), Vec<u8>>>,
}

async fn serve(order: Order) -> io::Result<()> {
    // Its name belongs to the namespace of whoever asks; from here on, all that it opens is in the other.
    let control = tokio::net::UnixListener::bind(address(&order.id))?;
    netlink::settle(&order.space)?;
    let (mut ports, mut work, lives) = (Vec::new(), JoinSet::new(), order.lives);
    let desk =
        Rc::new(Desk { order, queries: Arc::default(), hit: Arc::default(), kept: RefCell::default() });
    for upstream in desk.order.upstreams.clone() {
        let (port, datagrams, connections) = listen(upstream).await?;
        ports.push(port);
        work.spawn_local(Rc::clone(&desk).datagrams(Rc::new(datagrams), upstream));
        work.spawn_local(Rc::clone(&desk).connections(connections, upstream));
    }
    let (queries, hit) = (Arc::clone(&desk.queries), Arc::clone(&desk.hit));
    let handle = move |request: Value| -> Pending<'static, Result<Value, String>> {
        let answer = match request["op"].as_str() {
            Some("observe") => Ok(json!({"ports": ports, "seen": Seen {
                queries: queries.load(Ordering::Relaxed),
                hit: hit.load(Ordering::Relaxed),
            }})),
            _ => Err("a resolver knows observe".to_owned()),
        };
        Box::pin(std::future::ready(answer))
    };
    let serves = control::serve(control, handle);
    match lives {
        Some(id) => tokio::select! {
            () = serves => Ok(()),
            ended = ends::outlast(id) => ended,
        },
        None => {
            serves.await;
            Ok(())
        }
    }
}

/// The same free port for both protocols, on the loopback of the family of a real one.
async fn listen(upstream: IpAddr) -> io::Result<(u16, UdpSocket, TcpListener)> {
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..TRIES {
        let datagrams = UdpSocket::bind((loopback(upstream), 0)).await?;
        let port = datagrams.local_addr()?.port();
        match TcpListener::bind((loopback(upstream), port)).await {
            Ok(connections) => return Ok((port, datagrams, connections)),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The loopback of the same family.
pub(crate) fn loopback(of: IpAddr) -> IpAddr {
    match of {
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    }
}

impl Desk {
    async fn datagrams(self: Rc<Self>, socket: Rc<UdpSocket>, upstream: IpAddr) {
        let (mut buffer, mut open) = (vec![0; MESSAGE_MAX], JoinSet::new());
        loop {
            let Ok((length, from)) = socket.recv_from(&mut buffer).await else { continue };
            while open.try_join_next().is_some() {}
            // Whoever is not heard asks again.
            if open.len() >= QUERIES_MAX {
                continue;
            }
            let (desk, socket, query) = (Rc::clone(&self), Rc::clone(&socket), buffer[..length].to_vec());
            open.spawn_local(async move {
                if let Some(answer) = desk.answer(&query, upstream, false).await {
                    let _ = socket.send_to(&answer, from).await;
                }
            });
        }
    }

    async fn connections(self: Rc<Self>, listener: TcpListener, upstream: IpAddr) {
        let mut open = JoinSet::new();
        loop {
            let Ok((peer, _)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            while open.try_join_next().is_some() {}
            if open.len() < PEERS_MAX {
                let desk = Rc::clone(&self);
                open.spawn_local(async move { desk.converse(peer, upstream).await });
            }
        }
    }

    async fn converse(&self, mut peer: TcpStream, upstream: IpAddr) -> Option<()> {
        loop {
            let query = timely(read(&mut peer)).await?;
            let answer = self.answer(&query, upstream, true).await?;
            timely(write(&mut peer, &answer)).await?;
        }
    }

    /// The answer to a query; none if nothing is to come.
    async fn answer(&self, query: &[u8], upstream: IpAddr, whole: bool) -> Option<Vec<u8>> {
        let number = self.queries.fetch_add(1, Ordering::Relaxed);
        let question = Question::read(query).filter(|question| self.hits(question, number));
        let Some(question) = question else { return pass_on(query, upstream, whole).await };
        self.hit.fetch_add(1, Ordering::Relaxed);
        match &self.order.asked.answer {
            Answer::Nxdomain => Some(question.empty(NO_NAME)),
            Answer::Servfail => Some(question.empty(SERVER_FAILURE)),
            Answer::Refused => Some(question.empty(REFUSED)),
            Answer::Timeout => {
                // A connection is held as long as any that is silent.
                if whole {
                    tokio::time::sleep(PATIENCE).await;
                }
                None
            }
            Answer::Delay(seconds) => {
                tokio::time::sleep(Duration::from_secs_f64(*seconds)).await;
                pass_on(query, upstream, whole).await
            }
            Answer::Wrong(addresses) => Some(question.addresses(addresses, whole)),
            Answer::Stale => self.stale(&question, query, upstream, whole).await,
        }
    }

    fn hits(&self, question: &Question, number: u64) -> bool {
        let Asked { names, types, share, seed, .. } = &self.order.asked;
        message::fits(&question.name, names)
            && (types.is_empty() || types.contains(&question.kind))
            && chosen(*seed, number, *share)
    }

    async fn stale(
        &self,
        question: &Question,
        query: &[u8],
        upstream: IpAddr,
        whole: bool,
    ) -> Option<Vec<u8>> {
        let key = (question.name.clone(), question.kind);
        let kept = self.kept.borrow().get(&key).cloned();
        if let Some(kept) = kept {
            return question.again(&kept, whole);
        }
        let answer = pass_on(query, upstream, whole).await?;
        let mut kept = self.kept.borrow_mut();
        // Whoever is told that there is more asks by TCP.
        if message::is_whole(&answer) && kept.len() < KEPT_MAX {
            kept.insert(key, answer.clone());
        }
        question.again(&answer, whole)
    }
}

/// Asks the real one; by TCP, if the query came so: the whole answer may be long.
async fn pass_on(query: &[u8], upstream: IpAddr, whole: bool) -> Option<Vec<u8>> {
    let to = SocketAddr::new(upstream, PORT);
    timely(async {
        if whole {
            let socket = if upstream.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
            socket::travels(&socket, HOPS)?;
            let mut peer = socket.connect(to).await?;
            write(&mut peer, query).await?;
            return read(&mut peer).await;
        }
        let any: IpAddr =
            if upstream.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((any, 0)).await?;
        socket::travels(&socket, HOPS)?;
        socket.connect(to).await?;
        socket.send(query).await?;
        let mut buffer = vec![0; MESSAGE_MAX];
        let length = socket.recv(&mut buffer).await?;
        buffer.truncate(length);
        Ok(buffer)
    })
    .await
}

async fn timely<T>(act: impl Future<Output = io::Result<T>>) -> Option<T> {
    tokio::time::timeout(PATIENCE, act).await.ok()?.ok()
}

/// One message of a connection: its length, and itself.
async fn read(peer: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = peer.read_u16().await?;
    let mut message = vec![0; usize::from(length)];
    peer.read_exact(&mut message).await?;
    Ok(message)
}

async fn write(peer: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    peer.write_all(&[&length.to_be_bytes()[..], message].concat()).await
}
