//! From a tunnel's description to what its workers are told.

use privsep::ipc::{Classic, PortKind, Secrets, Settings, Wire};

use super::resolve::Resolved;
use super::{Port, Tunnel};

/// What every worker is told.
pub fn settings(tunnel: &Tunnel, paths: &[Resolved]) -> Settings {
    let port = match tunnel.port {
        Port::Tap { .. } => PortKind::Tap,
        Port::Raw { .. } => PortKind::Raw,
        Port::Mirror { udp, .. } => PortKind::Mirror { udp },
    };
    Settings {
        port,
        wire: Wire::Classic(Classic { keepalive: !tunnel.port.is_mirror(), ..tunnel.classic.settings() }),
        remotes: paths.iter().map(|path| path.remote).collect(),
        rules: tunnel.rules.clone(),
        exit_after: tunnel.exit_after,
    }
}

/// What besides nobody may know.
pub fn secrets(tunnel: &Tunnel) -> Secrets {
    Secrets { key: tunnel.classic.key.clone(), password: tunnel.classic.password.clone(), ..Secrets::default() }
}
