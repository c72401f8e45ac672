//! Remote of a path: a fixed address, or one that is learned from received datagrams (a peer behind NAT).

use std::net::IpAddr;

use privsep::ipc::Address;

use crate::endpoint::{Endpoint, Target};

/// Remote of a path.
pub enum Remote {
    /// Fixed address; the kernel drops datagrams of other senders.
    Fixed(Endpoint),
    /// Address learned within limits.
    Learned(Learned),
}

/// Learned address.
pub struct Learned {
    /// Only this address is learned.
    pub address: Option<IpAddr>,
    /// Only this port is learned.
    pub port: Option<u16>,
    current: Option<Endpoint>,
}

impl Remote {
    /// Takes the remote of the supervisor, and the addresses that an earlier worker had learned: the peer's, and the local one that
    /// the peer used.
    pub fn new(remote: &privsep::ipc::Remote, learned: Option<Address>, local: Option<IpAddr>) -> Self {
        match *remote {
            privsep::ipc::Remote::Fixed(Address(remote)) => Self::Fixed(Endpoint { remote, local }),
            privsep::ipc::Remote::Learned { address, port } => {
                let mut remote = Learned { address, port, current: None };
                // The report of an earlier worker is not trusted, so the limits apply.
                if let Some(Address(learned)) = learned {
                    remote.learn(Endpoint { remote: learned, local });
                }
                Self::Learned(remote)
            }
        }
    }

    /// Whether the address is learned.
    pub fn is_learned(&self) -> bool {
        matches!(self, Self::Learned(_))
    }

    /// Current target.
    pub fn target(&self) -> Target {
        match self {
            Self::Fixed(place) => Target::Fixed(*place),
            Self::Learned(learned) => learned.current.map_or(Target::Unknown, Target::Learned),
        }
    }

    /// Learned address of the peer.
    pub fn learned(&self) -> Option<Address> {
        match self {
            Self::Fixed(_) => None,
            Self::Learned(learned) => learned.current.map(|place| Address(place.remote)),
        }
    }

    /// Local address that the peer uses, if known.
    pub fn local(&self) -> Option<IpAddr> {
        match self {
            Self::Fixed(place) => place.local,
            Self::Learned(learned) => learned.current?.local,
        }
    }

    /// Records that the peer is at this place, if the limits allow it.
    pub fn set_place(&mut self, source: Endpoint) {
        match self {
            Self::Fixed(place) => place.local = source.local,
            Self::Learned(learned) => {
                learned.learn(source);
            }
        }
    }

    /// Reacts to a silent peer: a fixed peer may answer another local address, such as the kernel's choice.
    pub fn forget_local(&mut self) {
        if let Self::Fixed(place) = self {
            place.local = None;
        }
    }

    /// Reacts to a peer that has been silent for so long that a learned address may belong to another host.
    pub fn forget(&mut self) {
        if let Self::Learned(learned) = self {
            learned.current = None;
        }
    }
}

impl Learned {
    /// Learned place.
    pub fn get(&self) -> Option<Endpoint> {
        self.current
    }

    /// Whether `source` is within the limits.
    pub fn admits(&self, source: Endpoint) -> bool {
        let source = source.remote;
        self.address.is_none_or(|address| address == source.ip()) && self.port.is_none_or(|port| port == source.port())
    }

    /// Learns `source`, replacing an earlier one. False if the source is outside the limits.
    pub fn learn(&mut self, source: Endpoint) -> bool {
        let right = self.admits(source);
        if right {
            self.current = Some(source);
        }
        right
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    #[test]
    fn learned_address_obeys_limits() {
        let (a, b, c): (SocketAddr, SocketAddr, SocketAddr) =
            ("10.9.0.2:6000".parse().unwrap(), "10.9.0.2:6001".parse().unwrap(), "10.9.0.3:6000".parse().unwrap());
        for (address, port, learned) in [
            (None, None, [true, true, true]),
            (Some(a.ip()), None, [true, true, false]),
            (None, Some(6000), [true, false, true]),
        ] {
            let mut remote = Remote::new(&privsep::ipc::Remote::Learned { address, port }, None, None);
            assert_eq!(remote.target(), Target::Unknown);
            let Remote::Learned(inner) = &mut remote else { panic!() };
            assert_eq!([a, b, c].map(|source| inner.learn(source.into())), learned);
            let last = [c, b, a].into_iter().zip(learned.into_iter().rev()).find(|(_, right)| *right);
            assert_eq!(remote.target().address(), last.map(|(source, _)| source));
            let local = Some([10, 9, 0, 1].into());
            let from_before = Remote::new(&privsep::ipc::Remote::Learned { address, port }, Some(Address(c)), local);
            let (c, local) = (learned[2].then_some(Address(c)), local.filter(|_| learned[2]));
            assert_eq!((from_before.learned(), from_before.local()), (c, local));
        }
    }
}
