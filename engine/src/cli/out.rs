//! The only place that prints.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::json;

use super::Global;
use crate::slo::exit;

/// stdout for the result, stderr for the story.
#[derive(Debug)]
pub struct Out {
    /// The result is one JSON document.
    pub json: bool,
    /// No story.
    pub quiet: bool,
    /// Where the result goes instead of stdout, and what there is of it.
    file: Option<(PathBuf, Vec<u8>)>,
    /// Why the result could not be printed.
    lost: Option<io::Error>,
    /// Something was sent, started or broken.
    began: bool,
}

impl Out {
    /// As the options say.
    pub fn new(global: &Global) -> Self {
        let file = global.output.clone().map(|path| (path, Vec::new()));
        Self { json: global.json, quiet: global.quiet, file, lost: None, began: false }
    }

    /// From now on something is sent, started or broken: what goes wrong is no mistake of the input any more.
    pub fn begins(&mut self) {
        self.began = true;
    }

    /// Prints bytes of the result. A reader that has gone is no failure.
    pub fn result(&mut self, bytes: &[u8]) {
        if let Some((_, kept)) = &mut self.file {
            kept.extend_from_slice(bytes);
            return;
        }
        let mut stdout = io::stdout().lock();
        if let Err(error) = stdout.write_all(bytes).and_then(|()| stdout.flush())
            && error.kind() != io::ErrorKind::BrokenPipe
        {
            self.lost.get_or_insert(error);
        }
    }

    /// Prints a document of the result.
    pub fn document(&mut self, document: &impl Serialize) {
        let mut text = serde_json::to_vec_pretty(document).expect("documents are plain data");
        text.push(b'\n');
        self.result(&text);
    }

    /// Tells a line of the story. With `--json`, the document says it.
    pub fn tell(&mut self, line: &str) {
        if !self.quiet && !self.json {
            self.warn(line);
        }
    }

    /// Tells a line that must be heard. With `--json`, it is an event like those of a run.
    pub fn warn(&mut self, line: &str) {
        let mut stderr = io::stderr().lock();
        let _ = if self.json {
            writeln!(
                stderr,
                "{}",
                json!({"event": "trouble", "text": line.strip_prefix("squall: ").unwrap_or(line)})
            )
        } else {
            writeln!(stderr, "{line}")
        };
    }

    /// Tells an event of the story, as a JSON line.
    pub fn event(&mut self, event: &impl Serialize) {
        if !self.quiet {
            let _ = writeln!(
                io::stderr().lock(),
                "{}",
                serde_json::to_string(event).expect("events are plain data")
            );
        }
    }

    /// Tells of a failure: on stderr, and as the document when one is asked for. Returns the exit code.
    pub fn fail(&mut self, code: u8, message: &str) -> u8 {
        self.warn(&format!("squall: {message}"));
        if self.json {
            self.document(&json!({"ok": false, "exit": code, "error": message}));
        }
        code
    }

    /// Tells that there is no event queue, which every verb that waits needs. Returns the exit code.
    pub fn no_queue(&mut self, error: &io::Error) -> u8 {
        let why = format!("the system gives no event queue: {error}");
        self.fail(
            exit::REFUSED,
            &format!(
                "{why}; if it is too many open files, raise the limit (`ulimit -n`); nothing was touched"
            ),
        )
    }

    /// Writes the result to its file, if it has one. Returns the exit code: the verb's own, unless that fails.
    pub fn finish(&mut self, code: u8) -> u8 {
        if let Some(error) = self.lost.take() {
            self.warn(&format!("squall: failed to print the result: {error}"));
            return if code == exit::HELD { self.unheard() } else { code };
        }
        let Some((path, bytes)) = self.file.take() else { return code };
        match crate::run::store::write(&path, &bytes) {
            Ok(()) => code,
            Err(error) => {
                let said = self.fail(self.unheard(), &format!("failed to write the result: {error}"));
                if code == exit::HELD { said } else { code }
            }
        }
    }

    /// The code of a good result that nobody can read.
    fn unheard(&self) -> u8 {
        if self.began { exit::INCONCLUSIVE } else { exit::INVALID }
    }

    /// Whether the result takes colours.
    pub fn colour(&self) -> bool {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        self.file.is_none() && io::stdout().is_terminal() && wanted
    }
}

/// Refuses two options that name one file: the later would overwrite the earlier.
///
/// # Errors
/// Which they are.
pub(super) fn apart(options: &[(&str, Option<&PathBuf>)]) -> Result<(), String> {
    let mut known: Vec<(&str, PathBuf)> = Vec::new();
    for (option, path) in options.iter().filter_map(|(option, path)| Some((option, (*path)?))) {
        // A device or a pipe takes whatever comes.
        if std::fs::metadata(path).is_ok_and(|there| !there.is_file()) {
            continue;
        }
        let place = place(path);
        if let Some((other, _)) = known.iter().find(|(_, taken)| *taken == place) {
            return Err(format!("{other} and {option} name one file, {}: give each its own", path.display()));
        }
        known.push((option, place));
    }
    Ok(())
}

/// Where a file is or would be, whatever leads there.
fn place(path: &Path) -> PathBuf {
    let whole = path.canonicalize().ok();
    let folder = || {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Some(folder.canonicalize().ok()?.join(path.file_name()?))
    };
    whole.or_else(folder).unwrap_or_else(|| path.to_owned())
}

/// Whether a person watches stderr.
pub(super) fn watched() -> bool {
    io::stderr().is_terminal()
}

/// `1 line`, `2 lines`.
pub(super) fn plural(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// A runtime for one verb. Its helper thread, which writes the journal, is kept for as long as any run may take: when it
/// is needed to undo something, the host might have no thread to give.
///
/// # Errors
/// The system gives no event queue.
pub(super) fn runtime() -> io::Result<tokio::runtime::Runtime> {
    let kept = std::time::Duration::from_hours(24 * 30);
    tokio::runtime::Builder::new_current_thread().enable_all().thread_keep_alive(kept).build()
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
