//! Offload: the `virtio_net_hdr` before a frame (`linux/virtio_net.h`), and superframes with their segmentation and coalescing.

pub mod coalesce;
pub mod segment;
pub mod superframe;

use crate::frame::checksum::Sum;
use crate::frame::crc32c::crc32c;
use crate::frame::ethernet::{IPV6, TPID_8021AD, TPID_8021Q, payload};
use crate::frame::ipv6;
use superframe::{
    Checksum, ECN, Facts, NEEDS_CHECKSUM, NONE, Segments, Superframe, TAGS, TCP4, TCP6, UDP_DATAGRAMS, VALID, check,
};
pub use superframe::{Refused, SHORT};

/// Length in bytes of the header before a frame, with the number of buffers.
pub const LONG: usize = 12;

/// Parses the header before `frame`, in native byte order. Bytes behind [`SHORT`] are ignored. The length of headers is only a
/// hint, and may be that of the whole frame.
///
/// # Errors
/// Reason why the header is unknown or contradicts the frame.
pub fn parse(header: &[u8], frame: &[u8]) -> Result<Facts, Refused> {
    let &[flags, kind, ref numbers @ ..] = header.first_chunk::<SHORT>().ok_or(Refused::NoHeader(header.len()))?;
    let number = |index: usize| u16::from_ne_bytes([numbers[2 * index], numbers[2 * index + 1]]);
    let (header, segment, start, offset) = (number(0), number(1), number(2), number(3));
    if flags & !(NEEDS_CHECKSUM | VALID) != 0 {
        return Err(Refused::Flags(flags));
    }
    let checksum = (flags & NEEDS_CHECKSUM != 0).then_some(Checksum { start, offset });
    let kind = match kind & !ECN {
        NONE if kind == NONE => None,
        TCP4 => Some(Segments::Tcp4),
        TCP6 => Some(Segments::Tcp6),
        UDP_DATAGRAMS if kind & ECN == 0 => Some(Segments::Udp),
        _ => return Err(Refused::Kind(kind)),
    };
    let facts = Facts { checksum, superframe: kind.map(|kind| Superframe { kind, header, segment }), vlan: None };
    check(&facts, frame.len()).map(|()| facts)
}

/// Header for a frame, in native byte order. Its first [`SHORT`] bytes are the header without the number of buffers. It cannot hold
/// a VLAN tag.
pub fn write(facts: &Facts) -> [u8; LONG] {
    let mut header = [0; LONG];
    let mut put = |at: usize, value: u16| header[at..at + 2].copy_from_slice(&value.to_ne_bytes());
    if let Some(superframe) = facts.superframe {
        put(2, superframe.header);
        put(4, superframe.segment);
    }
    if let Some(checksum) = facts.checksum {
        put(6, checksum.start);
        put(8, checksum.offset);
    }
    header[0] = if facts.checksum.is_some() { NEEDS_CHECKSUM } else { 0 };
    header[1] = match facts.superframe.map(|superframe| superframe.kind) {
        None => NONE,
        Some(Segments::Tcp4) => TCP4,
        Some(Segments::Tcp6) => TCP6,
        Some(Segments::Udp) => UDP_DATAGRAMS,
    };
    header
}

/// Removes the jumbogram header from a superframe, which then begins [`ipv6::JUMBO`] bytes later. False if it has none.
pub fn remove_jumbo(frame: &mut [u8]) -> bool {
    let network = payload(frame, TAGS, &[TPID_8021Q, TPID_8021AD]);
    network.is_some_and(|(ethertype, network)| ethertype == IPV6 && ipv6::remove_jumbo(network, frame))
}

/// Offset of the checksum of SCTP, a CRC. No other protocol with offloaded checksums uses this offset, and the kernel does not tell
/// the kind of a partial checksum.
const SCTP: u16 = 8;

/// Offset of the payload of the shortest IP packet, behind the headers of Ethernet and IPv4. The kernel refuses a checksum that
/// begins earlier (`skb_partial_csum_set` and its callers).
const FIRST: u16 = 34;

/// Whether a partial checksum can travel to the receiver: it covers the payload of an IP packet, and its relative offset fits into
/// one byte.
pub fn travels(checksum: Checksum) -> bool {
    checksum.offset != SCTP && checksum.offset <= u8::MAX.into() && checksum.start >= FIRST
}

