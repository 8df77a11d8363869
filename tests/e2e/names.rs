//! Names that are not found, late or wrong: `dns-fault` before a DNS server of our own, in namespaces of our own.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::{Duration, Instant};

use injectors::LEASE;

use crate::support::net::{Net, inside, uninterrupted};
use crate::support::{Home, points, turns, until};

const ALONE: Duration = Duration::from_secs(1);
const SLACK: Duration = Duration::from_secs(2);
const FOUR: &str = "10.77.0.2";
const SIX: &str = "fd77::2";
const A: u16 = 1;
const AAAA: u16 = 28;

/// Answers any question for an A record with 192.0.2.N, and any other with nothing, by UDP and TCP.
struct Server {
    last: Arc<AtomicU8>,
    stop: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Server {
    fn new(net: &Net) -> Self {
        let (last, stop) = (Arc::new(AtomicU8::new(7)), Arc::new(AtomicBool::new(false)));
        let far = format!("{}b", net.name);
        let (ready, begin) = std::sync::mpsc::channel();
        let told = ready.clone();
        let (number, over) = (Arc::clone(&last), Arc::clone(&stop));
        let udp = inside(&far, move || {
            let socket = UdpSocket::bind("[::]:53").unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
            told.send(()).unwrap();
            let mut buffer = [0; 512];
            while !over.load(Ordering::Relaxed) {
                if let Ok((length, from)) = socket.recv_from(&mut buffer) {
                    let _ = socket.send_to(&reply(&buffer[..length], &number), from);
                }
            }
        });
        let (number, over) = (Arc::clone(&last), Arc::clone(&stop));
        let tcp = inside(&far, move || {
            let listener = std::net::TcpListener::bind("[::]:53").unwrap();
            listener.set_nonblocking(true).unwrap();
            ready.send(()).unwrap();
            while !over.load(Ordering::Relaxed) {
                let Ok((mut peer, _)) = listener.accept() else {
                    crate::support::wait::pass(Duration::from_millis(5));
                    continue;
                };
                peer.set_nonblocking(false).unwrap();
                peer.set_read_timeout(Some(ALONE)).unwrap();
                let (mut length, mut query) = ([0; 2], vec![0; 512]);
                if peer.read_exact(&mut length).is_ok() {
                    query.truncate(u16::from_be_bytes(length).into());
                    peer.read_exact(&mut query).unwrap();
                    let answer = reply(&query, &number);
                    let head = (answer.len() as u16).to_be_bytes();
                    peer.write_all(&[&head[..], &answer].concat()).unwrap();
                }
            }
        });
        begin.recv().unwrap();
        begin.recv().unwrap();
        Self { last, stop, threads: vec![udp, tcp] }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| {
            let _ = thread.join();
        });
    }
}

fn reply(query: &[u8], last: &AtomicU8) -> Vec<u8> {
    let mut out = query.to_vec();
    out[2] |= 0x80;
    if query[query.len() - 3] == A as u8 {
        out[7] = 1;
        out.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, last.load(Ordering::Relaxed)]);
    }
    out
}

fn query(name: &str, kind: u16) -> Vec<u8> {
    let mut out = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        out.push(label.len() as u8);
        out.extend(label.bytes());
    }
    out.push(0);
    out.extend(kind.to_be_bytes());
    out.extend([0, 1]);
    out
}

/// The code of an answer and the end of its first address, or why there is none.
fn words(answer: std::io::Result<Vec<u8>>) -> String {
    let Ok(answer) = answer else { return "nothing".to_owned() };
    assert_eq!(answer[..2], [0x12, 0x34], "it answers another query");
    match (answer[3] & 0xf, answer[7]) {
        (0, 0) => "empty".to_owned(),
        (0, _) => format!("address {}", answer[answer.len() - 1]),
        (code, _) => format!("code {code}"),
    }
}

