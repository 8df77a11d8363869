//! An HTTP/2 lane of our own: requests whose header blocks are written once, one task per connection that reads and
//! writes for all of its streams at a time. hyper's connections (the `h2` crate) reach 0.7 times the requests per CPU
//! second that h2load does; see ARCHITECTURE.

mod drive;
mod frame;
mod head;
mod session;

pub(super) use drive::drive;
pub(super) use head::write_field;
