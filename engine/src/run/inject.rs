//! Faults that are held without a run, such as an ad hoc one: with the same journal, guardian, proof and undo as in a run.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use injectors::journal::{self, Entry, Journal, JournalError};
use injectors::secrets::Secrets;
use injectors::{Args, Env, Injector, Inventory};
use reports::record::InjectionRecord;
use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::JoinSet;

use super::event::{Event, Observer};
use super::guardian::Guardian;
use super::injection::{self, Haste, Log, Report, Shared};
use super::relays::Relays;
use super::store::StoreError;
use super::{CrashPoint, Signals, Store, refuse_leftovers};
use crate::clock::Clock;
use crate::experiment::{Experiment, FaultUse, RelayDecl, Selector, Step, topology};
use crate::lab;
use crate::plan::{self, PlannedInjection};
use crate::slo::exit;

/// What is to be held, and for how long.
#[derive(Debug)]
pub struct AdHoc {
    /// The fault.
    pub injector: &'static dyn Injector,
    /// Its parameters.
    pub args: Args,
    /// What it is aimed at.
    pub selector: Selector,
    /// The relay that it is aimed at, which lives as long as the fault.
    pub relay: Option<RelayDecl>,
    /// How long.
    pub length: Duration,
    /// Decides targets and every random choice.
    pub seed: u64,
    /// A crash on purpose.
    pub crash: Option<CrashPoint>,
    /// Where runs are kept.
    pub store: Store,
    /// This program.
    pub exe: PathBuf,
}

/// Why nothing was done, with the exit code.
type Refused = (u8, String);

/// Makes the fault, holds it, and takes it back. Returns the exit code and what became of each injection.
///
/// # Errors
/// Nothing was touched: bad parameters, leftovers, no target, no guardian.
pub async fn hold(
    ad_hoc: AdHoc,
    signals: Signals,
    observer: &mut dyn Observer,
) -> Result<(u8, Vec<InjectionRecord>), Refused> {
    let refused = |error: &dyn std::fmt::Display| (exit::REFUSED, format!("refused: {error}"));
    let standing = lab::standing();
    let planned = resolve(&ad_hoc, standing.is_some())?;
    refuse_leftovers(&ad_hoc.store).map_err(|error| refused(&error))?;
    let mut inventory = match standing {
        Some(standing) => standing.refresh().await.map_err(|error| refused(&error))?.inventory,
        None => Inventory::default(),
    };
    let place = Place::new(&ad_hoc.store).map_err(|error| refused(&error))?;
    let relays = own_relay(&ad_hoc, &place.id, observer).await.map_err(|error| refused(&error));
    let relays = match relays {
        Ok(relays) => relays,
        Err(why) => {
            place.forget();
            return Err(why);
        }
    };
    inventory.relays.extend(relays.iter().flat_map(|relays| relays.carried.iter().cloned()));
    let faults = Faults {
        title: format!("inject {}", ad_hoc.injector.about().name),
        planned,
        inventory,
        length: ad_hoc.length,
        crash: ad_hoc.crash,
        store: ad_hoc.store.clone(),
        exe: ad_hoc.exe.clone(),
        secrets: Secrets::default(),
    };
    let came = keep(faults, place, signals, observer).await;
    if let Some(relays) = relays {
        relays.end().await;
    }
    came
}

/// Where the journal of faults lies while they live.
pub(super) struct Place {
    id: String,
    folder: PathBuf,
    lock: std::fs::File,
}

