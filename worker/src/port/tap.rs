//! TAP interface: one frame a read, one a write. Each frame follows a `virtio_net_hdr`: the interface gives and takes superframes,
//! and leaves checksums to the forwarding program.

use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::uio::writev;
use nix::unistd::read;
use privsep::ipc::SharedPort;

use super::outgoing::{Outgoing, Packet};
use super::settle;
use crate::batch::Batch;
use crate::frame::offload::coalesce::FRAMES;
use crate::frame::offload::superframe::Segments;
use crate::frame::offload::{self, SHORT};
use crate::io::Received;

pub struct Source {
    handle: Arc<OwnedFd>,
    /// Whether partial checksums may stay.
    partial: bool,
}

impl Source {
    pub fn new(handle: Arc<OwnedFd>, partial: bool) -> Self {
        Self { handle, partial }
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
                            settle(batch, self.partial, counters);
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

/// Frames after which refused superframes of UDP are tried again.
const PAUSE: u64 = 10_000;

pub struct Sink {
    handle: Arc<OwnedFd>,
    outgoing: Outgoing,
    /// Number of frames for which no superframes of UDP are made.
    pause: u64,
}

impl Sink {
    pub fn new(handle: Arc<OwnedFd>, singly: bool) -> Self {
        Self { handle, outgoing: Outgoing::new(singly), pause: 0 }
    }

    /// Writes all frames from `next` on, and counts errors. A TAP has no queue that could be full.
    pub fn send(&mut self, counters: &SharedPort, batch: &Batch, next: &mut usize) {
        let Self { handle, outgoing, pause } = self;
        let (mut frames, mut bytes, mut errors) = (0, 0, 0);
        outgoing.make_udp(*pause == 0);
        outgoing.begin(batch, *next, |_| true);
        loop {
            let Some(packet) = outgoing.packets(batch).next() else { break };
            let written = write(handle, &packet);
            let count = packet.frames().count() as u64;
            match written {
                Ok(_) => {
                    frames += count;
                    bytes += packet.frames().map(|frame| frame.len() as u64).sum::<u64>();
                }
                Err(error) => match outgoing.refuse(error) {
                    // Kernels before 6.2 do not know superframes of UDP.
                    Some(facts) => {
                        let udp = facts.superframe.is_some_and(|superframe| superframe.kind == Segments::Udp);
                        *pause = if udp && error == Errno::EINVAL { PAUSE } else { *pause };
                        continue;
                    }
                    None => errors += count,
                },
            }
            outgoing.advance(1);
        }
        *pause = pause.saturating_sub(frames);
        *next = batch.len();
        counters.tx_frames.add(frames);
        counters.tx_bytes.add(bytes);
        counters.tx_errors.add(errors);
    }
}

/// Writes one packet.
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

    use nix::sys::timerfd::{ClockId, TimerFd, TimerFlags};

    use super::*;
    use crate::batch::MAX_FRAME;
    use crate::frame::checksum::Sum;

    /// Handle that gives and takes one frame a call, and its other end.
    fn pair() -> (Arc<OwnedFd>, UnixDatagram) {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        theirs.set_nonblocking(true).unwrap();
        (Arc::new(ours.into()), theirs)
    }

    /// Frame as the kernel gives it, with empty facts.
    fn plain(frame: &[u8]) -> Vec<u8> {
        [&[0; SHORT][..], frame].concat()
    }

    #[test]
    fn invalid_frames_are_dropped_in_order() {
        let (handle, theirs) = pair();
        let mut source = Source::new(handle, false);
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
    fn partial_checksum_is_completed() {
        let (handle, theirs) = pair();
        let (mut source, mut batch) = (Source::new(handle, false), Batch::for_superframes());
        let frame = [&[0; 14][..], &[0x12, 0x34, 0, 0, 0x56, 0x78]].concat();
        let header: Vec<u8> = [0x0001_u16, 0, 0, 14, 2].into_iter().flat_map(u16::to_ne_bytes).collect();
        theirs.send(&[&header[..], &frame].concat()).unwrap();
        assert_eq!(source.receive(&SharedPort::default(), &mut batch), Received::Batch);
        assert_eq!(batch.frame(0)[14..], [0x12, 0x34, 0x97, 0x53, 0x56, 0x78]);
        assert_eq!(batch.span(0).facts, crate::frame::offload::superframe::Facts::default());
    }

    #[test]
    fn read_errors_are_counted() {
        let no_reader = File::options().write(true).open("/dev/null").unwrap();
        let mut source = Source::new(Arc::new(no_reader.into()), false);
        let (mut batch, counters) = (Batch::default(), SharedPort::default());
        assert_eq!((source.receive(&counters, &mut batch), counters.rx_errors.get()), (Received::Error, 1));
    }

    /// Number of writes for two datagrams that could be one superframe.
    fn writes(sink: &mut Sink, theirs: &UnixDatagram) -> usize {
        let mut batch = Batch::default();
        for _ in 0..2 {
            batch.append_copy(&datagram());
        }
        sink.send(&SharedPort::default(), &batch, &mut 0);
        std::iter::from_fn(|| theirs.recv(&mut [0; 200]).ok()).count()
    }

    /// Frame of UDP over IPv4 with right checksums.
    fn datagram() -> Vec<u8> {
        let mut frame = vec![7; 54];
        frame[12..34].copy_from_slice(&[8, 0, 0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2]);
        frame[38..42].copy_from_slice(&[0, 20, 0, 0]);
        let header = Sum::of(&frame[14..34]).checksum();
        frame[24..26].copy_from_slice(&header);
        let sum = Sum::of(&frame[26..54]).plus(Sum::word(17)).plus(Sum::word(20)).checksum();
        frame[40..42].copy_from_slice(&sum);
        frame
    }

    #[test]
    fn refused_udp_superframes_are_retried() {
        let (handle, theirs) = pair();
        // A descriptor that never allows writes, which gives the same error; and a socket whose reader has gone.
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::empty()).unwrap();
        let refuses: Arc<OwnedFd> = Arc::new(timer.as_fd().try_clone_to_owned().unwrap());
        let gone = pair().0;
        let mut sink = Sink::new(Arc::clone(&handle), false);
        let with = |sink: &mut Sink, handle: &Arc<OwnedFd>| {
            sink.handle = Arc::clone(handle);
            writes(sink, &theirs)
        };
        assert_eq!(with(&mut sink, &handle), 1);
        with(&mut sink, &gone);
        assert_eq!(with(&mut sink, &handle), 1);
        with(&mut sink, &refuses);
        for frames in (0..PAUSE).step_by(2) {
            assert_eq!(with(&mut sink, &handle), 2, "after {frames} frames");
        }
        assert_eq!(with(&mut sink, &handle), 1);
    }

    #[test]
    fn refused_frame_delays_no_other() {
        let (handle, theirs) = pair();
        let (mut sink, mut batch, counters) = (Sink::new(handle, false), Batch::default(), SharedPort::default());
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
