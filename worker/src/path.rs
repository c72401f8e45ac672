//! The remote side: UDP sockets, opened by the helper.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use privsep::ipc::SharedPath;
use privsep::sys::worker::mmsg::{Receiver, Sender};

use crate::batch::{BATCH, Batch, MAX_DATAGRAM};
use crate::io::{Received, Runs, forget_errors, send_from};

/// Errors of a socket in a row, without one empty or successful call between them, from which on it counts as broken.
const LASTING: u32 = 1000;

/// Sends datagrams, by any path.
pub struct Outlet {
    sender: Sender,
    runs: Runs,
}

impl Default for Outlet {
    fn default() -> Self {
        Self { sender: Sender::new(BATCH, 2 * BATCH), runs: Runs::new() }
    }
}

impl Outlet {
    /// Sends the datagrams of the batch from number `next` to before `end`; where `next` is not `end` then, the socket is full.
    pub fn send(
        &mut self,
        socket: BorrowedFd<'_>,
        counters: &SharedPath,
        batch: &Batch,
        next: &mut usize,
        end: usize,
        target: Option<SocketAddr>,
    ) {
        let sent = send_from(&mut self.sender, &mut self.runs, socket, batch, next, end, target);
        counters.tx_datagrams.add(sent.packets);
        counters.tx_bytes.add(sent.bytes);
        counters.tx_dropped_oversize.add(sent.oversize);
        counters.tx_errors.add(sent.errors);
    }
}

/// Receives the datagrams of one path.
pub struct Inlet {
    socket: Arc<OwnedFd>,
    receiver: Receiver,
    /// Errors in a row.
    errors: u32,
}

impl Inlet {
    /// `learns` tells that it matters where a datagram comes from.
    pub fn new(socket: Arc<OwnedFd>, learns: bool) -> Self {
        let receiver = Receiver::new(BATCH);
        let receiver = if learns { receiver.with_sources() } else { receiver };
        Self { socket, receiver, errors: 0 }
    }

    /// See [`forget_errors`].
    pub fn forget_errors(&mut self, batch: &mut Batch) {
        forget_errors(&mut self.receiver, self.socket.as_fd(), batch);
    }

    /// Fills the batch with what is waiting, without blocking. Datagrams over the limit are dropped.
    pub fn receive(&mut self, counters: &SharedPath, batch: &mut Batch) -> Received {
        let count = match self.receiver.receive(self.socket.as_fd(), batch.slots()) {
            Ok(count) => count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                self.errors = 0;
                return Received::Nothing;
            }
            // An ICMP message about what we sent, from whomever: taken off the socket by this call, and no reason to stop
            // receiving. Only an error that does not go away is one of the socket.
            Err(_) => {
                counters.rx_errors.add(1);
                self.errors += 1;
                return if self.errors > LASTING { Received::Error } else { Received::Batch };
            }
        };
        self.errors = 0;
        for index in 0..count {
            match self.receiver.length(index) {
                length if length > MAX_DATAGRAM => counters.rx_dropped_oversize.add(1),
                length => batch.push(index, length).origin = self.receiver.source(index),
            }
        }
        counters.rx_datagrams.add(batch.len() as u64);
        counters.rx_bytes.add(batch.bytes());
        Received::Batch
    }
}

impl AsFd for Inlet {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
