//! Who sends a load: this process, others on this machine, or workers elsewhere; and being such a worker.

use std::net::{SocketAddr, TcpListener, ToSocketAddrs as _};
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;
use tokio::sync::mpsc;

use super::out::{self, Out};
use crate::load::remote::{self, Hands, TOKEN_MAX, Token, WORKERS_MAX};
use crate::reading;
use crate::run::Signals;
use crate::slo::exit;

/// Where a token may stand instead of in a file.
const TOKEN: &str = "SQUALL_WORKER_TOKEN";
/// Lines of the story that wait to be told.
const LINES: usize = 64;

/// Who sends it.
#[derive(Debug, Args)]
pub(super) struct HandArgs {
    /// Send open loads from so many processes of this machine, each every N-th request
    #[arg(long, value_name = "N", help_heading = "Workers", conflicts_with = "at",
          value_parser = clap::value_parser!(u32).range(1..=WORKERS_MAX as i64))]
    workers: Option<u32>,
    /// Send open loads from a `squall worker` that listens there; may be given several times
    #[arg(long = "worker", value_name = "HOST:PORT", help_heading = "Workers", id = "at")]
    at: Vec<String>,
    /// What the workers know as well [default: $SQUALL_WORKER_TOKEN]
    #[arg(long, value_name = "FILE", help_heading = "Workers", requires = "at")]
    token_file: Option<PathBuf>,
}

impl HandArgs {
    /// Who sends.
    ///
    /// # Errors
    /// What is wrong, in one sentence.
    pub(super) fn hands(&self) -> Result<Hands, String> {
        if self.at.len() > WORKERS_MAX {
            return Err(format!("at most {WORKERS_MAX} workers can be hired"));
        }
        match self.workers {
            Some(count) => Ok(Hands::Processes(count)),
            None if self.at.is_empty() => Ok(Hands::Here),
            None => Ok(Hands::At(self.at.clone(), token(self.token_file.as_deref())?)),
        }
    }

    /// The options that hire these again.
    pub(super) fn again(&self) -> String {
        let workers = self.workers.map(|count| format!(" --workers {count}")).unwrap_or_default();
        let at: String = self.at.iter().map(|at| format!(" --worker {at}")).collect();
        format!("{workers}{at}")
    }
}

/// From a file, else from the environment, else none.
fn token(file: Option<&Path>) -> Result<Token, String> {
    let (text, from) = match (file, std::env::var(TOKEN)) {
        (Some(path), _) => {
            let fail = |error: String| format!("--token-file: {}: {error}", path.display());
            let bytes = reading::bytes(path, TOKEN_MAX + 2).map_err(|error| fail(error.to_string()))?;
            (reading::text(bytes).map_err(fail)?, "--token-file")
        }
        (None, Ok(text)) if !text.is_empty() => (text, TOKEN),
        (None, _) => return Ok(Token::default()),
    };
    Token::new(&text).map_err(|error| format!("{from}: {error}"))
}

/// Where a worker listens.
#[derive(Debug, Args)]
#[command(
    after_help = "The token is proven, never sent, and everything after that is sealed with it; so it should be \
long and random. A worker serves one coordinator at a time. It stops by itself when it has heard nothing from it for 5 \
seconds. Names in a plan are looked up where the worker runs: 127.0.0.1 is the worker's own machine, and beyond that \
it sends only to what --allow-host names here."
)]
pub(super) struct WorkerArgs {
    /// The address and port to listen at; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    listen: String,
    /// What only coordinators know [default: $SQUALL_WORKER_TOKEN]. Needed beyond loopback
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// A host beyond this machine that coordinators may load from here; may be given several times
    #[arg(long = "allow-host", value_name = "HOST")]
    allowed: Vec<String>,
}

pub(super) fn worker(args: &WorkerArgs, out: &mut Out) -> u8 {
    let token = match token(args.token_file.as_deref()) {
        Ok(token) => token,
        Err(why) => return out.fail(exit::INVALID, &why),
    };
    let listener = match bind(&args.listen, &token) {
        Ok(listener) => listener,
        Err((code, why)) => return out.fail(code, &why),
    };
    let runtime = match out::runtime() {
        Ok(runtime) => runtime,
        Err(error) => return out.no_queue(&error),
    };
    let at = listener.local_addr().map_or_else(|_| args.listen.clone(), |at| at.to_string());
    if out.json {
        out.event(&json!({"event": "listening", "address": at}));
    } else {
        out.tell(&format!("listening at {at}; ^C ends it"));
    }
    runtime.block_on(async {
        let Ok(mut signals) = Signals::standard() else {
            return out.fail(exit::BUG, "this system gives squall no signals");
        };
        let (tell, mut lines) = mpsc::channel(LINES);
        let (over, mut ended) = mpsc::channel(1);
        let hosts = args.allowed.clone();
        // Ends with the process: an accept cannot be called back.
        let thread = std::thread::Builder::new().name("load-accept".to_owned()).spawn(move || {
            // A line for which there is no room is left out.
            let told = move |line: &str| drop(tell.try_send(line.to_owned()));
            let error = remote::listen(&listener, &token, hosts, told).err();
            let _ = over.blocking_send(error.map(|error| error.to_string()).unwrap_or_default());
        });
        if let Err(error) = thread {
            return out.fail(exit::REFUSED, &format!("no thread could be started: {error}"));
        }
        loop {
            tokio::select! {
                _ = signals.next() => return exit::HELD,
                Some(why) = ended.recv() => return out.fail(exit::REFUSED, &format!("nobody can be heard any more: {why}")),
                Some(line) = lines.recv() => {
                    if out.json {
                        out.event(&json!({"event": "session", "text": line}));
                    } else {
                        out.tell(&line);
                    }
                }
            }
        }
    })
}

fn bind(listen: &str, token: &Token) -> Result<TcpListener, (u8, String)> {
    let wrong = |error| (exit::INVALID, format!("--listen: `{listen}`: {error}; write it as 127.0.0.1:9000"));
    let addresses: Vec<SocketAddr> = listen.to_socket_addrs().map_err(wrong)?.collect();
    if token.is_none() && addresses.iter().any(|at| !at.ip().is_loopback()) {
        let why = format!(
            "--listen: {listen} can be reached from elsewhere: whoever can would make this machine send load. Say who may, \
             with --token-file or ${TOKEN}"
        );
        return Err((exit::INVALID, why));
    }
    TcpListener::bind(addresses.as_slice())
        .map_err(|error| (exit::REFUSED, format!("cannot listen at {listen}: {error}")))
}
