//! Segmentation of superframes, as the kernel does for an interface without offload (`net/ipv4/tcp_offload.c`, `udp_offload.c`). It
//! allocates nothing and copies no payload.

use super::superframe::{Checksum, Facts, PACKETS, Refused, Segments, Superframe, TAGS, check};
use crate::frame::checksum::Sum;
use crate::frame::ethernet::{IPV4, IPV6, TPID_8021AD, TPID_8021Q, payload, word};
use crate::frame::ipv6;

/// Most bytes of headers in a superframe: two tags, IPv6 with extension headers of 134 bytes, and TCP with all options.
pub const HEADERS: usize = 256;
/// Longest packet.
pub(super) const PACKET: usize = u16::MAX as usize;

/// Offsets of sequence number and flags in a TCP header.
pub(super) const SEQUENCE: usize = 4;
pub(super) const FLAGS: usize = 13;
const FIN: u8 = 0x01;
pub(super) const PSH: u8 = 0x08;
const CWR: u8 = 0x80;
/// DF bit in the fragment field of an IPv4 header.
pub(super) const DF: u16 = 0x4000;

/// Rest of a superframe that is being segmented.
pub struct Segmenter<'a> {
    /// Headers of the next frame, without the fields that differ between frames.
    headers: [u8; HEADERS],
    length: usize,
    network: usize,
    transport: usize,
    kind: Segments,
    /// Identification of the next frame in IPv4, and its increment.
    id: u16,
    step: u16,
    /// Sequence number and flags of the next frame in TCP.
    sequence: u32,
    flags: u8,
    /// Sum of the pseudo header without a length.
    pseudo: Sum,
    /// Payload bytes of each frame but the last.
    segment: u16,
    /// Payload of all remaining frames; `None` at the end.
    rest: Option<&'a [u8]>,
    /// Whether each frame keeps a partial checksum.
    partial: bool,
}

impl<'a> Segmenter<'a> {
    /// Begins the segmentation of a frame with these facts. A partial checksum holds the sum of a pseudo header with the total
    /// length. If that sum is wrong, so are the checksums of all frames. A superframe without a partial checksum was coalesced by
    /// an interface, which verified the checksums.
    ///
    /// # Errors
    /// Reason why the frame cannot be segmented.
    pub fn new(frame: &'a [u8], facts: &Facts) -> Result<Self, Refused> {
        check(facts, frame.len())?;
        let Some(superframe) = facts.superframe else { return Err(Refused::Kind(0)) };
        let kind = superframe.kind;
        let (network, transport) = locate(frame, kind)?;
        if facts.checksum.is_some_and(|checksum| transport != usize::from(checksum.start)) {
            return Err(Refused::NotTransport(kind));
        }
        let length = transport + transport_header(&frame[transport..], kind).ok_or(Refused::Length(transport))?;
        if length > HEADERS {
            return Err(Refused::LongHeaders(length));
        }
        let (first, rest) = frame.split_at(length);
        if length - network + usize::from(superframe.segment).min(rest.len()) > PACKET {
            return Err(Refused::SegmentSize(superframe.segment));
        }
        let packets = rest.len().div_ceil(superframe.segment.into());
        if packets > PACKETS {
            return Err(Refused::Packets(packets));
        }
        let mut headers = [0; HEADERS];
        headers[..length].copy_from_slice(first);
        let (protocol, _, offset) = kind.transport();
        let at = transport + usize::from(offset);
        let pseudo = match (facts.checksum, transport - network) {
            (Some(_), _) => Sum::of(&headers[at..at + 2]).minus(Sum::number(frame.len() - transport)),
            // The addresses, unless an extension header replaces them.
            (None, ipv6::HEADER) if headers[network] >> 4 == 6 => Sum::of(&headers[network + 8..transport]),
            (None, _) if headers[network] >> 4 == 4 => Sum::of(&headers[network + 12..network + 20]),
            (None, _) => return Err(Refused::NotTransport(kind)),
        };
        let pseudo = if facts.checksum.is_some() { pseudo } else { pseudo.plus(Sum::word(protocol.into())) };
        headers[at..at + 2].fill(0);
        let id = word(frame, network + 4).unwrap_or(0);
        // A sender that does not count identifications writes zero with DF (RFC 6864). The kernel knows such superframes
        // (`SKB_GSO_TCP_FIXEDID`) but cannot report them.
        let step = u16::from(id != 0 || word(frame, network + 6) != Some(DF));
        let sequence = sequence(&frame[transport..]);
        let flags = frame.get(transport + FLAGS).copied().unwrap_or(0);
        let (segment, rest) = (superframe.segment, Some(rest));
        Ok(Self {
            headers,
            length,
            network,
            transport,
            kind,
            id,
            step,
            sequence,
            flags,
            pseudo,
            segment,
            rest,
            partial: false,
        })
    }

