//! A packet socket on an interface. Receiving and sending use the *one* socket: any other on that interface would hear
//! our own transmissions and send them round in a loop (packet(7): a socket does not hear itself).

use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use privsep::ipc::SharedPort;
use privsep::sys::packet;
use privsep::sys::worker::mmsg::{Receiver, Sender, VlanTag};

use crate::batch::{BATCH, Batch, MAX_FRAME};
use crate::frame::{HEADER, vlan};
use crate::io::{Received, Runs, forget_errors, send_from};

/// How often the kernel is asked how many frames it had to drop.
const DROPS_EVERY: Duration = Duration::from_secs(1);

pub struct Source {
    handle: Arc<OwnedFd>,
    receiver: Receiver,
    drops_asked: Instant,
}

impl Source {
    pub fn new(handle: Arc<OwnedFd>) -> Self {
        Self { handle, receiver: Receiver::with_control(BATCH), drops_asked: Instant::now() }
    }

    pub fn receive(&mut self, counters: &SharedPort, batch: &mut Batch) -> Received {
        self.count_kernel_drops(counters);
        let count = match self.receiver.receive(self.handle.as_fd(), batch.slots()) {
            Ok(count) => count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                return Received::Nothing;
            }
            Err(_) => {
                counters.rx_errors.add(1);
                return Received::Error;
            }
        };
        for index in 0..count {
            accept(batch, index, self.receiver.length(index), self.receiver.vlan_tag(index), counters);
        }
        Received::Batch
    }

    pub fn forget_errors(&mut self, batch: &mut Batch) {
        forget_errors(&mut self.receiver, self.handle.as_fd(), batch);
    }

    fn count_kernel_drops(&mut self, counters: &SharedPort) {
        if self.drops_asked.elapsed() < DROPS_EVERY {
            return;
        }
        self.drops_asked = Instant::now();
        if let Ok(drops) = packet::take_drops(self.handle.as_fd()) {
            counters.rx_dropped_kernel.add(drops.into());
        }
    }
}

/// Takes what was received into slot `index`, `length` bytes on the wire without the tag that the kernel has taken out, as a
/// frame with that tag in its place; or drops and counts it.
fn accept(batch: &mut Batch, index: usize, length: usize, tag: Option<VlanTag>, counters: &SharedPort) {
    if length + tag.map_or(0, |_| vlan::TAG) > MAX_FRAME {
        counters.rx_dropped_oversize.add(1);
    } else if length < HEADER {
        counters.rx_dropped_short.add(1);
    } else {
        batch.push(index, length);
        if let Some(tag) = tag {
            vlan::restore(batch.grow_front(batch.len() - 1, vlan::TAG), tag);
        }
    }
}

impl AsFd for Source {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }
}

pub struct Sink {
    handle: Arc<OwnedFd>,
    sender: Sender,
}

impl Sink {
    pub fn new(handle: Arc<OwnedFd>) -> Self {
        Self { handle, sender: Sender::new(BATCH, BATCH) }
    }

    pub fn send(&mut self, counters: &SharedPort, batch: &Batch, next: &mut usize) {
        let (sender, runs) = (&mut self.sender, &mut Runs::never());
        let sent = send_from(sender, runs, self.handle.as_fd(), batch, next, batch.len(), None);
        counters.tx_frames.add(sent.packets);
        counters.tx_bytes.add(sent.bytes);
        counters.tx_dropped_oversize.add(sent.oversize);
        counters.tx_errors.add(sent.errors);
    }
}

impl AsFd for Sink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;

    const TAGGED: VlanTag = VlanTag { tpid: 0x88a8, tci: 0xe063 };

    #[test]
    fn a_frame_with_its_tag_is_held_to_the_limit_and_one_without_a_header_is_none() {
        for (length, tag, oversize, short) in [
            (MAX_FRAME, None, 0, 0),
            (MAX_FRAME + 1, None, 1, 0),
            (MAX_FRAME - vlan::TAG, Some(TAGGED), 0, 0),
            (MAX_FRAME - vlan::TAG + 1, Some(TAGGED), 1, 0),
            // Longer than the slot: the kernel tells the length on the wire.
            (70_000, None, 1, 0),
            (HEADER, None, 0, 0),
            (HEADER - 1, None, 0, 1),
            (HEADER - 1, Some(TAGGED), 0, 1),
            (0, None, 0, 1),
        ] {
            let (mut batch, counters) = (Batch::with_slots(1), SharedPort::default());
            accept(&mut batch, 0, length, tag, &counters);
            let counted = (counters.rx_dropped_oversize.get(), counters.rx_dropped_short.get());
            assert_eq!(counted, (oversize, short), "{length}, {tag:?}");
            let expected = length + tag.map_or(0, |_| vlan::TAG);
            let left: Vec<_> = batch.frames(0).map(<[u8]>::len).collect();
            assert_eq!(left, vec![expected; 1 - usize::try_from(oversize + short).unwrap()], "{length}, {tag:?}");
        }
    }

    #[test]
    fn each_tag_goes_into_its_own_frame_also_behind_one_that_was_dropped() {
        let (mut batch, counters) = (Batch::with_slots(3), SharedPort::default());
        for (slot, byte) in batch.slots().zip(1..) {
            slot[..12].fill(byte);
            slot[12..20].copy_from_slice(b"\x08\x00within");
        }
        accept(&mut batch, 0, 20, None, &counters);
        accept(&mut batch, 1, 3, Some(VlanTag { tpid: 0x8100, tci: 1 }), &counters);
        accept(&mut batch, 2, 20, Some(TAGGED), &counters);
        assert_eq!(batch.frame(0), [&[1; 12][..], b"\x08\x00within"].concat());
        assert_eq!(batch.frame(1), [&[3; 12][..], b"\x88\xa8\xe0\x63\x08\x00within"].concat());
        // And may grow behind as if it had come so.
        assert_eq!(batch.grow_back(1, 16)[..24], *[&[3; 12][..], b"\x88\xa8\xe0\x63\x08\x00within"].concat());
    }

    #[test]
    fn what_waits_is_one_batch_and_a_handle_that_fails_is_no_empty_one() {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        let (mut source, mut batch, counters) =
            (Source::new(Arc::new(ours.into())), Batch::default(), SharedPort::default());
        assert_eq!(source.receive(&counters, &mut batch), Received::Nothing);
        for frame in [&[1; 60][..], &[2; 13], &[3; 14]] {
            theirs.send(frame).unwrap();
        }
        assert_eq!(source.receive(&counters, &mut batch), Received::Batch);
        assert!(batch.frames(0).eq([&[1; 60][..], &[3; 14]]));
        assert_eq!((counters.rx_dropped_short.get(), counters.rx_errors.get()), (1, 0));
        let no_socket = std::fs::File::open("/dev/null").unwrap();
        let mut source = Source::new(Arc::new(no_socket.into()));
        assert_eq!((source.receive(&counters, &mut batch), counters.rx_errors.get()), (Received::Error, 1));
    }
}
