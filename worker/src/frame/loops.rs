//! Loop check: datagrams of this tunnel on the local side must not enter the tunnel again.

use std::net::{IpAddr, SocketAddr};

use super::ethernet::{IPV4, IPV6, TPID_8021Q, UDP, payload, word};
use super::{ipv6, udp};

/// Whether a frame is UDP to or from one of `remotes`, the addresses of the tunnel's peers, behind at most one 802.1Q tag. Ports
/// are ignored, and fragments match as well. Addresses match only within their family.
pub fn is_own(frame: &[u8], remotes: &[SocketAddr]) -> bool {
    let Some((kind, at)) = payload(frame, 1, &[TPID_8021Q]) else { return false };
    let packet = &frame[at..];
    match (kind, packet) {
        (IPV4, [version, .., _]) if packet.len() >= 20 && version >> 4 == 4 && packet[9] == UDP => {
            remotes.iter().any(|remote| match remote.ip() {
                IpAddr::V4(remote) => packet[12..16] == remote.octets() || packet[16..20] == remote.octets(),
                IpAddr::V6(_) => false,
            })
        }
        (IPV6, _) if ipv6::content(packet).is_some_and(|content| content.protocol == UDP) => {
            remotes.iter().any(|remote| match remote.ip() {
                IpAddr::V4(_) => false,
                IpAddr::V6(remote) => packet[8..24] == remote.octets() || packet[24..40] == remote.octets(),
            })
        }
        _ => false,
    }
}

/// Whether a frame is a datagram of this tunnel, or its first fragment: to or from one of `remotes`, ports included.
pub fn is_datagram(frame: &[u8], remotes: &[SocketAddr]) -> bool {
    let Some(udp) = udp::inner(frame).and_then(|inner| frame.get(inner.start.checked_sub(8)?..)) else { return false };
    let ports = [word(udp, 0), word(udp, 2)];
    remotes.iter().any(|remote| ports.contains(&Some(remote.port())) && is_own(frame, &[*remote]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(address: &str) -> SocketAddr {
        SocketAddr::new(address.parse().unwrap(), 2000)
    }

    #[test]
    fn own_datagram_needs_address_and_port() {
        let with = |ports: [u16; 2]| {
            let mut frame = ipv4(UDP, [9; 4], [1, 2, 3, 4]);
            let udp = [ports[0].to_be_bytes(), ports[1].to_be_bytes(), [0, 8]].concat();
            frame[34..40].copy_from_slice(&udp);
            frame
        };
        for (ports, remote, expected) in [
            ([1, 2000], "1.2.3.4", true),
            ([2000, 1], "9.9.9.9", true),
            ([1, 2001], "1.2.3.4", false),
            ([1, 2000], "1.2.3.5", false),
        ] {
            let frame = with(ports);
            assert_eq!(is_datagram(&frame, &[at(remote)]), expected, "{ports:?}, {remote}");
            assert!((0..42).all(|length| !is_datagram(&frame[..length], &[at(remote)])));
        }
    }

    fn ipv4(protocol: u8, from: [u8; 4], to: [u8; 4]) -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend_from_slice(&[8, 0, 0x45, 0, 0, 28, 0, 0, 0, 0, 64, protocol, 0, 0]);
        frame.extend_from_slice(&[from, to].concat());
        frame.extend_from_slice(&[0; 8]);
        frame
    }

    #[test]
    fn families_are_not_mixed() {
        let frame = ipv4(UDP, [0; 4], [255; 4]);
        assert!(!is_own(&frame, &[at("::")]), "DHCP over an IPv6 underlay");
        assert!(is_own(&ipv4(UDP, [1, 2, 3, 4], [9; 4]), &[at("::"), at("1.2.3.4")]));
        assert!(is_own(&ipv4(UDP, [9; 4], [1, 2, 3, 4]), &[at("1.2.3.4")]));
        assert!(!is_own(&ipv4(6, [9; 4], [1, 2, 3, 4]), &[at("1.2.3.4")]), "TCP");
    }

    #[test]
    fn fragment_belongs_to_its_datagram() {
        let fragment = |offset| {
            let mut frame = [&[0; 12], b"\x86\xdd\x60\0\0\0\0\x10\x2c\x40".as_slice(), &[1; 16], &[2; 16]].concat();
            frame.extend_from_slice(&[UDP, 0, 0, offset, 0, 0, 0, 7, 0, 1, 0, 2, 0, 8, 0, 0]);
            frame
        };
        for offset in [1, 8] {
            assert!(is_own(&fragment(offset), &[([2; 16], 0).into()]), "IPv6, at {offset}");
            assert!(!is_own(&fragment(offset), &[([3; 16], 0).into()]));
        }
    }

    #[test]
    fn short_frame_is_no_datagram() {
        let frame = ipv4(UDP, [9; 4], [1, 2, 3, 4]);
        for length in 0..34 {
            assert!(!is_own(&frame[..length], &[at("1.2.3.4")]), "{length}");
        }
    }
}
