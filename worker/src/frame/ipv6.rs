//! IPv6 packets (RFC 8200): what is in one, behind its extension headers.

use super::ethernet::word;

/// Length of the fixed header in bytes.
pub const HEADER: usize = 40;
/// Extension headers that are walked over at most.
const EXTENSIONS: usize = 8;

/// Length of a hop-by-hop header that says nothing but the length of a jumbogram (RFC 2675).
pub const JUMBO: usize = 8;

/// Takes the length of a jumbogram out of a packet, as the kernel does before an interface cuts it
/// (`ipv6_hopopt_jumbo_remove`): the packet then begins [`JUMBO`] bytes later. False where it has none.
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

/// What an IPv6 packet carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Content {
    /// Its protocol; of a fragment that is not the first, what the sender says the fragments begin with.
    pub protocol: u8,
    /// Where it begins in the packet, at most at its end.
    pub at: usize,
    /// Whether this is its beginning: the packet is whole or the first fragment.
    pub first: bool,
}

/// What is behind the extension headers of a packet; `None` when that cannot be said.
pub fn content(packet: &[u8]) -> Option<Content> {
    if packet.len() < HEADER || packet[0] >> 4 != 6 {
        return None;
    }
    let (mut next, mut at) = (packet[6], HEADER);
    for _ in 0..=EXTENSIONS {
        let header = packet.get(at..)?;
        let length = match next {
            // Hop-by-hop, routing, destination options: length in 8 bytes, the first not counted.
            0 | 43 | 60 => (usize::from(*header.get(1)?) + 1) * 8,
            44 if word(header, 2)? & 0xfff8 != 0 => {
                return Some(Content { protocol: header[0], at: (at + 8).min(packet.len()), first: false });
            }
            // The first fragment.
            44 => 8,
            // Authentication: length in 4 bytes, the first two not counted (RFC 4302).
            51 => (usize::from(*header.get(1)?) + 2) * 4,
            protocol => return Some(Content { protocol, at, first: true }),
        };
        next = *header.first()?;
        at += length;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A packet with these headers behind the fixed one, whose next header is `next`.
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
