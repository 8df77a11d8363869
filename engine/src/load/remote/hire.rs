//! The coordinator's side: a team of workers is met, kept alive, and stays together from one job to the next.

use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};

use super::beat::{Told, beating};
use super::crew::{Crew, Hired};
use super::seal::{Meeting, Role, Token, nonce};
use super::serve::VERB;
use super::wire::{Ear, Mouth, Socket, WireError, wire};
use super::word::{self, Answer};
use super::{HANDSHAKE, Job, PROTOCOL, READY_WITHIN, bytes, text};
use crate::load::ready::cores;
use crate::load::{LoadError, origin};

/// The most workers of one load.
pub const WORKERS_MAX: usize = 64;
/// The most threads of one worker that are asked for.
const CORES_MAX: u32 = 256;

/// Who sends a load.
#[derive(Debug, Clone, Default)]
pub enum Hands {
    /// Threads of this process.
    #[default]
    Here,
    /// So many processes on this machine.
    Processes(u32),
    /// Workers that listen at these addresses (`host:port`) and know this token.
    At(Vec<String>, Token),
}

/// A child of ours. It is killed and reaped when this is dropped, whatever has happened.
pub(super) struct Kid(pub(super) Child);

impl Drop for Kid {
    fn drop(&mut self) {
        // It has ended already, or ends now: nothing can keep it from that, so the wait is short.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A worker that has been met. Dropping it ends its beat, and the connection with it.
pub(super) struct Met {
    pub(super) name: String,
    pub(super) ear: Ear,
    pub(super) tell: Sender<Told>,
    pub(super) cores: u32,
    pub(super) kid: Option<Kid>,
}

/// What one worker is to do.
#[derive(Debug)]
pub(in crate::load) struct Order {
    pub(in crate::load) job: Job,
    pub(in crate::load) first: u32,
    pub(in crate::load) threads: u32,
    /// Threads of all workers with this kind of job.
    pub(in crate::load) of: u32,
    /// By load, of all loads.
    pub(in crate::load) kinds: Vec<usize>,
}

/// Where workers are between two jobs.
#[derive(Clone, Default)]
pub(super) struct Home(Arc<Mutex<Vec<Met>>>);

impl Home {
    fn all(&self) -> std::sync::MutexGuard<'_, Vec<Met>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its job is done.
    pub(super) fn back(&self, met: Met) {
        self.all().push(met);
    }
}

/// Who sends loads, one after another: workers that have been met, or nobody but threads of this process. Dropping it sends
/// them home.
#[derive(Default)]
pub struct Team {
    home: Home,
    /// How many there were.
    of: usize,
    /// They share this machine.
    near: bool,
}

/// A worker that can be spoken to, once this has been called: the socket, and the process if it is a child.
type Found = (Box<dyn Socket>, Option<Kid>);

/// Meets workers. Children end with the thread that calls this, so it has to outlive their loads.
///
/// # Errors
/// One of them cannot be had.
pub async fn hire(hands: &Hands) -> Result<Team, LoadError> {
    match hands {
        Hands::Here => Ok(Team::default()),
        Hands::Processes(count) => {
            let start = |number: u32| {
                let (socket, kid) = spawn().map_err(LoadError::Thread)?;
                let name = format!("worker {} of {count} (process {})", number + 1, kid.0.id());
                Ok((name, (Box::new(socket) as Box<dyn Socket>, Some(kid))))
            };
            let found: Vec<(String, Found)> = (0..*count).map(start).collect::<Result<_, LoadError>>()?;
            let met = all_at_once(found, |name, found| meet(name, found, &Token::default()))?;
            Ok(Team { of: met.len(), home: Home(Arc::new(Mutex::new(met))), near: true })
        }
        Hands::At(addresses, token) => {
            let mut found = Vec::new();
            for (number, address) in addresses.iter().enumerate() {
                let name = format!("worker {} of {} ({address})", number + 1, addresses.len());
                let fail = |why: String| LoadError::Worker { worker: name.clone(), why };
                let at = resolved(address).await.map_err(fail)?;
                found.push((name, at));
            }
            let met = all_at_once(found, |name, at| {
                let socket = connect(&at).map_err(|why| LoadError::Worker { worker: name.clone(), why })?;
                meet(name, (Box::new(socket), None), token)
            })?;
            Ok(Team { of: met.len(), home: Home(Arc::new(Mutex::new(met))), near: false })
        }
    }
}

/// The same with each, at the same time: one that is slow holds up none of the others.
fn all_at_once<F: Send, T: Send>(
    of: Vec<(String, F)>,
    with: impl Fn(String, F) -> Result<T, LoadError> + Sync,
) -> Result<Vec<T>, LoadError> {
    let with = &with;
    std::thread::scope(|scope| {
        let talks: Vec<_> = of.into_iter().map(|(name, one)| scope.spawn(move || with(name, one))).collect();
        talks.into_iter().map(|talk| talk.join().expect("a talk with a worker does not panic")).collect()
    })
}

async fn resolved(address: &str) -> Result<Vec<SocketAddr>, String> {
    let wrong = || format!("`{address}` is no address: write HOST:PORT");
    let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let port: u16 = port.parse().map_err(|_| wrong())?;
    origin::resolve(host, port).await.map_err(|error| error.to_string())
}

fn connect(addresses: &[SocketAddr]) -> Result<TcpStream, String> {
    let mut last = String::new();
    for at in addresses {
        match TcpStream::connect_timeout(at, HANDSHAKE) {
            Ok(socket) => {
                // Words are small and must not wait for each other.
                let _ = socket.set_nodelay(true);
                return Ok(socket);
            }
            Err(error) => last = format!("no connection to {at}: {error}"),
        }
    }
    Err(last)
}

/// A child whose standard input is one end of a connection.
fn spawn() -> std::io::Result<(UnixStream, Kid)> {
    let (here, there) = UnixStream::pair()?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(VERB).arg(std::process::id().to_string()).stdin(OwnedFd::from(there));
    // Not of the terminal's group: ^C is for the coordinator, who tells its workers.
    command.stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    Ok((here, Kid(command.spawn()?)))
}

/// The handshake; from then on the lease is renewed.
fn meet(name: String, (socket, kid): Found, token: &Token) -> Result<Met, LoadError> {
    match greet(socket, token) {
        Ok((ear, mouth, cores)) => {
            let tell = beating(mouth).map_err(LoadError::Thread)?;
            Ok(Met { name, ear, tell, cores, kid })
        }
        Err(why) => Err(LoadError::Worker { worker: name, why: why.to_string() }),
    }
}

fn greet(socket: Box<dyn Socket>, token: &Token) -> Result<(Ear, Mouth, u32), WireError> {
    let (mut ear, mut mouth) = wire(socket).map_err(WireError::Io)?;
    let own = nonce();
    mouth.say(&word::Order::Hello { protocol: PROTOCOL, nonce: text(&own) })?;
    let (protocol, number, proof, cores) = match ear.hear(HANDSHAKE)? {
        Answer::Challenge { protocol, nonce, proof, cores } => (protocol, nonce, proof, cores),
        Answer::Refused { why } => return Err(WireError::Refused(why)),
        _ => return Err(WireError::Garbled("an answer out of turn".to_owned())),
    };
    if protocol != PROTOCOL {
        return Err(WireError::Garbled(format!("it speaks version {protocol}, not {PROTOCOL}")));
    }
    let number = bytes(&number).and_then(|bytes| bytes.try_into().ok());
    let worker = number.ok_or_else(|| WireError::Garbled("a challenge of the wrong length".to_owned()))?;
    let meeting = Meeting { coordinator: own, worker };
    if !meeting.proven(token, Role::Worker, &bytes(&proof).unwrap_or_default()) {
        // Who does not know the token gets no plan.
        return Err(WireError::Refused("its token is another one".to_owned()));
    }
    mouth.say(&word::Order::Proof { proof: text(&meeting.proof(token, Role::Coordinator)) })?;
    mouth.sealed(meeting.seal(token, Role::Coordinator));
    ear.sealed(meeting.seal(token, Role::Worker));
    Ok((ear, mouth, cores.clamp(1, CORES_MAX)))
}

impl Team {
    /// Threads of this process send.
    pub fn is_nobody(&self) -> bool {
        self.of == 0
    }

    /// Processes of this machine send: others or this one.
    pub fn is_near(&self) -> bool {
        self.near || self.is_nobody()
    }

    /// What has become of it, if some are lost.
    pub fn fewer(&self) -> Option<String> {
        let left = self.home.all().len();
        (left < self.of).then(|| format!("{} of {} workers are lost", self.of - left, self.of))
    }

    /// The processors that each sender has to itself.
    ///
    /// # Errors
    /// Every worker is lost.
    pub(crate) fn cores(&self) -> Result<Vec<u32>, LoadError> {
        let met = self.home.all();
        let count = met.len() as u32;
        match count {
            0 if self.is_nobody() => Ok(vec![cores()]),
            0 => Err(LoadError::Worker {
                worker: format!("{} workers", self.of),
                why: "all of them are lost".to_owned(),
            }),
            _ if self.near => Ok(met.iter().map(|met| (met.cores / count).max(1)).collect()),
            _ => Ok(met.iter().map(|met| met.cores).collect()),
        }
    }

    /// Gives each its part and waits until all could start. What had to be lowered comes in words.
    ///
    /// # Errors
    /// One of them cannot.
    pub(in crate::load) fn brief(&self, orders: Vec<Order>) -> Result<(Crew, Vec<String>), LoadError> {
        let met = std::mem::take(&mut *self.home.all());
        let pairs = met.into_iter().zip(orders).map(|(met, order)| (met.name.clone(), (met, order)));
        let answers = all_at_once(pairs.collect(), |name, (met, order): (Met, Order)| {
            met.brief(order, self.home.clone())
                .map_err(|why| LoadError::Worker { worker: name, why: why.to_string() })
        })?;
        let (mut crew, mut lowered) = (Vec::new(), Vec::new());
        for (hired, less) in answers {
            lowered.extend(less.map(|less| format!("{}: {less}", hired.name())));
            crew.push(hired);
        }
        Ok((Crew::of(crew), lowered))
    }
}

impl Met {
    fn brief(mut self, order: Order, home: Home) -> Result<(Hired, Option<String>), WireError> {
        let Order { job, first, threads, of, kinds } = order;
        let open = matches!(job, Job::Open(_));
        let plan = word::Plan { job, first, threads, of, loads: kinds.len() };
        // An error means that it is lost, and the ear says so.
        let _ = self.tell.send(Told::Say(word::Order::Plan(Box::new(plan))));
        let lowered = match self.ear.hear(READY_WITHIN)? {
            Answer::Ready { lowered } => lowered,
            Answer::Refused { why } => return Err(WireError::Refused(why)),
            _ => return Err(WireError::Garbled("an answer out of turn".to_owned())),
        };
        let bounds = word::Bounds { first: first as usize, threads: threads as usize, kinds };
        Ok((Hired::new(self, bounds, open.then_some(of), home), lowered))
    }
}
