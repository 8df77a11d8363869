//! What shaping adds to an interface, step by step, and how it is taken away.
//!
//! The interface's own qdiscs are not touched. A filter of ours on its hook hands the packets that are hit to a device
//! of ours, whose qdisc holds, loses or slows them; the kernel then sends them on by the interface, or lets them
//! arrive, as if they had never left. The device's label says whose each part is.
//!
//! Invariant: the filter comes last and goes first. A filter whose device is gone would swallow packets.

use std::io;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::part::{self, Part};
use super::site::Owner;
use crate::sys::aim::{Aim, Network, Way};
use crate::sys::netlink::{Filter, HOOKS, Label, Link, Place, Qdisc, ROOT, Session, Step};
use crate::traffic::Traffic;

/// Our place in the order of filters: behind those of others, which see their packets first.
pub(super) const PREF: u16 = 65_000;

/// The kind of a queue that an interface does without.
const NONE: &str = "noqueue";

/// The most addresses and networks of an aim whose names are asked for again and again.
pub(in crate::faults) const ADDRESSES_MAX: usize = 128;

/// One aim on one way of one interface.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Tree {
    /// The interface.
    pub(super) link: u32,
    /// Its name when it was found, for people.
    pub(super) interface: String,
    /// The way.
    pub(super) way: Way,
    /// The name of our device.
    pub(super) device: String,
    /// The number of our filter.
    pub(super) handle: u32,
    /// Whether others have brought the hooks.
    pub(super) foreign_hooks: bool,
}

/// What there is of a tree.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) device: Option<Link>,
    pub(super) label: Label,
    pub(super) root: Option<Qdisc>,
    pub(super) filter: Option<Filter>,
    /// Bytes that have left the interface's own queue, behind ours; none where it has none, or ours comes behind it.
    pub(super) onward: Option<u64>,
    hooked: bool,
    filters: usize,
    /// Whether the interface is there.
    link: bool,
    /// Other devices of ours on the interface.
    ours: Vec<(Link, Label)>,
}

impl Tree {
    /// The tree for an aim as it was written. The same aim has the same names, whoever asks.
    pub(super) fn new(link: &Link, way: Way, written: &Traffic) -> Self {
        let aim = (written.aim(), &written.names);
        let whole = super::super::record(&(link.index, way, aim)).to_string();
        let number = crc32fast::hash(whole.as_bytes());
        Self {
            link: link.index,
            interface: link.name.clone(),
            way,
            device: format!("sq{number:08x}"),
            handle: number.max(1),
            foreign_hooks: false,
        }
    }

    fn place(&self) -> Place {
        Place { index: self.link, way: self.way, pref: PREF, handle: self.handle }
    }

    /// Looks at everything that raising and lowering need to know.
    pub(super) async fn see(&self, session: &dyn Session) -> io::Result<Seen> {
        let links = session.links().await?;
        let qdiscs = session.qdiscs(self.link).await?;
        let (mut filters, mut filter) = (0, None);
        for way in [Way::Out, Way::In] {
            for found in session.filters(self.link, way).await? {
                filters += 1;
                if found.pref == PREF && way == self.way && found.handle == self.handle {
                    filter = Some(found);
                }
            }
        }
        let device = links.iter().find(|link| link.name == self.device).cloned();
        let root = match &device {
            Some(device) => session
                .qdiscs(device.index)
                .await?
                .into_iter()
                .find(|qdisc| qdisc.parent == ROOT && matches!(qdisc.kind.as_str(), "netem" | "tbf")),
            None => None,
        };
        let label = device.as_ref().and_then(|device| Label::read(&device.alias));
        let ours = links.iter().filter(|link| link.name != self.device);
        let ours = ours.filter_map(|link| Some((link.clone(), Label::read(&link.alias)?)));
        let own = qdiscs.iter().find(|qdisc| qdisc.parent == ROOT && qdisc.kind != NONE);
        Ok(Seen {
            onward: own.filter(|_| self.way == Way::Out).map(|own| own.bytes),
            label: label.unwrap_or_else(|| Label::new(self.link, self.way)),
            root,
            filter,
            hooked: qdiscs.iter().any(|qdisc| qdisc.kind == HOOKS),
            filters,
            link: links.iter().any(|link| link.index == self.link),
            ours: ours.filter(|(_, label)| label.link == self.link).collect(),
            device,
        })
    }

    /// Notes whether others have brought the hooks: then they are theirs to take away.
    pub(super) fn remember(&mut self, seen: &Seen) {
        self.foreign_hooks =
            seen.hooked && !seen.label.hooked && !seen.ours.iter().any(|(_, label)| label.hooked);
    }

