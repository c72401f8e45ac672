//! Batches of frames or datagrams, in memory allocated once.

mod collector;
mod span;

use std::ops::Range;
use std::slice::SliceIndex;

use privsep::ipc::Secure;

use crate::endpoint::Endpoint;
use crate::frame::offload::superframe::Facts;
use collector::RUNS;
pub use collector::{Collector, MAX_EXPANDED, RUN};
pub use span::Span;

/// Most frames in one batch.
pub const BATCH: usize = 64;
pub use privsep::ipc::MAX_FRAME;
/// Largest UDP payload in bytes that can hold such a frame, on either wire.
pub const MAX_DATAGRAM: usize = Secure::LONGEST as usize;

/// Bytes kept free before a received frame.
const HEADROOM: usize = 64;
/// Bytes kept free after a packed frame: padding of a cipher, trailer of the compression.
const TAILROOM: usize = 64;
/// Most superframes read at a time.
const SUPERFRAMES: usize = 4;
/// Most packets segmented and sent at a time: those of several superframes, so that a message need not end with a superframe.
pub const PACKETS: usize = SUPERFRAMES * BATCH;
/// Most bytes in a superframe or a run of datagrams: a packet of 65,535 bytes, and its Ethernet header with tags.
const MAX_RUN: usize = 65_536 + 64;
/// Most bytes in a superframe of a packet socket: "BIG TCP" usually allows 192 KiB; the kernel's limit is 512 KiB.
const MAX_LARGE: usize = 3 * 65_536 + 64;
/// Bytes that one slot can receive: more than any limit, so that an oversized frame is recognised.
const CAPACITY: usize = 9408;

/// Batch of frames or datagrams, in memory that is allocated once. Each frame has room before and behind it, so that tags, padding
/// and ciphertext grow in place. A loop owns its batches and reuses them; [`clear`](Self::clear) removes the frames.
///
/// The constructors differ in the number and size of slots: [`with_room`](Self::with_room) takes both.
///
/// Frames come into a batch in one of three ways:
///
/// - *Received at once*: [`slots`](Self::slots) clears the batch and gives out all slots. After the system call,
///   [`push`](Self::push) or [`push_run`](Self::push_run) takes each slot that was filled, in order. A run of datagrams in one slot
///   becomes many frames, each with the room it has.
/// - *Received one by one*: [`next_slot`](Self::next_slot) gives out one slot and [`pack`](Self::pack) takes it. The next slot begins
///   behind the frame, so that short frames take little memory.
/// - *Copied or written*: [`pack_copy`](Self::pack_copy), and [`append`](Self::append) or [`append_copy`](Self::append_copy), which
///   use a whole slot each. [`is_full`](Self::is_full) tells when to stop.
///
/// Then each frame is known by its number: [`frame`](Self::frame) and [`frames`](Self::frames) return bytes, [`span`](Self::span) the
/// rest. [`set_facts`](Self::set_facts), [`set_alone`](Self::set_alone), [`set_path`](Self::set_path),
/// [`set_class`](Self::set_class) and [`set_origin`](Self::set_origin) change the rest.
/// [`grow_front`](Self::grow_front), [`trim_front`](Self::trim_front), [`grow_back`](Self::grow_back) and
/// [`truncate`](Self::truncate) change the length in place.
///
/// Numbers change by the methods that work on all frames: [`filter_map`](Self::filter_map) and [`retain`](Self::retain) drop frames,
/// [`join`](Self::join) makes one of several, [`sort_by_path`](Self::sort_by_path) changes their order, and [`expand`](Self::expand) replaces datagrams by the frames in them.
pub struct Batch {
    memory: Box<[u8]>,
    /// Distance between slots in bytes.
    slot: usize,
    /// Number of slots given out to receive into.
    given: usize,
    /// Bytes of the memory in use.
    filled: usize,
    spans: Vec<Span>,
    /// Memory for the spans of [`Batch::expand`].
    expanded: Vec<Span>,
}

impl Default for Batch {
    fn default() -> Self {
        Self::with_slots(BATCH)
    }
}

impl Batch {
    /// Most bytes of memory that a packed frame takes in addition to its own.
    pub const PACKED: usize = HEADROOM + TAILROOM + 64;

