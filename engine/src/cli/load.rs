//! `squall load`: one load by itself.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use injectors::units::{Rate, Span};
use reports::record::{EventRecord, LoadRecord, Verdict};
use reports::sending::{Quantiles, Sending};
use reports::{Latencies, render};

use super::Global;
use super::capacity::{SearchingArgs, searched};
use super::hands::HandArgs;
use super::out::{self, Out};
use super::sending::{SendingArgs, quoted, rate};
use super::source;
use crate::clock;
use crate::load::{Facts, LoadError, LoadSpec, Tick, remote};
use crate::reading;
use crate::replay::{self, Fields, Format as LogFormat, Options, Trace};
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
    #[arg(long, help_heading = "Arrivals", conflicts_with_all = ["rate", "lasting", "ramp", "profile", "log", "html", "replay"])]
    find: bool,
    #[command(flatten)]
    hands: HandArgs,
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
    /// Send a log again, with the gaps that it had: an access log (combined or JSON lines) or a HAR. Its hosts do not matter,
    /// all goes to the URL
    #[arg(long, value_name = "FILE", help_heading = "Replay",
          conflicts_with_all = ["rate", "lasting", "ramp", "profile", "method", "body", "body_template", "poisson"])]
    replay: Option<PathBuf>,
    /// How much faster than it was, such as 2x
    #[arg(long, value_name = "X", value_parser = replay::speed, help_heading = "Replay", requires = "replay")]
    speed: Option<f64>,
    /// How the log is written: combined, json or har; if left out, what it looks like
    #[arg(long, value_name = "WORD", value_parser = log_format, help_heading = "Replay", requires = "replay")]
    format: Option<LogFormat>,
    /// Where JSON lines have what, such as time=ts: time, method, path, request, took, body; may be given several times
    #[arg(long = "field", value_name = "NAME=KEY", help_heading = "Replay", requires = "replay")]
    fields: Vec<String>,
    /// Methods that are sent again [default: GET,HEAD]
    #[arg(long, value_name = "WORDS", value_delimiter = ',', help_heading = "Replay", requires = "replay")]
    methods: Vec<String>,
    /// Send again what looks like a secret in queries and bodies
    #[arg(long, help_heading = "Replay", requires = "replay")]
    keep_secrets: bool,
    /// Listen on this socket for `squall rate`, which changes the rate on the way
    #[arg(long, value_name = "PATH", help_heading = "Arrivals", conflicts_with_all = ["find", "replay"])]
    control: Option<PathBuf>,
    /// Write the latencies of each second as a log that HdrHistogram's tools read
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Write a page with the charts: latency over time and by percentile, a heat map, requests
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

fn log_format(word: &str) -> Result<LogFormat, String> {
    let known = LogFormat::WORDS.iter().find(|(known, _)| *known == word);
    known.map(|(_, format)| *format).ok_or_else(|| "there are combined, json and har".to_owned())
}

fn preset(word: &str) -> Result<&'static Preset, String> {
    let names: Vec<&str> = PRESETS.iter().map(|preset| preset.name).collect();
    PRESETS
        .iter()
        .find(|preset| preset.name == word)
        .ok_or_else(|| format!("there is no profile `{word}`; there are {}", names.join(", ")))
}

impl LoadArgs {
    /// The log that is sent again, if there is one.
    fn trace(&self) -> Result<Option<Trace>, String> {
        let Some(path) = &self.replay else {
            // Where another option rules out --replay, the parser does not miss it.
            let stray = self.speed.is_some() || self.format.is_some() || self.keep_secrets;
            return if stray || !self.fields.is_empty() || !self.methods.is_empty() {
                Err("--speed, --format, --field, --methods and --keep-secrets belong to --replay".to_owned())
            } else {
                Ok(None)
            };
        };
        let mut options = Options {
            format: self.format,
            speed: self.speed.unwrap_or(1.0),
            methods: replay::methods(self.methods().iter().map(String::as_str))?,
            keep_secrets: self.keep_secrets,
            fields: Fields::default(),
        };
        for text in &self.fields {
            let (what, key) =
                text.split_once('=').ok_or_else(|| format!("--field: write NAME=KEY instead of `{text}`"))?;
            options.fields.set(what, key).map_err(|why| format!("--field: {why}"))?;
        }
        let read = reading::bytes(path, replay::BYTES_MAX).map_err(|error| error.to_string());
        let read = read.and_then(|bytes| Trace::read(&bytes, &options));
        read.map(Some).map_err(|why| format!("--replay {}: {why}", path.display()))
    }

