//! `squall rate`: changes the rate of a load while it is being sent.

use std::path::PathBuf;

use clap::Args;
use injectors::sys::control::ControlError;

use super::Global;
use super::out::{self, Out};
use crate::load::Knob;
use crate::run::{desk, store};
use crate::slo::exit;

/// Whose rate, and what it shall be.
#[derive(Debug, Args)]
pub(super) struct RateArgs {
    /// A run that goes on: its id, a unique prefix, its folder or `latest`; or the socket of `squall load --control`
    run: String,
    /// x1.5 (times what was written), 500/s, pause or resume
    #[arg(value_name = "CHANGE")]
    to: String,
    /// Only this load of the run
    #[arg(long, value_name = "NAME")]
    load: Option<String>,
}

pub(super) fn rate(global: &Global, args: &RateArgs, out: &mut Out) -> u8 {
    if let Err(why) = Knob::parse(&args.to) {
        return out.fail(exit::INVALID, &why);
    }
    let path = match socket(global, &args.run) {
        Ok(path) => path,
        Err(why) => return out.fail(exit::INVALID, &why),
    };
    let runtime = match out::runtime() {
        Ok(runtime) => runtime,
        Err(error) => return out.no_queue(&error),
    };
    match runtime.block_on(desk::ask(&path, &args.to, args.load.as_deref())) {
        Ok(answer) => {
            if out.json {
                out.document(&serde_json::json!({"changes": answer["changes"]}));
            } else {
                let changes = answer["changes"].as_array().map(Vec::as_slice).unwrap_or_default();
                let lines = changes.iter().map(|change| {
                    let number = |name: &str| change[name].as_f64().unwrap_or(0.0);
                    format!(
                        "{} from {:.1} s on: {} ({:.3} times what was written, before {:.3})\n",
                        reports::escape::terminal(change["load"].as_str().unwrap_or("?")),
                        number("at_s"),
                        reports::format::rate(number("rate")),
                        number("factor"),
                        number("before")
                    )
                });
                out.result(lines.collect::<String>().as_bytes());
            }
            exit::HELD
        }
        Err(ControlError::Gone(_)) => out.fail(
            exit::REFUSED,
            &format!("nothing is being sent by {}: it has ended, or was started without --control", args.run),
        ),
        Err(error) => out.fail(exit::REFUSED, &error.to_string()),
    }
}

/// The socket of a run, or one that was named.
fn socket(global: &Global, run: &str) -> Result<PathBuf, String> {
    use std::os::unix::fs::FileTypeExt as _;
    let named = PathBuf::from(run);
    if named.symlink_metadata().is_ok_and(|there| there.file_type().is_socket()) {
        return Ok(named);
    }
    let store = global.store();
    if run == "latest" {
        let going = store.folders().into_iter().find(|folder| store::alive(folder));
        return going.map(|folder| folder.join(desk::FILE)).ok_or_else(|| "no run goes on".to_owned());
    }
    store.resolve(run).map(|folder| folder.join(desk::FILE)).map_err(|error| error.to_string())
}
