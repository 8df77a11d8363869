//! A pass-through relay that keeps the contract of `squall __relay` as far as the lab needs it. For the lab's own tests
//! until the real relay is merged.

use std::io::{BufRead, Read, Write};
use std::process::ExitCode;

use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

pub(crate) fn main() -> ExitCode {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .expect("a Linux host");
    let mut order = String::new();
    std::io::stdin().lock().read_line(&mut order).expect("an order on stdin");
    let order: Value = serde_json::from_str(&order).expect("an order in JSON");
    std::thread::spawn(|| {
        let _ = std::io::stdin().lock().read_to_end(&mut Vec::new());
        let own = rustix::process::getpid();
        let _ = rustix::process::kill_process(own, rustix::process::Signal::KILL);
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut relays = Vec::new();
        for route in order["routes"].as_array().expect("routes") {
            let listener =
                TcpListener::bind(route["listen"].as_str().expect("listen")).await.expect("a port");
            let mut relay = route.clone();
            relay["listen"] = json!(listener.local_addr().expect("bound").to_string());
            relay["control"] = order["control"].clone();
            relays.push(relay);
            tokio::spawn(carry(listener, route["upstream"].as_str().expect("upstream").to_owned()));
        }
        writeln!(std::io::stdout(), "{}", Value::Array(relays)).expect("a reader");
        std::future::pending::<ExitCode>().await
    })
}

async fn carry(listener: TcpListener, upstream: String) {
    loop {
        let Ok((mut client, _)) = listener.accept().await else { continue };
        let upstream = upstream.clone();
        tokio::spawn(async move {
            let Ok(mut server) = TcpStream::connect(upstream).await else { return };
            let _ = (client.set_nodelay(true), server.set_nodelay(true));
            let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
        });
    }
}
