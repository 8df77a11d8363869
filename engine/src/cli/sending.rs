//! What `load` and `capacity` send: one request, from the command line.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use injectors::units::{Rate, Span};
use reports::record::Objective;

use super::idle::draws;
use crate::experiment::{here, objective};
use crate::feed::{BYTES_MAX, Feed, Format, Order};
use crate::load::{
    Body, CONNECTIONS_MAX, HttpVersion, Identity, LoadSpec, PROTOSET_MAX, Protoset, Reply, RequestSpec,
    STREAMS_MAX, TlsSpec,
};
use crate::reading;
use crate::schedule::Profile;
use crate::template::OWN;

/// The most bytes of a body or of certificates.
const FILE_MAX: usize = 16 << 20;
/// The usual number of requests that a connection carries at a time.
const STREAMS: u32 = 100;
/// What the one load is called.
pub(super) const NAME: &str = "load";

/// What is sent.
#[derive(Debug, Args)]
pub(super) struct SendingArgs {
    /// What is asked for: http:// or https://; grpc:// or grpcs:// for a unary call, whose message is the body; tcp://,
    /// tls:// or udp:// for bytes and a reply; dns://RESOLVER/NAME?type=A
    pub(super) url: String,
    /// A clause that must hold, such as 'p99 <= 100ms' or 'availability >= 99.9%'; may be given several times
    #[arg(long = "objective", value_name = "CLAUSE", help_heading = "Judging")]
    objectives: Vec<String>,
    /// GET, POST, …
    #[arg(long, value_name = "WORD", default_value = "GET", help_heading = "Requests")]
    method: String,
    /// A header field, `name: value`; may be given several times. Its value is never printed
    #[arg(long = "header", value_name = "FIELD", help_heading = "Requests")]
    headers: Vec<String>,
    /// The body, or @FILE for what is in a file, sent as it is
    #[arg(long, value_name = "TEXT", help_heading = "Requests")]
    body: Option<String>,
    /// A file whose ${…} are filled in for each request: the body
    #[arg(long, value_name = "FILE", help_heading = "Requests", conflicts_with = "body")]
    body_template: Option<PathBuf>,
    /// A descriptor set, as protoc --include_imports --descriptor_set_out=FILE writes it: the body of a gRPC call is then
    /// its message in JSON, and 'json …' expects something of the answer's
    #[arg(long, value_name = "FILE", help_heading = "Requests")]
    protoset: Option<PathBuf>,
    /// Rows of data: with users=users.csv, ${users.id} stands for its column id, in the URL, headers and body. CSV or
    /// JSON lines; end it with ,random or ,unique for another order. ${counter}, ${uuid} and ${random.1..100} need none
    #[arg(long = "feed", value_name = "NAME=FILE", help_heading = "Requests")]
    feeds: Vec<String>,
    /// Good statuses: 200, 2xx or 200-204; may be given several times [default: 200-399]
    #[arg(long = "status", value_name = "CODE", help_heading = "Requests")]
    statuses: Vec<String>,
    /// What a good answer has: 'header etag', 'header x-cache = HIT', 'header content-type contains json', 'body contains
    /// TEXT', 'json /items/0/id', 'json /ok = true'; may be given several times
    #[arg(long = "expect", value_name = "CLAUSE", help_heading = "Requests")]
    expects: Vec<String>,
    /// Where a reply ends, over tcp, tls and udp: echo (it is what was sent), first (with whatever comes first), a number of
    /// bytes, or until:TEXT
    #[arg(long, value_name = "END", default_value = "echo", value_parser = reply, help_heading = "Requests")]
    reply: Reply,
    /// The time for a complete answer, from the intended time
    #[arg(long, value_name = "TIME", default_value = "2s", help_heading = "Requests")]
    deadline: Span,
    /// Arrivals at random, independent of each other, instead of evenly spaced
    #[arg(long, help_heading = "Requests")]
    poisson: bool,
    /// The most connections; beyond it requests wait, and their time runs
    #[arg(long, value_name = "N", default_value_t = 1000, help_heading = "Connections",
          value_parser = clap::value_parser!(u32).range(1..=i64::from(CONNECTIONS_MAX)))]
    connections: u32,
    /// What happens to a request that finds every connection busy: it waits (queue), or it fails at once (shed)
    #[arg(long, value_name = "WORD", default_value = "queue", help_heading = "Connections",
          value_parser = ["queue", "shed"])]
    when_busy: String,
    /// Start each request within microseconds of its time, on a core that is never idle
    #[arg(long, help_heading = "Requests")]
    exact: bool,
    /// A connection for each request
    #[arg(long, help_heading = "Connections")]
    no_reuse: bool,
    /// The time for a connection to be there, TLS included
    #[arg(long, value_name = "TIME", default_value = "1s", help_heading = "Connections")]
    connect_timeout: Span,
    /// Which HTTP is spoken: 1 (HTTP/1.1), 2 or 3; 2 without TLS is begun by prior knowledge (h2c), 3 wants https://
    #[arg(long, value_name = "N", default_value = "1", value_parser = version, help_heading = "Connections")]
    http: HttpVersion,
    /// The most requests that a connection carries at a time, over HTTP/2, HTTP/3 or gRPC
    #[arg(long, value_name = "N", default_value_t = STREAMS, help_heading = "Connections",
          value_parser = clap::value_parser!(u32).range(1..=i64::from(STREAMS_MAX)))]
    streams: u32,
    /// Connect to this Unix socket, whatever host the URL names
    #[arg(long, value_name = "PATH", help_heading = "Connections")]
    unix_socket: Option<PathBuf>,
    /// Connect from this address of this machine; several take turns, each with ports of its own
    #[arg(long = "source", value_name = "ADDRESS", help_heading = "Connections")]
    sources: Vec<IpAddr>,
    /// Trust these certificates as well (PEM)
    #[arg(long, value_name = "FILE", help_heading = "Connections")]
    ca: Option<PathBuf>,
    /// Trust any certificate
    #[arg(long, help_heading = "Connections")]
    insecure: bool,
    /// Ask for this name in TLS, and verify it, instead of the URL's host
    #[arg(long, value_name = "NAME", help_heading = "Connections")]
    server_name: Option<String>,
    /// The certificate (PEM, with its chain) to show to servers that ask for one
    #[arg(long, value_name = "FILE", requires = "key", help_heading = "Connections")]
    cert: Option<PathBuf>,
    /// Its key (PEM)
    #[arg(long, value_name = "FILE", requires = "cert", help_heading = "Connections")]
    key: Option<PathBuf>,
    /// A full TLS handshake for each connection, instead of resuming earlier sessions
    #[arg(long, help_heading = "Connections")]
    no_resume: bool,
    /// A host beyond this machine that is yours to load; may be given several times
    #[arg(long = "allow-host", value_name = "HOST", help_heading = "Connections")]
    allowed: Vec<String>,
    /// Send no ten requests a second beside the load, which tell whether a queue is the target's or the generator's
    #[arg(long, help_heading = "Requests")]
    no_probe: bool,
    /// Repeat the random choices of an earlier load
    #[arg(long, value_name = "N")]
    pub(super) seed: Option<u64>,
}

