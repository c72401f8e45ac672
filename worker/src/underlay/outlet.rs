//! Outlet: sends datagrams by the socket of any path.

use std::os::fd::AsFd;

use privsep::ipc::{MAX_PATHS, SharedPath};
use privsep::sys::worker::mmsg::Sender;

use super::socket::Socket;
use crate::batch::{BATCH, Batch, PACKETS};
use crate::io::{Runs, send_from};
use crate::wire::Departure;

/// Sends datagrams by any path.
pub struct Outlet {
    sender: Sender,
    /// Of each path: another device, route and socket refuse other runs.
    runs: [Runs; MAX_PATHS],
    single: Runs,
}

impl Default for Outlet {
    fn default() -> Self {
        Self { sender: Sender::new(BATCH, PACKETS), runs: std::array::from_fn(|_| Runs::new()), single: Runs::never() }
    }
}

impl Outlet {
    /// Forgets that runs of a path were refused: the next ones leave as such.
    pub fn try_runs(&mut self, path: usize) {
        if let Some(runs) = self.runs.get_mut(path) {
            *runs = Runs::new();
        }
    }

    /// Sends the datagrams of the batch from number `next` to before `end`, in runs if the departure allows them. If `next` is then
    /// not `end`, the socket's queue is full.
    pub fn send(
        &mut self,
        socket: &Socket,
        counters: &SharedPath,
        batch: &Batch,
        next: &mut usize,
        &Departure { path, target, runs, ref datagrams }: &Departure,
    ) {
        let (end, destination) = (datagrams.end, Some(socket.destination(target)));
        let runs = self.runs.get_mut(path).filter(|_| runs).unwrap_or(&mut self.single);
        let sender = &mut self.sender;
        let sent = send_from(sender, runs, socket.as_fd(), batch, next, end, destination);
        counters.tx_datagrams.add(sent.packets);
        counters.tx_bytes.add(sent.bytes);
        counters.tx_dropped_oversize.add(sent.oversize);
        counters.tx_errors.add(sent.errors);
    }
}
