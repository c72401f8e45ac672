//! A TAP interface: one frame a read, one a write.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::unistd::{read, write};
use privsep::ipc::SharedPort;

use crate::batch::{Batch, MAX_FRAME};
use crate::io::Received;

pub struct Source {
    handle: Arc<OwnedFd>,
}

impl Source {
    pub fn new(handle: Arc<OwnedFd>) -> Self {
        Self { handle }
    }

    pub fn receive(&mut self, counters: &SharedPort, batch: &mut Batch) -> Received {
        // Lengths first: the slots are borrowed while they are read into.
        let mut lengths = [0; crate::batch::BATCH];
        let (mut count, mut end) = (0, Received::Batch);
        for (slot, length) in batch.slots().zip(&mut lengths) {
            match read(&self.handle, slot) {
                Ok(read) => *length = read,
                Err(Errno::EAGAIN | Errno::EINTR) if count == 0 => return Received::Nothing,
                Err(Errno::EAGAIN | Errno::EINTR) => break,
                Err(_) => {
                    counters.rx_errors.add(1);
                    end = Received::Error;
                    break;
                }
            }
            count += 1;
        }
        for (index, &length) in lengths[..count].iter().enumerate() {
            // A frame longer than the slot is cut by the kernel to the slot, which is over the limit.
            if length <= MAX_FRAME {
                batch.push(index, length);
            } else {
                counters.rx_dropped_oversize.add(1);
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
}

impl Sink {
    pub fn new(handle: Arc<OwnedFd>) -> Self {
        Self { handle }
    }

    pub fn send(&mut self, counters: &SharedPort, batch: &Batch, next: &mut usize) {
        let (mut frames, mut bytes, mut errors) = (0, 0, 0);
        for frame in batch.frames(*next) {
            match write(&self.handle, frame) {
                Ok(_) => {
                    frames += 1;
                    bytes += frame.len() as u64;
                }
                Err(_) => errors += 1,
            }
        }
        *next = batch.len();
        counters.tx_frames.add(frames);
        counters.tx_bytes.add(bytes);
        counters.tx_errors.add(errors);
    }
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

    /// A handle that gives and takes one frame a call, and the other end of it.
    fn pair() -> (Arc<OwnedFd>, UnixDatagram) {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        theirs.set_nonblocking(true).unwrap();
        (Arc::new(ours.into()), theirs)
    }

    #[test]
    fn frames_come_in_their_order_without_those_that_are_too_long() {
        let (handle, theirs) = pair();
        let (mut source, mut batch, counters) = (Source::new(handle), Batch::default(), SharedPort::default());
        assert_eq!(source.receive(&counters, &mut batch), Received::Nothing);
        let frames = [vec![1; 60], vec![2; MAX_FRAME + 1], vec![3; MAX_FRAME], vec![4; 20_000], vec![5; 14]];
        for frame in &frames {
            theirs.send(frame).unwrap();
        }
        assert_eq!(source.receive(&counters, &mut batch), Received::Batch);
        assert!(batch.frames(0).eq([&frames[0][..], &frames[2], &frames[4]]));
        assert_eq!((counters.rx_dropped_oversize.get(), counters.rx_errors.get()), (2, 0));
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
            assert_eq!(theirs.recv(&mut buffer).map(|length| &buffer[..length]).unwrap(), expected);
        }
        assert_eq!((next, counters.tx_frames.get(), counters.tx_bytes.get()), (3, 2, 114));
        drop(theirs);
        next = 0;
        sink.send(&counters, &batch, &mut next);
        assert_eq!((next, counters.tx_frames.get(), counters.tx_errors.get()), (3, 2, 3));
    }
}
