//! MSS adjustment: lowers the maximum segment size that TCP announces in a SYN, so that its segments fit through the
//! tunnel (RFC 9293 section 3.7.1). Never raised, never added; every other byte stays as it is.

use super::ethernet::{IPV4, IPV6, TCP, TPID_8021AD, TPID_8021Q, payload, word};

/// Least length of a TCP header in bytes.
const TCP_HEADER: usize = 20;
/// Where in it the checksum is.
const CHECKSUM: usize = 16;
/// IPv6 extension headers that are walked over at most.
const EXTENSIONS: usize = 8;

/// Lowers the MSS in `frame` to `limit`, behind at most two VLAN tags; tells whether it did.
pub fn clamp(frame: &mut [u8], limit: u16) -> bool {
    let segment = payload(frame, 2, &[TPID_8021Q, TPID_8021AD]).and_then(|(kind, at)| match kind {
        IPV4 => ipv4(frame, at),
        IPV6 => ipv6(frame, at),
        _ => None,
    });
    let Some((start, end)) = segment else { return false };
    lower(&mut frame[start..end], limit).is_some()
}

/// Where the TCP segment of an IPv4 packet is (RFC 791).
fn ipv4(frame: &[u8], at: usize) -> Option<(usize, usize)> {
    let packet = frame.get(at..)?;
    let header = usize::from(packet.first()? & 0x0f) * 4;
    let total = usize::from(word(packet, 2)?);
    let fragment = word(packet, 6)? & 0x1fff;
    let right = packet[0] >> 4 == 4 && header >= 20 && fragment == 0 && *packet.get(9)? == TCP;
    (right && header < total && total <= packet.len()).then_some((at + header, at + total))
}

/// Where the TCP segment of an IPv6 packet is, behind its extension headers (RFC 8200 section 4).
fn ipv6(frame: &[u8], at: usize) -> Option<(usize, usize)> {
    const HEADER: usize = 40;
    let packet = frame.get(at..).filter(|packet| packet.len() >= HEADER)?;
    let end = HEADER + usize::from(word(packet, 4)?);
    if packet[0] >> 4 != 6 || end > packet.len() {
        return None;
    }
    let (mut next, mut offset) = (packet[6], HEADER);
    for _ in 0..EXTENSIONS {
        let header = &packet[offset..end];
        let length = match next {
            TCP => return Some((at + offset, at + end)),
            // Hop-by-hop, routing, destination options: length in 8 bytes, the first not counted.
            0 | 43 | 60 => (usize::from(*header.get(1)?) + 1) * 8,
            // Fragment: only the first has the TCP header.
            44 if word(header, 2)? & 0xfff8 == 0 => 8,
            // Authentication: length in 4 bytes, the first two not counted (RFC 4302).
            51 => (usize::from(*header.get(1)?) + 2) * 4,
            _ => return None,
        };
        next = *header.first()?;
        offset += length;
        if offset > end {
            return None;
        }
    }
    None
}

/// Lowers the MSS of a SYN; `None` when there is nothing to lower.
fn lower(segment: &mut [u8], limit: u16) -> Option<()> {
    const SYN: u8 = 0x02;
    let header = usize::from(segment.get(12)? >> 4) * 4;
    if segment.get(13)? & SYN == 0 || header < TCP_HEADER || header > segment.len() {
        return None;
    }
    let at = mss_option(&segment[..header])?;
    let old = word(segment, at)?;
    if old <= limit {
        return None;
    }
    segment[at..at + 2].copy_from_slice(&limit.to_be_bytes());
    let checksum = word(segment, CHECKSUM)?;
    // A value at an odd offset stands in two words of the sum, its bytes exchanged.
    let swap = |value: u16| if at % 2 == 0 { value } else { value.swap_bytes() };
    let checksum = updated(checksum, swap(old), swap(limit));
    segment[CHECKSUM..CHECKSUM + 2].copy_from_slice(&checksum.to_be_bytes());
    Some(())
}

/// Where the value of the first MSS option is (RFC 9293 section 3.2).
fn mss_option(header: &[u8]) -> Option<usize> {
    let mut at = TCP_HEADER;
    loop {
        match (*header.get(at)?, header.get(at + 1)) {
            (0, _) => return None,
            (1, _) => at += 1,
            (2, Some(4)) if at + 4 <= header.len() => return Some(at + 2),
            (_, Some(&length)) if length >= 2 => at += usize::from(length),
            _ => return None,
        }
    }
}

/// The checksum after one word has changed (RFC 1624, equation 3).
fn updated(checksum: u16, old: u16, new: u16) -> u16 {
    let mut sum = u32::from(!checksum) + u32::from(!old) + u32::from(new);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    #[allow(clippy::cast_possible_truncation)] // Folded twice.
    let sum = sum as u16;
    !sum
}
