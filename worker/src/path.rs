//! The remote side: UDP sockets, opened by the helper.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use privsep::ipc::SharedPath;
use privsep::sys::worker::mmsg::{Receiver, Sender};

use crate::batch::{BATCH, Batch, MAX_DATAGRAM, PACKETS, RUN};
use crate::io::{Received, Runs, forget_errors, send_from};

/// Errors of a socket in a row, without one empty or successful call between them, from which on it counts as broken.
const LASTING: u32 = 1000;

/// Sends datagrams, by any path.
pub struct Outlet {
    sender: Sender,
    runs: Runs,
}

impl Default for Outlet {
    fn default() -> Self {
        Self { sender: Sender::new(BATCH, PACKETS), runs: Runs::new() }
    }
}

impl Outlet {
    /// Sends the datagrams of the batch from number `next` to before `end`; where `next` is not `end` then, the socket is full.
    pub fn send(
        &mut self,
        socket: BorrowedFd<'_>,
        counters: &SharedPath,
        batch: &Batch,
        next: &mut usize,
        end: usize,
        target: Option<SocketAddr>,
    ) {
        let sent = send_from(&mut self.sender, &mut self.runs, socket, batch, next, end, target);
        counters.tx_datagrams.add(sent.packets);
        counters.tx_bytes.add(sent.bytes);
        counters.tx_dropped_oversize.add(sent.oversize);
        counters.tx_errors.add(sent.errors);
    }
}

/// Receives the datagrams of one path.
pub struct Inlet {
    socket: Arc<OwnedFd>,
    receiver: Receiver,
    /// Errors in a row.
    errors: u32,
}

impl Inlet {
    /// `learns` tells that it matters where a datagram comes from. Runs of datagrams come where the helper has asked for them.
    pub fn new(socket: Arc<OwnedFd>, learns: bool) -> Self {
        let receiver = Receiver::with_control(BATCH);
        let receiver = if learns { receiver.with_sources() } else { receiver };
        Self { socket, receiver, errors: 0 }
    }

    /// See [`forget_errors`].
    pub fn forget_errors(&mut self, batch: &mut Batch) {
        forget_errors(&mut self.receiver, self.socket.as_fd(), batch);
    }

    /// Fills the batch with what is waiting, without blocking. Datagrams over the limit are dropped.
    pub fn receive(&mut self, counters: &SharedPath, batch: &mut Batch) -> Received {
        let count = match self.receiver.receive(self.socket.as_fd(), batch.slots()) {
            Ok(count) => count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                self.errors = 0;
                return Received::Nothing;
            }
            // An ICMP message about what we sent, from whomever: taken off the socket by this call, and no reason to stop
            // receiving. Only an error that does not go away is one of the socket.
            Err(_) => {
                counters.rx_errors.add(1);
                self.errors += 1;
                return if self.errors > LASTING { Received::Error } else { Received::Batch };
            }
        };
        self.errors = 0;
        for index in 0..count {
            let length = self.receiver.length(index);
            let each = self.receiver.segment(index).unwrap_or(length);
            accept(batch, index, (length, each), self.receiver.source(index), counters);
        }
        counters.rx_datagrams.add(batch.len() as u64);
        counters.rx_bytes.add(batch.bytes());
        Received::Batch
    }
}