    /// Which methods of a log are sent.
    fn methods(&self) -> Vec<String> {
        if self.methods.is_empty() { Options::default().methods } else { self.methods.clone() }
    }

    /// Where nothing can be written must be known before anything is sent.
    fn files(&self, global: &Global) -> Result<(), String> {
        out::apart(&[
            ("--log", self.log.as_ref()),
            ("--html", self.html.as_ref()),
            ("--output", global.output.as_ref()),
            ("--control", self.control.as_ref()),
        ])?;
        for (path, what) in [(&self.log, "log"), (&self.html, "page"), (&global.output, "result")] {
            if let Some(error) = path.as_ref().and_then(|path| store::writable(path).err()) {
                return Err(format!("the {what} cannot be written: {error}; nothing was sent"));
            }
        }
        Ok(())
    }

    /// What is sent.
    fn spec(&self, out: &mut Out) -> Result<LoadSpec, String> {
        let Some(trace) = self.trace()? else { return self.sending.spec(self.arrivals()?) };
        let profile = trace.profile().map_err(|error| format!("--replay: {error}"))?;
        trace.notes().iter().for_each(|note| out.warn(&format!("squall: {note}")));
        let mut spec = self.sending.spec(profile)?;
        spec.replay = Some(Arc::new(trace));
        Ok(spec)
    }

    /// The options that give these arrivals again.
    fn pace(&self) -> String {
        if let Some(path) = &self.replay {
            let speed = self.speed.map(|speed| format!(" --speed {speed}x")).unwrap_or_default();
            return format!(
                "--replay {}{speed} --methods {}",
                quoted(&path.display().to_string()),
                self.methods().join(",")
            );
        }
        match (self.profile, self.rate, self.lasting) {
            (Some(preset), rate, lasting) => {
                let rate = rate.map(|rate| format!(" --rate {rate}")).unwrap_or_default();
                let lasting = lasting.map(|span| format!(" --for {span}")).unwrap_or_default();
                format!("--profile {}{rate}{lasting}", preset.name)
            }
            (None, rate, lasting) => format!(
                "--rate {} --for {}{}",
                rate.unwrap_or(Rate(0.0)),
                lasting.unwrap_or(Span(Duration::ZERO)),
                self.ramp.map(|over| format!(" --ramp {over}")).unwrap_or_default()
            ),
        }
    }

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
        return searched(global, &args.sending, &args.hands, &SearchingArgs::default(), out);
    }
    let seed = args.sending.seed.unwrap_or_else(source::fresh_seed);
    let ready = args.spec(out).and_then(|spec| Ok((spec, args.sending.objectives()?, args.hands.hands()?)));
    let (spec, objectives, hands) = match ready {
        Ok(ready) => ready,
        Err(why) => return out.fail(exit::INVALID, &why),
    };
    let runtime = match out::runtime() {
        Ok(runtime) => runtime,
        Err(error) => return out.no_queue(&error),
    };
    if let Err(why) = args.files(global) {
        return out.fail(exit::INVALID, &why);
    }
    let started = clock::unix().as_secs_f64();
    let expected = spec.profile.duration();
    out.begins();
    let finished = runtime.block_on(async {
        let mut signals = Signals::standard().map_err(LoadError::Thread)?;
        let team = remote::hire(&hands).await?;
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
            team: &team,
            objectives: &objectives,
            guards: &[],
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
            let result = result(args, seed, &spec, &finished);
            deliver(&result, out);
            let Some(load) = finished.outcome.loads.first() else { return result.exit };
            let log = args.log.as_ref().map(|path| {
                let log = render::interval_log(load, started);
                (path, log.map(String::into_bytes).map_err(|error| error.to_string()))
            });
            let page = args.html.as_ref().map(|path| {
                (path, render::sending_page(&result, load, started).map_err(|error| error.to_string()))
            });
            log.into_iter()
                .chain(page)
                .fold(result.exit, |code, (path, bytes)| written(path, bytes, code, out))
        }
        Err(error) => {
            let (code, why) = refusal(&error);
            out.fail(code, &why)
        }
    }
}

