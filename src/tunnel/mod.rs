//! Description of a tunnel, from a classic command line or from a [`file`].
//!
//! Values, each with its format and bounds: [`address`], [`names`], [`vlan_map`], [`link_local`], [`ethertypes`], [`repair`], [`bounds`], [`mac`], and the
//! [`wire`]. Derived from a tunnel: [`advice`] to the user, networks that are already [`taken`], addresses by [`resolve`], the
//! [`plan`] for the helper with a filter that admits [`only`] the peer, and [`settings`] for the workers.

pub mod address;
pub mod advice;
pub mod bounds;
pub mod ethertypes;
#[cfg(test)]
pub mod example;
pub mod file;
pub mod link_local;
pub mod mac;
pub mod names;
pub mod only;
pub mod plan;
pub mod repair;
pub mod resolve;
pub mod settings;
pub mod taken;
pub mod vlan_map;
pub mod wire;

use std::net::IpAddr;

use privsep::ipc::{Policy, Rules};

pub use address::{Endpoint, Remote};
pub use repair::Repair;
pub use wire::{Classic, Secure, Wire, cipher, identifier, keys};

/// Description of a tunnel.
#[derive(Debug)]
pub struct Tunnel {
    /// Name, used for the control socket and in every log line.
    pub name: String,
    /// The local side.
    pub port: Port,
    /// Paths to the peer, the preferred one first.
    pub paths: Vec<Path>,
    /// Use of several paths.
    pub policy: Policy,
    /// The wire.
    pub wire: Wire,
    /// Rules for frames.
    pub rules: Rules,
    /// Whether the MSS in `rules` follows from the MTU of the underlay.
    pub auto_mss: bool,
    /// Command that is run once everything is open.
    pub run: Option<String>,
    /// Ticks of about a second, after which a worker ends.
    pub exit_after: Option<u64>,
    /// Whether the tunnel ends if the kernel lacks a means of confinement.
    pub require_confinement: bool,
    /// Time of a new start that repairs a fault of this run.
    pub repair: Repair,
    /// User of all processes when started by root.
    pub user: Option<String>,
}

impl Tunnel {
    /// Classic wire, if the tunnel uses it.
    pub fn classic(&self) -> Option<&Classic> {
        match &self.wire {
            Wire::Classic(classic) => Some(classic),
            Wire::Secure(_) => None,
        }
    }

    /// Secure wire, if the tunnel uses it.
    pub fn secure(&self) -> Option<&Secure> {
        match &self.wire {
            Wire::Classic(_) => None,
            Wire::Secure(secure) => Some(secure),
        }
    }

    /// Whether the peer answers pings, so that a silent path is down.
    pub fn is_answered(&self) -> bool {
        self.wire.is_answered(&self.port)
    }
}

/// Local side.
#[derive(Debug)]
pub enum Port {
    /// A TAP interface.
    Tap {
        /// Interface name; `None` lets the kernel choose `tapN`.
        name: Option<String>,
        /// Addresses with prefix length.
        addresses: Vec<(IpAddr, u8)>,
        /// MTU of the interface in bytes.
        interface_mtu: Option<u32>,
        /// Bridge that the interface joins.
        bridge: Option<String>,
        /// Bits of the [`link_local`] groups that the bridge forwards from the interface.
        groups: u16,
        /// Whether the interface has a carrier only while a path is up.
        follow: bool,
    },
    /// An existing interface.
    Raw {
        /// Interface name.
        interface: String,
        /// Whether frames for other stations are received.
        promiscuous: bool,
    },
    /// A one-way copy of an interface's frames.
    Mirror {
        /// Interface name.
        interface: String,
        /// Filter in the syntax of tcpdump; empty for all frames.
        filter: String,
        /// Whether only the payload of UDP datagrams is sent.
        udp: bool,
    },
}

impl Port {
    /// Default of the loop check: on for a local side that is only read, except for mirrors.
    pub fn checks_loops(&self, receive: bool) -> bool {
        !receive && !self.is_mirror()
    }

    /// Whether this is a mirror, which receives nothing and needs no answer.
    pub fn is_mirror(&self) -> bool {
        matches!(self, Self::Mirror { .. })
    }

    /// Name of the mode in file and status.
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

/// Path to the peer, with unresolved hosts.
#[derive(Debug, Clone)]
pub struct Path {
    /// Local end.
    pub local: Endpoint,
    /// Remote end.
    pub remote: Remote,
    /// Interface or VRF to which the socket is bound.
    pub device: Option<String>,
    /// Firewall mark of the datagrams.
    pub mark: Option<u32>,
    /// MTU in bytes of the underlay, instead of the one that the kernel names.
    pub mtu: Option<u16>,
    /// Whether datagrams may leave in runs (`UDP_SEGMENT`).
    pub runs: bool,
    /// Share of the path in the flows.
    pub weight: u8,
}
