//! `squall load`: one load by itself.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use injectors::units::{Rate, Span};
use reports::record::{EventRecord, LoadRecord, Verdict};
use reports::sending::{Quantiles, Sending};
use reports::{Latencies, render};

use super::Global;
use super::capacity::{SearchingArgs, searched};
use super::out::{self, Out};
use super::sending::{SendingArgs, rate};
use super::source;
use crate::clock;
use crate::load::{Facts, LoadError, LoadSpec, Tick};
use crate::run::{Signals, store};
use crate::schedule::presets::{PRESETS, Preset};
use crate::schedule::{Profile, Segment};
use crate::slo::exit;
use crate::trial::{self, Asked, Ended, Finished};

/// What is sent, how fast, for how long.
#[derive(Debug, Args)]
pub(super) struct LoadArgs {
    #[command(flatten)]
    sending: SendingArgs,
    /// Find out how much the target carries instead: the search of `squall capacity` with its defaults
    #[arg(long, help_heading = "Arrivals", conflicts_with_all = ["rate", "lasting", "ramp", "profile", "log"])]
    find: bool,
    /// Requests per second, such as 500/s; with --profile, the rate that it is built around
    #[arg(long, value_name = "RATE", value_parser = rate, help_heading = "Arrivals")]
    rate: Option<Rate>,
    /// How long, such as 30s
    #[arg(long = "for", value_name = "TIME", help_heading = "Arrivals")]
    lasting: Option<Span>,
    /// Rise to the rate over so long first; not judged apart
    #[arg(long, value_name = "TIME", help_heading = "Arrivals", conflicts_with = "profile")]
    ramp: Option<Span>,
    /// Arrivals in one word: smoke, soak, stress, spike or breakpoint
    #[arg(long, value_name = "WORD", help_heading = "Arrivals", value_parser = preset)]
    profile: Option<&'static Preset>,
    /// Listen on this socket for `squall rate`, which changes the rate on the way
    #[arg(long, value_name = "PATH", help_heading = "Arrivals", conflicts_with = "find")]
    control: Option<PathBuf>,
    /// Write the latencies of each second as a log that HdrHistogram's tools read
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
}

fn preset(word: &str) -> Result<&'static Preset, String> {
    let names: Vec<&str> = PRESETS.iter().map(|preset| preset.name).collect();
    PRESETS
        .iter()
        .find(|preset| preset.name == word)
        .ok_or_else(|| format!("there is no profile `{word}`; there are {}", names.join(", ")))
}

impl LoadArgs {
    fn arrivals(&self) -> Result<Profile, String> {
        let segments = match (self.profile, self.rate, self.lasting) {
            (Some(preset), rate, lasting) => {
                preset.segments(rate.map(|rate| rate.0), lasting.map(|span| span.0))
            }
            (None, Some(rate), Some(lasting)) => {
                let hold = Segment::Hold { rate: rate.0, lasting: lasting.0 };
                let rise = self.ramp.map(|over| Segment::Ramp { from: 0.0, to: rate.0, over: over.0 });
                rise.into_iter().chain([hold]).collect()
            }
            _ => {
                return Err(
                    "say how fast and for how long, such as --rate 500/s --for 30s, or name a --profile, or let --find \
                     search for what is carried"
                        .to_owned(),
                );
            }
        };
        Profile::new(segments).map_err(|error| error.to_string())
    }
}

