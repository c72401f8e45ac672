//! Routes as configured on the host, from rtnetlink(7). The route cache is not used, because any host can write to it by an ICMP
//! message about one of our datagrams.

use std::io;
use std::net::IpAddr;

use nix::libc;
use privsep::netlink::{Netlink, Request, attributes};

use crate::supervise::watch::link::link_at;

/// `RTM_F_FIB_MATCH` (linux/rtnetlink.h): the reply has the entry of the routing table and not the cached route.
const FIB_MATCH: u32 = 0x2000;
/// Length of a `struct rtmsg`: family, two prefix lengths, five other bytes, flags.
const RTMSG: usize = 12;
/// Length of a `struct rtnexthop`: length, two bytes, interface index.
const NEXT_HOP: usize = 8;
/// `RTAX_MTU`, in `RTA_METRICS`.
const METRIC_MTU: u16 = 2;

/// Properties of a path that select its route.
#[derive(Debug, Clone, Copy)]
pub struct Way {
    /// Address of the peer.
    pub to: IpAddr,
    /// Local address, if given.
    pub from: Option<IpAddr>,
    /// Index of the device that the path is bound to, if any.
    pub device: Option<u32>,
    /// Firewall mark, if any.
    pub mark: Option<u32>,
}

/// Entry of the routing table.
#[derive(Debug, Default, PartialEq, Eq)]
struct Route {
    /// MTU of the route in bytes, if it has one.
    mtu: Option<u32>,
    /// Indices of the interfaces of the next hops.
    interfaces: Vec<u32>,
}

/// MTU of the way in bytes: the least of the route's and of its interfaces'.
pub fn mtu(netlink: &mut Netlink, way: Way) -> io::Result<u32> {
    let Route { mtu, interfaces } = look_up(netlink, way)?;
    let links = interfaces.into_iter().map(|index| link_at(netlink, index).map(|link| link.mtu));
    let links = links.collect::<io::Result<Vec<_>>>()?;
    let least = links.into_iter().min().ok_or(io::ErrorKind::NotFound)?;
    Ok(mtu.map_or(least, |mtu| mtu.min(least)))
}

/// Indices of the interfaces by which datagrams to an address leave.
///
/// # Errors
/// When the kernel returns none, as without a route.
pub fn interfaces(to: IpAddr) -> io::Result<Vec<u32>> {
    look_up(&mut Netlink::open()?, Way { to, from: None, device: None, mark: None }).map(|route| route.interfaces)
}

fn look_up(netlink: &mut Netlink, way: Way) -> io::Result<Route> {
    let reply = netlink.transact(request(way), libc::RTM_NEWROUTE)?;
    parse(&reply).ok_or(io::ErrorKind::InvalidData.into())
}

fn request(Way { to, from, device, mark }: Way) -> Request {
    let bytes = |address: IpAddr| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let whole: u8 = if to.is_ipv4() { 32 } else { 128 };
    let family = if to.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let mut request = Request::new(libc::RTM_GETROUTE, 0);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Families are small.
    request.extend(&[family as u8, whole, if from.is_some() { whole } else { 0 }, 0, 0, 0, 0, 0]);
    request.extend(&FIB_MATCH.to_ne_bytes());
    request.attribute(libc::RTA_DST, &bytes(to));
    if let Some(from) = from {
        request.attribute(libc::RTA_SRC, &bytes(from));
    }
    for (name, value) in [(libc::RTA_OIF, device), (libc::RTA_MARK, mark)] {
        if let Some(value) = value {
            request.attribute(name, &value.to_ne_bytes());
        }
    }
    request
}

/// Parses the payload of an `RTM_NEWROUTE`.
fn parse(reply: &[u8]) -> Option<Route> {
    let number = |bytes: &[u8]| bytes.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes));
    let mut route = Route::default();
    for (name, value) in attributes(reply.get(RTMSG..)?) {
        match name {
            libc::RTA_OIF => route.interfaces.extend(number(value)),
            libc::RTA_METRICS => {
                let mtu = attributes(value).find(|(name, _)| *name == METRIC_MTU);
                route.mtu = mtu.and_then(|(_, value)| number(value)).filter(|&mtu| mtu > 0);
            }
            libc::RTA_MULTIPATH => {
                let mut rest = value;
                while let Some(hop) = rest.get(..NEXT_HOP) {
                    route.interfaces.extend(number(&hop[4..]));
                    let length = usize::from(u16::from_ne_bytes([hop[0], hop[1]])).max(NEXT_HOP);
                    rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
                }
            }
            _ => {}
        }
    }
    Some(route)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of an attribute.
    fn attribute(name: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(4 + value.len()).unwrap();
        [&length.to_ne_bytes()[..], &name.to_ne_bytes(), value].concat()
    }

    #[test]
    fn route_reports_mtu_and_interfaces() {
        let (one, two) = (3_u32.to_ne_bytes(), 7_u32.to_ne_bytes());
        let metrics = attribute(libc::RTA_METRICS, &attribute(METRIC_MTU, &1400_u32.to_ne_bytes()));
        let single = [vec![0; RTMSG], attribute(libc::RTA_OIF, &one), metrics].concat();
        assert_eq!(parse(&single), Some(Route { mtu: Some(1400), interfaces: vec![3] }));
        let gateway = attribute(libc::RTA_GATEWAY, &[192, 0, 2, 1]);
        let hop = |index: [u8; 4]| [&16_u16.to_ne_bytes()[..], &[0, 0], &index, &gateway].concat();
        let hops = attribute(libc::RTA_MULTIPATH, &[hop(one), hop(two)].concat());
        let many = [vec![0; RTMSG], hops].concat();
        assert_eq!(parse(&many), Some(Route { mtu: None, interfaces: vec![3, 7] }));
        assert_eq!(parse(&[0; RTMSG - 1]), None);
        for cut in RTMSG..many.len() {
            // A truncated message gives no additional interfaces.
            assert!(parse(&many[..cut]).unwrap().interfaces.len() <= 2);
        }
    }

    #[test]
    fn route_to_own_host_is_loopback() {
        let mut netlink = Netlink::open().unwrap();
        let way = Way { to: [127, 0, 0, 1].into(), from: None, device: None, mark: None };
        assert_eq!(mtu(&mut netlink, way).unwrap(), 65536);
        assert_eq!(
            mtu(&mut netlink, Way { from: Some([127, 0, 0, 9].into()), device: Some(1), ..way }).unwrap(),
            65536
        );
        assert!(mtu(&mut netlink, Way { device: Some(u32::MAX >> 1), ..way }).is_err());
    }
}
