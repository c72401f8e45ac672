//! Span: place of a frame in a batch's memory, and what is known of the frame.

use std::ops::Range;

use crate::endpoint::Endpoint;
use crate::frame::offload::superframe::{Facts, Superframe};

/// A frame in the batch's memory.
#[derive(Debug, Clone)]
pub struct Span {
    pub(super) start: usize,
    pub(super) length: usize,
    /// The part of the memory that it may grow in.
    pub(super) room: Range<usize>,
    /// Who sent it, where the socket tells.
    pub origin: Option<Endpoint>,
    /// What is to be known of it besides its bytes.
    pub facts: Facts,
    /// It is one of several of one size, and stays a datagram of its own.
    pub alone: bool,
}

impl Span {
    /// How many packets it is on the wire, and how many bytes they have in all.
    pub fn packets(&self) -> (u64, u64) {
        let Some(Superframe { header, segment, .. }) = self.facts.superframe else { return (1, self.length as u64) };
        let (header, segment) = (usize::from(header), usize::from(segment).max(1));
        let packets = self.length.saturating_sub(header).div_ceil(segment).max(1);
        (packets as u64, (self.length + (packets - 1) * header) as u64)
    }

    /// The frame's bytes as a range of the batch's memory.
    pub fn range(&self) -> Range<usize> {
        self.start..self.start + self.length
    }
}
