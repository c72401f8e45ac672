//! Span: place of a frame in a batch's memory, and its properties.

use std::ops::Range;

use crate::endpoint::Endpoint;
use crate::frame::offload::superframe::{Facts, Superframe};

/// Span of a frame in the batch's memory.
#[derive(Debug, Clone)]
pub struct Span {
    pub(super) start: usize,
    pub(super) length: usize,
    /// Memory that the frame may grow into.
    pub(super) room: Range<usize>,
    /// Sender, if the socket reports it.
    pub origin: Option<Endpoint>,
    /// Facts of the kernel about the frame.
    pub facts: Facts,
    /// Whether it is one of several frames of equal size, and stays a datagram of its own.
    pub alone: bool,
    /// Number of the path that the frame leaves by, where frames leave by several.
    pub path: u8,
    /// Traffic class of the frame's datagram, if it is not the default of the socket; of a received datagram its ECN.
    pub class: u8,
}

impl Span {
    /// Number of packets of the frame on the wire, and number of their bytes.
    pub fn packets(&self) -> (u64, u64) {
        let Some(Superframe { header, segment, .. }) = self.facts.superframe else { return (1, self.length as u64) };
        let (header, segment) = (usize::from(header), usize::from(segment).max(1));
        let packets = self.length.saturating_sub(header).div_ceil(segment).max(1);
        (packets as u64, (self.length + (packets - 1) * header) as u64)
    }

    /// Range of the frame in the batch's memory.
    pub fn range(&self) -> Range<usize> {
        self.start..self.start + self.length
    }
}