/// Takes what was received into slot `index`: its length, and that of each datagram in it but the last; or drops and counts it.
fn accept(
    batch: &mut Batch,
    index: usize,
    (length, each): (usize, usize),
    origin: Option<SocketAddr>,
    counters: &SharedPath,
) {
    let count = length.div_ceil(each.max(1));
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

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use privsep::sys::option;

    use super::*;

    fn inlet(socket: impl Into<OwnedFd>) -> Inlet {
        Inlet::new(Arc::new(socket.into()), false)
    }

    #[test]
    fn datagrams_over_the_limit_are_dropped_and_what_is_counted_is_what_is_left() {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        let (mut inlet, mut batch, counters) = (inlet(ours), Batch::default(), SharedPath::default());
        assert_eq!(inlet.receive(&counters, &mut batch), Received::Nothing);
        let datagrams = [vec![1; 100], vec![2; MAX_DATAGRAM + 1], vec![3; MAX_DATAGRAM], vec![4; 20_000], vec![]];
        for datagram in &datagrams {
            theirs.send(datagram).unwrap();
        }
        assert_eq!(inlet.receive(&counters, &mut batch), Received::Batch);
        assert!(batch.frames(0).eq([&datagrams[0][..], &datagrams[2], &datagrams[4]]));
        let counted = counters.snapshot();
        let expected = (3, 100 + MAX_DATAGRAM as u64, 2, 0);
        assert_eq!((counted.rx_datagrams, counted.rx_bytes, counted.rx_dropped_oversize, counted.rx_errors), expected);
    }

    #[test]
    fn a_run_is_as_many_datagrams_as_a_kernel_makes_one_of_or_is_dropped() {
        for (length, each, taken, oversize, invalid) in [
            (RUN, 1, RUN, 0, 0),
            (RUN + 1, 1, 0, 0, RUN + 1),
            (65_000, 1, 0, 0, 65_000),
            (65_000, 508, RUN, 0, 0),
            (65_000, MAX_DATAGRAM + 1, 0, 8, 0),
            (0, 0, 1, 0, 0),
        ] {
            let (mut batch, counters) = (Batch::for_runs(), SharedPath::default());
            accept(&mut batch, 1, (length, each), None, &counters);
            let dropped = (counters.rx_dropped_oversize.get(), counters.rx_dropped_invalid.get());
            assert_eq!((batch.len(), dropped), (taken, (oversize, invalid as u64)), "{length} in {each}");
        }
    }

    #[test]
    fn only_an_error_that_does_not_go_away_is_one_of_the_socket() {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        let (broken, ours) =
            (Arc::new(OwnedFd::from(std::fs::File::open("/dev/null").unwrap())), Arc::new(ours.into()));
        let (mut inlet, mut batch, counters) =
            (inlet(theirs.try_clone().unwrap()), Batch::default(), SharedPath::default());
        for something in [true, false] {
            inlet.socket = Arc::clone(&broken);
            for number in 0..LASTING {
                assert_eq!(inlet.receive(&counters, &mut batch), Received::Batch, "error {number}");
                assert!(batch.is_empty());
            }
            inlet.socket = Arc::clone(&ours);
            if something {
                theirs.send(b"x").unwrap();
            }
            let expected = if something { Received::Batch } else { Received::Nothing };
            assert_eq!((inlet.receive(&counters, &mut batch), batch.len()), (expected, usize::from(something)));
        }
        inlet.socket = broken;
        let results: Vec<_> = (0..=LASTING).map(|_| inlet.receive(&counters, &mut batch)).collect();
        assert!(results[..LASTING as usize].iter().all(|result| *result == Received::Batch));
        assert_eq!((results.last(), counters.rx_errors.get()), (Some(&Received::Error), 3 * u64::from(LASTING) + 1));
    }

    #[test]
    fn a_datagram_that_is_too_long_is_passed_over_and_a_full_socket_ends_the_sending() {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        option::set_int(ours.as_fd(), libc::SOL_SOCKET, libc::SO_SNDBUF, 4096).unwrap();
        let (mut outlet, mut batch, counters) = (Outlet::default(), Batch::default(), SharedPath::default());
        for datagram in [&[1; 100][..], &[2; MAX_DATAGRAM], &[3; 50], &[4; 10]] {
            batch.append_copy(datagram);
        }
        let mut next = 0;
        outlet.send(ours.as_fd(), &counters, &batch, &mut next, 3, None);
        let counted = counters.snapshot();
        assert_eq!((next, counted.tx_datagrams, counted.tx_bytes, counted.tx_dropped_oversize), (3, 2, 150, 1));
        let mut buffer = [0; 200];
        for expected in [&[1; 100][..], &[3; 50]] {
            assert_eq!(theirs.recv(&mut buffer).map(|length| &buffer[..length]).unwrap(), expected);
        }
        ours.set_nonblocking(true).unwrap();
        while ours.send(b"full").is_ok() {}
        let mut next = 2;
        outlet.send(ours.as_fd(), &counters, &batch, &mut next, 4, None);
        assert_eq!((next, counters.tx_datagrams.get(), counters.tx_errors.get()), (2, 2, 0));
    }
}
