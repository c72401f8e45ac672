//! Cuts a superframe into frames, as the kernel does it for an interface without offload (`net/ipv4/tcp_offload.c`,
//! `udp_offload.c`): nothing is allocated, and no payload copied.

use super::superframe::{Checksum, Facts, PACKETS, Refused, Segments, Superframe, TAGS, check};
use crate::frame::checksum::Sum;
use crate::frame::ethernet::{IPV4, IPV6, TPID_8021AD, TPID_8021Q, payload, word};
use crate::frame::ipv6;

/// Bytes of headers in a superframe at most: two tags, IPv6 with extension headers of 134 bytes, and TCP with all options.
pub const HEADERS: usize = 256;
/// Longest packet.
pub(super) const PACKET: usize = u16::MAX as usize;

/// Where in a TCP header the sequence number and the flags are.
pub(super) const SEQUENCE: usize = 4;
pub(super) const FLAGS: usize = 13;
const FIN: u8 = 0x01;
pub(super) const PSH: u8 = 0x08;
const CWR: u8 = 0x80;
/// The bit of an IPv4 header's fragment field that forbids fragments.
pub(super) const DF: u16 = 0x4000;

/// What is left of a superframe.
pub struct Segmenter<'a> {
    /// Those of the next frame, but for the fields of which each has its own.
    headers: [u8; HEADERS],
    length: usize,
    network: usize,
    transport: usize,
    kind: Segments,
    /// Identification of the next frame, in IPv4, and by how much it grows.
    id: u16,
    step: u16,
    /// Sequence number and flags of the next frame, in TCP.
    sequence: u32,
    flags: u8,
    /// The pseudo header without a length.
    pseudo: Sum,
    /// Payload of each frame but the last.
    segment: u16,
    /// Payload of all frames to come; `None` when there is none.
    rest: Option<&'a [u8]>,
    /// The checksum of each frame is left to be completed.
    partial: bool,
}

impl<'a> Segmenter<'a> {
    /// Begins to cut a frame of which the kernel says `facts`. Where the checksum is to be completed, its field holds the sum of a
    /// pseudo header with the length of the whole: when that is wrong, so is the checksum of every frame. Where it is not, an
    /// interface has put the frame together of such whose checksums were right.
    ///
    /// # Errors
    /// What is not understood, and so not cut.
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
            // The addresses, where no header behind them says others.
            (None, ipv6::HEADER) if headers[network] >> 4 == 6 => Sum::of(&headers[network + 8..transport]),
            (None, _) if headers[network] >> 4 == 4 => Sum::of(&headers[network + 12..network + 20]),
            (None, _) => return Err(Refused::NotTransport(kind)),
        };
        let pseudo = if facts.checksum.is_some() { pseudo } else { pseudo.plus(Sum::word(protocol.into())) };
        headers[at..at + 2].fill(0);
        let id = word(frame, network + 4).unwrap_or(0);
        // Zero where nobody may fragment is what a sender writes that does not count (RFC 6864). The kernel knows of such superframes
        // that they do not count (`SKB_GSO_TCP_FIXEDID`), but cannot say so.
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

    /// What is known of the superframe, the length of its headers exactly.
    pub fn facts(&self) -> Facts {
        let number = |at: usize| u16::try_from(at).unwrap_or(u16::MAX);
        let (_, _, offset) = self.kind.transport();
        Facts {
            checksum: Some(Checksum { start: number(self.transport), offset }),
            superframe: Some(Superframe { kind: self.kind, header: number(self.length), segment: self.segment }),
            vlan: None,
        }
    }

    /// From now on each frame has the sum of its pseudo header in the place of the checksum, which is still to be completed: what
    /// [`Segmenter::facts`] says of it is true of each.
    #[must_use]
    pub fn leave_partial(mut self) -> Self {
        self.partial = true;
        self
    }

    /// Bytes in the longest frame that is left.
    pub fn longest(&self) -> usize {
        self.length + usize::from(self.segment).min(self.rest.map_or(0, <[u8]>::len))
    }

    /// The next frame, as its headers and its payload.
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
            // The end is in the last, and an answer to congestion is given once.
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

/// A length that is known to fit.
pub(super) fn short(length: usize) -> [u8; 2] {
    u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes()
}

/// Sequence number of a TCP header.
pub(super) fn sequence(header: &[u8]) -> u32 {
    let bytes = header.get(SEQUENCE..).and_then(|rest| rest.first_chunk()).copied();
    bytes.map_or(0, u32::from_be_bytes)
}

/// Length of the header that `content` begins with; `None` when it is cut, or says another length than the content has.
pub(super) fn transport_header(content: &[u8], kind: Segments) -> Option<usize> {
    let (_, least, _) = kind.transport();
    let header = match kind {
        Segments::Udp if usize::from(word(content, 4)?) == content.len() => least,
        Segments::Udp => return None,
        Segments::Tcp4 | Segments::Tcp6 => usize::from(content.get(12)? >> 4) * 4,
    };
    (header >= least && header <= content.len()).then_some(header)
}

/// Where packet and transport header of a superframe are.
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

/// Length of an IPv4 header.
fn behind_v4(packet: &[u8], at: usize, kind: Segments) -> Result<usize, Refused> {
    let not = Refused::NotTransport(kind);
    let header = packet.first_chunk::<20>().ok_or(not)?;
    let length = usize::from(header[0] & 0x0f) * 4;
    if header[0] >> 4 != 4 || header[9] != kind.transport().0 {
        return Err(not);
    }
    // Zero is what the kernel writes when it does not fit.
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

/// Length of an IPv6 header and of the extension headers that each segment may repeat: hop-by-hop, routing, destination.
fn behind_v6(packet: &[u8], at: usize, kind: Segments) -> Result<usize, Refused> {
    let not = Refused::NotTransport(kind);
    let header = packet.first_chunk::<{ ipv6::HEADER }>().ok_or(not)?;
    if header[0] >> 4 != 6 {
        return Err(not);
    }
    // Zero is what the kernel writes when it does not fit.
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