    /// Why a part of a family cannot join what is there; none if it can.
    pub(super) fn refusal(&self, seen: &Seen, raised: &Raised<'_>) -> Option<String> {
        let (at, Raised { part, id, aim, .. }) = (&self.interface, raised);
        if let Some(device) = &seen.device
            && !device.alias.is_empty()
            && Label::read(&device.alias).is_none()
        {
            return Some(format!("there is an interface {} that is not squall's", self.device));
        }
        let family = part.family();
        if let Some(other) = seen.label.held.get(family).filter(|other| other != id) {
            return Some(format!("these packets of {at} already have the {family} of {other}"));
        }
        let meets = |label: &Label| label.aim.as_ref().is_none_or(|other| aim.meets(other));
        let near = seen.ours.iter().find(|(_, label)| label.way == self.way && meets(label));
        if let Some((link, label)) = near {
            let whose: Vec<&str> = label.held.values().map(String::as_str).collect();
            return Some(format!(
                "{at} already carries faults of other packets the same way ({} by {}), and one packet could be among \
                 both: give both the same aim, or aims that no packet fits at once (other `to`, `from`, `ports` or `protocol`), \
                 or move one in time",
                link.name,
                whose.join(", ")
            ));
        }
        None
    }

    /// Adds a part, and all that it needs.
    pub(super) async fn raise(&self, session: &dyn Session, raised: &Raised<'_>) -> io::Result<()> {
        let Raised { part, id, aim, seed } = raised;
        let seen = self.see(session).await?;
        if let Some(why) = self.refusal(&seen, raised) {
            return Err(io::Error::other(why));
        }
        if !seen.link {
            return Err(io::Error::other(format!("{} has gone", self.interface)));
        }
        let options = part.join(seen.root.as_ref(), *seed).map_err(io::Error::other)?;
        let index = match &seen.device {
            Some(device) => device.index,
            None => {
                session.change(&Step::AddDevice { name: self.device.clone() }).await?;
                let links = session.links().await?;
                let made = links.iter().find(|link| link.name == self.device);
                made.ok_or_else(|| io::Error::other(format!("{} has gone again", self.device)))?.index
            }
        };
        let mut label = seen.label.clone();
        label.held.insert(part.family().to_owned(), (*id).to_owned());
        label.aim = Some(Aim { exempt: Vec::new(), ..(*aim).clone() });
        // Said before they are made: hooks that nobody owns would stay.
        label.hooked |= !seen.hooked;
        session.change(&Step::Label { index, text: label.to_string() }).await?;
        session.change(&Step::Shape { index, kind: part.kind(), options }).await?;
        if !seen.hooked {
            session.change(&Step::AddHooks { index: self.link }).await?;
        }
        if seen.filter.is_none() {
            let program = aim.program(self.way);
            session.change(&Step::AddFilter { at: self.place(), program, device: index }).await?;
        }
        Ok(())
    }

    /// Takes a part away, and all that nothing else needs. Tells whether there was anything to take away.
    pub(super) async fn lower(&self, session: &dyn Session, family: &str, id: &str) -> io::Result<bool> {
        let seen = self.see(session).await?;
        let Some(device) = &seen.device else {
            if seen.filter.is_some() {
                session.change(&Step::DeleteFilter { at: self.place() }).await?;
            }
            return Ok(seen.filter.is_some());
        };
        if !device.alias.is_empty() && Label::read(&device.alias).is_none() {
            return Ok(false);
        }
        let mut label = seen.label.clone();
        let held = label.held.get(family).is_some_and(|holder| holder == id);
        if !held && !label.held.is_empty() {
            return Ok(false);
        }
        label.held.retain(|known, _| known != family);
        if label.held.is_empty() {
            self.dismantle(session, &seen, device.index).await?;
            return Ok(true);
        }
        if let Some(root) = &seen.root {
            let options = part::without(family, root).map_err(io::Error::other)?;
            session.change(&Step::Shape { index: device.index, kind: "netem", options }).await?;
        }
        session.change(&Step::Label { index: device.index, text: label.to_string() }).await?;
        Ok(true)
    }

