//! Journeys as a load: goose's users walk a script of ours, in a process of their own.
//!
//! goose brings its own handler of ^C, its own log and its own idea of the end, so it lives in a child ([`super::remote`])
//! and has no say there: the users are goose's, what they do, when, and what is counted is ours. Invariants:
//! - A step is intended when the think time before it is over (for the first step of a session: when the session was due to
//!   arrive), and its response counts from there to the last byte of the answer.
//! - Every step that came due ends in exactly one way, as every request of the open model does.
//! - What was begun at the end may end, but is not tried again; nothing more is begun, but for the last steps of each user,
//!   of which the first that fails is the last.
//! - What somebody sends follows from the seed and a number: the session's, or that of the user and of how often he has gone
//!   through. How many processes share the people makes no difference.

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
use crate::feed::Feed;
use crate::journey::{Journey, PROCESSES_MAX, Pace, Script};

/// Files that are kept from the users.
const FILES_RESERVED: u64 = 64;
/// The most that a process is told, in bytes as they are sent: bodies from files, and the columns of feeds that are used. A
/// frame has room for it.
const TOLD_MAX: usize = 60 << 20;
/// And all processes of a load together: as much memory may be taken by that.
const TOLD_ALL_MAX: usize = 240 << 20;

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
    /// Rows of data for `${feed.column}` in the steps.
    pub feeds: Vec<Arc<Feed>>,
    /// How many processes share the people; 1 to [`PROCESSES_MAX`].
    pub processes: u32,
}

/// Which people a process has: of so many processes, each has every so-manieth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Seats {
    /// Which process.
    pub(super) number: u32,
    /// Of how many.
    pub(super) of: u32,
}

impl Seats {
    /// How many of these are here.
    fn share(self, all: u32) -> u32 {
        all / self.of + u32::from(self.number < all % self.of)
    }

    /// The number among all of one that is here.
    fn global(self, local: u64) -> u64 {
        local * u64::from(self.of) + u64::from(self.number)
    }
}

impl JourneySpec {
    /// # Errors
    /// It cannot be walked.
    pub(super) fn script(&self) -> Result<Script, LoadError> {
        Script::new(&self.journey, &self.feeds)
            .map_err(|why| LoadError::Journey { load: self.name.clone(), why })
    }

    /// What its processes are told: with the columns alone that its steps use.
    ///
    /// # Errors
    /// It cannot be walked, or is more than a process can be told.
    pub(super) fn told(mut self) -> Result<Self, LoadError> {
        let script = self.script()?;
        self.feeds = script
            .fields
            .iter()
            .map(|(feed, columns)| Arc::new(self.feeds[*feed].keeping(columns)))
            .collect();
        let most = TOLD_MAX.min(TOLD_ALL_MAX / self.processes() as usize);
        if serde_json::to_writer(&mut Room(most), &self).is_err() {
            return Err(LoadError::Told { load: self.name, most });
        }
        Ok(self)
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

    /// How many processes it has: no more than people.
    pub(super) fn processes(&self) -> u32 {
        self.processes.clamp(1, self.journey.pace.people().clamp(1, PROCESSES_MAX))
    }
}

/// Takes so many bytes and keeps none.
struct Room(usize);

impl std::io::Write for Room {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let left = self.0.checked_sub(bytes.len());
        self.0 = left.ok_or_else(|| std::io::Error::other("no room"))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn words(pace: &Pace) -> String {
    match pace {
        Pace::Users { count, ramp, lasting, .. } if ramp.is_zero() => {
            format!("{count} users for {lasting:?}")
        }
        Pace::Users { count, ramp, lasting, .. } => {
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
    seats: Seats,
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
        seats: Seats,
        of_loads: usize,
        worker: usize,
    ) -> Result<Self, LoadError> {
        let script = spec.script()?;
        let needed = u64::from(seats.share(spec.journey.pace.people())) + FILES_RESERVED;
        let limit = injectors::sys::host::allow_files(needed);
        if limit < needed {
            return Err(LoadError::Files { limit, needed });
        }
        let fail = |why: OriginError| LoadError::Origin { load: spec.name.clone(), why };
        let client = Client::new(&script, &spec).await.map_err(fail)?;
        Ok(Self { spec, script, client, place, seats, of_loads, worker })
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
            let Self { spec, script, client, place, seats, .. } = self;
            let crowd = Crowd::new(spec, script, client, place, seats, clock, phase, recorder, seed);
            crowd::run(&crowd, &stop).err().into_iter().collect()
        };
        let thread = std::thread::Builder::new().name("load-journey".to_owned());
        Ok(vec![thread.spawn(run).map_err(LoadError::Thread)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::{Input, Sources};
    use crate::load::bridge::{specs, verify};

    /// A body as large as it is allowed to be, and rows with a column that nobody uses.
    struct Large;

    impl Sources for Large {
        fn read(&self, _: &str) -> Result<String, String> {
            Err("there is none".to_owned())
        }

        fn bytes(&self, path: &str, most: usize) -> Result<Vec<u8>, String> {
            Ok(match path {
                "rows.csv" => {
                    format!("id,long\n{}", format!("1,{}\n", "x".repeat(1000)).repeat(1000)).into_bytes()
                }
                _ => vec![0; most],
            })
        }
    }

    fn experiment(bodies: usize, processes: u32) -> crate::experiment::Experiment {
        let step = |n| format!("{{a{n}: {{method: PUT, path: '/${{rows.id}}', body: {{file: b}}}}}}");
        let steps: Vec<String> = (0..bodies).map(step).collect();
        let text = format!(
            "squall: v1\nexperiment: e\nquestion: q\nfeeds: {{rows: {{file: rows.csv}}}}\nload:\n  - l: {{users: {{count: 20, for: \
             20s, processes: {processes}, journey: {{base: 'http://127.0.0.1:1', steps: [{}]}}}}}}\nobjectives: [{{l: \
             {{availability: '>= 90%'}}}}]\ntimeline: [{{at: 5s, for: 5s, faults: [{{process-pause: {{port: 1}}}}]}}]\n",
            steps.join(", ")
        );
        crate::experiment::parse(&Input { text, ..Input::default() }, &Large).unwrap()
    }

    #[test]
    fn processes_are_told_what_they_need_and_no_more_than_fits() {
        let fits = experiment(2, 1);
        verify(&fits).unwrap();
        let [crate::load::Work::Journey(spec)] = &specs(&fits, &crate::experiment::Late::default())[..]
        else {
            panic!("a journey")
        };
        let told = spec.clone().told().unwrap();
        assert_eq!((spec.feeds[0].columns().len(), told.feeds[0].columns()), (2, &["id".to_owned()][..]));
        assert_eq!(told.script().unwrap().asks.len(), 2, "the same script all the same");
        // Each body has 16 MiB, which are a third more on the way.
        for (bodies, processes) in [(3, 1), (2, 8)] {
            let wrong = verify(&experiment(bodies, processes)).unwrap_err();
            assert!(wrong.len() == 1 && wrong[0].1.starts_with("load l: its bodies from files"), "{wrong:?}");
        }
    }

    #[test]
    fn people_are_shared_without_rest_or_double() {
        for (all, of) in [(7, 3), (3, 3), (20_000, 16), (1, 1)] {
            let seats = |number| Seats { number, of };
            let mut found: Vec<u64> = (0..of)
                .flat_map(|number| {
                    (0..seats(number).share(all)).map(move |local| seats(number).global(local.into()))
                })
                .collect();
            found.sort_unstable();
            assert_eq!(found, (0..u64::from(all)).collect::<Vec<_>>());
        }
    }
}
