//! Loads that other processes send: children on this machine, or workers that listen elsewhere. One small protocol.
//!
//! A coordinator connects, both sides prove that they know the token, and the worker gets a plan: what to send, which
//! threads are its own among all, the seed. Each thread's seconds come back as they would from a thread here, and go into
//! the same collector, so that ticks, records and judgement know no difference.
//!
//! Invariants:
//! - A worker whose coordinator has said nothing for [`LEASE`] stops by itself, whatever has become of the other one.
//! - A worker that is lost is never a smaller load: it is named among the reasons why the numbers must not be trusted.
//! - Every frame, list, name and count from the other side has a bound; every wait has an end.
//! - Clocks need not agree. Time 0 is told as a delay, so a worker begins later than asked by the message's travel (about
//!   half a round trip: some 0.1 ms at one site, tens of milliseconds between continents), and enters phases as late plus
//!   20 ms. No latency is wrong by that: each counts on its own worker's clock.

mod beat;
mod crew;
mod door;
mod frame;
mod hire;
mod seal;
mod serve;
mod wire;
mod word;

use std::time::Duration;

use ::base64::prelude::{BASE64_STANDARD, Engine as _};
use serde::{Deserialize, Serialize};

use super::journey::Seats;
use super::{JourneySpec, LoadSpec};

pub(super) use crew::{Crew, Member, Task};
pub use door::listen;
pub(super) use hire::Order;
pub use hire::{Hands, Team, WORKERS_MAX, hire};
pub use seal::{TOKEN_MAX, Token};
pub use serve::{VERB, child};

/// The version of the protocol. Both sides must speak the same.
const PROTOCOL: u32 = 3;
/// How long a worker goes on without a word from its coordinator.
pub const LEASE: Duration = Duration::from_secs(5);
/// Between two renewals.
const RENEW: Duration = Duration::from_secs(1);
/// How soon a worker hears of a phase, a rate or the end.
const BEAT: Duration = Duration::from_millis(5);
/// For each step of the handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// From a plan to the word that it could start: names are resolved meanwhile.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// What a worker is to do, with the places of its loads among all.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Job {
    /// Its share of the arrivals of these.
    Open(Vec<(usize, LoadSpec)>),
    /// Its share of the people of this one.
    Journey(usize, Box<JourneySpec>, Seats),
}

/// Bytes as text within words.
pub(crate) mod base64 {
    use serde::{Deserialize, Deserializer, Serializer};

    /// # Errors
    /// As the serializer.
    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&super::text(bytes))
    }

    /// # Errors
    /// It is no base64.
    pub(crate) fn deserialize<'d, D: Deserializer<'d>>(from: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(from)?;
        super::bytes(&text).ok_or_else(|| serde::de::Error::custom("no base64"))
    }
}

fn text(bytes: &[u8]) -> String {
    BASE64_STANDARD.encode(bytes)
}

fn bytes(text: &str) -> Option<Vec<u8>> {
    BASE64_STANDARD.decode(text).ok()
}
