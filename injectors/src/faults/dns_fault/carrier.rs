//! The process that carries a DNS fault: its start and its end.

use std::time::Duration;

use serde_json::json;

use super::ABOUT;
use crate::Env;
use crate::change::InjectError;
use crate::faults::{processes, record};
use crate::resolver::{Order, VERB, address};
use crate::sys::control::ControlError;
use crate::sys::proc::SignalName;

/// How long it may take to start and to end.
const DEADLINE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(5);

pub(super) fn control(source: ControlError) -> InjectError {
    InjectError::Control { what: "our resolver".to_owned(), source }
}

pub(super) fn lost(source: std::io::Error) -> InjectError {
    InjectError::System { what: "look for our resolver".to_owned(), source }
}

/// Starts a resolver of an injection and returns its ports, one for each of the real ones.
pub(super) async fn start(env: &Env, id: &str, order: &Order) -> Result<Vec<u16>, InjectError> {
    let program = env.program.to_string_lossy().into_owned();
    let argv = [program, VERB.to_owned(), std::process::id().to_string(), record(order).to_string()];
    let failed = |source| InjectError::System { what: "start our resolver".to_owned(), source };
    let mut started = env.procs.start(&argv, id).map_err(failed)?;
    let patience = async {
        loop {
            match env.control.call(&address(&order.id), &json!({"op": "observe"})).await {
                Ok(answer) => {
                    return serde_json::from_value(answer["ports"].clone())
                        .map_err(|source| InjectError::Data { fault: ABOUT.name.to_owned(), source });
                }
                Err(ControlError::Gone(_)) => {}
                Err(source) => return Err(control(source)),
            }
            if started.ended().map_err(failed)?.is_some() {
                return Err(InjectError::Command(
                    "our resolver could not listen on the loopback of the namespace: is it up? (ip link set lo up)"
                        .to_owned(),
                ));
            }
            tokio::time::sleep(POLL).await;
        }
    };
    let late = || InjectError::Deadline(format!("our resolver did not answer within {DEADLINE:?}"));
    tokio::time::timeout(DEADLINE, patience).await.unwrap_or_else(|_| Err(late()))
}

/// Ends the resolvers of an injection. Tells whether there were any.
pub(super) async fn end(env: &Env, id: &str) -> Result<bool, InjectError> {
    let (mut any, mut left) = (false, DEADLINE.as_millis() / POLL.as_millis());
    loop {
        let living = env.procs.marked(id).map_err(lost)?;
        for info in &living {
            let what = || format!("end our resolver, process {}", info.id.pid);
            let failed = |source| InjectError::System { what: what(), source };
            any |= env.procs.signal(info.id, SignalName::Kill).map_err(failed)?;
        }
        if living.is_empty() {
            return Ok(any);
        }
        if left == 0 {
            let text = format!("our resolvers do not end: {}", processes::names(&living));
            return Err(InjectError::Deadline(text));
        }
        left -= 1;
        tokio::time::sleep(POLL).await;
    }
}
