//! The life of one injection: prepare, journal, guardian, apply, prove, undo, prove again.
//!
//! Invariant: the world is only touched between the journal's intent and its outcome, and only while the guardian
//! holds the change.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use injectors::journal::{self, Entry, Journal, JournalError};
use injectors::restore::{by_hand, restore};
use injectors::{Change, Env, Injector, Looks, Proof, ProofStatus, Request, Target, Undone, registry};
use reports::record::{InjectionRecord, ProofRecord};
use tokio::sync::{Mutex, mpsc, oneshot, watch};

use super::claims::{self, Held};
use super::crash::{CrashPoint, CrashStep};
use super::event::Event;
use super::guardian::Guardian;
use super::store::Store;
use crate::clock::Clock;
use crate::plan::PlannedInjection;

/// How long preparing or applying may take.
const STEP_DEADLINE: Duration = Duration::from_secs(30);
/// How often a live injection is renewed and looked at.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// How soon an injection must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Haste {
    /// Not yet allowed to begin.
    Wait,
    /// As planned.
    Planned,
    /// Undo as soon as the step at hand is done.
    Stop,
    /// Undo even in the middle of applying.
    Now,
}

/// What an injection tells the dispatcher.
#[derive(Debug)]
pub(super) enum Report {
    /// Something for the observer.
    Told(Event),
    /// The intent is about to be journalled: the fault phase begins. Told once whoever sends load has entered it.
    Begins(oneshot::Sender<()>),
    /// The fault could not be made or kept: the run must stop.
    Failed(String),
    /// The fault could not be undone: the run must stop.
    NotUndone {
        /// Why not.
        why: String,
        /// How long it was tried, in seconds.
        took_s: f64,
    },
}

/// What all injections of a run share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) env: Env,
    pub(super) journal: Log,
    pub(super) guardian: Guardian,
    pub(super) clock: Clock,
    pub(super) store: Store,
    pub(super) run: String,
    pub(super) crash: Option<CrashPoint>,
    /// Claims of live injections of this run.
    pub(super) claims: Mutex<Vec<String>>,
    pub(super) reports: mpsc::UnboundedSender<Report>,
}

/// The journal, written beside the run's only thread: a slow disk must not keep the guardian waiting for its lease.
#[derive(Debug, Clone)]
pub(super) struct Log(Arc<std::sync::Mutex<Journal>>);

impl Log {
    pub(super) fn new(journal: Journal) -> Self {
        Self(Arc::new(std::sync::Mutex::new(journal)))
    }

    /// Appends an entry; when this returns, the disk has it.
    pub(super) async fn append(&self, entry: Entry) -> Result<(), JournalError> {
        let journal = Arc::clone(&self.0);
        let write = move || {
            let mut journal = journal.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            journal.append(entry)
        };
        tokio::task::spawn_blocking(write).await.expect("writing a journal does not panic")
    }
}

impl Shared {
    fn tell(&self, event: Event) {
        // The dispatcher outlives its injections, except when the run is being torn down.
        let _ = self.reports.send(Report::Told(event));
    }

    fn crash(&self, step: CrashStep) -> Result<(), String> {
        self.crash.map_or(Ok(()), |point| point.reach(step, self.guardian.pid()))
    }

    async fn write(&self, entry: Entry) -> Result<(), JournalError> {
        self.journal.append(entry).await
    }
}

/// Lives one planned injection to its end and tells what became of it.
pub(super) async fn live(
    shared: Arc<Shared>,
    planned: PlannedInjection,
    mut haste: watch::Receiver<Haste>,
) -> InjectionRecord {
    let mut record = blank(&shared.run, &planned);
    let begin = shared.clock.at(planned.at_s);
    // An injection whose turn never comes leaves no trace.
    if wait(&mut haste, begin).await > Haste::Planned {
        "not-needed".clone_into(&mut record.undo);
        record.error = Some("the run ended before its turn".to_owned());
        return record;
    }
    // The claims are held until the undo is over, whatever it comes to.
    let (change, _held) = match prepare(&shared, &planned).await {
        Ok(prepared) => prepared,
        Err(error) => {
            fail(
                &shared,
                &mut record,
                format!("failed to prepare {} on {}: {error}", planned.fault, planned.target),
            );
            "not-needed".clone_into(&mut record.undo);
            return record;
        }
    };
    record.summary.clone_from(&change.summary);
    if matches!(planned.target, Target::Traffic(_)) {
        // By now the interface is found, and has a name.
        record.target.clone_from(&change.target);
    }
    record.manual.clone_from(&change.manual);
    let (go, entered) = oneshot::channel();
    let _ = shared.reports.send(Report::Begins(go));
    // An error means that nobody sends any more.
    tokio::select! {
        _ = entered => {}
        _ = haste.wait_for(|haste| *haste > Haste::Planned) => {}
    }
    if *haste.borrow() > Haste::Planned {
        "not-needed".clone_into(&mut record.undo);
        record.error = Some("the run ended before it was made".to_owned());
        return record;
    }
    record.intended_s = shared.clock.now();
    let applied = apply(&shared, &change, &mut haste).await;
    match applied {
        Ok(()) => {
            record.applied_s = Some(shared.clock.now());
            shared.tell(Event::Injected { id: change.id.clone(), summary: change.summary.clone() });
            hold(&shared, &planned, &change, &mut record, &mut haste).await;
        }
        Err(error) => fail(&shared, &mut record, format!("failed to {}: {error}", change.summary)),
    }
    take_back(&shared, &change, &mut record).await;
    record
}