fn by_udp(socket: &UdpSocket, server: &str, name: &str, kind: u16) -> String {
    socket.set_read_timeout(Some(Duration::from_millis(700))).unwrap();
    socket.send_to(&query(name, kind), SocketAddr::new(server.parse().unwrap(), 53)).unwrap();
    let mut buffer = [0; 512];
    words(uninterrupted(|| socket.recv_from(&mut buffer)).map(|(length, from)| {
        assert_eq!(from.to_string().replace(['[', ']'], ""), format!("{server}:53"), "a stranger answers");
        buffer[..length].to_vec()
    }))
}

fn by_tcp(server: &str, name: &str, kind: u16) -> String {
    let asked = || {
        let to = SocketAddr::new(server.parse().unwrap(), 53);
        let mut peer = TcpStream::connect_timeout(&to, ALONE)?;
        peer.set_read_timeout(Some(Duration::from_millis(700)))?;
        let query = query(name, kind);
        peer.write_all(&[&(query.len() as u16).to_be_bytes()[..], &query].concat())?;
        let mut length = [0; 2];
        peer.read_exact(&mut length)?;
        let mut answer = vec![0; u16::from_be_bytes(length).into()];
        peer.read_exact(&mut answer)?;
        Ok(answer)
    };
    words(asked())
}

/// What a process of the near side is answered by both servers, by both protocols: all the same, or it fails.
fn asked(net: &Net, name: &'static str, kind: u16) -> String {
    net.act(move || {
        let any = |server: &str| if server.contains(':') { "[::]:0" } else { "0.0.0.0:0" };
        let all = [FOUR, SIX].map(|server| {
            let udp = by_udp(&UdpSocket::bind(any(server)).unwrap(), server, name, kind);
            assert_eq!(udp, by_tcp(server, name, kind), "{server}: by UDP and TCP");
            udp
        });
        assert_eq!(all[0], all[1], "by IPv4 and IPv6");
        all[0].clone()
    })
}

