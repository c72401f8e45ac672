//! From a tunnel's description to what helper and worker are told.

use privsep::ipc::{Address, Identity, PathPlan, Plan, PortKind, PortPlan, Remote, State, WorkerConfig};

use crate::resolve::Addresses;
use crate::tunnel::{Classic, Port, Tunnel};
use crate::{Error, filter};

/// The plan for the helper: every handle that this tunnel will ever need.
///
/// `stored` tells whether a TAP comes with it, `store` whether the service manager can keep one.
pub fn plan(
    tunnel: &Tunnel,
    become_user: Option<Identity>,
    addresses: &Addresses,
    stored: bool,
    store: bool,
) -> Result<Plan, Error> {
    let paths = tunnel.paths.iter().zip(addresses).map(|(path, &(local, remote))| PathPlan {
        local: Address(local),
        remote: match remote {
            Remote::Fixed(remote) => Some(remote),
            Remote::Learned { .. } => None,
        },
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
        Port::Mirror { interface, filter, .. } => {
            PortPlan::Mirror { interface: interface.clone(), filter: filter::compile(interface, filter)? }
        }
    };
    Ok(Plan { become_user, port, paths, stored, store })
}

/// What the first worker is told.
pub fn worker(tunnel: &Tunnel, addresses: &Addresses) -> WorkerConfig {
    let Classic { cipher, key, password, lz4, fragment_mtu } = &tunnel.classic;
    WorkerConfig {
        port: match tunnel.port {
            Port::Tap { .. } => PortKind::Tap,
            Port::Raw { .. } => PortKind::Raw,
            Port::Mirror { udp, .. } => PortKind::Mirror { udp },
        },
        cipher: *cipher,
        key: key.clone(),
        compress: *lz4 > 0,
        fragment_mtu: *fragment_mtu,
        password: password.clone(),
        remotes: addresses.iter().map(|(_, remote)| *remote).collect(),
        rules: tunnel.rules.clone(),
        keepalive: !tunnel.port.is_mirror(),
        // While the command runs, frames wait longer than any should.
        drain: tunnel.run.is_some(),
        exit_after: tunnel.exit_after,
        state: State::default(),
    }
}
