//! One file per fault; each fault is a unit struct listed in [`crate::registry`].

mod command;
mod http_abort;
mod http_delay;
mod http_header;
mod http_truncate;
mod pop_drain;
mod process_kill;
mod process_pause;
mod processes;
mod relay_bandwidth;
mod relay_blackhole;
mod relay_latency;
mod relay_limit_data;
mod relay_params;
mod relay_proof;
mod relay_refuse;
mod relay_reset;
mod relay_slice;
mod relay_slow_close;
mod relayed;

pub use command::Command;
pub use http_abort::HttpAbort;
pub use http_delay::HttpDelay;
pub use http_header::HttpHeader;
pub use http_truncate::HttpTruncate;
pub use pop_drain::PopDrain;
pub use process_kill::ProcessKill;
pub use process_pause::ProcessPause;
pub use relay_bandwidth::RelayBandwidth;
pub use relay_blackhole::RelayBlackhole;
pub use relay_latency::RelayLatency;
pub use relay_limit_data::RelayLimitData;
pub use relay_refuse::RelayRefuse;
pub use relay_reset::RelayReset;
pub use relay_slice::RelaySlice;
pub use relay_slow_close::RelaySlowClose;

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
