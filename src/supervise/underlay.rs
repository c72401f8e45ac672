//! What the networks under a tunnel can carry: the MTU of each path, and the MSS of TCP that fits through all of them.

use std::net::{Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::{fs, io};

use nix::ifaddrs::{InterfaceAddress, getifaddrs};
use nix::net::if_::InterfaceFlags;
use nix::sys::socket::SockaddrStorage;
use privsep::ipc::{self, Address, Remote, header};
use privsep::netlink::Netlink;

use super::route::{self, Way};
use crate::tunnel::resolve::Resolved;
use crate::tunnel::{Path, Port, Tunnel, Wire, bounds};

/// Ethernet header with one VLAN tag, which a frame may have.
const ETHERNET: u32 = 18;
/// The same without.
const UNTAGGED: u32 = 14;
/// MTU of IPv6 at least.
const LEAST: u16 = 1280;
/// Header of TCP without options.
const TCP: u16 = 20;

/// Notes the MTU of each path's underlay as the kernel knows it now. `own` is the interface of the tunnel itself, which carries
/// no path.
pub fn look_at(tunnel: &Tunnel, paths: &mut [Resolved], own: &str) {
    for (path, resolved) in tunnel.paths.iter().zip(paths) {
        resolved.underlay_mtu = mtu(path, resolved.local, resolved.remote, own).ok();
    }
}

/// MTU in bytes of the way to the peer as the host is configured. No cached route counts: any host can have one made with a lower
/// MTU, by an ICMP message, and it stays for ten minutes.
fn mtu(path: &Path, local: SocketAddr, remote: Remote, own: &str) -> io::Result<u32> {
    let mut netlink = Netlink::open()?;
    let device = path.device.as_deref().map(|device| netlink.link(device)).transpose()?;
    let (to, scope) = match remote {
        Remote::Fixed(Address(SocketAddr::V6(remote))) => (Some((*remote.ip()).into()), remote.scope_id()),
        Remote::Fixed(Address(remote)) => (Some(remote.ip()), 0),
        Remote::Learned { address, .. } => (address, 0),
    };
    if let Some(to) = to {
        let from = Some(local.ip()).filter(|ip| !ip.is_unspecified());
        let index = device.as_ref().map(|link| link.index).or((scope != 0).then_some(scope));
        let way = Way { to, from, device: index, mark: path.mark };
        let found = route::mtu(&mut netlink, way);
        // A device can be sent by where no route is.
        return match &device {
            Some(link) => Ok(found.map_or(link.mtu, |mtu| mtu.min(link.mtu))),
            None => found,
        };
    }
    if let Some(link) = device {
        return Ok(link.mtu);
    }
    if let Some(interface) = interface_of(local) {
        return netlink.link(&interface).map(|link| link.mtu);
    }
    // The peer may come in by any of them, but for TAPs: those are tunnels like this one, whose MTU is less already.
    let interfaces = getifaddrs()?.filter(|interface| {
        let up = interface.flags & (InterfaceFlags::IFF_UP | InterfaceFlags::IFF_LOOPBACK) == InterfaceFlags::IFF_UP;
        let other = name(interface) != own;
        up && other && interface.address.as_ref().is_some_and(|address| carries(address, local))
    });
    let links = interfaces.filter_map(|interface| netlink.link(name(&interface)).ok());
    let mtus = links.filter(|link| !(link.kind == "tun" && link.ethernet)).map(|link| link.mtu);
    mtus.min().ok_or(io::ErrorKind::NotFound.into())
}

/// Name of the interface of a TAP's queue, by what the kernel tells of a descriptor in words (proc(5), drivers/net/tun.c): to ask
/// the queue itself is the helper's alone, by the SELinux policy, too.
pub fn interface_of_queue(queue: BorrowedFd<'_>) -> Option<String> {
    let facts = fs::read_to_string(format!("/proc/self/fdinfo/{}", queue.as_raw_fd())).ok()?;
    facts.lines().find_map(|line| line.strip_prefix("iff:\t")).map(str::to_owned)
}

/// Name of an interface, without the label that one of its addresses may have.
fn name(interface: &InterfaceAddress) -> &str {
    interface.interface_name.split(':').next().unwrap_or_default()
}

/// Name of the interface that has this address.
fn interface_of(local: SocketAddr) -> Option<String> {
    let own = getifaddrs().ok()?.find(|own| own.address.as_ref().is_some_and(|a| super::same_address(a, &local)));
    own.map(|own| name(&own).to_owned())
}

/// Whether an address is one of those that a wildcard stands for.
fn carries(own: &SockaddrStorage, wildcard: SocketAddr) -> bool {
    own.as_sockaddr_in().is_some() || own.as_sockaddr_in6().is_some() && wildcard.is_ipv6()
}

/// The greatest MSS over IPv4 and over IPv6 whose segments fit through every path in one datagram.
///
/// # Errors
/// A line for the user when the MTU of a path is not known.
pub fn mss(wire: &Wire, paths: &[Resolved]) -> Result<(u16, u16), String> {
    let mut frame = u32::MAX;
    for path @ Resolved { local, underlay_mtu, .. } in paths {
        let unknown = || format!("rules.mss = \"auto\": the MTU of path {local} is not known; give a number");
        let payload = match wire {
            // What is longer leaves as two fragments.
            Wire::Classic(classic) => {
                let whole = classic.settings().whole().map_or(u32::MAX, u32::from);
                whole.min(payload(path, underlay_mtu.ok_or_else(unknown)?))
            }
            Wire::Secure(secure) if secure.path_mtu.is_none() && underlay_mtu.is_none() => return Err(unknown()),
            Wire::Secure(secure) => datagram_of(secure.path_mtu, path).into(),
        };
        frame = frame.min(largest_frame(wire, payload));
    }
    let mss = |ip: u16| u16::try_from(frame.saturating_sub(ETHERNET + u32::from(ip + TCP)).max(1)).unwrap_or(u16::MAX);
    Ok((mss(header::IPV4), mss(header::IPV6)))
}

/// The greatest MTU of a local side whose frames go through an underlay of this one in one datagram.
pub fn largest_interface_mtu(wire: &Wire, path: &Resolved, underlay_mtu: u32, tagged: bool) -> u32 {
    let ethernet = if tagged { ETHERNET } else { UNTAGGED };
    largest_frame(wire, payload(path, underlay_mtu)).saturating_sub(ethernet)
}

/// The longest frame in bytes that is sealed into `payload` bytes.
fn largest_frame(wire: &Wire, payload: u32) -> u32 {
    match wire {
        Wire::Classic(classic) => classic.settings().largest_frame(payload),
        Wire::Secure(_) => ipc::Secure::largest_frame(payload),
    }
}

/// Longest datagram in bytes that leaves whole by every path, on the secure wire. All paths have one, so that a session need not
/// know by which of them a frame leaves.
pub fn datagram(path_mtu: Option<u16>, paths: &[Resolved]) -> u16 {
    let longest = paths.iter().map(|path| datagram_of(path_mtu, path)).min();
    // Without any path nothing leaves, and any length would do: that of a path of which nothing is known.
    longest.unwrap_or(LEAST - header::datagram(Ipv6Addr::UNSPECIFIED.into()))
}

/// The greatest MTU of a local side whose frames leave whole in a datagram of the secure wire of so many bytes.
pub fn whole(datagram: u16, tagged: bool) -> u32 {
    ipc::Secure::largest_frame(datagram.into()).saturating_sub(if tagged { ETHERNET } else { UNTAGGED })
}

/// By one path: as long as its MTU lets it be, or as IPv6's least where that is not known or less.
fn datagram_of(path_mtu: Option<u16>, path: &Resolved) -> u16 {
    let mtu = path_mtu.map(u32::from).or(path.underlay_mtu).unwrap_or(LEAST.into()).max(LEAST.into());
    u16::try_from(payload(path, mtu)).unwrap_or(u16::MAX).min(ipc::Secure::LONGEST)
}

/// MTU of a TAP for which none is given: what fits through every path, but no less than IPv6 needs, nor more than a frame can have.
/// The classic wire leaves it to the kernel, as `EthUDP` does; and in a bridge it is the bridge's, which the helper sees.
pub fn interface_mtu(tunnel: &Tunnel, paths: &[Resolved]) -> Option<u32> {
    let Port::Tap { interface_mtu: None, bridge: None, .. } = &tunnel.port else { return None };
    let secure = tunnel.secure()?;
    let fits = ipc::Secure::largest_frame(datagram(secure.path_mtu, paths).into()).saturating_sub(UNTAGGED);
    let bound = |bound: u64| u32::try_from(bound).unwrap_or(u32::MAX);
    Some(fits.clamp(bound(*bounds::PATH_MTU.start()), bound(*bounds::INTERFACE_MTU.end())))
}

/// Bytes of a datagram that fit into a packet of the underlay.
fn payload(path: &Resolved, underlay_mtu: u32) -> u32 {
    underlay_mtu.saturating_sub(header::datagram(path.family()).into())
}

#[cfg(test)]
mod tests {
    use privsep::ipc::Cipher;

    use crate::tunnel::{Classic, secure_example};

    use super::*;

    #[test]
    fn the_mss_leaves_room_for_every_header() {
        let path = |local: &str, underlay_mtu| {
            let remote = Remote::Learned { address: None, port: None };
            Resolved { local: local.parse().unwrap(), remote, underlay_mtu }
        };
        let v4 = |mtu| path("192.0.2.1:1", Some(mtu));
        let v6 = |mtu| path("[2001:db8::1]:1", mtu);
        let classic =
            |cipher, lz4, fragment_mtu| Wire::Classic(Classic { cipher, lz4, fragment_mtu, ..Classic::default() });
        let (plain, aes) = (&classic(Cipher::None, 0, None), &classic(Cipher::Aes128, 1, None));
        // 1500 - 20 - 8 - 18 - 40 = 1414.
        assert_eq!(mss(plain, &[v4(1500)]), Ok((1414, 1394)));
        assert_eq!(mss(plain, &[v6(Some(1500))]), Ok((1394, 1374)));
        // 1472 is 92 blocks: less one byte of padding and one of compression.
        assert_eq!(mss(aes, &[v4(1500)]), Ok((1412, 1392)));
        assert_eq!(mss(plain, &[v4(9000), v6(Some(1400))]), Ok((1294, 1274)));
        assert_eq!(mss(&classic(Cipher::None, 0, Some(1036)), &[v4(1500)]), Ok((950, 930)));
        assert!(mss(plain, &[v4(1500), v6(None)]).unwrap_err().contains("give a number"));
        let secure = secure_example("");
        // 1500 - 20 - 8 - 36 - 18 - 40 = 1378.
        assert_eq!(mss(&secure.wire, &[v4(1500)]), Ok((1378, 1358)));
        assert!(mss(&secure.wire, &[path("192.0.2.1:1", None)]).is_err());
    }

    #[test]
    fn the_datagram_and_the_mtu_of_the_secure_wire_fit_through_every_path() {
        let path = |local: &str, underlay_mtu| {
            let remote = Remote::Learned { address: None, port: None };
            Resolved { local: local.parse().unwrap(), remote, underlay_mtu }
        };
        let (v4, v6) = (|mtu| path("192.0.2.1:1", mtu), |mtu| path("[2001:db8::1]:1", mtu));
        for (paths, given, longest, inner) in [
            (vec![v4(Some(1500))], None, 1472, 1422),
            (vec![v6(Some(1500))], None, 1452, 1402),
            (vec![v4(Some(9000)), v6(Some(1500))], None, 1452, 1402),
            (vec![v4(Some(1500))], Some(1400), 1372, 1322),
            (vec![v4(None)], None, 1252, 1280),
            (vec![v4(Some(576))], None, 1252, 1280),
            (vec![v6(Some(1280))], None, 1232, 1280),
            (vec![v4(Some(65536))], None, ipc::Secure::LONGEST, 9216),
        ] {
            assert_eq!(datagram(given, &paths), longest, "{paths:?}");
            let text = given.map_or_else(String::new, |mtu| format!("secure.path-mtu = {mtu}"));
            let mut tunnel = secure_example("");
            let Wire::Secure(secure) = &mut tunnel.wire else { panic!("{text}") };
            secure.path_mtu = given;
            assert_eq!(interface_mtu(&tunnel, &paths), Some(inner), "{paths:?}");
        }
        assert_eq!(interface_mtu(&secure_example("[tap]\nmtu = 1400"), &[v4(Some(1500))]), None);
    }
}
