//! From a tunnel's description to what helper and worker are told.

use privsep::ipc::{Identity, PathPlan, Plan, PortKind, PortPlan, State, WorkerConfig};

use crate::resolve::Addresses;
use crate::tunnel::{Port, Tunnel};

/// The plan for the helper: every handle that this tunnel will ever need.
pub fn plan(tunnel: &Tunnel, become_user: Option<Identity>, addresses: &Addresses) -> Plan {
    let paths = tunnel.paths.iter().zip(addresses).map(|(path, &(local, remote))| PathPlan {
        local,
        remote,
        device: path.device.clone(),
        mark: path.mark,
    });
    let paths = paths.collect();
    let port = match &tunnel.port {
        Port::Tap { name, addresses, mtu, bridge } => {
            PortPlan::Tap { name: name.clone(), addresses: addresses.clone(), bridge: bridge.clone(), mtu: *mtu }
        }
        Port::Raw { interface, promiscuous } => {
            PortPlan::Raw { interface: interface.clone(), promiscuous: *promiscuous }
        }
    };
    Plan { become_user, port, paths }
}

/// What the first worker is told.
pub fn worker(tunnel: &Tunnel) -> WorkerConfig {
    WorkerConfig {
        port: match tunnel.port {
            Port::Tap { .. } => PortKind::Tap,
            Port::Raw { .. } => PortKind::Raw,
        },
        cipher: tunnel.cipher,
        key: tunnel.key.clone(),
        paths: u8::try_from(tunnel.paths.len()).unwrap_or(u8::MAX),
        state: State::default(),
    }
}
