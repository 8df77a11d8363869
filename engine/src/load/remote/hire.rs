//! The coordinator's side: workers are met, given their parts, kept alive, and listened to.

use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel};
use std::time::Instant;

use super::seal::{Meeting, Role, Token, nonce};
use super::serve::VERB;
use super::wire::{Ear, Mouth, Socket, WireError, wire};
use super::word::{self, Answer, Bounds};
use super::{BEAT, HANDSHAKE, Job, LEASE, PROTOCOL, READY_WITHIN, RENEW, bytes, text};
use crate::load::clock::nanos;
use crate::load::phase::PhaseCell;
use crate::load::tally::Slice;
use crate::load::worker::StopCell;
use crate::load::{LoadError, origin};
use injectors::sys::timer::monotonic;

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
struct Kid(Child);

impl Drop for Kid {
    fn drop(&mut self) {
        // It has ended already, or ends now: nothing can keep it from that, so the wait is short.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A worker that has been met.
struct Met {
    name: String,
    ear: Ear,
    mouth: Mouth,
    cores: u32,
    kid: Option<Kid>,
}

/// What one worker is to do.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) job: Job,
    pub(crate) first: u32,
    pub(crate) threads: u32,
    /// Threads of all workers with this kind of job.
    pub(crate) of: u32,
    /// By load, of all loads.
    pub(crate) kinds: Vec<usize>,
}

/// Workers that could start at once; dropping it sends them home.
pub(crate) struct Crew(Vec<Hired>);

struct Hired {
    name: String,
    ear: Ear,
    bounds: Bounds,
    /// Begins it; dropping it ends the beat, and the connection with it.
    begin: Sender<Begin>,
    kid: Option<Kid>,
}

struct Begin {
    origin: u64,
    seed: u64,
    phase: Arc<PhaseCell>,
    stop: Arc<StopCell>,
}

/// Workers that wait for their parts.
pub(crate) struct Ready(Vec<Met>);

/// A worker that can be spoken to: its name, and the process if it is a child.
type Found = (String, Box<dyn Socket>, Option<Kid>);

/// Meets workers. Children end with the thread that calls this, so it has to outlive the load.
///
/// # Errors
/// One of them cannot be had.
pub(crate) async fn hire(hands: &Hands) -> Result<Ready, LoadError> {
    let (sockets, token): (Vec<Found>, Token) = match hands {
        Hands::Here => return Ok(Ready(Vec::new())),
        Hands::Processes(count) => {
            let start = |number: u32| {
                let (socket, kid) = spawn().map_err(LoadError::Thread)?;
                let name = format!("worker {} of {count} (process {})", number + 1, kid.0.id());
                Ok((name, Box::new(socket) as Box<dyn Socket>, Some(kid)))
            };
            ((0..*count).map(start).collect::<Result<_, LoadError>>()?, Token::default())
        }
        Hands::At(addresses, token) => {
            let mut sockets = Vec::new();
            for (number, address) in addresses.iter().enumerate() {
                let name = format!("worker {} of {} ({address})", number + 1, addresses.len());
                let fail = |why: String| LoadError::Worker { worker: name.clone(), why };
                let socket = connect(address).await.map_err(fail)?;
                sockets.push((name, Box::new(socket) as Box<dyn Socket>, None));
            }
            (sockets, token.clone())
        }
    };
    let meet = |(name, socket, kid): Found| match meet(socket, &token) {
        Ok((ear, mouth, cores)) => Ok(Met { name, ear, mouth, cores, kid }),
        Err(why) => Err(LoadError::Worker { worker: name, why: why.to_string() }),
    };
    // All at once: one that is slow holds up none of the others.
    let met = std::thread::scope(|scope| {
        let talks: Vec<_> = sockets.into_iter().map(|one| scope.spawn(|| meet(one))).collect();
        talks.into_iter().map(|talk| talk.join().expect("a handshake does not panic")).collect()
    });
    Result::<Vec<Met>, LoadError>::map(met, Ready)
}

async fn connect(address: &str) -> Result<TcpStream, String> {
    let wrong = || format!("`{address}` is no address: write HOST:PORT");
    let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let port: u16 = port.parse().map_err(|_| wrong())?;
    let addresses = origin::resolve(host, port).await.map_err(|error| error.to_string())?;
    let mut last = String::new();
    for at in addresses {
        match TcpStream::connect_timeout(&at, HANDSHAKE) {
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

/// The handshake.
fn meet(socket: Box<dyn Socket>, token: &Token) -> Result<(Ear, Mouth, u32), WireError> {
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

impl Ready {
    /// The processors of each.
    pub(crate) fn cores(&self) -> Vec<u32> {
        self.0.iter().map(|met| met.cores).collect()
    }

    /// Gives each its part and waits until all could start. What had to be lowered comes in words.
    ///
    /// # Errors
    /// One of them cannot.
    pub(crate) fn brief(self, orders: Vec<Order>) -> Result<(Crew, Vec<String>), LoadError> {
        let answers: Vec<Result<(Hired, Option<String>), LoadError>> = std::thread::scope(|scope| {
            let pairs = self.0.into_iter().zip(orders);
            let talks: Vec<_> = pairs.map(|(met, order)| scope.spawn(move || met.brief(order))).collect();
            talks.into_iter().map(|talk| talk.join().expect("a briefing does not panic")).collect()
        });
        let (mut crew, mut lowered) = (Vec::new(), Vec::new());
        for answer in answers {
            let (hired, less) = answer?;
            lowered.extend(less.map(|less| format!("{}: {less}", hired.name)));
            crew.push(hired);
        }
        Ok((Crew(crew), lowered))
    }
}

impl Met {
    fn brief(mut self, order: Order) -> Result<(Hired, Option<String>), LoadError> {
        let name = self.name.clone();
        let fail = |why: WireError| LoadError::Worker { worker: name.clone(), why: why.to_string() };
        let Order { job, first, threads, of, kinds } = order;
        let plan = word::Plan { job, first, threads, of, loads: kinds.len() };
        self.mouth.say(&word::Order::Plan(Box::new(plan))).map_err(fail)?;
        let lowered = match self.ear.hear(READY_WITHIN).map_err(fail)? {
            Answer::Ready { lowered } => lowered,
            Answer::Refused { why } => return Err(fail(WireError::Refused(why))),
            _ => return Err(fail(WireError::Garbled("an answer out of turn".to_owned()))),
        };
        let (begin, begun) = channel();
        let (mouth, thread) = (self.mouth, std::thread::Builder::new().name("load-beat".to_owned()));
        thread.spawn(move || beat(mouth, &begun)).map_err(LoadError::Thread)?;
        let bounds = Bounds { first: first as usize, threads: threads as usize, kinds };
        Ok((Hired { name: self.name, ear: self.ear, bounds, begin, kid: self.kid }, lowered))
    }
}

/// Renews the lease, and passes on what changes here. Ends when nobody listens to the worker any more.
fn beat(mut mouth: Mouth, begun: &Receiver<Begin>) {
    // A worker that cannot be told anything is noticed by whoever listens to it.
    let _ = told(&mut mouth, begun);
    mouth.hang_up();
}

fn told(mouth: &mut Mouth, begun: &Receiver<Begin>) -> Result<(), WireError> {
    let begin = loop {
        match begun.recv_timeout(RENEW) {
            Ok(begin) => break begin,
            Err(RecvTimeoutError::Timeout) => mouth.say(&word::Order::Renew)?,
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
    };
    let (mut phase, mut stop) = (begin.phase.get(), StopCell::GOES_ON);
    let in_us = begin.origin.saturating_sub(monotonic()) / 1000;
    mouth.say(&word::Order::Start { in_us, seed: begin.seed, phase })?;
    let mut renew_at = 0;
    while let Err(RecvTimeoutError::Timeout) = begun.recv_timeout(BEAT) {
        let now = begin.phase.get();
        if now != phase {
            phase = now;
            mouth.say(&word::Order::Enter { phase })?;
        }
        let how = begin.stop.get();
        if how != stop {
            stop = how;
            mouth.say(&word::Order::Stop { now: how == StopCell::NOW })?;
        }
        if monotonic() >= renew_at {
            renew_at = monotonic() + nanos(RENEW);
            mouth.say(&word::Order::Renew)?;
        }
    }
    Ok(())
}

impl Crew {
    /// Nobody.
    pub(crate) fn nobody() -> Self {
        Self(Vec::new())
    }

    /// All begin at this time. A thread for each passes its slices on, and returns why its numbers must not be trusted.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub(crate) fn start(
        self,
        origin: Instant,
        seed: u64,
        phase: &Arc<PhaseCell>,
        stop: &Arc<StopCell>,
        out: &SyncSender<Slice>,
    ) -> Result<Vec<std::thread::JoinHandle<Vec<String>>>, LoadError> {
        let ahead = origin.saturating_duration_since(Instant::now());
        let origin = monotonic() + nanos(ahead);
        let mut threads = Vec::new();
        for hired in self.0 {
            let begin = Begin { origin, seed, phase: Arc::clone(phase), stop: Arc::clone(stop) };
            // An error means that it is lost, and its listener says so.
            let _ = hired.begin.send(begin);
            let out = out.clone();
            let thread = std::thread::Builder::new().name("load-listen".to_owned());
            threads.push(thread.spawn(move || hired.listen(&out)).map_err(LoadError::Thread)?);
        }
        Ok(threads)
    }
}

impl Hired {
    /// Until it has sent everything, or is lost.
    fn listen(mut self, out: &SyncSender<Slice>) -> Vec<String> {
        let (mut heard_of, mut open) = (0, self.bounds.threads);
        let why = loop {
            match self.ear.hear::<Answer>(LEASE) {
                Ok(Answer::Slice(word)) => match word.slice(&self.bounds) {
                    Ok(slice) => {
                        heard_of = slice.second + 1;
                        open = open.saturating_sub(usize::from(slice.last.is_some()));
                        if out.send(slice).is_err() {
                            return Vec::new();
                        }
                    }
                    Err(why) => break WireError::Garbled(why),
                },
                Ok(Answer::Ended { doubts }) if open == 0 || !doubts.is_empty() => {
                    return doubts.iter().map(|doubt| format!("{}: {doubt}", self.name)).collect();
                }
                Ok(_) => break WireError::Garbled("it ended without having sent everything".to_owned()),
                Err(why) => break why,
            }
        };
        self.ear.hang_up();
        let status = self.kid.as_mut().and_then(|kid| kid.0.try_wait().ok().flatten());
        let status = status.map(|status| format!("; {status}")).unwrap_or_default();
        vec![format!(
            "{} was lost after second {heard_of} ({why}{status}): what it sent after that, and its share of the load from \
             then on, are missing",
            self.name
        )]
    }
}