impl SendingArgs {
    /// The load with these arrivals.
    ///
    /// # Errors
    /// What is wrong, in one sentence.
    pub(super) fn spec(&self, profile: Profile) -> Result<LoadSpec, String> {
        self.unused()?;
        if self.unix_socket.is_none() {
            self.allow()?;
        }
        let mut request = RequestSpec::get(&self.url);
        // It is named in messages: without what may be secret.
        request.name = plain(&self.url);
        request.method.clone_from(&self.method);
        request.reply.clone_from(&self.reply);
        request.headers = self.headers.iter().map(|field| header(field)).collect::<Result<_, _>>()?;
        if let Some(body) = &self.body {
            request.body = match body.strip_prefix('@') {
                Some(path) => Body::Bytes(file(path.as_ref()).map_err(|error| format!("--body: {error}"))?),
                None => Body::Text(body.clone()),
            };
        }
        if let Some(path) = &self.body_template {
            let text = file(path).and_then(reading::text);
            request.body = Body::Text(text.map_err(|error| format!("--body-template: {error}"))?);
        }
        for clause in &self.expects {
            request.expect.add(clause).map_err(|error| format!("--expect: {error}"))?;
        }
        if !self.statuses.is_empty() {
            let statuses: Result<Vec<_>, _> = self.statuses.iter().map(|text| status(text)).collect();
            request.expect.statuses = statuses?;
        }
        let pem = |option: &str, path: &Option<PathBuf>| {
            let text = |path: &PathBuf| file(path).and_then(reading::text);
            path.as_ref().map(|path| text(path).map_err(|error| format!("{option}: {error}"))).transpose()
        };
        let identity = pem("--cert", &self.cert)?.zip(pem("--key", &self.key)?);
        let mut spec = LoadSpec::new(NAME, vec![request], profile);
        spec.feeds = self.feeds.iter().map(|text| feed(text).map(Arc::new)).collect::<Result<_, _>>()?;
        if let Some(path) = &self.protoset {
            let bytes = reading::bytes(path, PROTOSET_MAX)
                .map_err(|error| format!("--protoset: {}: {error}", path.display()))?;
            spec.protoset = Some(Arc::new(Protoset(bytes)));
        }
        spec.poisson = self.poisson;
        spec.reuse = !self.no_reuse;
        spec.max_connections = self.connections;
        spec.deadline = self.deadline.0;
        spec.connect_timeout = self.connect_timeout.0;
        spec.shed = self.when_busy == "shed";
        spec.exact = self.exact;
        spec.http = self.http;
        spec.streams = self.streams;
        spec.unix.clone_from(&self.unix_socket);
        spec.sources.clone_from(&self.sources);
        spec.tls = TlsSpec {
            ca: pem("--ca", &self.ca)?,
            insecure: self.insecure,
            server_name: self.server_name.clone(),
            identity: identity.map(|(certificate, key)| Identity { certificate, key }),
            resume: !self.no_resume,
        };
        Self::unused_feeds(&spec)?;
        Ok(spec)
    }

