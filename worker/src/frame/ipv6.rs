//! IPv6 packets (RFC 8200): the payload behind the extension headers.

use super::ethernet::word;

/// Length of the fixed header in bytes.
pub const HEADER: usize = 40;
/// Most extension headers that are skipped.
const EXTENSIONS: usize = 8;

/// Length in bytes of a hop-by-hop header that contains only the length of a jumbogram (RFC 2675).
pub const JUMBO: usize = 8;

/// Removes the jumbogram header from a packet, as the kernel does before segmentation (`ipv6_hopopt_jumbo_remove`). The packet then
/// begins [`JUMBO`] bytes later. False if it has none.
pub fn remove_jumbo(before: usize, frame: &mut [u8]) -> bool {
    let Some(packet) = frame.get_mut(before..) else { return false };
    let Some(&[next, 0, 0xc2, 4, length @ ..]) = packet.get(HEADER..).and_then(|rest| rest.first_chunk::<JUMBO>())
    else {
        return false;
    };
    let is_jumbo = packet[0] >> 4 == 6 && packet[4..7] == [0, 0, 0];
    if !is_jumbo || usize::try_from(u32::from_be_bytes(length)) != Ok(packet.len() - HEADER) {
        return false;
    }
    packet[6] = next;
    frame.copy_within(..before + HEADER, JUMBO);
    true
}

/// Payload of an IPv6 packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Content {
    /// Protocol. In a later fragment, the protocol at the beginning of the first one, as the sender claims.
    pub protocol: u8,
    /// Offset in the packet, at most the packet's length.
    pub at: usize,
    /// Whether the payload begins here: the packet is whole or a first fragment.
    pub first: bool,
    /// Whether the packet is a fragment.
    pub fragment: bool,
}

/// Payload behind the extension headers of a packet; `None` if it cannot be determined.
pub fn content(packet: &[u8]) -> Option<Content> {
    if packet.len() < HEADER || packet[0] >> 4 != 6 {
        return None;
    }
    let (mut next, mut at, mut fragment) = (packet[6], HEADER, false);
    for _ in 0..=EXTENSIONS {
        let header = packet.get(at..)?;
        let length = match next {
            // Hop-by-hop, routing, destination options: length in units of 8 bytes, without the first.
            0 | 43 | 60 => (usize::from(*header.get(1)?) + 1) * 8,
            44 if word(header, 2)? & 0xfff8 != 0 => {
                let at = (at + 8).min(packet.len());
                return Some(Content { protocol: header[0], at, first: false, fragment: true });
            }
            // First fragment.
            44 => {
                fragment = true;
                8
            }
            // Authentication: length in units of 4 bytes, without the first two (RFC 4302).
            51 => (usize::from(*header.get(1)?) + 2) * 4,
            protocol => return Some(Content { protocol, at, first: true, fragment }),
        };
        next = *header.first()?;
        at += length;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Packet with these bytes behind the fixed header, whose next header is `next`.
    fn packet(next: u8, rest: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; HEADER];
        (packet[0], packet[6]) = (0x60, next);
        packet.extend_from_slice(rest);
        packet
    }

    fn found(next: u8, rest: &[u8]) -> Option<(u8, usize, bool)> {
        content(&packet(next, rest)).map(|content| (content.protocol, content.at, content.first))
    }

    #[test]
    fn extension_headers_are_skipped() {
        assert_eq!(found(17, b""), Some((17, 40, true)));
        assert_eq!(found(60, b"\x11\0\0\0\0\0\0\0udp"), Some((17, 48, true)));
        assert_eq!(found(0, b"\x2c\0\0\0\0\0\0\0\x06\0\0\x01\0\0\0\0tcp"), Some((6, 56, true)), "a first fragment");
        assert_eq!(found(43, &[[17, 1].as_slice(), &[0; 14]].concat()), Some((17, 56, true)));
        assert_eq!(found(51, &[[17, 4].as_slice(), &[0; 22]].concat()), Some((17, 64, true)));
    }

    #[test]
    fn later_fragment_has_no_header() {
        assert_eq!(found(44, b"\x11\0\0\x08\0\0\0\0data"), Some((17, 48, false)));
    }

    #[test]
    fn truncated_headers_yield_nothing() {
        assert_eq!(found(60, b"\x11\x01\0\0\0\0\0\0short"), None);
        assert_eq!(found(44, b"\x11\0\0"), None);
        assert_eq!(found(60, &b"\x3c\0\0\0\0\0\0\0".repeat(20)), None, "without end");
        let whole = packet(60, b"\x11\0\0\0\0\0\0\0");
        assert!((0..whole.len()).all(|length| content(&whole[..length]).is_none()));
        assert_eq!(content(&whole).map(|content| content.at), Some(whole.len()));
    }
}
