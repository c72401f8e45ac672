//! MSS clamping: lowers the maximum segment size in TCP SYNs, so that segments fit through the tunnel (RFC 9293 section 3.7.1). The
//! option is never raised or added, and all other bytes stay unchanged.

use super::checksum::updated;
use super::ethernet::{IPV4, IPV6, TCP, TPID_8021AD, TPID_8021Q, payload, word};
use super::ipv6;
use super::offload::superframe::Checksum;

/// Least length of a TCP header in bytes.
const TCP_HEADER: usize = 20;
/// Offset of the checksum in it.
const CHECKSUM: usize = 16;

/// Lowers the MSS in `frame` to one of `limits`, for IPv4 and for IPv6, behind at most two VLAN tags. Returns whether it did.
/// Adjusts the checksum of TCP unless that is partial: a partial one covers only the pseudo header.
pub fn clamp(frame: &mut [u8], limits: (u16, u16), partial: Option<Checksum>) -> bool {
    let segment = payload(frame, 2, &[TPID_8021Q, TPID_8021AD]).and_then(|(kind, at)| match kind {
        IPV4 => Some((segment_v4(frame, at)?, limits.0)),
        IPV6 => Some((segment_v6(frame, at)?, limits.1)),
        _ => None,
    });
    let Some(((start, end), limit)) = segment else { return false };
    let whole = partial.is_none_or(|partial| usize::from(partial.start) != start);
    lower(&mut frame[start..end], limit, whole).is_some()
}

/// Range of the TCP segment in an IPv4 packet (RFC 791).
fn segment_v4(frame: &[u8], at: usize) -> Option<(usize, usize)> {
    let packet = frame.get(at..)?;
    let header = usize::from(packet.first()? & 0x0f) * 4;
    let total = usize::from(word(packet, 2)?);
    let fragment = word(packet, 6)? & 0x1fff;
    let right = packet[0] >> 4 == 4 && header >= 20 && fragment == 0 && *packet.get(9)? == TCP;
    (right && header < total && total <= packet.len()).then_some((at + header, at + total))
}

/// Range of the TCP segment in an IPv6 packet.
fn segment_v6(frame: &[u8], at: usize) -> Option<(usize, usize)> {
    let packet = frame.get(at..)?;
    let end = ipv6::HEADER + usize::from(word(packet, 4)?);
    let content = ipv6::content(packet.get(..end)?)?;
    (content.protocol == TCP && content.first).then_some((at + content.at, at + end))
}

/// Lowers the MSS of a SYN; `None` if there is nothing to lower.
fn lower(segment: &mut [u8], limit: u16, whole: bool) -> Option<()> {
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
    if !whole {
        return Some(());
    }
    let checksum = word(segment, CHECKSUM)?;
    // A value at an odd offset spans two words of the sum, so its bytes count swapped.
    let swap = |value: u16| if at % 2 == 0 { value } else { value.swap_bytes() };
    let checksum = updated(checksum, swap(old), swap(limit));
    segment[CHECKSUM..CHECKSUM + 2].copy_from_slice(&checksum.to_be_bytes());
    Some(())
}

