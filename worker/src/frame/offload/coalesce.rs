//! Coalescing of frames into superframes, as the kernel does for a real interface (`net/core/gro.c`). A superframe is made only if
//! segmentation gives the same frames. Only headers are copied: a superframe is a plan of which frames follow each other, and the
//! frames stay unchanged, so that they can still be sent singly.

use super::segment::{DF, FLAGS, PACKET, PSH, sequence, short, transport_header};
use super::superframe::{Checksum, Facts, Segments, Superframe, TAGS};
use crate::frame::checksum::Sum;
use crate::frame::ethernet::{IPV4, IPV6, TCP, TPID_8021AD, TPID_8021Q, UDP, payload, word};
use crate::frame::ipv6;

/// Most flows in which a superframe can grow at a time.
const FLOWS: usize = 8;
/// Most frames in a superframe.
pub const FRAMES: usize = 128;
/// Most datagrams in a superframe of UDP: the limit of every kernel (`UDP_MAX_SEGMENTS`).
const DATAGRAMS: usize = 64;
/// Most bytes of headers: two tags, IPv6, TCP with all options.
const HEADERS: usize = 14 + 2 * 4 + ipv6::HEADER + 60;
const ACK: u8 = 0x10;

/// Positions of the headers of a frame of a flow.
#[derive(Debug, Clone, Copy)]
struct Shape {
    kind: Segments,
    network: usize,
    transport: usize,
    payload: usize,
    /// Whether its checksum is partial.
    partial: bool,
    /// Whether it can be part of a superframe.
    fit: bool,
}

/// Relation of a frame to the flows.
enum Sight {
    /// It belongs to no flow.
    Other,
    /// It may belong to any flow, as a fragment may.
    Unclear,
    /// It belongs to one flow.
    Flow(Shape),
}

/// Frames sent as one superframe, or a single frame sent unchanged.
#[derive(Debug)]
struct Run {
    first: usize,
    last: usize,
    count: usize,
    /// Payload bytes in all frames.
    length: usize,
    /// Whether the first frame's checksums were verified.
    checked: bool,
    /// Increment of the identification from frame to frame, once there are two.
    step: usize,
    facts: Facts,
    headers: [u8; HEADERS],
}

/// Planner of superframes, which reuses its memory for each batch.
#[derive(Debug, Default)]
pub struct Coalescer {
    udp: bool,
    runs: Vec<Run>,
    /// For each frame, the next one in its run.
    next: Vec<usize>,
    /// Runs that may grow, the oldest first, with the shape of their frames.
    open: Vec<(usize, Shape)>,
}

/// One frame to send, in parts.
#[derive(Debug, Clone, Copy)]
pub struct Planned<'a> {
    run: &'a Run,
    next: &'a [usize],
}

impl<'a> Planned<'a> {
    /// Facts for the kernel.
    pub fn facts(&self) -> Facts {
        self.run.facts
    }

    /// Number of frames in it.
    pub fn count(&self) -> usize {
        self.run.count
    }

    /// First part: the headers of a superframe; empty for a single frame.
    pub fn headers(&self) -> &'a [u8] {
        let length = self.run.facts.superframe.map_or(0, |superframe| superframe.header);
        &self.run.headers[..usize::from(length)]
    }

    /// Further parts: index of a frame, and offset from which its bytes are included.
    pub fn parts(&self) -> impl Iterator<Item = (usize, usize)> + use<'a> {
        let (next, from) = (self.next, self.headers().len());
        let following = std::iter::successors(Some(self.run.first), |&index| next.get(index).copied());
        following.take(self.run.count).map(move |index| (index, from))
    }
}

impl Coalescer {
    /// `udp` tells whether the kernel takes superframes of UDP (`TUN_F_USO4` and `TUN_F_USO6`).
    pub fn new(udp: bool) -> Self {
        Self { udp, ..Self::default() }
    }