fn blank(run: &str, planned: &PlannedInjection) -> InjectionRecord {
    InjectionRecord {
        id: format!("{run}/{}", planned.number),
        fault: planned.fault.clone(),
        target: planned.target.to_string(),
        service: planned.service.clone(),
        instance: match &planned.target {
            Target::Traffic(traffic) => traffic.instance.clone(),
            _ => None,
        },
        meets: Vec::new(),
        effect: format!("{:?}", planned.effect).to_lowercase(),
        parameters: planned.args.line(),
        summary: planned.does.clone(),
        intended_s: planned.at_s,
        applied_s: None,
        undone_s: None,
        proof: ProofRecord {
            status: "unproven".to_owned(),
            requested: if planned.args.0.is_empty() { planned.does.clone() } else { planned.args.line() },
            measured: "it was never live".to_owned(),
            tolerance: String::new(),
            samples: 0,
        },
        undo: String::new(),
        error: None,
        manual: String::new(),
    }
}

fn fail(shared: &Shared, record: &mut InjectionRecord, error: String) {
    let _ = shared.reports.send(Report::Failed(error.clone()));
    record.error.get_or_insert(error);
}

/// Waits for a time or for haste; tells the haste at the end.
async fn wait(haste: &mut watch::Receiver<Haste>, until: tokio::time::Instant) -> Haste {
    let timer = tokio::time::sleep_until(until);
    tokio::select! {
        () = timer => {}
        _ = haste.wait_for(|haste| *haste > Haste::Planned) => {}
    }
    // After the time has come, the gate may still be closed: the baseline is being judged.
    match haste.wait_for(|haste| *haste != Haste::Wait).await {
        Ok(haste) => *haste,
        Err(_) => Haste::Now,
    }
}

/// Whether every one of these faults could be made now: prepares each, and throws the change away. Only reads.
///
/// # Errors
/// Every fault that could not, one to a line.
pub(super) async fn preflight(
    env: &Env,
    run: &str,
    injections: impl IntoIterator<Item = &PlannedInjection>,
) -> Result<(), String> {
    let mut lacks = Vec::new();
    for planned in injections {
        let request = request(run, planned);
        let prepared = match limited(planned.injector.prepare(env, &request)).await {
            // Free again at once: whether they are free now is all that can be known.
            Ok(change) => claims::take(&change).await.map(drop),
            Err(error) => Err(error),
        };
        if let Err(error) = prepared {
            lacks.push(format!("{} on {} cannot be made here: {error}", planned.fault, planned.target));
        }
    }
    if lacks.is_empty() { Ok(()) } else { Err(lacks.join("\n")) }
}

fn request(run: &str, planned: &PlannedInjection) -> Request {
    Request {
        id: format!("{run}/{}", planned.number),
        args: planned.args.clone(),
        target: planned.target.clone(),
        seed: planned.seed,
    }
}

async fn prepare(shared: &Shared, planned: &PlannedInjection) -> Result<(Change, Held), String> {
    let request = request(&shared.run, planned);
    let change = limited(planned.injector.prepare(&shared.env, &request)).await?;
    let others = shared.store.live_changes();
    let foreign =
        others.iter().filter(|other| !other.id.starts_with(&shared.run)).flat_map(|other| &other.claims);
    if let Some(claim) = foreign.into_iter().find(|claim| change.claims.contains(claim)) {
        return Err(format!("another run holds {}", claims::words(claim)));
    }
    let mut own = shared.claims.lock().await;
    if let Some(claim) = change.claims.iter().find(|claim| own.contains(claim)) {
        return Err(format!("another injection of this run holds {}", claims::words(claim)));
    }
    let held = claims::take(&change).await?;
    own.extend(change.claims.iter().cloned());
    drop(own);
    shared.crash(CrashStep::Prepared)?;
    Ok((change, held))
}

