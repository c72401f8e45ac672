//! The remote side: UDP sockets and the health of what is behind them.

pub mod health;

use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::AtomicU64;

use privsep::sys::mmsg::{Receiver, Sender};

use crate::batch::{BATCH, Batch, MAX_DATAGRAM};
use crate::counters;
use crate::io::{Received, send_all};

/// One way to the peer. Opened by the helper, connected to its remote; shared by the threads.
pub struct Path {
    pub socket: OwnedFd,
    pub counters: counters::Path,
    /// Tick in which the last PONG came; 0 before the first.
    pub last_pong: AtomicU64,
    /// When the last PING left, in microseconds since the worker's start.
    pub ping_sent_us: AtomicU64,
    /// From that PING to the PONG after it, in microseconds.
    pub rtt_us: AtomicU64,
}

/// Sends datagrams to the peer.
pub struct Outlet {
    sender: Sender,
}

impl Outlet {
    pub fn new() -> Self {
        Self { sender: Sender::new(BATCH) }
    }

    /// Sends every datagram of the batch.
    pub fn send(&mut self, path: &Path, batch: &Batch) {
        let sent = send_all(&mut self.sender, path.socket.as_fd(), batch);
        path.counters.tx_datagrams.add(sent.packets);
        path.counters.tx_bytes.add(sent.bytes);
        path.counters.tx_errors.add(sent.errors);
    }

    /// Sends one sealed control message; false when that failed.
    pub fn send_message(&mut self, path: &Path, datagram: &[u8]) -> bool {
        let mut send = || self.sender.send(path.socket.as_fd(), std::iter::once(datagram));
        let sent = match send() {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => send().is_ok(),
            result => result.is_ok(),
        };
        if sent {
            path.counters.tx_datagrams.add(1);
            path.counters.tx_bytes.add(datagram.len() as u64);
        } else {
            path.counters.tx_errors.add(1);
        }
        sent
    }
}

/// Receives datagrams from the peer.
pub struct Inlet {
    receiver: Receiver,
}

impl Inlet {
    pub fn new() -> Self {
        Self { receiver: Receiver::new(BATCH, false) }
    }

    /// Fills the batch with what is waiting, without blocking. Datagrams over the limit are dropped.
    pub fn receive(&mut self, path: &Path, batch: &mut Batch) -> Received {
        let count = match self.receiver.receive(path.socket.as_fd(), batch.slots()) {
            Ok(count) => count,
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::Interrupted => return Received::Nothing,
                // The peer's host answers that nobody listens there: its business, and no reason to pause.
                ErrorKind::ConnectionRefused | ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => {
                    path.counters.rx_errors.add(1);
                    return Received::Batch;
                }
                _ => {
                    path.counters.rx_errors.add(1);
                    return Received::Error;
                }
            },
        };
        for index in 0..count {
            match self.receiver.length(index) {
                length if length > MAX_DATAGRAM => path.counters.rx_dropped_oversize.add(1),
                length => batch.push(index, length),
            }
        }
        path.counters.rx_datagrams.add(batch.len() as u64);
        path.counters.rx_bytes.add(batch.bytes());
        Received::Batch
    }
}
