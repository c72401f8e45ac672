//! Batches of frames or datagrams, in memory that is allocated once.

mod collector;
mod span;

use std::ops::Range;

use privsep::ipc::Secure;

use crate::endpoint::Endpoint;
use crate::frame::offload::superframe::Facts;
use collector::RUNS;
pub use collector::{Collector, MAX_EXPANDED, RUN};
pub use span::Span;

/// Frames in one batch at most.
pub const BATCH: usize = 64;
pub use privsep::ipc::MAX_FRAME;
/// Largest UDP payload in bytes that can hold such a frame, on either wire.
pub const MAX_DATAGRAM: usize = Secure::LONGEST as usize;

/// Bytes kept free in front of a received frame.
const HEADROOM: usize = 64;
/// Bytes kept free behind a packed one: padding of a cipher, mark of a compression.
const TAILROOM: usize = 64;
/// Superframes that are read at a time at most.
const SUPERFRAMES: usize = 4;
/// Packets that are cut and sent at a time at most: those of some superframes, so that what leaves as one message does not end where
/// a superframe does.
pub const PACKETS: usize = SUPERFRAMES * BATCH;
/// Bytes in a superframe or a run of datagrams: a packet of 65,535 and its Ethernet header with tags.
const MAX_RUN: usize = 65_536 + 64;
/// Bytes in a superframe that a packet socket gives: "BIG TCP" has up to 192 KiB where it is usual, and 512 KiB in the kernel.
const MAX_LARGE: usize = 3 * 65_536 + 64;
/// Bytes that one slot can receive: more than any limit, so that what is too long is seen to be.
const CAPACITY: usize = 9408;

/// Batch of frames or datagrams, in memory that is allocated once. Each has room before and behind it, so that tags, padding and
/// ciphertext grow in place. A loop owns its batches and uses them again and again; [`clear`](Self::clear) forgets the frames.
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
/// rest. [`set_facts`](Self::set_facts), [`set_alone`](Self::set_alone) and [`set_origin`](Self::set_origin) change the rest.
/// [`grow_front`](Self::grow_front), [`trim_front`](Self::trim_front), [`grow_back`](Self::grow_back) and
/// [`truncate`](Self::truncate) change the length in place.
///
/// Numbers change by the methods that work on all frames: [`filter_map`](Self::filter_map) and [`retain`](Self::retain) drop frames,
/// [`join`](Self::join) makes one of several, and [`expand`](Self::expand) replaces datagrams by the frames in them.
pub struct Batch {
    memory: Box<[u8]>,
    /// Distance of the slots.
    slot: usize,
    /// Slots that are given out to receive into.
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
    /// An empty batch of up to `slots` frames.
    pub fn with_slots(slots: usize) -> Self {
        Self::with_room(slots, CAPACITY)
    }

    /// An empty batch to receive runs of datagrams into.
    pub fn for_runs() -> Self {
        // One more for frames that are put together of pieces.
        let mut batch = Self::with_room(RUNS + 1, MAX_RUN);
        batch.given = RUNS;
        batch
    }

    /// An empty batch to receive datagrams into, each of which can be many frames, and which can come in runs.
    pub fn for_datagrams(runs: bool) -> Self {
        let (mut batch, frames) = if runs { (Self::for_runs(), MAX_EXPANDED) } else { (Self::default(), BATCH) };
        batch.spans.reserve_exact(frames);
        batch.expanded.reserve_exact(frames);
        batch
    }

    /// An empty batch to receive frames into of which any may be a large superframe.
    pub fn for_large_superframes() -> Self {
        Self::with_room(RUNS, MAX_LARGE)
    }

    /// An empty batch to read frames into of which any may be a superframe: memory for some of these.
    pub fn for_superframes() -> Self {
        Self::with_room(SUPERFRAMES, MAX_RUN)
    }

    /// An empty batch of up to [`PACKETS`] packets to pack.
    pub fn for_packets() -> Self {
        let mut batch = Self::default();
        batch.spans.reserve_exact(PACKETS);
        batch
    }

    /// An empty batch to pack up to `packets` packets into, in memory for `slots` of `capacity` bytes.
    pub fn to_pack(slots: usize, capacity: usize, packets: usize) -> Self {
        let mut batch = Self::with_room(slots, capacity);
        batch.spans.reserve_exact(packets);
        batch
    }

    /// An empty batch of `slots` slots, each of which can receive `capacity` bytes.
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

    /// Forgets all frames and gives out every slot to receive into.
    pub fn slots(&mut self) -> impl Iterator<Item = &mut [u8]> {
        self.clear();
        self.memory.chunks_exact_mut(self.slot).take(self.given).map(|slot| &mut slot[HEADROOM..])
    }

