//! The worker's side: it lets itself be told what to send, and stops when nobody tells it any more.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use injectors::sys::host;
use reports::record::Phase;
use tokio::runtime::Builder;

use super::seal::{Meeting, Role, Token, nonce};
use super::wire::{Ear, Mouth, Socket, WireError, wire};
use super::word::{Answer, Order, Plan, SliceWord};
use super::{HANDSHAKE, Job, LEASE, PROTOCOL, READY_WITHIN, bytes, text};
use crate::load::clock::Clock;
use crate::load::collect::throttled;
use crate::load::journey::Journeys;
use crate::load::knobs::PaceCell;
use crate::load::phase::PhaseCell;
use crate::load::saturation::THROTTLED;
use crate::load::tally::Slice;
use crate::load::worker::StopCell;
use crate::load::{Part, SLICES, Share};

/// The hidden verb of a child.
pub const VERB: &str = "__load-worker";
/// What it is ready to send.
enum Task {
    Part(Part),
    Journeys(Box<Journeys>),
}

impl Task {
    fn threads(&self) -> u32 {
        match self {
            Self::Part(part) => part.threads(),
            Self::Journeys(_) => 1,
        }
    }
}

/// The most connections that are not yet, or no longer, a session.
const STRANGERS_MAX: usize = 16;

/// A worker that is a child: its parent's process id is the first argument, the connection its standard input. True if
/// it did what it was told.
pub fn child(args: &[String]) -> bool {
    let Some(parent) = args.first().and_then(|parent| parent.parse().ok()) else { return false };
    host::call_it("squall-load");
    if host::die_with(parent).is_err() {
        return false;
    }
    let Ok(fd) = io::stdin().as_fd().try_clone_to_owned() else { return false };
    session(Box::new(UnixStream::from(fd)), &Token::default(), &AtomicBool::new(false)).is_ok()
}

/// Serves coordinators, one at a time, until the process ends. What happens is `told`, line by line.
///
/// # Errors
/// Nobody can be heard any more.
pub fn listen(
    listener: &TcpListener,
    token: &Token,
    told: impl Fn(&str) + Send + Sync + 'static,
) -> io::Result<()> {
    let (busy, told) = (Arc::new(AtomicBool::new(false)), Arc::new(told));
    let strangers = Arc::new(AtomicUsize::new(0));
    loop {
        let (socket, from) = match listener.accept() {
            Ok(accepted) => accepted,
            // The one who knocked has gone again, or there is no descriptor left for him: neither is ours to mend.
            Err(error)
                if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted) =>
            {
                continue;
            }
            Err(error) => return Err(error),
        };
        if strangers.fetch_add(1, Ordering::AcqRel) >= STRANGERS_MAX {
            strangers.fetch_sub(1, Ordering::AcqRel);
            continue;
        }
        let (token, busy, told, count) =
            (token.clone(), Arc::clone(&busy), Arc::clone(&told), Arc::clone(&strangers));
        std::thread::Builder::new().name("load-session".to_owned()).spawn(move || {
            // Words are small and must not wait for each other.
            let _ = TcpStream::set_nodelay(&socket, true);
            match session(Box::new(socket), &token, &busy) {
                Ok(()) => told(&format!("{from}: done")),
                Err(why) => told(&format!("{from}: {why}")),
            }
            count.fetch_sub(1, Ordering::AcqRel);
        })?;
    }
}

/// One coordinator, from its hello to its end.
fn session(socket: Box<dyn Socket>, token: &Token, busy: &AtomicBool) -> Result<(), WireError> {
    let (mut ear, mut mouth) = wire(socket).map_err(WireError::Io)?;
    let refuse = |mouth: &mut Mouth, why: &str| {
        // It may have gone already.
        let _ = mouth.say(&Answer::Refused { why: why.to_owned() });
        Err(WireError::Garbled(why.to_owned()))
    };
    let greeted = greet(&mut ear, &mut mouth, token);
    if let Err(why) = greeted {
        return refuse(&mut mouth, &why.to_string());
    }
    if busy.swap(true, Ordering::AcqRel) {
        return refuse(&mut mouth, "it is sending another load");
    }
    let done = serve(ear, mouth);
    busy.store(false, Ordering::Release);
    done
}

