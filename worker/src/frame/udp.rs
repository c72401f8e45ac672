//! The payload of UDP datagrams, for mode mirror-udp.

use std::ops::Range;

use super::ethernet::{IPV4, IPV6, TPID_8021Q, UDP, payload, word};
use super::ipv6;

/// Length of a UDP header in bytes.
const HEADER: usize = 8;

/// Range of the UDP payload in a frame, behind at most one 802.1Q tag; `None` unless the packet is whole UDP or a first fragment.
/// The range never exceeds the captured bytes.
pub fn inner(frame: &[u8]) -> Option<Range<usize>> {
    let (kind, at) = payload(frame, 1, &[TPID_8021Q])?;
    let packet = frame.get(at..)?;
    let udp = match kind {
        IPV4 => {
            let header = usize::from(packet.first()? & 0x0f) * 4;
            let fragment = word(packet, 6)? & 0x1fff;
            let right = packet[0] >> 4 == 4 && header >= 20 && fragment == 0 && *packet.get(9)? == UDP;
            right.then_some(header)?
        }
        IPV6 => {
            let content = ipv6::content(packet)?;
            (content.protocol == UDP && content.first).then_some(content.at)?
        }
        _ => return None,
    };
    let claimed = usize::from(word(packet, udp + 4)?);
    if claimed < HEADER || packet.len() < udp + HEADER {
        return None;
    }
    Some(at + udp + HEADER..at + (udp + claimed).min(packet.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(claimed: u16, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend_from_slice(&[8, 0, 0x45, 0, 0, 0, 0, 0, 0, 0, 64, UDP, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        frame.extend_from_slice(&[0, 1, 0, 2]);
        frame.extend_from_slice(&claimed.to_be_bytes());
        frame.extend_from_slice(&[0, 0]);
        frame.extend_from_slice(payload);
        frame
    }

    #[test]
    fn udp_length_may_only_shrink() {
        for (claimed, expected) in [(8, &b""[..]), (11, b"abc"), (14, b"abcdef"), (15, b"abcdef"), (65535, b"abcdef")] {
            let frame = frame(claimed, b"abcdef");
            assert_eq!(&frame[inner(&frame).unwrap()], expected, "{claimed}");
        }
        assert_eq!(inner(&frame(7, b"abcdef")), None);
    }

    #[test]
    fn truncated_frame_yields_rest_or_nothing() {
        let whole = frame(14, b"abcdef");
        for length in 0..whole.len() {
            let range = inner(&whole[..length]);
            assert_eq!(range.is_some(), length >= 42, "{length}");
            assert!(range.is_none_or(|range| range.end <= length));
        }
    }
}
