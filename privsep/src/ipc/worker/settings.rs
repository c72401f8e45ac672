//! Settings of a worker: the same for every worker of a tunnel.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{Classic, Secure};
use crate::ipc::Address;

/// Largest inner Ethernet frame in bytes, without its checksum: the limit of `EthUDP`. A longer frame is dropped, never truncated.
pub const MAX_FRAME: usize = 9234;

/// Kind of the local side's handle.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PortKind {
    /// A TAP interface.
    #[default]
    Tap,
    /// A packet socket.
    Raw,
    /// A packet socket that only receives.
    Mirror {
        /// Whether only the payload of UDP datagrams is sent.
        udp: bool,
    },
}

/// Settings of a tunnel for its workers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Kind of the local handle.
    pub port: PortKind,
    /// Wire format.
    pub wire: Wire,
    /// Remote of each path; as many as path handles.
    pub remotes: Vec<Remote>,
    /// Local address of each path; as many as remotes.
    pub locals: Vec<Address>,
    /// Settings of each path; as many as remotes.
    pub paths: Vec<PathSettings>,
    /// Processing of frames.
    pub rules: Rules,
    /// Ticks after which the worker ends.
    pub exit_after: Option<u64>,
    /// Announcement after a new session; `None` on the classic wire, and if the local side has no addresses.
    pub announcement: Option<Announcement>,
}

/// Wire format: encodes frames as datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wire {
    /// Format of `EthUDP`.
    Classic(Classic),
    /// Format of docs/WIRE.md.
    Secure(Secure),
}

impl Default for Wire {
    fn default() -> Self {
        Self::Classic(Classic::default())
    }
}

impl Wire {
    /// Longest datagram in bytes of any path, if the wire has a limit.
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

/// Announcement of a TAP's addresses to the peer's network, after a new session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    /// MAC address of the TAP.
    pub mac: [u8; 6],
    /// Addresses of the TAP.
    pub addresses: Vec<IpAddr>,
    /// Whether this host forwards IPv6 from the TAP.
    pub router: bool,
}

/// Lengths in bytes of the headers between an underlay's MTU and a datagram's payload.
pub mod header {
    use std::net::IpAddr;

    /// IPv4 without options (RFC 791).
    pub const IPV4: u16 = 20;
    /// IPv6 without extensions (RFC 8200).
    pub const IPV6: u16 = 40;
    /// UDP (RFC 768).
    pub const UDP: u16 = 8;

    /// IP and UDP headers of datagrams between addresses of this family.
    pub fn datagram(family: IpAddr) -> u16 {
        UDP + if family.is_ipv6() { IPV6 } else { IPV4 }
    }
}

/// Remote of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Remote {
    /// Fixed address. The kernel drops datagrams of other senders: the socket is connected or has a filter.
    Fixed(Address),
    /// Address of a name, which the supervisor may change by [`super::ToWorker::Remote`]. The socket is not connected.
    Named {
        /// Address to use; `None` while the name has none.
        now: Option<Address>,
        /// Address in use before, which the peer may still use.
        before: Option<Address>,
    },
    /// Address learned from datagrams, within these limits.
    Learned {
        /// Only this address.
        address: Option<IpAddr>,
        /// Address in use before the name had another one: it also counts until the peer is heard from the other one.
        before: Option<IpAddr>,
        /// Only this port.
        port: Option<u16>,
    },
}

impl Remote {
    /// Address learned without limits.
    pub const ANY: Self = Self::Learned { address: None, before: None, port: None };
}

/// Settings of a path. The lengths are those of the secure wire.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathSettings {
    /// Length in bytes of UDP payload of the datagrams with which the path begins.
    pub least: u16,
    /// Greatest length of the datagrams. The worker searches from `least` to this length for the longest that arrive.
    pub most: u16,
    /// Whether datagrams may leave in runs (`UDP_SEGMENT`).
    pub runs: bool,
}

/// Processing of frames between the local side and the paths.
#[allow(clippy::struct_excessive_bools)] // Each is a rule of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    /// Whether frames are taken from the port and sent.
    pub send: bool,
    /// Whether received frames are given to the port.
    pub receive: bool,
    /// Whether datagrams of this tunnel are kept out of it.
    pub loop_check: bool,
    /// Upper limits of the MSS in TCP SYNs over IPv4 and over IPv6.
    pub mss: Option<(u16, u16)>,
    /// Whether the limits fall with the sizes that the paths carry.
    pub mss_follows: bool,
    /// Whether IP packets that are too long for a path are answered with ICMP.
    pub answers: bool,
    /// Pairs of local and remote VLAN id.
    pub vlan_map: Vec<(u16, u16)>,
    /// Storm guard.
    pub guard: Guard,
    /// DSCP of the datagrams that carry frames; `None` leaves it at 0.
    pub dscp: Option<Dscp>,
    /// Whether congestion marks are carried between frames and datagrams (RFC 6040).
    pub ecn: bool,
}

/// Limits on the frames between bridged sites.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guard {
    /// Most broadcasts a second in each direction.
    pub broadcast: Option<u32>,
    /// Most frames a second to other groups, in each direction.
    pub multicast: Option<u32>,
    /// Most MAC addresses of stations behind the peer.
    pub stations: Option<u16>,
    /// Allowed EtherTypes; empty for all.
    pub ethertypes: Vec<u16>,
    /// Whether frames of this end that come back block the tunnel.
    pub loops: bool,
}

impl Guard {
    /// Entry of the EtherTypes for all frames with a length in place of one (IEEE 802.3), such as those of the spanning tree protocol.
    pub const LENGTHS: u16 = 0;
}

/// DSCP of datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Dscp {
    /// That of the frame's packet.
    Copy,
    /// This value, 0 to 63.
    Fixed(u8),
}

impl Dscp {
    /// Traffic class of a datagram without a frame.
    pub fn class(self) -> u8 {
        match self {
            Self::Copy => 0,
            Self::Fixed(dscp) => dscp << 2,
        }
    }
}
