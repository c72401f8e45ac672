//! From a tunnel's description to what its workers are told.

use privsep::ipc::{self, Classic, PortKind, Secrets, Settings};

use super::resolve::Resolved;
use super::{Port, Tunnel, Wire};

/// What every worker is told; `datagram` is the longest in bytes that leaves whole by every path.
pub fn settings(tunnel: &Tunnel, paths: &[Resolved], datagram: u16) -> Settings {
    let port = match tunnel.port {
        Port::Tap { .. } => PortKind::Tap,
        Port::Raw { .. } => PortKind::Raw,
        Port::Mirror { udp, .. } => PortKind::Mirror { udp },
    };
    let wire = match &tunnel.wire {
        Wire::Classic(classic) => {
            ipc::Wire::Classic(Classic { keepalive: !tunnel.port.is_mirror(), ..classic.settings() })
        }
        Wire::Secure(secure) => ipc::Wire::Secure(ipc::Secure { peer_key: secure.peer_key, datagram }),
    };
    Settings {
        port,
        wire,
        remotes: paths.iter().map(|path| path.remote).collect(),
        rules: tunnel.rules.clone(),
        exit_after: tunnel.exit_after,
    }
}

/// What besides nobody may know.
pub fn secrets(tunnel: &Tunnel) -> Secrets {
    match &tunnel.wire {
        Wire::Classic(classic) => {
            Secrets { key: classic.key.clone(), password: classic.password.clone(), ..Secrets::default() }
        }
        Wire::Secure(secure) => {
            Secrets { private_key: secure.private_key.clone(), psk: secure.psk.clone(), ..Secrets::default() }
        }
    }
}
