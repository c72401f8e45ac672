//! Messages between supervisor and helper, and from the helper to a worker.

use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6};

use serde::{Deserialize, Serialize};

use super::Message;

/// Most paths of a tunnel, on either wire.
pub const MAX_PATHS: usize = 8;

/// Socket address. Unlike the standard library's encoding, this one keeps the scope of a link-local address.
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

/// Complete list of the handles of a tunnel. Sent once and never changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// User to become after opening; `None` if the program was started without root.
    pub become_user: Option<Identity>,
    /// The local side.
    pub port: PortPlan,
    /// The remote side, the preferred path first; 1 to [`MAX_PATHS`].
    pub paths: Vec<PathPlan>,
    /// Whether the plan comes with the TAP queue of an earlier run.
    pub stored: bool,
    /// Whether the supervisor gets a copy of the TAP's queue, for the service manager to store.
    pub store: bool,
}

/// The handle of the local side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PortPlan {
    /// A TAP interface, created by the helper.
    Tap(TapPlan),
    /// A packet socket on an existing interface.
    Raw {
        /// Interface name.
        interface: String,
        /// Whether frames for other stations are received as well.
        promiscuous: bool,
    },
    /// A packet socket that only receives the frames that a filter selects.
    Mirror {
        /// Interface name.
        interface: String,
        /// Classic BPF program; an empty one passes every frame.
        filter: Vec<BpfInstruction>,
    },
}

/// A TAP interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TapPlan {
    /// Interface name; `None` lets the kernel choose `tapN`.
    pub name: Option<String>,
    /// Addresses with prefix length in bits.
    pub addresses: Vec<(IpAddr, u8)>,
    /// The bridge that the interface joins.
    pub bridge: Option<String>,
    /// Link-local groups that the bridge forwards from this port: a bit for each last byte of 01:80:c2:00:00:00 to 0f.
    pub groups: u16,
    /// Interface MTU in bytes. `None` takes the bridge's MTU, but at least 1500; without a bridge it takes the kernel's 1500.
    pub interface_mtu: Option<u32>,
    /// MAC address of a new interface; `None` leaves the choice to the kernel.
    pub mac: Option<[u8; 6]>,
    /// Whether [`ToHelper::Carrier`] sets the carrier. A new interface then begins without one, and a stored one keeps its own.
    pub follow: bool,
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
    /// Classic BPF program for received datagrams; an empty one passes every datagram.
    pub filter: Vec<BpfInstruction>,
    /// `SO_BINDTODEVICE`.
    pub device: Option<String>,
    /// `SO_MARK`.
    pub mark: Option<u32>,
    /// Whether datagrams arrive in runs (`UDP_GRO`).
    pub runs: bool,
    /// Whether datagrams leave whole or not at all (`IP_PMTUDISC_PROBE`), instead of in IP fragments.
    pub whole: bool,
    /// Traffic class of sent datagrams (`IP_TOS`, `IPV6_TCLASS`).
    pub class: u8,
    /// Whether the traffic class of received datagrams is reported.
    pub reports_class: bool,
}

/// Supervisor to helper.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToHelper {
    /// First message: [`crate::PROTOCOL`] of the supervisor and the plan.
    Plan(u32, Plan),
    /// Send the handles down the attached socket, then close the socket.
    Serve,
    /// Set or clear the carrier of the TAP, if the plan allows it.
    Carrier(bool),
}

impl Message for ToHelper {
    /// A filter has up to 4096 instructions of 10 bytes.
    const MAX: usize = 48 << 10;

    fn descriptors(&self) -> usize {
        match self {
            Self::Plan(_, plan) => usize::from(plan.stored),
            Self::Serve => 1,
            Self::Carrier(_) => 0,
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
        /// Whether the queue of the TAP is attached.
        store: bool,
    },
    /// The stored TAP does not match the plan. Every other holder must close it before a new TAP can take its name.
    LetGo,
    /// A handle could not be opened, and the helper ends. One line for the user.
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

/// Helper to worker, on its descriptor 4: the kinds of the attached descriptors, in order.
#[derive(Debug, Serialize, Deserialize)]
pub struct Handles(pub Vec<Handle>);

impl Message for Handles {
    const MAX: usize = 128;

    fn descriptors(&self) -> usize {
        self.0.len()
    }
}

/// The unused direction of a channel: it has no messages.
#[derive(Debug, Serialize, Deserialize)]
pub enum Never {}

impl Message for Never {
    const MAX: usize = 1;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greatest_plan_fits() {
        let program = |length| vec![BpfInstruction { code: u16::MAX, jt: u8::MAX, jf: u8::MAX, k: u32::MAX }; length];
        let address = Address((std::net::Ipv6Addr::from(u128::MAX), u16::MAX).into());
        let path = PathPlan {
            local: address,
            remote: Some(address),
            filter: program(16),
            device: Some("x".repeat(15)),
            mark: Some(u32::MAX),
            runs: true,
            whole: true,
            class: u8::MAX,
            reports_class: true,
        };
        let port = PortPlan::Mirror { interface: "x".repeat(15), filter: program(4096) };
        let become_user = Some(Identity { uid: u32::MAX, gid: u32::MAX });
        let plan = Plan { become_user, port, paths: vec![path; MAX_PATHS], stored: true, store: true };
        let length = |message: &ToHelper| postcard::to_allocvec(message).unwrap().len();
        assert!(length(&ToHelper::Plan(u32::MAX, plan)) < ToHelper::MAX - 4096);
        let paths = (0..u8::MAX).take(MAX_PATHS).map(Handle::Path);
        let handles = Handles(std::iter::once(Handle::Port).chain(paths).collect());
        assert!(postcard::to_allocvec(&handles).unwrap().len() < Handles::MAX);
    }
}