impl Place {
    /// A new one.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub(super) fn new(store: &Store) -> Result<Self, StoreError> {
        let (id, folder, lock) = store.create()?;
        Ok(Self { id, folder, lock })
    }

    /// Nothing happened: no folder needs to tell of it.
    fn forget(self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Faults that begin together and are held.
pub(super) struct Faults {
    /// What the journal calls them.
    pub(super) title: String,
    pub(super) planned: Vec<PlannedInjection>,
    pub(super) inventory: Inventory,
    /// How long they live at most.
    pub(super) length: Duration,
    pub(super) crash: Option<CrashPoint>,
    pub(super) store: Store,
    pub(super) exe: PathBuf,
    pub(super) secrets: Secrets,
}

/// Makes faults, holds them, and takes them back: each with its intent in the journal first, and the guardian watching.
pub(super) async fn keep(
    faults: Faults,
    place: Place,
    mut signals: Signals,
    observer: &mut dyn Observer,
) -> Result<(u8, Vec<InjectionRecord>), Refused> {
    let refused = |error: &dyn std::fmt::Display| (exit::REFUSED, format!("refused: {error}"));
    let deadline = faults.length + Duration::from_secs(60);
    let guardian = Guardian::start(&faults.exe, &place.folder, deadline, &faults.secrets).await;
    let guardian = match guardian {
        Ok(guardian) => guardian,
        Err(error) => {
            place.forget();
            return Err(refused(&error));
        }
    };
    let Place { id, folder, lock } = place;
    let journal = begin(&faults.title, &faults.secrets, &id, &folder).map_err(|error| refused(&error))?;
    let (reports, heard) = mpsc::unbounded_channel();
    let clock = Clock::starting_in(Duration::ZERO);
    let shared = Arc::new(Shared {
        env: Env::host(faults.inventory),
        journal: Log::new(journal),
        guardian,
        clock,
        store: faults.store,
        run: id.clone(),
        crash: faults.crash,
        claims: Mutex::default(),
        reports,
    });
    let (haste, told) = watch::channel(Haste::Planned);
    let mut injections = JoinSet::new();
    for one in faults.planned {
        injections.spawn(injection::live(Arc::clone(&shared), one, told.clone()));
    }
    let (mut records, ending) =
        watch_over(&shared, &mut injections, heard, &haste, &mut signals, observer).await;
    let code = if ending == Ending::Left {
        // Closing the guardian's pipe, without a word, makes it act.
        injections.shutdown().await;
        drop(shared);
        exit::NOT_RESTORED
    } else {
        let settled = injection::settle(shared, &folder, &mut records).await;
        settled.undone.iter().for_each(|event| observer.event(clock.now(), event));
        let code = code(&records, ending == Ending::Failed);
        settled.end(code).await;
        code
    };
    if code == exit::NOT_RESTORED {
        let text = format!("what is left: squall recover --list; to restore it: squall recover --run {id}");
        observer.event(clock.now(), &Event::Note { text });
    }
    drop(lock);
    if code != exit::NOT_RESTORED {
        // An ad hoc fault leaves no record; its journal has done its work.
        let _ = std::fs::remove_dir_all(folder);
    }
    Ok((code, records))
}

/// A journal with its first entry.
fn begin(title: &str, secrets: &Secrets, id: &str, folder: &Path) -> Result<Journal, JournalError> {
    let mut journal = Journal::open(folder, secrets.clone())?;
    journal.append(Entry::Begin {
        version: journal::VERSION,
        run: id.to_owned(),
        experiment: title.to_owned(),
    })?;
    Ok(journal)
}

/// Starts the relay that the fault is aimed at, and tells where it listens.
async fn own_relay(ad_hoc: &AdHoc, run: &str, observer: &mut dyn Observer) -> Result<Option<Relays>, String> {
    let Some(declared) = &ad_hoc.relay else { return Ok(None) };
    let relays = Relays::start(&ad_hoc.exe, run, std::slice::from_ref(declared)).await?;
    for relay in &relays.carried {
        let text =
            format!("relay {} listens on {} and leads to {}", relay.name, relay.listen, declared.upstream);
        observer.event(0.0, &Event::Note { text });
    }
    Ok(Some(relays))
}

/// How an ad hoc fault ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// At its time, or at the operator's word.
    Whole,
    /// Something failed.
    Failed,
    /// The operator left the rest to the guardian.
    Left,
}

