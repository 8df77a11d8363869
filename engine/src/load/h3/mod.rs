//! HTTP/3: a socket for each connection, one task that serves all of its slots, and QUIC by quinn.
//!
//! The lane below this is not of our own, as those of HTTP/1.1 and HTTP/2 are: a request here costs some allocations and some
//! locks that nobody else ever holds, beside what QUIC encrypts.

mod drive;
mod exchange;
mod quic;
mod streams;

pub(super) use drive::drive;
