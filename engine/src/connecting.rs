//! How a load connects, as data: which HTTP, how many requests per connection, from where, with which trust, and where a
//! reply ends.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The most streams of one connection.
pub const STREAMS_MAX: u32 = 1000;
/// The most source addresses of one load.
pub const SOURCES_MAX: usize = 256;
/// The largest descriptor set, in bytes.
pub const PROTOSET_MAX: usize = 4 << 20;

/// How a load connects.
#[derive(Debug, Clone, PartialEq)]
pub struct Connecting {
    /// Which HTTP is spoken with `http://` and `https://`.
    pub http: HttpVersion,
    /// The most requests that a connection carries at a time.
    pub streams: u32,
    /// A Unix socket in place of the URL's host.
    pub unix: Option<PathBuf>,
    /// The addresses that connections come from, in turn.
    pub sources: Vec<IpAddr>,
    /// What is trusted and shown.
    pub tls: TlsSpec,
    /// A request that finds every connection busy fails at once.
    pub shed: bool,
    /// Requests start within microseconds of their time, on a core that is never idle.
    pub exact: bool,
    /// What messages of gRPC calls are.
    pub protoset: Option<Arc<Protoset>>,
}

/// A descriptor set (`FileDescriptorSet`), as `protoc --include_imports --descriptor_set_out=FILE` writes it: what the
/// messages of gRPC calls are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Protoset(#[serde(with = "crate::load::remote::base64")] pub Vec<u8>);

/// Which HTTP is spoken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum HttpVersion {
    /// HTTP/1.1.
    #[default]
    One,
    /// HTTP/2: agreed upon within TLS, by prior knowledge (h2c) without.
    Two,
    /// HTTP/3, over QUIC: within TLS only.
    Three,
}

/// How servers are trusted, and what they are shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsSpec {
    /// Certificates in PEM, trusted besides the system's.
    pub ca: Option<String>,
    /// Trust every certificate.
    pub insecure: bool,
    /// The name to ask for and to verify, instead of the URL's host.
    pub server_name: Option<String>,
    /// The certificate (PEM, with its chain) and the key (PEM) that servers are shown.
    pub identity: Option<Identity>,
    /// Resume sessions of earlier connections, as browsers do; otherwise each handshake is a full one.
    pub resume: bool,
}

impl Default for TlsSpec {
    /// The system's certificates, no identity, with resumption.
    fn default() -> Self {
        Self { ca: None, insecure: false, server_name: None, identity: None, resume: true }
    }
}

/// A client's certificate and key, in PEM.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// The certificate, with its chain.
    pub certificate: String,
    /// The key.
    pub key: String,
}

impl std::fmt::Debug for Identity {
    /// The key stays secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").finish_non_exhaustive()
    }
}

/// Where a reply ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// It is what was sent.
    Echo,
    /// After so many bytes.
    Bytes(u64),
    /// With this text.
    Until(String),
    /// With whatever comes first.
    First,
}
