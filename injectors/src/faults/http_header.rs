//! HTTP header: fields are set or removed on the way.

use crate::about::{About, Args, Effect, Param, ParamKind, Presence};
use crate::change::Proof;
use crate::relay::Observation;
use crate::relay::fault::{Head, RelayFault};
use crate::target::TargetKind;

use super::relay_params::{HEADER, METHOD, PATH, REQUEST_SHARE, matching, missing, share};
use super::relay_proof::{judge_share, percent};
use super::relayed::Recipe;

/// HTTP header: fields are set or removed on the way.
#[derive(Debug)]
pub struct HttpHeader;

static ABOUT: About = About {
    name: "http-header",
    summary: "Sets or removes header fields of requests or responses",
    description: "In the chosen requests, or in the responses to them, the fields in `set` replace those \
                  of the same name and the fields in `remove` are taken out. Fields that frame a message \
                  (Content-Length, Transfer-Encoding, Connection, Upgrade, Expect) cannot be changed. \
                  Finds what depends on a token, a cache directive or a trace header. Needs a relay with \
                  `protocol: http`. What is not HTTP/1.1 passes unharmed, and so does whatever follows \
                  an upgrade.",
    target: TargetKind::Relay,
    params: &[
        Param {
            name: "on",
            kind: ParamKind::Choice(&["request", "response"]),
            presence: Presence::Required,
            help: "whose head is edited",
        },
        Param {
            name: "set",
            kind: ParamKind::Map,
            presence: Presence::Optional,
            help: "names and values that replace what is there",
        },
        Param {
            name: "remove",
            kind: ParamKind::Text,
            presence: Presence::Optional,
            help: "names to take out, separated by commas",
        },
        REQUEST_SHARE,
        METHOD,
        PATH,
        HEADER,
    ],
    needs: &[],
    effect: Effect::Errors,
    proof: "The relay counts edited among matching requests. Confirmed if the requested share lies \
                  in the 99% interval of what was counted; unproven if no request matched.",
    undo: "No more heads are edited; connections stay open.",
    example: "- http-header: {service: auth, on: request, remove: Authorization, share: 10%}",
};

impl Recipe for HttpHeader {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn fault(&self, args: &Args) -> Result<RelayFault, String> {
        let remove = args.text("remove").unwrap_or_default().split(',').map(str::trim);
        Ok(RelayFault::HttpHeader {
            matching: matching(args)?,
            on: match args.text("on") {
                Some("request") => Head::Request,
                Some("response") => Head::Response,
                _ => return Err(missing("on")),
            },
            set: args.map("set").cloned().unwrap_or_default(),
            remove: remove.filter(|name| !name.is_empty()).map(str::to_owned).collect(),
            share: share(args),
        })
    }

    fn judge(&self, fault: &RelayFault, seen: &Observation) -> Proof {
        let requested = format!("{} of heads edited", percent(fault.share()));
        judge_share(requested, fault.share(), seen.hit, seen.eligible, "matching requests")
    }
}
