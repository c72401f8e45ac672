//! Route: what a session tells its sealers.

use std::net::SocketAddr;
use std::sync::Arc;

use super::secure::crypt::Sending;
use crate::endpoint::Target;

/// Where frames go: what a session knows and its sealers must know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Number of the path that frames leave by.
    pub active: usize,
    /// Where each path leads; never none.
    pub targets: Vec<Target>,
    /// What seals frames, where a session does; the same only as itself.
    pub sending: Option<Arc<Sending>>,
}

impl Route {
    /// Path and target of the frames that leave now.
    pub fn now(&self) -> (usize, Target) {
        let active = self.active.min(self.targets.len().saturating_sub(1));
        (active, self.targets.get(active).copied().unwrap_or(Target::Unknown))
    }

    /// The addresses of all peers that are known.
    pub fn peers(&self) -> impl Iterator<Item = SocketAddr> {
        self.targets.iter().filter_map(|target| target.address())
    }
}