/// The handshake.
fn greet(ear: &mut Ear, mouth: &mut Mouth, token: &Token) -> Result<(), WireError> {
    let Order::Hello { protocol, nonce: number } = ear.hear(HANDSHAKE)? else {
        return Err(WireError::Garbled("this is a squall worker, and that was no hello".to_owned()));
    };
    if protocol != PROTOCOL {
        let why = format!("version {protocol} of the protocol, and this squall speaks {PROTOCOL}");
        return Err(WireError::Garbled(why));
    }
    let coordinator = bytes(&number).and_then(|bytes| bytes.try_into().ok());
    let coordinator =
        coordinator.ok_or_else(|| WireError::Garbled("a hello of the wrong length".to_owned()))?;
    let meeting = Meeting { coordinator, worker: nonce() };
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u32);
    mouth.say(&Answer::Challenge {
        protocol: PROTOCOL,
        nonce: text(&meeting.worker),
        proof: text(&meeting.proof(token, Role::Worker)),
        cores,
    })?;
    let Order::Proof { proof } = ear.hear(HANDSHAKE)? else {
        return Err(WireError::Garbled("no proof that it knows the token".to_owned()));
    };
    if !meeting.proven(token, Role::Coordinator, &bytes(&proof).unwrap_or_default()) {
        return Err(WireError::Refused("its token is another one".to_owned()));
    }
    ear.sealed(meeting.seal(token, Role::Coordinator));
    mouth.sealed(meeting.seal(token, Role::Worker));
    Ok(())
}

/// From the plan to the end.
fn serve(mut ear: Ear, mut mouth: Mouth) -> Result<(), WireError> {
    let out_of_turn = || WireError::Garbled("a word out of turn".to_owned());
    let Order::Plan(plan) = ear.hear(READY_WITHIN)? else { return Err(out_of_turn()) };
    let part = match prepare(*plan) {
        Ok((part, lowered)) => {
            mouth.say(&Answer::Ready { lowered })?;
            part
        }
        Err(why) => {
            mouth.say(&Answer::Refused { why: why.clone() })?;
            return Err(WireError::Refused(why));
        }
    };
    loop {
        match ear.hear(LEASE)? {
            Order::Renew => {}
            Order::Start { in_us, seed, phase } => {
                let origin = Instant::now() + Duration::from_micros(in_us.min(60_000_000));
                return send(part, origin, seed, phase, ear, mouth);
            }
            Order::Stop { .. } => return Ok(()),
            _ => return Err(out_of_turn()),
        }
    }
}

fn prepare(plan: Plan) -> Result<(Task, Option<String>), String> {
    let Plan { job, first, threads, of, loads } = plan;
    let fits = threads > 0 && first.checked_add(threads).is_some();
    if !fits || loads == 0 || loads > crate::load::LOADS_MAX {
        return Err("a plan for no thread or no load".to_owned());
    }
    let runtime = Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
    let share = Share { first, threads, of };
    match job {
        Job::Journey(place, spec, seats) => {
            if threads != 1 || place >= loads || seats.number >= seats.of {
                return Err("a plan for a thread or a load that there is not".to_owned());
            }
            let journeys = runtime.block_on(Journeys::new(*spec, place, seats, loads, first as usize));
            Ok((Task::Journeys(Box::new(journeys.map_err(|error| error.to_string())?)), None))
        }
        Job::Open(specs) => {
            if first + threads > of || specs.iter().any(|(place, _)| *place >= loads) {
                return Err("a plan for a thread or a load that there is not".to_owned());
            }
            let mut part =
                runtime.block_on(Part::new(specs, share, loads)).map_err(|error| error.to_string())?;
            let lowered = part.within_limits().map_err(|error| error.to_string())?;
            Ok((Task::Part(part), lowered))
        }
    }
}

