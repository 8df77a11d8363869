//! Requests that are a datagram each, over UDP: a socket of its own for each request, so that an answer is its own. Only a
//! query of DNS, whose answers are numbered, gets a socket that was used before: what arrives twice, or late, over another
//! would be taken for the answer to the next.

use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::dial::{Counted, source};
use super::lane::{Job, Lane};
use super::origin::Place;
use super::recipe::Made;
use super::reply::Replies;
use super::spec::Request;
use super::tally::Ending;
use super::wire::Protocol;
use super::{ErrorClass, dns};

/// The task of a slot. Ends only with the worker's runtime.
pub(super) async fn drive(lane: Rc<Lane>, index: u32) {
    let slot = &lane.slots[index as usize];
    poll_fn(|cx| {
        *lane.posts[index as usize].waker.borrow_mut() = Some(cx.waker().clone());
        Poll::Ready(())
    })
    .await;
    let (mut made, mut open) = (Made::default(), None);
    let mut id = (index as u16).wrapping_mul(31_421);
    loop {
        let mut next = Some(poll_fn(|_| slot.job.take().map_or(Poll::Pending, Poll::Ready)).await);
        while let Some(mut job) = next {
            slot.alarm.set(job.due + lane.load.deadline);
            let taken_on = lane.begin(&mut job);
            id = id.wrapping_add(1);
            let kept = match open.take() {
                Some(socket) => Ok(socket),
                None => socket(&lane).await,
            };
            let ending = match kept {
                Err(class) => Ending::failed(class),
                Ok(socket) => {
                    let (ending, again) = exchange(&lane, index, &job, &socket.0, &mut made, id).await;
                    open = Some(socket).filter(|_| again && lane.load.reuse);
                    ending
                }
            };
            slot.alarm.clear();
            lane.end(job, &Ending { taken_on: Some(taken_on), ..ending });
            next = lane.next();
        }
        if open.is_some() {
            lane.rest(index);
        } else {
            lane.park(index);
        }
    }
}

/// A socket that hears only its target.
async fn socket(lane: &Lane) -> Result<(UdpSocket, Counted), ErrorClass> {
    let origin = &lane.load.origins[lane.origin];
    let Place::Addresses(addresses) = &origin.place else { return Err(ErrorClass::Local) };
    let turn = lane.rotation.replace(lane.rotation.get().wrapping_add(1));
    let target = addresses[turn % addresses.len()];
    let any: IpAddr =
        if target.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let from = source(&origin.sources, target, turn).unwrap_or(any);
    let counted = Counted::new(&lane.shared);
    let class = |error: io::Error| ErrorClass::of_connect(&error);
    let socket = UdpSocket::bind(SocketAddr::new(from, 0)).await.map_err(class)?;
    socket.connect(target).await.map_err(class)?;
    Ok((socket, counted))
}

/// Sends a request and waits for its answer; whether the socket may be used again.
async fn exchange(
    lane: &Lane,
    index: u32,
    job: &Job,
    socket: &UdpSocket,
    made: &mut Made,
    id: u16,
) -> (Ending<'static>, bool) {
    let request = &lane.load.checked.requests[usize::from(job.kind)];
    lane.load.make(job, made);
    if request.recipe.protocol() == Protocol::Dns {
        made.head.clone_from(&request.made.head);
        dns::number(&mut made.head, id);
    }
    let own = request.recipe.slotted() || request.recipe.protocol() == Protocol::Dns;
    let sent = if own { &made.head } else { &request.made.head };
    if let Err(error) = socket.send(sent).await {
        return (Ending::failed(failed(&error)), false);
    }
    loop {
        // That nobody listens is told as an error, not as something to read.
        let mut readiness = pin!(socket.ready(Interest::READABLE | Interest::ERROR));
        let ready = poll_fn(|cx| match readiness.as_mut().poll(cx) {
            Poll::Pending if lane.slots[index as usize].alarm.rang() => Poll::Ready(None),
            poll => poll.map(Some),
        });
        let failure = match ready.await {
            None => ErrorClass::Deadline,
            Some(Err(error)) => failed(&error),
            Some(Ok(ready)) if ready.is_error() => match socket.take_error() {
                Ok(Some(error)) | Err(error) => failed(&error),
                Ok(None) => ErrorClass::Reset,
            },
            Some(Ok(_)) => {
                let mut scratch = lane.shared.scratch.borrow_mut();
                match socket.try_recv(&mut scratch) {
                    Ok(length) => match judged(request, sent, &scratch[..length]) {
                        Some(judged) => return judged,
                        None => continue,
                    },
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                    Err(error) => failed(&error),
                }
            }
        };
        return (Ending::failed(failure), false);
    }
}

/// What a datagram says, and whether the socket may be used again; none if it answers something else.
fn judged(request: &Request, sent: &[u8], datagram: &[u8]) -> Option<(Ending<'static>, bool)> {
    let good = Ending { failure: None, ..Ending::failed(ErrorClass::Deadline) };
    if request.recipe.protocol() != Protocol::Dns {
        let failure = (!Replies::fits(request, sent, datagram)).then_some(ErrorClass::Expectation);
        return Some((Ending { failure, ..good }, false));
    }
    let ending = match dns::answers(sent, datagram)? {
        Err(class) => Ending::failed(class),
        Ok(code) => Ending { failure: code.map(|_| ErrorClass::Status), status: code, ..good },
    };
    Some((ending, true))
}

/// What the network said about an earlier datagram is heard with the next call.
fn failed(error: &io::Error) -> ErrorClass {
    match error.kind() {
        io::ErrorKind::ConnectionRefused
        | io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable => ErrorClass::Refused,
        _ => ErrorClass::of_stream(error),
    }
}
