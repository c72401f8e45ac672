//! Inlet: receives the datagrams of one path.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use privsep::ipc::SharedPath;
use privsep::sys::worker::mmsg::Receiver;

use super::socket::{Peer, Socket};
use crate::batch::{BATCH, Batch, MAX_DATAGRAM, RUN};
use crate::endpoint::Endpoint;
use crate::frame::class;
use crate::io::{Received, TRIES, forget_errors};

/// Consecutive errors of a socket, without an empty or successful call between them, after which it counts as broken.
pub(super) const LASTING: u32 = 1000;

/// Receives the datagrams of one path.
pub struct Inlet {
    pub(super) socket: Arc<Socket>,
    receiver: Receiver,
    /// Consecutive errors.
    errors: u32,
    /// Whether the ECN of the datagrams is read.
    ecn: bool,
}

impl Inlet {
    /// Receives runs of datagrams if the helper has enabled them.
    pub fn new(socket: Arc<Socket>) -> Self {
        Self { socket, receiver: Receiver::with_control(BATCH).with_sources(), errors: 0, ecn: false }
    }

    /// Also reads the ECN of the datagrams, if `ecn` is set and the socket reports it.
    #[must_use]
    pub fn with_ecn(self, ecn: bool) -> Self {
        Self { ecn, ..self }
    }

    /// Empties the error queue as [`forget_errors`] does, and counts the messages.
    pub fn forget_errors(&mut self, counters: &SharedPath, batch: &mut Batch) {
        counters.rx_errors.add(forget_errors(&mut self.receiver, self.socket.as_fd(), batch));
    }

    /// Fills the batch with queued datagrams, without blocking. Drops datagrams over the limit.
    pub fn receive(&mut self, counters: &SharedPath, batch: &mut Batch) -> Received {
        let mut tries = 0;
        let count = loop {
            match self.receiver.receive(self.socket.as_fd(), batch.slots()) {
                Ok(count) => break count,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                    self.errors = 0;
                    return Received::Nothing;
                }
                // An ICMP message about a sent datagram, from any host. This call has removed it from the connected socket, and
                // receiving continues. Only a persistent error is one of the socket.
                Err(error) => {
                    count(&error, counters);
                    (self.errors, tries) = (self.errors + 1, tries + 1);
                    if self.errors > LASTING {
                        return Received::Error;
                    }
                    if tries == TRIES {
                        return Received::Batch;
                    }
                }
            }
        };
        self.errors = 0;
        for index in 0..count {
            let length = self.receiver.length(index);
            let each = self.receiver.segment(index).unwrap_or(length);
            let source = self.receiver.source(index);
            let origin = match self.socket.peer {
                Peer::Connected(remote) if source.is_none_or(|source| same(source, remote)) => None,
                Peer::Fixed(remote) if source.is_some_and(|source| same(source, remote)) => {
                    Some(Endpoint { remote, local: self.receiver.local(index) })
                }
                Peer::Connected(_) | Peer::Fixed(_) => {
                    counters.rx_dropped_foreign.add(length.div_ceil(each.max(1)).max(1) as u64);
                    continue;
                }
                Peer::Changing => source.map(|remote| Endpoint { remote, local: self.receiver.local(index) }),
            };
            let first = batch.len();
            accept(batch, index, (length, each), origin, counters);
            if self.ecn {
                batch.set_class(first.., self.receiver.class(index) & class::ECN);
            }
        }
        counters.rx_datagrams.add(batch.len() as u64);
        counters.rx_bytes.add(batch.bytes());
        Received::Batch
    }
}

/// Counts an error of reading, and the kind of ICMP message. Host and network unreachable are never reported: the kernel hides them
/// from a socket that has not requested all errors (`icmp_err_convert`, `icmpv6_err_convert`).
fn count(error: &io::Error, counters: &SharedPath) {
    counters.rx_errors.add(1);
    match error.raw_os_error() {
        Some(libc::ECONNREFUSED) => counters.rx_refused.add(1),
        Some(libc::EHOSTUNREACH | libc::ENETUNREACH | libc::EACCES) => counters.rx_prohibited.add(1),
        _ => {}
    }
}

/// Whether two addresses are equal, ignoring the interface.
fn same(one: SocketAddr, other: SocketAddr) -> bool {
    (one.ip(), one.port()) == (other.ip(), other.port())
}

/// Takes `length` bytes received into slot `index`, in datagrams of `each` bytes of which the last may be shorter; or drops and
/// counts them.
pub fn accept(
    batch: &mut Batch,
    index: usize,
    (length, each): (usize, usize),
    origin: Option<Endpoint>,
    counters: &SharedPath,
) {
    // An empty message is one datagram.
    let count = length.div_ceil(each.max(1)).max(1);
    if each > MAX_DATAGRAM {
        counters.rx_dropped_oversize.add(count as u64);
    } else if count > RUN {
        // For example from a virtual machine, whose segment size the kernel does not check. There is no memory for so many.
        counters.rx_dropped_invalid.add(count as u64);
    } else {
        batch.push_run(index, length, each, origin);
    }
}

impl AsFd for Inlet {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
