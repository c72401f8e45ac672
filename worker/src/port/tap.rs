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
