//! Collector: frames that are found in a batch of datagrams, in the memory of those.

use std::ops::Range;

use super::span::Span;
use crate::endpoint::Endpoint;
use crate::frame::offload::superframe::{Checksum, Facts};

/// Slots of a batch of runs.
pub(super) const RUNS: usize = 32;
/// Datagrams in one run at most: what newer kernels put into one message (`UDP_MAX_SEGMENTS`), older ones half of it.
pub const RUN: usize = 128;
/// Frames that one batch of datagrams can hold at most. Memory for as many is there at the start; what is not used is not resident.
pub const MAX_EXPANDED: usize = 4 * RUNS * RUN;
/// Collector of the frames that [`super::Batch::expand`] finds in datagrams. They have no room to grow.
pub struct Collector<'a> {
    pub(super) spans: &'a mut Vec<Span>,
    pub(super) origin: Option<Endpoint>,
    /// Where the memory begins that is looked at.
    pub(super) base: usize,
    /// Where all that was kept ends.
    pub(super) kept: usize,
    pub(super) spare: &'a mut [u8],
    pub(super) spare_base: usize,
    pub(super) spare_used: usize,
}

impl Collector<'_> {
    /// Keeps a frame at this range of the memory that was given, behind all that were kept of it before; false where there are too
    /// many.
    pub fn frame(&mut self, range: Range<usize>, checksum: Option<Checksum>) -> bool {
        self.kept = self.base + range.end;
        self.push(self.base + range.start, range.len(), checksum)
    }

    /// Keeps a copy of a frame, in free memory before `end`, which is where the datagram ends, or else behind all others; false
    /// where that is full.
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
            self.spans.push(Span { start, length, room, origin: self.origin, facts, alone: false });
        }
        fits
    }
}
