//! The operating system and the container engine: the only files of the whole workspace that name rustix, rtnetlink and
//! bollard.

pub mod aim;
pub mod cgroup;
pub mod control;
pub mod docker;
pub mod ends;
pub mod host;
pub(crate) mod inside;
pub mod netem;
pub mod netlink;
pub mod nft;
mod pid_file;
pub mod proc;
pub mod resources;
pub(crate) mod socket;
pub mod stream;
pub mod timer;
