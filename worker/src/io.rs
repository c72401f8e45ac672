//! What all loops do with descriptors: wait for several, send a batch, time, wake another loop.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::time::TimeSpec;
use privsep::sys::worker::mmsg::{Receiver, Sender};

use crate::batch::Batch;

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

/// What became of packets that were sent.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Sent {
    pub packets: u64,
    pub bytes: u64,
    /// Too long for the interface or the way.
    pub oversize: u64,
    pub errors: u64,
}

/// Sends the packets of the batch from number `next` to before `end` to `target`, or where the socket is connected or bound, past
/// those that fail. `next` is behind what is done with: where it is not `end`, the socket's queue is full.
pub fn send_from(
    sender: &mut Sender,
    socket: BorrowedFd<'_>,
    batch: &Batch,
    next: &mut usize,
    end: usize,
    target: Option<SocketAddr>,
) -> Sent {
    let mut sent = Sent::default();
    let mut retried = usize::MAX;
    while *next < end {
        let packets = || batch.frames(*next).take(end - *next);
        match sender.send(socket, packets(), target) {
            Ok(count) => {
                sent.packets += count as u64;
                sent.bytes += packets().take(count).map(|packet| packet.len() as u64).sum::<u64>();
                *next += count;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return sent,
            // Perhaps not about this packet, but an ICMP answer to an earlier one, which this call has taken off the socket.
            Err(_) if retried != *next => retried = *next,
            Err(error) => {
                let oversize = error.raw_os_error() == Some(libc::EMSGSIZE);
                *(if oversize { &mut sent.oversize } else { &mut sent.errors }) += 1;
                *next += 1;
            }
        }
    }
    sent
}

/// Empties a socket's error queue. We ask for nothing that would come there, but a worker before us may have, with a message
/// that no filter can look into: timestamps of all that it sends, which fill the receive buffer and wake us for ever.
pub fn forget_errors(receiver: &mut Receiver, socket: BorrowedFd<'_>, batch: &mut Batch) {
    while receiver.receive_errors(socket, batch.slots()).is_ok_and(|count| count > 0) {}
}

/// Sleeps until one of the descriptors is as asked, or for `limit`, and returns how each is; nothing after an interruption.
pub fn wait<const N: usize>(descriptors: [(BorrowedFd<'_>, PollFlags); N], limit: Option<Duration>) -> [PollFlags; N] {
    let mut polled = descriptors.map(|(descriptor, events)| PollFd::new(descriptor, events));
    let ready = ppoll(&mut polled, limit.map(TimeSpec::from_duration), None).is_ok();
    polled.map(|polled| polled.revents().filter(|_| ready).unwrap_or(PollFlags::empty()))
}

/// Time of a worker.
#[derive(Debug, Clone, Copy)]
pub struct Clock(Instant);

impl Clock {
    /// Begins now.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Microseconds since its start.
    pub fn now_us(self) -> u64 {
        u64::try_from(self.0.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// From now to `due_us`, rounded up, so that what is due is due when a wait of it ends; `None` for never.
    pub fn until(self, due_us: u64) -> Option<Duration> {
        (due_us != u64::MAX).then(|| Duration::from_micros(due_us.saturating_sub(self.now_us())))
    }
}

/// Wakes a loop that sleeps. Made before the worker is confined; eventfd(2).
pub struct Waker(EventFd);

impl Waker {
    pub fn new() -> nix::Result<Self> {
        EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).map(Self)
    }

    /// Wakes it, now or before its next sleep.
    pub fn wake(&self) {
        // One that cannot be written to has been woken 2^64 times.
        let _ = self.0.write(1);
    }

    /// Takes note of having been woken.
    pub fn clear(&self) {
        let _ = self.0.read();
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_waker_ends_a_wait_once_and_is_not_forgotten_before_it() {
        let waker = Waker::new().unwrap();
        waker.wake();
        waker.wake();
        let long = Some(Duration::from_secs(10));
        assert_eq!(wait([(waker.as_fd(), PollFlags::POLLIN)], long), [PollFlags::POLLIN]);
        waker.clear();
        let short = Some(Duration::from_millis(1));
        assert_eq!(wait([(waker.as_fd(), PollFlags::POLLIN)], short), [PollFlags::empty()]);
    }

    #[test]
    fn the_time_until_something_is_due_is_never_negative_nor_short() {
        let clock = Clock::start();
        assert_eq!((clock.until(0), clock.until(u64::MAX)), (Some(Duration::ZERO), None));
        let due = clock.now_us() + 2000;
        std::thread::sleep(clock.until(due).unwrap());
        assert!(clock.now_us() >= due);
    }
}
