//! Sending of batches: merging of packets into messages, and handling of errors.

use std::io::ErrorKind;
use std::os::fd::BorrowedFd;

use privsep::sys::worker::mmsg::{Destination, MAX_SEGMENTS, Sender};

use super::TRIES;
use crate::batch::Batch;

/// Counts of sent packets.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Sent {
    pub packets: u64,
    pub bytes: u64,
    /// Packets too long for the interface or the path.
    pub oversize: u64,
    pub errors: u64,
}

/// Sends the packets of the batch from number `next` to before `end` to a destination, or to the connected or bound address. Merges
/// runs of packets as `runs` allows, and skips packets that fail. `next` is then the first packet not handled; if it is not `end`,
/// the socket's queue is full. If the source address has gone from this host, the kernel chooses another.
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
            // Only if a message had too many pieces, which never happens: handled like a full queue.
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
            // No memory for this message. The next one may succeed.
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                let dropped = runs.end(batch, *next, end) - *next;
                sent.errors += dropped as u64;
                *next += dropped;
            }
            // Even after many failures: a link may have come back with another address.
            Err(error) if is_gone(&error) && now.is_some_and(|now| now.from.is_some()) => {
                now = destination.map(|destination| Destination { from: None, ..destination });
            }
            // `EPERM` is a firewall's verdict on this packet, never an ICMP message.
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

/// Whether an error may mean that this host no longer has the source address, or no route from it.
fn is_gone(error: &std::io::Error) -> bool {
    const GONE: [i32; 5] = [libc::EINVAL, libc::EADDRNOTAVAIL, libc::ENETUNREACH, libc::EHOSTUNREACH, libc::ENODEV];
    error.raw_os_error().is_some_and(|number| GONE.contains(&number))
}

/// Runs: datagrams of a batch that leave as one message, which the kernel or the interface segments (`UDP_SEGMENT`). They have
/// equal lengths and one traffic class, and the last may be shorter.
#[derive(Debug)]
pub struct Runs {
    /// Length from which on datagrams leave alone.
    longest: usize,
    /// Number of packets until the limit is lifted.
    pause: usize,
    /// Errors since the last success.
    failures: u32,
}

impl Runs {
    /// Most bytes in one message: the payload of an IPv4 packet.
    const BYTES: usize = 65_507;
    /// Packets after which a refused size is tried again.
    const PAUSE: usize = 10_000;

    /// Makes the state for a UDP socket.
    pub fn new() -> Self {
        Self { longest: usize::MAX, pause: 0, failures: 0 }
    }

    /// Makes the state for datagrams that never leave in runs.
    pub fn never() -> Self {
        Self { longest: 0, pause: usize::MAX, failures: 0 }
    }

    /// End of the run that begins with packet `first`.
    fn end(&self, batch: &Batch, first: usize, end: usize) -> usize {
        let each = batch.frame(first).len();
        if each == 0 || each >= self.longest {
            return first + 1;
        }
        let most = end.min(first + MAX_SEGMENTS.min(Self::BYTES / each));
        let same_class = |next| batch.span(next).class == batch.span(first).class;
        let mut next = first + 1;
        while next < most && batch.frame(next).len() == each && same_class(next) {
            next += 1;
        }
        // A shorter last one.
        let shorter = next < most && (1..each).contains(&batch.frame(next).len()) && same_class(next);
        next + usize::from(shorter)
    }

