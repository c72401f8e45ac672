//! Answers to IP packets that are too long for the path: ICMP "fragmentation needed" (RFC 792, RFC 1191) and `ICMPv6` "packet too big"
//! (RFC 4443, section 3.2).

use super::checksum::Sum;
use super::ethernet::{IPV4, IPV6, TPID_8021AD, TPID_8021Q, payload, word};
use super::ipv6;

/// Least length in bytes that is ever announced, and up to which packets leave in pieces: the least MTU of IPv6, which QUIC needs over
/// IPv4 as well (RFC 9000, section 14).
pub const LEAST: usize = 1280;
/// Longest answer in bytes, without the Ethernet header.
const LONGEST_V4: usize = 576;
const LONGEST_V6: usize = 1280;
/// Longest answer with the Ethernet header and two tags.
pub const CAPACITY: usize = LONGEST_V6 + 22;
const IPV4_HEADER: usize = 20;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const TTL: u8 = 64;
/// Bytes of ICMP before the quoted packet.
const ICMP_HEADER: usize = 8;

/// Writes the answer to a frame whose packet leaves in frames of `length` bytes, where at most `most` bytes fit. `frame` may be a
/// superframe. Returns the length of the answer; `None` if the packet fits or must not be answered, and leaves in pieces.
pub fn answer(frame: &[u8], length: usize, most: usize, to: &mut [u8]) -> Option<usize> {
    let (kind, at) = payload(frame, 2, &[TPID_8021Q, TPID_8021AD])?;
    let mtu = most.saturating_sub(at).max(LEAST);
    if length.saturating_sub(at) <= mtu || frame[0] & 1 == 1 {
        return None;
    }
    let (ethernet, packet) = frame.split_at_checked(at)?;
    let (header, reply) = to.split_at_mut_checked(at)?;
    header[..6].copy_from_slice(&ethernet[6..12]);
    header[6..12].copy_from_slice(&ethernet[..6]);
    header[12..].copy_from_slice(&ethernet[12..]);
    let mtu = u16::try_from(mtu).unwrap_or(u16::MAX);
    let written = match kind {
        IPV4 => answer_v4(packet, mtu, reply),
        IPV6 => answer_v6(packet, mtu, reply),
        _ => None,
    };
    written.map(|written| at + written)
}

/// Only packets with DF, from a host to a host. Not later fragments, and not ICMP errors.
fn answer_v4(packet: &[u8], mtu: u16, to: &mut [u8]) -> Option<usize> {
    let header = usize::from(packet.first()? & 0x0f) * 4;
    let is_whole = packet[0] >> 4 == 4 && header >= IPV4_HEADER && word(packet, 6)? & 0x5fff == 0x4000;
    let is_error = *packet.get(9)? == ICMP && ![0, 8].contains(packet.get(header)?);
    let host = |address: &[u8]| !matches!(address, [0 | 127 | 224.., ..]);
    let (source, destination) = (packet.get(12..16)?, packet.get(16..20)?);
    if !is_whole || is_error || !host(source) || !host(destination) {
        return None;
    }
    let quoted = &packet[..packet.len().min(LONGEST_V4 - IPV4_HEADER - ICMP_HEADER)];
    let length = IPV4_HEADER + ICMP_HEADER + quoted.len();
    let (ip, icmp) = to.get_mut(..length)?.split_at_mut(IPV4_HEADER);
    ip.fill(0);
    (ip[0], ip[1], ip[8], ip[9]) = (0x45, 0xc0, TTL, ICMP);
    ip[2..4].copy_from_slice(&u16::try_from(length).ok()?.to_be_bytes());
    ip[12..16].copy_from_slice(destination);
    ip[16..20].copy_from_slice(source);
    let sum = Sum::of(ip).checksum();
    ip[10..12].copy_from_slice(&sum);
    icmp[..ICMP_HEADER].copy_from_slice(&[3, 4, 0, 0, 0, 0, mtu.to_be_bytes()[0], mtu.to_be_bytes()[1]]);
    icmp[ICMP_HEADER..].copy_from_slice(quoted);
    let sum = Sum::of(icmp).checksum();
    icmp[2..4].copy_from_slice(&sum);
    Some(length)
}

