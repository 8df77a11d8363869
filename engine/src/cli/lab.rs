//! `squall lab`: the built-in lab by hand.

use std::fmt::Write as _;

use clap::{Args, Subcommand};
use injectors::units::{Share, Span};
use serde_json::json;

use super::out::{self, Out};
use crate::lab::{self, LabError, LabOptions, State, Status};
use crate::slo::exit;

/// What is done with the lab.
#[derive(Debug, Args)]
pub(super) struct LabArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Start a lab that stands until it is taken down
    Up {
        /// Tries beyond the first on every hop
        #[arg(long, value_name = "N", default_value_t = 1)]
        retries: u32,
        /// Share of requests that may be retries
        #[arg(long, value_name = "PERCENT", default_value = "20%")]
        retry_budget: Share,
        /// The edges do not cache
        #[arg(long)]
        no_cache: bool,
        /// How long one worker of a service is busy with one request, such as edge=20ms; may be given several times
        #[arg(long = "service-time", value_name = "SERVICE=TIME", value_parser = service_time)]
        service_times: Vec<(String, f64)>,
    },
    /// Take the standing lab down
    Down,
    /// Show the standing lab
    Status,
}

fn service_time(text: &str) -> Result<(String, f64), String> {
    let (service, time) = text.split_once('=').ok_or("write it as SERVICE=TIME, such as edge=20ms")?;
    let time: Span = time.parse().map_err(|error| format!("{error}"))?;
    if !lab::SERVICES.contains(&service) {
        return Err(format!("there is no service `{service}`; there are {}", lab::SERVICES.join(", ")));
    }
    let time = time.0.as_secs_f64();
    let fits = lab::SERVICE_TIME_S.contains(&time);
    fits.then(|| (service.to_owned(), time)).ok_or_else(|| "it must be from 500us to 1s".to_owned())
}

pub(super) fn lab(args: &LabArgs, out: &mut Out) -> u8 {
    let Ok(exe) = std::env::current_exe() else {
        return out.fail(exit::BUG, "this system does not tell squall its own path");
    };
    let runtime = match out::runtime() {
        Ok(runtime) => runtime,
        Err(error) => return out.no_queue(&error),
    };
    let done: Result<(), LabError> = runtime.block_on(async {
        match &args.verb {
            Verb::Up { retries, retry_budget, no_cache, service_times } => {
                let options = LabOptions {
                    retries: *retries,
                    retry_budget: retry_budget.0,
                    cache: !no_cache,
                    service_time_s: service_times.iter().cloned().collect(),
                };
                let standing = lab::up(&exe, options).await?;
                show(&standing.status, out)?;
                out.tell("take it down again: squall lab down");
            }
            Verb::Down => {
                let stood = lab::down().await?.is_some();
                if out.json {
                    out.document(&json!({"ok": true, "stood": stood}));
                } else {
                    out.tell(if stood { "the lab is down; nothing of it is left" } else { "no lab stands" });
                }
            }
            Verb::Status => match lab::status().await? {
                Some(status) => show(&status, out)?,
                None if out.json => out.document(&json!({"up": false})),
                None => out.tell("no lab stands; start one: squall lab up"),
            },
        }
        Ok(())
    });
    match done {
        Ok(()) => exit::HELD,
        Err(error @ (LabError::Options(_) | LabError::AlreadyUp { .. })) => {
            out.fail(exit::INVALID, &error.to_string())
        }
        Err(error) => out.fail(exit::REFUSED, &error.to_string()),
    }
}

fn show(status: &Status, out: &mut Out) -> Result<(), LabError> {
    if out.json {
        let mut document = status.to_json()?;
        document["up"] = json!(true);
        out.document(&document);
        return Ok(());
    }
    let lab = &status.lab;
    let mut text =
        format!("lab {}: http://{}/ (up in {:.0} ms)\n\n", lab.name, lab.address, lab.ready_s * 1e3);
    let _ = writeln!(
        text,
        "  {:<10} {:<8} {:<7} {:>12} {:>8} {:>10}",
        "instance", "service", "state", "service time", "workers", "capacity"
    );
    for instance in &lab.instances {
        let state = match instance.state {
            State::Up => "up",
            State::Paused => "paused",
            State::Down => "down",
        };
        let capacity = instance.capacity_per_s.map_or("-".to_owned(), |capacity| format!("{capacity:.0}/s"));
        let time = if instance.workers == 0 {
            "-".to_owned()
        } else {
            format!("{:.1} ms", instance.service_time_s * 1e3)
        };
        let _ = writeln!(
            text,
            "  {:<10} {:<8} {state:<7} {time:>12} {:>8} {capacity:>10}",
            instance.name, instance.service, instance.workers
        );
    }
    out.result(text.as_bytes());
    Ok(())
}
