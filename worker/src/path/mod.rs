//! The remote side: UDP sockets, who is behind them, and the health of the way there.

pub mod health;
pub mod remote;

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering::Relaxed};

use privsep::sys::worker::mmsg::{Receiver, Sender};

use crate::batch::{BATCH, Batch, MAX_DATAGRAM};
use crate::counters;
use crate::io::{Received, forget_errors, send_all};
use crate::wire::fragment;
use remote::{Remote, To};

/// Errors of a socket in a row, without one empty or successful call between them, from which on it counts as broken.
const LASTING: u32 = 1000;

/// One way to the peer. Opened by the helper; shared by the threads.
pub struct Path {
    pub socket: OwnedFd,
    pub remote: Remote,
    pub counters: counters::Path,
    /// Tick in which the last PONG came; 0 before the first.
    pub last_pong: AtomicU64,
    /// When the last PING left, in microseconds since the worker's start.
    pub ping_sent_us: AtomicU64,
    /// From that PING to the PONG after it, in microseconds.
    pub rtt_us: AtomicU64,
    /// When the last datagram came, in microseconds since the worker's start; 0 before the first.
    pub received_us: AtomicU64,
}

/// How datagrams that are too large are split.
pub struct Splitting {
    /// Longest datagram in bytes that is sent whole.
    pub limit: usize,
    /// Sequence number of the next first fragment, always even; one for all threads and paths.
    pub sequence: AtomicU16,
}

/// Sends datagrams to the peer.
pub struct Outlet {
    sender: Sender,
    /// Where fragments are made, once there are any.
    pieces: Option<Batch>,
}

impl Outlet {
    pub fn new() -> Self {
        Self { sender: Sender::new(BATCH), pieces: None }
    }

    /// Sends every datagram of the batch, split where `splitting` demands it; true when nothing was lost.
    pub fn send(&mut self, path: &Path, batch: &Batch, splitting: Option<&Splitting>) -> bool {
        let target = match path.remote.to() {
            To::Connected => None,
            To::Address(address) => Some(address),
            To::Nobody => {
                path.counters.tx_dropped_unlearned.add(batch.len() as u64);
                return false;
            }
        };
        match splitting {
            Some(splitting) if batch.frames(0).any(|datagram| datagram.len() > splitting.limit) => {
                self.send_split(path, batch, splitting, target)
            }
            _ => transmit(&mut self.sender, path, batch, target),
        }
    }

    fn send_split(&mut self, path: &Path, batch: &Batch, splitting: &Splitting, target: Option<SocketAddr>) -> bool {
        let mut whole = true;
        let pieces = self.pieces.get_or_insert_default();
        pieces.clear();
        for datagram in batch.frames(0) {
            if pieces.len() + 2 > BATCH {
                whole &= transmit(&mut self.sender, path, pieces, target);
                pieces.clear();
            }
            if datagram.len() <= splitting.limit {
                pieces.append(|to| {
                    to[..datagram.len()].copy_from_slice(datagram);
                    datagram.len()
                });
            } else if datagram.len() < fragment::TOO_LONG {
                let first = splitting.sequence.fetch_add(2, Relaxed);
                pieces.append(|to| fragment::write(datagram, first, to));
                pieces.append(|to| fragment::write(datagram, first | 1, to));
            } else {
                path.counters.tx_dropped_unfragmentable.add(1);
                whole = false;
            }
        }
        transmit(&mut self.sender, path, pieces, target) && whole
    }
}

fn transmit(sender: &mut Sender, path: &Path, batch: &Batch, target: Option<SocketAddr>) -> bool {
    let sent = send_all(sender, path.socket.as_fd(), batch, target);
    path.counters.tx_datagrams.add(sent.packets);
    path.counters.tx_bytes.add(sent.bytes);
    path.counters.tx_dropped_oversize.add(sent.oversize);
    path.counters.tx_errors.add(sent.errors);
    sent.errors + sent.oversize == 0
}

/// Receives datagrams from the peer.
pub struct Inlet {
    receiver: Receiver,
    /// Where each datagram of the last batch came from; only looked at where the remote is learned.
    sources: [Option<SocketAddr>; BATCH],
    /// Errors in a row.
    errors: u32,
}

impl Inlet {
    pub fn new(path: &Path) -> Self {
        let receiver = if path.remote.is_learned() { Receiver::with_sources(BATCH) } else { Receiver::new(BATCH) };
        Self { receiver, sources: [None; BATCH], errors: 0 }
    }

    /// Where datagram `index` of the last batch came from.
    pub fn source(&self, index: usize) -> Option<SocketAddr> {
        self.sources[index]
    }

    /// See [`forget_errors`].
    pub fn forget_errors(&mut self, path: &Path, batch: &mut Batch) {
        forget_errors(&mut self.receiver, path.socket.as_fd(), batch);
    }

    /// Fills the batch with what is waiting, without blocking. Datagrams over the limit are dropped.
    pub fn receive(&mut self, path: &Path, batch: &mut Batch) -> Received {
        let count = match self.receiver.receive(path.socket.as_fd(), batch.slots()) {
            Ok(count) => count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                self.errors = 0;
                return Received::Nothing;
            }
            // An ICMP message about what we sent, from whomever: taken off the socket by this call, and no reason to stop
            // receiving. Only an error that does not go away is one of the socket.
            Err(_) => {
                path.counters.rx_errors.add(1);
                self.errors += 1;
                return if self.errors > LASTING { Received::Error } else { Received::Batch };
            }
        };
        self.errors = 0;
        for index in 0..count {
            match self.receiver.length(index) {
                length if length > MAX_DATAGRAM => path.counters.rx_dropped_oversize.add(1),
                length => {
                    self.sources[batch.len()] = self.receiver.source(index);
                    batch.push(index, length);
                }
            }
        }
        path.counters.rx_datagrams.add(batch.len() as u64);
        path.counters.rx_bytes.add(batch.bytes());
        Received::Batch
    }
}
