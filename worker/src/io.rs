//! What both sides do with a descriptor: wait for it, and send a batch through it.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use privsep::sys::worker::mmsg::{Receiver, Sender};

use crate::batch::Batch;

/// Longest wait for room in a socket's queue before what is left of a batch is dropped.
const QUEUE_WAIT: Duration = Duration::from_millis(100);

/// What receiving has given.
pub enum Received {
    /// The batch holds what there was; it may be empty when all had to be dropped.
    Batch,
    /// Nothing is waiting.
    Nothing,
    /// The descriptor reported an error, which is counted.
    Error,
}

/// What became of a batch.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Sent {
    pub packets: u64,
    pub bytes: u64,
    /// Too long for the interface or the way.
    pub oversize: u64,
    pub errors: u64,
}

/// Sends every packet of the batch to `target`, or where the socket is connected or bound, past those that fail.
pub fn send_all(sender: &mut Sender, socket: BorrowedFd<'_>, batch: &Batch, target: Option<SocketAddr>) -> Sent {
    let mut sent = Sent::default();
    let (mut next, mut waited, mut retried) = (0, false, usize::MAX);
    while next < batch.len() {
        match sender.send(socket, batch.frames(next), target) {
            Ok(count) => {
                sent.packets += count as u64;
                sent.bytes += batch.frames(next).take(count).map(|packet| packet.len() as u64).sum::<u64>();
                next += count;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock && !waited => {
                waited = true;
                wait_writable(socket, QUEUE_WAIT);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                sent.errors += (batch.len() - next) as u64;
                return sent;
            }
            // Perhaps not about this packet, but an ICMP answer to an earlier one, which this call has taken off the socket.
            Err(_) if retried != next => retried = next,
            Err(error) => {
                let oversize = error.raw_os_error() == Some(libc::EMSGSIZE);
                *(if oversize { &mut sent.oversize } else { &mut sent.errors }) += 1;
                next += 1;
            }
        }
    }
    sent
}

/// Sleeps until there is something to read, or for `limit`; whether there is.
pub fn wait_readable(handle: BorrowedFd<'_>, limit: Duration) -> bool {
    !wait(handle, PollFlags::POLLIN, limit).is_empty()
}

/// As [`wait_readable`]; whether the handle reports an error.
pub fn wait_for_error(handle: BorrowedFd<'_>, limit: Duration) -> bool {
    wait(handle, PollFlags::POLLIN, limit).contains(PollFlags::POLLERR)
}

/// Empties a socket's error queue. We ask for nothing that would come there, but a worker before us may have, with a message
/// that no filter can look into: timestamps of all that it sends, which fill the receive buffer and wake us for ever.
pub fn forget_errors(receiver: &mut Receiver, socket: BorrowedFd<'_>, batch: &mut Batch) {
    while receiver.receive_errors(socket, batch.slots()).is_ok_and(|count| count > 0) {}
}

/// Sleeps until there is room to write, or for `limit`; whether there is.
fn wait_writable(handle: BorrowedFd<'_>, limit: Duration) -> bool {
    !wait(handle, PollFlags::POLLOUT, limit).is_empty()
}

fn wait(handle: BorrowedFd<'_>, events: PollFlags, limit: Duration) -> PollFlags {
    let mut polled = [PollFd::new(handle, events)];
    // An error here is an interruption; the caller tries again anyway.
    let ready = ppoll(&mut polled, Some(TimeSpec::from_duration(limit)), None).is_ok();
    polled[0].revents().filter(|_| ready).unwrap_or(PollFlags::empty())
}