    /// Facts of the superframe, with the exact length of its headers.
    pub fn facts(&self) -> Facts {
        let number = |at: usize| u16::try_from(at).unwrap_or(u16::MAX);
        let (_, _, offset) = self.kind.transport();
        Facts {
            checksum: Some(Checksum { start: number(self.transport), offset }),
            superframe: Some(Superframe { kind: self.kind, header: number(self.length), segment: self.segment }),
            vlan: None,
        }
    }

    /// Leaves partial checksums in the frames: the field has the sum of the frame's pseudo header, and [`Segmenter::facts`] holds
    /// for each frame.
    #[must_use]
    pub fn leave_partial(mut self) -> Self {
        self.partial = true;
        self
    }

    /// Length in bytes of the longest remaining frame.
    pub fn longest(&self) -> usize {
        self.length + usize::from(self.segment).min(self.rest.map_or(0, <[u8]>::len))
    }

    /// Next frame, as headers and payload.
    pub fn cut(&mut self) -> Option<(&[u8], &'a [u8])> {
        let rest = self.rest?;
        let (payload, rest) = rest.split_at(usize::from(self.segment).min(rest.len()));
        self.rest = Some(rest).filter(|rest| !rest.is_empty());
        self.write_network(payload.len());
        self.write_transport(payload);
        Some((&self.headers[..self.length], payload))
    }

    fn write_network(&mut self, payload: usize) {
        let packet = &mut self.headers[self.network..self.length];
        let length = packet.len() + payload;
        if packet[0] >> 4 == 4 {
            packet[2..4].copy_from_slice(&short(length));
            packet[4..6].copy_from_slice(&self.id.to_be_bytes());
            self.id = self.id.wrapping_add(self.step);
            packet[10..12].fill(0);
            let checksum = Sum::of(&packet[..self.transport - self.network]).checksum();
            packet[10..12].copy_from_slice(&checksum);
        } else {
            packet[4..6].copy_from_slice(&short(length - ipv6::HEADER));
        }
    }

    fn write_transport(&mut self, payload: &[u8]) {
        let header = &mut self.headers[self.transport..self.length];
        let length = header.len() + payload.len();
        let (_, _, offset) = self.kind.transport();
        let field = usize::from(offset)..usize::from(offset) + 2;
        header[field.clone()].fill(0);
        if self.kind == Segments::Udp {
            header[4..6].copy_from_slice(&short(length));
        } else {
            header[SEQUENCE..SEQUENCE + 4].copy_from_slice(&self.sequence.to_be_bytes());
            // FIN and PSH belong in the last frame, and CWR in the first.
            header[FLAGS] = if self.rest.is_some() { self.flags & !(FIN | PSH) } else { self.flags };
            self.flags &= !CWR;
            self.sequence = self.sequence.wrapping_add(u32::from(self.segment));
        }
        let pseudo = self.pseudo.plus(Sum::number(length));
        if self.partial {
            header[field].copy_from_slice(&pseudo.folded());
            return;
        }
        let sum = pseudo.plus(Sum::of(header)).plus(Sum::of(payload));
        let checksum = if self.kind == Segments::Udp { sum.nonzero_checksum() } else { sum.checksum() };
        header[field].copy_from_slice(&checksum);
    }
}

