//! What only the supervisor calls; nothing of it is in the helper.

pub mod pcap;
pub mod start;
