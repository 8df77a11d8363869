//! End to end: the built binary against the lab and real servers, seen from outside.
//!
//! Every test has a home of its own (a private runtime folder and a private folder of runs) and leaves nothing: no
//! process, no socket. Expensive tests take turns, so that two cores suffice. `SQUALL_QUICK=1` leaves the long ones out
//! and says so.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

/// What people do by hand: recovering, forgetting, injecting before a server of their own; and keeping secrets.
mod byhand;
/// The capacity of an experiment, alone and with something broken.
mod capacity;
/// Scenarios of the catalogue on real servers.
mod catalogue;
/// Verbs, options and exit codes.
mod cli;
/// Every fault, broken off at every step: the world is as before.
mod conformance;
/// Flows that are cut, on real interfaces.
mod cutting;
/// Containers of a Docker engine of our own.
mod docker;
/// What the registry says is true of the binary.
mod faults;
/// HTTP/3 with caddy.
#[cfg(feature = "http3")]
mod grpc;
mod http3;
/// Users and sessions that walk.
mod journeys;
/// Knobs of a load that is being sent.
mod knobs;
/// Mistakes in experiments, and texts that mean harm.
mod language;
/// Whole runs: verdicts, aborts, signals, murder.
mod lifecycle;
/// What others do to control groups and containers while squall presses on them.
mod meanwhile;
/// DNS that lies, fails or is late.
mod names;
/// Network faults on real interfaces.
mod network;
/// Pressure in control groups.
mod pressure;
/// What a load speaks besides HTTP/1.1.
mod protocols;
/// nginx and HAProxy from Debian.
mod real;
/// Data from feeds, expectations, and logs that are sent again.
mod requests;
/// The schemas, checked in and generated.
mod schema;
/// A load by itself, and the search for a capacity.
mod sending;
/// Homes, labs, servers, clients, turns.
mod support;
/// The rules of the house, as tests.
mod tidy;
/// Loads that other processes send.
mod workers;