/// Completes a partial checksum in place. Its field holds the sum of bytes that are not in the frame. Like the kernel it never
/// writes zero, which means no checksum in UDP and is equivalent elsewhere. The CRC of SCTP is computed from scratch.
///
/// # Errors
/// When the field is outside the frame, which then stays unchanged.
pub fn complete_checksum(frame: &mut [u8], checksum: Checksum) -> Result<(), Refused> {
    check(&Facts { checksum: Some(checksum), ..Facts::default() }, frame.len())?;
    let summed = &mut frame[usize::from(checksum.start)..];
    if let (SCTP, Some((before, [first, second, third, fourth, behind @ ..]))) =
        (checksum.offset, summed.split_at_mut_checked(SCTP.into()))
    {
        [*first, *second, *third, *fourth] = crc32c(&[before, &[0; 4], behind]);
        return Ok(());
    }
    let complete = Sum::of(summed).nonzero_checksum();
    summed[usize::from(checksum.offset)..][..2].copy_from_slice(&complete);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(flags: u8, kind: u8, numbers: [u16; 4]) -> Vec<u8> {
        [&[flags, kind][..], &numbers.map(u16::to_ne_bytes).concat()].concat()
    }

    const FRAME: [u8; 200] = [0; 200];

    #[test]
    fn vnet_header_round_trips() {
        let checksum = |start, offset| Some(Checksum { start, offset });
        let of = |kind, header, segment| Some(Superframe { kind, header, segment });
        for (bytes, checksum, superframe) in [
            (header(0, 0, [0; 4]), None, None),
            (header(1, 0, [0, 0, 34, 16]), checksum(34, 16), None),
            (header(1, 1, [66, 10, 34, 16]), checksum(34, 16), of(Segments::Tcp4, 66, 10)),
            (header(1, 4, [200, 10, 54, 16]), checksum(54, 16), of(Segments::Tcp6, 200, 10)),
            (header(1, 5, [0, 10, 34, 6]), checksum(34, 6), of(Segments::Udp, 0, 10)),
        ] {
            let facts = parse(&bytes, &FRAME).unwrap();
            assert_eq!(facts, Facts { checksum, superframe, vlan: None });
            assert_eq!(write(&facts)[..SHORT], bytes);
            assert_eq!(parse(&write(&facts), &FRAME), Ok(facts));
        }
        let ecn = parse(&header(1, 0x81, [66, 10, 34, 16]), &FRAME).unwrap();
        assert_eq!(ecn.superframe, of(Segments::Tcp4, 66, 10), "also in the header of the segment");
        assert_eq!(parse(&header(2, 0, [0, 9, 9, 9]), &FRAME), Ok(Facts::default()));
    }

    #[test]
    fn invalid_vnet_header_is_refused() {
        let checksum = |start, offset| Refused::Checksum(Checksum { start, offset }, 200);
        for (flags, kind, numbers, refused) in [
            (4, 0, [0; 4], Refused::Flags(4)),
            (1, 3, [66, 10, 34, 16], Refused::Kind(3)),
            (1, 0x80, [66, 10, 34, 16], Refused::Kind(0x80)),
            (1, 0x85, [66, 10, 34, 6], Refused::Kind(0x85)),
            (1, 0x21, [66, 10, 34, 16], Refused::Kind(0x21)),
            (1, 1, [66, 0, 34, 16], Refused::SegmentSize(0)),
            (1, 1, [66, 65535, 34, 16], Refused::SegmentSize(65535)),
            (1, 1, [201, 10, 34, 16], Refused::HeaderLength(201, 200)),
            (1, 0, [0, 0, 200, 0], checksum(200, 0)),
            (1, 0, [0, 0, 183, 16], checksum(183, 16)),
            (1, 0, [0, 0, 65535, 65535], checksum(65535, 65535)),
            (1, 0, [0, 0, 13, 16], checksum(13, 16)),
            (1, 1, [66, 10, 181, 16], checksum(181, 16)),
            (1, 4, [66, 10, 34, 6], Refused::NotPartial(Segments::Tcp6)),
            (1, 5, [66, 10, 34, 16], Refused::NotPartial(Segments::Udp)),
        ] {
            assert_eq!(parse(&header(flags, kind, numbers), &FRAME), Err(refused), "{refused}");
        }
        for length in 0..SHORT {
            assert_eq!(parse(&[0; SHORT][..length], &FRAME), Err(Refused::NoHeader(length)));
        }
    }

    #[test]
    fn checksum_is_completed_in_place() {
        for (rest, expected) in [(&[1, 2, 3][..], [0xe9, 0xc9]), (&[0xed, 0xcb, 0, 0], [0xff, 0xff])] {
            let mut frame = [&[9; 14][..], &[0, 0, 0x12, 0x34], rest].concat();
            // The field contains 0x1234, the sum of a pseudo header.
            complete_checksum(&mut frame, Checksum { start: 14, offset: 2 }).unwrap();
            assert_eq!(frame, [&[9; 14][..], &[0, 0], &expected, rest].concat());
        }
        // SCTP chunk whose checksum field has any value. The expected sum is that of RFC 3720 over 32 zeros.
        let mut frame = [&[9; 14][..], &[0; 8], &[1, 2, 3, 4], &[0; 20]].concat();
        complete_checksum(&mut frame, Checksum { start: 14, offset: 8 }).unwrap();
        assert_eq!(frame, [&[9; 14][..], &[0; 8], &[0xaa, 0x36, 0x91, 0x8a], &[0; 20]].concat());
        // Too short for SCTP, so it is another protocol.
        let mut frame = [&[9; 14][..], &[0; 8], &[0x12, 0x34, 0]].concat();
        complete_checksum(&mut frame, Checksum { start: 14, offset: 8 }).unwrap();
        assert_eq!(frame[22..], [0xed, 0xcb, 0]);
        let mut frame = [7; 20];
        let outside = Checksum { start: 18, offset: 1 };
        assert_eq!(complete_checksum(&mut frame, outside), Err(Refused::Checksum(outside, 20)));
        assert_eq!(frame, [7; 20]);
    }
}