    /// Makes an empty batch of up to `slots` frames.
    pub fn with_slots(slots: usize) -> Self {
        Self::with_room(slots, CAPACITY)
    }

    /// Makes an empty batch for received runs of datagrams.
    pub fn for_runs() -> Self {
        // One more slot, for reassembled frames.
        let mut batch = Self::with_room(RUNS + 1, MAX_RUN);
        batch.given = RUNS;
        batch
    }

    /// Makes an empty batch for received datagrams, each of which may contain many frames. `runs` tells whether datagrams arrive in
    /// runs.
    pub fn for_datagrams(runs: bool) -> Self {
        let (mut batch, frames) = if runs { (Self::for_runs(), MAX_EXPANDED) } else { (Self::default(), BATCH) };
        batch.spans.reserve_exact(frames);
        batch.expanded.reserve_exact(frames);
        batch
    }

    /// Makes an empty batch for received frames, any of which may be a large superframe.
    pub fn for_large_superframes() -> Self {
        Self::with_room(RUNS, MAX_LARGE)
    }

    /// Makes an empty batch for frames that are read, with memory for a few superframes.
    pub fn for_superframes() -> Self {
        Self::with_room(SUPERFRAMES, MAX_RUN)
    }

    /// Makes an empty batch for up to [`PACKETS`] packed packets.
    pub fn for_packets() -> Self {
        let mut batch = Self::default();
        batch.spans.reserve_exact(PACKETS);
        batch
    }

    /// Makes an empty batch for up to `packets` packed packets, in memory for `slots` slots of `capacity` bytes.
    pub fn to_pack(slots: usize, capacity: usize, packets: usize) -> Self {
        let mut batch = Self::with_room(slots, capacity);
        batch.spans.reserve_exact(packets);
        batch
    }

    /// Makes an empty batch of `slots` slots that can receive `capacity` bytes each.
    pub fn with_room(slots: usize, capacity: usize) -> Self {
        let slot = HEADROOM + capacity;
        let slot = slot.next_multiple_of(64);
        let (memory, spans) = (vec![0; slots * slot].into(), Vec::with_capacity(slots.max(BATCH)));
        Self { memory, slot, given: slots, filled: 0, spans, expanded: Vec::new() }
    }

    /// Bytes that a slot can receive.
    pub fn capacity(&self) -> usize {
        self.slot - HEADROOM
    }

    /// Clears the batch and gives out every slot to receive into.
    pub fn slots(&mut self) -> impl Iterator<Item = &mut [u8]> {
        self.clear();
        self.memory.chunks_exact_mut(self.slot).take(self.given).map(|slot| &mut slot[HEADROOM..])
    }

    /// Takes a frame of `length` bytes that was received into slot `index`.
    ///
    /// # Panics
    /// Panics if the slot does not exist or is shorter than `length`.
    pub fn push(&mut self, index: usize, length: usize) -> &mut Span {
        self.push_run(index, length, length, None);
        let last = self.spans.len() - 1;
        &mut self.spans[last]
    }

    /// Takes `length` bytes that were received into slot `index`, as frames of `each` bytes and a last one that may be shorter.
    /// Only the last frame has room behind it. An empty run is one empty frame. All frames have this `origin`.
    ///
    /// # Panics
    /// Panics if the slot does not exist or is shorter than `length`.
    pub fn push_run(&mut self, index: usize, length: usize, each: usize, origin: Option<Endpoint>) {
        assert!(HEADROOM + length <= self.slot && (index + 1) * self.slot <= self.memory.len());
        let (slot, first) = (index * self.slot, index * self.slot + HEADROOM);
        let (end, each) = (first + length, each.max(1));
        let mut start = first;
        loop {
            let next = end.min(start + each);
            let last = next == end;
            let room = if start == first { slot } else { start }..if last { slot + self.slot } else { next };
            let (length, facts) = (next - start, Facts::default());
            self.spans.push(Span { start, length, room, origin, facts, alone: false, path: 0, class: 0 });
            if last {
                break;
            }
            start = next;
        }
        self.filled = self.filled.max((index + 1) * self.slot);
    }

