//! HTTP delay: a request is held before it is forwarded.

use crate::about::{About, Args, Effect, Param, ParamKind, Presence};
use crate::change::{Proof, ProofStatus};
use crate::relay::Observation;
use crate::relay::fault::RelayFault;
use crate::target::TargetKind;

use super::relay_params::{
    DISTRIBUTION, HEADER, JITTER, METHOD, PATH, REQUEST_SHARE, matching, scatter, share,
};
use super::relay_proof::{delay_words, judge_delay, judge_share, percent};
use super::relayed::Recipe;

/// HTTP delay: a request is held before it is forwarded.
#[derive(Debug)]
pub struct HttpDelay;

static ABOUT: About = About {
    name: "http-delay",
    summary: "Delays requests, chosen by method, path or header",
    description: "The chosen requests wait for `delay`, give or take `jitter`, before they are \
                  forwarded; whatever follows on the same connection waits behind them. Unlike \
                  relay-latency it can choose requests, and it delays each request once however large \
                  its reply is. Needs a relay with `protocol: http`. What is not HTTP/1.1 passes \
                  unharmed, and so does whatever follows an upgrade.",
    target: TargetKind::Relay,
    params: &[
        Param {
            name: "delay",
            kind: ParamKind::Span,
            presence: Presence::Required,
            help: "how long a request is held",
        },
        JITTER,
        DISTRIBUTION,
        REQUEST_SHARE,
        METHOD,
        PATH,
        HEADER,
    ],
    needs: &[],
    effect: Effect::Degradation,
    proof: "The relay measures how long each request was held. Confirmed if the mean is within 5% \
                  or 2ms of the mean of the distribution, plus what chance does to so few draws; \
                  unproven if no request matched.",
    undo: "Requests that are held go on at once, in order; connections stay open.",
    example: "- http-delay: {service: catalog, pick: all, delay: 300ms, jitter: 50ms, share: 25%, path: /*}",
};

impl Recipe for HttpDelay {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn fault(&self, args: &Args) -> Result<RelayFault, String> {
        Ok(RelayFault::HttpDelay { matching: matching(args)?, scatter: scatter(args)?, share: share(args) })
    }

    fn judge(&self, fault: &RelayFault, seen: &Observation) -> Proof {
        let RelayFault::HttpDelay { scatter, share, .. } = fault else {
            return Proof::unproven("delay", "not one");
        };
        let requested = format!("{} for {}", delay_words(scatter), percent(share.0));
        let shares = judge_share(requested.clone(), share.0, seen.hit, seen.eligible, "matching requests");
        if shares.status == ProofStatus::Confirmed {
            judge_delay(requested, scatter, seen, "requests", Some(seen.hit))
        } else {
            shares
        }
    }
}