    /// Refuses options that would have no effect: whoever writes them expects one.
    fn unused(&self) -> Result<(), String> {
        let scheme = self.url.split("://").next().unwrap_or_default();
        let tls = matches!(scheme, "https" | "grpcs" | "tls");
        let http = matches!(scheme, "http" | "https");
        let bytes = matches!(scheme, "tcp" | "tls" | "udp");
        let datagrams = matches!(scheme, "udp" | "dns");
        let body = self.body.is_some() || self.body_template.is_some();
        for (given, used, option, why) in [
            (self.ca.is_some(), tls, "--ca", "there is no TLS: write https, grpcs or tls"),
            (self.insecure, tls, "--insecure", "there is no TLS: write https, grpcs or tls"),
            (self.server_name.is_some(), tls, "--server-name", "there is no TLS: write https, grpcs or tls"),
            (self.cert.is_some(), tls, "--cert", "there is no TLS: write https, grpcs or tls"),
            (self.no_resume, tls, "--no-resume", "there is no TLS: write https, grpcs or tls"),
            (
                body,
                scheme != "dns",
                "--body",
                "a DNS query has none: its name is the path, its type the query",
            ),
            (
                self.protoset.is_some(),
                scheme.starts_with("grpc"),
                "--protoset",
                "only gRPC has such messages",
            ),
            (self.method != "GET", http, "--method", "only http and https have methods"),
            (self.http != HttpVersion::One, http, "--http", "only http and https speak it"),
            (
                self.streams != STREAMS,
                matches!(scheme, "grpc" | "grpcs") || http && self.http != HttpVersion::One,
                "--streams",
                "only HTTP/2, HTTP/3 and gRPC have streams: write --http 2",
            ),
            (
                self.reply != Reply::Echo,
                bytes,
                "--reply",
                "only tcp, tls and udp have replies without a form of their own",
            ),
            (self.no_reuse, !datagrams, "--no-reuse", "there are no connections"),
            (
                !self.sources.is_empty(),
                self.unix_socket.is_none(),
                "--source",
                "a Unix socket has no addresses",
            ),
        ] {
            if given && !used {
                return Err(format!("{option} has no effect on {scheme}: {why}; or leave it out"));
            }
        }
        if self.ca.is_some() && self.insecure {
            return Err(
                "--ca has no effect: --insecure trusts any certificate; leave one of them out".to_owned()
            );
        }
        Ok(())
    }

