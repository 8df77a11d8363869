//! The real kernel, by rtnetlink.

use std::fs::File;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt;
use rtnetlink::packet_core::{
    DefaultNla, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST,
    NetlinkMessage, NetlinkPayload,
};
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::RouteNetlinkMessage as Message;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use rtnetlink::packet_route::neighbour::NeighbourMessage;
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use rtnetlink::packet_route::tc::{TcAttribute, TcHandle, TcMessage};

use super::answer::{OPTIONS, filter_of, gateway, has_answered, link, neighbour, qdisc};
use super::{
    Connection, Echoed, Feature, Filter, HOOKS, Link, Network, Peer, Place, Qdisc, ROOT, Session, Space,
    Step, Stream, ask, echo, filter, probe, removal, sockets, space, wire,
};
use crate::Pending;
use crate::sys::aim::Way;
use crate::sys::nft::Edit;
use crate::sys::nft::read::{Counted, Picked, Table};

/// How long the kernel may take to answer one request.
const DEADLINE: Duration = Duration::from_secs(3);
/// How often it is looked whether a device that is being removed has gone.
const GLANCE: Duration = Duration::from_millis(1);
/// The most messages of one answer.
const ANSWER_MAX: usize = 65_536;
/// The most neighbours that are told.
const NEIGHBOURS_MAX: usize = 16;
/// The most addresses of a name.
const ADDRESSES_MAX: usize = 64;
/// Every protocol, in network order: `ETH_P_ALL`.
const ALL: u32 = 0x0003_u16.to_be() as u32;
/// Where the hooks hang: their handle, their place, and what leaves and arrives.
const HOOKS_HANDLE: u32 = 0xffff_0000;
const HOOKS_PARENT: u32 = 0xffff_fff1;
const LEAVING: u32 = 0xffff_fff3;
const ARRIVING: u32 = 0xffff_fff2;

/// The kernel of this host.
#[derive(Debug, Clone, Copy)]
pub struct Kernel;

impl Network for Kernel {
    fn space(&self, path: &Path) -> io::Result<Space> {
        space::space(path)
    }

    fn enter<'a>(&'a self, space: &'a Space) -> Pending<'a, io::Result<Option<Box<dyn Session>>>> {
        Box::pin(async move {
            let Some(file) = space::open(space)? else { return Ok(None) };
            let lock = space::lock(file.try_clone()?).await?;
            let opened = connect(Some(file), Some(lock)).await?;
            Ok(Some(Box::new(opened) as Box<dyn Session>))
        })
    }

    fn resolve<'a>(&'a self, space: &'a Space, name: &'a str) -> Pending<'a, io::Result<Vec<IpAddr>>> {
        let name = name.to_owned();
        Box::pin(async move {
            let file = space::open(space)?.ok_or(io::ErrorKind::NotFound)?;
            let ask = move || {
                let found = (name.as_str(), 0).to_socket_addrs()?;
                Ok(found.map(|address| address.ip().to_canonical()).take(ADDRESSES_MAX).collect())
            };
            // The thread of a resolver that does not answer ends by the resolver's own deadline.
            match tokio::time::timeout(DEADLINE, space::inside(Some(file), ask)).await {
                Ok(found) => found,
                Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "no name server answers")),
            }
        })
    }

    fn echo<'a>(
        &'a self,
        space: &'a Space,
        peer: &'a Peer,
        stream: &'a Stream,
    ) -> Pending<'a, io::Result<Echoed>> {
        let (peer, stream) = (*peer, *stream);
        Box::pin(async move {
            let file = space::open(space)?.ok_or(io::ErrorKind::NotFound)?;
            space::inside(Some(file), move || echo::send(&peer, &stream)).await
        })
    }

    fn features(&self) -> Pending<'_, io::Result<Vec<Feature>>> {
        Box::pin(async {
            // Nobody else knows of the new namespace, and it ends with its socket.
            let opened = connect(None, None).await?;
            Ok(probe::features(&opened).await)
        })
    }

    fn cuts(&self) -> Pending<'_, io::Result<Vec<Feature>>> {
        Box::pin(async { space::inside(None, || Ok(probe::cuts())).await })
    }

    fn ask<'a>(
        &'a self,
        space: &'a Space,
        to: SocketAddr,
        query: &'a [u8],
        patience: Duration,
    ) -> Pending<'a, io::Result<Option<Vec<u8>>>> {
        let query = query.to_vec();
        Box::pin(async move {
            let Some(file) = space::open(space)? else { return Ok(None) };
            space::inside(Some(file), move || ask::ask(to, &query, patience)).await
        })
    }
}

