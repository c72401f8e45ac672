//! Ethernet frames: pure functions on slices.

pub mod announce;
pub mod checksum;
pub mod class;
pub mod crc32c;
pub mod ethernet;
pub mod flow;
pub mod ipv6;
pub mod loops;
pub mod mss;
pub mod offload;
pub mod plausible;
pub mod too_big;
pub mod udp;
pub mod vlan;

/// Length of an Ethernet header in bytes: two addresses and the type. Nothing shorter is a frame.
pub const HEADER: usize = 14;
