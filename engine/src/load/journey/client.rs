//! The one door to reqwest: a request, and what became of it.

use std::collections::BTreeSet;
use std::error::Error as _;
use std::io;

use hyper::header::HeaderMap;
pub(super) use reqwest::Url;
use reqwest::redirect::Policy;

use super::JourneySpec;
use crate::journey::{BODY_MAX, Script};
use crate::load::http::{Needle, Search};
use crate::load::origin;
use crate::load::wire::Protocol;
use crate::load::{ErrorClass, OriginError};

/// What all users of a load send through: one pool of connections, without cookies of its own.
#[derive(Debug, Clone)]
pub(super) struct Client(reqwest::Client);

/// A complete answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    /// Its first [`BODY_MAX`] bytes, if they were asked for.
    pub(super) body: Vec<u8>,
    /// Whether these are all.
    pub(super) whole: bool,
    /// Whether the text that was looked for is somewhere in it.
    pub(super) contains: bool,
}

impl Client {
    /// # Errors
    /// A host has no address, or a certificate cannot be read.
    pub(super) async fn new(script: &Script, spec: &JourneySpec) -> Result<Self, OriginError> {
        let wrong = |error: reqwest::Error| OriginError::Tls(error.to_string());
        let mut builder = reqwest::Client::builder()
            .redirect(Policy::none())
            .no_proxy()
            .no_gzip()
            .connect_timeout(spec.connect_timeout)
            .tcp_nodelay(true)
            .user_agent(concat!("squall/", env!("CARGO_PKG_VERSION")))
            .tls_backend_preconfigured(origin::config(&spec.tls, Protocol::Http1)?);
        let urls =
            script.asks.iter().filter_map(|ask| Url::parse(&ask.words[ask.method.as_str().len() + 1..]).ok());
        let hosts: BTreeSet<(String, u16)> = urls
            .filter_map(|url| Some((url.host_str()?.to_owned(), url.port_or_known_default()?)))
            .filter(|(host, _)| !host.starts_with('['))
            .collect();
        // Once, like those of the open model; addresses need no resolver.
        for (host, port) in hosts.iter().filter(|(host, _)| host.parse::<std::net::IpAddr>().is_err()) {
            let addresses = origin::resolve(host, *port).await?;
            builder = builder.resolve_to_addrs(host, &addresses);
        }
        Ok(Self(builder.build().map_err(wrong)?))
    }

    /// Sends a request and reads its answer to the end. The caller sets the deadline.
    pub(super) async fn ask(
        &self,
        method: hyper::Method,
        url: Url,
        headers: HeaderMap,
        body: Option<Vec<u8>>,
        keep: bool,
        needle: Option<&Needle>,
    ) -> Result<Answer, ErrorClass> {
        let mut request = self.0.request(method, url).headers(headers);
        if let Some(body) = body {
            request = request.body(body);
        }
        let mut response = request.send().await.map_err(|error| class(&error))?;
        let (status, headers) = (response.status().as_u16(), std::mem::take(response.headers_mut()));
        let (mut body, mut whole, mut search) = (Vec::new(), keep, Search::default());
        while let Some(chunk) = response.chunk().await.map_err(|error| class(&error))? {
            if let Some(needle) = needle {
                search.feed(needle, &chunk);
            }
            if keep {
                let room = BODY_MAX - body.len();
                body.extend_from_slice(&chunk[..room.min(chunk.len())]);
                whole &= chunk.len() <= room;
            }
        }
        let contains = needle.is_none_or(|needle| search.found(needle));
        Ok(Answer { status, headers, body, whole, contains })
    }
}

/// The class of a failure: what lies at the bottom of it.
fn class(error: &reqwest::Error) -> ErrorClass {
    if error.is_connect() && error.is_timeout() {
        return ErrorClass::ConnectTimeout;
    }
    if error.is_builder() {
        return ErrorClass::Data;
    }
    let mut source = error.source();
    let mut seen = ErrorClass::Reset;
    while let Some(inner) = source {
        if inner.is::<rustls::Error>() {
            return ErrorClass::Tls;
        }
        if inner.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse) {
            seen = ErrorClass::Protocol;
        }
        if let Some(io) = inner.downcast_ref::<io::Error>() {
            let tls = matches!(io.get_ref(), Some(inner) if inner.is::<rustls::Error>());
            return match (tls, error.is_connect()) {
                (true, _) => ErrorClass::Tls,
                (false, true) => ErrorClass::of_connect(io),
                (false, false) => ErrorClass::of_stream(io),
            };
        }
        source = inner.source();
    }
    seen
}
