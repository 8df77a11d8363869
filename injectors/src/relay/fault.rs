//! What a relay can do to the connections of one route, as data: the `fault` of the control operation `add`.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::target::Protocol;
use crate::units::{Bandwidth, Share, Size, Span};

/// Which way the hurt bytes travel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Client to server.
    Up,
    /// Server to client.
    #[default]
    Down,
    /// Both ways.
    Both,
}

impl Direction {
    /// The words that users write.
    pub const WORDS: &'static [&'static str] = &["up", "down", "both"];

    /// Whether bytes that travel `way` (never `Both`) are meant.
    pub fn covers(self, way: Self) -> bool {
        self == Self::Both || self == way
    }

    /// As users write it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Both => "both",
        }
    }
}

/// How single delays scatter around the requested one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Distribution {
    /// Evenly from `delay - jitter` to `delay + jitter`; the mean is `delay`.
    #[default]
    Uniform,
    /// Gaussian with standard deviation `jitter`, cut evenly at both ends so that none is negative or beyond
    /// three deviations; the mean is `delay`.
    Normal,
    /// Heavy tail above `delay`: the excess is `jitter × (u^(-1/3) - 1)`; the mean is `delay + jitter / 2`.
    Pareto,
}

impl Distribution {
    /// The words that users write.
    pub const WORDS: &'static [&'static str] = &["uniform", "normal", "pareto"];
}

/// A delay and its scatter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Scatter {
    /// The delay that was asked for.
    pub delay: Span,
    /// Its spread; zero means none.
    #[serde(default)]
    pub jitter: Span,
    /// The shape of the spread.
    #[serde(default)]
    pub distribution: Distribution,
}

impl Scatter {
    /// The mean of the distribution, in seconds.
    pub fn mean(&self) -> f64 {
        let (delay, jitter) = (self.delay.0.as_secs_f64(), self.jitter.0.as_secs_f64());
        if self.distribution == Distribution::Pareto { delay + jitter / 2.0 } else { delay }
    }

    /// An upper bound of its standard deviation, in seconds.
    pub fn deviation(&self) -> f64 {
        let jitter = self.jitter.0.as_secs_f64();
        match self.distribution {
            Distribution::Uniform => jitter / 3f64.sqrt(),
            Distribution::Normal => jitter,
            Distribution::Pareto => jitter * 0.75f64.sqrt(),
        }
    }
}

/// Which HTTP requests a fault means. What is absent matches everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Match {
    /// The method, in any case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// The path without its query; a trailing `*` makes it a prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// `Name: value`: the name in any case, the value exactly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
}

/// Which of the two heads is edited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Head {
    /// The request's.
    Request,
    /// The response's.
    Response,
}

fn whole() -> Share {
    Share(1.0)
}

/// One kind of hurt. `share` is of connections, or of matching requests in the `Http…` kinds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum RelayFault {
    /// Every chunk is held for a while; order and throughput are kept.
    Latency {
        /// Which way.
        direction: Direction,
        /// How long.
        #[serde(flatten)]
        scatter: Scatter,
        /// Of connections.
        #[serde(default = "whole")]
        share: Share,
    },
    /// All connections together get at most this rate, each way its own.
    Bandwidth {
        /// Which way.
        direction: Direction,
        /// Bytes per second.
        rate: Bandwidth,
        /// Of connections.
        #[serde(default = "whole")]
        share: Share,
    },
    /// Nothing passes, nothing is lost: bytes wait in the kernel until the fault ends.
    Blackhole {
        /// Which way.
        direction: Direction,
        /// Of connections.
        #[serde(default = "whole")]
        share: Share,
    },
    /// Connections are torn down with RST.
    Reset {
        /// Which way `after` counts.
        direction: Direction,
        /// At once, or once this many bytes have passed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after: Option<Size>,
        /// Of connections.
        share: Share,
    },
    /// New connections are refused; those that exist go on.
    Refuse,
    /// The end of the stream arrives late.
    SlowClose {
        /// Which way the end travels.
        direction: Direction,
        /// How late.
        delay: Span,
        /// Of connections.
        #[serde(default = "whole")]
        share: Share,
    },
    /// Chunks are cut into pieces with pauses between them.
    Slice {
        /// Which way.
        direction: Direction,
        /// Bytes per piece.
        size: Size,
        /// The size varies evenly by this much.
        #[serde(default)]
        variation: Size,
        /// The pause between two pieces.
        delay: Span,
        /// Of connections.
        #[serde(default = "whole")]
        share: Share,
    },
    /// A connection is closed after this many bytes.
    LimitData {
        /// Which way the bytes are counted.
        direction: Direction,
        /// How many pass.
        bytes: Size,
        /// Of connections.
        #[serde(default = "whole")]
        share: Share,
    },
    /// The relay answers a matching request itself.
    HttpAbort {
        /// Which requests.
        #[serde(rename = "match", default)]
        matching: Match,
        /// The status of the answer.
        status: u16,
        /// Of matching requests.
        share: Share,
    },
    /// A matching request is held for a while before it is forwarded.
    HttpDelay {
        /// Which requests.
        #[serde(rename = "match", default)]
        matching: Match,
        /// How long.
        #[serde(flatten)]
        scatter: Scatter,
        /// Of matching requests.
        #[serde(default = "whole")]
        share: Share,
    },
    /// The body of a response ends after some bytes, with the connection.
    HttpTruncate {
        /// Which requests.
        #[serde(rename = "match", default)]
        matching: Match,
        /// Bytes of the body, as sent, that still pass.
        bytes: Size,
        /// Of those responses to matching requests whose body is longer.
        share: Share,
    },
    /// Header fields are set or removed.
    HttpHeader {
        /// Which requests.
        #[serde(rename = "match", default)]
        matching: Match,
        /// Of the request or of its response.
        on: Head,
        /// Names and values that replace what is there.
        #[serde(default)]
        set: BTreeMap<String, String>,
        /// Names that are taken out.
        #[serde(default)]
        remove: Vec<String>,
        /// Of matching requests.
        #[serde(default = "whole")]
        share: Share,
    },
}

