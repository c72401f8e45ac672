//! What a worker is told, by lifetime: settings are the tunnel's and the same for every worker, secrets likewise but apart, the
//! state is what the worker before has come to, and an order such as to drain is for one worker and once.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{Counts, PathCounters, PortCounters, SealCounters, Secret, Secure, SecureState};
use crate::ipc::Address;

/// Largest inner Ethernet frame in bytes, without its checksum; a longer one is dropped, never cut. `EthUDP`'s limit.
pub const MAX_FRAME: usize = 9234;

/// Which cipher the classic wire uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cipher {
    /// Clear text.
    #[default]
    None,
    /// Repeated XOR with the key.
    Xor,
    /// AES-128-CBC.
    Aes128,
    /// AES-192-CBC.
    Aes192,
    /// AES-256-CBC.
    Aes256,
    /// AES-192-CBC, which the releases of `EthUDP` (v20181024 to v20230202) run under the name aes-256.
    Aes256Ethudp2023,
}

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

/// Settings of the classic wire.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Classic {
    /// Cipher.
    pub cipher: Cipher,
    /// Whether datagrams are LZ4 blocks with a trailer.
    pub compress: bool,
    /// Datagrams that are larger than this less IPv4's and UDP's headers leave as two fragments; `None` neither splits nor joins.
    pub fragment_mtu: Option<u16>,
    /// Whether PING and password are sent unasked.
    pub keepalive: bool,
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

impl Classic {
    /// Longest datagram in bytes that leaves whole where datagrams are split. The format takes IPv4's headers for granted,
    /// whatever the underlay is.
    pub fn whole(&self) -> Option<u16> {
        self.fragment_mtu.map(|mtu| mtu.saturating_sub(header::IPV4 + header::UDP))
    }

    /// Whether a datagram is opened within its own bytes, so that many can lie side by side: it neither inflates nor is joined.
    pub fn in_place(&self) -> bool {
        !self.compress && self.fragment_mtu.is_none()
    }

    /// The longest frame in bytes that is sealed into `payload` bytes whatever is in it.
    pub fn largest_frame(&self, payload: u32) -> u32 {
        const BLOCK: u32 = 16;
        let sealed = match self.cipher {
            Cipher::None | Cipher::Xor => payload,
            // Padding takes at least one byte.
            Cipher::Aes128 | Cipher::Aes192 | Cipher::Aes256 | Cipher::Aes256Ethudp2023 => {
                (payload / BLOCK * BLOCK).saturating_sub(1)
            }
        };
        // The trailer.
        sealed.saturating_sub(u32::from(self.compress))
    }
}

/// What nobody else may know. Sent once, behind what it belongs to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secrets {
    /// Key of the classic wire as the user gave it, before padding or cutting; empty for [`Cipher::None`].
    pub key: Secret,
    /// Password of the classic wire; empty without one.
    pub password: Secret,
    /// X25519 private key of this end on the secure wire, 32 bytes; empty on the classic one.
    pub private_key: Secret,
    /// Pre-shared key of the secure wire, 32 bytes; empty without one.
    pub psk: Secret,
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

/// What survives a worker. Why each field may is said where the supervisor takes it, in `src/supervise/resume.rs`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Ticks passed, about one a second.
    pub tick: u64,
    /// Number of the path that frames leave by.
    pub active: u8,
    /// Sequence number of the next fragment.
    pub fragment: u16,
    /// The local side.
    pub port: PortCounters,
    /// What compression and encryption did to the size of frames.
    pub seal: SealCounters,
    /// The secure wire.
    pub secure: SecureState,
    /// Each path.
    pub paths: Vec<PathReport>,
}

impl State {
    /// Sets counts back to zero.
    pub fn reset(&mut self, counts: Counts) {
        self.port.reset(counts);
        self.seal.reset(counts);
        self.secure.reset(counts);
        self.paths.iter_mut().for_each(|path| path.counters.reset(counts));
    }
}

/// Health of a path.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PathHealth {
    /// The peer has not answered yet.
    #[default]
    Connecting,
    /// The peer answers.
    Up,
    /// The peer has answered once, and no longer does.
    Down,
}

/// What a worker says of one path.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathReport {
    /// Health at the last tick.
    pub health: PathHealth,
    /// The learned address.
    pub learned: Option<Address>,
    /// Our address that the peer asks, where the kernel's choice is another.
    pub local: Option<IpAddr>,
    /// Tick in which the last PONG came.
    pub last_pong: u64,
    /// Microseconds from the last PING to the last PONG; 0 before the first.
    pub rtt_us: u64,
    /// Milliseconds since the last datagram came to this worker.
    pub last_rx_ms: Option<u64>,
    /// Whether the longest datagrams do not arrive at the peer, while small ones do; `None` while this worker does not know.
    pub drops_longest: Option<bool>,
    /// Counts.
    pub counters: PathCounters,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_frame_leaves_room_for_padding_and_trailer() {
        for (cipher, compress, frame) in [
            (Cipher::None, false, 1472),
            (Cipher::Xor, true, 1471),
            // 92 blocks, of which padding takes one byte at least.
            (Cipher::Aes128, false, 1471),
            (Cipher::Aes256, true, 1470),
        ] {
            assert_eq!(Classic { cipher, compress, ..Classic::default() }.largest_frame(1472), frame);
        }
        assert_eq!(Classic { cipher: Cipher::Aes128, ..Classic::default() }.largest_frame(7), 0);
    }
}
