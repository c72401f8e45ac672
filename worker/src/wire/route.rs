//! Route: destination of frames, from the session to its sealers. Departure: datagrams to send, from a sealer to its loop.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;

use privsep::ipc::Secure;

use super::secure::crypt::Sending;
use super::spread::Spread;
use crate::endpoint::Target;

/// Egress of a path: destination, and length limit of datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Egress {
    /// Destination.
    pub target: Target,
    /// Longest datagram in bytes that leaves by the path now.
    pub datagram: usize,
    /// Longest datagram in bytes that may ever leave by the path.
    pub most: usize,
    /// Whether the path carries less than its underlay promised, so that senders must learn the size.
    pub reduced: bool,
    /// Whether equal datagrams may leave as one run (`UDP_SEGMENT`).
    pub runs: bool,
}

impl Egress {
    /// Egress with datagrams of a fixed length, in runs.
    pub fn new(target: Target, datagram: usize) -> Self {
        Self { target, datagram, most: datagram, reduced: false, runs: true }
    }
}

/// Route of the frames that leave.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Route {
    /// Number of the best path.
    pub active: usize,
    /// Paths that frames leave by.
    pub spread: Spread,
    /// Time in microseconds from which frames leave by the route: those before have arrived by then. 0 for at once.
    pub from_us: u64,
    /// Egress of each path; never empty.
    pub egress: Vec<Egress>,
    /// Key that seals frames, if the wire has sessions. Equal only to itself.
    pub sending: Option<Arc<Sending>>,
}

impl Route {
    /// Whether frames leave by this path.
    pub fn uses(&self, path: usize) -> bool {
        match self.spread {
            Spread::Active => path == self.active,
            Spread::Copies(other) => path == self.active || path == other,
            Spread::Flows(weights) => weights.get(path).is_some_and(|&weight| weight > 0),
        }
    }

    /// Active path and its egress.
    pub fn now(&self) -> (usize, Egress) {
        let active = self.active.min(self.egress.len().saturating_sub(1));
        let none = Egress::new(Target::Unknown, 0);
        (active, self.egress.get(active).copied().unwrap_or(none))
    }

    /// Length in bytes of the longest frame that fits into one datagram of each path that frames leave by, if one of those carries
    /// less than its underlay promised.
    pub fn reduced_frame(&self) -> Option<usize> {
        let used = self.egress.iter().enumerate().filter(|(number, _)| self.uses(*number));
        let reduced = used.filter(|(_, egress)| egress.reduced).map(|(_, egress)| egress.datagram).min()?;
        Some(reduced.saturating_sub(Secure::OVERHEAD.into()))
    }

    /// Addresses of all known peers.
    pub fn peers(&self) -> impl Iterator<Item = SocketAddr> {
        self.egress.iter().filter_map(|egress| egress.target.address())
    }

    /// Length in bytes of the longest datagram that may ever leave by any path.
    pub fn longest(&self) -> usize {
        self.egress.iter().map(|egress| egress.most).max().unwrap_or(0)
    }
}

/// Departure: datagrams of a batch that leave by one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Departure {
    /// Number of the path.
    pub path: usize,
    /// Destination.
    pub target: Target,
    /// Whether equal datagrams may leave as one run.
    pub runs: bool,
    /// Numbers of the datagrams in the batch.
    pub datagrams: Range<usize>,
}
