//! Input and output common to all loops: waiting for descriptors, sending batches, the clock, and wakers.

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

/// Result of receiving.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// The batch has the received packets. It may be empty if all were dropped.
    Batch,
    /// No packet is queued.
    Nothing,
    /// The descriptor reported an error, which is already counted.
    Error,
}

/// Consecutive errors after which a call is no longer repeated. One error may be an ICMP message about an earlier datagram, from
/// any host, which a connected socket reports once. This many without success are caused by the packet or the path.
pub const TRIES: u32 = 16;
/// Most calls to empty an error queue at a time.
const EMPTYING: usize = 8;

/// Removes messages from a socket's error queue, a bounded number at a time, and returns how many. This program requests no such
/// messages. An earlier, compromised worker may have requested timestamps of all sent packets by a control message, which no filter
/// can inspect. They would fill the receive buffer and wake the loop forever.
pub fn forget_errors(receiver: &mut Receiver, socket: BorrowedFd<'_>, batch: &mut Batch) -> u64 {
    let calls = (0..EMPTYING).map_while(|_| match receiver.receive_errors(socket, batch.slots()) {
        Ok(count @ 1..) => Some(count as u64),
        Ok(_) | Err(_) => None,
    });
    calls.sum()
}

/// Sleeps until a descriptor is ready, or for `limit`. Returns the events of each; none after an interruption.
pub fn wait<const N: usize>(descriptors: [(BorrowedFd<'_>, PollFlags); N], limit: Option<Duration>) -> [PollFlags; N] {
    let mut polled = descriptors.map(|(descriptor, events)| PollFd::new(descriptor, events));
    let ready = ppoll(&mut polled, limit.map(TimeSpec::from_duration), None).is_ok();
    polled.map(|polled| polled.revents().filter(|_| ready).unwrap_or(PollFlags::empty()))
}
