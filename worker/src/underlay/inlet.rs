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
use crate::io::{Received, TRIES, forget_errors};

/// Errors of a socket in a row, without one empty or successful call between them, from which on it counts as broken.
pub(super) const LASTING: u32 = 1000;

/// Receives the datagrams of one path.
pub struct Inlet {
    pub(super) socket: Arc<Socket>,
    receiver: Receiver,
    /// Errors in a row.
    errors: u32,
}

impl Inlet {
    /// Runs of datagrams come where the helper has asked for them.
    pub fn new(socket: Arc<Socket>) -> Self {
        Self { socket, receiver: Receiver::with_control(BATCH).with_sources(), errors: 0 }
    }

    /// Takes off the socket what [`forget_errors`] does, and counts it.
    pub fn forget_errors(&mut self, counters: &SharedPath, batch: &mut Batch) {
        counters.rx_errors.add(forget_errors(&mut self.receiver, self.socket.as_fd(), batch));
    }

    /// Fills the batch with what is waiting, without blocking. Datagrams over the limit are dropped.
    pub fn receive(&mut self, counters: &SharedPath, batch: &mut Batch) -> Received {
        let mut tries = 0;
        let count = loop {
            match self.receiver.receive(self.socket.as_fd(), batch.slots()) {
                Ok(count) => break count,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                    self.errors = 0;
                    return Received::Nothing;
                }
                // An ICMP message about what we sent, from whomever: taken off a connected socket by this call, and no reason to
                // stop receiving. Only an error that does not go away is one of the socket.
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
                Peer::Learned => source.map(|remote| Endpoint { remote, local: self.receiver.local(index) }),
            };
            accept(batch, index, (length, each), origin, counters);
        }
        counters.rx_datagrams.add(batch.len() as u64);
        counters.rx_bytes.add(batch.bytes());
        Received::Batch
    }
}

/// Counts an error of reading, and which message it tells of. Those that a host or a network is unreachable are not among them: the
/// kernel keeps them from a socket that has not asked for all (`icmp_err_convert`, `icmpv6_err_convert`).
fn count(error: &io::Error, counters: &SharedPath) {
    counters.rx_errors.add(1);
    match error.raw_os_error() {
        Some(libc::ECONNREFUSED) => counters.rx_refused.add(1),
        Some(libc::EHOSTUNREACH | libc::ENETUNREACH | libc::EACCES) => counters.rx_prohibited.add(1),
        _ => {}
    }
}

/// Whether two addresses are one, by whichever interface.
fn same(one: SocketAddr, other: SocketAddr) -> bool {
    (one.ip(), one.port()) == (other.ip(), other.port())
}

/// Takes what was received into slot `index`: its length, and that of each datagram in it but the last; or drops and counts it.
pub fn accept(
    batch: &mut Batch,
    index: usize,
    (length, each): (usize, usize),
    origin: Option<Endpoint>,
    counters: &SharedPath,
) {
    // Also an empty datagram is one.
    let count = length.div_ceil(each.max(1)).max(1);
    if each > MAX_DATAGRAM {
        counters.rx_dropped_oversize.add(count as u64);
    } else if count > RUN {
        // As of a virtual machine that says so, where the kernel does not look: there is no memory for so many.
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
