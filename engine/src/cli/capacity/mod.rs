//! `squall capacity`: how much a target carries, alone and with something broken.

mod document;
mod experiment;
mod find;
mod row;
mod searching;
mod table;

use std::time::Duration;

use clap::{ArgMatches, Args};

use super::Global;
use super::hands::HandArgs;
use super::idle::{self, draws};
use super::inject::written;
use super::load::refusal;
use super::out::{self, Out};
use super::sending::SendingArgs;
use super::source::{self, pair};
use crate::capacity::Goal;
use crate::feed::Order;
use crate::load::LoadSpec;
use crate::load::remote::{self, Team};
use crate::plan::CaseKind;
use crate::run::{Signals, store};
use crate::schedule::{Profile, Segment};
use crate::slo::exit;
use crate::trial::Wanted;

use find::{How, Job, Plan, Under, find};
pub(super) use searching::SearchingArgs;

/// What is searched, and within which limits.
#[derive(Debug, Args)]
pub(super) struct CapacityArgs {
    #[command(flatten)]
    sending: SendingArgs,
    #[command(flatten)]
    hands: HandArgs,
    #[command(flatten)]
    searching: SearchingArgs,
    #[command(flatten)]
    experiment: ExperimentArgs,
}

/// What is taken from an experiment.
#[derive(Debug, Args)]
struct ExperimentArgs {
    /// Which of its loads is searched for
    #[arg(long, value_name = "NAME", help_heading = "An experiment instead of a URL")]
    load: Option<String>,
    /// Only this fault of its timeline, by name or by number (in order of time, from 1); may be given several times
    #[arg(long, value_name = "FAULT", help_heading = "An experiment instead of a URL")]
    only: Vec<String>,
    /// No fault of its timeline
    #[arg(long, conflicts_with = "only", help_heading = "An experiment instead of a URL")]
    no_timeline: bool,
    /// Search with each instance, zone or pop of its lab or topology down in turn; may be given several times
    #[arg(long = "n-1", value_name = "WHAT", value_parser = loss, help_heading = "An experiment instead of a URL")]
    n_1: Vec<CaseKind>,
    /// Set a variable of it: what stands for ${NAME}; may be given several times
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair, help_heading = "An experiment instead of a URL")]
    set: Vec<(String, String)>,
}

fn loss(word: &str) -> Result<CaseKind, String> {
    let known = CaseKind::LOSSES.iter().find(|(known, _)| *known == word);
    known.map(|(_, kind)| *kind).ok_or_else(|| "there are instance, zone and pop".to_owned())
}

/// What the help says of a target that is not only a URL.
pub(super) fn with_target(command: clap::Command) -> clap::Command {
    command.mut_arg("url", |target| {
        let url = target.get_help().map(ToString::to_string).unwrap_or_default();
        target.value_name("TARGET").help(format!(
            "A URL, or the file of an experiment: its lab, relays and load, each fault of its timeline, and what --n-1 says.\n\
             Of a URL, {}",
            url.strip_prefix("What").map_or(url.clone(), |rest| format!("what{rest}"))
        ))
    })
}

pub(super) fn capacity(global: &Global, args: &CapacityArgs, own: Option<&ArgMatches>, out: &mut Out) -> u8 {
    let given = own.map(idle::given).unwrap_or_default();
    let of_experiment = ["load", "only", "no_timeline", "n_1", "set"];
    if !args.sending.url.contains("://") {
        let strays: Vec<&str> = given.iter().map(String::as_str).filter(|id| idle::is_sending(id)).collect();
        return match idle::options(&strays).as_str() {
            "" => experiment::capacity(global, args, out),
            words => out.fail(
                exit::INVALID,
                &format!(
                    "`{}` has no scheme such as http://, so it is the file of an experiment, which says how it is loaded: \
                     leave out {words}",
                    args.sending.url
                ),
            ),
        };
    }
    let strays: Vec<&str> =
        given.iter().map(String::as_str).filter(|id| of_experiment.contains(id)).collect();
    if !strays.is_empty() {
        let words = idle::options(&strays);
        return out
            .fail(exit::INVALID, &format!("{words}: only an experiment has such things, and this is a URL"));
    }
    searched(global, &args.sending, &args.hands, &args.searching, out)
}

/// Searches what is behind a URL, and says what was found.
pub(super) fn searched(
    global: &Global,
    sending: &SendingArgs,
    hands: &HandArgs,
    args: &SearchingArgs,
    out: &mut Out,
) -> u8 {
    let seed = sending.seed.unwrap_or_else(source::fresh_seed);
    let asked = format!("{}{}", sending.again(), hands.again());
    let ready = sending.objectives().and_then(|objectives| {
        let goal = args.goal(&objectives, None)?;
        let spec = sending.spec(any(&goal)?)?;
        repeatable(&spec)?;
        let trials = args.earlier(&asked)?;
        // A fault that cannot be read must be known before a long search.
        let under: Result<Vec<Under>, String> =
            args.under.iter().map(|text| by_hand(global, text, &goal)).collect();
        let plan = Plan {
            spec,
            team: Team::default(),
            objectives,
            guards: Vec::new(),
            seed,
            probe: sending.probes(),
            per_thread: None,
        };
        Ok((Job::new(asked, plan, (goal, trials), under?), hands.hands()?))
    });
    let (mut job, hands) = match ready {
        Ok(ready) => ready,
        Err(why) => return out.fail(exit::INVALID, &why),
    };
    if let Some(error) = global.output.as_ref().and_then(|path| store::writable(path).err()) {
        return out.fail(exit::INVALID, &format!("the result cannot be written: {error}; nothing was sent"));
    }
    let runtime = match out::runtime() {
        Ok(runtime) => runtime,
        Err(error) => return out.no_queue(&error),
    };
    out.begins();
    let document = runtime.block_on(async {
        let mut signals = Signals::standard().map_err(|error| (exit::REFUSED, error.to_string()))?;
        job.plan.team = remote::hire(&hands).await.map_err(|error| refusal(&error))?;
        find(args, job, None, &mut signals, out).await
    });
    match document {
        Ok(document) => document.deliver(out),
        Err((code, why)) => out.fail(code, &why),
    }
}

/// Arrivals in the place of those of the trials.
fn any(goal: &Goal) -> Result<Profile, String> {
    let hold = Segment::Hold { rate: goal.start, lasting: Duration::from_secs_f64(goal.trial_s) };
    Profile::new(vec![hold]).map_err(|error| error.to_string())
}

/// Refuses a load that cannot be sent again and again.
fn repeatable(spec: &LoadSpec) -> Result<(), String> {
    let unique =
        |feed: &&std::sync::Arc<crate::feed::Feed>| feed.order() == Order::Unique && draws(spec, feed.name());
    match spec.feeds.iter().find(unique) {
        Some(feed) => Err(format!(
            "feed {}: a search takes rows again in each trial, so `unique` cannot be kept",
            feed.name()
        )),
        None => Ok(()),
    }
}

/// A fault that was written by hand.
fn by_hand(global: &Global, text: &str, goal: &Goal) -> Result<Under, String> {
    let fault = written(global, text, find::length(goal)).map_err(|why| format!("--under: {why}"))?;
    let wanted = Wanted { injections: 1, grown: fault.injector.grows(&fault.args) };
    Ok(Under {
        what: text.to_owned(),
        kind: CaseKind::Fault,
        left: None,
        wanted,
        how: How::ByHand(Box::new(fault)),
    })
}
