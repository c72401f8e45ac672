//! Networks that this host already reaches: addresses of its interfaces, and routes of its main table.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;

use nix::ifaddrs::getifaddrs;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, recv, send, socket,
};
use privsep::netlink::{Message, attributes, messages};

/// Most routes that are read. An Internet router has a million, which would take a second at each start.
pub const MOST: usize = 20_000;
/// Length of a `struct rtmsg`: family, lengths of destination and source, TOS, table, protocol, scope, type, flags.
const RTMSG: usize = 12;

/// Network or single address in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsedNetwork {
    /// Address and prefix length, of an interface or of the destination of a route.
    pub network: (IpAddr, u8),
    /// Name of the interface; empty if there is none.
    pub interface: String,
    /// Whether this is a route.
    pub route: bool,
}

/// Networks of this host.
#[derive(Debug, Default)]
pub struct Networks {
    /// All networks that were read.
    pub known: Vec<UsedNetwork>,
    /// Whether reading stopped at [`MOST`] routes.
    pub cut: bool,
}

/// Reads all networks except default routes, `fe80::/10` and multicast, which every link has.
///
/// # Errors
/// When the kernel does not return addresses or routes.
pub fn all() -> io::Result<Networks> {
    let (mut known, mut names) = (Vec::new(), Vec::new());
    for own in getifaddrs()? {
        let link =
            own.address.as_ref().and_then(|address| address.as_link_addr().map(nix::sys::socket::LinkAddr::ifindex));
        names.extend(link.map(|index| (index, own.interface_name.clone())));
        let network = own.address.as_ref().and_then(ip).zip(own.netmask.as_ref().and_then(ip));
        known.extend(network.map(|(address, mask)| UsedNetwork {
            network: (address, ones(mask)),
            interface: own.interface_name,
            route: false,
        }));
    }
    let (routes, cut) = routes()?;
    known.extend(routes.into_iter().map(|(network, index)| {
        let name = names.iter().find(|(own, _)| u32::try_from(*own).ok() == index);
        UsedNetwork { network, interface: name.map(|(_, name)| name.clone()).unwrap_or_default(), route: true }
    }));
    known.retain(|UsedNetwork { network: (address, prefix), .. }| *prefix > 0 && !of_each_link(*address));
    Ok(Networks { known, cut })
}

fn of_each_link(address: IpAddr) -> bool {
    address.is_multicast() || matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|address| address.ip().into());
    v4.or_else(|| address.as_sockaddr_in6().map(|address| address.ip().into()))
}

fn ones(mask: IpAddr) -> u8 {
    let ones = match mask {
        IpAddr::V4(mask) => u32::from(mask).leading_ones(),
        IpAddr::V6(mask) => u128::from(mask).leading_ones(),
    };
    u8::try_from(ones).unwrap_or(128)
}

/// Destination of a route, and the index of its interface.
type Route = ((IpAddr, u8), Option<u32>);

