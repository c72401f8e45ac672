//! What a tunnel is, however it was described: by a classic command line or by a [`file`].
//!
//! Its values, each with its form and bounds: [`address`], [`names`], [`cipher`], [`vlan_map`], [`repair`], [`bounds`]. What is
//! made of it: [`advice`] to people, addresses by [`resolve`], the [`plan`] for the helper, [`settings`] for the workers.

pub mod address;
pub mod advice;
pub mod bounds;
pub mod cipher;
pub mod file;
pub mod filter;
pub mod names;
pub mod plan;
pub mod repair;
pub mod resolve;
pub mod settings;
pub mod vlan_map;

use std::net::IpAddr;

use privsep::ipc::{self, Cipher, Rules, Secret};

pub use address::{Endpoint, Remote};
pub use repair::Repair;

/// A tunnel.
#[derive(Debug)]
pub struct Tunnel {
    /// Names the control socket and stands in every log line.
    pub name: String,
    /// The local side.
    pub port: Port,
    /// The ways to the peer, the preferred one first.
    pub paths: Vec<Path>,
    /// The classic wire.
    pub classic: Classic,
    /// What is done to frames.
    pub rules: Rules,
    /// The MSS in these is to be what fits through the underlay.
    pub auto_mss: bool,
    /// A command to run when everything is open.
    pub run: Option<String>,
    /// Ticks, about seconds, after which a worker has run long enough.
    pub exit_after: Option<u64>,
    /// Whether a worker that is less confined than this program can have it ends the tunnel.
    pub require_confinement: bool,
    /// When a service manager is to start it again for what only that repairs.
    pub repair: Repair,
    /// The user that all processes become when started by root.
    pub user: Option<String>,
}

/// The classic wire format.
#[derive(Debug, Default)]
pub struct Classic {
    /// Cipher.
    pub cipher: Cipher,
    /// Its key; empty without a cipher.
    pub key: Secret,
    /// Password; empty for none.
    pub password: Secret,
    /// LZ4 level of the original, 0 to 9; 0 is off, and all others are one to us.
    pub lz4: u8,
    /// `-mtu`: the MTU in bytes over which a datagram leaves as two.
    pub fragment_mtu: Option<u16>,
}

impl Classic {
    /// What of it is no secret, without a keepalive.
    pub fn settings(&self) -> ipc::Classic {
        let Self { cipher, lz4, fragment_mtu, .. } = *self;
        ipc::Classic { cipher, compress: lz4 > 0, fragment_mtu, keepalive: false }
    }
}

/// The local side.
#[derive(Debug)]
pub enum Port {
    /// A TAP interface.
    Tap {
        /// Interface name; `None` lets the kernel choose `tapN`.
        name: Option<String>,
        /// Addresses with prefix length.
        addresses: Vec<(IpAddr, u8)>,
        /// MTU of that interface in bytes.
        interface_mtu: Option<u32>,
        /// The bridge that it joins.
        bridge: Option<String>,
    },
    /// An interface that exists.
    Raw {
        /// Interface name.
        interface: String,
        /// Whether to take frames for other stations.
        promiscuous: bool,
    },
    /// A one-way copy of an interface's frames.
    Mirror {
        /// Interface name.
        interface: String,
        /// Filter as tcpdump takes it; empty selects everything.
        filter: String,
        /// Only the payload of UDP datagrams is sent.
        udp: bool,
    },
}

impl Port {
    /// Whether the loop check is on unless told otherwise: with what only reads its local side, but not with mirrors.
    pub fn checks_loops(&self, receive: bool) -> bool {
        !receive && !self.is_mirror()
    }

    /// Whether it is a mirror: nothing is given back to it, and nobody need answer.
    pub fn is_mirror(&self) -> bool {
        matches!(self, Self::Mirror { .. })
    }

    /// The mode's name in file and status.
    pub fn mode(&self) -> &'static str {
        match self {
            Self::Tap { bridge: None, .. } => "tap",
            Self::Tap { bridge: Some(_), .. } => "bridge",
            Self::Raw { .. } => "raw",
            Self::Mirror { udp: false, .. } => "mirror",
            Self::Mirror { udp: true, .. } => "mirror-udp",
        }
    }
}

/// One way to the peer, hosts not yet resolved.
#[derive(Debug, Clone)]
pub struct Path {
    /// Our side.
    pub local: Endpoint,
    /// The peer.
    pub remote: Remote,
    /// Interface or VRF to which the socket is bound.
    pub device: Option<String>,
    /// Firewall mark of its datagrams.
    pub mark: Option<u32>,
}
