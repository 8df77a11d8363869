//! One file per fault family; each fault is a unit struct listed in [`crate::registry`].

pub mod pop_drain;
