//! Frames travel in batches: memory that is allocated once, with room before and behind each frame so that tags,
//! padding and ciphertext grow in place.

use std::ops::Range;

/// Frames in one batch at most.
pub const BATCH: usize = 64;
/// Largest inner Ethernet frame in bytes, without its checksum; a longer one is dropped, never cut.
pub const MAX_FRAME: usize = 9234;
/// Largest UDP payload in bytes that can hold such a frame: AES pads it to 9248.
pub const MAX_DATAGRAM: usize = MAX_FRAME / 16 * 16 + 16;

/// Bytes kept free in front of a received frame.
const HEADROOM: usize = 64;
/// Bytes that one slot can receive: more than any limit, so that what is too long is seen to be.
const CAPACITY: usize = 9408;
/// Distance of the slots.
const SLOT: usize = HEADROOM + CAPACITY;

/// Where a frame lies in the batch's memory, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    start: usize,
    length: usize,
}

impl Span {
    /// The frame's bytes as a range of the batch's memory.
    pub fn range(self) -> Range<usize> {
        self.start..self.start + self.length
    }
}

/// Up to [`BATCH`] frames.
pub struct Batch {
    memory: Box<[u8]>,
    spans: Vec<Span>,
}

impl Default for Batch {
    fn default() -> Self {
        Self::with_slots(BATCH)
    }
}

impl Batch {
    /// An empty batch of up to `slots` frames.
    pub fn with_slots(slots: usize) -> Self {
        Self { memory: vec![0; slots * SLOT].into(), spans: Vec::with_capacity(slots) }
    }

    /// Forgets all frames and gives out every slot to receive into.
    pub fn slots(&mut self) -> impl Iterator<Item = &mut [u8]> {
        self.spans.clear();
        self.memory.chunks_exact_mut(SLOT).map(|slot| &mut slot[HEADROOM..])
    }

    /// Takes what was received into slot `index` as a frame of `length` bytes.
    ///
    /// # Panics
    /// When there is no such slot, or `length` is larger than it.
    pub fn push(&mut self, index: usize, length: usize) {
        assert!(length <= CAPACITY && index * SLOT < self.memory.len());
        self.spans.push(Span { start: index * SLOT + HEADROOM, length });
    }

    /// Number of frames.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there is no frame.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Frame `index`.
    pub fn frame(&self, index: usize) -> &[u8] {
        &self.memory[self.spans[index].range()]
    }

    /// Frame `index`.
    pub fn frame_mut(&mut self, index: usize) -> &mut [u8] {
        &mut self.memory[self.spans[index].range()]
    }

    /// All frames from `first` on.
    pub fn frames(&self, first: usize) -> impl Iterator<Item = &[u8]> {
        self.spans[first..].iter().map(|span| &self.memory[span.range()])
    }

    /// Bytes in all frames.
    pub fn bytes(&self) -> u64 {
        self.spans.iter().map(|span| span.length as u64).sum()
    }

    /// Makes room for `count` bytes in front of frame `index` and returns the longer frame.
    ///
    /// # Panics
    /// When the headroom is used up.
    pub fn grow_front(&mut self, index: usize, count: usize) -> &mut [u8] {
        let span = &mut self.spans[index];
        assert!(span.start % SLOT >= count);
        span.start -= count;
        span.length += count;
        self.frame_mut(index)
    }

    /// Makes frame `index` longer by `count` bytes of any value, or as long as its slot, and returns it.
    pub fn grow_back(&mut self, index: usize, count: usize) -> &mut [u8] {
        let span = &mut self.spans[index];
        span.length = (span.length + count).min(SLOT - span.start % SLOT);
        self.frame_mut(index)
    }

    /// Makes frame `index` `length` bytes long, which is not more than it has.
    pub fn truncate(&mut self, index: usize, length: usize) {
        let span = &mut self.spans[index];
        span.length = span.length.min(length);
    }

    /// Keeps the frames for which `keep` returns their new length, in order. `keep` gets each frame's number, the rest of
    /// its slot from where it begins, and its length.
    pub fn filter_map(&mut self, mut keep: impl FnMut(usize, &mut [u8], usize) -> Option<usize>) {
        let memory = &mut self.memory;
        let mut index = 0;
        self.spans.retain_mut(|span| {
            let room = SLOT - span.start % SLOT;
            let length = keep(index, &mut memory[span.start..span.start + room], span.length);
            index += 1;
            span.length = length.unwrap_or(0).min(room);
            length.is_some()
        });
    }

    /// Keeps the frames that `keep` says, in order.
    pub fn retain(&mut self, mut keep: impl FnMut(&mut [u8]) -> bool) {
        self.filter_map(|_, slot, length| keep(&mut slot[..length]).then_some(length));
    }

    /// Forgets all frames.
    pub fn clear(&mut self) {
        self.spans.clear();
    }

    /// Appends a frame that `write` writes, into the slot of that number, and whose length it returns.
    ///
    /// # Panics
    /// When the batch is full.
    pub fn append(&mut self, write: impl FnOnce(&mut [u8]) -> usize) {
        let index = self.spans.len();
        let start = index * SLOT + HEADROOM;
        let length = write(&mut self.memory[start..start + CAPACITY]);
        self.push(index, length);
    }

    /// The memory and where the frames lie in it, for work across frames.
    pub fn parts_mut(&mut self) -> (&mut [u8], &[Span]) {
        (&mut self.memory, &self.spans)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_grow_in_place_and_can_be_dropped() {
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
        assert_eq!(batch.grow_back(1, 100_000).len(), CAPACITY);
    }

    #[test]
    fn a_slot_holds_more_than_the_largest_datagram() {
        const { assert!(CAPACITY > MAX_DATAGRAM && MAX_DATAGRAM >= MAX_FRAME) };
        assert_eq!(Batch::default().slots().count(), BATCH);
    }
}
