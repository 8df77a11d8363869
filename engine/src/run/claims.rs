//! Claims that hold on the whole host, between runs of whatever user and folder: one abstract socket per claim, whose
//! name can be bound once.
//!
//! Invariants: the name is the kernel's, so a claim ends with the process that holds it, however that ends, and nothing
//! is left behind; the name tells nothing of the claim, which may hold a secret.

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::time::Duration;

use injectors::Change;

/// Another run may have a claim for a moment because it looks whether it is free.
const LOOKS: u32 = 3;
const BETWEEN_LOOKS: Duration = Duration::from_millis(10);

/// The claims of one injection; they are free again when this is dropped.
#[derive(Debug)]
pub(super) struct Held(#[expect(dead_code, reason = "held for its life alone")] Vec<UnixListener>);

/// Takes all claims of a change, or none.
///
/// # Errors
/// Another run holds one of them, or the kernel has no such sockets.
pub(super) async fn take(change: &Change) -> Result<Held, String> {
    let mut looks = 1;
    loop {
        match take_now(change) {
            Err((error, _)) if looks < LOOKS && error.kind() == io::ErrorKind::AddrInUse => {
                looks += 1;
                tokio::time::sleep(BETWEEN_LOOKS).await;
            }
            Err((error, claim)) if error.kind() == io::ErrorKind::AddrInUse => {
                let holder = holder(claim).map_or(String::new(), |pid| format!(" (squall, process {pid})"));
                return Err(format!("another run holds {}{holder}", words(claim)));
            }
            Err((error, _)) => return Err(format!("its claims cannot be held on this host: {error}")),
            Ok(held) => return Ok(held),
        }
    }
}

fn take_now(change: &Change) -> Result<Held, (io::Error, &str)> {
    let bind = |claim: &String| address(claim).and_then(|address| UnixListener::bind_addr(&address));
    let all = change.claims.iter().map(|claim| bind(claim).map_err(|error| (error, claim.as_str())));
    all.collect::<Result<_, _>>().map(Held)
}

/// The process that holds a claim, if it can be told.
fn holder(claim: &str) -> Option<i32> {
    let stream = UnixStream::connect_addr(&address(claim).ok()?).ok()?;
    stream.set_nonblocking(true).ok()?;
    tokio::net::UnixStream::from_std(stream).ok()?.peer_cred().ok()?.pid()
}

/// `process:4711` as people say it.
pub(super) fn words(claim: &str) -> String {
    claim.replacen(':', " ", 1)
}

/// Named by the FNV-1a hash of the claim, the same in every version.
fn address(claim: &str) -> io::Result<SocketAddr> {
    let hash = claim.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    SocketAddr::from_abstract_name(format!("squall-claim-{hash:016x}"))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn change(id: &str, claims: &[&str]) -> Change {
        Change {
            id: id.to_owned(),
            fault: "process-kill".to_owned(),
            target: String::new(),
            summary: String::new(),
            claims: claims.iter().map(|claim| (*claim).to_owned()).collect(),
            apply: Value::Null,
            undo: Value::Null,
            manual: String::new(),
            picture: Value::Null,
        }
    }

    #[tokio::test]
    async fn a_claim_is_held_by_one_injection_and_free_when_it_ends() {
        // Of this test process alone: claims hold on the whole host.
        let claims = [1, 2, 3].map(|n| format!("process:test-{}-{n}", std::process::id()));
        let [one, two, three] = claims.each_ref().map(String::as_str);
        let held = take(&change("run-a/1", &[one, two])).await.unwrap();
        let second = change("run-b/1", &[three, two]);
        let own = std::process::id();
        let refused = take(&second).await.unwrap_err();
        assert_eq!(refused, format!("another run holds process test-{own}-2 (squall, process {own})"));
        let apart = take(&change("run-b/2", &[three])).await.expect("a refused one has left nothing taken");
        drop((held, apart));
        take(&second).await.expect("all are free again");
    }

    #[test]
    fn the_name_of_a_claim_tells_nothing_of_it() {
        let address = address("command:break s3cr3t").unwrap();
        let name = String::from_utf8_lossy(address.as_abstract_name().unwrap()).into_owned();
        assert!(name.starts_with("squall-claim-") && !name.contains("s3cr3t"), "{name}");
    }
}
