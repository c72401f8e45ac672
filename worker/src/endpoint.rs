//! Addresses of the peer, as sockets tell them and sessions learn them.

use std::net::{IpAddr, SocketAddr};

/// Where a peer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoint {
    /// Its address.
    pub remote: SocketAddr,
    /// Our address that its datagrams come to, where we have several: what it hears from another may not reach it.
    pub local: Option<IpAddr>,
}

impl From<SocketAddr> for Endpoint {
    fn from(remote: SocketAddr) -> Self {
        Self { remote, local: None }
    }
}

/// Where the datagrams of a path go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Where the path always goes. From which address of ours is the kernel's choice, unless the peer hears another one alone.
    Fixed(Endpoint),
    /// To this place.
    Learned(Endpoint),
    /// No address has been learned yet.
    Unknown,
}

impl Target {
    /// The peer's address, as far as it is known.
    pub fn address(self) -> Option<SocketAddr> {
        match self {
            Self::Fixed(place) | Self::Learned(place) => Some(place.remote),
            Self::Unknown => None,
        }
    }
}