/// A socket in a namespace, or in a new one.
async fn connect(file: Option<File>, lock: Option<File>) -> io::Result<Opened> {
    let space = file.as_ref().map(File::try_clone).transpose()?;
    let (connection, handle, _) = space::inside(file, rtnetlink::new_connection).await?;
    let task = tokio::spawn(connection);
    Ok(Opened { handle, task, space, _lock: lock })
}

/// One namespace. The lock is given back when this is dropped.
#[derive(Debug)]
struct Opened {
    handle: rtnetlink::Handle,
    task: tokio::task::JoinHandle<()>,
    space: Option<File>,
    _lock: Option<File>,
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Opened {
    /// Sends one request and gathers the answer.
    async fn ask(&self, message: Message, flags: u16) -> io::Result<Vec<Message>> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | flags;
        let mut answers = Vec::new();
        let talk = async {
            let mut handle = self.handle.clone();
            let mut answer = handle.request(request).map_err(io::Error::other)?;
            while let Some(part) = answer.next().await {
                match part.payload {
                    NetlinkPayload::InnerMessage(message) => answers.push(message),
                    NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
                    _ => {}
                }
                if answers.len() > ANSWER_MAX {
                    return Err(io::Error::other("the kernel's answer does not end"));
                }
            }
            Ok(())
        };
        match tokio::time::timeout(DEADLINE, talk).await {
            Ok(done) => done.map(|()| answers),
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the kernel does not answer")),
        }
    }

    /// The route to an address, from one of our own if it is named.
    async fn lead(&self, to: IpAddr, from: Option<IpAddr>) -> io::Result<Vec<RouteAttribute>> {
        let mut message = RouteMessage::default();
        let whole = |address: IpAddr| match address {
            IpAddr::V4(address) => (AddressFamily::Inet, 32, RouteAddress::Inet(address)),
            IpAddr::V6(address) => (AddressFamily::Inet6, 128, RouteAddress::Inet6(address)),
        };
        let (family, bits, address) = whole(to);
        message.header.address_family = family;
        message.header.destination_prefix_length = bits;
        message.attributes.push(RouteAttribute::Destination(address));
        if let Some((_, bits, address)) = from.map(whole) {
            message.header.source_prefix_length = bits;
            message.attributes.push(RouteAttribute::Source(address));
        }
        let answers = self.ask(Message::GetRoute(message), 0).await?;
        let route = answers.into_iter().find_map(|answer| match answer {
            Message::NewRoute(route) => Some(route.attributes),
            _ => None,
        });
        Ok(route.unwrap_or_default())
    }