/// Offset of the value of the first MSS option (RFC 9293 section 3.2).
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Sum over a TCP segment with its pseudo header; 0xffff if its checksum is right.
    fn sum(pseudo: &[u8], segment: &[u8]) -> u16 {
        let words = |bytes: &[u8]| {
            let word = |pair: &[u8]| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0));
            bytes.chunks(2).map(word).sum::<u64>()
        };
        let mut sum = words(pseudo) + words(segment) + u64::from(TCP) + segment.len() as u64;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        u16::try_from(sum).unwrap()
    }

    /// SYN with these options and a right checksum. `addresses` is the range of the pseudo header's addresses.
    fn syn(headers: &[u8], addresses: std::ops::Range<usize>, options: &[u8], data: &[u8]) -> Vec<u8> {
        let mut segment = vec![0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0xff, 0xff, 0, 0, 0, 0];
        segment[12] = u8::try_from((20 + options.len()) / 4).unwrap() << 4;
        segment.extend_from_slice(&[options, data].concat());
        let checksum = !sum(&headers[addresses], &segment);
        segment[16..18].copy_from_slice(&checksum.to_be_bytes());
        [headers, &segment].concat()
    }

    fn ipv4_header(tags: &[u8], length: u16) -> Vec<u8> {
        let mut header = [&[0; 12][..], tags, &[8, 0, 0x45, 0]].concat();
        header.extend_from_slice(&(20 + length).to_be_bytes());
        header.extend_from_slice(&[0, 0, 0, 0, 64, TCP, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        header
    }

    #[test]
    fn clamped_segment_has_right_checksum() {
        for options in
            [&[2, 4, 5, 180][..], &[1, 2, 4, 5, 180, 1, 1, 1], &[1, 1, 2, 4, 5, 180, 0, 0], &[3, 3, 7, 2, 4, 5, 180, 1]]
        {
            for data in [&b""[..], b"odd", b"even"] {
                for tags in [&[][..], &[0x81, 0, 0, 7], &[0x88, 0xa8, 0, 7, 0x81, 0, 0, 9]] {
                    let length = u16::try_from(20 + options.len() + data.len()).unwrap();
                    let header = ipv4_header(tags, length);
                    let (at, end) = (header.len(), header.len() - 8..header.len());
                    let mut frame = syn(&header, end.clone(), options, data);
                    assert_eq!(sum(&frame[end.clone()], &frame[at..]), 0xffff);
                    let limits = (1360, 1360);
                    assert!(
                        clamp(&mut frame, limits, None) && !clamp(&mut frame, limits, None),
                        "{options:?} {data:?}"
                    );
                    assert_eq!(sum(&frame[end.clone()], &frame[at..]), 0xffff, "{options:?} {data:?} {tags:?}");
                    // A wrong checksum stays wrong by the same amount: an unverified checksum is not repaired.
                    frame[at + 5] ^= 1;
                    let before = sum(&frame[end.clone()], &frame[at..]);
                    assert!(before != 0xffff && clamp(&mut frame, (1000, 1000), None));
                    assert_eq!(sum(&frame[end], &frame[at..]), before, "{options:?} {data:?} {tags:?}");
                }
            }
        }
    }

    #[test]
    fn clamp_keeps_partial_checksum() {
        let frame = syn(&ipv4_header(&[], 28), 26..34, &[1, 2, 4, 5, 180, 0, 0, 0], b"");
        for (start, offset, whole) in [(34, 16, false), (54, 6, true)] {
            let (mut partial, mut complete) = (frame.clone(), frame.clone());
            assert!(clamp(&mut partial, (1360, 1360), Some(Checksum { start, offset })));
            assert!(clamp(&mut complete, (1360, 1360), None));
            assert_eq!(partial[50..52] == frame[50..52], !whole);
            partial[50..52].copy_from_slice(&complete[50..52]);
            assert_eq!(partial, complete);
        }
    }

    #[test]
    fn ipv6_extension_headers_are_skipped() {
        for (extensions, lowered) in [
            (&[][..], true),
            (&[[0, 6], [60, TCP]][..], true), // hop-by-hop, destination options
            (&[[43, TCP]], true),             // routing
            (&[[50, TCP]], false),            // encrypted
        ] {
            let mut header = [&[0; 12][..], &[0x86, 0xdd, 0x60, 0, 0, 0]].concat();
            let length = u16::try_from(24 + extensions.len() * 8).unwrap();
            header.extend_from_slice(&length.to_be_bytes());
            header.extend_from_slice(&[extensions.first().map_or(TCP, |first| first[0]), 64]);
            header.extend_from_slice(&[1; 32]);
            for (index, _) in extensions.iter().enumerate() {
                let next = extensions.get(index + 1).map_or(TCP, |next| next[0]);
                header.extend_from_slice(&[next, 0, 1, 4, 0, 0, 0, 0]);
            }
            let mut frame = syn(&header, 22..54, &[2, 4, 5, 180], b"");
            assert_eq!(clamp(&mut frame, (1400, 1360), None), lowered, "{extensions:?}");
        }
    }

    #[test]
    fn malformed_tcp_options_end_the_search() {
        let header = ipv4_header(&[], 28);
        for options in [
            [0, 2, 4, 5, 180, 0, 0, 0],
            [9, 0, 2, 4, 5, 180, 0, 0],
            [9, 1, 2, 4, 5, 180, 0, 0],
            [1, 1, 1, 1, 9, 99, 2, 4],
        ] {
            let mut frame = syn(&header, 26..34, &options, b"");
            assert!(!clamp(&mut frame, (1, 1), None), "{options:?}");
        }
    }

    #[test]
    fn truncated_frame_is_left_alone() {
        let whole = syn(&ipv4_header(&[0x81, 0, 0, 7], 24), 30..38, &[2, 4, 5, 180], b"");
        for length in 0..whole.len() {
            let mut cut = whole[..length].to_vec();
            assert!(!clamp(&mut cut, (1, 1), None) && cut == whole[..length], "{length}");
        }
    }
}
