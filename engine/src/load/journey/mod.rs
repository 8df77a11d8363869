//! Journeys as a load: goose's users walk a script of ours, in a process of their own.
//!
//! goose brings its own handler of ^C, its own log and its own idea of the end, so it lives in a child ([`super::remote`])
//! and has no say there: the users are goose's, what they do, when, and what is counted is ours. Invariants:
//! - A step is intended when the think time before it is over (for the first step of a session: when the session was due to
//!   arrive), and its response counts from there to the last byte of the answer.
//! - Every step that came due ends in exactly one way, as every request of the open model does.
//! - What was begun at the end may end; nothing more is begun, but for the last steps of each user.

mod client;
mod crowd;
mod goose;
mod queue;
mod walk;

use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::thread::JoinHandle;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use self::client::Client;
use self::crowd::Crowd;
use super::clock::Clock;
use super::phase::PhaseCell;
use super::spec::TlsSpec;
use super::tally::{Recorder, Slice};
use super::worker::StopCell;
use super::{LoadError, OriginError, Outline};
use crate::journey::{Journey, Pace, Script, ScriptError};

/// Files that are kept from the users.
const FILES_RESERVED: u64 = 64;

/// One load of journeys.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JourneySpec {
    /// Its name.
    pub name: String,
    /// What is walked, by whom.
    pub journey: Journey,
    /// The time for one try of one request, from the intended time.
    pub deadline: Duration,
    /// The time for a connection to be there, TLS included.
    pub connect_timeout: Duration,
    /// The response header that names the PoP.
    pub pop_header: String,
    /// How servers are trusted.
    pub tls: TlsSpec,
}

impl JourneySpec {
    /// # Errors
    /// It cannot be walked.
    pub(super) fn script(&self) -> Result<Script, LoadError> {
        Script::new(&self.journey).map_err(|why| self.wrong(why))
    }

    fn wrong(&self, why: ScriptError) -> LoadError {
        LoadError::Journey { load: self.name.clone(), why }
    }

    /// # Errors
    /// It cannot be walked.
    pub(super) fn outline(&self) -> Result<Outline, LoadError> {
        let script = self.script()?;
        Ok(Outline {
            name: Arc::from(self.name.as_str()),
            kinds: script.kinds(),
            sends: script.asks.iter().map(|ask| ask.words.clone()).collect(),
            arrivals: words(&self.journey.pace),
            longest: self.journey.pace.lasting() + self.deadline,
            profile: None,
            poisson: false,
            keeps: Some("is walked by users in another process"),
        })
    }
}

fn words(pace: &Pace) -> String {
    match pace {
        Pace::Users { count, ramp, lasting } if ramp.is_zero() => format!("{count} users for {lasting:?}"),
        Pace::Users { count, ramp, lasting } => {
            format!("{count} users for {lasting:?}, begun over {ramp:?}")
        }
        Pace::Sessions { arrivals, poisson, most } => {
            let chance = if *poisson { ", at random" } else { "" };
            format!("sessions: {arrivals}{chance}, at most {most} at a time")
        }
    }
}

/// A load of journeys that could be sent at once.
pub(super) struct Journeys {
    spec: JourneySpec,
    script: Script,
    client: Client,
    place: usize,
    of_loads: usize,
    worker: usize,
}

impl Journeys {
    /// Checks it, resolves its hosts and reads certificates.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub(super) async fn new(
        spec: JourneySpec,
        place: usize,
        of_loads: usize,
        worker: usize,
    ) -> Result<Self, LoadError> {
        let script = spec.script()?;
        let needed = u64::from(spec.journey.pace.people()) + FILES_RESERVED;
        let limit = injectors::sys::host::allow_files(needed);
        if limit < needed {
            return Err(LoadError::Files { limit, needed });
        }
        let fail = |why: OriginError| LoadError::Origin { load: spec.name.clone(), why };
        let client = Client::new(&script, &spec).await.map_err(fail)?;
        Ok(Self { spec, script, client, place, of_loads, worker })
    }

    /// Starts its thread; it ends with the reasons why its numbers must not be trusted.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(super) fn start(
        self,
        clock: Clock,
        seed: u64,
        phase: &Arc<PhaseCell>,
        stop: &Arc<StopCell>,
        out: &SyncSender<Slice>,
    ) -> Result<Vec<JoinHandle<Vec<String>>>, LoadError> {
        let mut kinds = vec![0; self.of_loads];
        kinds[self.place] = self.script.kinds().len();
        let (phase, stop, out) = (Arc::clone(phase), Arc::clone(stop), out.clone());
        let run = move || {
            // Counts the CPU time of this thread, so it is made here.
            let recorder = Recorder::new(self.worker, &kinds, out);
            let Self { spec, script, client, place, .. } = self;
            let crowd = Crowd::new(spec, script, client, place, clock, phase, recorder, seed);
            crowd::run(&crowd, &stop).err().into_iter().collect()
        };
        let thread = std::thread::Builder::new().name("load-journey".to_owned());
        Ok(vec![thread.spawn(run).map_err(LoadError::Thread)?])
    }
}
