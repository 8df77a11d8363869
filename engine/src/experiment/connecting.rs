//! Reading how a load connects: which HTTP, how many requests per connection, from where, with which trust.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use super::Sources;
use super::reader::{Fields, Reader};
use super::yaml::Node;
use crate::connecting::{
    Connecting, HttpVersion, Identity, PROTOSET_MAX, Protoset, Reply, SOURCES_MAX, STREAMS_MAX, TlsSpec,
};

/// The schemes of a load's URLs.
pub(super) const SCHEMES: [&str; 8] =
    ["http://", "https://", "grpc://", "grpcs://", "tcp://", "tls://", "udp://", "dns://"];

/// Reads it from the fields of `open`.
pub(super) fn read(reader: &Reader<'_>, open: &Fields<'_, '_>, sources: &dyn Sources) -> Option<Connecting> {
    let http = open.optional("http").map_or(Some(HttpVersion::One), |node| {
        let versions = [
            ("1", HttpVersion::One),
            ("1.1", HttpVersion::One),
            ("2", HttpVersion::Two),
            ("3", HttpVersion::Three),
        ];
        reader.choice(node, "http", &versions)
    });
    let streams =
        open.optional("streams").map_or(Some(100), |node| reader.within(node, "streams", 1..=STREAMS_MAX));
    let unix = open
        .optional("unix-socket")
        .map_or(Some(None), |node| reader.text(node, "unix-socket").map(|path| Some(PathBuf::from(path))));
    let from = open.optional("sources").map_or(Some(Vec::new()), |node| {
        let items = reader.list(node, "sources");
        if items.len() > SOURCES_MAX {
            reader.mistake(node.id, format!("more than {SOURCES_MAX} sources"));
            return None;
        }
        items.iter().map(|item| reader.parse::<IpAddr>(item, "a source")).collect()
    });
    let tls = open.optional("tls").map_or(Some(TlsSpec::default()), |node| tls(reader, node, sources));
    let shed = open
        .optional("when-busy")
        .map_or(Some(false), |node| reader.choice(node, "when-busy", &[("queue", false), ("shed", true)]));
    let exact = open.optional("exact").map_or(Some(false), |node| reader.flag(node, "exact"));
    let protoset = open.optional("protoset").map_or(Some(None), |node| {
        let path = reader.text(node, "protoset")?;
        let read = sources.bytes(&path, PROTOSET_MAX).map_err(|error| format!("protoset: {path}: {error}"));
        read.map_err(|why| reader.mistake(node.id, why)).ok().map(|bytes| Some(Arc::new(Protoset(bytes))))
    });
    Some(Connecting {
        http: http?,
        streams: streams?,
        unix: unix?,
        sources: from?,
        tls: tls?,
        shed: shed?,
        exact: exact?,
        protoset: protoset?,
    })
}

/// The same for a journey, whose users speak HTTP/1.1.
pub(super) fn of_journey(
    reader: &Reader<'_>,
    fields: &Fields<'_, '_>,
    sources: &dyn Sources,
) -> Option<Connecting> {
    let tls = fields.optional("tls").map_or(Some(TlsSpec::default()), |node| {
        let tls = tls(reader, node, sources)?;
        if tls.server_name.is_some() {
            reader
                .mistake(node.id, "a journey asks for the name that is in its URLs: leave out `server-name`");
        }
        Some(tls)
    });
    let (http, unix, sources) = (HttpVersion::One, None, Vec::new());
    Some(Connecting { http, streams: 1, unix, sources, tls: tls?, shed: false, exact: false, protoset: None })
}

fn tls(reader: &Reader<'_>, node: &Node, sources: &dyn Sources) -> Option<TlsSpec> {
    let fields = reader.map(node, "tls")?;
    let file = |name: &'static str| {
        fields.optional(name).map_or(Some(None), |node| {
            let path = reader.text(node, name)?;
            let read = sources.read(&path).map_err(|error| format!("{name}: {path}: {error}"));
            read.map_err(|why| reader.mistake(node.id, why)).ok().map(Some)
        })
    };
    let flag = |name: &'static str, default: bool| {
        fields.optional(name).and_then(|node| reader.flag(node, name)).unwrap_or(default)
    };
    let (ca, certificate, key) = (file("ca"), file("certificate"), file("key"));
    let (insecure, resume) = (flag("insecure", false), flag("resume", true));
    let server_name = fields.optional("server-name").and_then(|node| reader.text(node, "server-name"));
    fields.finish("tls");
    let identity = match (certificate?, key?) {
        (Some(certificate), Some(key)) => Some(Identity { certificate, key }),
        (None, None) => None,
        _ => {
            reader.mistake(node.id, "tls: `certificate` and `key` belong together");
            return None;
        }
    };
    Some(TlsSpec { ca: ca?, insecure, server_name, identity, resume })
}

/// `echo`, `first`, `{bytes: N}` or `{until: TEXT}`.
pub(super) fn reply(reader: &Reader<'_>, node: &Node) -> Option<Reply> {
    if !matches!(node.content, super::yaml::Content::Map(_)) {
        let echo = reader.choice(node, "reply", &[("echo", true), ("first", false)])?;
        return Some(if echo { Reply::Echo } else { Reply::First });
    }
    let fields = reader.map(node, "reply")?;
    let bytes = fields.optional("bytes").and_then(|node| reader.parse::<u64>(node, "bytes"));
    let until = fields.optional("until").and_then(|node| reader.text(node, "until"));
    fields.finish("reply");
    match (bytes, until) {
        (Some(bytes), None) => Some(Reply::Bytes(bytes)),
        (None, Some(text)) => Some(Reply::Until(text)),
        _ => {
            reader.mistake(node.id, "reply is `echo`, `first`, `{bytes: 64}` or `{until: \"\\n\"}`");
            None
        }
    }
}
