//! The task of a connection that carries several requests at a time, whatever it speaks: opened when there is something to
//! send, and again for what is left over from the last one.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use super::ErrorClass;
use super::lane::{Job, Lane};
use super::tally::Ending;

/// How often a request that no server acted on is sent again.
pub(super) const AGAIN_MAX: u8 = 3;

/// Opens and serves, in turn; `serve` returns what is to be sent again on the next connection. Ends only with the worker's
/// runtime, or when all connections part.
pub(super) async fn drive<O>(
    lane: Rc<Lane>,
    connection: u32,
    open: impl AsyncFn(&Lane) -> Result<O, ErrorClass>,
    serve: impl AsyncFn(O) -> Vec<Job>,
) {
    let post = &lane.posts[connection as usize];
    poll_fn(|cx| {
        *post.waker.borrow_mut() = Some(cx.waker().clone());
        Poll::Ready(())
    })
    .await;
    loop {
        poll_fn(|_| if post.handed.borrow().is_empty() { Poll::Pending } else { Poll::Ready(()) }).await;
        loop {
            let opened = {
                let mut attempt = pin!(open(&lane));
                poll_fn(|cx| {
                    lapse(&lane, connection);
                    attempt.as_mut().poll(cx)
                })
                .await
            };
            let mut again = match opened {
                Ok(opened) => serve(opened).await,
                Err(class) => {
                    give_up(&lane, connection, class);
                    Vec::new()
                }
            };
            if lane.shared.parting.get() {
                return;
            }
            if again.is_empty() {
                again.extend(lane.next());
            }
            if again.is_empty() {
                break;
            }
            lane.resume(connection, again);
        }
        lane.park(connection);
    }
}

/// Ends the jobs whose deadline passed while they waited for the connection.
fn lapse(lane: &Lane, connection: u32) {
    let post = &lane.posts[connection as usize];
    for index in post.overdue.borrow_mut().drain(..) {
        let slot = &lane.slots[index as usize];
        if slot.alarm.rang()
            && let Some(job) = slot.job.take()
        {
            post.handed.borrow_mut().retain(|other| *other != index);
            lane.end(job, &Ending::failed(ErrorClass::Deadline));
            lane.rest(index);
        }
    }
}

/// Ends the jobs that waited for a connection that could not be opened.
fn give_up(lane: &Lane, connection: u32, class: ErrorClass) {
    lane.withdraw(lane.slots_of(connection));
    for index in lane.posts[connection as usize].handed.take() {
        let slot = &lane.slots[index as usize];
        slot.alarm.clear();
        if let Some(job) = slot.job.take() {
            lane.end(job, &Ending::failed(class));
        }
    }
}
