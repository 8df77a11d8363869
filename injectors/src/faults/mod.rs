//! One file per fault family; each fault is a unit struct listed in [`crate::registry`].

mod http_abort;
mod http_delay;
mod http_header;
mod http_truncate;
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

pub use http_abort::HttpAbort;
pub use http_delay::HttpDelay;
pub use http_header::HttpHeader;
pub use http_truncate::HttpTruncate;
pub use relay_bandwidth::RelayBandwidth;
pub use relay_blackhole::RelayBlackhole;
pub use relay_latency::RelayLatency;
pub use relay_limit_data::RelayLimitData;
pub use relay_refuse::RelayRefuse;
pub use relay_reset::RelayReset;
pub use relay_slice::RelaySlice;
pub use relay_slow_close::RelaySlowClose;