    /// Reserves memory for plans of this many frames, so that planning never allocates.
    #[must_use]
    pub fn with_room(mut self, frames: usize) -> Self {
        self.runs.reserve_exact(frames);
        self.next.reserve_exact(frames);
        self.open.reserve_exact(FLOWS);
        self
    }

    /// Enables or disables superframes of UDP from the next plan on.
    pub fn make_udp(&mut self, udp: bool) {
        self.udp = udp;
    }

    /// Plans how to send `count` frames. The frames of one flow stay in order.
    pub fn plan<'a>(&mut self, count: usize, frame: impl Fn(usize) -> &'a [u8]) {
        self.plan_partial(count, frame, |_| None);
    }

    /// As [`Coalescer::plan`], with the partial checksum of each frame. Frames with partial checksums are coalesced only with each
    /// other, and their payload is not summed.
    pub fn plan_partial<'a>(
        &mut self,
        count: usize,
        frame: impl Fn(usize) -> &'a [u8],
        checksum: impl Fn(usize) -> Option<Checksum>,
    ) {
        self.runs.clear();
        self.open.clear();
        self.next.clear();
        self.next.resize(count, 0);
        for index in 0..count {
            let checksum = checksum(index);
            match look(frame(index), checksum) {
                Sight::Other => self.push(index, 0, checksum),
                Sight::Unclear => {
                    self.open.clear();
                    self.push(index, 0, checksum);
                }
                Sight::Flow(shape) => self.take(index, shape, checksum, &frame),
            }
        }
        for run in self.runs.iter_mut().filter(|run| run.count > 1) {
            if let Sight::Flow(shape) = look(frame(run.first), checksum(run.first)) {
                run.finish(frame(run.first), frame(run.last), &shape);
            }
        }
    }

    /// Planned frame with this number.
    ///
    /// # Panics
    /// Panics if there are too few.
    pub fn get(&self, number: usize) -> Planned<'_> {
        Planned { run: &self.runs[number], next: &self.next }
    }

    /// Planned frames in sending order.
    pub fn planned(&self) -> impl Iterator<Item = Planned<'_>> {
        self.runs.iter().map(|run| Planned { run, next: &self.next })
    }

    fn push(&mut self, index: usize, length: usize, checksum: Option<Checksum>) {
        let facts = Facts { checksum, ..Facts::default() };
        let headers = [0; HEADERS];
        self.runs.push(Run { first: index, last: index, count: 1, length, checked: false, step: 0, facts, headers });
    }

    /// Appends a frame of a flow to the flow's run, or ends the run.
    fn take<'a>(&mut self, index: usize, shape: Shape, checksum: Option<Checksum>, frame: &impl Fn(usize) -> &'a [u8]) {
        let bytes = frame(index);
        let of_flow =
            |&(run, ref open): &(usize, Shape)| same_flow((frame(self.runs[run].first), open), (bytes, &shape));
        if let Some(at) = self.open.iter().position(of_flow) {
            let (run, open) = self.open[at];
            let run = &mut self.runs[run];
            let first = frame(run.first);
            let goes_on = shape.fit && run.goes_on((first, &open), (bytes, &shape));
            if goes_on {
                self.next[run.last] = index;
                run.last = index;
                run.count += 1;
                run.length += bytes.len() - shape.payload;
            }
            if !goes_on || bytes.len() < first.len() || pushes(bytes, &shape) {
                self.open.remove(at);
            }
            if goes_on {
                return;
            }
        }
        if shape.fit && !pushes(bytes, &shape) && (self.udp || shape.kind != Segments::Udp) {
            if self.open.len() == FLOWS {
                self.open.remove(0);
            }
            self.open.push((self.runs.len(), shape));
        }
        self.push(index, bytes.len() - shape.payload, checksum);
    }
}

