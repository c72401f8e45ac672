//! Conflicts of a tunnel's networks with networks in use on this host.

use std::net::IpAddr;

use privsep::netlink::Netlink;

use super::{Port, Tunnel};
use crate::service::networks::{self, Networks, UsedNetwork};

/// Warning for each network of a tunnel that this host already reaches by another interface.
pub fn warnings(tunnel: &Tunnel) -> Vec<String> {
    let Port::Tap { name, addresses, bridge: None, .. } = &tunnel.port else { return Vec::new() };
    // Networks that the kernel does not report are unknown.
    let Networks { known, cut } = networks::all().unwrap_or_default();
    let foreign = |known: &UsedNetwork| match name {
        Some(name) => known.interface != *name,
        // Its name is the kernel's choice of an earlier start: a TAP with the same addresses.
        None => !is_tap(&known.interface),
    };
    let known: Vec<_> = known.into_iter().filter(foreign).collect();
    let conflicts = addresses.iter().filter_map(|&own| Some((own, conflict(own, &known)?)));
    let lines = conflicts.map(|(own, conflict)| {
        format!("tap.address {}: {conflict}: {LONGER}; set tap.address to another network", networks::text(own))
    });
    lines.chain(unread(cut && !addresses.is_empty())).collect()
}

/// Whether this interface is a TAP or TUN device. False if the kernel does not tell.
fn is_tap(interface: &str) -> bool {
    Netlink::open().and_then(|mut netlink| netlink.link(interface)).is_ok_and(|link| link.kind == "tun")
}

/// Effect of a conflict.
pub const LONGER: &str = "packets to common addresses follow the longer prefix";

/// Warning if not all routes were read.
pub fn unread(cut: bool) -> Option<String> {
    let most = networks::MOST;
    cut.then(|| format!("more than {most} routes on this host: the rest were not compared with the tunnel's networks"))
}

/// Text of the first conflict of a network.
pub fn conflict(own: (IpAddr, u8), known: &[UsedNetwork]) -> Option<String> {
    let mut all = known.iter().filter(|known| networks::overlap(known.network, own));
    // The address of an interface is more informative than the route that belongs to it.
    let UsedNetwork { network, interface, route } = all.clone().find(|known| !known.route).or_else(|| all.next())?;
    let with = match (route, interface.as_str()) {
        (false, _) => format!("of interface {interface:?} (address {})", networks::text(*network)),
        (true, "") => ", a route of this host".into(),
        (true, _) => format!(", a route by interface {interface:?}"),
    };
    Some(overlaps(own, *network, &with))
}

/// Text about two networks with common addresses. `with` names the owner of the other network.
pub fn overlaps(own: (IpAddr, u8), other: (IpAddr, u8), with: &str) -> String {
    let (own, other) = (networks::text(networks::of(own)), networks::text(networks::of(other)));
    let space = if with.starts_with(',') { "" } else { " " };
    format!("network {own} of the tunnel overlaps {other}{space}{with}")
}
