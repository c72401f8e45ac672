//! Collector: frames found in a batch of datagrams, kept in the memory of the datagrams.

use std::ops::Range;

use super::span::Span;
use crate::endpoint::Endpoint;
use crate::frame::offload::superframe::{Checksum, Facts};

/// Slots of a batch of runs.
pub(super) const RUNS: usize = 32;
/// Most datagrams in one run: the limit of newer kernels for one message (`UDP_MAX_SEGMENTS`); older kernels allow half.
pub const RUN: usize = 128;
/// Most frames in one batch of datagrams. The memory of their spans is allocated at the start; unused pages are not resident.
pub const MAX_EXPANDED: usize = 4 * RUNS * RUN;
/// Collector of the frames that [`super::Batch::expand`] finds in datagrams. These frames have no room to grow.
pub struct Collector<'a> {
    pub(super) spans: &'a mut Vec<Span>,
    pub(super) origin: Option<Endpoint>,
    /// Traffic class of the datagram.
    pub class: u8,
    /// Start of the memory passed to the current call.
    pub(super) base: usize,
    /// End of the frames kept in place.
    pub(super) kept: usize,
    pub(super) spare: &'a mut [u8],
    pub(super) spare_base: usize,
    pub(super) spare_used: usize,
}

impl Collector<'_> {
    /// Keeps the frame at this range of the given memory. It must lie behind all frames kept before. False if there are too many.
    pub fn frame(&mut self, range: Range<usize>, checksum: Option<Checksum>) -> bool {
        self.kept = self.base + range.end;
        self.push(self.base + range.start, range.len(), checksum)
    }

    /// Keeps a copy of a frame, in free memory before `end` (the end of the datagram), or else behind all datagrams. False if there
    /// is no room.
    pub fn copy(&mut self, memory: &mut [u8], end: usize, frame: &[u8], checksum: Option<Checksum>) -> bool {
        let from = self.kept - self.base;
        if let Some(to) = memory[..end].get_mut(from..from + frame.len()) {
            to.copy_from_slice(frame);
            return self.frame(from..from + frame.len(), checksum);
        }
        let Some(to) = self.spare.get_mut(self.spare_used..self.spare_used + frame.len()) else { return false };
        to.copy_from_slice(frame);
        let start = self.spare_base + self.spare_used;
        self.spare_used += frame.len();
        self.push(start, frame.len(), checksum)
    }

    fn push(&mut self, start: usize, length: usize, checksum: Option<Checksum>) -> bool {
        let room = start..start + length;
        let facts = Facts { checksum, ..Facts::default() };
        let fits = self.spans.len() < MAX_EXPANDED;
        if fits {
            let (origin, class) = (self.origin, self.class);
            self.spans.push(Span { start, length, room, origin, facts, alone: false, path: 0, class });
        }
        fits
    }
}