    /// Whether one of the frames is a superframe.
    pub fn has_superframe(&self) -> bool {
        self.spans.iter().any(|span| span.facts.superframe.is_some())
    }

    /// Number of frames.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether the batch has no frames.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Whether there is no slot left, or no span.
    pub fn is_full(&self) -> bool {
        self.memory.len() - self.filled < self.slot || self.spans.len() == self.spans.capacity()
    }

    /// Bytes of frame `index`.
    pub fn frame(&self, index: usize) -> &[u8] {
        &self.memory[self.spans[index].range()]
    }

    /// Bytes of frame `index`, mutable.
    pub fn frame_mut(&mut self, index: usize) -> &mut [u8] {
        &mut self.memory[self.spans[index].range()]
    }

    /// Span of frame `index`.
    pub fn span(&self, index: usize) -> &Span {
        &self.spans[index]
    }

    /// Sets the sender of frame `index`.
    pub fn set_origin(&mut self, index: usize, origin: impl Into<Endpoint>) {
        self.spans[index].origin = Some(origin.into());
    }

    /// Bytes of all frames from `first` on.
    pub fn frames(&self, first: usize) -> impl Iterator<Item = &[u8]> {
        self.spans[first..].iter().map(|span| &self.memory[span.range()])
    }

    /// Number of packets of all frames on the wire, and number of their bytes.
    pub fn packets(&self) -> (u64, u64) {
        self.spans.iter().map(Span::packets).fold((0, 0), |sum, each| (sum.0 + each.0, sum.1 + each.1))
    }

    /// Number of bytes in all frames.
    pub fn bytes(&self) -> u64 {
        self.spans.iter().map(|span| span.length as u64).sum()
    }

    /// Adds `count` bytes before frame `index` and returns the longer frame. The facts about its headers move with the headers.
    ///
    /// # Panics
    /// Panics if there is not enough headroom.
    pub fn grow_front(&mut self, index: usize, count: usize) -> &mut [u8] {
        let span = &mut self.spans[index];
        assert!(span.start - span.room.start >= count);
        span.start -= count;
        span.length += count;
        span.facts.move_back(count);
        self.frame_mut(index)
    }

    /// Removes up to `count` bytes from the front of frame `index`.
    pub fn trim_front(&mut self, index: usize, count: usize) {
        let span = &mut self.spans[index];
        let count = count.min(span.length);
        (span.start, span.length) = (span.start + count, span.length - count);
    }

    /// Extends frame `index` by `count` bytes of any value, at most to the end of its room, and returns the frame.
    pub fn grow_back(&mut self, index: usize, count: usize) -> &mut [u8] {
        let span = &mut self.spans[index];
        span.length = (span.length + count).min(span.room.end - span.start);
        self.frame_mut(index)
    }

    /// Truncates frame `index` to `length` bytes. A shorter frame stays as it is.
    pub fn truncate(&mut self, index: usize, length: usize) {
        let span = &mut self.spans[index];
        span.length = span.length.min(length);
    }

    /// Keeps the frames for which `keep` returns a new length, in order. The arguments of `keep` are the origin of the frame, its
    /// memory from its start to the end of its room, and its length.
    pub fn filter_map(&mut self, mut keep: impl FnMut(Option<Endpoint>, &mut [u8], usize) -> Option<usize>) {
        let memory = &mut self.memory;
        self.spans.retain_mut(|span| {
            let room = span.start..span.room.end;
            let most = room.len();
            let length = keep(span.origin, &mut memory[room], span.length);
            span.length = length.unwrap_or(0).min(most);
            length.is_some()
        });
    }

    /// Keeps the frames for which `keep` returns true, in order.
    pub fn retain(&mut self, mut keep: impl FnMut(&mut [u8]) -> bool) {
        self.filter_map(|_, slot, length| keep(&mut slot[..length]).then_some(length));
    }

    /// Keeps the frames for which `keep` returns true, in order. Its arguments are the bytes and the span.
    pub fn retain_spans(&mut self, mut keep: impl FnMut(&mut [u8], &Span) -> bool) {
        self.spans.retain(|span| keep(&mut self.memory[span.range()], span));
    }

