//! What the kernel can do: each feature is tried for real in a namespace that nobody else sees and that ends with it.

use std::time::Duration;

use super::wire::Bucket;
use super::{Place, Session, Step, filter, sockets};
use crate::sys::aim::{Aim, Way};
use crate::sys::netem::Netem;
use crate::sys::nft::{Edit, Expression, Hook, Point, Reject, Verdict};

/// One feature of the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feature {
    /// As the kernel calls it.
    pub name: &'static str,
    /// Why it does not work; none if it does.
    pub lack: Option<String>,
}

const DEVICE: &str = "sqprobe";
/// Packet filters, as a module is called.
pub const TABLES: &str = "nf_tables";
/// Ending connections of others, as kernels are configured for it.
pub const DESTROY: &str = "inet_diag_destroy";

/// Tries everything that network faults need.
pub(super) async fn features(session: &dyn Session) -> Vec<Feature> {
    let mut found = Vec::new();
    let mut note = |name, tried: &std::io::Result<()>| found.push(feature(name, tried));
    note("ifb", &session.change(&Step::AddDevice { name: DEVICE.to_owned() }).await);
    let links = session.links().await.unwrap_or_default();
    let index = |name: &str| links.iter().find(|link| link.name == name).map_or(0, |link| link.index);
    let (device, loopback) = (index(DEVICE), index("lo"));
    // Qdiscs are tried on the loopback, which is always there.
    let shape = |kind, options| Step::Shape { index: loopback, kind, options };
    let netem = session.change(&shape("netem", Netem::default().encode())).await;
    note("netem", &netem);
    let bucket = Bucket { bytes: 125_000, burst: 3000, wait: Duration::from_millis(100) };
    if netem.is_err() {
        // On top of a netem of the same place, another kind would be refused for its own reasons.
        note("tbf", &session.change(&shape("tbf", bucket.encode())).await);
    } else {
        note(
            "tbf",
            &session.change(&Step::Shape { index: device, kind: "tbf", options: bucket.encode() }).await,
        );
    }
    note("clsact", &session.change(&Step::AddHooks { index: loopback }).await);
    let at = Place { index: loopback, way: Way::Out, pref: 1, handle: 1 };
    let program = Aim::default().program(Way::Out);
    note("cls_bpf and act_mirred", &session.change(&Step::AddFilter { at, program, device }).await);
    found
}

/// Tries everything that cutting needs, in this thread's namespace. Blocks.
pub(super) fn cuts() -> Vec<Feature> {
    let tries: [(&'static str, Vec<Expression>); 3] = [
        (TABLES, vec![Expression::Count, Expression::Decide(Verdict::Drop)]),
        ("nft_reject_inet", vec![Expression::Reject(Reject::Host)]),
        ("nft_numgen", vec![Expression::Random(100)]),
    ];
    let tries = tries.into_iter().enumerate();
    let mut found: Vec<Feature> =
        tries.map(|(number, (name, rule))| feature(name, &filter::commit(&table(number, rule)))).collect();
    found.push(feature(DESTROY, &sockets::can_destroy()));
    found
}

/// A table with a set whose elements fade, and one chain with one rule.
fn table(number: usize, rule: Vec<Expression>) -> Vec<Edit> {
    let (table, chain) = (format!("{DEVICE}{number}"), "output".to_owned());
    let hook = Some(Hook { point: Point::Output, priority: 0, reroutes: false });
    vec![
        Edit::AddTable { table: table.clone(), comment: String::new() },
        Edit::AddSet { table: table.clone(), set: "lease", lasts_ms: 1000 },
        Edit::AddChain { table: table.clone(), chain: chain.clone(), hook },
        Edit::AddRule { table, chain, rule },
    ]
}

/// What an attempt says of a feature.
fn feature(name: &'static str, tried: &std::io::Result<()>) -> Feature {
    let lack = tried.as_ref().err().map(|error| match error.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::Unsupported => {
            "the kernel does not know it".to_owned()
        }
        _ => error.to_string(),
    });
    Feature { name, lack }
}
