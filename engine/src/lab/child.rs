//! Starting the supervisor's children: argument arrays, a first line on stdout as the sign of life, never a shell.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use injectors::target::{ProcessId, Relay};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};

use super::instance::Duty;
use super::{Kind, LabError, process};

/// The hidden verb of a relay process.
const RELAY_VERB: &str = "__relay";
/// The longest first line, in bytes.
const LINE_MAX: u64 = 1 << 18;

/// A child that has been started and has not yet said that it is ready.
pub(super) struct Starting {
    name: String,
    child: Child,
    stdout: ChildStdout,
}

/// Starts one instance.
pub(super) fn start_instance(duty: &Duty) -> Result<Starting, LabError> {
    let own = std::process::id().to_string();
    let duty_text = serde_json::to_string(duty)?;
    let mut command = own_program()?;
    command.arg(Kind::Instance.verb()).arg(own).arg(duty_text).stdin(Stdio::null());
    spawn(&duty.name, command)
}

/// Starts the relay process with one route per instance and returns what it carries. It ends with its stdin, which the
/// child holds.
pub(super) async fn start_relay(
    control: &Path,
    routes: &[(&str, SocketAddr)],
) -> Result<(Child, Vec<Relay>), LabError> {
    let route = |(name, upstream): &(&str, SocketAddr)| json!({"name": name, "listen": "127.0.0.1:0", "upstream": upstream.to_string(), "protocol": "http"});
    let routes: Vec<Value> = routes.iter().map(route).collect();
    let order = json!({"routes": routes, "control": control, "parent": true});
    let mut command = own_program()?;
    command.arg(Kind::Relay.verb()).arg(std::process::id().to_string()).stdin(Stdio::piped());
    let mut starting = spawn("the relay", command)?;
    let stdin = starting.child.stdin.as_mut().expect("stdin is piped two lines above");
    stdin
        .write_all(format!("{order}\n").as_bytes())
        .await
        .map_err(LabError::system("telling the relay its routes"))?;
    let (child, line) = starting.first_line().await?;
    // The list of relays, bare or as the field of an object.
    let relays = line.get("relays").unwrap_or(&line);
    Ok((child, Vec::deserialize(relays)?))
}

/// Runs the relay in this process: `squall __lab-relay PARENT`. The tie to the supervisor's life outlasts the exec,
/// so that even a stopped relay ends with the supervisor. Returns only if that fails.
pub(super) fn become_relay(args: &[String]) -> Result<(), LabError> {
    use std::os::unix::process::CommandExt;
    process::die_with_named(args.first())?;
    let exe = std::env::current_exe().map_err(LabError::system("finding this program"))?;
    let failed = std::process::Command::new(exe).arg(RELAY_VERB).exec();
    Err(LabError::system("starting the relay")(failed))
}

/// The program that runs now, for another process of the lab.
fn own_program() -> Result<Command, LabError> {
    let exe = std::env::current_exe().map_err(LabError::system("finding this program"))?;
    Ok(Command::new(exe))
}

fn spawn(name: &str, mut command: Command) -> Result<Starting, LabError> {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(LabError::system(format!("starting {name}")))?;
    let stdout = child.stdout.take().expect("stdout is piped three lines above");
    Ok(Starting { name: name.to_owned(), child, stdout })
}

impl Starting {
    /// Waits for the sign of life. The caller sets the deadline; dropping the future kills the child.
    pub(super) async fn ready(self) -> Result<(Child, ProcessId), LabError> {
        let name = self.name.clone();
        let (child, _) = self.first_line().await?;
        let found = child.id().map(process::find).transpose().map_err(LabError::system("reading /proc"))?;
        let id = found.flatten().ok_or_else(|| LabError::Start(format!("{name} ended at once")))?;
        Ok((child, id))
    }

    async fn first_line(self) -> Result<(Child, Value), LabError> {
        let Self { name, child, stdout } = self;
        let line = first_line(stdout).await.map_err(LabError::system(format!("starting {name}")))?;
        match line["error"].as_str() {
            Some(error) => Err(LabError::Start(format!("{name}: {error}"))),
            None => Ok((child, line)),
        }
    }
}

/// The first line that a process of the lab prints, as JSON. The caller sets the deadline.
pub(super) async fn first_line(stdout: ChildStdout) -> io::Result<Value> {
    let mut line = Vec::new();
    BufReader::new(stdout.take(LINE_MAX)).read_until(b'\n', &mut line).await?;
    if line.is_empty() {
        return Err(io::Error::other("it ended without a word"));
    }
    serde_json::from_slice(&line).map_err(io::Error::other)
}

/// Ends a child at once and waits for it.
pub(super) async fn end(child: &mut Child, deadline: Duration) {
    // An error means that it has ended already.
    let _ = tokio::time::timeout(deadline, child.kill()).await;
}