    /// Whether a frame has one of these bits in the traffic class of its datagram.
    pub fn has_class(&self, bits: u8) -> bool {
        self.spans.iter().any(|span| span.class & bits != 0)
    }

    /// Replaces each datagram by the frames that `open` finds in it. The arguments of `open` are the origin, the memory from the
    /// end of the last kept frame to the end of the datagram's room, and the datagram's range in it. Memory before that range is
    /// free.
    pub fn expand(&mut self, mut open: impl FnMut(Option<Endpoint>, &mut [u8], Range<usize>, &mut Collector<'_>)) {
        let Self { memory, spans, expanded, filled, .. } = self;
        let (memory, spare) = memory.split_at_mut(*filled);
        expanded.clear();
        let mut found = Collector {
            spans: expanded,
            origin: None,
            class: 0,
            base: 0,
            kept: 0,
            spare_base: *filled,
            spare,
            spare_used: 0,
        };
        for span in &*spans {
            (found.base, found.origin, found.class) = (found.kept, span.origin, span.class);
            let range = span.start - found.base..span.start + span.length - found.base;
            open(span.origin, &mut memory[found.base..span.room.end], range, &mut found);
        }
        *filled += found.spare_used;
        std::mem::swap(spans, expanded);
    }

    /// Joins `count` consecutive frames into one, in place, with a header before each. Each frame has room for its header, and all
    /// lie in the memory in their order.
    ///
    /// # Panics
    /// Panics if a frame lacks room, or if there are too few frames.
    pub fn join<const N: usize>(&mut self, first: usize, count: usize, header: impl Fn(&Span) -> [u8; N]) {
        let Self { memory, spans, .. } = self;
        let mut end = spans[first].start - N;
        assert!(end >= spans[first].room.start);
        let start = end;
        for span in &spans[first..first + count] {
            assert!(end + N <= span.start);
            memory[end..end + N].copy_from_slice(&header(span));
            memory.copy_within(span.range(), end + N);
            end += N + span.length;
        }
        let room = spans[first].room.start..spans[first + count - 1].room.end;
        let facts = Facts::default();
        spans[first] = Span { start, length: end - start, room, facts, ..spans[first].clone() };
        spans.drain(first + 1..first + count);
    }

    /// Marks frame `index` as one of several of equal size, which stays a datagram of its own.
    pub fn set_alone(&mut self, index: usize) {
        self.spans[index].alone = true;
    }

    /// Sets the number of the path that frame `index` leaves by.
    pub fn set_path(&mut self, index: usize, path: u8) {
        self.spans[index].path = path;
    }

    /// Sorts the frames by path. Frames of one path keep their order, which is that of the memory.
    pub fn sort_by_path(&mut self) {
        self.spans.sort_unstable_by_key(|span| (span.path, span.start));
    }

    /// Sets the traffic class of the datagrams of these frames.
    pub fn set_class(&mut self, frames: impl SliceIndex<[Span], Output = [Span]>, class: u8) {
        self.spans[frames].iter_mut().for_each(|span| span.class = class);
    }

    /// Sets the facts of frame `index`.
    pub fn set_facts(&mut self, index: usize, facts: Facts) {
        self.spans[index].facts = facts;
    }

    /// Removes the last frame. Its memory stays in use.
    pub fn pop(&mut self) {
        self.spans.pop();
    }

    /// Removes all frames.
    pub fn clear(&mut self) {
        self.spans.clear();
        self.filled = 0;
    }

    /// Appends a frame in the next slot. `write` writes the frame and returns its length.
    ///
    /// # Panics
    /// Panics if the batch is full.
    pub fn append(&mut self, write: impl FnOnce(&mut [u8]) -> usize) {
        let start = self.filled + HEADROOM;
        let length = write(&mut self.memory[start..self.filled + self.slot]);
        self.put(start, length, self.filled + self.slot);
    }

    /// Next slot for a frame that is packed afterwards; `None` if the batch is full. It begins `before` bytes before the frame, at
    /// most 64.
    pub fn next_slot(&mut self, before: usize) -> Option<&mut [u8]> {
        (!self.is_full()).then(|| &mut self.memory[self.filled + HEADROOM - before..self.filled + self.slot])
    }

    /// Packs the first `length` bytes of that slot as a frame with little room behind it. The next slot begins behind the frame.
    ///
    /// # Panics
    /// Panics if the batch is full, or if the slot is shorter than `length`.
    pub fn pack(&mut self, length: usize) -> &mut Span {
        assert!(HEADROOM + length <= self.slot);
        let start = self.filled + HEADROOM;
        self.put(start, length, (start + length + TAILROOM).min(self.filled + self.slot));
        let last = self.spans.len() - 1;
        &mut self.spans[last]
    }

    /// Packs a copy of a frame given in parts.
    ///
    /// # Panics
    /// Panics if the batch is full, or if a slot is shorter than the frame.
    pub fn pack_copy(&mut self, parts: &[&[u8]]) -> &mut Span {
        let start = self.filled + HEADROOM;
        let mut end = start;
        for part in parts {
            self.memory[end..end + part.len()].copy_from_slice(part);
            end += part.len();
        }
        self.pack(end - start)
    }

    /// Appends a frame at this position.
    fn put(&mut self, start: usize, length: usize, end: usize) {
        let room = self.filled..end;
        assert!(start + length <= end && end <= self.memory.len());
        let (origin, facts) = (None, Facts::default());
        self.spans.push(Span { start, length, room, origin, facts, alone: false, path: 0, class: 0 });
        // Start of a cache line, if the memory is aligned.
        self.filled = end.next_multiple_of(64);
    }

    /// Appends a copy of `frame`.
    ///
    /// # Panics
    /// Panics if the batch is full, or if a slot is shorter than the frame.
    pub fn append_copy(&mut self, frame: &[u8]) {
        self.append(|slot| {
            slot[..frame.len()].copy_from_slice(frame);
            frame.len()
        });
    }

    /// Memory and spans of the frames, for work across frames.
    pub fn parts_mut(&mut self) -> (&mut [u8], &[Span]) {
        (&mut self.memory, &self.spans)
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::frame::offload::superframe::{Checksum, Segments, Superframe};

    #[test]
    fn expand_yields_any_number_of_frames() {
        let mut batch = Batch::with_room(3, 100);
        for (slot, byte) in batch.slots().zip(1..=2) {
            slot[..100].fill(byte);
        }
        batch.push_run(0, 100, 25, None);
        batch.push(1, 100);
        let mut number = 0;
        batch.expand(|_, memory, datagram, found| {
            number += 1;
            match number {
                // Two frames; none; the same frame again; a frame in the place of all three; a frame that does not fit.
                1 => {
                    assert!(found.frame(datagram.start + 2..datagram.start + 12, None));
                    assert!(found.frame(datagram.end - 5..datagram.end, None));
                }
                2 | 3 => {}
                4 => assert!(found.copy(memory, datagram.end, &[9; 75], None)),
                _ => {
                    assert!(found.frame(datagram.clone(), None));
                    assert!(found.copy(memory, datagram.end, &[8; 150], None));
                    assert!(!found.copy(memory, datagram.end, &[8; 150], None));
                }
            }
        });
        let lengths: Vec<_> = batch.frames(0).map(<[u8]>::len).collect();
        assert_eq!(lengths, [10, 5, 75, 100, 150]);
        let expected = [(0, 1), (1, 1), (2, 9), (3, 2), (4, 8)];
        assert!(expected.into_iter().all(|(index, byte)| batch.frame(index).iter().all(|&is| is == byte)));
    }

    #[test]
    fn frames_are_joined_in_place() {
        for packed in [false, true] {
            let mut batch = Batch::for_runs();
            for byte in 1..=4 {
                if packed { _ = batch.pack_copy(&[&[byte; 30]]) } else { batch.append_copy(&[byte; 30]) }
            }
            batch.join(1, 2, |span| [span.range().len().to_le_bytes()[0], 0xff]);
            assert_eq!(batch.len(), 3);
            let joined = [&[30, 0xff][..], &[2; 30], &[30, 0xff], &[3; 30]].concat();
            assert_eq!(batch.frame(1), joined);
            batch.grow_front(1, 20)[..20].fill(7);
            batch.grow_back(1, 16)[84..].fill(7);
            assert_eq!((batch.frame(0), batch.frame(2)), (&[1; 30][..], &[4; 30][..]));
            assert_eq!(batch.frame(1)[20..84], joined);
        }
    }

    #[test]
    fn frames_grow_in_place() {
        let mut batch = Batch::default();
        for (slot, byte) in batch.slots().zip(1..=3) {
            slot[..20].fill(byte);
        }
        for index in 0..3 {
            batch.push(index, 20);
        }
        batch.grow_front(1, 4)[..4].fill(9);
        batch.grow_back(1, 2)[24..].fill(8);
        assert_eq!(batch.frame(1), [&[9; 4][..], &[2; 20], &[8; 2]].concat());
        batch.filter_map(|_, slot, length| (slot[0] != 1).then_some(length - 1));
        assert_eq!((batch.len(), batch.bytes()), (2, 25 + 19));
        assert_eq!(batch.frame(1), [3; 19]);
        assert_eq!(batch.frames(1).count(), 1);
        assert!(batch.grow_back(1, 100_000).len() >= CAPACITY);
    }

    #[test]
    fn slot_exceeds_largest_datagram() {
        const { assert!(CAPACITY > MAX_DATAGRAM && MAX_DATAGRAM >= MAX_FRAME) };
        assert_eq!(Batch::default().slots().count(), BATCH);
    }

    #[test]
    fn packed_frames_do_not_overlap() {
        let mut batch = Batch::with_room(2, 1000);
        let slot = batch.slots().next().unwrap();
        slot[..30].fill(1);
        slot[30..60].fill(2);
        slot[60..70].fill(3);
        batch.push_run(0, 70, 30, None);
        assert_eq!(batch.frames(0).map(<[u8]>::len).collect::<Vec<_>>(), [30, 30, 10]);
        // The first frame may grow to the front, the last one to the back, and those in between not at all.
        assert_eq!(batch.grow_front(0, 4).len(), 34);
        assert_eq!(batch.grow_back(0, 5).len(), 34);
        assert_eq!(batch.grow_back(1, 5).len(), 30);
        assert_eq!(batch.grow_back(2, 5).len(), 15);
        batch.truncate(1, 20);
        assert_eq!(batch.grow_back(1, 50).len(), 30);
        batch.filter_map(|_, room, length| {
            assert!(room.len() == 34 && length == 34 || room.len() == 30 || room.len() >= 1000 - 60);
            Some(length)
        });
        assert_eq!((batch.frame(1)[0], batch.frame(2)[0]), (2, 3));
        batch.append_copy(b"next slot");
        assert!(batch.is_full() && batch.frame(3) == b"next slot");
    }

    #[test]
    fn origin_and_facts_stay_with_frame() {
        let mut batch = Batch::default();
        let superframe = Superframe { kind: Segments::Tcp4, header: 54, segment: 1448 };
        for index in 0..2_u16 {
            batch.append_copy(&[7; 20]);
            batch.spans[usize::from(index)].origin = Some(SocketAddr::from(([192, 0, 2, 1], index)).into());
        }
        batch.spans[1].facts.superframe = Some(superframe);
        let mut first = true;
        batch.retain(|_| !std::mem::replace(&mut first, false));
        assert_eq!(batch.span(0).origin, Some(SocketAddr::from(([192, 0, 2, 1], 1)).into()));
        assert_eq!(batch.span(0).facts.superframe, Some(superframe));
        // A restored tag moves the headers.
        batch.spans[0].facts.checksum = Some(Checksum { start: 34, offset: 16 });
        batch.grow_front(0, 4);
        assert_eq!(batch.span(0).facts.checksum, Some(Checksum { start: 38, offset: 16 }));
        assert_eq!(batch.span(0).facts.superframe, Some(Superframe { header: 58, ..superframe }));
    }

    #[test]
    fn empty_datagram_is_a_frame() {
        let mut batch = Batch::default();
        batch.push_run(0, 0, 0, None);
        assert_eq!((batch.len(), batch.bytes()), (1, 0));
    }
}
