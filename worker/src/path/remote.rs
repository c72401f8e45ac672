//! Whom a path talks to: a fixed address, or one that is learned from what arrives (a peer behind NAT).

use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};

use privsep::ipc::Address;

/// The remote of a path.
pub enum Remote {
    /// The socket is connected; the kernel refuses everybody else.
    Fixed(SocketAddr),
    /// Learned within limits.
    Learned(Learned),
}

/// An address that is learned.
pub struct Learned {
    /// Only this address is learned.
    pub address: Option<IpAddr>,
    /// Only this port is learned.
    pub port: Option<u16>,
    /// Read once a batch, written when it moves.
    current: Mutex<Option<SocketAddr>>,
}

/// Where to send.
pub enum To {
    /// Where the socket is connected.
    Connected,
    /// To this address.
    Address(SocketAddr),
    /// Nobody has been learned yet.
    Nobody,
}

impl Remote {
    /// From what the supervisor says, and what an earlier worker had learned.
    pub fn new(remote: &privsep::ipc::Remote, learned: Option<Address>) -> Self {
        match *remote {
            privsep::ipc::Remote::Fixed(Address(address)) => Self::Fixed(address),
            privsep::ipc::Remote::Learned { address, port } => {
                let remote = Learned { address, port, current: Mutex::new(None) };
                // It comes from an earlier worker, so it is held to the limits like any other.
                if let Some(Address(learned)) = learned {
                    remote.learn(learned);
                }
                Self::Learned(remote)
            }
        }
    }

    /// Whether it is learned.
    pub fn is_learned(&self) -> bool {
        matches!(self, Self::Learned(_))
    }

    /// Where to send now.
    pub fn to(&self) -> To {
        match self {
            Self::Fixed(_) => To::Connected,
            Self::Learned(learned) => learned.get().map_or(To::Nobody, To::Address),
        }
    }

    /// The address of the peer, as far as it is known.
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Fixed(address) => Some(*address),
            Self::Learned(learned) => learned.get(),
        }
    }
}

impl Learned {
    fn lock(&self) -> MutexGuard<'_, Option<SocketAddr>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The learned address.
    pub fn get(&self) -> Option<SocketAddr> {
        *self.lock()
    }

    /// Learns `source`, the last one wins; false when it is outside the limits.
    pub fn learn(&self, source: SocketAddr) -> bool {
        let right = self.address.is_none_or(|address| address == source.ip())
            && self.port.is_none_or(|port| port == source.port());
        if right {
            *self.lock() = Some(source);
        }
        right
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_limits_allow_is_learned_and_the_last_wins() {
        let (a, b, c): (SocketAddr, SocketAddr, SocketAddr) =
            ("10.9.0.2:6000".parse().unwrap(), "10.9.0.2:6001".parse().unwrap(), "10.9.0.3:6000".parse().unwrap());
        for (address, port, learned) in [
            (None, None, [true, true, true]),
            (Some(a.ip()), None, [true, true, false]),
            (None, Some(6000), [true, false, true]),
        ] {
            let remote = Remote::new(&privsep::ipc::Remote::Learned { address, port }, None);
            let Remote::Learned(inner) = &remote else { panic!() };
            assert!(matches!(remote.to(), To::Nobody));
            assert_eq!([a, b, c].map(|source| inner.learn(source)), learned);
            let last = [c, b, a].into_iter().zip(learned.into_iter().rev()).find(|(_, right)| *right);
            assert_eq!(remote.address(), last.map(|(source, _)| source));
            let from_before = Remote::new(&privsep::ipc::Remote::Learned { address, port }, Some(Address(c)));
            assert_eq!(from_before.address(), learned[2].then_some(c));
        }
    }
}
