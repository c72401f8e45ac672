//! Local side: source and sink of frames.

mod outgoing;
pub(crate) mod raw;
mod tap;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use privsep::ipc::{PortKind, SharedPort};

use crate::batch::{Batch, MAX_FRAME};
use crate::frame::HEADER;
use crate::frame::offload;
use crate::frame::offload::segment::Segmenter;
use crate::frame::offload::superframe::Facts;
use crate::io::Received;
#[cfg(test)]
pub use outgoing::Outgoing;

/// Takes frames from the port's handle, which the helper has opened.
pub enum Source {
    Tap(tap::Source),
    Raw(raw::Source),
}

impl Source {
    /// `partial` tells whether partial checksums may stay.
    pub fn new(kind: PortKind, handle: Arc<OwnedFd>, partial: bool) -> Self {
        match kind {
            PortKind::Tap => Self::Tap(tap::Source::new(handle, partial)),
            PortKind::Raw | PortKind::Mirror { .. } => Self::Raw(raw::Source::new(handle, partial)),
        }
    }

    /// Makes a batch to receive into.
    pub fn batch(&self) -> Batch {
        match self {
            Self::Tap(_) => Batch::for_superframes(),
            Self::Raw(_) => Batch::for_large_superframes(),
        }
    }

    /// Fills the batch with queued frames, without blocking. Drops frames over the limit.
    pub fn receive(&mut self, counters: &SharedPort, batch: &mut Batch) -> Received {
        match self {
            Self::Tap(tap) => tap.receive(counters, batch),
            Self::Raw(raw) => raw.receive(counters, batch),
        }
    }

    /// See [`crate::io::forget_errors`]. A TAP has no error queue.
    pub fn forget_errors(&mut self, batch: &mut Batch) {
        if let Self::Raw(raw) = self {
            raw.forget_errors(batch);
        }
    }
}

impl AsFd for Source {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tap(tap) => tap.as_fd(),
            Self::Raw(raw) => raw.as_fd(),
        }
    }
}

/// Checks the last frame of the batch together with its facts, or drops and counts it. A single packet is completed to its wire
/// form, except for a checksum that may stay `partial`. Other facts then remain only for superframes.
fn settle(batch: &mut Batch, partial: bool, counters: &SharedPort) {
    let Some(last) = batch.len().checked_sub(1) else { return };
    let Facts { checksum, superframe, .. } = batch.span(last).facts;
    let longest = if superframe.is_some() {
        let Ok(segmenter) = Segmenter::new(batch.frame(last), &batch.span(last).facts) else {
            counters.rx_dropped_offload.add(1);
            return batch.pop();
        };
        // Segmentation must not take a complete checksum for a partial one.
        let (longest, facts) = (segmenter.longest(), segmenter.facts());
        batch.set_facts(last, Facts { checksum: facts.checksum.filter(|_| checksum.is_some()), ..facts });
        longest
    } else {
        if let Some(checksum) = checksum.filter(|&checksum| !partial || !offload::travels(checksum)) {
            // The position was checked before.
            let _ = offload::complete_checksum(batch.frame_mut(last), checksum);
            batch.set_facts(last, Facts::default());
        }
        batch.frame(last).len()
    };
    if longest > MAX_FRAME {
        counters.rx_dropped_oversize.add(batch.span(last).packets().0);
        batch.pop();
    } else if longest < HEADER {
        counters.rx_dropped_short.add(1);
        batch.pop();
    }
}

/// Gives frames to the port.
pub enum Sink {
    Tap(tap::Sink),
    Raw(raw::Sink),
}

impl Sink {
    /// `singly` tells whether frames are delivered unmerged and in order, because this end only receives, as for a mirror.
    pub fn new(kind: PortKind, handle: Arc<OwnedFd>, singly: bool) -> Self {
        match kind {
            PortKind::Tap => Self::Tap(tap::Sink::new(handle, singly)),
            // A mirror's sink never gets a frame: its rules drop received frames.
            PortKind::Raw | PortKind::Mirror { .. } => Self::Raw(raw::Sink::new(handle, singly)),
        }
    }

    /// Delivers the frames of the batch from number `next` on, each at least as long as an Ethernet header. If `next` is then not
    /// behind the last frame, the port is full.
    pub fn send(&mut self, counters: &SharedPort, batch: &Batch, next: &mut usize) {
        match self {
            Self::Tap(tap) => tap.send(counters, batch, next),
            Self::Raw(raw) => raw.send(counters, batch, next),
        }
    }
}

impl AsFd for Sink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tap(tap) => tap.as_fd(),
            Self::Raw(raw) => raw.as_fd(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::offload::superframe::PACKETS;
    use crate::frame::offload::superframe::{Checksum, Segments, Superframe};

    /// Superframe of TCP over IPv4 with this payload, segment size, partial checksum and checksum field.
    fn superframe(payload: usize, segment: u16, checksum: Option<Checksum>, field: [u8; 2]) -> Batch {
        let mut frame = vec![7; 54 + payload];
        frame[12..34].copy_from_slice(&[8, 0, 0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 6, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2]);
        frame[16..18].copy_from_slice(&u16::try_from(40 + payload).unwrap().to_be_bytes());
        frame[46..48].copy_from_slice(&[0x50, 0x10]);
        frame[50..52].copy_from_slice(&field);
        let mut batch = Batch::for_runs();
        batch.append_copy(&frame);
        let superframe = Some(Superframe { kind: Segments::Tcp4, header: 0, segment });
        batch.set_facts(0, Facts { checksum, superframe, vlan: None });
        batch
    }

    /// Frames of a superframe of three segments, settled and segmented.
    fn cut(checksum: Option<Checksum>, field: [u8; 2]) -> Vec<Vec<u8>> {
        let mut batch = superframe(300, 100, checksum, field);
        settle(&mut batch, false, &SharedPort::default());
        let mut segmenter = Segmenter::new(batch.frame(0), &batch.span(0).facts).unwrap();
        let mut all = Vec::new();
        while let Some((headers, payload)) = segmenter.cut() {
            all.push([headers, payload].concat());
        }
        all
    }

    #[test]
    fn complete_checksum_is_kept_until_split() {
        let pseudo = crate::frame::checksum::Sum::of(&[192, 0, 2, 1, 192, 0, 2, 2, 0, 6, 1, 64]).folded();
        let partial = cut(Some(Checksum { start: 34, offset: 16 }), pseudo);
        assert_eq!(partial.len(), 3);
        assert_eq!(cut(None, [0xab, 0xcd]), partial);
    }

    #[test]
    fn excessive_superframe_is_dropped() {
        for (payload, segment, dropped) in
            [(PACKETS, 1, 0), (PACKETS + 1, 1, 1), (65_495, 1, 1), (65_483, 36, 0), (65_495, 31, 1), (65_495, 32, 0)]
        {
            let (mut batch, counters) = (superframe(payload, segment, None, [0; 2]), SharedPort::default());
            settle(&mut batch, false, &counters);
            assert_eq!(counters.rx_dropped_offload.get(), dropped, "{payload} bytes in segments of {segment}");
            assert_eq!(batch.len() as u64, 1 - dropped);
        }
    }
}
