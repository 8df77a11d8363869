//! `squall inject`: one ad hoc fault. Its options come from the registry.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Args, Command};
use injectors::about::{Param, ParamKind, Presence};
use injectors::registry::{self, INJECTORS};
use injectors::target::Protocol;
use injectors::units::Span;
use serde_json::json;

use super::Global;
use super::out::{self, Out};
use super::view::View;
use crate::experiment::{RelayDecl, here, parse_args};
use crate::run::inject::{AdHoc, hold};
use crate::run::{CrashPoint, Signals};
use crate::slo::exit;

/// Nothing of its own: the faults are subcommands.
#[derive(Debug, Args)]
pub(super) struct InjectArgs {}

/// Adds a subcommand per fault.
pub(super) fn with_faults(command: Command) -> Command {
    let faults = INJECTORS.iter().map(|injector| {
        let about = injector.about();
        let params = about.params.iter().map(|param| option(param, "Parameters"));
        let selectors = about.target.selectors().iter().map(|param| option(param, "Target"));
        Command::new(about.name)
            .about(about.summary)
            .long_about(about.description)
            .args(params)
            .args(selectors)
            .arg(
                Arg::new("for")
                    .long("for")
                    .value_name("TIME")
                    .required(true)
                    .allow_hyphen_values(true)
                    .help("How long it lives, such as 30s; ^C ends it earlier, which is as good an end"),
            )
            .arg(
                Arg::new("seed")
                    .long("seed")
                    .value_name("N")
                    .value_parser(clap::value_parser!(u64))
                    .help("Repeat the choices of an earlier injection"),
            )
            .arg(
                Arg::new("crash-at")
                    .long("crash-at")
                    .hide(true)
                    .value_parser(|text: &str| text.parse::<CrashPoint>()),
            )
    });
    command
        .subcommands(faults)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand_help_heading("Faults")
        .subcommand_value_name("FAULT")
}

fn option(param: &'static Param, heading: &'static str) -> Arg {
    if param.name == "relay" {
        return Arg::new(param.name).long(param.name).value_name("NAME=HOST:PORT").help_heading(heading).help(
            "a relay of its own before that server, for as long as the fault lives: it listens on a free port, \
             which is told at the start. Relays of the lab are aimed at by service or instance",
        );
    }
    let many = matches!(param.kind, ParamKind::Argv | ParamKind::Shares | ParamKind::Map);
    let default = match param.presence {
        Presence::Default(text) => format!(" [default: {text}]"),
        _ => String::new(),
    };
    let words = match param.kind {
        ParamKind::Choice(words) if !words.iter().all(|word| param.help.contains(word)) => {
            format!(": {}", words.join(", "))
        }
        _ => String::new(),
    };
    let repeat = match param.kind {
        ParamKind::Shares => "; written as 50%,0%",
        ParamKind::Argv => "; once for each word: the program, then its arguments",
        ParamKind::Map => "; once for each entry",
        _ => "",
    };
    Arg::new(param.name)
        .long(param.name)
        .value_name(value_name(param.kind))
        .help(format!("{}{words}{repeat}{default}", param.help))
        .help_heading(heading)
        .required(matches!(param.presence, Presence::Required))
        // `-1s` is no option but a value that its kind refuses with a reason.
        .allow_hyphen_values(many || param.kind.is_quantity())
        .action(if many { ArgAction::Append } else { ArgAction::Set })
}

fn value_name(kind: ParamKind) -> &'static str {
    match kind {
        ParamKind::Span => "TIME",
        ParamKind::Share | ParamKind::Shares => "PERCENT",
        ParamKind::Rate => "RATE",
        ParamKind::Bandwidth => "BANDWIDTH",
        ParamKind::Size => "SIZE",
        ParamKind::Cores => "CORES",
        ParamKind::Int { .. } => "N",
        ParamKind::Flag => "BOOL",
        ParamKind::Choice(_) => "WORD",
        ParamKind::Text => "TEXT",
        ParamKind::Argv => "ARG",
        ParamKind::Map => "NAME=VALUE",
    }
}

/// The relay that stands for the time of the fault, from `NAME=HOST:PORT`; the name is left in the texts.
fn own_relay(fault: &str, texts: &mut [String]) -> Result<RelayDecl, String> {
    let text = texts.last_mut().ok_or("it is empty")?;
    let Some((name, upstream)) = text.split_once('=').map(|(name, to)| (name.to_owned(), to.to_owned()))
    else {
        return Err(format!("write it as NAME=HOST:PORT, such as {text}=127.0.0.1:8080"));
    };
    let parts = upstream.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
    let (host, _) = parts.ok_or_else(|| format!("`{upstream}` is not of the form HOST:PORT"))?;
    here(host, &[]).map_err(|bare| {
        format!("`{bare}` is not this machine; in an experiment, `allow-hosts` can name it")
    })?;
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-') {
        return Err(format!("`{name}` is no name: use small letters, digits and dashes"));
    }
    text.clone_from(&name);
    let protocol = if fault.starts_with("http-") { Protocol::Http } else { Protocol::Tcp };
    Ok(RelayDecl { name, listen: "127.0.0.1:0".to_owned(), upstream, protocol })
}

