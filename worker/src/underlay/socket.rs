//! Socket of one path, as the helper has opened it.

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use privsep::ipc::{Address, Remote};
use privsep::sys::worker::mmsg::Destination;

use crate::endpoint::{Endpoint, Target};

/// UDP socket of one path.
pub struct Socket {
    pub(super) handle: OwnedFd,
    pub(super) peer: Peer,
    /// It is one of IPv6.
    pub(super) v6: bool,
}

/// What the socket of a path knows of the peer.
#[derive(Debug, Clone, Copy)]
pub(super) enum Peer {
    /// It is always here, and the socket connected: datagrams of others came before that, if any.
    Connected(SocketAddr),
    /// It is always here, and the address of the socket a wildcard: a filter has the kernel drop datagrams of others.
    Fixed(SocketAddr),
    /// Nothing: the session learns.
    Learned,
}

impl Socket {
    /// As the helper has opened it (`helper/src/open/path.rs`): bound to `local`, and connected to a fixed remote where that is no
    /// wildcard.
    pub fn new(handle: OwnedFd, local: SocketAddr, remote: &Remote) -> Self {
        let peer = match *remote {
            Remote::Fixed(Address(remote)) if local.ip().is_unspecified() => Peer::Fixed(remote),
            Remote::Fixed(Address(remote)) => Peer::Connected(remote),
            Remote::Learned { .. } => Peer::Learned,
        };
        Self { handle, peer, v6: local.is_ipv6() }
    }

    /// What a datagram to this target must name.
    pub(super) fn destination(&self, target: Target) -> Option<Destination> {
        let (to, from) = match (self.peer, target) {
            (Peer::Fixed(to), Target::Fixed(place)) => (to, place.local),
            (Peer::Fixed(to), _) => (to, None),
            (Peer::Learned, Target::Learned(Endpoint { remote, local })) => (remote, local),
            (Peer::Learned, Target::Fixed(_) | Target::Unknown) | (Peer::Connected(_), _) => return None,
        };
        Some(Destination { to, from, v6: self.v6 })
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }
}
