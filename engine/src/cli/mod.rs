//! The command line: verbs, options, and nothing else. stdout is the result, stderr the story.

mod capacity;
mod check;
mod doctor;
mod faults;
mod forget;
mod hands;
mod idle;
mod inject;
mod lab;
mod load;
mod out;
mod plan;
mod rate;
mod recover;
mod report;
mod run;
mod schema;
mod sending;
mod source;
mod view;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::run::Store;
use crate::slo::exit;

pub use out::Out;

/// Chaos engineering and load testing that proves what it did and puts everything back.
///
/// squall breaks one thing on purpose, under load, and says whether users would have noticed.
#[derive(Debug, Parser)]
#[command(
    name = "squall",
    version,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true
)]
#[command(after_help = EXITS)]
struct App {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    verb: Verb,
}

const EXITS: &str = "\
Exit codes:
   0  the hypothesis held                      4  aborted by a guard or the operator; restored
   1  it was missed                            5  restoration incomplete: squall recover
   2  invalid input; nothing was touched       6  inconclusive
   3  refused before the start                70  a bug of ours";

/// Options of every verb.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Options of every verb")]
pub struct Global {
    /// Print one JSON document instead of text; what is told on the way becomes JSON lines on stderr
    #[arg(long, global = true)]
    pub json: bool,
    /// Tell nothing on the way; print only the result
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// Write the result to a file instead of printing it
    #[arg(long, short, global = true, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Folder in which runs are kept [default: $SQUALL_RUNS, else $XDG_STATE_HOME/squall/runs]
    #[arg(long, global = true, value_name = "DIR")]
    pub runs: Option<PathBuf>,
}

impl Global {
    /// Where runs are kept.
    pub fn store(&self) -> Store {
        Store::find(self.runs.clone())
    }
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run an experiment: load, break, judge, restore, report
    Run(run::RunArgs),
    /// Show what a run would do, without touching anything
    Plan(plan::PlanArgs),
    /// Check experiments and list every mistake in them
    Check(check::CheckArgs),
    /// Make one fault, hold it for a time or until ^C, and put it back
    Inject(inject::InjectArgs),
    /// Send one load by itself, and say how it was answered
    Load(load::LoadArgs),
    /// Find out how much a target carries, with a confidence interval
    Capacity(capacity::CapacityArgs),
    /// Change the rate of a load while it is being sent
    Rate(rate::RateArgs),
    /// Send parts of other machines' loads, as they say
    Worker(hands::WorkerArgs),
    /// Put back what an earlier run has left changed
    Recover(recover::RecoverArgs),
    /// Show a finished run again
    Report(report::ReportArgs),
    /// List the faults, or show one of them
    Faults(faults::FaultsArgs),
    /// Print the JSON Schema of experiments or of run records
    Schema(schema::SchemaArgs),
    /// Say what squall can and cannot do on this host, and why
    Doctor,
    /// The built-in lab: a miniature edge platform on loopback
    Lab(lab::LabArgs),
}

/// Hidden verbs: the processes that squall starts for itself.
fn hidden(args: &[OsString]) -> Option<u8> {
    let verb = args.get(1)?.to_str()?;
    let rest = || args.iter().skip(2).map(|arg| arg.to_string_lossy().into_owned()).collect::<Vec<String>>();
    let ok = |ended: bool| if ended { 0 } else { exit::BUG };
    match verb {
        "__guardian" => Some(ok(out::guardian())),
        injectors::stress::VERB => Some(ok(injectors::stress::main_blocking(&rest()))),
        "__relay" => Some(ok(injectors::relay::main_blocking().is_ok())),
        crate::load::remote::VERB => Some(ok(crate::load::remote::child(&rest()))),
        injectors::resolver::VERB => Some(ok(injectors::resolver::main_blocking(&rest()))),
        verb => {
            let kind = crate::lab::Kind::of(verb)?;
            let code = crate::lab::main(kind, &rest());
            Some(ok(code == std::process::ExitCode::SUCCESS))
        }
    }
}

/// The whole command line, with one subcommand per fault below `inject`.
pub fn command() -> clap::Command {
    App::command()
        .mut_subcommand("inject", inject::with_faults)
        .mut_subcommand("capacity", capacity::with_target)
}

/// Reads the command line, does what it says, and returns the exit code.
pub fn main(args: &[OsString]) -> u8 {
    if let Some(code) = hidden(args) {
        return code;
    }
    let parsed = command().try_get_matches_from(args).and_then(|matches| {
        let app = App::from_arg_matches(&matches)?;
        Ok((app, matches))
    });
    match parsed {
        Ok((app, matches)) => dispatch(app, &matches),
        Err(error) if error.use_stderr() && wants_json(args) => {
            let global = Global { json: true, ..Global::default() };
            Out::new(&global).fail(exit::INVALID, &usage(&error))
        }
        Err(error) => {
            // Help and version are no errors and go to stdout.
            let _ = error.print();
            if error.use_stderr() { exit::INVALID } else { exit::HELD }
        }
    }
}

/// Whether a command line that cannot be read asks for a document.
fn wants_json(args: &[OsString]) -> bool {
    args.iter().skip(1).take_while(|arg| *arg != "--").any(|arg| arg == "--json")
}

/// What is wrong with a command line, in one line.
fn usage(error: &clap::Error) -> String {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return "something is missing on the command line; try --help".to_owned();
    }
    let text = error.render().to_string();
    let lines = text.lines().map(str::trim).take_while(|line| !line.starts_with("Usage:"));
    let lines: Vec<&str> =
        lines.filter(|line| !line.is_empty() && !line.starts_with("For more information")).collect();
    let text = lines.join(" ").replace(" tip: ", "; tip: ");
    text.strip_prefix("error: ").unwrap_or(&text).to_owned()
}

fn dispatch(app: App, matches: &ArgMatches) -> u8 {
    let global = app.global;
    let mut out = Out::new(&global);
    let code = match app.verb {
        Verb::Run(args) => run::run(&global, &args, &mut out),
        Verb::Plan(args) => plan::plan(&args, &mut out),
        Verb::Check(args) => check::check(&args, &mut out),
        Verb::Inject(args) => {
            let own = matches.subcommand_matches("inject").and_then(ArgMatches::subcommand);
            inject::inject(&global, &args, own, &mut out)
        }
        Verb::Load(args) => load::load(&global, &args, &mut out),
        Verb::Capacity(args) => {
            capacity::capacity(&global, &args, matches.subcommand_matches("capacity"), &mut out)
        }
        Verb::Rate(args) => rate::rate(&global, &args, &mut out),
        Verb::Worker(args) => hands::worker(&args, &mut out),
        Verb::Recover(args) => recover::recover(&global, &args, &mut out),
        Verb::Report(args) => report::report(&global, &args, &mut out),
        Verb::Faults(args) => faults::faults(&args, &mut out),
        Verb::Schema(args) => schema::schema(&args, &mut out),
        Verb::Doctor => doctor::doctor(&global, &mut out),
        Verb::Lab(args) => lab::lab(&args, &mut out),
    };
    out.finish(code)
}
