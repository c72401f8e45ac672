//! Flows of frames. Packets of one flow keep their order, and so leave by one path.

use super::ethernet::{IPV4, IPV6, TCP, TPID_8021AD, TPID_8021Q, UDP, payload, word};
use super::ipv6;

/// Other protocols whose header begins with two ports: DCCP, SCTP and UDP-Lite.
const OTHERS: [u8; 3] = [33, 132, 136];
/// Length of both MAC addresses in bytes.
const ADDRESSES: usize = 12;
/// Odd factor of the hash: the first digits of pi after the point, in binary.
const FACTOR: u64 = 0x243f_6a88_85a3_08d3;

/// Hash of the flow of a frame: VLAN IDs, IP addresses, protocol and ports. A fragment of an IP packet has only the addresses, so
/// that all fragments of a packet take one way. A frame of another kind has its MAC addresses and its type.
pub fn hash(frame: &[u8]) -> u64 {
    let Some((kind, at)) = payload(frame, 2, &[TPID_8021Q, TPID_8021AD]) else { return bytes(0, frame) };
    let tags = frame[ADDRESSES..at - 2].chunks(4);
    let hash = tags.fold(u64::from(kind), |hash, tag| mix(hash, u64::from(word(tag, 2).unwrap_or(0) & 0x0fff)));
    let packet = &frame[at..];
    match kind {
        IPV4 if packet.len() >= 20 && packet[0] >> 4 == 4 => {
            let whole = word(packet, 6).is_some_and(|fragment| fragment.trailing_zeros() >= 14);
            let ports = (packet[9], usize::from(packet[0] & 0x0f) * 4);
            protocol(bytes(hash, &packet[12..20]), packet, Some(ports).filter(|_| whole))
        }
        IPV6 if packet.len() >= ipv6::HEADER && packet[0] >> 4 == 6 => {
            let content = ipv6::content(packet).filter(|content| !content.fragment);
            protocol(bytes(hash, &packet[8..40]), packet, content.map(|content| (content.protocol, content.at)))
        }
        _ => bytes(hash, &frame[..ADDRESSES]),
    }
}

/// Adds the protocol of a packet, and its ports at this offset, to a hash.
fn protocol(hash: u64, packet: &[u8], content: Option<(u8, usize)>) -> u64 {
    let Some((protocol, at)) = content else { return hash };
    let has_ports = [TCP, UDP].contains(&protocol) || OTHERS.contains(&protocol);
    let ports = packet.get(at..at + 4).filter(|_| has_ports).unwrap_or_default();
    bytes(mix(hash, protocol.into()), ports)
}

/// Adds bytes to a hash.
fn bytes(hash: u64, bytes: &[u8]) -> u64 {
    let number = |word: &[u8]| word.iter().fold(0, |number, &byte| number << 8 | u64::from(byte));
    bytes.chunks(8).fold(hash, |hash, word| mix(hash, number(word)))
}

/// Adds a number to a hash: both halves of the product depend on every bit.
pub fn mix(hash: u64, number: u64) -> u64 {
    let product = u128::from(hash.rotate_left(29) ^ number ^ FACTOR.rotate_left(17)) * u128::from(FACTOR);
    #[allow(clippy::cast_possible_truncation)] // The lower half.
    let low = product as u64;
    low ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Frame with these tags and this type before a packet.
    fn frame(tags: &[u16], kind: u16, packet: &[u8]) -> Vec<u8> {
        let tags = tags.iter().flat_map(|id| [TPID_8021Q.to_be_bytes(), id.to_be_bytes()].concat());
        [1; 12].into_iter().chain(tags).chain(kind.to_be_bytes()).chain(packet.iter().copied()).collect()
    }

    fn ipv4(fragment: u16, protocol: u8, to: u8, ports: [u8; 4]) -> Vec<u8> {
        let [high, low] = fragment.to_be_bytes();
        let header = [0x45, 0, 0, 28, 9, 9, high, low, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, to];
        [&header[..], &ports, &[0; 4]].concat()
    }

    fn ipv6(next: u8, rest: &[u8]) -> Vec<u8> {
        [&[0x60, 0, 0, 0, 0, 16, next, 64][..], &[1; 16], &[2; 16], rest].concat()
    }

    #[test]
    fn flow_fields_change_hash() {
        let tcp = ipv4(0, TCP, 2, [1, 2, 3, 4]);
        let frames = [
            frame(&[], IPV4, &tcp),
            frame(&[], IPV4, &ipv4(0, TCP, 2, [1, 2, 3, 5])),
            frame(&[], IPV4, &ipv4(0, TCP, 3, [1, 2, 3, 4])),
            frame(&[], IPV4, &ipv4(0, UDP, 2, [1, 2, 3, 4])),
            frame(&[], IPV4, &ipv4(0, 47, 2, [1, 2, 3, 4])),
            frame(&[7], IPV4, &tcp),
            frame(&[8], IPV4, &tcp),
            frame(&[7, 8], IPV4, &tcp),
            frame(&[], IPV6, &ipv6(TCP, &[1, 2, 3, 4])),
            frame(&[], IPV6, &ipv6(TCP, &[1, 2, 3, 5])),
            frame(&[], IPV6, &ipv6(60, &[&[UDP, 0, 0, 0, 0, 0, 0, 0][..], &[1, 2, 3, 5]].concat())),
            frame(&[], 0x0806, &[3; 28]),
            frame(&[], 0x88cc, &[3; 28]),
        ];
        let hashes: std::collections::BTreeSet<_> = frames.iter().map(|frame| hash(frame)).collect();
        assert_eq!(hashes.len(), frames.len());
    }

    #[test]
    fn other_fields_do_not_change_hash() {
        let same = |one: &[u8], other: &[u8]| assert_eq!(hash(one), hash(other), "{one:02x?} {other:02x?}");
        let tcp = ipv4(0, TCP, 2, [1, 2, 3, 4]);
        let mut later = tcp.clone();
        (later[4], later[8], later[27]) = (1, 3, 7);
        same(&frame(&[], IPV4, &tcp), &frame(&[], IPV4, &later));
        // The priority of a VLAN tag.
        same(&frame(&[7], IPV4, &tcp), &frame(&[0xe007], IPV4, &tcp));
        // First and later fragment. The don't-fragment bit is no fragment.
        same(&frame(&[], IPV4, &ipv4(0x2000, UDP, 2, [1, 2, 3, 4])), &frame(&[], IPV4, &ipv4(9, UDP, 2, [0; 4])));
        same(&frame(&[], IPV4, &tcp), &frame(&[], IPV4, &ipv4(0x4000, TCP, 2, [1, 2, 3, 4])));
        let fragment = |offset: u8| ipv6(44, &[&[UDP, 0, 0, offset, 0, 0, 0, 9][..], &[offset; 8]].concat());
        same(&frame(&[], IPV6, &fragment(1)), &frame(&[], IPV6, &fragment(8)));
        // The ports of GRE are payload.
        same(&frame(&[], IPV4, &ipv4(0, 47, 2, [1; 4])), &frame(&[], IPV4, &ipv4(0, 47, 2, [2; 4])));
    }

    #[test]
    fn every_length_has_a_hash() {
        for whole in [frame(&[7, 8], IPV4, &ipv4(0, TCP, 2, [1; 4])), frame(&[7], IPV6, &ipv6(TCP, &[1; 8]))] {
            let hashes: std::collections::BTreeSet<_> = (0..whole.len()).map(|length| hash(&whole[..length])).collect();
            assert!(hashes.len() > 14);
        }
    }
}