fn fault<'a>(net: &'a Net, more: &[&'a str]) -> Vec<&'a str> {
    [&["inject", "dns-fault", "--netns", &net.name, "--to", "10.77.0.2,fd77::2"][..], more].concat()
}

#[test]
fn names_that_fit_are_answered_as_asked_for_and_all_others_truly() {
    let Some(net) = Net::new("DNS that lies") else { return };
    let Some(before) = net.ruleset("DNS that lies") else { return };
    let _turn = turns(1);
    let (_server, home) = (Server::new(&net), Home::new());
    assert_eq!(asked(&net, "a.example.com", A), "address 7");
    for (more, hit, other_type) in [
        (&["--answer", "nxdomain"][..], "code 3", "code 3"),
        (&["--answer", "servfail", "--types", "a"], "code 2", "empty"),
        (&["--answer", "refused", "--types", "a,aaaa"], "code 5", "code 5"),
        (&["--answer", "timeout", "--types", "a"], "nothing", "empty"),
        (&["--answer", "wrong", "--addresses", "192.0.2.99"], "address 99", "empty"),
        (&["--answer", "stale"], "address 7", "empty"),
    ] {
        let base = ["--names", "*.example.com, b.org", "--share", "100%", "--for", "60s"];
        let mut going = home.start(&fault(&net, &[&base[..], more].concat()));
        going.says("dns-fault at", SLACK);
        for name in ["a.example.com", "x.y.example.com", "b.org"] {
            assert_eq!(asked(&net, name, A), hit, "{more:?}: {name}");
        }
        assert_eq!(asked(&net, "a.example.com", AAAA), other_type, "{more:?}");
        for name in ["example.com", "a.b.org", "other.net"] {
            assert_eq!(asked(&net, name, A), "address 7", "{more:?}: {name}");
        }
        going.signal(rustix::process::Signal::INT);
        let done = going.end().code(0);
        assert!(done.out.contains("confirmed"), "{more:?}: {}", done.out);
        assert_eq!(asked(&net, "a.example.com", A), "address 7", "{more:?}: afterwards");
        assert_eq!(net.ruleset("").unwrap(), before, "{more:?}");
    }
    home.assert_nothing_left();
}

#[test]
fn an_answer_is_late_or_stale_and_true_again_for_the_same_socket_as_soon_as_it_ends() {
    let Some(net) = Net::new("late and stale DNS") else { return };
    if net.ruleset("late and stale DNS").is_none() {
        return;
    }
    let (server, home) = (Server::new(&net), Home::new());
    let socket = Arc::new(net.act(|| UdpSocket::bind("0.0.0.0:0").unwrap()));
    let ask = |name: &'static str| {
        let (socket, began) = (Arc::clone(&socket), Instant::now());
        (by_udp(&socket, FOUR, name, A), began.elapsed())
    };
    let late = ["--answer", "delay", "--delay", "300ms", "--share", "100%", "--for", "60s"];
    let mut going = home.start(&fault(&net, &late));
    going.says("dns-fault at", SLACK);
    let (said, took) = ask("a.example.com");
    assert!(said == "address 7" && took >= Duration::from_millis(300), "{said} after {took:?}");
    going.signal(rustix::process::Signal::INT);
    let done = going.end().code(0);
    assert!(done.out.contains("confirmed (requested answers 0.3 s later"), "{}", done.out);
    let (said, took) = ask("a.example.com");
    assert!(said == "address 7" && took < Duration::from_millis(250), "{said} after {took:?}");

    let stale = ["--answer", "stale", "--names", "a.example.com", "--share", "100%", "--for", "60s"];
    let mut going = home.start(&fault(&net, &stale));
    going.says("dns-fault at", SLACK);
    assert_eq!(ask("a.example.com").0, "address 7");
    server.last.store(8, Ordering::Relaxed);
    assert_eq!((ask("a.example.com").0.as_str(), ask("b.org").0.as_str()), ("address 7", "address 8"));
    going.signal(rustix::process::Signal::INT);
    going.end().code(0);
    assert_eq!(ask("a.example.com").0, "address 8");
    home.assert_nothing_left();
}

#[test]
fn a_resolver_that_nobody_has_is_not_late() {
    let Some(net) = Net::new("late DNS of nobody") else { return };
    if net.ruleset("late DNS of nobody").is_none() {
        return;
    }
    let home = Home::new();
    let late = ["--answer", "delay", "--delay", "100ms", "--share", "100%", "--for", "2s"];
    let args = [&["inject", "dns-fault", "--netns", &net.name, "--to", "10.77.0.55"][..], &late].concat();
    let done = home.squall(&args).code(6);
    assert!(!done.out.contains("confirmed"), "{}", done.out);
    home.assert_nothing_left();
}

#[test]
fn a_share_of_the_queries_is_hit() {
    let Some(net) = Net::new("a share of DNS") else { return };
    if net.ruleset("a share of DNS").is_none() {
        return;
    }
    let (_server, home) = (Server::new(&net), Home::new());
    let half = ["--answer", "servfail", "--share", "50%", "--for", "60s"];
    let mut going = home.start(&fault(&net, &half));
    going.says("dns-fault at", SLACK);
    let failed = net.act(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        (0..200).filter(|_| by_udp(&socket, FOUR, "a.example.com", A) == "code 2").count()
    });
    assert!((65..135).contains(&failed), "{failed} of 200");
    crate::support::wait::pass(ALONE + ALONE / 5);
    going.signal(rustix::process::Signal::INT);
    let done = going.end().code(0);
    assert!(done.out.contains("confirmed (requested SERVFAIL for 50% of such queries"), "{}", done.out);
}

