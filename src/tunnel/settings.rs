//! From a tunnel's description to what its workers are told.

use privsep::ipc::{self, Address, Announcement, Classic, ClassicSecrets, PortKind, Secrets, SecureSecrets, Settings};

use super::resolve::Resolved;
use super::{Port, Tunnel, Wire};
use crate::tunnel;

/// Addresses that are announced at most.
const ANNOUNCED: usize = 64;

/// What every worker is told; `datagram` is the longest in bytes that leaves whole by every path, `mac` the address of the TAP, `router`
/// whether this host forwards IPv6 from it.
pub fn settings(tunnel: &Tunnel, paths: &[Resolved], datagram: u16, mac: Option<[u8; 6]>, router: bool) -> Settings {
    let port = match tunnel.port {
        Port::Tap { .. } => PortKind::Tap,
        Port::Raw { .. } => PortKind::Raw,
        Port::Mirror { udp, .. } => PortKind::Mirror { udp },
    };
    let wire = match &tunnel.wire {
        Wire::Classic(classic) => {
            ipc::Wire::Classic(Classic { keepalive: !tunnel.port.is_mirror(), ..classic.settings() })
        }
        Wire::Secure(secure) => {
            let tunnel::Secure { peer_key, tunnel_id, peer_slot, ping_interval, .. } = **secure;
            let peer_index = u32::from(peer_slot) << 20;
            ipc::Wire::Secure(ipc::Secure { peer_key, tunnel: tunnel_id, peer_index, datagram, ping_interval })
        }
    };
    Settings {
        port,
        wire,
        remotes: paths.iter().map(|path| path.remote).collect(),
        locals: paths.iter().map(|path| Address(path.local)).collect(),
        rules: tunnel.rules.clone(),
        exit_after: tunnel.exit_after,
        announcement: mac.and_then(|mac| announcement(tunnel, mac, router)),
    }
}

/// The classic wire announces nothing: what is on it is the original's. In a bridge an interface does not answer by its own address.
fn announcement(tunnel: &Tunnel, mac: [u8; 6], router: bool) -> Option<Announcement> {
    let Port::Tap { addresses, bridge: None, .. } = &tunnel.port else { return None };
    tunnel.secure()?;
    let addresses = addresses.iter().take(ANNOUNCED).map(|(address, _)| *address).collect();
    Some(Announcement { mac, addresses, router })
}

/// What besides nobody may know.
pub fn secrets(tunnel: &Tunnel) -> Secrets {
    match &tunnel.wire {
        Wire::Classic(classic) => {
            Secrets::Classic(ClassicSecrets { key: classic.key.clone(), password: classic.password.clone() })
        }
        Wire::Secure(secure) => {
            Secrets::Secure(SecureSecrets { private_key: secure.private_key.clone(), psk: secure.psk.clone() })
        }
    }
}
