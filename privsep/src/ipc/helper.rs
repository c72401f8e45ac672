//! What supervisor and helper say to each other, and the helper to a worker.

use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6};

use serde::{Deserialize, Serialize};

use super::Message;

/// Most paths of a tunnel, whatever its wire: the memory of workers is made for as many. A configuration may allow fewer.
pub const MAX_PATHS: usize = 8;

/// A socket address. Unlike the standard library's own encoding, this one keeps the scope of a link-local address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(IpAddr, u16, u32)", into = "(IpAddr, u16, u32)")]
pub struct Address(pub SocketAddr);

impl From<(IpAddr, u16, u32)> for Address {
    fn from((ip, port, scope): (IpAddr, u16, u32)) -> Self {
        match ip {
            IpAddr::V4(ip) => Self(SocketAddrV4::new(ip, port).into()),
            IpAddr::V6(ip) => Self(SocketAddrV6::new(ip, port, 0, scope).into()),
        }
    }
}

impl From<Address> for (IpAddr, u16, u32) {
    fn from(Address(address): Address) -> Self {
        let scope = if let SocketAddr::V6(address) = address { address.scope_id() } else { 0 };
        (address.ip(), address.port(), scope)
    }
}

/// Numeric user and group that a process becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// User id, never 0.
    pub uid: u32,
    /// Group id, never 0.
    pub gid: u32,
}

/// The exact list of handles that a tunnel will ever need. Sent once, frozen from then on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Whom to become after opening; `None` when the start was without root already.
    pub become_user: Option<Identity>,
    /// The local side.
    pub port: PortPlan,
    /// The remote side, the preferred path first; 1 to [`MAX_PATHS`].
    pub paths: Vec<PathPlan>,
    /// The plan comes with the queue of a TAP that a run before this one has made.
    pub stored: bool,
    /// The supervisor gets a copy of the TAP's queue, for the service manager to keep.
    pub store: bool,
}

/// The handle of the local side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PortPlan {
    /// A TAP interface, created by the helper.
    Tap {
        /// Interface name; `None` lets the kernel choose `tapN`.
        name: Option<String>,
        /// Addresses with prefix length in bits.
        addresses: Vec<(IpAddr, u8)>,
        /// The bridge that the interface joins.
        bridge: Option<String>,
        /// Interface MTU in bytes; `None` takes that of the bridge, at least 1500, and without one the kernel's 1500.
        interface_mtu: Option<u32>,
        /// MAC address of an interface that is made anew; `None` leaves it to the kernel.
        mac: Option<[u8; 6]>,
    },
    /// A packet socket on an interface that exists.
    Raw {
        /// Interface name.
        interface: String,
        /// Whether frames for other stations are also taken.
        promiscuous: bool,
    },
    /// A packet socket that only reads what a filter selects.
    Mirror {
        /// Interface name.
        interface: String,
        /// Classic BPF program; empty lets everything pass.
        filter: Vec<BpfInstruction>,
    },
}

/// An instruction of classic BPF (`struct sock_filter`, `linux/filter.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BpfInstruction {
    /// Operation.
    pub code: u16,
    /// Instructions to skip if true.
    pub jt: u8,
    /// Instructions to skip if false.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

/// A UDP socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathPlan {
    /// Bound to this address.
    pub local: Address,
    /// Connected to this address; `None` for a wildcard address, and for a peer whose address is learned.
    pub remote: Option<Address>,
    /// Classic BPF program for what is heard; empty lets everything pass.
    pub filter: Vec<BpfInstruction>,
    /// `SO_BINDTODEVICE`.
    pub device: Option<String>,
    /// `SO_MARK`.
    pub mark: Option<u32>,
    /// Datagrams come in runs (`UDP_GRO`).
    pub runs: bool,
}

/// Supervisor to helper.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToHelper {
    /// First message: [`crate::PROTOCOL`] of the supervisor and the plan.
    Plan(u32, Plan),
    /// Send the handles down the socket that comes with this message, and close the socket.
    Serve,
}

impl Message for ToHelper {
    /// A filter has up to 4096 instructions of 10 bytes.
    const MAX: usize = 48 << 10;

    fn descriptors(&self) -> usize {
        match self {
            Self::Plan(_, plan) => usize::from(plan.stored),
            Self::Serve => 1,
        }
    }
}

/// Helper to supervisor.
#[derive(Debug, Serialize, Deserialize)]
pub enum FromHelper {
    /// Every handle of the plan is open.
    Opened {
        /// Name of the local interface.
        interface: String,
        /// Its index.
        index: u32,
        /// The queue of the TAP comes with this.
        store: bool,
    },
    /// The TAP that came with the plan is not the one that it asks for. Every other holder must close it, or no other of its
    /// name can be made.
    LetGo,
    /// A handle could not be opened; the helper ends. One line for the user.
    Failed(String),
}

impl Message for FromHelper {
    const MAX: usize = 2048;

    fn descriptors(&self) -> usize {
        usize::from(matches!(self, Self::Opened { store: true, .. }))
    }
}

/// Kind of a descriptor that a worker receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Handle {
    /// The local side.
    Port,
    /// The UDP socket of the path with this number.
    Path(u8),
}

/// Helper to worker, on its descriptor 4: what each descriptor is that comes with it, in their order.
#[derive(Debug, Serialize, Deserialize)]
pub struct Handles(pub Vec<Handle>);

impl Message for Handles {
    const MAX: usize = 128;

    fn descriptors(&self) -> usize {
        self.0.len()
    }
}

/// The direction that is not used: nothing can be received.
#[derive(Debug, Serialize, Deserialize)]
pub enum Never {}

impl Message for Never {
    const MAX: usize = 1;
}