    /// Does something that blocks, in this namespace.
    async fn beside<T: Send + 'static>(
        &self,
        act: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let space = self.space.as_ref().map(File::try_clone).transpose()?;
        space::inside(space, act).await
    }

    async fn tell(&self, message: Message, flags: u16) -> io::Result<()> {
        self.ask(message, NLM_F_ACK | flags).await.map(drop)
    }

    /// Removes a device, and is done as soon as nobody sees it any more.
    async fn remove(&self, index: u32) -> io::Result<()> {
        let mut removing = pin!(self.beside(move || removal::remove(index)));
        loop {
            match tokio::time::timeout(GLANCE, &mut removing).await {
                Ok(answered) => return answered,
                Err(_) => match self.ask(Message::GetLink(device(index)), 0).await {
                    Err(error) if is_gone(&error) => return Ok(()),
                    // It is still there, or this look has failed: the answer tells.
                    _ => {}
                },
            }
        }
    }

    async fn make(&self, step: &Step) -> io::Result<()> {
        const NEW: u16 = NLM_F_CREATE | NLM_F_EXCL;
        match step {
            Step::AddDevice { name } => {
                let mut device = rtnetlink::LinkIfb::new(name).build();
                (device.header.flags, device.header.change_mask) = (LinkFlags::Up, LinkFlags::Up);
                self.tell(Message::NewLink(device), NEW).await
            }
            Step::DeleteDevice { index } => gone(self.remove(*index).await),
            Step::Label { index, text } => {
                let mut device = device(*index);
                device.attributes.push(LinkAttribute::IfAlias(text.clone()));
                self.tell(Message::SetLink(device), 0).await
            }
            Step::Shape { index, kind, options } => {
                let root = control(*index, 0x0001_0000, ROOT, kind, Some(options.clone()));
                self.tell(Message::NewQueueDiscipline(root), NLM_F_CREATE | NLM_F_REPLACE).await
            }
            Step::AddHooks { index } => {
                let hooks = control(*index, HOOKS_HANDLE, HOOKS_PARENT, HOOKS, None);
                self.tell(Message::NewQueueDiscipline(hooks), NEW).await
            }
            Step::DeleteHooks { index } => {
                let hooks = control(*index, HOOKS_HANDLE, HOOKS_PARENT, HOOKS, None);
                gone(self.tell(Message::DelQueueDiscipline(hooks), 0).await)
            }
            Step::AddFilter { at, program, device } => {
                let filter = filter(at, Some(wire::redirecting(program, *device, 0)));
                self.tell(Message::NewTrafficFilter(filter), NEW).await
            }
            Step::ChangeFilter { at, program, device, action } => {
                let filter = filter(at, Some(wire::redirecting(program, *device, *action)));
                // Not made if it is not there.
                self.tell(Message::NewTrafficFilter(filter), NLM_F_REPLACE).await
            }
            Step::DeleteFilter { at } => {
                gone(self.tell(Message::DelTrafficFilter(filter(at, None)), 0).await)
            }
        }
    }
}

/// What was not there is as good as taken away.
fn gone(outcome: io::Result<()>) -> io::Result<()> {
    outcome.or_else(|error| if is_gone(&error) { Ok(()) } else { Err(error) })
}

/// Whether the kernel says that what was asked for is not there.
fn is_gone(error: &io::Error) -> bool {
    use rustix::io::Errno;
    [Errno::NOENT, Errno::NODEV].iter().any(|gone| error.raw_os_error() == Some(gone.raw_os_error()))
}

/// A device, to be asked for by its number.
pub(super) fn device(index: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message
}

fn control(index: u32, handle: u32, parent: u32, kind: &str, options: Option<Vec<u8>>) -> TcMessage {
    let mut message = TcMessage::with_index(index.cast_signed());
    message.header.handle = TcHandle::from(handle);
    message.header.parent = TcHandle::from(parent);
    message.attributes.push(TcAttribute::Kind(kind.to_owned()));
    message.attributes.extend(options.map(|bytes| TcAttribute::Other(DefaultNla::new(OPTIONS, bytes))));
    message
}

fn filter(at: &Place, options: Option<Vec<u8>>) -> TcMessage {
    let mut message = control(at.index, at.handle, hook(at.way), "bpf", options);
    message.header.info = u32::from(at.pref) << 16 | ALL;
    message
}

fn hook(way: Way) -> u32 {
    if way == Way::Out { LEAVING } else { ARRIVING }
}

