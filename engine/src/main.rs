//! The one binary. Temporary: only the lab's hidden verbs, and a plain relay for its tests.

#[path = "../tests/support/plain_relay.rs"]
mod plain_relay;

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let Some((verb, rest)) = args.split_first() else { return ExitCode::FAILURE };
    match engine::lab::Kind::of(verb) {
        Some(kind) => engine::lab::main(kind, rest),
        None if verb == "__relay" => plain_relay::main(),
        None => ExitCode::FAILURE,
    }
}
