//! Which options were written, and which of them belong to what.

use clap::parser::ValueSource;
use clap::{ArgMatches, Args as _, Command};

use super::sending::SendingArgs;
use crate::load::{Body, LoadSpec};

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
