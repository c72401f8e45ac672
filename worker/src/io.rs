//! What all loops do with descriptors: wait for several, send a batch, time, wake another loop.

use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::time::TimeSpec;
use privsep::ipc::Moment;
use privsep::sys::worker::mmsg::{Destination, MAX_SEGMENTS, Receiver, Sender};

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

/// Errors in a row that are tried again. Each can be an ICMP message about an earlier datagram, which a connected socket reports
/// once, whoever has sent the message; of as many in a row without one success, the packet or the way is the cause.
pub const TRIES: u32 = 16;
/// Calls that empty an error queue before other work is done.
const EMPTYING: usize = 8;

/// Sends the packets of the batch from number `next` to before `end` to a destination, or where the socket is connected or bound,
/// past those that fail; runs of them as one where `runs` allows it. `next` is behind what is done with: where it is not `end`, the
/// socket's queue is full. Where this host no longer has the source address, the kernel chooses another.
pub fn send_from(
    sender: &mut Sender,
    runs: &mut Runs,
    socket: BorrowedFd<'_>,
    batch: &Batch,
    next: &mut usize,
    end: usize,
    destination: Option<Destination>,
) -> Sent {
    let mut now = destination;
    let mut sent = Sent::default();
    while *next < end {
        match sender.send(socket, runs.packets(batch, *next, end), now) {
            // More pieces than there is room for, which is not made: as if the queue were full.
            Ok(0) => return sent,
            Ok(count) => {
                let first = *next;
                *next = (0..count).fold(first, |next, _| runs.end(batch, next, end));
                runs.went(*next - first);
                sent.packets += (*next - first) as u64;
                sent.bytes += batch.frames(first).take(*next - first).map(|packet| packet.len() as u64).sum::<u64>();
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return sent,
            // No memory for it: the next one may find some.
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                let dropped = runs.end(batch, *next, end) - *next;
                sent.errors += dropped as u64;
                *next += dropped;
            }
            // Also after many failures: a link that was lost may be back with another address.
            Err(error) if is_gone(&error) && now.is_some_and(|now| now.from.is_some()) => {
                now = destination.map(|destination| Destination { from: None, ..destination });
            }
            // A firewall says so of this packet, which an ICMP message does not.
            Err(error) if error.raw_os_error() != Some(libc::EPERM) && runs.fails_now_and_then() => {}
            Err(error) if runs.end(batch, *next, end) > *next + 1 => {
                runs.refuse(&error, batch.frame(*next).len());
                now = destination;
            }
            Err(error) => {
                let oversize = error.raw_os_error() == Some(libc::EMSGSIZE);
                *(if oversize { &mut sent.oversize } else { &mut sent.errors }) += 1;
                *next += 1;
            }
        }
    }
    sent
}

/// Whether an error may mean that this host no longer has the source address, or no way out from it.
fn is_gone(error: &std::io::Error) -> bool {
    const GONE: [i32; 5] = [libc::EINVAL, libc::EADDRNOTAVAIL, libc::ENETUNREACH, libc::EHOSTUNREACH, libc::ENODEV];
    error.raw_os_error().is_some_and(|number| GONE.contains(&number))
}

/// Which datagrams of a batch leave as one message, that the kernel or the interface cuts (`UDP_SEGMENT`): equal ones, of which
/// the last may be shorter.
#[derive(Debug)]
pub struct Runs {
    /// Those of this length or more leave alone.
    longest: usize,
    /// How many more packets it stays so.
    pause: usize,
    /// Errors since packets went.
    failures: u32,
}

impl Runs {
    /// Bytes in one message at most: what an IPv4 packet has room for.
    const BYTES: usize = 65_507;
    /// Packets after which it is tried again what was refused.
    const PAUSE: usize = 10_000;

    /// For a UDP socket.
    pub fn new() -> Self {
        Self { longest: usize::MAX, pause: 0, failures: 0 }
    }

    /// Where the run ends that begins with packet `first`.
    fn end(&self, batch: &Batch, first: usize, end: usize) -> usize {
        let each = batch.frame(first).len();
        if each == 0 || each >= self.longest {
            return first + 1;
        }
        let most = end.min(first + MAX_SEGMENTS.min(Self::BYTES / each));
        let mut next = first + 1;
        while next < most && batch.frame(next).len() == each {
            next += 1;
        }
        // One that is shorter.
        let shorter = next < most && (1..each).contains(&batch.frame(next).len());
        next + usize::from(shorter)
    }