async fn watch_over(
    shared: &Shared,
    injections: &mut JoinSet<InjectionRecord>,
    mut heard: mpsc::UnboundedReceiver<Report>,
    haste: &watch::Sender<Haste>,
    signals: &mut Signals,
    observer: &mut dyn Observer,
) -> (Vec<InjectionRecord>, Ending) {
    let (mut records, mut failed, mut words, mut guarded) = (Vec::new(), false, 0, true);
    let unguarded = shared.guardian.lost();
    tokio::pin!(unguarded);
    let mut tell = |event: &Event| observer.event(shared.clock.now(), event);
    loop {
        tokio::select! {
            biased;
            word = signals.next() => {
                words += 1;
                let doing = match words {
                    1 => "restoring",
                    2 => "restoring at once",
                    _ => "leaving the rest to the guardian",
                };
                tell(&Event::Note { text: format!("{word}: {doing}") });
                if words >= 3 {
                    return (records, Ending::Left);
                }
                haste.send_replace(if words == 1 { Haste::Stop } else { Haste::Now });
            }
            Some(report) = heard.recv() => match report {
                Report::Told(event) => tell(&event),
                // No load has to enter anything.
                Report::Begins(_) => {}
                Report::Failed(why) | Report::NotUndone { why, .. } => {
                    failed = true;
                    tell(&Event::Trouble { text: why });
                    haste.send_replace(Haste::Stop);
                }
            },
            why = &mut unguarded, if guarded => {
                guarded = false;
                failed = true;
                tell(&Event::Aborting { by: "guardian".to_owned(), why: why.to_string() });
                haste.send_replace(Haste::Stop);
            }
            done = injections.join_next() => match done {
                Some(Ok(record)) => records.push(record),
                Some(Err(_)) => failed = true,
                None => break,
            },
        }
    }
    while let Ok(Report::Told(event)) = heard.try_recv() {
        tell(&event);
    }
    (records, if failed { Ending::Failed } else { Ending::Whole })
}

fn code(records: &[InjectionRecord], failed: bool) -> u8 {
    let restored = |record: &InjectionRecord| matches!(record.undo.as_str(), "restored" | "not-needed");
    if !records.iter().all(restored) {
        exit::NOT_RESTORED
    } else if failed && records.iter().all(|record| record.applied_s.is_none() && record.undo == "not-needed")
    {
        exit::REFUSED
    } else if failed {
        exit::ABORTED
    } else if records.iter().all(|record| record.proof.status == "confirmed") {
        exit::HELD
    } else {
        exit::INCONCLUSIVE
    }
}

/// The injections of the ad hoc fault: those of a plan with a single step.
fn resolve(ad_hoc: &AdHoc, standing: bool) -> Result<Vec<PlannedInjection>, Refused> {
    let topology = standing.then(topology::of_lab);
    let aimed_at_lab =
        matches!(ad_hoc.selector, Selector::Service { .. } | Selector::Instance(_) | Selector::Around { .. })
            || matches!(&ad_hoc.selector, Selector::Exactly(injectors::Target::Pop(_)));
    if aimed_at_lab && topology.is_none() {
        let text = "refused: no lab stands in which to look for it; start one: squall lab up".to_owned();
        return Err((exit::REFUSED, text));
    }
    let step = Step {
        at: Duration::ZERO,
        length: ad_hoc.length,
        faults: vec![FaultUse {
            injector: ad_hoc.injector,
            args: ad_hoc.args.clone(),
            whole: true,
            selector: ad_hoc.selector.clone(),
            node: 0,
            target_node: 0,
        }],
    };
    let mut experiment = Experiment::ad_hoc(step, topology);
    experiment.relays.extend(ad_hoc.relay.clone());
    let resolved = plan::resolve(&experiment, ad_hoc.seed);
    resolved.map(|plan| plan.injections).map_err(|mistakes| {
        let texts: Vec<String> = mistakes
            .into_iter()
            .map(|mistake| match mistake.help {
                Some(help) => format!("{}; {help}", mistake.message),
                None => mistake.message,
            })
            .collect();
        (exit::INVALID, texts.join("\nsquall: "))
    })
}
