//! Remote of a path: a fixed address, the address of a name, or an address that is learned from received datagrams (a peer behind
//! NAT).

use std::net::{IpAddr, SocketAddr};

use privsep::ipc::Address;

use crate::endpoint::{Endpoint, Target};

/// Remote of a path.
pub enum Remote {
    /// Fixed address; the kernel drops datagrams of other senders.
    Fixed(Endpoint),
    /// Address of a name.
    Named(Named),
    /// Address learned within limits.
    Learned(Learned),
}

/// Address of a name, which the supervisor looks up.
pub struct Named {
    /// Place of the peer that is in use.
    place: Option<Endpoint>,
    /// Address that the supervisor has told last. While another one is in use, the peer must first answer there.
    told: Option<SocketAddr>,
    /// Address in use before, from which datagrams of the peer may still arrive.
    before: Option<SocketAddr>,
}

/// Learned address.
pub struct Learned {
    /// Only this address is learned.
    address: Option<IpAddr>,
    /// Address in use before the supervisor has told [`address`](Self::address). The peer may still be there.
    before: Option<IpAddr>,
    /// Only this port is learned.
    port: Option<u16>,
    current: Option<Endpoint>,
}

impl Remote {
    /// Takes the remote of the supervisor, and the addresses that an earlier worker had learned: the peer's, and the local one that
    /// the peer used.
    pub fn new(remote: &privsep::ipc::Remote, learned: Option<Address>, local: Option<IpAddr>) -> Self {
        match *remote {
            privsep::ipc::Remote::Fixed(Address(remote)) => Self::Fixed(Endpoint { remote, local }),
            privsep::ipc::Remote::Named { now, before } => {
                let told = now.map(|now| now.0);
                // The report of an earlier worker is not trusted: only an address that the supervisor has told counts.
                let used = learned.filter(|used| before == Some(*used)).map(|used| used.0).or(told);
                let place = used.map(|remote| Endpoint { remote, local });
                Self::Named(Named { place, told, before: before.map(|before| before.0) })
            }
            privsep::ipc::Remote::Learned { address, before, port } => {
                let mut remote = Learned { address, before, port, current: None };
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
            Self::Named(named) => named.place.map_or(Target::Unknown, Target::Fixed),
            Self::Learned(learned) => learned.current.map_or(Target::Unknown, Target::Learned),
        }
    }

    /// Learned address of the peer, or the address of its name that is in use.
    pub fn learned(&self) -> Option<Address> {
        match self {
            Self::Fixed(_) => None,
            Self::Named(named) => named.place.map(|place| Address(place.remote)),
            Self::Learned(learned) => learned.current.map(|place| Address(place.remote)),
        }
    }

    /// Local address that the peer uses, if known.
    pub fn local(&self) -> Option<IpAddr> {
        match self {
            Self::Fixed(place) => place.local,
            Self::Named(named) => named.place?.local,
            Self::Learned(learned) => learned.current?.local,
        }
    }

    /// Takes an address from the supervisor. With `keep`, an address of a name that is in use stays until the peer has answered at
    /// the new one. Returns the new target if it must be asked first.
    pub fn tell(&mut self, address: SocketAddr, keep: bool) -> Option<Target> {
        match self {
            Self::Fixed(_) => None,
            Self::Named(named) => {
                named.told = Some(address);
                if named.place.is_some_and(|place| place.remote == address) {
                    return None;
                }
                if keep && named.place.is_some() {
                    return Some(Target::Fixed(address.into()));
                }
                named.change(address);
                None
            }
            Self::Learned(learned) => {
                learned.limit(address.ip(), keep);
                None
            }
        }
    }

    /// Records that the peer has answered a datagram to this address. Uses the address if the supervisor has told it, and an
    /// earlier one if the present one does not work.
    pub fn answered_at(&mut self, address: SocketAddr, works: bool) {
        if let Self::Named(named) = self
            && named.place.is_none_or(|place| place.remote != address)
            && (named.told == Some(address) || !works && named.admits(address))
        {
            named.change(address);
        }
    }

    /// Records that the peer is at this place, if the limits allow it.
    pub fn set_place(&mut self, source: Endpoint) {
        match self {
            Self::Fixed(place) => place.local = source.local,
            Self::Named(Named { place: Some(place), .. }) if place.remote == source.remote => {
                place.local = source.local;
            }
            Self::Named(_) => {}
            Self::Learned(learned) => {
                learned.learn(source);
            }
        }
    }

    /// Reacts to a silent peer: one that is not learned may answer another local address, such as the kernel's choice.
    pub fn forget_local(&mut self) {
        if let Self::Fixed(place) | Self::Named(Named { place: Some(place), .. }) = self {
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

impl Named {
    /// Place of the peer that is in use.
    pub fn place(&self) -> Option<Endpoint> {
        self.place
    }

    /// Whether the peer may send from this address.
    pub fn admits(&self, source: SocketAddr) -> bool {
        self.place.is_some_and(|place| place.remote == source) || [self.told, self.before].contains(&Some(source))
    }

    /// Uses this address from now on.
    fn change(&mut self, address: SocketAddr) {
        self.before = self.place.replace(address.into()).map(|place| place.remote);
    }
}

impl Learned {
    /// Learned place.
    pub fn get(&self) -> Option<Endpoint> {
        self.current
    }

    /// Whether `source` is within the limits.
    pub fn admits(&self, source: Endpoint) -> bool {
        let (ip, port) = (source.remote.ip(), source.remote.port());
        let may_be = self.address.is_none_or(|address| address == ip) || self.before == Some(ip);
        may_be && self.port.is_none_or(|only| only == port)
    }

    /// Learns this address as well. With `keep`, the peer's place stays until the peer is heard from there.
    fn limit(&mut self, address: IpAddr, keep: bool) {
        let used = self.current.map(|place| place.remote.ip());
        self.before = used.filter(|used| *used != address).or(self.before);
        if self.address.replace(address) != Some(address) && !keep {
            self.current = None;
        }
    }

    /// Learns `source`, replacing an earlier one. False if the source is outside the limits.
    pub fn learn(&mut self, source: Endpoint) -> bool {
        let right = self.admits(source);
        if right {
            if self.address == Some(source.remote.ip()) {
                self.before = None;
            }
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
    fn name_moves_when_the_peer_answers() {
        let [a, b, c] = ["10.9.0.2:6000", "10.9.0.22:6000", "10.9.0.3:6000"].map(|text| text.parse().unwrap());
        let named = |now: SocketAddr, before: Option<SocketAddr>, used: Option<SocketAddr>| {
            let remote = privsep::ipc::Remote::Named { now: Some(Address(now)), before: before.map(Address) };
            Remote::new(&remote, used.map(Address), None)
        };
        let admits = |remote: &Remote, source| matches!(remote, Remote::Named(named) if named.admits(source));
        let mut remote = named(a, None, None);
        assert_eq!((remote.target(), admits(&remote, b)), (Target::Fixed(a.into()), false));
        // A path that works keeps its address until the peer answers at the new one.
        assert_eq!(remote.tell(b, true), Some(Target::Fixed(b.into())));
        assert_eq!(remote.target().address(), Some(a));
        remote.answered_at(c, true);
        remote.answered_at(a, true);
        assert_eq!(remote.target().address(), Some(a));
        remote.answered_at(b, true);
        assert_eq!((remote.target().address(), remote.learned()), (Some(b), Some(Address(b))));
        // Datagrams that are on their way still count.
        assert_eq!([a, b, c].map(|source| admits(&remote, source)), [true, true, false]);
        // Other paths move at once.
        assert_eq!((remote.tell(c, false), remote.target().address()), (None, Some(c)));
        assert_eq!([a, b, c].map(|source| admits(&remote, source)), [false, true, true]);
        // A path that does not work there takes the earlier address again, if the peer answers there.
        remote.answered_at(b, true);
        remote.answered_at(a, false);
        assert_eq!(remote.target().address(), Some(c));
        remote.answered_at(b, false);
        assert_eq!(remote.target().address(), Some(b));
        // The next worker takes only an address that the supervisor has told.
        for (used, right) in [(Some(a), a), (Some(b), b), (Some(c), b), (None, b)] {
            assert_eq!(named(b, Some(a), used).target().address(), Some(right), "{used:?}");
        }
    }

    #[test]
    fn learned_peer_may_stay_at_its_address() {
        let [a, b, c]: [SocketAddr; 3] =
            ["10.9.0.2:6000", "10.9.0.22:6001", "10.9.0.3:6002"].map(|text| text.parse().unwrap());
        for keep in [true, false] {
            let limits = privsep::ipc::Remote::Learned { address: Some(a.ip()), before: None, port: None };
            let mut remote = Remote::new(&limits, Some(Address(a)), None);
            let learn = |remote: &mut Remote, source: SocketAddr| {
                let Remote::Learned(learned) = remote else { panic!() };
                learned.learn(source.into())
            };
            // Answers without the address in use, one after the other.
            for other in [b, c, b] {
                assert_eq!(remote.tell(other, keep), None);
                assert_eq!(remote.target().address(), Some(a).filter(|_| keep));
            }
            assert_eq!([a, c].map(|source| learn(&mut remote, source)), [true, false], "{keep}");
            // Once the peer is heard from there, the earlier address is another host's.
            assert_eq!([b, a].map(|source| learn(&mut remote, source)), [true, false], "{keep}");
            assert_eq!(remote.target().address(), Some(b));
        }
        // The next worker.
        let limits = privsep::ipc::Remote::Learned { address: Some(b.ip()), before: Some(a.ip()), port: None };
        for (used, right) in [(a, Some(a)), (b, Some(b)), (c, None)] {
            assert_eq!(Remote::new(&limits, Some(Address(used)), None).target().address(), right);
        }
    }

    #[test]
    fn learned_address_obeys_limits() {
        let (a, b, c): (SocketAddr, SocketAddr, SocketAddr) =
            ("10.9.0.2:6000".parse().unwrap(), "10.9.0.2:6001".parse().unwrap(), "10.9.0.3:6000".parse().unwrap());
        for (address, port, learned) in [
            (None, None, [true, true, true]),
            (Some(a.ip()), None, [true, true, false]),
            (None, Some(6000), [true, false, true]),
        ] {
            let limits = privsep::ipc::Remote::Learned { address, before: None, port };
            let mut remote = Remote::new(&limits, None, None);
            assert_eq!(remote.target(), Target::Unknown);
            let Remote::Learned(inner) = &mut remote else { panic!() };
            assert_eq!([a, b, c].map(|source| inner.learn(source.into())), learned);
            let last = [c, b, a].into_iter().zip(learned.into_iter().rev()).find(|(_, right)| *right);
            assert_eq!(remote.target().address(), last.map(|(source, _)| source));
            let local = Some([10, 9, 0, 1].into());
            let from_before = Remote::new(&limits, Some(Address(c)), local);
            let (c, local) = (learned[2].then_some(Address(c)), local.filter(|_| learned[2]));
            assert_eq!((from_before.learned(), from_before.local()), (c, local));
        }
    }
}
