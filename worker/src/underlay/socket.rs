//! Socket of one path, as the helper has opened it.

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use privsep::ipc::{Address, Remote};
use privsep::sys::worker::mmsg::Destination;

use crate::endpoint::Target;

/// UDP socket of one path.
pub struct Socket {
    pub(super) handle: OwnedFd,
    pub(super) peer: Peer,
    /// Whether it is an IPv6 socket.
    pub(super) v6: bool,
}

/// Relation of a path's socket to the peer.
#[derive(Debug, Clone, Copy)]
pub(super) enum Peer {
    /// Fixed peer on a connected socket. Datagrams of others can only have arrived before the connect.
    Connected(SocketAddr),
    /// Fixed peer on a socket with a wildcard address. A filter drops datagrams of others.
    Fixed(SocketAddr),
    /// No fixed peer: the session knows its address.
    Changing,
}

impl Socket {
    /// Takes the socket as the helper has opened it (`helper/src/open/path.rs`): bound to `local`, and connected to a fixed remote
    /// unless `local` is a wildcard.
    pub fn new(handle: OwnedFd, local: SocketAddr, remote: &Remote) -> Self {
        let peer = match *remote {
            Remote::Fixed(Address(remote)) if local.ip().is_unspecified() => Peer::Fixed(remote),
            Remote::Fixed(Address(remote)) => Peer::Connected(remote),
            Remote::Named { .. } | Remote::Learned { .. } => Peer::Changing,
        };
        Self { handle, peer, v6: local.is_ipv6() }
    }

    /// Addresses that a datagram to this target must name.
    pub(super) fn destination(&self, target: Target) -> Destination {
        let (to, from) = match (self.peer, target) {
            (Peer::Fixed(to), Target::Fixed(place)) => (Some(to), place.local),
            (Peer::Fixed(to), _) => (Some(to), None),
            (Peer::Changing, Target::Fixed(place) | Target::Learned(place)) => (Some(place.remote), place.local),
            (Peer::Changing, Target::Unknown) | (Peer::Connected(_), _) => (None, None),
        };
        Destination { to, from, v6: self.v6 }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }
}