impl Session for Opened {
    fn links(&self) -> Pending<'_, io::Result<Vec<Link>>> {
        Box::pin(async {
            let answers = self.ask(Message::GetLink(LinkMessage::default()), NLM_F_DUMP).await?;
            let links = answers.into_iter().filter_map(|answer| match answer {
                Message::NewLink(message) => Some(link(message)),
                _ => None,
            });
            Ok(links.collect())
        })
    }

    fn route(&self, to: IpAddr, from: Option<IpAddr>) -> Pending<'_, io::Result<u32>> {
        Box::pin(async move {
            let leaves = self.lead(to, from).await?.into_iter().find_map(|attribute| match attribute {
                RouteAttribute::Oif(index) => Some(index),
                _ => None,
            });
            leaves.ok_or_else(|| io::Error::other("its route names no interface"))
        })
    }

    fn neighbours(&self, index: u32) -> Pending<'_, io::Result<Vec<IpAddr>>> {
        Box::pin(async move {
            let all = Message::GetNeighbour(NeighbourMessage::default());
            let mut found = Vec::new();
            for answer in self.ask(all, NLM_F_DUMP).await? {
                if let Message::NewNeighbour(one) = answer
                    && one.header.ifindex == index
                    && has_answered(one.header.state)
                {
                    found.extend(one.attributes.iter().find_map(neighbour));
                }
            }
            // Documentation's addresses are nobody's: they lead by the default route, and nothing is sent.
            for to in [IpAddr::from([192, 0, 2, 1]), IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1])] {
                let Ok(route) = self.lead(to, None).await else { continue };
                let leads = |one: &RouteAttribute| matches!(one, RouteAttribute::Oif(link) if *link == index);
                if route.iter().any(leads) {
                    found.extend(route.iter().find_map(gateway));
                }
            }
            found.sort_unstable_by_key(IpAddr::is_ipv6);
            found.dedup();
            found.truncate(NEIGHBOURS_MAX);
            Ok(found)
        })
    }

    fn qdiscs(&self, index: u32) -> Pending<'_, io::Result<Vec<Qdisc>>> {
        Box::pin(async move {
            let all = TcMessage::with_index(index.cast_signed());
            let answers = self.ask(Message::GetQueueDiscipline(all), NLM_F_DUMP).await?;
            // Some kernels tell those of every interface, whatever was asked.
            let own = answers.into_iter().filter_map(|answer| match answer {
                Message::NewQueueDiscipline(one) if one.header.index == index.cast_signed() => {
                    Some(qdisc(one))
                }
                _ => None,
            });
            Ok(own.collect())
        })
    }

    fn filters(&self, index: u32, way: Way) -> Pending<'_, io::Result<Vec<Filter>>> {
        Box::pin(async move {
            let mut all = TcMessage::with_index(index.cast_signed());
            all.header.parent = TcHandle::from(hook(way));
            let answers = self.ask(Message::GetTrafficFilter(all), NLM_F_DUMP).await?;
            let own = answers.into_iter().filter_map(|answer| match answer {
                Message::NewTrafficFilter(one) => Some(filter_of(&one)),
                _ => None,
            });
            Ok(own.collect())
        })
    }

    fn connections(&self) -> Pending<'_, io::Result<Vec<Connection>>> {
        Box::pin(self.beside(sockets::connections))
    }

    fn destroy<'a>(&'a self, cookies: &'a [u64]) -> Pending<'a, io::Result<Vec<u64>>> {
        let cookies = cookies.to_vec();
        Box::pin(self.beside(move || sockets::destroy(&cookies)))
    }

    fn addresses(&self) -> Pending<'_, io::Result<Vec<IpAddr>>> {
        Box::pin(async {
            let answers = self.ask(Message::GetAddress(AddressMessage::default()), NLM_F_DUMP).await?;
            let all = answers.into_iter().filter_map(|answer| match answer {
                Message::NewAddress(message) => address(&message),
                _ => None,
            });
            Ok(all.collect())
        })
    }

    fn tables(&self) -> Pending<'_, io::Result<Vec<Table>>> {
        Box::pin(self.beside(filter::tables))
    }

    fn counted<'a>(&'a self, table: &'a str) -> Pending<'a, io::Result<Vec<Counted>>> {
        let table = table.to_owned();
        Box::pin(self.beside(move || filter::counted(&table)))
    }

    fn picked<'a>(&'a self, table: &'a str) -> Pending<'a, io::Result<Vec<Picked>>> {
        let table = table.to_owned();
        Box::pin(self.beside(move || filter::picked(&table)))
    }

    fn commit<'a>(&'a self, edits: &'a [Edit]) -> Pending<'a, io::Result<()>> {
        let edits = edits.to_vec();
        Box::pin(self.beside(move || filter::commit(&edits)))
    }

    fn change<'a>(&'a self, step: &'a Step) -> Pending<'a, io::Result<()>> {
        Box::pin(self.make(step))
    }
}

/// The address of an interface; none of the loopback.
fn address(message: &AddressMessage) -> Option<IpAddr> {
    let own = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    // IPv6 names it once; of a point-to-point IPv4 address, the other attribute is the other side.
    let any = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Address(address) => Some(*address),
        _ => None,
    });
    own.or(any).filter(|address| !address.is_loopback())
}