/// Header fields that carry the framing of a message; changing them would desynchronise the connection.
const FRAMING: [&str; 5] = ["content-length", "transfer-encoding", "connection", "upgrade", "expect"];
/// The longest delay that a relay accepts.
const DELAY_MAX: Duration = Duration::from_hours(1);
/// Why a delay of nothing is refused: every measurement would confirm it.
const ZERO: &str = "a delay of nothing hurts nobody: it must be longer than zero";

impl RelayFault {
    /// The kind as written in `kind`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Latency { .. } => "latency",
            Self::Bandwidth { .. } => "bandwidth",
            Self::Blackhole { .. } => "blackhole",
            Self::Reset { .. } => "reset",
            Self::Refuse => "refuse",
            Self::SlowClose { .. } => "slow-close",
            Self::Slice { .. } => "slice",
            Self::LimitData { .. } => "limit-data",
            Self::HttpAbort { .. } => "http-abort",
            Self::HttpDelay { .. } => "http-delay",
            Self::HttpTruncate { .. } => "http-truncate",
            Self::HttpHeader { .. } => "http-header",
        }
    }

    /// Which way it works; `Both` where there is no choice.
    pub fn direction(&self) -> Direction {
        match self {
            Self::Latency { direction, .. }
            | Self::Bandwidth { direction, .. }
            | Self::Blackhole { direction, .. }
            | Self::Reset { direction, .. }
            | Self::SlowClose { direction, .. }
            | Self::Slice { direction, .. }
            | Self::LimitData { direction, .. } => *direction,
            _ => Direction::Both,
        }
    }

    /// The share of connections or of matching requests, above 0 and at most 1.
    pub fn share(&self) -> f64 {
        match self {
            Self::Latency { share, .. }
            | Self::Bandwidth { share, .. }
            | Self::Blackhole { share, .. }
            | Self::Reset { share, .. }
            | Self::SlowClose { share, .. }
            | Self::Slice { share, .. }
            | Self::LimitData { share, .. }
            | Self::HttpAbort { share, .. }
            | Self::HttpDelay { share, .. }
            | Self::HttpTruncate { share, .. }
            | Self::HttpHeader { share, .. } => share.0,
            Self::Refuse => 1.0,
        }
    }

    /// Which requests an HTTP fault means; absent for the faults of bytes and connections.
    pub fn matching(&self) -> Option<&Match> {
        match self {
            Self::HttpAbort { matching, .. }
            | Self::HttpDelay { matching, .. }
            | Self::HttpTruncate { matching, .. }
            | Self::HttpHeader { matching, .. } => Some(matching),
            _ => None,
        }
    }

    /// Whether a route of this protocol can carry it, and its numbers make sense.
    ///
    /// # Errors
    /// One sentence.
    pub fn check(&self, protocol: Protocol) -> Result<(), String> {
        if self.matching().is_some() && protocol != Protocol::Http {
            return Err(format!("{} needs a relay with `protocol: http`", self.kind()));
        }
        if !(self.share() > 0.0 && self.share() <= 1.0) {
            return Err("a share is above 0% and at most 100%".to_owned());
        }
        match self {
            Self::Latency { scatter, .. } | Self::HttpDelay { scatter, .. } => check_scatter(scatter),
            Self::SlowClose { delay, .. } if delay.0.is_zero() => Err(ZERO.to_owned()),
            Self::SlowClose { delay, .. } => check_delay(delay.0),
            Self::Bandwidth { rate, .. } if !(rate.0 >= 1.0 && rate.0.is_finite()) => {
                Err("a bandwidth below one byte per second is a blackhole".to_owned())
            }
            Self::Slice { size, variation, delay, .. } => {
                if size.0 == 0 || variation.0 >= size.0 {
                    return Err("slice needs a size above zero and a variation below the size".to_owned());
                }
                check_delay(delay.0)
            }
            Self::HttpAbort { status, .. } if !(200..=599).contains(status) => {
                Err(format!("status {status} is not from 200 to 599"))
            }
            Self::HttpHeader { set, remove, .. } => check_header_edits(set, remove),
            _ => Ok(()),
        }
    }
}

