//! `squall run`.

use std::path::{Path, PathBuf};

use clap::Args;
use reports::{Format, RunRecord, render};
use serde_json::json;

use super::Global;
use super::hands::HandArgs;
use super::out::{self, Out};
use super::source::{self, Loaded, SourceArgs};
use super::view::View;
use crate::load;
use crate::load::remote::Hands;
use crate::run::{self, CrashPoint, Finished, Options, Signals, store};
use crate::slo::exit;

/// What is run.
#[derive(Debug, Args)]
pub(super) struct RunArgs {
    #[command(flatten)]
    source: SourceArgs,
    #[command(flatten)]
    hands: HandArgs,
    /// Also write the JUnit XML here
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Also write the Markdown summary here
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    #[arg(long, hide = true, value_name = "STEP:HOW")]
    crash_at: Option<CrashPoint>,
}

pub(super) fn run(global: &Global, args: &RunArgs, out: &mut Out) -> u8 {
    let seed = args.source.seed.unwrap_or_else(source::fresh_seed);
    let loaded = match source::load(&args.source.file, &args.source.set, seed) {
        Ok(loaded) => loaded,
        Err(mistakes) => return super::plan::invalid(out, &mistakes),
    };
    let files = [
        ("--junit", args.junit.as_ref()),
        ("--markdown", args.markdown.as_ref()),
        ("--output", global.output.as_ref()),
    ];
    if let Err(why) = out::apart(&files) {
        return out.fail(exit::INVALID, &why);
    }
    // Where nothing can be written must be known before anything is broken.
    let asked = [&args.junit, &args.markdown, &global.output].into_iter().flatten();
    if let Some(error) = asked.into_iter().find_map(|path| store::writable(path).err()) {
        return out
            .fail(exit::INVALID, &format!("the report cannot be written: {error}; nothing was touched"));
    }
    let Ok(exe) = std::env::current_exe() else {
        return out.fail(exit::BUG, "this system does not tell squall its own path");
    };
    let runtime = match out::runtime() {
        Ok(runtime) => runtime,
        Err(error) => return out.no_queue(&error),
    };
    let hands = args.hands.hands().and_then(|hands| load::suits(&loaded.experiment, &hands).map(|()| hands));
    let hands = match hands {
        Ok(hands) => hands,
        Err(why) => return out.fail(exit::INVALID, &why),
    };
    let options = options(global, args, hands, &loaded, exe, seed);
    let mut view = View::new(out.quiet, out.json, loaded.experiment.secrets.clone());
    out.begins();
    let finished = runtime.block_on(async {
        let signals = Signals::standard().map_err(|error| run::Refusal::Preflight(error.to_string()))?;
        run::run(&loaded.experiment, loaded.plan, options, signals, &mut view).await
    });
    drop(view);
    match finished {
        Ok(finished) => deliver(args, &finished, out),
        Err(refusal) => {
            let said = loaded.experiment.secrets.hide(&refusal.to_string());
            out.fail(exit::REFUSED, &format!("refused: {said}"))
        }
    }
}

fn options(
    global: &Global,
    args: &RunArgs,
    hands: Hands,
    loaded: &Loaded,
    exe: PathBuf,
    seed: u64,
) -> Options {
    let file = args.source.file.display().to_string();
    // Values of --set may be secret: the command names them without.
    let set: String = args.source.set.iter().map(|(name, _)| format!(" --set {name}=…")).collect();
    Options {
        store: global.store(),
        exe,
        reproduce: format!("squall run {file} --seed {seed}{set}{}", args.hands.again()),
        file,
        text: loaded.text.clone(),
        crash: args.crash_at,
        hands,
    }
}

/// Writes record and reports, prints the summary, and returns the exit code.
fn deliver(args: &RunArgs, finished: &Finished, out: &mut Out) -> u8 {
    let record = &finished.record;
    let html = finished.folder.join(store::REPORT);
    let mut wanted = vec![(finished.folder.join(store::RECORD), Format::Json), (html.clone(), Format::Html)];
    wanted.extend(args.junit.clone().map(|path| (path, Format::Junit)));
    wanted.extend(args.markdown.clone().map(|path| (path, Format::Markdown)));
    let mut lost = Vec::new();
    // Somebody may have removed it meanwhile. If it cannot be made, writing fails and says so.
    let _ = store::private_folder(&finished.folder);
    for (path, format) in wanted {
        if let Err(error) = write(record, format, &path) {
            out.warn(&format!("squall: failed to write {}: {error}", path.display()));
            lost.push(path);
        }
    }
    let code = match record.judgement.exit {
        // Nobody could judge it again, or whoever asked for a report waits for it in vain.
        exit::HELD if !lost.is_empty() => exit::INCONCLUSIVE,
        code => code,
    };
    let report = (!lost.contains(&html)).then_some(html);
    if out.json {
        out.document(&summary(finished, code, report.as_deref(), &lost));
    } else {
        let text = render(record, Format::Terminal, out.colour());
        out.result(&text.unwrap_or_else(|error| error.to_string().into_bytes()));
    }
    if let Some(report) = report {
        out.tell(&format!("report: {}", report.display()));
    }
    if code != record.judgement.exit {
        out.warn("squall: it held, but not everything could be written: that counts as inconclusive");
    }
    if code == exit::NOT_RESTORED {
        out.warn(&format!("squall: restore what is left: squall recover --run {}", record.run));
    }
    code
}

fn write(record: &RunRecord, format: Format, path: &Path) -> Result<(), String> {
    let bytes = render(record, format, false).map_err(|error| error.to_string())?;
    store::write(path, &bytes).map_err(|error| error.to_string())
}

fn summary(finished: &Finished, code: u8, report: Option<&Path>, lost: &[PathBuf]) -> serde_json::Value {
    let record = &finished.record;
    json!({
        "ok": code == exit::HELD,
        "run": record.run,
        "experiment": record.experiment.name,
        "seed": record.seed,
        "folder": finished.folder,
        "report": report,
        "not_written": lost,
        "exit": code,
        "judgement": record.judgement,
        "injections": record.injections,
        "generator": record.generator,
        "restoration": record.restoration,
    })
}