pub(super) fn load(global: &Global, args: &LoadArgs, out: &mut Out) -> u8 {
    if args.find {
        return searched(global, &args.sending, &SearchingArgs::default(), out);
    }
    let seed = args.sending.seed.unwrap_or_else(source::fresh_seed);
    let ready =
        args.arrivals().and_then(|arrivals| Ok((args.sending.spec(arrivals)?, args.sending.objectives()?)));
    let (spec, objectives) = match ready {
        Ok(ready) => ready,
        Err(why) => return out.fail(exit::INVALID, &why),
    };
    let Ok(runtime) = out::runtime() else {
        return out.fail(exit::BUG, "this system gives squall no event queue");
    };
    // Where nothing can be written must be known before anything is sent.
    if let Some(error) = args.log.as_ref().and_then(|path| store::writable(path).err()) {
        return out.fail(exit::INVALID, &format!("the log cannot be written: {error}; nothing was sent"));
    }
    let started = clock::unix().as_secs_f64();
    let expected = spec.profile.duration();
    let finished = runtime.block_on(async {
        let mut signals = Signals::standard().map_err(LoadError::Thread)?;
        let told = |tick: &Tick| {
            // After the last arrival, only answers come in.
            if tick.second < expected.as_secs_f64().ceil() as u64 {
                second(out, tick, expected);
            }
            true
        };
        let (probe, control) = (args.sending.probes(), args.control.as_deref());
        let asked = Asked {
            spec: &spec,
            objectives: &objectives,
            seed,
            probe,
            per_thread: None,
            control,
            twice: false,
        };
        trial::run(asked, &mut signals, told).await
    });
    match finished {
        Ok(finished) => {
            let code = deliver(args, seed, &spec, &finished, out);
            match (&args.log, finished.outcome.loads.first()) {
                (Some(path), Some(load)) => written(path, load, started, code, out),
                _ => code,
            }
        }
        Err(error) => out.fail(refused(&error), &error.to_string()),
    }
}

/// Writes the log; the exit code is worse if that fails.
fn written(path: &Path, load: &LoadRecord, started: f64, code: u8, out: &mut Out) -> u8 {
    let log = render::interval_log(load, started).map_err(|error| error.to_string());
    match log.and_then(|log| store::write(path, log.as_bytes()).map_err(|error| error.to_string())) {
        Ok(()) => code,
        Err(error) => {
            out.warn(&format!("squall: failed to write {}: {error}", path.display()));
            if code == exit::HELD { exit::INCONCLUSIVE } else { code }
        }
    }
}

/// Whether the input or this host is to blame for a load that cannot be sent.
pub(super) fn refused(error: &LoadError) -> u8 {
    match error {
        LoadError::Spec { .. } | LoadError::Count | LoadError::Control(_) => exit::INVALID,
        LoadError::Origin { .. } | LoadError::Thread(_) | LoadError::Files { .. } => exit::REFUSED,
    }
}

/// One line for each second.
fn second(out: &mut Out, tick: &Tick, of: Duration) {
    let mut latencies = Latencies::default();
    let (mut ok, mut failed) = (0, 0);
    for phase in tick.loads.iter().flat_map(|load| &load.phases) {
        (ok, failed) = (ok + phase.ok, failed + phase.errors.total());
        latencies.merge(&phase.latencies);
    }
    let time = |q| latencies.quantile(q).map_or_else(|| "–".to_owned(), reports::format::seconds);
    if out.json {
        out.event(&serde_json::json!({
            "event": "second", "end_s": tick.second + 1, "ok": ok, "failed": failed,
            "p50_s": latencies.quantile(0.5), "p99_s": latencies.quantile(0.99), "lag_p99_s": tick.lag_p99_s,
            "cpu": tick.cpu, "connections": tick.connections,
        }));
    } else {
        out.tell(&format!(
            "{:>4} of {:.0} s   good {ok}/s   failed {failed}   p50 {}   p99 {}",
            tick.second + 1,
            of.as_secs_f64().ceil(),
            time(0.5),
            time(0.99)
        ));
    }
}

fn deliver(args: &LoadArgs, seed: u64, spec: &LoadSpec, finished: &Finished, out: &mut Out) -> u8 {
    let result = result(args, seed, spec, finished);
    if out.json {
        out.document(&result);
    } else {
        out.result(render::sending(&result, out.colour()).as_bytes());
    }
    result.exit
}

