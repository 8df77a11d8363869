//! The relay and its faults on real sockets of the loopback interface.

#![expect(clippy::unwrap_used, reason = "what the tests share fails as loudly as the tests themselves")]

mod faults;
mod harness;
mod http;
mod injecting;
mod life;
mod traffic;
