//! Options that do nothing for what is sent: they are told, since whoever wrote them expects something of them.

use clap::parser::ValueSource;
use clap::{ArgMatches, Args as _, Command};

use super::sending::SendingArgs;
use crate::load::{Body, HttpVersion, LoadSpec, Reply};

/// Options that were written, by id.
pub(super) fn given(matches: &ArgMatches) -> Vec<String> {
    let written = |id: &&clap::Id| matches.value_source(id.as_str()) == Some(ValueSource::CommandLine);
    // Groups of options are no options.
    let all = matches.ids().filter(|id| matches.try_get_raw(id.as_str()).is_ok());
    all.filter(written).map(|id| id.as_str().to_owned()).collect()
}

/// Whether an option says what one request of the command line is and how it is sent.
pub(super) fn is_sending(id: &str) -> bool {
    let all = SendingArgs::augment_args(Command::new("sending"));
    let ours = ["url", "objectives", "no_probe", "seed"];
    !ours.contains(&id) && all.get_arguments().any(|option| option.get_id() == id)
}

/// Options as they are written.
pub(super) fn options(ids: &[&str]) -> String {
    let all = super::command();
    let verb = all.find_subcommand("capacity");
    let long = |id: &&str| {
        let option = verb.and_then(|verb| verb.get_arguments().find(|option| option.get_id() == *id));
        format!("--{}", option.and_then(clap::Arg::get_long).unwrap_or(id))
    };
    ids.iter().map(long).collect::<Vec<_>>().join(", ")
}

/// Whether any request takes a field from this feed.
pub(super) fn draws(spec: &LoadSpec, feed: &str) -> bool {
    let slot = format!("${{{feed}.");
    spec.requests.iter().any(|request| {
        let body = matches!(&request.body, Body::Text(text) if text.contains(&slot));
        body || request.url.contains(&slot) || request.headers.iter().any(|(_, value)| value.contains(&slot))
    })
}

impl SendingArgs {
    /// What was asked for and does nothing for this URL, one sentence each.
    pub(super) fn idle(&self, spec: &LoadSpec) -> Vec<String> {
        let scheme = self.url.split("://").next().unwrap_or_default();
        let secret = matches!(scheme, "https" | "grpcs" | "tls");
        let (http, call) = (matches!(scheme, "http" | "https"), matches!(scheme, "grpc" | "grpcs"));
        let bytes = matches!(scheme, "tcp" | "tls" | "udp");
        let mut notes = Vec::new();
        let mut idle = |is: bool, option: &str, why: &str| {
            if is {
                notes.push(format!("{option} does nothing: {why}"));
            }
        };
        let plain = format!("{scheme}:// has no TLS");
        let tls = &spec.tls;
        idle(tls.identity.is_some() && !secret, "--cert", &plain);
        idle(tls.ca.is_some() && !secret, "--ca", &plain);
        idle(tls.insecure && !secret, "--insecure", &plain);
        idle(tls.server_name.is_some() && !secret, "--server-name", &plain);
        idle(!tls.resume && !secret, "--no-resume", &plain);
        idle(tls.ca.is_some() && tls.insecure && secret, "--ca", "--insecure trusts any certificate");
        idle(spec.http == HttpVersion::Two && !http, "--http 2", &format!("{scheme}:// is no http"));
        let streams = call || http && spec.http == HttpVersion::Two;
        idle(self.streams_given() && !streams, "--streams", "only HTTP/2 and gRPC have streams");
        idle(
            spec.requests.iter().any(|one| one.reply != Reply::Echo) && !bytes,
            "--reply",
            "it is for tcp, tls and udp",
        );
        idle(self.method_given() && !http, "--method", &format!("{scheme}:// has no methods"));
        idle(!spec.sources.is_empty() && spec.unix.is_some(), "--source", "a Unix socket has no address");
        for feed in &spec.feeds {
            let why = format!("no ${{{}.…}} stands in the URL, a header or the body", feed.name());
            idle(!draws(spec, feed.name()), &format!("--feed {}", feed.name()), &why);
        }
        notes
    }
}