impl Run {
    /// Whether segmentation of this run, which begins with `first`, would yield `frame` next.
    fn goes_on(&mut self, first: (&[u8], &Shape), frame: (&[u8], &Shape)) -> bool {
        let (length, shape) = (frame.0.len() - frame.1.payload, frame.1);
        let most = if shape.kind == Segments::Udp { DATAGRAMS } else { FRAMES };
        let fits = self.count < most
            && frame.0.len() <= first.0.len()
            && shape.payload - shape.network + self.length + length <= PACKET;
        if !fits
            || first.1.payload != shape.payload
            || first.1.partial != shape.partial
            || first.0[..12] != frame.0[..12]
        {
            return false;
        }
        let header = |bytes: &'_ [u8]| -> Option<[u8; 20]> { bytes[shape.network..].first_chunk().copied() };
        let (Some(old), Some(new)) = (header(first.0), header(frame.0)) else { return false };
        let same_network = if old[0] >> 4 == 4 {
            // Type of service, fragment field, time to live.
            old[1] == new[1] && old[6..9] == new[6..9] && self.counts_on(&old, &new)
        } else {
            old[..4] == new[..4] && old[7] == new[7]
        };
        let (old, new) = (&first.0[shape.transport..shape.payload], &frame.0[shape.transport..shape.payload]);
        let same_transport = shape.kind == Segments::Udp || {
            let expected = sequence(old).wrapping_add(u32::try_from(self.length).unwrap_or(u32::MAX));
            // Acknowledgement and length, window, urgent pointer and options.
            let same = |from: usize, to: usize| old[from..to] == new[from..to];
            sequence(new) == expected && same(8, FLAGS) && same(14, 16) && same(18, old.len())
        };
        // A superframe would turn a wrong checksum into a right one.
        let mut right = || {
            self.checked = self.checked || is_right(first.0, first.1);
            self.checked && is_right(frame.0, shape)
        };
        same_network && same_transport && right()
    }

    /// Whether the identification of IPv4 continues: by one, as the kernel counts; or constant with DF, where the identification
    /// means nothing (RFC 6864).
    fn counts_on(&mut self, first: &[u8; 20], new: &[u8; 20]) -> bool {
        let id = |header: &[u8; 20]| u16::from_be_bytes([header[4], header[5]]);
        let grown = usize::from(id(new).wrapping_sub(id(first)));
        if self.count == 1 {
            self.step = usize::from(grown != 0);
        }
        grown == self.step * self.count && (self.step != 0 || u16::from_be_bytes([first[6], first[7]]) == DF)
    }

    /// Writes headers and facts of the superframe: the headers of the first frame with the total lengths, and the TCP flags of the
    /// last frame.
    fn finish(&mut self, first: &[u8], last: &[u8], shape: &Shape) {
        let (network, transport, payload) = (shape.network, shape.transport, shape.payload);
        self.headers[..payload].copy_from_slice(&first[..payload]);
        let (header, content) = self.headers[network..payload].split_at_mut(transport - network);
        let length = content.len() + self.length;
        if header[0] >> 4 == 4 {
            let total = header.len() + length;
            header[2..4].copy_from_slice(&short(total));
            header[10..12].fill(0);
            let checksum = Sum::of(header).checksum();
            header[10..12].copy_from_slice(&checksum);
        } else {
            header[4..6].copy_from_slice(&short(length));
        }
        match shape.kind {
            Segments::Udp => content[4..6].copy_from_slice(&short(length)),
            Segments::Tcp4 | Segments::Tcp6 => content[FLAGS] = last[transport + FLAGS],
        }
        let (_, _, offset) = shape.kind.transport();
        content[usize::from(offset)..][..2].copy_from_slice(&pseudo_header(first, shape, length).folded());
        let number = |at: usize| u16::try_from(at).unwrap_or(u16::MAX);
        let segment = number(first.len() - payload);
        self.facts.checksum = Some(Checksum { start: number(transport), offset });
        self.facts.superframe = Some(Superframe { kind: shape.kind, header: number(payload), segment });
    }
}