/// Encodes a length that is known to fit.
pub(super) fn short(length: usize) -> [u8; 2] {
    u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes()
}

/// Sequence number in a TCP header.
pub(super) fn sequence(header: &[u8]) -> u32 {
    let bytes = header.get(SEQUENCE..).and_then(|rest| rest.first_chunk()).copied();
    bytes.map_or(0, u32::from_be_bytes)
}

/// Length in bytes of the header at the start of `content`; `None` if it is truncated, or claims a length other than the content's.
pub(super) fn transport_header(content: &[u8], kind: Segments) -> Option<usize> {
    let (_, least, _) = kind.transport();
    let header = match kind {
        Segments::Udp if usize::from(word(content, 4)?) == content.len() => least,
        Segments::Udp => return None,
        Segments::Tcp4 | Segments::Tcp6 => usize::from(content.get(12)? >> 4) * 4,
    };
    (header >= least && header <= content.len()).then_some(header)
}

/// Offsets of packet and transport header in a superframe.
fn locate(frame: &[u8], kind: Segments) -> Result<(usize, usize), Refused> {
    let not = Refused::NotTransport(kind);
    let (ethertype, network) = payload(frame, TAGS, &[TPID_8021Q, TPID_8021AD]).ok_or(not)?;
    let packet = frame.get(network..).ok_or(not)?;
    let transport = match (ethertype, kind) {
        (IPV4, Segments::Tcp4 | Segments::Udp) => behind_v4(packet, network, kind)?,
        (IPV6, Segments::Tcp6 | Segments::Udp) => behind_v6(packet, network, kind)?,
        _ => return Err(not),
    };
    Ok((network, network + transport))
}

/// Length of an IPv4 header in bytes.
fn behind_v4(packet: &[u8], at: usize, kind: Segments) -> Result<usize, Refused> {
    let not = Refused::NotTransport(kind);
    let header = packet.first_chunk::<20>().ok_or(not)?;
    let length = usize::from(header[0] & 0x0f) * 4;
    if header[0] >> 4 != 4 || header[9] != kind.transport().0 {
        return Err(not);
    }
    // The kernel writes zero if the length does not fit.
    if length < 20 || length > packet.len() || ![0, packet.len()].contains(&total(header[2], header[3])) {
        return Err(Refused::Length(at));
    }
    if total(header[6], header[7]) & 0x3fff != 0 {
        return Err(Refused::Fragment);
    }
    Ok(length)
}

fn total(high: u8, low: u8) -> usize {
    usize::from(u16::from_be_bytes([high, low]))
}

/// Length in bytes of an IPv6 header and of the extension headers that each segment repeats: hop-by-hop, routing, destination.
fn behind_v6(packet: &[u8], at: usize, kind: Segments) -> Result<usize, Refused> {
    let not = Refused::NotTransport(kind);
    let header = packet.first_chunk::<{ ipv6::HEADER }>().ok_or(not)?;
    if header[0] >> 4 != 6 {
        return Err(not);
    }
    // The kernel writes zero if the length does not fit.
    let (said, length) = (total(header[4], header[5]), packet.len() - ipv6::HEADER);
    if said != length && (said != 0 || length <= PACKET) {
        return Err(Refused::Length(at));
    }
    let (mut next, mut length) = (header[6], ipv6::HEADER);
    while [0, 43, 60].contains(&next) {
        let &[following, words] = packet.get(length..).and_then(|rest| rest.first_chunk()).ok_or(not)?;
        (next, length) = (following, length + (usize::from(words) + 1) * 8);
    }
    match next {
        44 => Err(Refused::Fragment),
        next if next == kind.transport().0 => Ok(length),
        _ => Err(not),
    }
}
