//! Wires of a tunnel: the settings of each, and the differences between wires outside the worker.
//!
//! [`classic`] with its [`cipher`]s, and [`secure`] with [`keys`] and [`identifier`], each implement [`WireFormat`]. Only the
//! parser of files and the commands that concern one wire match on a [`Wire`]. The rest of the program calls its methods.

pub mod cipher;
pub mod classic;
pub mod identifier;
pub mod keys;
pub mod secure;

use std::fmt::Debug;
use std::ops::Deref;

use privsep::ipc::{self, Cipher, Secrets};

pub use classic::Classic;
pub use secure::Secure;

use super::resolve::Resolved;
use super::{Path, Port, Tunnel};

/// Wire of a tunnel: the encoding of frames as datagrams. Dereferences to its [`WireFormat`].
#[derive(Debug)]
pub enum Wire {
    /// `EthUDP`'s format.
    Classic(Classic),
    /// The authenticated and encrypted format.
    Secure(Box<Secure>),
}

impl Deref for Wire {
    type Target = dyn WireFormat;

    fn deref(&self) -> &Self::Target {
        match self {
            Self::Classic(classic) => classic,
            Self::Secure(secure) => &**secure,
        }
    }
}

/// Properties of a wire.
pub trait WireFormat: Debug {
    /// Name in file and status.
    fn name(&self) -> &'static str;

    /// Protection of frames, in words.
    fn protection(&self) -> &'static str;

    /// Cipher, if the tunnel's description sets it; `None` if the peers agree on one.
    fn cipher(&self) -> Option<Cipher>;

    /// Whether received datagrams are authenticated.
    fn is_authenticated(&self) -> bool;

    /// Whether frames are compressed.
    fn compresses(&self) -> bool {
        false
    }

    /// Whether the peer answers pings, so that a silent path is down.
    fn is_answered(&self, port: &Port) -> bool;

    /// Whether a learned peer address survives the worker that reported it.
    fn peer_survives_worker(&self) -> bool;

    /// Whether a worker opens datagrams in place, so that it can receive them in runs (`UDP_GRO`).
    fn opens_in_place(&self) -> bool;

    /// Whether the worker announces the addresses of a TAP to the peer's network.
    fn announces(&self) -> bool;

    /// Whether the worker splits datagrams that the underlay cannot carry.
    fn splits(&self) -> bool;

    /// Longest frame in bytes that fits into a UDP payload.
    fn largest_frame(&self, payload: u32) -> u32;

    /// Longest UDP payload in bytes that leaves in one packet by a path; `None` if the MTU of the path is unknown.
    fn payload(&self, path: &Resolved) -> Option<u32>;

    /// Upper limit in bytes of the datagrams by a path; `None` for a wire without a limit.
    fn datagram(&self, path: &Resolved) -> Option<u16>;

    /// Settings of a path for the workers.
    fn of_path(&self, path: &Path, _resolved: &Resolved) -> ipc::PathSettings {
        ipc::PathSettings { runs: path.runs, ..ipc::PathSettings::default() }
    }

    /// Settings for the workers; `datagram` is the longest datagram of any path.
    fn settings(&self, tunnel: &Tunnel, datagram: u16) -> ipc::Wire;

    /// Secrets for the workers.
    fn secrets(&self) -> Secrets;

    /// Public key of this end, if the wire has one.
    fn public_key(&self) -> Option<keys::Public> {
        None
    }

    /// Fingerprint of both ends, if the wire has one.
    fn fingerprint(&self) -> Option<String> {
        None
    }

    /// Warnings about a tunnel that uses this wire, for the log and for `ethudp check`.
    fn warnings(&self, _tunnel: &Tunnel) -> Vec<String> {
        Vec::new()
    }

    /// Line for the log at the start.
    fn start_line(&self) -> Option<String> {
        None
    }
}
