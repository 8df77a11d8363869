//! The ports: the only files that name rustix or open control sockets.

pub mod control;
pub mod proc;
