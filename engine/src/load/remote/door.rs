//! The door of a worker that listens: who may come in, and who has to make room.
//!
//! Invariant: strangers, who have not proven that they know the token, are few and have little time; one more takes the
//! place of another, so nobody can keep the door shut by standing in it.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use super::seal::Token;
use super::serve::{Rights, session};

/// The most connections whose other side has proven nothing.
const STRANGERS_MAX: usize = 16;
/// The most sessions, the one that is served among them: others are told that it is.
const SESSIONS_MAX: usize = 32;

/// Who stands at the door, the oldest first.
#[derive(Default)]
struct Strangers {
    next: u64,
    here: BTreeMap<u64, (IpAddr, TcpStream)>,
    /// Strangers and guests.
    sessions: usize,
}

impl Strangers {
    /// Lets one more in, if need be in the place of another: the oldest of those of whose address there are most. None if
    /// that is not possible.
    fn enter(&mut self, from: IpAddr, socket: &TcpStream) -> Option<u64> {
        let copy = socket.try_clone().ok()?;
        if self.here.len() >= STRANGERS_MAX {
            let oldest = leaves(self.here.iter().map(|(id, (from, _))| (*id, *from)))?;
            let (_, socket) = self.here.remove(&oldest)?;
            // Its thread notices, and ends.
            let _ = socket.shutdown(Shutdown::Both);
        }
        if self.sessions >= SESSIONS_MAX {
            return None;
        }
        self.sessions += 1;
        self.next += 1;
        self.here.insert(self.next, (from, copy));
        Some(self.next)
    }
}

/// Who has to make room: the oldest of the address that has sent most.
fn leaves(here: impl Iterator<Item = (u64, IpAddr)> + Clone) -> Option<u64> {
    let mut counts: BTreeMap<IpAddr, usize> = BTreeMap::new();
    here.clone().for_each(|(_, from)| *counts.entry(from).or_default() += 1);
    let most = counts.values().copied().max()?;
    here.filter(|(_, from)| counts[from] == most).map(|(id, _)| id).min()
}

/// Serves coordinators, one at a time, until the process ends; they may send to `hosts` beyond this machine. What happens is
/// `told`, line by line.
///
/// # Errors
/// Nobody can be heard any more.
pub fn listen(
    listener: &TcpListener,
    token: &Token,
    hosts: Vec<String>,
    told: impl Fn(&str) + Send + Sync + 'static,
) -> io::Result<()> {
    let (busy, told) = (Arc::new(AtomicBool::new(false)), Arc::new(told));
    let (door, rights) = (Arc::new(Mutex::new(Strangers::default())), Rights { hosts: Some(hosts) });
    loop {
        let (socket, from) = match listener.accept() {
            Ok(accepted) => accepted,
            // The one who knocked has gone again.
            Err(error)
                if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted) =>
            {
                continue;
            }
            Err(error) => return Err(error),
        };
        let Some(id) = locked(&door).enter(from.ip(), &socket) else { continue };
        let (token, busy, told, rights) =
            (token.clone(), Arc::clone(&busy), Arc::clone(&told), rights.clone());
        let door = Arc::clone(&door);
        std::thread::Builder::new().name("load-session".to_owned()).spawn(move || {
            // Words are small and must not wait for each other.
            let _ = TcpStream::set_nodelay(&socket, true);
            let proven = || drop(locked(&door).here.remove(&id));
            match session(Box::new(socket), &token, &busy, &rights, proven) {
                Ok(()) => told(&format!("{from}: done")),
                Err(why) => told(&format!("{from}: {why}")),
            }
            let mut door = locked(&door);
            door.here.remove(&id);
            door.sessions -= 1;
        })?;
    }
}

fn locked(door: &Mutex<Strangers>) -> std::sync::MutexGuard<'_, Strangers> {
    door.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_of_the_many_makes_room() {
        let ip = |last: u8| IpAddr::from([10, 0, 0, last]);
        let leaves = |here: &[(u64, u8)]| leaves(here.iter().map(|(id, last)| (*id, ip(*last))));
        assert_eq!(leaves(&[]), None);
        assert_eq!(leaves(&[(3, 1), (5, 1), (9, 1)]), Some(3));
        assert_eq!(leaves(&[(3, 2), (5, 1), (9, 1)]), Some(5), "one alone is not pushed out by many");
        assert_eq!(leaves(&[(3, 2), (5, 1)]), Some(3));
    }
}
