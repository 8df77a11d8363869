//! What is to happen, when, and is it well?
//!
//! Top to bottom: [`cli`] → [`run`] → {[`load`], [`probe`], [`lab`]} → [`plan`] → [`experiment`]. Pure, without tokio:
//! [`experiment`], [`plan`], [`slo`], [`schedule`], [`template`], [`feed`],
//! [`replay`].

pub mod capacity;
pub mod cli;
pub mod clock;
pub mod connecting;
pub mod expect;
pub mod experiment;
pub mod feed;
pub mod filling;
pub mod journey;
pub mod lab;
pub mod load;
pub mod plan;
pub mod probe;
mod random;
mod reading;
pub mod replay;
pub mod run;
pub mod schedule;
pub mod slo;
pub mod template;
pub mod trial;
