//! What the networks under a tunnel can carry: the MTU of each path, and the MSS of TCP that fits through all of them.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;

use nix::ifaddrs::{InterfaceAddress, getifaddrs};
use nix::libc::{IP_MTU, IPPROTO_IP, IPPROTO_IPV6, IPV6_MTU};
use nix::net::if_::InterfaceFlags;
use nix::sys::socket::{SockaddrLike, SockaddrStorage, setsockopt, sockopt};
use privsep::ipc::{Address, Classic, Remote, header};
use privsep::netlink::Netlink;
use privsep::sys::option;

use crate::tunnel::resolve::Resolved;
use crate::tunnel::{Path, Tunnel};

/// Ethernet header with one VLAN tag, which a frame may have.
const ETHERNET: u32 = 18;
/// The same without.
const UNTAGGED: u32 = 14;
/// Header of TCP without options.
const TCP: u16 = 20;

/// Notes the MTU of each path's underlay as the kernel knows it now. `own` is the interface of the tunnel itself, which carries
/// no path.
pub fn look_at(tunnel: &Tunnel, paths: &mut [Resolved], own: &str) {
    for (path, resolved) in tunnel.paths.iter().zip(paths) {
        resolved.underlay_mtu = mtu(path, resolved.local, resolved.remote, own).ok();
    }
}

fn mtu(path: &Path, local: SocketAddr, remote: Remote, own: &str) -> io::Result<u32> {
    let device = match (&path.device, remote) {
        (Some(device), _) => Some(device.clone()),
        (None, Remote::Fixed(Address(remote))) => return route_mtu(path, local, remote),
        (None, Remote::Learned { address: Some(address), .. }) => return route_mtu(path, local, (address, 9).into()),
        (None, Remote::Learned { address: None, .. }) => interface_of(local),
    };
    let mut netlink = Netlink::open()?;
    if let Some(device) = device {
        return netlink.link(&device).map(|link| link.mtu);
    }
    // The peer may come in by any of them.
    let interfaces = getifaddrs()?.filter(|interface| {
        let up = interface.flags & (InterfaceFlags::IFF_UP | InterfaceFlags::IFF_LOOPBACK) == InterfaceFlags::IFF_UP;
        let other = name(interface) != own;
        up && other && interface.address.as_ref().is_some_and(|address| family(address, local))
    });
    let mtus = interfaces.filter_map(|interface| netlink.link(name(&interface)).ok()).map(|link| link.mtu);
    mtus.min().ok_or(io::ErrorKind::NotFound.into())
}

/// What the route to a peer can carry.
fn route_mtu(path: &Path, local: SocketAddr, remote: SocketAddr) -> io::Result<u32> {
    let socket = UdpSocket::bind(SocketAddr::new(local.ip(), 0))?;
    if let Some(mark) = path.mark {
        setsockopt(&socket, sockopt::Mark, &mark)?;
    }
    socket.connect(remote)?;
    let (level, name) = if remote.is_ipv6() { (IPPROTO_IPV6, IPV6_MTU) } else { (IPPROTO_IP, IP_MTU) };
    u32::try_from(option::int(socket.as_fd(), level, name)?).map_err(io::Error::other)
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

fn family(own: &SockaddrStorage, local: SocketAddr) -> bool {
    own.family() == SockaddrStorage::from(local).family()
}

/// The greatest MSS over IPv4 and over IPv6 whose segments fit through every path in one datagram.
///
/// # Errors
/// A line for the user when the MTU of a path is not known.
pub fn mss(classic: Classic, paths: &[Resolved]) -> Result<(u16, u16), String> {
    // What is longer leaves as two fragments.
    let whole = classic.whole().map_or(u32::MAX, u32::from);
    let mut frame = u32::MAX;
    for Resolved { local, underlay_mtu, .. } in paths {
        let unknown = || format!("rules.mss = \"auto\": the MTU of path {local} is not known; give a number");
        frame = frame.min(classic.largest_frame(whole.min(payload(*local, underlay_mtu.ok_or_else(unknown)?))));
    }
    let mss = |ip: u16| u16::try_from(frame.saturating_sub(ETHERNET + u32::from(ip + TCP)).max(1)).unwrap_or(u16::MAX);
    Ok((mss(header::IPV4), mss(header::IPV6)))
}

/// The greatest MTU of a local side whose frames go through an underlay of this one in one datagram.
pub fn largest_interface_mtu(classic: Classic, local: SocketAddr, underlay_mtu: u32, tagged: bool) -> u32 {
    let ethernet = if tagged { ETHERNET } else { UNTAGGED };
    classic.largest_frame(payload(local, underlay_mtu)).saturating_sub(ethernet)
}

/// Bytes of a datagram that fit into a packet of the underlay.
fn payload(local: SocketAddr, underlay_mtu: u32) -> u32 {
    underlay_mtu.saturating_sub(header::datagram(local.ip()).into())
}

#[cfg(test)]
mod tests {
    use privsep::ipc::Cipher;

    use super::*;

    #[test]
    fn the_mss_leaves_room_for_every_header() {
        let path = |local: &str, underlay_mtu| {
            let remote = Remote::Learned { address: None, port: None };
            Resolved { local: local.parse().unwrap(), remote, underlay_mtu }
        };
        let v4 = |mtu| path("192.0.2.1:1", Some(mtu));
        let v6 = |mtu| path("[2001:db8::1]:1", mtu);
        let classic = |cipher, compress, fragment_mtu| Classic { cipher, compress, fragment_mtu, ..Classic::default() };
        let (plain, aes) = (classic(Cipher::None, false, None), classic(Cipher::Aes128, true, None));
        // 1500 - 20 - 8 - 18 - 40 = 1414.
        assert_eq!(mss(plain, &[v4(1500)]), Ok((1414, 1394)));
        assert_eq!(mss(plain, &[v6(Some(1500))]), Ok((1394, 1374)));
        // 1472 is 92 blocks: less one byte of padding and one of compression.
        assert_eq!(mss(aes, &[v4(1500)]), Ok((1412, 1392)));
        assert_eq!(mss(plain, &[v4(9000), v6(Some(1400))]), Ok((1294, 1274)));
        assert_eq!(mss(classic(Cipher::None, false, Some(1036)), &[v4(1500)]), Ok((950, 930)));
        assert!(mss(plain, &[v4(1500), v6(None)]).unwrap_err().contains("give a number"));
    }
}
