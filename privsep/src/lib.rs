//! Code that the processes of `ethudp` share.
//!
//! * [`ipc`]: the typed channels between supervisor, helper, worker and resolver, and every message on them.
//! * [`confine`]: the steps by which a process gives up its privileges.
//! * [`sys`]: system calls without a safe wrapper. All `unsafe` code of the shipped programs is there.

pub mod confine;
pub mod ipc;
pub mod netlink;
#[allow(unsafe_code)]
pub mod sys;

/// Version of the messages between the processes. All executables of a tunnel come from one build. A different version means a
/// mixed installation and ends the start.
pub const PROTOCOL: u32 = 12;