    /// Messages of the packets from `first` to before `end`, each with the size of its datagrams.
    fn packets<'a>(
        &self,
        batch: &'a Batch,
        mut first: usize,
        end: usize,
    ) -> impl Iterator<Item = (impl Iterator<Item = &'a [u8]> + use<'a>, Option<u16>)> {
        std::iter::from_fn(move || {
            let count = (first < end).then(|| self.end(batch, first, end) - first)?;
            let each = batch.frame(first).len();
            let packet = (batch.frames(first).take(count), u16::try_from(each).ok().filter(|_| count > 1));
            first += count;
            Some(packet)
        })
    }

    /// Takes note of an error; whether it may be gone when it is tried again.
    fn fails_now_and_then(&mut self) -> bool {
        self.failures = self.failures.saturating_add(1);
        self.failures < TRIES
    }

    /// Takes note of an error that has come again and again for a run of packets of this length: they must leave alone. The kernel cannot
    /// both segment and fragment, and not every device, route or kernel segments at all; whatever the error is, it may be for being
    /// many (a firewall that looks at lengths).
    fn refuse(&mut self, error: &std::io::Error, length: usize) {
        self.longest = if error.raw_os_error() == Some(libc::EMSGSIZE) { length } else { 0 };
        self.pause = Self::PAUSE;
    }

    /// Takes note of packets that went.
    fn went(&mut self, packets: usize) {
        self.failures = 0;
        if self.longest != usize::MAX {
            self.pause = self.pause.saturating_sub(packets);
            if self.pause == 0 {
                self.longest = usize::MAX;
            }
        }
    }
}

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

/// Time of a worker.
#[derive(Debug, Clone, Copy)]
pub struct Clock(Moment);

impl Clock {
    /// Begins now.
    pub fn start() -> Self {
        Self(Moment::now())
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
    use std::net::UdpSocket;

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
    fn a_pending_error_does_not_split_a_run() {
        let ours = UdpSocket::bind("127.0.0.1:0").unwrap();
        let peer = UdpSocket::bind("127.0.0.2:0").unwrap().local_addr().unwrap();
        ours.connect(peer).unwrap();
        let (mut sender, mut runs, mut batch) = (Sender::new(8, 8), Runs::new(), Batch::with_slots(8));
        for _ in 0..2 {
            batch.append_copy(&[7; 100]);
        }
        for round in 0..3 {
            // No program is at the peer, so that an ICMP message comes back at once.
            ours.send(b"anybody?").unwrap();
            let there = UdpSocket::bind(peer).unwrap();
            let mut next = 0;
            let sent = send_from(&mut sender, &mut runs, ours.as_fd(), &batch, &mut next, 2, None);
            assert_eq!(sent, Sent { packets: 2, bytes: 200, ..Sent::default() }, "round {round}");
            assert_eq!((runs.longest, runs.failures, next), (usize::MAX, 0, 2), "round {round}");
            assert_eq!([(); 2].map(|()| there.recv(&mut [0; 200]).unwrap()), [100; 2]);
        }
    }

    #[test]
    fn a_source_address_that_is_gone_is_given_up_after_an_outage() {
        let ours = UdpSocket::bind("0.0.0.0:0").unwrap();
        let there = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (mut sender, mut runs, mut batch) = (Sender::new(8, 8), Runs::new(), Batch::with_slots(8));
        batch.append_copy(&[7; 100]);
        runs.failures = 2 * TRIES;
        let gone = Destination { to: there.local_addr().unwrap(), from: Some([192, 0, 2, 77].into()), v6: false };
        let mut next = 0;
        let sent = send_from(&mut sender, &mut runs, ours.as_fd(), &batch, &mut next, 1, Some(gone));
        assert_eq!((sent, runs.failures), (Sent { packets: 1, bytes: 100, ..Sent::default() }, 0));
        assert_eq!(there.recv(&mut [0; 200]).unwrap(), 100);
    }

    #[test]
    fn a_lasting_error_costs_few_calls() {
        let closed = std::fs::File::open("/dev/null").unwrap();
        let (mut sender, mut runs, mut batch) = (Sender::new(8, 8), Runs::new(), Batch::with_slots(8));
        for _ in 0..3 {
            batch.append_copy(&[7; 100]);
        }
        let mut next = 0;
        let sent = send_from(&mut sender, &mut runs, closed.as_fd(), &batch, &mut next, 3, None);
        assert_eq!(sent, Sent { errors: 3, ..Sent::default() });
        assert_eq!((next, runs.longest, runs.failures), (3, 0, TRIES + 3));
    }

    #[test]
    fn equal_packets_leave_together_with_one_that_is_shorter() {
        let mut batch = Batch::with_slots(200);
        let lengths: Vec<usize> = [100, 100, 50, 50, 60, 0, 0, 7].into_iter().chain([1400; 80]).collect();
        for &length in &lengths {
            batch.append_copy(&vec![0; length]);
        }
        let all = |runs: &Runs| -> Vec<(usize, Option<u16>)> {
            runs.packets(&batch, 0, batch.len()).map(|(pieces, size)| (pieces.count(), size)).collect()
        };
        let begin = [(3, Some(100)), (1, None), (1, None), (1, None), (1, None), (1, None)];
        let together = [&begin[..], &[(46, Some(1400)), (34, Some(1400))]].concat();
        let mut runs = Runs::new();
        assert_eq!(all(&runs), together);
        // What is too long for the way is alone for a while, and what is not leaves as before.
        runs.refuse(&std::io::Error::from_raw_os_error(libc::EMSGSIZE), 1400);
        assert_eq!(all(&runs), [&begin[..], &[(1, None); 80]].concat());
        runs.went(Runs::PAUSE - 1);
        assert_ne!(all(&runs), together);
        runs.went(1);
        assert_eq!(all(&runs), together);
        runs.refuse(&std::io::Error::from_raw_os_error(libc::EIO), 1400);
        assert_eq!(all(&runs), vec![(1, None); lengths.len()]);
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
