//! System calls of the supervisor only; not part of the helper.

pub mod pcap;
pub mod start;
