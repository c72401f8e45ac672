//! Traffic class of the IP packet in a frame: six bits of DSCP (RFC 2474) and two bits of ECN (RFC 3168).

use super::checksum;
use super::ethernet::{IPV4, IPV6, TPID_8021AD, TPID_8021Q, payload, word};

/// Bits of a traffic class for ECN.
pub const ECN: u8 = 0b11;
/// Bits of a traffic class for the DSCP.
pub const DSCP: u8 = !ECN;
/// ECN of packets whose sender does not react to congestion marks.
const NOT_ECT: u8 = 0b00;
/// ECN of packets whose sender reacts to congestion marks.
const ECT_1: u8 = 0b01;
const ECT_0: u8 = 0b10;
/// ECN of packets that a congested router has marked.
const CE: u8 = 0b11;

/// Position of an IP header.
enum Header {
    V4(usize),
    V6(usize),
}

/// Header of the packet in a frame, behind at most two VLAN tags.
fn header(frame: &[u8]) -> Option<Header> {
    let (kind, at) = payload(frame, 2, &[TPID_8021Q, TPID_8021AD])?;
    let version = frame.get(at)? >> 4;
    match kind {
        IPV4 if version == 4 && frame.len() >= at + 20 => Some(Header::V4(at)),
        IPV6 if version == 6 && frame.len() >= at + 40 => Some(Header::V6(at)),
        _ => None,
    }
}

/// Traffic class of the packet in a frame. Frames of other protocols have none and count as 0.
pub fn of(frame: &[u8]) -> u8 {
    match header(frame) {
        Some(Header::V4(at)) => frame[at + 1],
        Some(Header::V6(at)) => frame[at] << 4 | frame[at + 1] >> 4,
        None => 0,
    }
}

/// Carries a congestion mark of the datagram into the packet of its frame (RFC 6040, section 4.2). `outer` is the ECN of the
/// datagram. False if the frame must be dropped: a router has marked it instead of dropping it, and the sender does not react to
/// marks. Frames without an IP packet stay unchanged.
pub fn carry_in(frame: &mut [u8], outer: u8) -> bool {
    let Some(header) = header(frame) else { return true };
    let inner = of(frame) & ECN;
    let ecn = match (inner, outer & ECN) {
        (NOT_ECT, CE) => return false,
        (ECT_0, ECT_1) => ECT_1,
        (ECT_0 | ECT_1, CE) => CE,
        _ => return true,
    };
    match header {
        Header::V4(at) => {
            let old = word(frame, at).unwrap_or(0);
            frame[at + 1] = frame[at + 1] & DSCP | ecn;
            let new = word(frame, at).unwrap_or(0);
            let sum = word(frame, at + 10).unwrap_or(0);
            frame[at + 10..at + 12].copy_from_slice(&checksum::updated(sum, old, new).to_be_bytes());
        }
        Header::V6(at) => frame[at + 1] = frame[at + 1] & !(ECN << 4) | ecn << 4,
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::checksum::Sum;

    const TAGS: [&[u8]; 3] = [b"", b"\x81\x00\x00\x07", b"\x88\xa8\x00\x07\x81\x00\x00\x09"];

    /// Frame with an IP packet of this class behind tags.
    fn frame(v6: bool, tags: &[u8], class: u8) -> Vec<u8> {
        let mut packet = if v6 {
            let mut packet = vec![0x60 | class >> 4, class << 4 | 0x0a, 0xbc, 0xde, 0, 2, 59, 64];
            packet.resize(42, 7);
            packet
        } else {
            vec![0x45, class, 0, 22, 1, 2, 0x40, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2, 7, 7]
        };
        if !v6 {
            let sum = Sum::of(&packet[..20]).checksum();
            packet[10..12].copy_from_slice(&sum);
        }
        let kind: &[u8] = if v6 { &[0x86, 0xdd] } else { &[8, 0] };
        [&[2; 12][..], tags, kind, &packet].concat()
    }

    #[test]
    fn congestion_mark_follows_rfc_6040() {
        // Rows of figure 4: Not-ECT, ECT(0), ECT(1) and CE outside.
        let table = [
            (NOT_ECT, [Some(NOT_ECT), Some(NOT_ECT), Some(NOT_ECT), None]),
            (ECT_0, [Some(ECT_0), Some(ECT_0), Some(ECT_1), Some(CE)]),
            (ECT_1, [Some(ECT_1), Some(ECT_1), Some(ECT_1), Some(CE)]),
            (CE, [Some(CE); 4]),
        ];
        for (inner, row) in table {
            for (outer, expected) in [NOT_ECT, ECT_0, ECT_1, CE].into_iter().zip(row) {
                for (v6, tags, dscp) in [false, true].into_iter().flat_map(|v6| TAGS.map(|tags| (v6, tags, 46 << 2))) {
                    let mut changed = frame(v6, tags, dscp | inner);
                    let kept = carry_in(&mut changed, dscp | outer);
                    assert_eq!(kept, expected.is_some(), "{inner:02b} in {outer:02b}");
                    // The checksum of the header is right again, and nothing else has changed.
                    let right = frame(v6, tags, dscp | expected.unwrap_or(inner));
                    assert!(changed == right, "{inner:02b} in {outer:02b}: {changed:02x?}");
                    assert_eq!(of(&changed), dscp | expected.unwrap_or(inner));
                }
            }
        }
    }

    #[test]
    fn wrong_header_checksum_stays_wrong() {
        let mut changed = frame(false, b"", ECT_0);
        changed[24] ^= 0x55;
        assert!(carry_in(&mut changed, CE));
        let mut right = frame(false, b"", CE);
        assert!(changed != right && !Sum::of(&changed[14..34]).is_right());
        changed[24..26].fill(0);
        right[24..26].fill(0);
        assert_eq!(changed, right);
    }

    #[test]
    fn other_frames_have_no_class() {
        let mut frames = vec![
            [&[2; 12][..], &[8, 6], &[0x45; 46]].concat(),
            [&[2; 12][..], &[8, 0], &[0x65; 46]].concat(),
            [&[2; 12][..], &[0x86, 0xdd], &[0x45; 46]].concat(),
            [&[2; 12][..], &[0x81, 0, 0, 1, 0x81, 0, 0, 2, 0x81, 0, 0, 3, 8, 0], &[0x45; 46]].concat(),
        ];
        for v6 in [false, true] {
            let whole = frame(v6, TAGS[1], 0xff);
            frames.extend((0..whole.len() - 2).map(|length| whole[..length].to_vec()));
        }
        for mut frame in frames {
            let before = frame.clone();
            assert!(carry_in(&mut frame, CE) && frame == before && of(&frame) == 0, "{frame:02x?}");
        }
    }
}