    /// Refuses feeds of which no row is ever used. A slot that nobody knows is told where slots are read: it may be what
    /// was meant.
    fn unused_feeds(spec: &LoadSpec) -> Result<(), String> {
        let known = |slot: &str| {
            let word = slot.split(['.', '}']).next().unwrap_or_default();
            OWN.contains(&word) || spec.feeds.iter().any(|feed| feed.name() == word)
        };
        let request = &spec.requests[0];
        let body = if let Body::Text(text) = &request.body { text } else { "" };
        let headers = request.headers.iter().map(|(_, value)| value.as_str());
        let mut slots = headers.chain([request.url.as_str(), body]).flat_map(|text| text.split("${").skip(1));
        if !slots.all(known) {
            return Ok(());
        }
        match spec.feeds.iter().find(|feed| !draws(spec, feed.name())) {
            None => Ok(()),
            Some(feed) => Err(format!(
                "--feed {name} has no effect: no ${{{name}.COLUMN}} is in the URL, a header or the body; write one, or leave it \
                 out",
                name = feed.name()
            )),
        }
    }

    /// Refuses hosts beyond this machine that nobody has named.
    fn allow(&self) -> Result<(), String> {
        let host = crate::load::host(&self.url)?;
        here(&host, &self.allowed).map_err(|bare| {
            format!("`{bare}` is not this machine: if it is yours to load, say so with --allow-host {bare}")
        })
    }

    /// Whether a probe beside the load may be sent.
    pub(super) fn probes(&self) -> bool {
        !self.no_probe
    }

    /// What must hold.
    ///
    /// # Errors
    /// What is wrong with a clause.
    pub(super) fn objectives(&self) -> Result<Vec<Objective>, String> {
        let read = |text: &String| objective(NAME, text).map_err(|error| format!("--objective: {error}"));
        self.objectives.iter().map(read).collect()
    }

    /// The clauses that must hold, as written.
    pub(super) fn clauses(&self) -> &[String] {
        &self.objectives
    }

    /// The options that make this load again, without what may be secret.
    pub(super) fn again(&self) -> String {
        let mut words = vec![quoted(&plain(&self.url))];
        let mut option = |name: &str, value: &str| words.push(format!("--{name} {}", quoted(value)));
        if self.method != "GET" {
            option("method", &self.method);
        }
        for field in &self.headers {
            option("header", &format!("{}: …", field.split(':').next().unwrap_or_default()));
        }
        if self.body.is_some() {
            option("body", "…");
        }
        if let Some(path) = &self.body_template {
            option("body-template", &path.display().to_string());
        }
        if let Some(path) = &self.protoset {
            option("protoset", &path.display().to_string());
        }
        self.feeds.iter().for_each(|text| option("feed", text));
        self.expects.iter().for_each(|text| {
            let known = text.split('=').next().unwrap_or_default();
            let known = known.split(" contains ").next().unwrap_or_default();
            option("expect", &if known == text { text.clone() } else { format!("{} …", known.trim()) });
        });
        self.statuses.iter().for_each(|text| option("status", text));
        self.objectives.iter().for_each(|text| option("objective", text));
        option("deadline", &self.deadline.to_string());
        option("connections", &self.connections.to_string());
        let http = match self.http {
            HttpVersion::One => None,
            HttpVersion::Two => Some("2"),
            HttpVersion::Three => Some("3"),
        };
        if let Some(version) = http {
            option("http", version);
            option("streams", &self.streams.to_string());
        }
        match &self.reply {
            Reply::Echo => {}
            Reply::First => option("reply", "first"),
            Reply::Bytes(count) => option("reply", &count.to_string()),
            Reply::Until(_) => option("reply", "until:…"),
        }
        if let Some(path) = &self.unix_socket {
            option("unix-socket", &path.display().to_string());
        }
        self.sources.iter().for_each(|source| option("source", &source.to_string()));
        let files = [("ca", &self.ca), ("cert", &self.cert), ("key", &self.key)];
        for (name, path) in files.into_iter().filter_map(|(name, path)| Some((name, path.as_ref()?))) {
            option(name, &path.display().to_string());
        }
        if let Some(name) = &self.server_name {
            option("server-name", name);
        }
        for (on, name) in [
            (self.poisson, "--poisson"),
            (self.no_reuse, "--no-reuse"),
            (self.insecure, "--insecure"),
            (self.no_resume, "--no-resume"),
            (self.exact, "--exact"),
            (self.when_busy == "shed", "--when-busy shed"),
            (self.no_probe, "--no-probe"),
        ] {
            if on {
                words.push(name.to_owned());
            }
        }
        words.join(" ")
    }
}

