//! What the processes of `ethudp` share.
//!
//! * [`ipc`]: the typed channels between supervisor, helper and worker, and every message on them.
//! * [`confine`]: how a process gives up its powers.
//! * [`sys`]: system calls that no safe wrapper covers. Every `unsafe` line of what is shipped is there.

pub mod confine;
pub mod ipc;
pub mod netlink;
#[allow(unsafe_code)]
pub mod sys;

/// Version of the messages between the processes. All executables of one tunnel come from one build, so anything else
/// than equality is a mixed installation and ends the start.
pub const PROTOCOL: u32 = 4;