fn check_delay(delay: Duration) -> Result<(), String> {
    if delay > DELAY_MAX { Err("a delay of more than an hour".to_owned()) } else { Ok(()) }
}

fn check_scatter(scatter: &Scatter) -> Result<(), String> {
    if scatter.distribution != Distribution::Pareto && scatter.jitter > scatter.delay {
        return Err("the jitter is larger than the delay".to_owned());
    }
    if scatter.mean() == 0.0 {
        return Err(ZERO.to_owned());
    }
    check_delay(scatter.delay.0.max(scatter.jitter.0))
}

fn check_header_edits(set: &BTreeMap<String, String>, remove: &[String]) -> Result<(), String> {
    if set.is_empty() && remove.is_empty() {
        return Err("http-header needs `set` or `remove`".to_owned());
    }
    for name in set.keys().chain(remove) {
        let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        if name.is_empty() || !name.bytes().all(token) {
            return Err(format!("`{}` is no header name", name.escape_debug()));
        }
        if FRAMING.iter().any(|framing| name.eq_ignore_ascii_case(framing)) {
            return Err(format!("`{name}` frames the message and cannot be changed"));
        }
    }
    match set.values().find(|value| value.bytes().any(|b| b < b' ' && b != b'\t' || b == 0x7f)) {
        Some(value) => Err(format!("`{}` is no header value", value.escape_debug())),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> RelayFault {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_fault_survives_the_wire() {
        let fault = read(r#"{"kind":"latency","direction":"down","delay":0.2,"jitter":0.02}"#);
        assert_eq!(fault.kind(), "latency");
        assert_eq!(fault.share(), 1.0);
        let back = read(&serde_json::to_string(&fault).unwrap());
        assert_eq!(back, fault);
    }

    #[test]
    fn http_faults_need_an_http_route() {
        let fault = read(r#"{"kind":"http-abort","status":503,"share":0.5}"#);
        assert!(fault.check(Protocol::Tcp).unwrap_err().contains("protocol: http"));
        assert_eq!(fault.check(Protocol::Http), Ok(()));
    }

    #[test]
    fn senseless_numbers_are_refused() {
        for text in [
            r#"{"kind":"latency","direction":"up","delay":0.1,"jitter":0.2}"#,
            r#"{"kind":"latency","direction":"up","delay":4000}"#,
            r#"{"kind":"latency","direction":"up","delay":0}"#,
            r#"{"kind":"http-delay","delay":0}"#,
            r#"{"kind":"slow-close","direction":"up","delay":0}"#,
            r#"{"kind":"reset","direction":"up","share":0}"#,
            r#"{"kind":"http-abort","status":503,"share":0}"#,
            r#"{"kind":"reset","direction":"up","share":1.5}"#,
            r#"{"kind":"bandwidth","direction":"up","rate":0}"#,
            r#"{"kind":"slice","direction":"up","size":10,"variation":10,"delay":0}"#,
            r#"{"kind":"http-abort","status":101,"share":1}"#,
            r#"{"kind":"http-header","on":"request"}"#,
            r#"{"kind":"http-header","on":"request","set":{"Content-Length":"1"}}"#,
            r#"{"kind":"http-header","on":"request","set":{"a b":"1"}}"#,
            r#"{"kind":"http-header","on":"request","set":{"a":"1\r\nb: 2"}}"#,
        ] {
            assert!(read(text).check(Protocol::Http).is_err(), "{text} passed");
        }
    }
}