    /// Adds addresses to those that are hit; those that were stay, as far as there is room, for connections outlive a
    /// name's addresses. Makes nothing anew: what has gone stays gone.
    pub(super) async fn widen(
        &self,
        session: &dyn Session,
        raised: &Raised<'_>,
        new: &[IpAddr],
    ) -> io::Result<()> {
        let seen = self.see(session).await?;
        let held = seen.label.held.get(raised.part.family()).is_some_and(|holder| holder == raised.id);
        let (Some(device), Some(filter), true) = (&seen.device, &seen.filter, held) else { return Ok(()) };
        let spared = |address: &IpAddr| {
            raised.aim.exempt.iter().any(|exempt| exempt.peer == Some(Network::single(*address)))
        };
        let old: Vec<IpAddr> =
            Aim::addresses(&filter.program, self.way).into_iter().filter(|old| !spared(old)).collect();
        let known = |address: &IpAddr| {
            old.contains(address) || raised.aim.peers.iter().any(|net| net.contains(*address))
        };
        if new.iter().all(known) {
            return Ok(());
        }
        let mut peers: Vec<Network> =
            raised.aim.peers.iter().filter(|net| !net.is_single()).copied().collect();
        let single = raised.aim.peers.iter().filter(|net| net.is_single()).copied();
        for network in new.iter().chain(&old).copied().map(Network::single).chain(single) {
            if peers.len() < ADDRESSES_MAX && !peers.contains(&network) {
                peers.push(network);
            }
        }
        let aim = Aim { peers, ..raised.aim.clone() };
        // Packets of somebody else's fault stay with it.
        if self.refusal(&seen, &Raised { aim: &aim, ..*raised }).is_some() {
            return Ok(());
        }
        let (program, action) = (aim.program(self.way), filter.action);
        session
            .change(&Step::ChangeFilter { at: self.place(), program, device: device.index, action })
            .await?;
        let label = Label { aim: Some(Aim { exempt: Vec::new(), ..aim }), ..seen.label.clone() };
        session.change(&Step::Label { index: device.index, text: label.to_string() }).await
    }

    async fn dismantle(&self, session: &dyn Session, seen: &Seen, device: u32) -> io::Result<()> {
        if seen.filter.is_some() {
            session.change(&Step::DeleteFilter { at: self.place() }).await?;
        }
        if seen.label.hooked && seen.hooked {
            let left = seen.filters - usize::from(seen.filter.is_some());
            match seen.ours.first() {
                // Whoever is last takes them away.
                Some((link, label)) => {
                    let text = Label { hooked: true, ..label.clone() }.to_string();
                    session.change(&Step::Label { index: link.index, text }).await?;
                }
                None if self.bare(session, left).await? => {
                    session.change(&Step::DeleteHooks { index: self.link }).await?;
                }
                None => {}
            }
        }
        session.change(&Step::DeleteDevice { index: device }).await
    }

    /// Whether no filter is left on the hooks. The kernel lists a place besides the filters in it.
    async fn bare(&self, session: &dyn Session, left: usize) -> io::Result<bool> {
        if left == 0 {
            return Ok(true);
        }
        for way in [Way::Out, Way::In] {
            if !session.filters(self.link, way).await?.is_empty() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The state that this part of the tree changes. What others have there is theirs to change meanwhile.
    pub(super) fn picture(&self, seen: &Seen, family: &str, id: &str) -> Value {
        if !seen.link && seen.device.is_none() {
            return json!({"gone": true});
        }
        let ownerless = seen.device.is_some() && seen.label.held.is_empty();
        json!({
            "held": seen.label.held.get(family).is_some_and(|holder| holder == id),
            "device_without_owner": ownerless,
            "filter_without_device": seen.filter.is_some() && seen.device.is_none(),
            "hooks_without_filter": seen.hooked && seen.filters == 0 && !self.foreign_hooks,
        })
    }

    /// What a person types to take the tree away.
    pub(super) fn manual(&self) -> String {
        let hook = if self.way == Way::Out { "egress" } else { "ingress" };
        let Self { interface, device, handle, .. } = self;
        let hooks = if self.foreign_hooks {
            String::new()
        } else {
            format!(
                "; [ -n \"$(tc filter show dev {interface} egress; tc filter show dev {interface} ingress)\" ] || tc qdisc del dev {interface} clsact"
            )
        };
        format!(
            "tc filter del dev {interface} {hook} pref {PREF} handle {handle:#x} bpf; ip link del {device}{hooks}"
        )
    }
}

/// What is to be added.
#[derive(Debug, Clone, Copy)]
pub(super) struct Raised<'a> {
    pub(super) part: &'a Part,
    pub(super) id: &'a str,
    pub(super) aim: &'a Aim,
    pub(super) seed: u64,
}

impl<'a> Raised<'a> {
    /// Who owns it.
    pub(super) fn owner(&self) -> Owner<'a> {
        Owner { family: self.part.family(), id: self.id }
    }
}
