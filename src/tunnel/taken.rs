//! Whether a tunnel's networks are in use on this host already, and where.

use std::net::IpAddr;

use privsep::netlink::Netlink;

use super::{Port, Tunnel};
use crate::service::networks::{self, Networks, UsedNetwork};

/// What is said of each of a tunnel's networks that this host reaches already otherwise.
pub fn warnings(tunnel: &Tunnel) -> Vec<String> {
    let Port::Tap { name, addresses, bridge: None, .. } = &tunnel.port else { return Vec::new() };
    // What the kernel does not tell is not known.
    let Networks { known, cut } = networks::all().unwrap_or_default();
    let foreign = |known: &UsedNetwork| match name {
        Some(name) => known.interface != *name,
        // It has the name that the kernel chose at a start before: a TAP with the same addresses.
        None => !is_tap(&known.interface),
    };
    let known: Vec<_> = known.into_iter().filter(foreign).collect();
    let conflicts = addresses.iter().filter_map(|&own| Some((own, conflict(own, &known)?)));
    let lines = conflicts.map(|(own, conflict)| {
        format!("tap.address {}: {conflict}: {LONGER}; set tap.address to another network", networks::text(own))
    });
    lines.chain(unread(cut && !addresses.is_empty())).collect()
}

/// Whether this interface belongs to a TAP or TUN device, as far as the kernel tells.
fn is_tap(interface: &str) -> bool {
    Netlink::open().and_then(|mut netlink| netlink.link(interface)).is_ok_and(|link| link.kind == "tun")
}

/// What a conflict means.
pub const LONGER: &str = "packets to common addresses follow the longer prefix";

/// That not all routes were read, if so.
pub fn unread(cut: bool) -> Option<String> {
    let most = networks::MOST;
    cut.then(|| format!("more than {most} routes on this host: the rest were not compared with the tunnel's networks"))
}

/// What a network conflicts with, in words.
pub fn conflict(own: (IpAddr, u8), known: &[UsedNetwork]) -> Option<String> {
    let mut all = known.iter().filter(|known| networks::overlap(known.network, own));
    // An interface's address says more than the route that comes with it.
    let UsedNetwork { network, interface, route } = all.clone().find(|known| !known.route).or_else(|| all.next())?;
    let with = match (route, interface.as_str()) {
        (false, _) => format!("of interface {interface:?} (address {})", networks::text(*network)),
        (true, "") => ", a route of this host".into(),
        (true, _) => format!(", a route by interface {interface:?}"),
    };
    Some(overlaps(own, *network, &with))
}

/// That two networks have addresses in common; `with` says whose the other one is.
pub fn overlaps(own: (IpAddr, u8), other: (IpAddr, u8), with: &str) -> String {
    let (own, other) = (networks::text(networks::of(own)), networks::text(networks::of(other)));
    let space = if with.starts_with(',') { "" } else { " " };
    format!("network {own} of the tunnel overlaps {other}{space}{with}")
}
