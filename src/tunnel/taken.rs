//! Whether a tunnel's networks are in use on this host already, and where.

use std::net::IpAddr;

use privsep::netlink::Netlink;

use super::{Port, Tunnel};
use crate::service::networks::{self, Known};

/// What is said of each of a tunnel's networks that this host reaches already otherwise.
pub fn warnings(tunnel: &Tunnel) -> Vec<String> {
    let Port::Tap { name, addresses, bridge: None, .. } = &tunnel.port else { return Vec::new() };
    // What the kernel does not tell is not known.
    let known = networks::all().unwrap_or_default();
    let foreign = |known: &Known| match name {
        Some(name) => known.interface != *name,
        // It has the name that the kernel chose at a start before: a TAP with the same addresses.
        None => !is_tap(&known.interface),
    };
    let known: Vec<_> = known.into_iter().filter(foreign).collect();
    let conflicts = addresses.iter().filter_map(|&own| Some((own, conflict(own, &known)?)));
    conflicts
        .map(|((address, prefix), conflict)| {
            format!("tap.address {address}/{prefix}: {conflict}; the tunnel takes addresses of that over: give it a network of its own")
        })
        .collect()
}

/// Whether this interface belongs to a TAP or TUN device, as far as the kernel tells.
fn is_tap(interface: &str) -> bool {
    Netlink::open().and_then(|mut netlink| netlink.link(interface)).is_ok_and(|link| link.kind == "tun")
}

/// What a network conflicts with, in words.
pub fn conflict(own: (IpAddr, u8), known: &[Known]) -> Option<String> {
    let mut all = known.iter().filter(|known| networks::overlap(known.network, own));
    // An interface's address says more than the route that comes with it.
    let first = all.clone().find(|known| !known.route).or_else(|| all.next())?;
    let Known { network: (address, prefix), interface, route } = first;
    Some(match (route, interface.as_str()) {
        (false, _) => format!("interface {interface:?} has {address}/{prefix}"),
        (true, "") => format!("this host has a route to {address}/{prefix}"),
        (true, _) => format!("this host has a route to {address}/{prefix} by interface {interface:?}"),
    })
}
