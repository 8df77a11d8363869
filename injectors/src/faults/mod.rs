//! One file per fault; each fault is a unit struct listed in [`crate::registry`].

pub mod command;
pub mod pop_drain;
pub mod process_kill;
pub mod process_pause;
mod processes;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::InjectError;

/// Turns an injector's own data into the journal's.
pub(crate) fn record<T: Serialize>(data: &T) -> serde_json::Value {
    serde_json::to_value(data).expect("fault data are plain maps with text keys")
}

/// Reads an injector's own data back from the journal's.
pub(crate) fn recall<T: DeserializeOwned>(fault: &str, data: &serde_json::Value) -> Result<T, InjectError> {
    T::deserialize(data).map_err(|source| InjectError::Data { fault: fault.to_owned(), source })
}
