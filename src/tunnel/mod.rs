//! What a tunnel is, however it was described: by a classic command line or by a [`file`].
//!
//! Values, each with its form and bounds: [`address`], [`names`], [`vlan_map`], [`repair`], [`bounds`], [`mac`], and the [`wire`].
//! Derived from a tunnel: [`advice`] to the user, networks that are [`taken`], addresses by [`resolve`], the [`plan`] for the
//! helper with a filter that passes [`only`] the peer, and [`settings`] for the workers.

pub mod address;
pub mod advice;
pub mod bounds;
#[cfg(test)]
pub mod example;
pub mod file;
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

use privsep::ipc::Rules;

pub use address::{Endpoint, Remote};
pub use repair::Repair;
pub use wire::{Classic, Secure, Wire, cipher, identifier, keys};

/// A tunnel.
#[derive(Debug)]
pub struct Tunnel {
    /// Names the control socket and stands in every log line.
    pub name: String,
    /// The local side.
    pub port: Port,
    /// The ways to the peer, the preferred one first.
    pub paths: Vec<Path>,
    /// The wire.
    pub wire: Wire,
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

impl Tunnel {
    /// The classic wire, if it is that.
    pub fn classic(&self) -> Option<&Classic> {
        match &self.wire {
            Wire::Classic(classic) => Some(classic),
            Wire::Secure(_) => None,
        }
    }

    /// The secure wire, if it is that.
    pub fn secure(&self) -> Option<&Secure> {
        match &self.wire {
            Wire::Classic(_) => None,
            Wire::Secure(secure) => Some(secure),
        }
    }

    /// Whether the peer answers by itself, so that a silent path is down.
    pub fn is_answered(&self) -> bool {
        self.wire.is_answered(&self.port)
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
