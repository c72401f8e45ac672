//! A TAP interface: one frame a read, one a write. In front of each is what the kernel says of it, or is to be told: it gives and
//! takes superframes, and leaves checksums to whoever sends the frame on.

use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::uio::writev;
use nix::unistd::read;
use privsep::ipc::SharedPort;

use super::outgoing::{Outgoing, Packet};
use super::settle;
use crate::batch::{Batch, Segments};
use crate::frame::coalesce::FRAMES;
use crate::frame::offload::{self, SHORT};
use crate::io::Received;

pub struct Source {
    handle: Arc<OwnedFd>,
}

impl Source {
    pub fn new(handle: Arc<OwnedFd>) -> Self {
        Self { handle }
    }

    pub fn receive(&mut self, counters: &SharedPort, batch: &mut Batch) -> Received {
        batch.clear();
        let mut end = Received::Nothing;
        while let Some(slot) = batch.next_slot(SHORT) {
            match read(&self.handle, slot) {
                Ok(length) => {
                    let (header, frame) = slot[..length].split_at(length.min(SHORT));
                    let (facts, length) = (offload::parse(header, frame), frame.len());
                    match facts {
                        Ok(facts) => {
                            batch.pack(length).facts = facts;
                            settle(batch, counters);
                        }
                        Err(_) => counters.rx_dropped_offload.add(1),
                    }
                }
                Err(Errno::EAGAIN | Errno::EINTR) => break,
                Err(_) => {
                    counters.rx_errors.add(1);
                    end = Received::Error;
                    break;
                }
            }
        }
        if batch.is_empty() { end } else { Received::Batch }
    }
}

impl AsFd for Source {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }
}

pub struct Sink {
    handle: Arc<OwnedFd>,
    outgoing: Outgoing,
}

impl Sink {
    pub fn new(handle: Arc<OwnedFd>) -> Self {
        Self { handle, outgoing: Outgoing::new(true) }
    }

    /// Gives away all frames from `next` on, whatever becomes of them: a TAP has no queue that could be full.
    pub fn send(&mut self, counters: &SharedPort, batch: &Batch, next: &mut usize) {
        let Self { handle, outgoing } = self;
        let (mut frames, mut bytes, mut errors, mut refuses_udp) = (0, 0, 0, false);
        outgoing.begin(batch, *next, usize::MAX);
        loop {
            let Some(packet) = outgoing.packets(batch).next() else { break };
            if write(handle, &packet).is_ok() {
                for frame in packet.frames() {
                    frames += 1;
                    bytes += frame.len() as u64;
                }
                outgoing.advance(1);
            } else if let Some(facts) = outgoing.refuse() {
                // A kernel before 6.2 knows none of UDP.
                refuses_udp |= facts.superframe.is_some_and(|superframe| superframe.kind == Segments::Udp);
            } else {
                errors += 1;
                outgoing.advance(1);
            }
        }
        if refuses_udp {
            *outgoing = Outgoing::new(false);
        }
        *next = batch.len();
        counters.tx_frames.add(frames);
        counters.tx_bytes.add(bytes);
        counters.tx_errors.add(errors);
    }
}

/// Writes one.
fn write(handle: &OwnedFd, packet: &Packet<'_>) -> nix::Result<usize> {
    let mut slices = [IoSlice::new(&[]); FRAMES + 2];
    let mut count = 0;
    for (slice, piece) in slices.iter_mut().zip(packet.pieces()) {
        *slice = IoSlice::new(piece);
        count += 1;
    }
    writev(handle, &slices[..count])
}

impl AsFd for Sink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::net::UnixDatagram;

    use super::*;
    use crate::batch::MAX_FRAME;

    /// A handle that gives and takes one frame a call, and the other end of it.
    fn pair() -> (Arc<OwnedFd>, UnixDatagram) {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        theirs.set_nonblocking(true).unwrap();
        (Arc::new(ours.into()), theirs)
    }

    /// A frame as the kernel gives it, of which it says nothing.
    fn plain(frame: &[u8]) -> Vec<u8> {
        [&[0; SHORT][..], frame].concat()
    }

    #[test]
    fn frames_come_in_their_order_without_those_that_are_too_long_or_make_no_sense() {
        let (handle, theirs) = pair();
        let mut source = Source::new(handle);
        let (mut batch, counters) = (Batch::for_superframes(), SharedPort::default());
        assert_eq!(source.receive(&counters, &mut batch), Received::Nothing);
        let frames = [vec![1; 60], vec![2; MAX_FRAME + 1], vec![3; MAX_FRAME], vec![4; 13], vec![5; 14]];
        for frame in &frames {
            theirs.send(&plain(frame)).unwrap();
        }
        theirs.send(&[0; SHORT - 1]).unwrap();
        theirs.send(&[&[1, 1, 0, 0, 9, 0, 34, 0, 16, 0][..], &[7; 100]].concat()).unwrap();
        assert_eq!(source.receive(&counters, &mut batch), Received::Batch);
        assert!(batch.frames(0).eq([&frames[0][..], &frames[2], &frames[4]]));
        let dropped = [&counters.rx_dropped_oversize, &counters.rx_dropped_short, &counters.rx_dropped_offload];
        assert_eq!((dropped.map(privsep::ipc::Counter::get), counters.rx_errors.get()), ([1, 1, 2], 0));
    }

    #[test]
    fn a_checksum_that_is_left_to_us_is_completed() {
        let (handle, theirs) = pair();
        let (mut source, mut batch) = (Source::new(handle), Batch::for_superframes());
        let frame = [&[0; 14][..], &[0x12, 0x34, 0, 0, 0x56, 0x78]].concat();
        let header: Vec<u8> = [0x0001_u16, 0, 0, 14, 2].into_iter().flat_map(u16::to_ne_bytes).collect();
        theirs.send(&[&header[..], &frame].concat()).unwrap();
        assert_eq!(source.receive(&SharedPort::default(), &mut batch), Received::Batch);
        assert_eq!(batch.frame(0)[14..], [0x12, 0x34, 0x97, 0x53, 0x56, 0x78]);
        assert_eq!(batch.span(0).facts, crate::batch::Facts::default());
    }

    #[test]
    fn an_error_is_told_from_nothing_and_counted() {
        let no_reader = File::options().write(true).open("/dev/null").unwrap();
        let mut source = Source::new(Arc::new(no_reader.into()));
        let (mut batch, counters) = (Batch::default(), SharedPort::default());
        assert_eq!((source.receive(&counters, &mut batch), counters.rx_errors.get()), (Received::Error, 1));
    }

    #[test]
    fn each_frame_is_a_write_and_none_waits_for_one_that_is_refused() {
        let (handle, theirs) = pair();
        let (mut sink, mut batch, counters) = (Sink::new(handle), Batch::default(), SharedPort::default());
        for (byte, length) in [(1, 60), (2, 14), (3, 100)] {
            batch.append_copy(&vec![byte; length]);
        }
        let mut next = 1;
        sink.send(&counters, &batch, &mut next);
        let mut buffer = [0; 200];
        for expected in [&[2; 14][..], &[3; 100]] {
            assert_eq!(theirs.recv(&mut buffer).map(|length| &buffer[..length]).unwrap(), plain(expected));
        }
        assert_eq!((next, counters.tx_frames.get(), counters.tx_bytes.get()), (3, 2, 114));
        drop(theirs);
        next = 0;
        sink.send(&counters, &batch, &mut next);
        assert_eq!((next, counters.tx_frames.get(), counters.tx_errors.get()), (3, 2, 3));
    }
}
