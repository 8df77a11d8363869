//! The operating system: the only files of the whole workspace that name rustix and rtnetlink.

pub mod aim;
pub mod cgroup;
pub mod control;
pub mod host;
pub mod netem;
pub mod netlink;
pub mod nft;
pub mod proc;
pub mod resources;
pub(crate) mod socket;
pub mod timer;
