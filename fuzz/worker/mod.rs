//! Fuzz targets of the worker, also called when seeds are replayed. Each takes any bytes and checks invariants.

#![allow(clippy::missing_panics_doc)] // A panic is the result of a fuzz target.

mod received;
mod secure;
mod session;

use std::net::SocketAddr;
use std::ops::Range;

use privsep::ipc::Cipher;

pub use received::{runs, tagged};
pub use secure::{content, message, pair, unpack};
pub use session::{SESSION_BYTES, session};

use crate::batch::{Batch, MAX_DATAGRAM, MAX_FRAME};
use crate::frame::checksum::Sum;
use crate::frame::ethernet::{self, IPV4, IPV6, TCP, TPID_8021AD, TPID_8021Q, UDP, word};
use crate::frame::offload::coalesce::Coalescer;
use crate::frame::offload::segment::Segmenter;
use crate::frame::offload::superframe::{Checksum, Facts};
use crate::frame::{ipv6, loops, mss, offload, udp, vlan};
use crate::wire::classic::codec::{Codec, Scratch, kind};
use crate::wire::classic::fragment::{self, Outcome, Reassembly, Splitter};

/// Decoding: the first byte selects cipher and compression, the rest is a datagram. An opened frame is never empty or longer than
/// [`MAX_FRAME`], and sealing and opening it again yields the same frame.
pub fn open(data: &[u8]) {
    const CIPHERS: [Cipher; 5] = [Cipher::None, Cipher::Xor, Cipher::Aes128, Cipher::Aes192, Cipher::Aes256];
    let Some((&choice, datagram)) = data.split_first() else { return };
    let cipher = CIPHERS[usize::from(choice >> 1) % CIPHERS.len()];
    let (codec, mut scratch) = (Codec::new(cipher, b"0123456789abcdef", choice & 1 == 1), Scratch::default());
    let datagram = &datagram[..datagram.len().min(MAX_DATAGRAM + 1)];
    let mut batch = Batch::with_slots(1);
    batch.append_copy(datagram);
    batch.filter_map(|_, buffer, length| codec.open(buffer, length, &mut scratch));
    if batch.is_empty() {
        return;
    }
    let frame = batch.frame(0).to_vec();
    assert!((1..=MAX_FRAME).contains(&frame.len()));
    kind(&frame);
    codec.seal(&mut batch, &mut scratch);
    batch.filter_map(|_, buffer, length| codec.open(buffer, length, &mut scratch));
    assert_eq!(batch.frame(0), frame);
}

/// Rules on one frame: the length never changes, a second MSS clamp changes nothing, a VLAN map and its inverse cancel out.
pub fn frame(data: &[u8]) {
    let mut frame = data[..data.len().min(MAX_FRAME)].to_vec();
    let peers: [SocketAddr; 2] = [([10, 9, 0, 2], 2).into(), ([1_u16; 8], 1).into()];
    assert!(!loops::is_datagram(&frame, &peers) || loops::is_own(&frame, &peers));
    assert!(udp::inner(&frame).is_none_or(|range| range.start <= range.end && range.end <= frame.len()));
    let length = frame.len();
    mss::clamp(&mut frame, (1360, 1340), None);
    let clamped = frame.clone();
    assert!(!mss::clamp(&mut frame, (1360, 1340), None) && frame == clamped && frame.len() == length);
    let swap = |from, to| vlan::Map::new([(from, to), (to, from)].into_iter());
    swap(100, 200).apply(&mut frame);
    swap(100, 200).apply(&mut frame);
    assert_eq!(frame, clamped);
}

