//! Frames that announce the MAC address of an IP address to neighbours: an ARP announcement (RFC 5227, section 3), and an
//! unsolicited neighbour advertisement (RFC 4861, section 7.2.6).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use privsep::ipc::Announcement;

use super::checksum::Sum;

/// All-nodes multicast address, and its MAC address (RFC 2464, section 7).
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];
const BROADCAST: [u8; 6] = [0xff; 6];
const ICMPV6: u8 = 58;
/// Length in bytes of an advertisement with the option for the MAC address.
const ADVERTISEMENT: u8 = 32;

/// One frame for each address.
pub fn frames(of: &Announcement) -> Vec<Vec<u8>> {
    let frame = |address: &IpAddr| match address {
        IpAddr::V4(address) => arp(of.mac, *address),
        IpAddr::V6(address) => advertisement(of.mac, *address, of.router),
    };
    of.addresses.iter().map(frame).collect()
}

/// Request for the sender's own address (RFC 826): a host that has the address in its table updates the MAC address.
fn arp(mac: [u8; 6], address: Ipv4Addr) -> Vec<u8> {
    // Ethernet and IPv4, lengths of their addresses, request.
    const KIND: [u8; 8] = [0, 1, 8, 0, 6, 4, 0, 1];
    let address = address.octets();
    [&BROADCAST[..], &mac, &[0x08, 0x06], &KIND, &mac, &address, &[0; 6], &address].concat()
}

fn advertisement(mac: [u8; 6], address: Ipv6Addr, router: bool) -> Vec<u8> {
    // Unsolicited, and overrides the entry in a neighbour's cache.
    let flags = if router { 0xa0 } else { 0x20 };
    let head = [136, 0, 0, 0, flags, 0, 0, 0];
    let option = [&[2, 1][..], &mac].concat();
    let mut icmp = [&head[..], &address.octets(), &option].concat();
    let pseudo = Sum::of(&address.octets()).plus(Sum::of(&ALL_NODES.octets()));
    let pseudo = pseudo.plus(Sum::word(u16::from(ADVERTISEMENT))).plus(Sum::word(u16::from(ICMPV6)));
    let checksum = pseudo.plus(Sum::of(&icmp)).checksum();
    icmp[2..4].copy_from_slice(&checksum);
    // Version 6, length, next header, and the hop limit of a sender on the link.
    let ip = [0x60, 0, 0, 0, 0, ADVERTISEMENT, ICMPV6, 255];
    [&ALL_NODES_MAC[..], &mac, &[0x86, 0xdd], &ip, &address.octets(), &ALL_NODES.octets(), &icmp].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [0x02, 0, 0x5e, 0x10, 0, 1];

    fn only(address: &str, router: bool) -> Vec<u8> {
        let of = Announcement { mac: MAC, addresses: vec![address.parse().unwrap()], router };
        let mut frames = frames(&of);
        assert_eq!(frames.len(), 1);
        frames.remove(0)
    }

    #[test]
    fn ipv4_address_is_announced_by_arp() {
        let expected = [
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02, 0, 0x5e, 0x10, 0, 1, 0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1, 0x02,
            0, 0x5e, 0x10, 0, 1, 10, 8, 0, 1, 0, 0, 0, 0, 0, 0, 10, 8, 0, 1,
        ];
        assert_eq!(only("10.8.0.1", false), expected);
    }

    #[test]
    fn ipv6_address_is_advertised() {
        for (router, flags) in [(false, 0x20), (true, 0xa0)] {
            let frame = only("fd00::1", router);
            let (ethernet, ip) = frame.split_at(14);
            assert_eq!(ethernet, [0x33, 0x33, 0, 0, 0, 1, 0x02, 0, 0x5e, 0x10, 0, 1, 0x86, 0xdd]);
            assert_eq!((ip.len(), &ip[..8]), (72, &[0x60, 0, 0, 0, 0, 32, 58, 255][..]));
            let (source, target) = ("fd00::1".parse::<Ipv6Addr>().unwrap().octets(), ip[48..64].to_vec());
            assert_eq!((&ip[8..24], &target[..]), (&source[..], &source[..]));
            assert_eq!(ip[24..40], ALL_NODES.octets());
            assert_eq!((&ip[40..42], &ip[44..48]), (&[136, 0][..], &[flags, 0, 0, 0][..]));
            assert_eq!(ip[64..], [2, 1, 0x02, 0, 0x5e, 0x10, 0, 1]);
            let pseudo = [&ip[8..40], &[0, 0, 0, 32, 0, 0, 0, 58]].concat();
            assert!(Sum::of(&pseudo).plus(Sum::of(&ip[40..])).is_right());
        }
    }
}