/// As for IPv4, without DF.
fn answer_v6(packet: &[u8], mtu: u16, to: &mut [u8]) -> Option<usize> {
    let content = ipv6::content(packet)?;
    let is_error = content.protocol == ICMPV6 && packet.get(content.at).is_none_or(|&kind| kind < 128);
    let (source, destination) = (packet.get(8..24)?, packet.get(24..40)?);
    let is_host = |address: &[u8]| address[0] != 0xff && address[..15] != [0; 15];
    if !content.first || is_error || !is_host(source) || !is_host(destination) {
        return None;
    }
    let quoted = &packet[..packet.len().min(LONGEST_V6 - ipv6::HEADER - ICMP_HEADER)];
    let length = ICMP_HEADER + quoted.len();
    let (ip, icmp) = to.get_mut(..ipv6::HEADER + length)?.split_at_mut(ipv6::HEADER);
    ip[..4].copy_from_slice(&[0x60, 0, 0, 0]);
    ip[4..6].copy_from_slice(&u16::try_from(length).ok()?.to_be_bytes());
    (ip[6], ip[7]) = (ICMPV6, TTL);
    ip[8..24].copy_from_slice(destination);
    ip[24..40].copy_from_slice(source);
    icmp[..ICMP_HEADER].copy_from_slice(&[2, 0, 0, 0, 0, 0, mtu.to_be_bytes()[0], mtu.to_be_bytes()[1]]);
    icmp[ICMP_HEADER..].copy_from_slice(quoted);
    let pseudo = Sum::of(&ip[8..40]).plus(Sum::number(length)).plus(Sum::word(ICMPV6.into()));
    let sum = pseudo.plus(Sum::of(icmp)).checksum();
    icmp[2..4].copy_from_slice(&sum);
    Some(ipv6::HEADER + length)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: usize = 1322;

    /// Frame of 1400 bytes behind these tags. `change` may change the packet.
    fn frame(v6: bool, tags: usize, change: impl FnOnce(&mut [u8])) -> Vec<u8> {
        let mut packet = vec![7; 1400 - 14 - 4 * tags];
        if v6 {
            packet[..8].copy_from_slice(&[0x60, 0, 0, 0, 5, 0x42, 17, 64]);
            packet[8..40].copy_from_slice(&[[0xfd; 16], [0xfe; 16]].concat());
        } else {
            packet[..20].copy_from_slice(&[0x45, 0, 5, 0x6a, 0, 0, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        }
        change(&mut packet);
        let kind: [u8; 2] = if v6 { [0x86, 0xdd] } else { [8, 0] };
        [&[2; 6][..], &[4; 6], &[0x81, 0, 0, 5].repeat(tags), &kind, &packet].concat()
    }

    fn reply(frame: &[u8]) -> Option<Vec<u8>> {
        let mut to = [0; CAPACITY];
        answer(frame, frame.len(), MOST, &mut to).map(|length| to[..length].to_vec())
    }

    #[test]
    fn long_ipv4_packet_is_answered() {
        for tags in [0, 1] {
            let frame = frame(false, tags, |_| {});
            let at = 14 + 4 * tags;
            let reply = reply(&frame).unwrap();
            assert_eq!((&reply[..12], &reply[12..at]), (&[[4; 6], [2; 6]].concat()[..], &frame[12..at]));
            let (ip, icmp) = reply[at..].split_at(20);
            assert_eq!((ip.len() + icmp.len(), &ip[12..]), (576, &[10, 0, 0, 2, 10, 0, 0, 1][..]));
            assert!(Sum::of(ip).is_right() && Sum::of(icmp).is_right());
            let mtu = u16::try_from(MOST - at).unwrap().to_be_bytes();
            assert_eq!((&icmp[..2], &icmp[6..8], &icmp[8..]), (&[3, 4][..], &mtu[..], &frame[at..at + 548]));
        }
    }

    #[test]
    fn long_ipv6_packet_is_answered() {
        let frame = frame(true, 0, |_| {});
        let reply = reply(&frame).unwrap();
        let (ip, icmp) = reply[14..].split_at(40);
        assert_eq!((ip.len() + icmp.len(), &ip[8..24], &ip[24..40]), (1280, &[0xfe; 16][..], &[0xfd; 16][..]));
        assert_eq!((&icmp[..2], &icmp[4..8], &icmp[8..]), (&[2, 0][..], &[0, 0, 5, 0x1c][..], &frame[14..14 + 1232]));
        let pseudo = Sum::of(&ip[8..40]).plus(Sum::number(icmp.len())).plus(Sum::word(58));
        assert!(pseudo.plus(Sum::of(icmp)).is_right());
    }

    #[test]
    #[allow(clippy::type_complexity)] // A table.
    fn some_packets_are_never_answered() {
        let silent: [(bool, &dyn Fn(&mut [u8])); 13] = [
            (false, &|packet| packet[6] = 0),    // without DF
            (false, &|packet| packet[7] = 1),    // a later fragment
            (false, &|packet| packet[6] = 0xc0), // a reserved bit is no fragment, so this one is answered
            (false, &|packet| (packet[9], packet[20]) = (1, 3)),
            (false, &|packet| packet[12] = 0),
            (false, &|packet| packet[16] = 224),
            (false, &|packet| packet[16..20].fill(255)),
            (false, &|packet| packet[0] = 0x44),
            (true, &|packet| packet[24] = 0xff),
            (true, &|packet| packet[8..24].fill(0)),
            (true, &|packet| (packet[6], packet[40]) = (58, 1)),
            (true, &|packet| (packet[6], packet[42], packet[43]) = (44, 0, 8)),
            (true, &|packet| packet[0] = 0x40),
        ];
        for (number, (v6, change)) in silent.into_iter().enumerate() {
            assert_eq!(reply(&frame(v6, 0, change)).is_none(), number != 2, "{number}");
        }
        // An echo request is answered, a multicast frame and another EtherType are not.
        assert!(reply(&frame(false, 0, |packet| (packet[9], packet[20]) = (1, 8))).is_some());
        for (at, byte) in [(0, 1), (13, 6)] {
            let mut other = frame(false, 0, |_| {});
            other[at] = byte;
            assert_eq!(reply(&other), None);
        }
    }

    /// Packets of 1280 bytes leave in pieces over any path.
    #[test]
    fn answer_follows_size_of_segments() {
        let frame = frame(false, 0, |_| {});
        let answers = |length, most| answer(&frame, length, most, &mut [0; CAPACITY]).is_some();
        assert!(answers(1295, 1216) && !answers(1294, 1216) && !answers(1294, 0));
        assert!(answers(1323, MOST) && !answers(1322, MOST));
        assert_eq!(answer(&frame, 1400, MOST, &mut [0; 100]), None);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(0..=255_u8, 0..100), kind in 0..3_usize) {
            let mut bytes = bytes;
            if let (Some(to), Some(kind)) = (bytes.get_mut(12..14), [[8, 0], [0x86, 0xdd]].get(kind)) {
                to.copy_from_slice(kind);
            }
            let _ = answer(&bytes, 2000, 1000, &mut [0; CAPACITY]);
        }
    }
}