    /// Takes what was received into slot `index` as a frame of `length` bytes.
    ///
    /// # Panics
    /// When there is no such slot, or `length` is larger than it.
    pub fn push(&mut self, index: usize, length: usize) -> &mut Span {
        self.push_run(index, length, length, None);
        let last = self.spans.len() - 1;
        &mut self.spans[last]
    }

    /// Takes what was received into slot `index` as frames of `each` bytes and one that is shorter, `length` bytes in all.
    /// Each but the last has no room behind it but its own. An empty run is one empty frame. All are from `origin`.
    ///
    /// # Panics
    /// When there is no such slot, or `length` is larger than it.
    pub fn push_run(&mut self, index: usize, length: usize, each: usize, origin: Option<Endpoint>) {
        assert!(HEADROOM + length <= self.slot && (index + 1) * self.slot <= self.memory.len());
        let (slot, first) = (index * self.slot, index * self.slot + HEADROOM);
        let (end, each) = (first + length, each.max(1));
        let mut start = first;
        loop {
            let next = end.min(start + each);
            let last = next == end;
            let room = if start == first { slot } else { start }..if last { slot + self.slot } else { next };
            self.spans.push(Span { start, length: next - start, room, origin, facts: Facts::default(), alone: false });
            if last {
                break;
            }
            start = next;
        }
        self.filled = self.filled.max((index + 1) * self.slot);
    }

    /// Whether one of the frames is several in one.
    pub fn has_superframe(&self) -> bool {
        self.spans.iter().any(|span| span.facts.superframe.is_some())
    }

    /// Number of frames.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there is no frame.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Whether there is no slot left, or no number for one more frame.
    pub fn is_full(&self) -> bool {
        self.memory.len() - self.filled < self.slot || self.spans.len() == self.spans.capacity()
    }

    /// Frame `index`.
    pub fn frame(&self, index: usize) -> &[u8] {
        &self.memory[self.spans[index].range()]
    }

    /// Frame `index`.
    pub fn frame_mut(&mut self, index: usize) -> &mut [u8] {
        &mut self.memory[self.spans[index].range()]
    }

    /// What is known of frame `index`.
    pub fn span(&self, index: usize) -> &Span {
        &self.spans[index]
    }

    /// Says who sent frame `index`.
    pub fn set_origin(&mut self, index: usize, origin: impl Into<Endpoint>) {
        self.spans[index].origin = Some(origin.into());
    }

    /// All frames from `first` on.
    pub fn frames(&self, first: usize) -> impl Iterator<Item = &[u8]> {
        self.spans[first..].iter().map(|span| &self.memory[span.range()])
    }

    /// How many packets all frames are on the wire, and how many bytes those have.
    pub fn packets(&self) -> (u64, u64) {
        self.spans.iter().map(Span::packets).fold((0, 0), |sum, each| (sum.0 + each.0, sum.1 + each.1))
    }

    /// Bytes in all frames.
    pub fn bytes(&self) -> u64 {
        self.spans.iter().map(|span| span.length as u64).sum()
    }

    /// Makes room for `count` bytes in front of frame `index` and returns the longer frame. What is known of its headers moves
    /// with them: they are taken to be behind what is put in.
    ///
    /// # Panics
    /// When the headroom is used up.
    pub fn grow_front(&mut self, index: usize, count: usize) -> &mut [u8] {
        let span = &mut self.spans[index];
        assert!(span.start - span.room.start >= count);
        span.start -= count;
        span.length += count;
        span.facts.move_back(count);
        self.frame_mut(index)
    }

    /// Takes `count` bytes off the front of frame `index`, or all it has.
    pub fn trim_front(&mut self, index: usize, count: usize) {
        let span = &mut self.spans[index];
        let count = count.min(span.length);
        (span.start, span.length) = (span.start + count, span.length - count);
    }

    /// Makes frame `index` longer by `count` bytes of any value, or as long as its room, and returns it.
    pub fn grow_back(&mut self, index: usize, count: usize) -> &mut [u8] {
        let span = &mut self.spans[index];
        span.length = (span.length + count).min(span.room.end - span.start);
        self.frame_mut(index)
    }

    /// Makes frame `index` `length` bytes long, which is not more than it has.
    pub fn truncate(&mut self, index: usize, length: usize) {
        let span = &mut self.spans[index];
        span.length = span.length.min(length);
    }

    /// Keeps the frames for which `keep` returns their new length, in order. `keep` gets where each frame comes from, its room
    /// from where it begins, and its length.
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

