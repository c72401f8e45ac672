//! Input and output that all loops share: waiting for descriptors, sending a batch, the clock, waking another loop.

mod clock;
mod send;
mod waker;

use std::os::fd::BorrowedFd;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use privsep::sys::worker::mmsg::Receiver;

use crate::batch::Batch;
pub use clock::Clock;
pub use send::{Runs, Sent, send_from};
pub use waker::Waker;

/// What receiving has given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// The batch holds what there was; it may be empty when all had to be dropped.
    Batch,
    /// Nothing is waiting.
    Nothing,
    /// The descriptor reported an error, which is counted.
    Error,
}

/// Errors in a row that are tried again. Each can be an ICMP message about an earlier datagram, which a connected socket reports
/// once, whoever has sent the message; of as many in a row without one success, the packet or the way is the cause.
pub const TRIES: u32 = 16;
/// Calls that empty an error queue before other work is done.
const EMPTYING: usize = 8;

/// Takes messages off a socket's error queue, a bounded number in a turn, and returns how many. No socket of ours asks for any, but a
/// worker before us may have, by a control message that no filter can look into: timestamps of all that it sends, which fill the
/// receive buffer and wake us for ever.
pub fn forget_errors(receiver: &mut Receiver, socket: BorrowedFd<'_>, batch: &mut Batch) -> u64 {
    let calls = (0..EMPTYING).map_while(|_| match receiver.receive_errors(socket, batch.slots()) {
        Ok(count @ 1..) => Some(count as u64),
        Ok(_) | Err(_) => None,
    });
    calls.sum()
}

/// Sleeps until one of the descriptors is as asked, or for `limit`, and returns how each is; nothing after an interruption.
pub fn wait<const N: usize>(descriptors: [(BorrowedFd<'_>, PollFlags); N], limit: Option<Duration>) -> [PollFlags; N] {
    let mut polled = descriptors.map(|(descriptor, events)| PollFd::new(descriptor, events));
    let ready = ppoll(&mut polled, limit.map(TimeSpec::from_duration), None).is_ok();
    polled.map(|polled| polled.revents().filter(|_| ready).unwrap_or(PollFlags::empty()))
}
