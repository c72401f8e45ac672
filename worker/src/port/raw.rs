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
            let length = self.receiver.length(index);
            let tag = self.receiver.vlan_tag(index);
            if length + tag.map_or(0, |_| vlan::TAG) > MAX_FRAME {
                counters.rx_dropped_oversize.add(1);
            } else if length < HEADER {
                counters.rx_dropped_short.add(1);
            } else {
                batch.push(index, length);
                restore(batch, tag);
            }
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

/// Puts the tag back into the frame that was pushed last.
fn restore(batch: &mut Batch, tag: Option<VlanTag>) {
    if let Some(tag) = tag {
        vlan::restore(batch.grow_front(batch.len() - 1, vlan::TAG), tag);
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