#[test]
fn whatever_ends_a_dns_fault_at_whatever_step_names_are_as_before_within_a_second() {
    let Some(net) = Net::new("the kill matrix of DNS") else { return };
    let Some(before) = net.ruleset("the kill matrix of DNS") else { return };
    let _turn = turns(1);
    let (_server, home) = (Server::new(&net), Home::new());
    for (step, how) in points() {
        let point = format!("{step}:{how}");
        let args = ["--answer", "nxdomain", "--share", "100%", "--for", "100ms", "--crash-at", &point];
        let done = home.squall(&fault(&net, &args));
        assert_eq!(done.code == 137, matches!(how, "kill" | "kill-both"), "{point}: {done:?}");
        if how == "kill-both" {
            until("the end of engines and guardians", ALONE, || {
                (!home.run_folders().iter().any(|folder| engine::run::store::alive(folder))).then_some(())
            });
            home.squall(&["recover"]).code(0);
        }
        until(&format!("{point}: the ruleset before"), ALONE, || {
            (net.ruleset("").unwrap() == before).then_some(())
        });
        assert_eq!(asked(&net, "a.example.com", A), "address 7", "{point}");
        home.squall(&["recover"]).code(0);
    }
    home.assert_nothing_left();
}

#[test]
fn when_engine_and_guardian_are_dead_names_are_true_again_within_the_lease() {
    let Some(net) = Net::new("the lease of a DNS fault") else { return };
    let Some(before) = net.ruleset("the lease of a DNS fault") else { return };
    let (_server, home) = (Server::new(&net), Home::new());
    let args = ["--answer", "wrong", "--addresses", "192.0.2.99", "--share", "100%", "--for", "60s"];
    home.squall(&fault(&net, &[&args[..], &["--crash-at", "journalled:kill-both"]].concat())).code(137);
    until("true names", LEASE + SLACK, || {
        let said = net.act(|| by_udp(&UdpSocket::bind("0.0.0.0:0").unwrap(), FOUR, "a.example.com", A));
        assert_ne!(said, "address 99", "our resolver outlives its engine");
        (said == "address 7").then_some(())
    });
    home.squall(&["recover"]).code(0);
    assert_eq!(net.ruleset("").unwrap(), before);
    home.assert_nothing_left();
}

#[test]
fn a_namespace_whose_loopback_is_down_is_told_so() {
    let Some(net) = Net::new("DNS without a loopback") else { return };
    let home = Home::new();
    let args = ["--answer", "servfail", "--share", "100%", "--for", "300ms"];
    net.near("ip", &["link", "set", "lo", "down"]);
    let down = home.squall(&fault(&net, &args)).code(3);
    assert!(down.err.contains("ip link set lo up"), "{down:?}");
    home.assert_nothing_left();
}

#[test]
fn a_socket_that_is_bound_to_an_interface_gets_true_answers_still() {
    let Some(net) = Net::new("DNS of bound sockets") else { return };
    if net.ruleset("DNS of bound sockets").is_none() {
        return;
    }
    let (_server, home) = (Server::new(&net), Home::new());
    for route in [false, true] {
        if route {
            net.near("ip", &["route", "add", "default", "via", "10.77.0.3"]);
        }
        let mut going = home.start(&fault(
            &net,
            &["--names", "*.com", "--answer", "nxdomain", "--share", "100%", "--for", "60s"],
        ));
        going.says("dns-fault at", SLACK);
        let said = net.act(|| {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.set_nonblocking(true).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
            let socket = {
                let _inside = runtime.enter();
                let socket = tokio::net::UdpSocket::from_std(socket).unwrap();
                socket.bind_device(Some(b"near")).unwrap();
                socket.into_std().unwrap()
            };
            socket.set_nonblocking(false).unwrap();
            ["a.example.com", "other.net"].map(|name| by_udp(&socket, FOUR, name, A))
        });
        assert_eq!(said, ["address 7"; 2], "with a default route: {route}");
        going.signal(rustix::process::Signal::INT);
        going.end();
    }
    home.assert_nothing_left();
}
