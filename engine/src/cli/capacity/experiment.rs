//! `squall capacity EXPERIMENT`: what carries the experiment's own load, in its own world, with each of its faults.

use std::path::Path;

use reports::record::{Objective, Sli};

use super::document::Document;
use super::find::{How, Job, Plan, Under, find};
use super::{CapacityArgs, any, repeatable};
use crate::cli::Global;
use crate::cli::load::refusal;
use crate::cli::out::{self, Out};
use crate::cli::source::{self, Loaded};
use crate::experiment::{Experiment, Load, objective};
use crate::load::remote::{self, Team};
use crate::load::{self, Work};
use crate::plan::{self, Case, clause, one_of};
use crate::run::{Refusal, Scene, Signals};
use crate::slo::exit;
use crate::trial::Wanted;

pub(super) fn capacity(global: &Global, args: &CapacityArgs, out: &mut Out) -> u8 {
    let seed = args.sending.seed.unwrap_or_else(source::fresh_seed);
    let loaded = match source::load(Path::new(&args.sending.url), &args.experiment.set, seed) {
        Ok(loaded) => loaded,
        Err(mistakes) => return super::super::plan::invalid(out, &mistakes),
    };
    let Loaded { experiment, .. } = &loaded;
    let hidden = |why: &str| experiment.secrets.hide(why);
    let asked = match Asking::new(args, &loaded, seed) {
        Ok(asked) => asked,
        Err(why) => return out.fail(exit::INVALID, &hidden(&why)),
    };
    let hands = args.hands.hands().and_then(|hands| load::suits(experiment, &hands).map(|()| hands));
    let hands = match hands {
        Ok(hands) => hands,
        Err(why) => return out.fail(exit::INVALID, &hidden(&why)),
    };
    let Ok(exe) = std::env::current_exe() else {
        return out.fail(exit::BUG, "this system does not tell squall its own path");
    };
    let runtime = match out::runtime() {
        Ok(runtime) => runtime,
        Err(error) => return out.no_queue(&error),
    };
    let refused = |error: Refusal| (exit::REFUSED, format!("refused: {error}"));
    out.begins();
    let found = runtime.block_on(async {
        let mut signals = Signals::standard().map_err(|error| (exit::REFUSED, error.to_string()))?;
        let team = remote::hire(&hands).await.map_err(|error| refusal(&error))?;
        let scene = Scene::start(experiment, global.store(), exe).await.map_err(refused)?;
        let found = match scene.preflight(asked.cases.iter().flat_map(|case| &case.injections)).await {
            Err(error) => Err(refused(error)),
            Ok(()) => match asked.job(args, experiment, &scene, (team, seed)) {
                Ok(job) => find(&args.searching, job, Some(&scene), &mut signals, out).await,
                Err(why) => Err((exit::INVALID, why)),
            },
        };
        scene.end().await;
        found
    });
    match found.map(|document| without_secrets(document, experiment)) {
        Ok(document) => document.deliver(out),
        Err((code, why)) => out.fail(code, &hidden(&why)),
    }
}

/// The document with every value from the environment replaced by its name.
fn without_secrets(document: Document, experiment: &Experiment) -> Document {
    experiment.secrets.each().fold(document, |document, secret| {
        let mut value = serde_json::to_value(&document).expect("documents are plain maps with text keys");
        secret.hide_in(&mut value);
        // What no longer reads as one held a word of the format: everybody knows that.
        serde_json::from_value(value).unwrap_or(document)
    })
}

/// What an experiment comes to, before anything stands.
struct Asking<'e> {
    load: &'e Load,
    /// Which of the experiment's loads it is.
    at: usize,
    objectives: Vec<Objective>,
    cases: Vec<Case>,
    notes: Vec<String>,
    words: String,
}

impl<'e> Asking<'e> {
    /// # Errors
    /// What cannot be searched, in words.
    fn new(args: &CapacityArgs, loaded: &'e Loaded, seed: u64) -> Result<Self, String> {
        let Loaded { experiment, plan, text } = loaded;
        if !args.searching.under.is_empty() {
            return Err("--under is for a URL: an experiment has its faults in its timeline".to_owned());
        }
        let (at, load) = load_of(experiment, args.experiment.load.as_deref())?;
        let (objectives, mut notes) = objectives(args, experiment, &load.name)?;
        let others: Vec<&str> =
            experiment.load.iter().map(|load| load.name.as_str()).filter(|name| *name != load.name).collect();
        if !others.is_empty() {
            notes.push(format!("only {} was sent, not {}", load.name, others.join(", ")));
        }
        let mut cases =
            if args.experiment.no_timeline { Vec::new() } else { plan::faults(plan, &args.experiment.only)? };
        for kind in &args.experiment.n_1 {
            let (more, left_out) =
                plan::losses(experiment, *kind, &load.name, seed).map_err(|why| format!("--n-1: {why}"))?;
            cases.extend(more);
            notes.extend(left_out);
        }
        // Wrong limits are told before anything is started.
        args.searching.goal(&objectives, Some(load.arrivals.peak()))?;
        let clauses: String =
            objectives.iter().map(|one| format!(" --objective '{}'", clause(one))).collect();
        // An experiment that was changed is another one; so is one with other variables, whose values are not told.
        let set: String = args.experiment.set.iter().map(|(name, _)| format!(" --set {name}=…")).collect();
        let words = format!(
            "{} ({:016x}) --load {}{set}{clauses}{}",
            args.sending.url,
            digest(text),
            load.name,
            args.hands.again()
        );
        Ok(Self { load, at, objectives, cases, notes, words })
    }

