//! Parameters that several relay faults share, and how they are read.

use crate::about::{Args, Param, ParamKind, Presence};
use crate::relay::fault::{Direction, Distribution, Match, Scatter};
use crate::units::{Share, Size, Span};

/// Which way; the way of replies unless written.
pub(crate) const DIRECTION: Param = Param {
    name: "direction",
    kind: ParamKind::Choice(Direction::WORDS),
    presence: Presence::Default("down"),
    help: "which way the hurt bytes travel: up (client to server), down (replies) or both",
};

/// Which way; both unless written.
pub(crate) const DIRECTION_BOTH: Param = Param { presence: Presence::Default("both"), ..DIRECTION };

/// Of connections, all unless written.
pub(crate) const SHARE: Param = Param {
    name: "share",
    kind: ParamKind::Share,
    presence: Presence::Optional,
    help: "share of the connections that is hit, drawn once per connection; left out, it is every connection",
};

/// Of requests, all unless written.
pub(crate) const REQUEST_SHARE: Param = Param {
    help: "share of the matching requests that is hit, drawn per request; left out, it is every one",
    ..SHARE
};

/// Of connections; must be written.
pub(crate) const REQUIRED_SHARE: Param = Param {
    presence: Presence::Required,
    help: "share of the connections that is hit, drawn once per connection",
    ..SHARE
};

/// Of requests; must be written.
pub(crate) const REQUIRED_REQUEST_SHARE: Param = Param {
    presence: Presence::Required,
    help: "share of the matching requests that is hit, drawn per request",
    ..SHARE
};

/// The scatter of a delay.
pub(crate) const JITTER: Param = Param {
    name: "jitter",
    kind: ParamKind::Span,
    presence: Presence::Default("0s"),
    help: "spread of the delay; at most the delay itself, except with pareto",
};

/// The shape of the scatter.
pub(crate) const DISTRIBUTION: Param = Param {
    name: "distribution",
    kind: ParamKind::Choice(Distribution::WORDS),
    presence: Presence::Default("uniform"),
    help: "shape of the spread: uniform (delay ± jitter), normal (jitter is the standard deviation) or pareto \
           (never below delay, heavy tail, mean delay + jitter/2)",
};

/// Which method.
pub(crate) const METHOD: Param = Param {
    name: "method",
    kind: ParamKind::Text,
    presence: Presence::Optional,
    help: "only requests with this method",
};

/// Which path.
pub(crate) const PATH: Param = Param {
    name: "path",
    kind: ParamKind::Text,
    presence: Presence::Optional,
    help: "only requests with this path, without the query; a trailing * makes it a prefix",
};

/// Which header field.
pub(crate) const HEADER: Param = Param {
    name: "header",
    kind: ParamKind::Text,
    presence: Presence::Optional,
    help: "only requests with this header field, written `Name: value`; the value must be equal",
};

/// The sentence about a parameter that the check should have demanded.
pub(crate) fn missing(name: &str) -> String {
    format!("`{name}` is missing")
}

/// See [`DIRECTION`].
pub(crate) fn direction(args: &Args) -> Direction {
    match args.text("direction") {
        Some("up") => Direction::Up,
        Some("both") => Direction::Both,
        _ => Direction::Down,
    }
}

/// See [`SHARE`].
pub(crate) fn share(args: &Args) -> Share {
    Share(args.share("share").unwrap_or(1.0))
}

/// A share that must be written.
pub(crate) fn required_share(args: &Args) -> Result<Share, String> {
    args.share("share").map(Share).ok_or_else(|| missing("share"))
}

/// A duration that must be written.
pub(crate) fn span(args: &Args, name: &str) -> Result<Span, String> {
    args.span(name).map(Span).ok_or_else(|| missing(name))
}

/// A size that must be written.
pub(crate) fn size(args: &Args, name: &str) -> Result<Size, String> {
    args.size(name).map(Size).ok_or_else(|| missing(name))
}

/// `delay`, `jitter` and `distribution`.
pub(crate) fn scatter(args: &Args) -> Result<Scatter, String> {
    Ok(Scatter {
        delay: span(args, "delay")?,
        jitter: Span(args.span("jitter").unwrap_or_default()),
        distribution: match args.text("distribution") {
            Some("normal") => Distribution::Normal,
            Some("pareto") => Distribution::Pareto,
            _ => Distribution::Uniform,
        },
    })
}

/// `method`, `path` and `header`.
pub(crate) fn matching(args: &Args) -> Result<Match, String> {
    let text = |name: &str| args.text(name).map(str::to_owned);
    if let Some(header) = args.text("header")
        && header.split_once(':').is_none_or(|(name, _)| name.trim().is_empty())
    {
        return Err("`header`: write it like `Name: value`".to_owned());
    }
    Ok(Match { method: text("method"), path: text("path"), header: text("header") })
}