fn result(args: &LoadArgs, seed: u64, spec: &LoadSpec, finished: &Finished) -> Sending {
    let Facts { due, sent, lag, aborted, .. } = &finished.outcome.facts;
    let nothing = reports::record::Outcomes::default();
    let all = finished.all().unwrap_or(&nothing);
    let (verdict, exit, reasons) = concluded(finished);
    let decoded = |text: &str| Latencies::decode(text).unwrap_or_default();
    let load: Option<&LoadRecord> = finished.outcome.loads.first();
    let stats = load.and_then(|load| load.phases.first());
    let pace = match (args.profile, args.rate, args.lasting) {
        (Some(preset), rate, lasting) => {
            let rate = rate.map(|rate| format!(" --rate {rate}")).unwrap_or_default();
            let lasting = lasting.map(|span| format!(" --for {span}")).unwrap_or_default();
            format!("--profile {}{rate}{lasting}", preset.name)
        }
        (None, rate, lasting) => format!(
            "--rate {} --for {}{}",
            rate.unwrap_or(Rate(0.0)),
            lasting.unwrap_or(Span(Duration::ZERO)),
            args.ramp.map(|over| format!(" --ramp {over}")).unwrap_or_default()
        ),
    };
    Sending {
        sends: load.map(|load| load.sends.clone()).unwrap_or_default(),
        arrivals: format!("{}{}", spec.profile, if spec.poisson { ", at random" } else { "" }),
        profile: args.profile.map(|preset| preset.name.to_owned()),
        seconds: finished.seconds,
        intended: due + aborted,
        sent: *sent,
        ok: all.ok,
        cut_short: *aborted,
        ok_per_s: if finished.seconds > 0.0 { all.ok as f64 / finished.seconds } else { 0.0 },
        errors: all.errors.clone(),
        statuses: stats.map(|stats| stats.statuses.clone()).unwrap_or_default(),
        response: Quantiles::from(&decoded(&all.latencies)),
        service: Quantiles::from(&decoded(&all.service)),
        lag: Quantiles::from(lag),
        changes: finished
            .changes
            .iter()
            .map(|turned| EventRecord { at_s: turned.at_s, kind: "rate".to_owned(), text: turned.words() })
            .collect(),
        probe: finished.probe.as_ref().map(Quantiles::from),
        kinds: stats
            .map(|stats| {
                let kind = |(name, all): (&String, &reports::record::Outcomes)| {
                    let both = [&all.latencies, &all.service].map(|text| Quantiles::from(&decoded(text)));
                    let [response, service] = both;
                    (name.clone(), (response, service))
                };
                stats.kinds.iter().map(kind).collect()
            })
            .unwrap_or_default(),
        generator: reports::record::GeneratorRecord {
            saturated: finished.doubts.clone(),
            ..finished.outcome.generator.clone()
        },
        objectives: finished.results.clone(),
        verdict,
        reasons,
        exit,
        reproduce: format!("squall load {} {pace} --seed {seed}", args.sending.again()),
        latencies: all.latencies.clone(),
    }
}

/// The verdict, its exit code, and why.
fn concluded(finished: &Finished) -> (Verdict, u8, Vec<String>) {
    let mut reasons: Vec<String> = finished.lowered.iter().cloned().collect();
    reasons.extend(finished.doubts.iter().map(|doubt| format!("the generator did not keep up: {doubt}")));
    let answered = finished.all().is_some_and(|all| all.ok > 0);
    let verdict = finished.verdict();
    if finished.ended == Ended::ByOperator {
        reasons.push("the operator ended it before its time".to_owned());
        return (Verdict::Unknown, exit::ABORTED, reasons);
    }
    if finished.results.is_empty() && !answered {
        reasons.push("not one request was answered well".to_owned());
        return (Verdict::Unknown, exit::INCONCLUSIVE, reasons);
    }
    let code = match verdict {
        Verdict::Held => exit::HELD,
        Verdict::Missed => exit::MISSED,
        Verdict::Unknown => exit::INCONCLUSIVE,
    };
    (verdict, code, reasons)
}