    /// The same where the world stands.
    fn job(
        self,
        args: &CapacityArgs,
        experiment: &Experiment,
        scene: &Scene,
        (team, seed): (Team, u64),
    ) -> Result<Job, String> {
        let demand = self.load.arrivals.peak();
        let mut goal = args.searching.goal(&self.objectives, Some(demand))?;
        // Too much on purpose is what guards are against.
        goal.collapse &= experiment.guards.is_empty();
        let trials = args.searching.earlier(&self.words)?;
        let work = load::specs(experiment, &scene.late()).into_iter().nth(self.at);
        let Some(Work::Open(mut spec)) = work else {
            return Err(format!("load {} is a journey", self.load.name));
        };
        repeatable(&spec)?;
        spec.profile = any(&goal)?;
        let guards: Vec<_> =
            experiment.guards.iter().filter(|guard| guard.journey == self.load.name).cloned().collect();
        let plan = Plan {
            spec,
            team,
            objectives: self.objectives,
            guards,
            seed,
            probe: args.sending.probes(),
            per_thread: None,
        };
        let secrets = experiment.secrets.clone();
        let cases = self.cases.into_iter().map(|case| Case { what: secrets.hide(&case.what), ..case });
        let mut job = Job::new(self.words, plan, (goal, trials), cases.map(under).collect());
        job.secrets = secrets;
        job.demand = Some(demand);
        job.patience = job.patience.max(experiment.recover_within);
        job.notes = self.notes;
        Ok(job)
    }
}

/// A case as the searches take it.
fn under(case: Case) -> Under {
    let grown = case.injections.iter().map(|one| one.injector.grows(&one.args)).max().unwrap_or_default();
    let wanted = Wanted { injections: case.injections.len(), grown };
    Under { what: case.what, kind: case.kind, left: case.left, wanted, how: How::Here(case.injections) }
}

/// The load that is searched for, and which of all it is.
fn load_of<'e>(experiment: &'e Experiment, wanted: Option<&str>) -> Result<(usize, &'e Load), String> {
    let open: Vec<&str> =
        experiment.load.iter().filter(|load| load.journey.is_none()).map(|load| load.name.as_str()).collect();
    let journey = |load: &&Load| Some(load.name.as_str()) == wanted && load.journey.is_some();
    if let Some(load) = experiment.load.iter().find(journey) {
        return Err(format!(
            "{} is a journey: a search needs requests that arrive at a rate of their own (`open`), since what is late in a \
             journey holds back its next steps, and so the load",
            load.name
        ));
    }
    let name = one_of(&open, wanted)?;
    let (at, load) = experiment
        .load
        .iter()
        .enumerate()
        .find(|(_, load)| load.name == name)
        .ok_or("there is no such load")?;
    if load.replay.is_some() {
        return Err(format!(
            "{name} is a log that is sent again: it brings its own times, and a search sets the rate"
        ));
    }
    Ok((at, load))
}

/// What must hold for the load, and what was left out of it.
fn objectives(
    args: &CapacityArgs,
    experiment: &Experiment,
    load: &str,
) -> Result<(Vec<Objective>, Vec<String>), String> {
    let given = args.sending.clauses();
    if !given.is_empty() {
        let read = |text: &String| objective(load, text).map_err(|error| format!("--objective: {error}"));
        return Ok((given.iter().map(read).collect::<Result<_, _>>()?, Vec::new()));
    }
    let own = experiment.objectives.iter().filter(|objective| objective.journey == load).cloned();
    let (own, left_out): (Vec<Objective>, Vec<Objective>) =
        own.partition(|objective| !matches!(objective.sli, Sli::Throughput));
    if own.is_empty() {
        return Err(format!(
            "{load} has no objective that could break: say what must hold, such as --objective 'p99 <= 100ms'"
        ));
    }
    let words = |one: &Objective| format!("{} was not asked for: a search sets the rate itself", clause(one));
    Ok((own, left_out.iter().map(words).collect()))
}

/// A text in 64 bits (FNV-1a), to tell whether it is the same.
fn digest(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_tells_texts_apart() {
        // From the description of FNV.
        assert_eq!((digest(""), digest("a")), (0xcbf2_9ce4_8422_2325, 0xaf63_dc4c_8601_ec8c));
    }
}
