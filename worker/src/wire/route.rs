//! Route: what a session tells its sealers; and departures: what a sealer tells its loop.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;

use super::secure::crypt::Sending;
use crate::endpoint::Target;

/// Egress of a path: where its datagrams go, and how long they may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Egress {
    /// Destination.
    pub target: Target,
    /// Longest datagram in bytes that leaves by the path.
    pub datagram: usize,
}

/// Route of the frames that leave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Number of the path that frames leave by.
    pub active: usize,
    /// Egress of each path; never empty.
    pub egress: Vec<Egress>,
    /// What seals frames, where a session does; the same only as itself.
    pub sending: Option<Arc<Sending>>,
}

impl Route {
    /// Path and egress of the frames that leave now.
    pub fn now(&self) -> (usize, Egress) {
        let active = self.active.min(self.egress.len().saturating_sub(1));
        let none = Egress { target: Target::Unknown, datagram: 0 };
        (active, self.egress.get(active).copied().unwrap_or(none))
    }

    /// Addresses of all peers that are known.
    pub fn peers(&self) -> impl Iterator<Item = SocketAddr> {
        self.egress.iter().filter_map(|egress| egress.target.address())
    }

    /// Length in bytes of the longest datagram that leaves by any path.
    pub fn longest(&self) -> usize {
        self.egress.iter().map(|egress| egress.datagram).max().unwrap_or(0)
    }
}

/// Departure: datagrams of a batch that leave by one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Departure {
    /// Number of the path.
    pub path: usize,
    /// Destination.
    pub target: Target,
    /// Numbers of the datagrams in the batch.
    pub datagrams: Range<usize>,
}
