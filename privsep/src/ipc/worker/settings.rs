//! Settings of a worker: the same for every worker of a tunnel.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{Classic, Secure};
use crate::ipc::Address;

/// Largest inner Ethernet frame in bytes, without its checksum; a longer one is dropped, never cut. `EthUDP`'s limit.
pub const MAX_FRAME: usize = 9234;

/// Which kind of handle the local side is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PortKind {
    /// A TAP interface.
    #[default]
    Tap,
    /// A packet socket.
    Raw,
    /// A packet socket that is only read.
    Mirror {
        /// Only the payload of UDP datagrams is sent.
        udp: bool,
    },
}

/// What a tunnel is to its workers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Kind of the local handle.
    pub port: PortKind,
    /// How frames become datagrams.
    pub wire: Wire,
    /// Whom each path talks to; as many as there are handles of paths.
    pub remotes: Vec<Remote>,
    /// What each path is bound to; as many.
    pub locals: Vec<Address>,
    /// What is done to frames.
    pub rules: Rules,
    /// Ticks after which the worker ends.
    pub exit_after: Option<u64>,
    /// What is announced when there is a session; `None` on the classic wire, and where the local side has no addresses.
    pub announcement: Option<Announcement>,
}

/// How frames become datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wire {
    /// `EthUDP`'s format.
    Classic(Classic),
    /// The one of docs/WIRE.md.
    Secure(Secure),
}

impl Default for Wire {
    fn default() -> Self {
        Self::Classic(Classic::default())
    }
}

impl Wire {
    /// Longest datagram in bytes that leaves whole by every path, where the wire has one.
    pub fn longest(&self) -> Option<u16> {
        match self {
            Self::Classic(_) => None,
            Self::Secure(secure) => Some(secure.datagram),
        }
    }

    /// Whether a datagram is opened within its own bytes, so that many can lie side by side.
    pub fn in_place(&self) -> bool {
        match self {
            Self::Classic(classic) => classic.in_place(),
            Self::Secure(_) => true,
        }
    }
}

/// What the peer's network is told of a TAP's addresses when there is a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    /// MAC address of the TAP.
    pub mac: [u8; 6],
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// This host forwards IPv6 from the TAP.
    pub router: bool,
}

/// Headers in bytes between an underlay's MTU and a datagram's payload.
pub mod header {
    use std::net::IpAddr;

    /// IPv4 without options (RFC 791).
    pub const IPV4: u16 = 20;
    /// IPv6 without extensions (RFC 8200).
    pub const IPV6: u16 = 40;
    /// UDP (RFC 768).
    pub const UDP: u16 = 8;

    /// IP and UDP for datagrams between addresses of this family.
    pub fn datagram(family: IpAddr) -> u16 {
        UDP + if family.is_ipv6() { IPV6 } else { IPV4 }
    }
}

/// Whom a path talks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Remote {
    /// Datagrams go to this address, and the kernel drops those of others: the socket is connected, or has a filter.
    Fixed(Address),
    /// The address is learned, within these limits.
    Learned {
        /// Only this address.
        address: Option<IpAddr>,
        /// Only this port.
        port: Option<u16>,
    },
}

/// What is done to frames on their way.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    /// Frames are taken from the port and sent.
    pub send: bool,
    /// Frames that are received are given to the port.
    pub receive: bool,
    /// Our own tunnel's datagrams are not sent into it.
    pub loop_check: bool,
    /// Upper limit of the MSS in TCP SYNs over IPv4, and over IPv6.
    pub mss: Option<(u16, u16)>,
    /// Local and remote VLAN id.
    pub vlan_map: Vec<(u16, u16)>,
}
