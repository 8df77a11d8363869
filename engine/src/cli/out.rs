//! The only place that prints.

use std::io::{self, IsTerminal, Write};
use std::path::Path;

use serde::Serialize;
use serde_json::json;

use super::Global;

/// stdout for the result, stderr for the story.
#[derive(Debug)]
pub struct Out {
    /// The result is one JSON document.
    pub json: bool,
    /// No story.
    pub quiet: bool,
}

impl Out {
    /// As the options say.
    pub fn new(global: &Global) -> Self {
        Self { json: global.json, quiet: global.quiet }
    }

    /// Prints bytes of the result. A reader that has gone is no failure.
    pub fn result(&mut self, bytes: &[u8]) {
        let mut stdout = io::stdout().lock();
        let _ = stdout.write_all(bytes).and_then(|()| stdout.flush());
    }

    /// Prints a document of the result.
    pub fn document(&mut self, document: &impl Serialize) {
        let mut text = serde_json::to_vec_pretty(document).expect("documents are plain data");
        text.push(b'\n');
        self.result(&text);
    }

    /// Tells a line of the story.
    pub fn tell(&mut self, line: &str) {
        if !self.quiet {
            self.warn(line);
        }
    }

    /// Tells a line that must be heard.
    pub fn warn(&mut self, line: &str) {
        let _ = writeln!(io::stderr().lock(), "{line}");
    }

    /// Tells of a failure: on stderr, and as the document when one is asked for. Returns the exit code.
    pub fn fail(&mut self, code: u8, message: &str) -> u8 {
        self.warn(&format!("squall: {message}"));
        if self.json {
            self.document(&json!({"ok": false, "exit": code, "error": message}));
        }
        code
    }

    /// Writes the result to a file, or prints it.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn deliver(&mut self, file: Option<&Path>, bytes: &[u8]) -> Result<(), String> {
        match file {
            None => self.result(bytes),
            Some(path) => crate::run::store::write(path, bytes).map_err(|error| error.to_string())?,
        }
        Ok(())
    }
}

/// Whether a person watches stderr.
pub(super) fn watched() -> bool {
    io::stderr().is_terminal()
}

/// Whether stdout takes colours.
pub(super) fn colour() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// A runtime for one verb.
///
/// # Errors
/// The system gives no event queue.
pub(super) fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// Runs a guardian to its end: a session of its own, deaf to the signals of a terminal.
pub(super) fn guardian() -> bool {
    // Fails only for a process that leads a group already, and then the signals below are caught all the same.
    let _ = injectors::sys::host::leave_session();
    let Ok(runtime) = runtime() else { return false };
    runtime.block_on(async {
        use tokio::signal::unix::{SignalKind, signal};
        // Listening replaces the deadly default; what is heard is dropped. The guardian leaves by its own law.
        let deaf: Vec<_> =
            [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup(), SignalKind::pipe()]
                .into_iter()
                .map(signal)
                .collect();
        let clean = injectors::guardian::watch(tokio::io::stdin(), tokio::io::stdout()).await;
        drop(deaf);
        clean
    })
}