/// Unicast routes of the main table, and whether reading stopped at [`MOST`].
fn routes() -> io::Result<(Vec<Route>, bool)> {
    let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
    let mut request = vec![0; 16 + RTMSG];
    request[0] = 16 + 12;
    request[4..6].copy_from_slice(&libc::RTM_GETROUTE.to_ne_bytes());
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Flags are 16 bits wide.
    request[6..8].copy_from_slice(&((libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16).to_ne_bytes());
    send(socket.as_raw_fd(), &request, MsgFlags::empty())?;
    let (mut found, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
    while found.len() < MOST {
        let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        for Message { kind, payload, .. } in messages(&buffer[..length]) {
            match kind {
                libc::RTM_NEWROUTE => found.extend(route(payload)),
                kind if i32::from(kind) == libc::NLMSG_DONE => return Ok((found, false)),
                _ => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
    }
    Ok((found, true))
}

/// Parses an `RTM_NEWROUTE`. `None` unless it is a unicast route of the main table with a destination.
fn route(message: &[u8]) -> Option<Route> {
    let (info, all) = message.split_at_checked(RTMSG)?;
    let attribute = |wanted| attributes(all).find(|(name, _)| *name == wanted).map(|(_, value)| value);
    let number = |value: &[u8]| value.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes));
    let table = attribute(libc::RTA_TABLE).and_then(number).unwrap_or(info[4].into());
    if table != u32::from(libc::RT_TABLE_MAIN) || info[7] != libc::RTN_UNICAST {
        return None;
    }
    let destination = attribute(libc::RTA_DST)?;
    let v4 = <[u8; 4]>::try_from(destination).map(IpAddr::from);
    let address = v4.or_else(|_| <[u8; 16]>::try_from(destination).map(IpAddr::from)).ok()?;
    Some(((address, info[1]), attribute(libc::RTA_OIF).and_then(number)))
}

/// Whether two networks have an address in common.
pub fn overlap(one: (IpAddr, u8), other: (IpAddr, u8)) -> bool {
    let prefix = one.1.min(other.1);
    one.0.is_ipv4() == other.0.is_ipv4() && of((one.0, prefix)) == of((other.0, prefix))
}

/// The network of an address: the address with zeros behind the prefix, and the prefix length.
pub fn of((address, prefix): (IpAddr, u8)) -> (IpAddr, u8) {
    let zeros = |bits: u32| bits - u32::from(prefix).min(bits);
    let network = match address {
        IpAddr::V4(address) => {
            IpAddr::from((u32::from(address) & u32::MAX.checked_shl(zeros(32)).unwrap_or(0)).to_be_bytes())
        }
        IpAddr::V6(address) => {
            IpAddr::from((u128::from(address) & u128::MAX.checked_shl(zeros(128)).unwrap_or(0)).to_be_bytes())
        }
    };
    (network, prefix)
}

/// Text for people, as `10.8.0.0/24`.
pub fn text((address, prefix): (IpAddr, u8)) -> String {
    format!("{address}/{prefix}")
}

/// Whether an interface address equals the address of this socket.
pub fn same_address(own: &SockaddrStorage, local: &SocketAddr) -> bool {
    let v4 = own.as_sockaddr_in().map(|own| IpAddr::from(own.ip()));
    let v6 = own.as_sockaddr_in6().map(|own| IpAddr::from(own.ip()));
    v4.or(v6) == Some(local.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_networks_overlap() {
        let network = |text: &str| {
            let (ip, prefix) = text.split_once('/').unwrap();
            (ip.parse().unwrap(), prefix.parse().unwrap())
        };
        for (one, other, both) in [
            ("192.168.77.40/25", "192.168.77.1/24", true),
            ("10.0.0.1/8", "10.9.8.7/32", true),
            ("10.8.0.1/24", "10.8.1.1/24", false),
            ("10.8.0.1/24", "fd00::1/8", false),
            ("fd00::1/64", "fd00::2:0:0:1/64", true),
            ("fd00::1/64", "fd00:0:0:1::1/64", false),
            ("0.0.0.1/0", "10.0.0.0/8", true),
        ] {
            assert_eq!(overlap(network(one), network(other)), both, "{one} {other}");
            assert_eq!(overlap(network(other), network(one)), both, "{one} {other}");
        }
    }

    #[test]
    fn network_text_clears_host_bits() {
        for (address, prefix, network) in [
            ("192.168.77.41", 25, "192.168.77.0/25"),
            ("10.8.0.1", 0, "0.0.0.0/0"),
            ("10.8.0.1", 32, "10.8.0.1/32"),
            ("fd00::1:2", 112, "fd00::1:0/112"),
            ("fd00::1", 0, "::/0"),
        ] {
            assert_eq!(text(of((address.parse().unwrap(), prefix))), network);
        }
    }

    #[test]
    fn loopback_network_is_listed() {
        let known = all().unwrap().known;
        assert!(known.iter().all(|known| known.network.1 > 0));
    }

    #[test]
    fn other_routing_tables_are_ignored() {
        let message = |table: u8, kind: u8| {
            [&[2, 24, 0, 0, table, 0, 0, kind, 0, 0, 0, 0][..], &[8, 0, 1, 0, 10, 8, 0, 0]].concat()
        };
        assert_eq!(route(&message(254, 1)), Some((("10.8.0.0".parse().unwrap(), 24), None)));
        assert!(route(&message(100, 1)).is_none() && route(&message(254, 6)).is_none() && route(&[0; 11]).is_none());
    }
}
