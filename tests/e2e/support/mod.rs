//! What the tests stand on: nothing here judges.

pub(crate) mod clerk;
pub(crate) mod client;
pub(crate) mod docker;
pub(crate) mod home;
pub(crate) mod lab;
pub(crate) mod net;
mod points;
pub(crate) mod process;
pub(crate) mod server;
pub(crate) mod text;
pub(crate) mod turn;
pub(crate) mod wait;

pub(crate) use home::{Done, Home, unhindered};
pub(crate) use lab::Lab;
pub(crate) use points::points;
pub(crate) use turn::turns;
pub(crate) use wait::until;

use std::path::{Path, PathBuf};

/// The binary under test: the one that cargo has built beside this test, or another that `SQUALL_EXE` names. So
/// `tests/run` tests what is shipped, with its optimisation, and builds nothing twice.
pub(crate) fn exe() -> PathBuf {
    std::env::var_os("SQUALL_EXE").map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_squall")), PathBuf::from)
}

/// The root of the workspace.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Whether only the short part is wanted. Says which test is left out.
pub(crate) fn quick(what: &str) -> bool {
    let quick = in_short();
    if quick {
        skipped(&format!("{what}: SQUALL_QUICK=1"));
    }
    quick
}

/// The same, where what is left out is said elsewhere.
fn in_short() -> bool {
    std::env::var_os("SQUALL_QUICK").is_some_and(|value| value == "1")
}

/// `tests/run` counts these lines.
#[expect(clippy::print_stdout, reason = "the harness shows what a test prints")]
pub(crate) fn skipped(why: &str) {
    println!("SKIPPED: {why}");
}

/// All scenarios, sorted: those on the lab, and those on real servers, which lie in `real/`.
pub(crate) fn scenarios() -> Vec<PathBuf> {
    let folder = root().join("scenarios");
    let mut found: Vec<PathBuf> = [folder.clone(), folder.join("real")]
        .iter()
        .filter_map(|folder| std::fs::read_dir(folder).ok())
        .flat_map(|entries| entries.map(|entry| entry.unwrap().path()))
        .filter(|path| path.extension().is_some_and(|ext| ext == "yaml"))
        .collect();
    found.sort();
    found
}
