//! Settings for the workers, from a tunnel's description.

use privsep::ipc::{Address, Announcement, PortKind, Settings};

use super::resolve::Resolved;
use super::{Port, Tunnel};

/// Most addresses that are announced.
const ANNOUNCED: usize = 64;

/// Settings for every worker. `datagram` is the length in bytes of the longest datagram that leaves in one packet by every path.
/// `mac` is the address of the TAP. `router` tells whether this host forwards IPv6 from the TAP.
pub fn settings(tunnel: &Tunnel, paths: &[Resolved], datagram: u16, mac: Option<[u8; 6]>, router: bool) -> Settings {
    let port = match tunnel.port {
        Port::Tap { .. } => PortKind::Tap,
        Port::Raw { .. } => PortKind::Raw,
        Port::Mirror { udp, .. } => PortKind::Mirror { udp },
    };
    let each: Vec<_> =
        tunnel.paths.iter().zip(paths).map(|(path, resolved)| tunnel.wire.of_path(path, resolved)).collect();
    Settings {
        port,
        wire: tunnel.wire.settings(tunnel, each.iter().map(|path| path.most).max().unwrap_or(datagram)),
        remotes: paths.iter().map(|path| path.remote).collect(),
        locals: paths.iter().map(|path| Address(path.local)).collect(),
        paths: each,
        rules: tunnel.rules.clone(),
        exit_after: tunnel.exit_after,
        announcement: mac.and_then(|mac| announcement(tunnel, mac, router)),
    }
}

/// Announcement of a TAP. An interface in a bridge does not answer by its own address, so it has none.
fn announcement(tunnel: &Tunnel, mac: [u8; 6], router: bool) -> Option<Announcement> {
    let Port::Tap { addresses, bridge: None, .. } = &tunnel.port else { return None };
    if !tunnel.wire.announces() {
        return None;
    }
    let addresses = addresses.iter().take(ANNOUNCED).map(|(address, _)| *address).collect();
    Some(Announcement { mac, addresses, router })
}