/// Writes a file beside the result; the exit code is worse if that fails.
fn written(path: &Path, bytes: Result<Vec<u8>, String>, code: u8, out: &mut Out) -> u8 {
    match bytes.and_then(|bytes| store::write(path, &bytes).map_err(|error| error.to_string())) {
        Ok(()) => code,
        Err(error) => {
            out.warn(&format!("squall: failed to write {}: {error}", path.display()));
            if code == exit::HELD { exit::INCONCLUSIVE } else { code }
        }
    }
}

/// Why the one load of a command line cannot be sent, and whether the input or this host is to blame.
pub(super) fn refusal(error: &LoadError) -> (u8, String) {
    let code = match error {
        LoadError::Spec { .. }
        | LoadError::Count
        | LoadError::Control(_)
        | LoadError::Connections { .. }
        | LoadError::Replay
        | LoadError::Told { .. }
        | LoadError::Journey { .. } => exit::INVALID,
        LoadError::Origin { .. }
        | LoadError::Thread(_)
        | LoadError::Files { .. }
        | LoadError::Worker { .. } => exit::REFUSED,
    };
    // There is only one: it needs no name.
    let why = match error {
        LoadError::Spec { why, .. } => why.to_string(),
        LoadError::Origin { why, .. } => why.to_string(),
        error => error.to_string(),
    };
    (code, why)
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

fn deliver(result: &Sending, out: &mut Out) {
    if out.json {
        out.document(result);
    } else {
        out.result(render::sending(result, out.colour()).as_bytes());
    }
}

fn result(args: &LoadArgs, seed: u64, spec: &LoadSpec, finished: &Finished) -> Sending {
    let Facts { due, sent, lag, aborted, .. } = &finished.outcome.facts;
    let nothing = reports::record::Outcomes::default();
    let all = finished.all().unwrap_or(&nothing);
    let (verdict, exit, reasons) = concluded(finished);
    let decoded = |text: &str| Latencies::decode(text).unwrap_or_default();
    let load: Option<&LoadRecord> = finished.outcome.loads.first();
    let stats = load.and_then(|load| load.phases.first());
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
        causes: stats.map(|stats| stats.causes.clone()).unwrap_or_default(),
        statuses: stats.map(|stats| stats.statuses.clone()).unwrap_or_default(),
        response: Quantiles::from(&decoded(&all.latencies)),
        service: Quantiles::from(&decoded(&all.service)),
        lag: Quantiles::from(lag),
        handshakes: stats
            .filter(|stats| !stats.handshakes.is_empty())
            .map(|stats| Quantiles::from(&decoded(&stats.handshakes))),
        changes: changes(finished),
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
        reproduce: format!(
            "squall load {} {} --seed {seed}{}",
            args.sending.again(),
            args.pace(),
            args.hands.again()
        ),
        latencies: all.latencies.clone(),
    }
}

/// What changed on the way: its rate, and who sent it.
fn changes(finished: &Finished) -> Vec<EventRecord> {
    let event = |at_s, kind: &str, text| EventRecord { at_s, kind: kind.to_owned(), text };
    let turned = finished.changes.iter().map(|turned| event(turned.at_s, "rate", turned.words()));
    let lost = finished.outcome.facts.losses.iter().map(|loss| event(loss.from_s, "worker", loss.words()));
    turned.chain(lost).collect()
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
