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
    proof: "The relay counts heads that it has altered among those in which there was something to \
                  alter: a field to remove, or another value than the one to set. Confirmed if the \
                  requested share lies in the 99.99% interval of what was counted; unproven if no request \
                  matched, or none had anything to alter.",
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
        let RelayFault::HttpHeader { on, set, remove, .. } = fault else {
            return Proof::unproven("edits", "not one");
        };
        let requested = format!("{} of heads edited", percent(fault.share()));
        if seen.eligible == 0 && seen.matched > 0 {
            let nothing = match (set.is_empty(), remove.is_empty()) {
                (true, _) => "nothing to remove",
                (false, true) => "nothing to set that was not there already",
                (false, false) => "nothing to set or remove",
            };
            let of = if *on == Head::Response { " in their responses" } else { "" };
            let measured = format!("{} requests matched, but there was {nothing}{of}", seen.matched);
            return Proof::unproven(requested, measured);
        }
        judge_share(requested, fault.share(), seen.hit, seen.eligible, "heads with something to edit")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::ProofStatus;

    #[test]
    fn requests_in_which_nothing_could_be_altered_prove_nothing() {
        let judged = |fault: &str, matched, eligible, hit| {
            let seen = Observation { matched, eligible, hit, ..Observation::default() };
            HttpHeader.judge(&serde_json::from_str(fault).unwrap(), &seen)
        };
        let remove = r#"{"kind":"http-header","on":"request","remove":["authorization"]}"#;
        let proof = judged(remove, 120, 0, 0);
        assert_eq!(proof.status, ProofStatus::Unproven);
        assert_eq!(proof.measured, "120 requests matched, but there was nothing to remove");
        let set = r#"{"kind":"http-header","on":"response","set":{"a":"1"}}"#;
        let words =
            "9 requests matched, but there was nothing to set that was not there already in their responses";
        assert_eq!(judged(set, 9, 0, 0).measured, words);
        assert_eq!(judged(set, 0, 0, 0).status, ProofStatus::Unproven);
        assert_eq!(judged(remove, 120, 60, 60).status, ProofStatus::Confirmed);
    }
}