    /// Keeps the frames that `keep` says, in order.
    pub fn retain(&mut self, mut keep: impl FnMut(&mut [u8]) -> bool) {
        self.filter_map(|_, slot, length| keep(&mut slot[..length]).then_some(length));
    }

    /// Replaces each datagram by the frames that `open` finds in it. That gets where it comes from, the memory from what was kept
    /// last to the end of the datagram's room, and where in it the datagram is; what is before it is free.
    pub fn expand(&mut self, mut open: impl FnMut(Option<Endpoint>, &mut [u8], Range<usize>, &mut Collector<'_>)) {
        let Self { memory, spans, expanded, filled, .. } = self;
        let (memory, spare) = memory.split_at_mut(*filled);
        expanded.clear();
        let mut found =
            Collector { spans: expanded, origin: None, base: 0, kept: 0, spare_base: *filled, spare, spare_used: 0 };
        for span in &*spans {
            (found.base, found.origin) = (found.kept, span.origin);
            let range = span.start - found.base..span.start + span.length - found.base;
            open(span.origin, &mut memory[found.base..span.room.end], range, &mut found);
        }
        *filled += found.spare_used;
        std::mem::swap(spans, expanded);
    }

    /// Makes one frame of `count` that follow each other, in place, each behind a header of its own. Each has room in front for that,
    /// and all lie in the memory in their order.
    ///
    /// # Panics
    /// When one has not, or there are not so many.
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

    /// Says that frame `index` is one of several of one size.
    pub fn set_alone(&mut self, index: usize) {
        self.spans[index].alone = true;
    }

    /// Says what is known of frame `index`.
    pub fn set_facts(&mut self, index: usize, facts: Facts) {
        self.spans[index].facts = facts;
    }

    /// Forgets the last frame, whose memory stays used.
    pub fn pop(&mut self) {
        self.spans.pop();
    }

    /// Forgets all frames.
    pub fn clear(&mut self) {
        self.spans.clear();
        self.filled = 0;
    }

    /// Appends a frame that `write` writes, into the next slot, and whose length it returns.
    ///
    /// # Panics
    /// When the batch is full.
    pub fn append(&mut self, write: impl FnOnce(&mut [u8]) -> usize) {
        let start = self.filled + HEADROOM;
        let length = write(&mut self.memory[start..self.filled + self.slot]);
        self.put(start, length, self.filled + self.slot);
    }

    /// The next slot, to receive a frame into that is then packed; `None` when the batch is full. It begins `before` bytes before
    /// the frame, 64 at most.
    pub fn next_slot(&mut self, before: usize) -> Option<&mut [u8]> {
        (!self.is_full()).then(|| &mut self.memory[self.filled + HEADROOM - before..self.filled + self.slot])
    }

    /// Takes the first `length` bytes of that slot as a frame with little room behind it: what follows is packed.
    ///
    /// # Panics
    /// When the batch is full, or `length` is larger than a slot.
    pub fn pack(&mut self, length: usize) -> &mut Span {
        assert!(HEADROOM + length <= self.slot);
        let start = self.filled + HEADROOM;
        self.put(start, length, (start + length + TAILROOM).min(self.filled + self.slot));
        let last = self.spans.len() - 1;
        &mut self.spans[last]
    }

    /// Packs a copy of a frame that is in parts.
    ///
    /// # Panics
    /// When the batch is full, or the frame larger than a slot.
    pub fn pack_copy(&mut self, parts: &[&[u8]]) {
        let start = self.filled + HEADROOM;
        let mut end = start;
        for part in parts {
            self.memory[end..end + part.len()].copy_from_slice(part);
            end += part.len();
        }
        self.pack(end - start);
    }

    /// Adds a frame behind all others.
    fn put(&mut self, start: usize, length: usize, end: usize) {
        let room = self.filled..end;
        assert!(start + length <= end && end <= self.memory.len());
        self.spans.push(Span { start, length, room, origin: None, facts: Facts::default(), alone: false });
        // Where a cache line begins, if the memory does.
        self.filled = end.next_multiple_of(64);
    }

    /// Appends a copy of `frame`.
    ///
    /// # Panics
    /// When the batch is full, or the frame larger than a slot.
    pub fn append_copy(&mut self, frame: &[u8]) {
        self.append(|slot| {
            slot[..frame.len()].copy_from_slice(frame);
            frame.len()
        });
    }

    /// The memory and where the frames lie in it, for work across frames.
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
                // Two frames; nothing twice; then one that takes the place of all three; and one for which there is none here.
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
                if packed { batch.pack_copy(&[&[byte; 30]]) } else { batch.append_copy(&[byte; 30]) }
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
        // The first may grow to the front, the last to the back, and in between none.
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
        // A tag that is put back moves the headers.
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