/// Sends its part, and what it counts, until that is done or the coordinator says nothing more.
fn send(
    part: Task,
    origin: Instant,
    seed: u64,
    phase: Phase,
    mut ear: Ear,
    mouth: Mouth,
) -> Result<(), WireError> {
    let (phase, stop) = (Arc::new(PhaseCell::new(phase)), Arc::new(StopCell::default()));
    let (out, slices) = sync_channel(SLICES * part.threads() as usize);
    let (told, before) = (Arc::clone(&stop), throttled());
    let threads = start(part, origin, seed, &phase, &stop, &out)?;
    // Only the threads hold the sending side now: when they are gone, so is the end of the slices.
    drop(out);
    let thread = std::thread::Builder::new().name("load-tell".to_owned());
    let teller = thread.spawn(move || tell(&slices, threads, mouth, before, origin, &told));
    let teller = teller.map_err(WireError::Io)?;
    let why = loop {
        match ear.hear(LEASE) {
            Ok(Order::Renew) => {}
            Ok(Order::Enter { phase: next }) => phase.set(next),
            Ok(Order::Stop { now }) => stop.request(if now { StopCell::NOW } else { StopCell::GRACEFUL }),
            Ok(_) => break WireError::Garbled("a word out of turn".to_owned()),
            Err(why) => break why,
        }
    };
    // The coordinator hangs up when it has everything; before that, it is gone, and nobody may go on sending.
    stop.request(StopCell::NOW);
    let complete = teller.join().unwrap_or(false);
    if complete && matches!(why, WireError::Closed) { Ok(()) } else { Err(why) }
}

type Threads = Vec<std::thread::JoinHandle<Vec<String>>>;

fn start(
    part: Task,
    origin: Instant,
    seed: u64,
    phase: &Arc<PhaseCell>,
    stop: &Arc<StopCell>,
    out: &SyncSender<Slice>,
) -> Result<Threads, WireError> {
    let clock = Clock::new(origin);
    let started = match part {
        Task::Part(part) => {
            // The rate is changed where the load is asked for, which does not change that of others.
            let paces = Arc::new(PaceCell::new(Vec::new(), clock));
            part.start(clock, seed, phase, stop, &paces, out)
        }
        Task::Journeys(journeys) => journeys.start(clock, seed, phase, stop, out),
    };
    started.map_err(|error| {
        stop.request(StopCell::NOW);
        WireError::Garbled(error.to_string())
    })
}

/// Passes slices on; true once the coordinator was told everything.
fn tell(
    slices: &Receiver<Slice>,
    threads: Threads,
    mut mouth: Mouth,
    throttled_before: Option<Duration>,
    origin: Instant,
    stop: &StopCell,
) -> bool {
    let mut heard = true;
    while let Ok(slice) = slices.recv() {
        // Slices are taken in any case: threads that find no room for their last one would never end.
        heard = heard && mouth.say(&Answer::Slice(Box::new(SliceWord::from(&slice)))).is_ok();
        if !heard {
            stop.request(StopCell::NOW);
        }
    }
    let mut doubts: Vec<String> = Vec::new();
    for thread in threads {
        doubts.extend(thread.join().unwrap_or_else(|_| vec!["a load thread failed: it panicked".to_owned()]));
    }
    if let (Some(before), Some(after)) = (throttled_before, throttled()) {
        let (kept, of) = (after.saturating_sub(before), origin.elapsed());
        if kept.as_secs_f64() > THROTTLED * of.as_secs_f64() {
            doubts.push(format!(
                "the CPU limit of its control group kept it from running for {:.2} of {:.1} seconds",
                kept.as_secs_f64(),
                of.as_secs_f64()
            ));
        }
    }
    heard && mouth.say(&Answer::Ended { doubts }).is_ok()
}
