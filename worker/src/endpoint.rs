//! Addresses of the peer, as reported by sockets and learned by sessions.

use std::net::{IpAddr, SocketAddr};

/// Place of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoint {
    /// Address of the peer.
    pub remote: SocketAddr,
    /// Local address that the peer sends to, if this end has several. The peer may not receive datagrams from another one.
    pub local: Option<IpAddr>,
}

impl From<SocketAddr> for Endpoint {
    fn from(remote: SocketAddr) -> Self {
        Self { remote, local: None }
    }
}

/// Destination of a path's datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Fixed address of the path. The kernel chooses the source address, unless the peer accepts only a known one.
    Fixed(Endpoint),
    /// Learned place.
    Learned(Endpoint),
    /// No address has been learned.
    Unknown,
}

impl Target {
    /// Address of the peer, if known.
    pub fn address(self) -> Option<SocketAddr> {
        match self {
            Self::Fixed(place) | Self::Learned(place) => Some(place.remote),
            Self::Unknown => None,
        }
    }
}