    /// Messages of the packets from `first` to before `end`, each with size and traffic class of its datagrams.
    fn packets<'a>(
        &self,
        batch: &'a Batch,
        mut first: usize,
        end: usize,
    ) -> impl Iterator<Item = (impl Iterator<Item = &'a [u8]> + use<'a>, Option<u16>, u8)> {
        std::iter::from_fn(move || {
            let count = (first < end).then(|| self.end(batch, first, end) - first)?;
            let each = batch.frame(first).len();
            let size = u16::try_from(each).ok().filter(|_| count > 1);
            let packet = (batch.frames(first).take(count), size, batch.span(first).class);
            first += count;
            Some(packet)
        })
    }

    /// Records an error. Returns whether to try the call again.
    fn fails_now_and_then(&mut self) -> bool {
        self.failures = self.failures.saturating_add(1);
        self.failures < TRIES
    }

    /// Records an error that persists for a run of packets of this length, which then leave alone. The kernel cannot both segment
    /// and fragment, and not every device, route or kernel supports segmentation. Any error may be due to the length of the run,
    /// such as from a firewall that checks lengths.
    fn refuse(&mut self, error: &std::io::Error, length: usize) {
        self.longest = if error.raw_os_error() == Some(libc::EMSGSIZE) { length } else { 0 };
        self.pause = Self::PAUSE;
    }

    /// Records packets that were sent.
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

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn pending_error_splits_no_run() {
        let ours = UdpSocket::bind("127.0.0.1:0").unwrap();
        let peer = UdpSocket::bind("127.0.0.2:0").unwrap().local_addr().unwrap();
        ours.connect(peer).unwrap();
        let (mut sender, mut runs, mut batch) = (Sender::new(8, 8), Runs::new(), Batch::with_slots(8));
        for _ in 0..2 {
            batch.append_copy(&[7; 100]);
        }
        for round in 0..3 {
            // No program listens at the peer, so an ICMP message comes back at once.
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
    fn lost_source_address_is_given_up() {
        let ours = UdpSocket::bind("0.0.0.0:0").unwrap();
        let there = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (mut sender, mut runs, mut batch) = (Sender::new(8, 8), Runs::new(), Batch::with_slots(8));
        batch.append_copy(&[7; 100]);
        runs.failures = 2 * TRIES;
        let gone = Destination { to: there.local_addr().ok(), from: Some([192, 0, 2, 77].into()), v6: false };
        let mut next = 0;
        let sent = send_from(&mut sender, &mut runs, ours.as_fd(), &batch, &mut next, 1, Some(gone));
        assert_eq!((sent, runs.failures), (Sent { packets: 1, bytes: 100, ..Sent::default() }, 0));
        assert_eq!(there.recv(&mut [0; 200]).unwrap(), 100);
    }

    #[test]
    fn lasting_error_costs_few_calls() {
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
    fn traffic_class_separates_runs() {
        let mut batch = Batch::with_slots(8);
        for (first, (length, class)) in
            [(100, 2), (100, 2), (100, 0), (100, 0), (50, 2), (50, 2)].into_iter().enumerate()
        {
            batch.append_copy(&vec![0; length]);
            batch.set_class(first.., class);
        }
        let runs = Runs::new();
        let all = runs.packets(&batch, 0, batch.len()).map(|(pieces, size, class)| (pieces.count(), size, class));
        assert_eq!(all.collect::<Vec<_>>(), [(2, Some(100), 2), (2, Some(100), 0), (2, Some(50), 2)]);
    }

    #[test]
    fn equal_packets_share_a_message() {
        let mut batch = Batch::with_slots(200);
        let lengths: Vec<usize> = [100, 100, 50, 50, 60, 0, 0, 7].into_iter().chain([1400; 80]).collect();
        for &length in &lengths {
            batch.append_copy(&vec![0; length]);
        }
        let all = |runs: &Runs| -> Vec<(usize, Option<u16>)> {
            runs.packets(&batch, 0, batch.len()).map(|(pieces, size, _)| (pieces.count(), size)).collect()
        };
        let begin = [(3, Some(100)), (1, None), (1, None), (1, None), (1, None), (1, None)];
        let together = [&begin[..], &[(46, Some(1400)), (34, Some(1400))]].concat();
        let mut runs = Runs::new();
        assert_eq!(all(&runs), together);
        // Datagrams too long for the path leave alone for a while; shorter ones leave as before.
        runs.refuse(&std::io::Error::from_raw_os_error(libc::EMSGSIZE), 1400);
        assert_eq!(all(&runs), [&begin[..], &[(1, None); 80]].concat());
        runs.went(Runs::PAUSE - 1);
        assert_ne!(all(&runs), together);
        runs.went(1);
        assert_eq!(all(&runs), together);
        runs.refuse(&std::io::Error::from_raw_os_error(libc::EIO), 1400);
        assert_eq!(all(&runs), vec![(1, None); lengths.len()]);
    }
}
