//! Metadata that the kernel reports with received bytes: the segment size of a run of datagrams, the VLAN tag of a frame.

use privsep::ipc::{SharedPath, SharedPort};
use privsep::sys::worker::mmsg::VlanTag;

use crate::batch::{Batch, MAX_DATAGRAM};
use crate::frame::offload::superframe::Facts;
use crate::frame::{HEADER, offload, vlan};
use crate::port;
use crate::underlay::inlet;

/// Runs of datagrams (`UDP_GRO`): two bytes of length of each run, two of length of its datagrams. A run is kept whole and in
/// order, with no datagram over the limit, or dropped and counted.
pub fn runs(data: &[u8]) {
    let (mut batch, counters) = (Batch::for_runs(), SharedPath::default());
    let capacity = batch.capacity();
    let (lengths, _) = data.as_chunks::<4>();
    let runs: Vec<_> = lengths.iter().map(|[a, b, c, d]| [[*a, *b], [*c, *d]].map(u16::from_be_bytes)).collect();
    let runs: Vec<_> = runs.into_iter().map(|[length, each]| (usize::from(length).min(capacity), each)).collect();
    for (slot, (length, _)) in batch.slots().zip(&runs) {
        slot[..*length].iter_mut().zip(pattern()).for_each(|(to, byte)| *to = byte);
    }
    let slots = Batch::for_runs().slots().count();
    for (index, &(length, each)) in runs.iter().enumerate().take(slots) {
        // The receiver reports the whole length for a single datagram.
        let each = if each == 0 { length } else { usize::from(each) };
        let (before, dropped) = (batch.len(), dropped(&counters));
        inlet::accept(&mut batch, index, (length, each), None, &counters);
        let dropped = self::dropped(&counters) - dropped;
        let kept: Vec<_> = batch.frames(before).map(<[u8]>::to_vec).collect();
        if dropped > 0 {
            assert!(kept.is_empty() && dropped == length.div_ceil(each.max(1)).max(1) as u64);
            continue;
        }
        let (last, others) = kept.split_last().unwrap();
        assert!(others.iter().all(|datagram| datagram.len() == each) && last.len() <= each.min(MAX_DATAGRAM));
        assert!(kept.concat().into_iter().eq(pattern().take(length)));
    }
}

/// Bytes in which no two runs shorter than 256 bytes are equal.
fn pattern() -> impl Iterator<Item = u8> {
    (0..=255_u8).cycle()
}

fn dropped(counters: &SharedPath) -> u64 {
    let counted = counters.snapshot();
    counted.rx_dropped_oversize + counted.rx_dropped_invalid
}

/// Packet of a packet socket: a byte of flags (tag present, partial checksums allowed), a tag of four bytes, the `virtio_net_hdr`,
/// the frame. The packet is dropped and counted, or kept with the tag in its place.
pub fn tagged(data: &[u8]) {
    let Some(([choice, a, b, c, d], packet)) = data.split_first_chunk() else { return };
    let tag = VlanTag { tpid: u16::from_be_bytes([*a, *b]), tci: u16::from_be_bytes([*c, *d]) };
    let (tag, partial) = ((choice & 1 == 1).then_some(tag), choice & 2 == 2);
    let (mut batch, counters) = (Batch::for_superframes(), SharedPort::default());
    let packet = &packet[..packet.len().min(batch.capacity())];
    if let Some(slot) = batch.slots().next() {
        slot[..packet.len()].copy_from_slice(packet);
    }
    port::raw::accept(&mut batch, 0, packet.len(), tag, partial, &counters);
    let counted = counters.snapshot();
    let dropped = counted.rx_dropped_oversize + counted.rx_dropped_offload + counted.rx_dropped_short;
    assert_eq!(dropped == 0, batch.len() == 1);
    if dropped > 0 {
        return;
    }
    let (header, frame) = packet.split_at(offload::SHORT);
    let mut expected = frame.to_vec();
    if let Some(tag) = tag.filter(|_| frame.len() >= HEADER) {
        expected.splice(12..12, [tag.tpid.to_be_bytes(), tag.tci.to_be_bytes()].concat());
        assert_eq!(batch.frame(0).len(), frame.len() + vlan::TAG);
    }
    // Completing the checksum is the only change.
    if offload::parse(header, frame) == Ok(Facts::default()) {
        assert_eq!(batch.frame(0), expected);
    } else {
        assert_eq!((batch.frame(0).len(), &batch.frame(0)[..12]), (expected.len(), &expected[..12]));
    }
}