/// Whose change it is: where another fault serves in place of the one that was planned, that one.
fn maker(change: &Change) -> &'static dyn Injector {
    registry::find(&change.fault).expect("a change names a fault of the registry")
}

async fn apply(shared: &Shared, change: &Change, haste: &mut watch::Receiver<Haste>) -> Result<(), String> {
    shared.write(Entry::Intend(change.clone())).await.map_err(|error| error.to_string())?;
    shared.crash(CrashStep::Intended)?;
    shared.guardian.hold(change).await.map_err(|error| error.to_string())?;
    shared.crash(CrashStep::Held)?;
    tokio::select! {
        applied = limited(maker(change).apply(&shared.env, change)) => applied?,
        _ = haste.wait_for(|haste| *haste >= Haste::Now) => return Err("stopped in the middle".to_owned()),
    }
    shared.crash(CrashStep::Applied)?;
    shared.write(Entry::Applied { id: change.id.clone() }).await.map_err(|error| error.to_string())?;
    shared.crash(CrashStep::Journalled)
}

async fn limited<T>(step: injectors::Pending<'_, Result<T, injectors::InjectError>>) -> Result<T, String> {
    match tokio::time::timeout(STEP_DEADLINE, step).await {
        Ok(done) => done.map_err(|error| error.to_string()),
        Err(_) => Err(format!("it took longer than {STEP_DEADLINE:?}")),
    }
}

/// Keeps a live injection until its time is up or somebody is in haste, and gathers its proof.
async fn hold(
    shared: &Shared,
    planned: &PlannedInjection,
    change: &Change,
    record: &mut InjectionRecord,
    haste: &mut watch::Receiver<Haste>,
) {
    let end = shared.clock.at(planned.at_s + planned.for_s);
    let born = tokio::time::Instant::now();
    let mut seen: Option<Proof> = None;
    loop {
        let beat = tokio::time::Instant::now() + HEARTBEAT;
        if wait(haste, beat.min(end)).await > Haste::Planned || tokio::time::Instant::now() >= end {
            break;
        }
        if let Err(error) = limited(maker(change).renew(&shared.env, change, born.elapsed())).await {
            fail(
                shared,
                record,
                format!("{} on {} could not be kept alive: {error}", change.fault, change.target),
            );
            break;
        }
        prove(shared, planned, change, &mut seen).await;
    }
    prove(shared, planned, change, &mut seen).await;
    if let Some(proof) = seen {
        record.proof = ProofRecord {
            status: status_name(proof.status).to_owned(),
            requested: proof.requested,
            measured: proof.measured,
            tolerance: proof.tolerance,
            samples: proof.samples,
        };
    }
}

/// Looks at the effect, and keeps the look or the one before, as [`Looks`] says.
async fn prove(shared: &Shared, planned: &PlannedInjection, change: &Change, seen: &mut Option<Proof>) {
    let maker = maker(change);
    let proof = match limited(maker.observe(&shared.env, change)).await {
        Ok(proof) if change.fault == planned.fault => proof,
        Ok(proof) => Proof { measured: format!("by {}: {}", change.fault, proof.measured), ..proof },
        Err(error) => Proof::unproven(&change.summary, format!("it could not be observed: {error}")),
    };
    let looks = maker.looks();
    let stuck = matches!(looks, Looks::State | Looks::FeltState)
        && seen.as_ref().is_some_and(|seen| seen.status == ProofStatus::Mismatch);
    shared.tell(Event::Proof {
        id: change.id.clone(),
        what: format!("{} on {}", change.fault, change.target),
        status: status_name(proof.status).to_owned(),
        measured: proof.measured.clone(),
    });
    // What others feel is seen while they are at work: a silence at the end takes nothing back.
    let fades = matches!(looks, Looks::Felt | Looks::FeltState)
        && proof.status == ProofStatus::Unproven
        && seen.is_some();
    if !stuck && !fades {
        *seen = Some(proof);
    }
}

fn status_name(status: ProofStatus) -> &'static str {
    match status {
        ProofStatus::Confirmed => "confirmed",
        ProofStatus::Mismatch => "mismatch",
        ProofStatus::Unproven | ProofStatus::Gone => "unproven",
    }
}

