//! Which flows are cut, and that no others are.

use super::*;

/// A TCP connection from an address, tried for a second.
fn opened(from: SocketAddr, to: SocketAddr) -> std::io::Result<TcpStream> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with, sockopt};
    // A child of another test would keep it open, and it would go on.
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(ALONE))?;
    bind(&socket, &from)?;
    connect(&socket, &to)?;
    Ok(TcpStream::from(socket))
}

#[test]
fn a_cut_of_one_address_of_this_side_leaves_the_other_alone() {
    let Some(net) = net("addresses of this side") else { return };
    net.second_addresses();
    let (_server, home) = (net.serve(PORT), Home::new());
    let before = ruleset(&net);
    let opens = |from: &'static str, to: &'static str| net.act(move || opened(at(from), at(to)));
    for more in [&["--to", "10.77.0.2"][..], &["--direction", "in"], &["--direction", "out"]] {
        let args = [&["--from", "10.77.0.8/29", "--for", "60s"], more].concat();
        let mut going = home.start(&partition(&net, &args));
        going.says("from 10.77.0.8/29", SLACK);
        let seen = ["10.77.0.11:0", "10.77.0.1:0"].map(|from| opens(from, "10.77.0.2:7000").is_ok());
        // The packet of our own that proves it comes from there as well.
        crate::support::wait::pass(ALONE);
        going.signal(rustix::process::Signal::INT);
        let done = going.end().code(0);
        assert_eq!(seen, [false, true], "{more:?}");
        let said = if more[0] == "--to" { "before, and now does not answer" } else { "could be tried" };
        assert!(done.out.contains("confirmed") && done.out.contains(said), "{more:?}: {}", done.out);
    }
    assert_eq!(ruleset(&net), before);
    let others = net.serve(PORT + 1);
    let mut open = ["10.77.0.1:0", "10.77.0.11:0"].map(|from| opens(from, "10.77.0.2:7001").unwrap());
    let reset =
        ["inject", "connection-reset", "--netns", &net.name, "--from", "10.77.0.11", "--for", "200ms"];
    let done = home.squall(&[&reset[..], &["--share", "100%"]].concat()).code(0);
    assert!(done.out.contains("requested 1 of 1 connections reset"), "{}", done.out);
    let alive = open.each_mut().map(|stream| {
        stream.set_read_timeout(Some(ALONE)).unwrap();
        stream.write_all(b"?").and_then(|()| uninterrupted(|| stream.read(&mut [0; 4]))).is_ok()
    });
    assert_eq!(alive, [true, false]);
    drop(others);
    home.assert_nothing_left();
}
