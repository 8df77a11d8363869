//! The one binary: the command line decides, and its exit code says how it went.

use std::process::ExitCode;

fn main() -> ExitCode {
    // A panic is a bug of ours and must not look like an answer.
    let code = std::panic::catch_unwind(|| engine::cli::main(&std::env::args_os().collect::<Vec<_>>()));
    ExitCode::from(code.unwrap_or(engine::slo::exit::BUG))
}