/// Undoes, proves it, and tells journal and guardian. Never skipped once the intent was journalled.
async fn take_back(shared: &Shared, change: &Change, record: &mut InjectionRecord) {
    let by = || "engine".to_owned();
    if let Err(error) = shared.crash(CrashStep::Undoing) {
        record.error.get_or_insert(error);
    }
    let began = shared.clock.now();
    let outcome = restore(&shared.env, change).await;
    shared.claims.lock().await.retain(|claim| !change.claims.contains(claim));
    let crashed = shared.crash(CrashStep::Undone);
    let entry = match (&outcome, crashed) {
        (Ok(outcome), _) => {
            record.undone_s = Some(shared.clock.now());
            if *outcome == Undone::Overdue {
                record.proof.measured += "; it did not come back by itself: squall has started it";
            }
            let stays = matches!(outcome, Undone::Permanent | Undone::Passed);
            let undo = if stays { "not-needed" } else { "restored" };
            undo.clone_into(&mut record.undo);
            let text = format!("{} on {} {}", change.fault, change.target, outcome.words());
            let took_s = shared.clock.now() - began;
            shared.tell(Event::Undone { id: change.id.clone(), took_s, text });
            Entry::Undone { id: change.id.clone(), outcome: *outcome, by: by() }
        }
        (Err(error), _) => {
            let text = format!("failed to restore {} on {}: {error}", change.fault, change.target);
            "failed".clone_into(&mut record.undo);
            record.manual = by_hand(&shared.env, change);
            let took_s = shared.clock.now() - began;
            let _ = shared.reports.send(Report::NotUndone { why: text.clone(), took_s });
            record.error.get_or_insert(text);
            Entry::UndoFailed { id: change.id.clone(), error: error.to_string(), by: by() }
        }
    };
    if let Err(error) = shared.write(entry).await {
        record.error.get_or_insert(error.to_string());
    }
    if let Err(error) = shared.crash(CrashStep::Settled) {
        record.error.get_or_insert(error);
    }
    if outcome.is_ok() && shared.guardian.release(&change.id).await.is_err() {
        // It has ended: the dispatcher hears of that by itself.
        record.error.get_or_insert("the guardian had gone".to_owned());
    }
}

/// What remains of a run when its injections are over.
#[derive(Debug, Default)]
pub(super) struct Settled {
    /// The journal, unless an injection is still under way.
    pub(super) journal: Option<Log>,
    /// The guardian, unless it has taken over.
    pub(super) guardian: Option<Guardian>,
    /// What the guardian has undone.
    pub(super) undone: Vec<Event>,
}

impl Settled {
    /// Ends the journal and the guardian.
    pub(super) async fn end(self, exit: u8) {
        if let Some(journal) = self.journal {
            // An end that the disk does not hold changes nothing: what is left to undo is in the journal.
            let _ = journal.append(Entry::End { exit }).await;
        }
        if let Some(guardian) = self.guardian {
            guardian.end().await;
        }
    }
}

/// Leaves to the guardian what the engine could not undo: it is another process, and the load has ended by now. The
/// records say what it could.
pub(super) async fn settle(shared: Arc<Shared>, folder: &Path, records: &mut [InjectionRecord]) -> Settled {
    let Ok(Shared { journal, guardian, clock, .. }) = Arc::try_unwrap(shared) else {
        return Settled::default();
    };
    if !records.iter().any(|record| record.undo == "failed") {
        return Settled { journal: Some(journal), guardian: Some(guardian), undone: Vec::new() };
    }
    let began = clock.now();
    guardian.take_over().await;
    let story = journal::read(folder).unwrap_or_default();
    let undone = |id: &str| {
        story.lines.iter().any(|line| matches!(&line.entry, Entry::Undone { id: done, .. } if done == id))
    };
    let tell = |record: &mut InjectionRecord| {
        let now = clock.now();
        "restored".clone_into(&mut record.undo);
        record.undone_s = Some(now);
        let text = format!("the guardian has undone {} on {}", record.fault, record.target);
        Event::Undone { id: record.id.clone(), took_s: now - began, text }
    };
    let restored = records.iter_mut().filter(|record| record.undo == "failed" && undone(&record.id));
    Settled { journal: Some(journal), guardian: None, undone: restored.map(tell).collect() }
}

#[cfg(test)]
mod tests {
    use injectors::{Args, Target, registry};

    use super::*;

    #[test]
    fn what_was_never_live_was_requested_by_its_parameters() {
        let injector = registry::find("relay-latency").unwrap();
        let value = injectors::about::Value::Span("50ms".parse().unwrap());
        let planned = PlannedInjection {
            number: 1,
            at_s: 1.0,
            for_s: 1.0,
            fault: "relay-latency".to_owned(),
            target: Target::Relay("r".to_owned()),
            service: None,
            args: Args([("delay".to_owned(), value)].into()),
            seed: 1,
            effect: injector.about().effect,
            does: String::new(),
            undo: String::new(),
            proof: injector.about().proof.to_owned(),
            claims: Vec::new(),
            listed: 1,
            injector,
        };
        let proof = blank("run", &planned).proof;
        assert_eq!((proof.requested, proof.measured), (planned.args.line(), "it was never live".to_owned()));
        assert!(planned.args.line().contains("50ms"));
    }
}
