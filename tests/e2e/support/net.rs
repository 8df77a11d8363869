//! Network namespaces of our own: two joined by a cable, or several on a bridge. What `ip`, `tc` and `nft` show of them is
//! the picture.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::{skipped, until};

/// Namespaces `NAME` and `NAME` with `b`, with the interfaces `near` (10.77.0.1, fd77::1) and `far` (10.77.0.2 and .3,
/// fd77::2).
pub(crate) struct Net {
    pub(crate) name: String,
    far: String,
}

/// Traffic that goes on until this is dropped.
pub(crate) struct Flowing {
    stop: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

fn run(program: &str, args: &[&str]) -> Result<String, String> {
    let done = Command::new(program).args(args).output().map_err(|error| format!("{program}: {error}"))?;
    if !done.status.success() {
        return Err(format!("{program} {args:?}: {}", String::from_utf8_lossy(&done.stderr)));
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

/// A port that was ours a moment ago may still be held by a child of some other test, until that child becomes a program.
fn bound(address: &str, port: u16) -> UdpSocket {
    until("the port", Duration::from_secs(2), || UdpSocket::bind((address, port)).ok())
}

/// Does it again as long as a signal, which may be meant for any thread, comes in between.
pub(crate) fn uninterrupted<T>(mut act: impl FnMut() -> std::io::Result<T>) -> std::io::Result<T> {
    loop {
        match act() {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

fn heard<T>(receive: impl FnMut() -> std::io::Result<T>) -> T {
    uninterrupted(receive).unwrap()
}

impl Net {
    /// None, and why, on a host that gives this test no namespaces.
    pub(crate) fn new(what: &str) -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("sqt-{}-{number}", std::process::id());
        let net = Self { far: format!("{name}b"), name };
        let made = || {
            run("ip", &["netns", "add", &net.name])?;
            run("ip", &["netns", "add", &net.far])?;
            run("tc", &["-V"])?;
            let cable = ["link", "add", "near", "netns", &net.name, "type", "veth", "peer", "name", "far"];
            run("ip", &[&cable[..], &["netns", &net.far]].concat())?;
            for (space, link) in [(&net.name, "near"), (&net.far, "far")] {
                run("ip", &["-n", space, "link", "set", "lo", "up"])?;
                run("ip", &["-n", space, "link", "set", link, "up"])?;
            }
            run("ip", &["-n", &net.name, "addr", "add", "10.77.0.1/24", "dev", "near"])?;
            run("ip", &["-n", &net.far, "addr", "add", "10.77.0.2/24", "dev", "far"])?;
            run("ip", &["-n", &net.far, "addr", "add", "10.77.0.3/24", "dev", "far"])?;
            // A kernel without IPv6 has the rest.
            for (space, address, link) in [(&net.name, "fd77::1/64", "near"), (&net.far, "fd77::2/64", "far")]
            {
                let _ = run("ip", &["-n", space, "addr", "add", address, "dev", link, "nodad"]);
            }
            Ok::<(), String>(())
        };
        match made() {
            Ok(()) => Some(net),
            Err(why) => {
                skipped(&format!("{what}: no network namespaces: {}", why.trim()));
                None
            }
        }
    }

    /// `ip` or `tc` in the namespace of the near side.
    #[track_caller]
    pub(crate) fn near(&self, program: &str, args: &[&str]) -> String {
        let inside = ["netns", "exec", &self.name, program];
        run("ip", &[&inside[..], args].concat()).unwrap()
    }

    /// The same on the far side.
    #[track_caller]
    pub(crate) fn far(&self, program: &str, args: &[&str]) -> String {
        let inside = ["netns", "exec", &self.far, program];
        run("ip", &[&inside[..], args].concat()).unwrap()
    }

    /// The same on the near side, where it may fail.
    pub(crate) fn try_near(&self, program: &str, args: &[&str]) -> Result<String, String> {
        let inside = ["netns", "exec", &self.name, program];
        run("ip", &[&inside[..], args].concat())
    }

    /// Whether there is IPv6.
    pub(crate) fn has_six(&self) -> bool {
        self.near("ip", &["-6", "addr", "show", "dev", "near"]).contains("fd77::1")
    }

    /// What `nft` shows of the near side; none, and why, if there is no `nft`.
    pub(crate) fn ruleset(&self, what: &str) -> Option<String> {
        if let Err(why) = run("nft", &["--version"]) {
            skipped(&format!("{what}: {}", why.trim()));
            return None;
        }
        Some(self.near("nft", &["list", "ruleset"]))
    }

    /// Does something in the namespace of the near side, and waits for it.
    pub(crate) fn act<T: Send + 'static>(&self, act: impl FnOnce() -> T + Send + 'static) -> T {
        inside(&self.name, act).join().unwrap()
    }

    /// The same on the far side.
    pub(crate) fn act_far<T: Send + 'static>(&self, act: impl FnOnce() -> T + Send + 'static) -> T {
        inside(&self.far, act).join().unwrap()
    }

    /// Whether a datagram comes to this port of the far side within a time; it is answered.
    pub(crate) fn far_hears(&self, port: u16, within: Duration) -> std::thread::JoinHandle<bool> {
        let (ready, begin) = std::sync::mpsc::channel();
        let heard = inside(&self.far, move || {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap();
            socket.set_read_timeout(Some(within)).unwrap();
            ready.send(()).unwrap();
            let mut buffer = [0; 64];
            let heard = uninterrupted(|| socket.recv_from(&mut buffer));
            let Ok((length, from)) = heard else { return false };
            socket.send_to(&buffer[..length], from).unwrap();
            true
        });
        begin.recv().unwrap();
        heard
    }

    /// Answers every byte that comes to this port of the far side by itself, until the answer is dropped.
    pub(crate) fn serve(&self, port: u16) -> Flowing {
        serve(&self.far, port)
    }

    /// All that a fault could leave behind: qdiscs, filters, interfaces.
    pub(crate) fn picture(&self) -> String {
        let mut picture = self.near("tc", &["-j", "qdisc", "show"]);
        for hook in ["egress", "ingress"] {
            picture += &self.near("tc", &["filter", "show", "dev", "near", hook]);
        }
        picture + &self.near("ip", &["-o", "link"])
    }

    /// Takes the name of the near side away: it goes on as long as somebody lives in it.
    pub(crate) fn unname(&self) {
        run("ip", &["netns", "del", &self.name]).unwrap();
    }

    pub(crate) fn delete(&self) {
        let _ = run("ip", &["netns", "del", &self.name]);
        let _ = run("ip", &["netns", "del", &self.far]);
    }

    /// Sends as much as goes to this address of the far side, until the answer is dropped.
    pub(crate) fn flood(&self, address: &'static str, port: u16) -> Flowing {
        let stop = Arc::new(AtomicBool::new(false));
        let (ready, begin) = std::sync::mpsc::channel();
        let sink = inside(&self.far, move || {
            let listener = TcpListener::bind((address, port)).unwrap();
            ready.send(()).unwrap();
            let (mut peer, _) = listener.accept().unwrap();
            let mut buffer = vec![0; 1 << 16];
            while peer.read(&mut buffer).is_ok_and(|length| length > 0) {}
        });
        begin.recv().unwrap();
        let told = Arc::clone(&stop);
        let source = inside(&self.name, move || {
            let mut peer = TcpStream::connect((address, port)).unwrap();
            peer.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
            while !told.load(Ordering::Relaxed) {
                // A full socket is what is wanted.
                let _ = peer.write(&[7; 16384]);
            }
        });
        Flowing { stop, threads: vec![source, sink] }
    }

    /// Gives the near side a second address of each family: 10.77.0.11 and fd77::11.
    pub(crate) fn second_addresses(&self) {
        self.near("ip", &["addr", "add", "10.77.0.11/24", "dev", "near"]);
        let _ = self.try_near("ip", &["addr", "add", "fd77::11/64", "dev", "near", "nodad"]);
    }

    /// How long this many datagrams of a thousand bytes take to an address of the far side and back, sent at once from a
    /// port; any, if it is 0.
    pub(crate) fn round_trips(&self, address: &'static str, port: u16, count: u32, from: u16) -> Duration {
        let any = if address.contains(':') { "::" } else { "0.0.0.0" };
        self.round_trips_from((any, from), (address, port), count)
    }

    /// The same from an address of the near side.
    pub(crate) fn round_trips_from(
        &self,
        (source, from): (&'static str, u16),
        (address, port): (&'static str, u16),
        count: u32,
    ) -> Duration {
        let (ready, begin) = std::sync::mpsc::channel();
        let echo = inside(&self.far, move || {
            let socket = bound(address, port);
            socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            ready.send(()).unwrap();
            let mut buffer = [0; 1500];
            for _ in 0..count {
                let (length, from) = heard(|| socket.recv_from(&mut buffer));
                socket.send_to(&buffer[..length], from).unwrap();
            }
        });
        begin.recv().unwrap();
        let took = inside(&self.name, move || {
            let socket = bound(source, from);
            socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            let began = Instant::now();
            for _ in 0..count {
                socket.send_to(&[7; 1000], (address, port)).unwrap();
            }
            for _ in 0..count {
                heard(|| socket.recv(&mut [0; 1500]));
            }
            began.elapsed()
        });
        echo.join().unwrap();
        took.join().unwrap()
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        self.delete();
    }
}

impl Drop for Flowing {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Does something in a namespace, on a thread of its own.
pub(crate) fn inside<T: Send + 'static>(
    space: &str,
    act: impl FnOnce() -> T + Send + 'static,
) -> std::thread::JoinHandle<T> {
    let file = std::fs::File::open(format!("/run/netns/{space}")).unwrap();
    std::thread::spawn(move || {
        rustix::thread::move_into_link_name_space(file.as_fd(), None).unwrap();
        act()
    })
}

/// Answers every byte that comes to this port of a namespace by itself, by TCP and UDP, until the answer is dropped.
pub(crate) fn serve(space: &str, port: u16) -> Flowing {
    let stop = Arc::new(AtomicBool::new(false));
    let (ready, begin) = std::sync::mpsc::channel();
    let (told, heard) = (Arc::clone(&stop), Arc::clone(&stop));
    let told_ready = ready.clone();
    let tcp = inside(space, move || {
        let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).unwrap();
        listener.set_nonblocking(true).unwrap();
        told_ready.send(()).unwrap();
        let mut open: Vec<TcpStream> = Vec::new();
        while !told.load(Ordering::Relaxed) {
            if let Ok((peer, _)) = listener.accept() {
                peer.set_nonblocking(true).unwrap();
                open.push(peer);
            }
            let mut buffer = [0; 64];
            open.retain_mut(|peer| match peer.read(&mut buffer) {
                Ok(0) => false,
                Ok(length) => peer.write_all(&buffer[..length]).is_ok(),
                Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
            });
            super::wait::pass(Duration::from_millis(2));
        }
    });
    let udp = inside(space, move || {
        let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        ready.send(()).unwrap();
        let mut buffer = [0; 64];
        while !heard.load(Ordering::Relaxed) {
            if let Ok((length, from)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(&buffer[..length], from);
            }
        }
    });
    begin.recv().unwrap();
    begin.recv().unwrap();
    Flowing { stop, threads: vec![tcp, udp] }
}

/// How a new TCP connection to here ends within a second: `open`, or the kind of the error.
pub(crate) fn connects(to: SocketAddr) -> String {
    match TcpStream::connect_timeout(&to, Duration::from_secs(1)) {
        Ok(_) => "open".to_owned(),
        Err(error) => format!("{:?}", error.kind()),
    }
}

/// Whether a datagram to here comes back within half a second.
pub(crate) fn echoes(to: SocketAddr) -> bool {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    socket.connect(to).unwrap();
    socket.send(b"?").is_ok() && uninterrupted(|| socket.recv(&mut [0; 4])).is_ok()
}

/// Namespaces on one bridge, which is in a namespace as well: member 0 is 10.78.0.1 and fd78::1, and so on.
pub(crate) struct Cluster {
    pub(crate) names: Vec<String>,
    pub(crate) bridge: String,
}

impl Cluster {
    /// None, and why, on a host that gives this test no namespaces or bridges.
    pub(crate) fn new(what: &str, members: usize) -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let stem = format!("sqc-{}-{number}", std::process::id());
        let names = (0..members).map(|member| format!("{stem}-{member}")).collect();
        let cluster = Self { names, bridge: stem };
        let made = || {
            let hub = &cluster.bridge;
            run("ip", &["netns", "add", hub])?;
            run("ip", &["-n", hub, "link", "add", "hub", "type", "bridge"])?;
            run("ip", &["-n", hub, "link", "set", "hub", "up"])?;
            for (name, member) in cluster.names.iter().zip(1..) {
                let port = format!("port{member}");
                run("ip", &["netns", "add", name])?;
                let cable = ["link", "add", "eth0", "netns", name, "type", "veth", "peer", "name", &port];
                run("ip", &[&cable[..], &["netns", hub]].concat())?;
                run("ip", &["-n", hub, "link", "set", &port, "master", "hub", "up"])?;
                run("ip", &["-n", name, "addr", "add", &format!("10.78.0.{member}/24"), "dev", "eth0"])?;
                let six = format!("fd78::{member}/64");
                run("ip", &["-n", name, "addr", "add", &six, "dev", "eth0", "nodad"])?;
                run("ip", &["-n", name, "link", "set", "eth0", "up"])?;
            }
            Ok::<(), String>(())
        };
        match made() {
            Ok(()) => Some(cluster),
            Err(why) => {
                skipped(&format!("{what}: no namespaces on a bridge: {}", why.trim()));
                None
            }
        }
    }

    /// A program in the namespace of a member or of the bridge.
    #[track_caller]
    pub(crate) fn run(space: &str, args: &[&str]) -> String {
        run("ip", &[&["netns", "exec", space], args].concat()).unwrap()
    }

    /// The addresses of a member.
    pub(crate) fn addresses(member: usize) -> [IpAddr; 2] {
        let last = u16::try_from(member + 1).unwrap();
        [Ipv4Addr::new(10, 78, 0, last as u8).into(), Ipv6Addr::new(0xfd78, 0, 0, 0, 0, 0, 0, last).into()]
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for name in self.names.iter().chain([&self.bridge]) {
            let _ = run("ip", &["netns", "del", name]);
        }
    }
}