/// A URL without its query and without user name and password.
fn plain(url: &str) -> String {
    let bare = url.split('?').next().unwrap_or_default();
    let Some((scheme, rest)) = bare.split_once("://") else { return bare.to_owned() };
    let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    format!("{scheme}://{host}{path}")
}

/// A word as a shell reads it.
pub(super) fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@%+=,".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

/// `NAME=FILE`, `NAME=FILE,random` or `NAME=FILE,unique`.
fn feed(text: &str) -> Result<Feed, String> {
    let (name, rest) =
        text.split_once('=').ok_or_else(|| format!("--feed: write NAME=FILE instead of `{text}`"))?;
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
    if name.is_empty() || !name.chars().all(fits) || OWN.contains(&name) {
        return Err(format!("--feed: `{name}` is no name for a feed: use small letters, digits, dashes"));
    }
    let word = rest.rsplit_once(',').and_then(|(path, word)| {
        Order::WORDS.iter().find(|(known, _)| *known == word).map(|(_, order)| (path, *order))
    });
    let (path, order) = word.unwrap_or((rest, Order::default()));
    let bytes = reading::bytes(path.as_ref(), BYTES_MAX).map_err(|error| error.to_string());
    bytes
        .and_then(reading::text)
        .and_then(|text| Feed::parse(name, order, Format::of_name(path), &text))
        .map_err(|why| format!("--feed {name}: {path}: {why}"))
}

fn header(field: &str) -> Result<(String, String), String> {
    let (name, value) =
        field.split_once(':').ok_or("--header: write it as `name: value` (what was given has no colon)")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

fn file(path: &std::path::Path) -> Result<Vec<u8>, String> {
    reading::bytes(path, FILE_MAX).map_err(|error| format!("{}: {error}", path.display()))
}

fn status(text: &str) -> Result<std::ops::RangeInclusive<u16>, String> {
    crate::experiment::status(text)
        .map(|(from, to)| from..=to)
        .ok_or_else(|| format!("--status: `{text}` is no status; write 200, 2xx or 200-204"))
}

fn reply(text: &str) -> Result<Reply, String> {
    match (text, text.strip_prefix("until:")) {
        ("echo", _) => Ok(Reply::Echo),
        ("first", _) => Ok(Reply::First),
        (_, Some(end)) => Ok(Reply::Until(end.replace("\\r", "\r").replace("\\n", "\n"))),
        _ => text.parse().map(Reply::Bytes).map_err(|_| {
            format!(
                "`{text}` is none: write echo, first, a number of bytes, or until:TEXT (such as until:\\n)"
            )
        }),
    }
}

fn version(text: &str) -> Result<HttpVersion, String> {
    match text {
        "1" | "1.1" => Ok(HttpVersion::One),
        "2" => Ok(HttpVersion::Two),
        "3" => Ok(HttpVersion::Three),
        _ => Err(format!("`{text}` is none that squall speaks: write 1, 2 or 3")),
    }
}

/// A rate as written, or a plain number of requests per second.
pub(super) fn rate(text: &str) -> Result<Rate, String> {
    match text.parse::<f64>() {
        Ok(_) => Err(format!("`{text}` has no unit: write {text}/s")),
        Err(_) => text.parse::<Rate>().map_err(|error| {
            let digits =
                text.rsplit_once('/').and_then(|(number, unit)| Some((number.parse::<f64>().ok()?, unit)));
            match digits {
                // `1e3/s` is a number, but not as rates are written.
                Some((number, unit)) if text.contains(['e', 'E']) && number.is_finite() => {
                    format!(
                        "`{text}`: write the number with all its digits ({number}/{unit}), at most 10000000/s"
                    )
                }
                _ => error.to_string(),
            }
        }),
    }
}