/// Classifies a frame by its headers and by its partial checksum.
fn look(frame: &[u8], checksum: Option<Checksum>) -> Sight {
    let Some((ethertype, network)) = payload(frame, TAGS, &[TPID_8021Q, TPID_8021AD]) else { return Sight::Other };
    let Some(packet) = frame.get(network..) else { return Sight::Other };
    // Protocol, length of the header and of the packet, and whether there are no options and no fragment.
    let (protocol, header, total, plain) = match (ethertype, packet) {
        (IPV4, [first, _, high, low, _, _, _, _, _, protocol, ..]) => {
            let plain = *first == 0x45 && word(packet, 6).is_some_and(|fragment| fragment & !DF == 0);
            (*protocol, 20, usize::from(u16::from_be_bytes([*high, *low])), plain)
        }
        (IPV6, [first, _, _, _, high, low, next, ..]) => {
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            (*next, ipv6::HEADER, ipv6::HEADER + length, first >> 4 == 6)
        }
        _ => return Sight::Other,
    };
    let kind = match (protocol, ethertype) {
        (TCP, IPV4) => Segments::Tcp4,
        (TCP, _) => Segments::Tcp6,
        (UDP, _) => Segments::Udp,
        // Extension headers, after which any protocol may follow.
        (0 | 43 | 44 | 51 | 60, IPV6) => return Sight::Unclear,
        _ => return Sight::Other,
    };
    let content = packet.get(header..total).filter(|_| plain);
    let Some((content, length)) = content.and_then(|content| Some((content, transport_header(content, kind)?))) else {
        return Sight::Unclear;
    };
    let transport = network + header;
    let payload = transport + length;
    // No padding, some payload, and a header that segmentation would reproduce.
    let whole = total == packet.len() && length < content.len() && payload <= HEADERS;
    let ((_, _, offset), partial) = (kind.transport(), checksum.is_some());
    let own = |checksum: Checksum| usize::from(checksum.start) == transport && checksum.offset == offset;
    let usual = checksum.is_none_or(own)
        && match kind {
            Segments::Udp => word(content, 6) != Some(0),
            Segments::Tcp4 | Segments::Tcp6 => {
                content[12] % 16 == 0
                    && content[FLAGS] & !PSH == ACK
                    && (partial || word(content, 16) != Some(u16::MAX))
            }
        };
    let fit = whole && usual && (ethertype == IPV6 || word(packet, 10) != Some(u16::MAX));
    Sight::Flow(Shape { kind, network, transport, payload, partial, fit })
}

/// Whether two frames have the same tags, protocol, addresses and ports.
fn same_flow((one, a): (&[u8], &Shape), (other, b): (&[u8], &Shape)) -> bool {
    let same = |from: usize, to: usize| one[from..to] == other[from..to];
    // Addresses and ports are adjacent.
    let addresses = if a.transport - a.network == ipv6::HEADER { 32 } else { 8 };
    let alike = a.kind == b.kind && a.network == b.network && a.transport == b.transport;
    alike && same(a.transport - addresses, a.transport + 4) && same(12, a.network)
}

/// Whether this is the last frame of a run.
fn pushes(frame: &[u8], shape: &Shape) -> bool {
    shape.kind != Segments::Udp && frame[shape.transport + FLAGS] & PSH != 0
}

/// Sum of a pseudo header.
fn pseudo_header(frame: &[u8], shape: &Shape, length: usize) -> Sum {
    let addresses = if shape.transport - shape.network == ipv6::HEADER { 32 } else { 8 };
    let addresses = Sum::of(&frame[shape.transport - addresses..shape.transport]);
    addresses.plus(Sum::word(shape.kind.transport().0.into())).plus(Sum::number(length))
}

/// Whether an unpadded frame has right checksums, or for a partial checksum the right sum of its pseudo header.
fn is_right(frame: &[u8], shape: &Shape) -> bool {
    let (header, content) = frame[shape.network..].split_at(shape.transport - shape.network);
    let pseudo = pseudo_header(frame, shape, content.len());
    let (_, _, offset) = shape.kind.transport();
    let right = if shape.partial {
        content[usize::from(offset)..][..2] == pseudo.folded()
    } else {
        pseudo.plus(Sum::of(content)).is_right()
    };
    right && (header.len() == ipv6::HEADER || Sum::of(header).is_right())
}
