//! What `load` and `capacity` send: one request, from the command line.

use std::path::PathBuf;

use clap::Args;
use injectors::units::{Rate, Span};
use reports::record::Objective;

use crate::experiment::{here, objective};
use crate::load::{CONNECTIONS_MAX, Expect, LoadSpec, RequestSpec, TlsSpec};
use crate::reading;
use crate::schedule::Profile;

/// The most bytes of a body or of certificates.
const FILE_MAX: usize = 16 << 20;
/// What the one load is called.
pub(super) const NAME: &str = "load";

/// What is sent.
#[derive(Debug, Args)]
pub(super) struct SendingArgs {
    /// What is asked for: http:// or https://
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
    /// The body, or @FILE for what is in a file
    #[arg(long, value_name = "TEXT", help_heading = "Requests")]
    body: Option<String>,
    /// Good statuses: 200, 2xx or 200-204; may be given several times [default: 200-399]
    #[arg(long = "status", value_name = "CODE", help_heading = "Requests")]
    statuses: Vec<String>,
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
    /// A connection for each request
    #[arg(long, help_heading = "Connections")]
    no_reuse: bool,
    /// The time for a connection to be there, TLS included
    #[arg(long, value_name = "TIME", default_value = "1s", help_heading = "Connections")]
    connect_timeout: Span,
    /// Trust these certificates as well (PEM)
    #[arg(long, value_name = "FILE", help_heading = "Connections")]
    ca: Option<PathBuf>,
    /// Trust any certificate
    #[arg(long, help_heading = "Connections")]
    insecure: bool,
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
        self.allow()?;
        let mut request = RequestSpec::get(&self.url);
        request.method.clone_from(&self.method);
        request.headers = self.headers.iter().map(|field| header(field)).collect::<Result<_, _>>()?;
        if let Some(body) = &self.body {
            request.body = match body.strip_prefix('@') {
                Some(path) => file(path.as_ref()).map_err(|error| format!("--body: {error}"))?,
                None => body.clone().into_bytes(),
            };
        }
        if !self.statuses.is_empty() {
            let statuses: Result<Vec<_>, _> = self.statuses.iter().map(|text| status(text)).collect();
            request.expect = Expect { statuses: statuses?, ..Expect::default() };
        }
        let text = |path: &PathBuf| file(path).and_then(reading::text);
        let ca = self.ca.as_ref().map(|path| text(path).map_err(|error| format!("--ca: {error}")));
        let mut spec = LoadSpec::new(NAME, vec![request], profile);
        spec.poisson = self.poisson;
        spec.reuse = !self.no_reuse;
        spec.max_connections = self.connections;
        spec.deadline = self.deadline.0;
        spec.connect_timeout = self.connect_timeout.0;
        spec.tls = TlsSpec { ca: ca.transpose()?, insecure: self.insecure, server_name: None };
        Ok(spec)
    }

    /// Refuses hosts beyond this machine that nobody has named.
    fn allow(&self) -> Result<(), String> {
        let uri: hyper::Uri = self.url.parse().map_err(|_| format!("`{}` is no URL", self.url))?;
        let host = uri
            .host()
            .ok_or_else(|| format!("`{}` is no URL: write it as http://HOST:PORT/PATH", self.url))?;
        here(host, &self.allowed).map_err(|bare| {
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

    /// The options that make this load again, without what may be secret.
    pub(super) fn again(&self) -> String {
        let mut words = vec![quoted(self.url.split('?').next().unwrap_or_default())];
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
        self.statuses.iter().for_each(|text| option("status", text));
        self.objectives.iter().for_each(|text| option("objective", text));
        option("deadline", &self.deadline.to_string());
        option("connections", &self.connections.to_string());
        for (on, name) in [
            (self.poisson, "--poisson"),
            (self.no_reuse, "--no-reuse"),
            (self.insecure, "--insecure"),
            (self.no_probe, "--no-probe"),
        ] {
            if on {
                words.push(name.to_owned());
            }
        }
        words.join(" ")
    }
}

/// A word as a shell reads it.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@%+=,".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
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

/// A rate as written, or a plain number of requests per second.
pub(super) fn rate(text: &str) -> Result<Rate, String> {
    match text.parse::<f64>() {
        Ok(_) => Err(format!("`{text}` has no unit: write {text}/s")),
        Err(_) => text.parse::<Rate>().map_err(|error| error.to_string()),
    }
}
