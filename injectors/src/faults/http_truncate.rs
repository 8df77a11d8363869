//! HTTP truncate: a response breaks off.

use crate::about::{About, Args, Effect, Param, ParamKind, Presence};
use crate::change::Proof;
use crate::relay::Observation;
use crate::relay::fault::RelayFault;
use crate::target::TargetKind;

use super::relay_params::{HEADER, METHOD, PATH, REQUIRED_REQUEST_SHARE, matching, required_share, size};
use super::relay_proof::{judge_share, percent};
use super::relayed::Recipe;

/// HTTP truncate: a response breaks off.
#[derive(Debug)]
pub struct HttpTruncate;

static ABOUT: About = About {
    name: "http-truncate",
    summary: "Cuts response bodies short and closes the connection",
    description: "The body of a chosen response ends after `bytes` and the connection is closed, so its \
                  announced length is not met. Bytes count as sent, with the framing of a chunked body. \
                  Responses with shorter bodies are never cut and do not count towards the share. \
                  Requests choose by method, path and header. Needs a relay with `protocol: http`. What \
                  is not HTTP/1.1 passes unharmed, and so does whatever follows an upgrade.",
    target: TargetKind::Relay,
    params: &[
        Param {
            name: "bytes",
            kind: ParamKind::Size,
            presence: Presence::Required,
            help: "bytes of the body that still pass; 0 leaves the head alone",
        },
        REQUIRED_REQUEST_SHARE,
        METHOD,
        PATH,
        HEADER,
    ],
    needs: &[],
    effect: Effect::Errors,
    proof: "The relay counts cut among long enough responses. Confirmed if the requested share \
                  lies in the 99.99% interval of what was counted; unproven if no response was long enough.",
    undo: "No more responses are cut; closed connections stay closed, clients must reconnect.",
    example: "- http-truncate: {instance: origin-1, bytes: 64B, share: 5%, path: /asset/*}",
};

impl Recipe for HttpTruncate {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn fault(&self, args: &Args) -> Result<RelayFault, String> {
        Ok(RelayFault::HttpTruncate {
            matching: matching(args)?,
            bytes: size(args, "bytes")?,
            share: required_share(args)?,
        })
    }

    fn judge(&self, fault: &RelayFault, seen: &Observation) -> Proof {
        let RelayFault::HttpTruncate { bytes, share, .. } = fault else {
            return Proof::unproven("truncation", "not one");
        };
        let requested = format!("{} of bodies end after {bytes}", percent(share.0));
        if seen.eligible == 0 && seen.matched > 0 {
            let measured = format!("{} requests matched, but no response was longer", seen.matched);
            return Proof::unproven(requested, measured);
        }
        judge_share(requested, share.0, seen.hit, seen.eligible, "long enough responses")
    }
}
