//! What a probe does: an HTTP GET, a TCP connection, a command.

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use injectors::sys::proc::{Host, Procs};
use tokio::net::TcpStream;

use crate::experiment::vars::substitute_late;
use crate::experiment::{Late, Probe, ProbeCheck};
use crate::plan::bare_url;

/// The most of a body that is read.
const BODY_MAX: usize = 1 << 20;

/// The probe with its late names replaced.
pub(super) fn resolve(probe: &Probe, late: &Late) -> Probe {
    let mut probe = probe.clone();
    match &mut probe.check {
        ProbeCheck::Http { url, .. } => *url = substitute_late(url, late),
        ProbeCheck::Tcp { address } => *address = substitute_late(address, late),
        ProbeCheck::Command { argv, .. } => {
            for arg in argv {
                *arg = substitute_late(arg, late);
            }
        }
    }
    probe
}

/// What it does and what it must see, in words.
pub(super) fn words(check: &ProbeCheck) -> (String, String) {
    match check {
        ProbeCheck::Http { url, statuses, body_contains } => {
            let ranges: Vec<String> = statuses
                .iter()
                .map(|(from, to)| if from == to { from.to_string() } else { format!("{from}-{to}") })
                .collect();
            let body =
                body_contains.as_ref().map_or(String::new(), |text| format!(", body contains `{text}`"));
            (format!("GET {}", bare_url(url)), format!("status {}{body}", ranges.join(", ")))
        }
        ProbeCheck::Tcp { address } => (format!("connect to {address}"), "a connection".to_owned()),
        ProbeCheck::Command { argv, exit } => {
            (format!("run `{}`", argv.join(" ")), format!("exit code {exit}"))
        }
    }
}

/// One observation: held, or why not.
pub(super) async fn run(probe: &Probe) -> Result<(), String> {
    match &probe.check {
        ProbeCheck::Http { url, statuses, body_contains } => {
            http(url, statuses, body_contains.as_deref()).await
        }
        ProbeCheck::Tcp { address } => {
            TcpStream::connect(address).await.map(drop).map_err(|error| format!("{address}: {error}"))
        }
        ProbeCheck::Command { argv, exit } => {
            let output =
                Host.run(argv, super::patience(probe), None).await.map_err(|error| error.to_string())?;
            if output.code == Some(*exit) {
                return Ok(());
            }
            let code = output.code.map_or("a signal".to_owned(), |code| format!("code {code}"));
            Err(format!("it ended with {code}: {}", output.text.trim()))
        }
    }
}

async fn http(url: &str, statuses: &[(u16, u16)], contains: Option<&str>) -> Result<(), String> {
    let said = |error: &dyn std::fmt::Display| error.to_string();
    let uri: hyper::Uri = url.parse().map_err(|e| format!("{url}: {e}"))?;
    let authority = uri.authority().ok_or("the URL has no host")?.clone();
    let address = format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(80));
    let stream = TcpStream::connect(&address).await.map_err(|e| format!("{address}: {e}"))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| said(&e))?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = hyper::Request::get(path)
        .header(hyper::header::HOST, authority.as_str())
        .header(hyper::header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|e| said(&e))?;
    let talk = async {
        let response = sender.send_request(request).await.map_err(|e| said(&e))?;
        let status = response.status().as_u16();
        if !statuses.iter().any(|(from, to)| (*from..=*to).contains(&status)) {
            return Err(format!("status {status}"));
        }
        let Some(text) = contains else { return Ok(()) };
        let body = Limited::new(response.into_body(), BODY_MAX)
            .collect()
            .await
            .map_err(|e| e.to_string())?
            .to_bytes();
        if body.windows(text.len()).any(|window| window == text.as_bytes()) {
            return Ok(());
        }
        Err(format!("the body does not contain `{text}`"))
    };
    // The connection must be driven while the answer is awaited; whichever ends first decides.
    let mut connection = std::pin::pin!(connection);
    let mut talk = std::pin::pin!(talk);
    tokio::select! {
        done = &mut talk => done,
        ended = &mut connection => match ended {
            Ok(()) => talk.await,
            Err(error) => Err(error.to_string()),
        },
    }
}
