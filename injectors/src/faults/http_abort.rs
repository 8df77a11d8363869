//! HTTP abort: the relay answers in place of the server.

use crate::about::{About, Args, Effect, Param, ParamKind, Presence};
use crate::change::Proof;
use crate::relay::Observation;
use crate::relay::fault::RelayFault;
use crate::target::TargetKind;

use super::relay_params::{HEADER, METHOD, PATH, REQUIRED_REQUEST_SHARE, matching, missing, required_share};
use super::relay_proof::{judge_share, percent};
use super::relayed::Recipe;

/// HTTP abort: the relay answers in place of the server.
#[derive(Debug)]
pub struct HttpAbort;

static ABOUT: About = About {
    name: "http-abort",
    summary: "Answers a share of the requests with an error status",
    description: "The relay answers the chosen requests itself with `status` and a short body; the \
                  server never sees them. The answer carries `x-squall-fault` with the id of the \
                  injection. The request body is read and dropped, and the connection goes on; only a \
                  request with `Expect: 100-continue` or `Connection: close` has its connection closed. \
                  Needs a relay with `protocol: http`. What is not HTTP/1.1 passes unharmed, and so does \
                  whatever follows an upgrade.",
    target: TargetKind::Relay,
    params: &[
        Param {
            name: "status",
            kind: ParamKind::Int { min: 200, max: 599 },
            presence: Presence::Required,
            help: "the status of the answer",
        },
        REQUIRED_REQUEST_SHARE,
        METHOD,
        PATH,
        HEADER,
    ],
    needs: &[],
    effect: Effect::Errors,
    proof: "The relay counts answered among matching requests. Confirmed if the requested share \
                  lies in the 99.99% interval of what was counted; unproven if no request matched.",
    undo: "No more requests are answered by the relay; connections stay open.",
    example: "- http-abort: {service: auth, status: 503, share: 10%, method: GET, path: /*}",
};

impl Recipe for HttpAbort {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn fault(&self, args: &Args) -> Result<RelayFault, String> {
        let status = args.int("status").and_then(|status| u16::try_from(status).ok());
        Ok(RelayFault::HttpAbort {
            matching: matching(args)?,
            status: status.ok_or_else(|| missing("status"))?,
            share: required_share(args)?,
        })
    }

    fn judge(&self, fault: &RelayFault, seen: &Observation) -> Proof {
        let RelayFault::HttpAbort { status, share, .. } = fault else {
            return Proof::unproven("abort", "not one");
        };
        let requested = format!("status {status} for {}", percent(share.0));
        judge_share(requested, share.0, seen.hit, seen.eligible, "matching requests")
    }
}
