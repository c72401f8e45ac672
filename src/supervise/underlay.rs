//! What the networks under a tunnel can carry: the MTU of each path, and the MSS of TCP that fits through all of them.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;

use nix::ifaddrs::{InterfaceAddress, getifaddrs};
use nix::libc::{IP_MTU, IPPROTO_IP, IPPROTO_IPV6, IPV6_MTU};
use nix::net::if_::InterfaceFlags;
use nix::sys::socket::{SockaddrLike, SockaddrStorage, setsockopt, sockopt};
use privsep::ipc::{Address, Cipher, Remote};
use privsep::netlink::Netlink;
use privsep::sys::option;

use crate::resolve::Addresses;
use crate::tunnel::{Classic, Path, Tunnel};

/// Ethernet header with one VLAN tag, which a frame may have.
const ETHERNET: u32 = 18;
/// The same without.
const UNTAGGED: u32 = 14;
/// Headers of TCP and of IPv4 or IPv6, without options.
const TCP_IPV4: u32 = 40;
const TCP_IPV6: u32 = 60;
/// UDP header.
const UDP: u32 = 8;
/// AES block size in bytes.
const BLOCK: u32 = 16;

/// MTU in bytes of each path's underlay as the kernel knows it now; `None` where it cannot be told. `own` is the interface of
/// the tunnel itself, which carries no path.
pub fn mtus(tunnel: &Tunnel, addresses: &Addresses, own: &str) -> Vec<Option<u32>> {
    tunnel.paths.iter().zip(addresses).map(|(path, &(local, remote))| mtu(path, local, remote, own).ok()).collect()
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
pub fn mss(classic: &Classic, addresses: &Addresses, mtus: &[Option<u32>]) -> Result<(u16, u16), String> {
    // What is longer leaves as two fragments; the format takes IPv4 headers for granted there.
    let fragment = classic.fragment_mtu.map_or(u32::MAX, |mtu| u32::from(mtu) - 28);
    let mut frame = u32::MAX;
    for ((local, _), mtu) in addresses.iter().zip(mtus) {
        let unknown = || format!("rules.mss = \"auto\": the MTU of path {local} is not known; give a number");
        let header = if local.is_ipv6() { 40 } else { 20 };
        frame = frame.min(largest_frame(classic, fragment.min(mtu.ok_or_else(unknown)?.saturating_sub(header + UDP))));
    }
    let mss = |headers| u16::try_from(frame.saturating_sub(ETHERNET + headers).max(1)).unwrap_or(u16::MAX);
    Ok((mss(TCP_IPV4), mss(TCP_IPV6)))
}

/// The greatest MTU of a local side whose frames go through an underlay of this MTU in one datagram.
pub fn largest_mtu(classic: &Classic, local: SocketAddr, mtu: u32, tagged: bool) -> u32 {
    let header = if local.is_ipv6() { 40 } else { 20 };
    let ethernet = if tagged { ETHERNET } else { UNTAGGED };
    largest_frame(classic, mtu.saturating_sub(header + UDP)).saturating_sub(ethernet)
}

/// The longest frame that is sealed into `payload` bytes whatever is in it.
fn largest_frame(classic: &Classic, payload: u32) -> u32 {
    let sealed = match classic.cipher {
        Cipher::None | Cipher::Xor => payload,
        // Padding takes at least one byte.
        Cipher::Aes128 | Cipher::Aes192 | Cipher::Aes256 => (payload / BLOCK * BLOCK).saturating_sub(1),
    };
    if classic.lz4 > 0 { sealed.saturating_sub(1) } else { sealed }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mss_leaves_room_for_every_header() {
        let v4 = ("192.0.2.1:1".parse().unwrap(), Remote::Learned { address: None, port: None });
        let v6 = ("[2001:db8::1]:1".parse().unwrap(), Remote::Learned { address: None, port: None });
        let classic = |cipher, lz4, fragment_mtu| Classic { cipher, lz4, fragment_mtu, ..Classic::default() };
        let (plain, aes) = (classic(Cipher::None, 0, None), classic(Cipher::Aes128, 1, None));
        // 1500 - 20 - 8 - 18 - 40 = 1414.
        assert_eq!(mss(&plain, &vec![v4], &[Some(1500)]), Ok((1414, 1394)));
        assert_eq!(mss(&plain, &vec![v6], &[Some(1500)]), Ok((1394, 1374)));
        // 1472 is 92 blocks: less one byte of padding and one of compression.
        assert_eq!(mss(&aes, &vec![v4], &[Some(1500)]), Ok((1412, 1392)));
        assert_eq!(mss(&plain, &vec![v4, v6], &[Some(9000), Some(1400)]), Ok((1294, 1274)));
        assert_eq!(mss(&classic(Cipher::None, 0, Some(1036)), &vec![v4], &[Some(1500)]), Ok((950, 930)));
        assert!(mss(&plain, &vec![v4, v6], &[Some(1500), None]).unwrap_err().contains("give a number"));
    }
}