/// Reassembly of a series of datagrams, each preceded by two bytes of length and one of time. Joined datagrams fit, and datagrams
/// split here are joined again.
pub fn fragment(mut data: &[u8]) {
    let (mut table, mut now) = (Reassembly::default(), 0);
    while let [high, low, time, rest @ ..] = data {
        let length = usize::from(u16::from_be_bytes([*high, *low]) % 1100).min(rest.len());
        let (piece, next) = rest.split_at(length);
        now += u64::from(*time) * 16;
        let mut buffer = [piece, &[0; fragment::TOO_LONG]].concat();
        if let Outcome::Joined(joined) = table.take(&mut buffer, length, now) {
            assert!(joined <= fragment::TOO_LONG);
        }
        if length > fragment::PIECE {
            let mut pieces = Vec::new();
            assert!(Splitter::new(40_000).split(piece, 1000, |half| {
                let mut to = vec![0; fragment::HEADER + 2 * fragment::PIECE];
                let length = fragment::write(&half, &mut to);
                pieces.push((to, length));
                true
            }));
            let Some((mut second, second_length)) = pieces.pop() else { unreachable!() };
            let Some((mut first, first_length)) = pieces.pop() else { unreachable!() };
            table.take(&mut second, second_length, now);
            assert_eq!(table.take(&mut first, first_length, now), Outcome::Joined(length));
            assert_eq!(&first[..length], piece);
        }
        data = next;
    }
}

/// Offload: a `virtio_net_hdr` and a frame; and the same bytes as a series of frames, each preceded by two bytes of length.
/// Segmentation and coalescing are inverse to each other.
pub fn offload(data: &[u8]) {
    if let Some((header, frame)) = data.split_first_chunk::<{ offload::LONG }>() {
        superframe(header, frame);
    }
    let (mut frames, mut rest) = (Vec::new(), data);
    while let [high, low, next @ ..] = rest {
        let length = u16::from_be_bytes([*high & 0x7f, *low]);
        let (frame, next) = next.split_at(usize::from(length).min(next.len()));
        let mut frame = frame.to_vec();
        if *high & 0x80 == 0 {
            repair(&mut frame);
        }
        frames.push(frame);
        rest = next;
    }
    coalesce(&frames);
}

/// Writes parsed facts back, completes the checksum, and segments the frame where it is a superframe.
fn superframe(header: &[u8], frame: &[u8]) {
    let Ok(facts) = offload::parse(header, frame) else { return };
    assert_eq!(offload::parse(&offload::write(&facts), frame), Ok(facts));
    if let Some(checksum) = facts.checksum {
        let mut complete = frame.to_vec();
        offload::complete_checksum(&mut complete, checksum).unwrap();
        assert_eq!(complete.len(), frame.len());
    }
    if let Ok(mut segmenter) = Segmenter::new(frame, &facts) {
        let (mut payloads, mut frames) = (Vec::new(), Vec::new());
        while let Some((headers, payload)) = segmenter.cut() {
            assert!(headers.len() + payloads.len() + payload.len() <= frame.len());
            payloads.extend_from_slice(payload);
            frames.push([headers, payload].concat());
        }
        assert!(frame.ends_with(&payloads) && !frames.is_empty());
        coalesce(&frames[..frames.len().min(200)]);
    }
}

/// Coalesces frames and returns the runs. Each frame is sent once and in order within its flow. Segmentation of a run yields the
/// same frames, except for an IPv4 identification without meaning.
pub fn coalesce(frames: &[Vec<u8>]) -> Vec<Vec<usize>> {
    coalesce_partial(frames, |_| None)
}