/// What a fault's own options mean.
///
/// # Errors
/// What is wrong with them, one mistake to a line.
fn read(global: &Global, name: &str, matches: &ArgMatches, length: Duration) -> Result<AdHoc, String> {
    let injector = registry::find(name).ok_or_else(|| format!("there is no fault `{name}`"))?;
    let about = injector.about();
    let mut given = BTreeMap::new();
    for param in about.params.iter().chain(about.target.selectors()) {
        if let Some(values) = matches.get_many::<String>(param.name) {
            given.insert(param.name.to_owned(), values.cloned().collect::<Vec<String>>());
        }
    }
    let relay = given.get_mut("relay").map(|texts| own_relay(name, texts)).transpose();
    let relay = relay.map_err(|error| format!("--relay: {error}"))?;
    let (args, selector) = parse_args(injector, &given).map_err(|mistakes| mistakes.join("\n"))?;
    let exe = std::env::current_exe()
        .map_err(|error| format!("this system does not tell squall its own path: {error}"))?;
    Ok(AdHoc {
        injector,
        args,
        selector,
        relay,
        length,
        seed: matches.get_one::<u64>("seed").copied().unwrap_or_else(super::source::fresh_seed),
        crash: matches.get_one::<CrashPoint>("crash-at").copied(),
        store: global.store(),
        exe,
    })
}

/// A fault as one would write it after `squall inject`, without `--for`.
///
/// # Errors
/// What is wrong with it.
pub(super) fn written(global: &Global, text: &str, length: Duration) -> Result<AdHoc, String> {
    let words = words(text)?;
    if words.is_empty() {
        return Err("it names no fault; squall faults lists them".to_owned());
    }
    if words.iter().any(|word| word == "--for" || word.starts_with("--for=")) {
        return Err("--for is not for you to say: the fault lives as long as its search".to_owned());
    }
    let all = std::iter::once("inject".to_owned()).chain(words).chain(["--for=1s".to_owned()]);
    let matches = with_faults(Command::new("inject"))
        .try_get_matches_from(all)
        .map_err(|error| super::usage(&error))?;
    let (name, own) = matches.subcommand().ok_or("it names no fault")?;
    let ad_hoc = read(global, name, own, length)?;
    if ad_hoc.relay.is_some() {
        return Err("a relay of its own stands before nobody who is loaded here: aim at a relay of the lab"
            .to_owned());
    }
    Ok(ad_hoc)
}

/// Words parted by blanks; what stands in quotes is one word.
fn words(text: &str) -> Result<Vec<String>, String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in text.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => {
                word.get_or_insert_default();
                quote = Some(c);
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    if quote.is_some() { Err("a quote is not closed".to_owned()) } else { Ok(words) }
}

pub(super) fn inject(
    global: &Global,
    _args: &InjectArgs,
    own: Option<(&str, &ArgMatches)>,
    out: &mut Out,
) -> u8 {
    let Some((name, matches)) = own else {
        return out.fail(exit::INVALID, "which fault? squall faults lists them");
    };
    let length = match matches.get_one::<String>("for").map(|text| text.parse::<Span>()) {
        Some(Ok(span)) if span.0 > Duration::ZERO => span.0,
        Some(Err(error)) => return out.fail(exit::INVALID, &format!("--for: {error}")),
        _ => return out.fail(exit::INVALID, "--for must be longer than zero"),
    };
    let ad_hoc = match read(global, name, matches, length) {
        Ok(ad_hoc) => ad_hoc,
        Err(mistakes) => return out.fail(exit::INVALID, &mistakes.replace('\n', "\nsquall: ")),
    };
    let runtime = match out::runtime() {
        Ok(runtime) => runtime,
        Err(error) => return out.no_queue(&error),
    };
    let mut view = View::new(out.quiet, out.json, injectors::secrets::Secrets::default());
    out.begins();
    let held = runtime.block_on(async {
        let signals = Signals::standard().map_err(|error| (exit::REFUSED, error.to_string()))?;
        hold(ad_hoc, signals, &mut view).await
    });
    drop(view);
    match held {
        Ok((code, records)) => {
            if out.json {
                out.document(&json!({"ok": code == exit::HELD, "exit": code, "injections": records}));
            } else {
                // What was refused has been told already, and has no effect that could be.
                for record in
                    records.iter().filter(|record| code != exit::REFUSED || record.applied_s.is_some())
                {
                    let line = format!(
                        "{} on {}: {} (requested {}, measured {}); undo: {}\n",
                        record.fault,
                        record.target,
                        record.proof.status,
                        record.proof.requested,
                        record.proof.measured,
                        record.undo
                    );
                    out.result(line.as_bytes());
                }
            }
            code
        }
        Err((code, error)) => out.fail(code, &error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_parted_by_blanks_and_kept_together_by_quotes() {
        let read = |text| words(text).unwrap();
        assert_eq!(read("  a --b  c "), ["a", "--b", "c"]);
        assert_eq!(read("a 'b c' \"d 'e\" f''"), ["a", "b c", "d 'e", "f"]);
        assert_eq!(read("a ''"), ["a", ""]);
        assert!(words("a 'b").is_err());
    }

    #[test]
    fn a_fault_in_words_is_read_like_one_on_the_command_line() {
        let read = |text| written(&Global::default(), text, Duration::from_secs(1));
        assert_eq!(read("process-pause --port 8080").unwrap().injector.about().name, "process-pause");
        for (text, says) in [
            ("process-paus --port 8080", "process-pause"),
            ("process-pause --port 8080 --for 3s", "--for is not for you"),
            ("relay-latency --relay web=127.0.0.1:80 --delay 5ms", "a relay of its own"),
            ("network-delay", "required"),
            (" ", "names no fault"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