/// As [`coalesce`], with frames whose checksum is still partial.
pub fn coalesce_partial(frames: &[Vec<u8>], checksum: impl Fn(usize) -> Option<Checksum>) -> Vec<Vec<usize>> {
    let mut coalescer = Coalescer::new(true);
    coalescer.plan_partial(frames.len(), |index| &frames[index], &checksum);
    let (mut runs, mut sent) = (Vec::new(), vec![false; frames.len()]);
    for planned in coalescer.planned() {
        let run: Vec<usize> = planned.parts().map(|(index, _)| index).collect();
        assert_eq!(run.len(), planned.count());
        let mut whole = planned.headers().to_vec();
        planned.parts().for_each(|(index, from)| whole.extend_from_slice(&frames[index][from..]));
        if run.len() == 1 {
            let facts = Facts { checksum: checksum(run[0]), ..Facts::default() };
            assert!(whole == frames[run[0]] && planned.facts() == facts);
        } else {
            let facts = planned.facts();
            assert_eq!(offload::parse(&offload::write(&facts), &whole), Ok(facts));
            let mut segmenter = Segmenter::new(&whole, &facts).unwrap();
            if let Some(checksum) = checksum(run[0]) {
                assert_eq!(facts.checksum, Some(checksum));
                segmenter = segmenter.leave_partial();
            }
            for &index in &run {
                assert_eq!(checksum(index).is_some(), checksum(run[0]).is_some());
                let (headers, payload) = segmenter.cut().unwrap();
                assert!(is_same(&[headers, payload].concat(), &frames[index]), "{index} of {run:?}");
            }
            assert!(segmenter.cut().is_none());
        }
        for &index in &run {
            assert!(!std::mem::replace(&mut sent[index], true));
            let flow = flow(&frames[index]);
            let earlier = |&earlier: &usize| !sent[earlier] && self::flow(&frames[earlier]) == flow;
            assert!(flow.is_none() || !(0..index).any(|index| earlier(&index)), "{index} overtakes in {run:?}");
        }
        runs.push(run);
    }
    assert!(sent.iter().all(|&sent| sent));
    runs
}

/// Whether two frames are equal to a receiver: the identification of IPv4 with DF is ignored.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    let without_id = |frame: &[u8]| {
        let mut frame = frame.to_vec();
        if let Some((IPV4, at)) = ethernet::payload(&frame, 8, &[TPID_8021Q, TPID_8021AD])
            && frame[at + 6..at + 8] == [0x40, 0]
        {
            assert!(Sum::of(&frame[at..at + 20]).is_right());
            frame[at + 4..at + 6].fill(0);
            frame[at + 10..at + 12].fill(0);
        }
        frame
    };
    one == other || without_id(one) == without_id(other)
}

/// Offset of the packet, range of the addresses, offset of the TCP or UDP header, and protocol.
fn transport(frame: &[u8]) -> Option<(usize, Range<usize>, usize, u8)> {
    const OFFSET: u16 = 0x1fff;
    let (kind, at) = ethernet::payload(frame, 8, &[TPID_8021Q, TPID_8021AD])?;
    let packet = frame.get(at..)?;
    let (protocol, behind, addresses) = match kind {
        IPV4 if packet.first()? >> 4 == 4 && word(packet, 6)? & OFFSET == 0 => {
            (*packet.get(9)?, usize::from(packet[0] % 16) * 4, at + 12..at + 20)
        }
        IPV6 => {
            let content = ipv6::content(packet).filter(|content| content.first)?;
            (content.protocol, content.at, at + 8..at + 40)
        }
        _ => return None,
    };
    let right = [TCP, UDP].contains(&protocol) && behind >= 20 && packet.len() >= behind + 8;
    right.then_some((at, addresses, at + behind, protocol))
}

/// Flow of a frame: tags, protocol, addresses and ports.
fn flow(frame: &[u8]) -> Option<Vec<u8>> {
    let (packet, addresses, at, protocol) = transport(frame)?;
    Some([&frame[12..packet], &[protocol], &frame[addresses], &frame[at..at + 4]].concat())
}

/// Corrects the checksums of a frame, so that it can be coalesced.
fn repair(frame: &mut [u8]) {
    let Some((packet, addresses, at, protocol)) = transport(frame) else { return };
    let field = at + if protocol == TCP { 16 } else { 6 };
    if frame.len() < field + 2 {
        return;
    }
    if frame[packet] >> 4 == 4 {
        frame[packet + 10..packet + 12].fill(0);
        let checksum = Sum::of(&frame[packet..at]).checksum();
        frame[packet + 10..packet + 12].copy_from_slice(&checksum);
    }
    frame[field..field + 2].fill(0);
    let pseudo = Sum::of(&frame[addresses]).plus(Sum::word(protocol.into())).plus(Sum::number(frame.len() - at));
    let checksum = pseudo.plus(Sum::of(&frame[at..])).nonzero_checksum();
    frame[field..field + 2].copy_from_slice(&checksum);
}
