//! The remote side: UDP sockets, opened by the helper.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use privsep::ipc::{Address, Remote, SharedPath};
use privsep::sys::worker::mmsg::{Destination, Receiver, Sender};

use crate::batch::{BATCH, Batch, MAX_DATAGRAM, PACKETS, RUN};
use crate::io::{Received, Runs, TRIES, forget_errors, send_from};
use crate::wire::{Place, Target};

/// Errors of a socket in a row, without one empty or successful call between them, from which on it counts as broken.
const LASTING: u32 = 1000;

/// UDP socket of one path.
pub struct Socket {
    handle: OwnedFd,
    peer: Peer,
    /// It is one of IPv6.
    v6: bool,
}

/// What the socket of a path knows of the peer.
#[derive(Debug, Clone, Copy)]
enum Peer {
    /// It is always here, and the socket connected: datagrams of others came before that, if any.
    Connected(SocketAddr),
    /// It is always here, and the address of the socket a wildcard: a filter has the kernel drop datagrams of others.
    Fixed(SocketAddr),
    /// Nothing: the session learns.
    Learned,
}

impl Socket {
    /// As the helper has opened it (`helper/src/open/path.rs`): bound to `local`, and connected to a fixed remote where that is no
    /// wildcard.
    pub fn new(handle: OwnedFd, local: SocketAddr, remote: &Remote) -> Self {
        let peer = match *remote {
            Remote::Fixed(Address(remote)) if local.ip().is_unspecified() => Peer::Fixed(remote),
            Remote::Fixed(Address(remote)) => Peer::Connected(remote),
            Remote::Learned { .. } => Peer::Learned,
        };
        Self { handle, peer, v6: local.is_ipv6() }
    }

    /// What a datagram to this target must name.
    fn destination(&self, target: Target) -> Option<Destination> {
        let (to, from) = match (self.peer, target) {
            (Peer::Fixed(to), Target::Fixed(place)) => (to, place.local),
            (Peer::Fixed(to), _) => (to, None),
            (Peer::Learned, Target::Place(Place { remote, local })) => (remote, local),
            (Peer::Learned, Target::Fixed(_) | Target::Nobody) | (Peer::Connected(_), _) => return None,
        };
        Some(Destination { to, from, v6: self.v6 })
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }
}

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
        socket: &Socket,
        counters: &SharedPath,
        batch: &Batch,
        next: &mut usize,
        end: usize,
        target: Target,
    ) {
        let (sender, runs, destination) = (&mut self.sender, &mut self.runs, socket.destination(target));
        let sent = send_from(sender, runs, socket.as_fd(), batch, next, end, destination);
        counters.tx_datagrams.add(sent.packets);
        counters.tx_bytes.add(sent.bytes);
        counters.tx_dropped_oversize.add(sent.oversize);
        counters.tx_errors.add(sent.errors);
    }
}

/// Receives the datagrams of one path.
pub struct Inlet {
    socket: Arc<Socket>,
    receiver: Receiver,
    /// Errors in a row.
    errors: u32,
}

impl Inlet {
    /// Runs of datagrams come where the helper has asked for them.
    pub fn new(socket: Arc<Socket>) -> Self {
        Self { socket, receiver: Receiver::with_control(BATCH).with_sources(), errors: 0 }
    }

    /// Takes off the socket what [`forget_errors`] does, and counts it.
    pub fn forget_errors(&mut self, counters: &SharedPath, batch: &mut Batch) {
        counters.rx_errors.add(forget_errors(&mut self.receiver, self.socket.as_fd(), batch));
    }

    /// Fills the batch with what is waiting, without blocking. Datagrams over the limit are dropped.
    pub fn receive(&mut self, counters: &SharedPath, batch: &mut Batch) -> Received {
        let mut tries = 0;
        let count = loop {
            match self.receiver.receive(self.socket.as_fd(), batch.slots()) {
                Ok(count) => break count,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                    self.errors = 0;
                    return Received::Nothing;
                }
                // An ICMP message about what we sent, from whomever: taken off a connected socket by this call, and no reason to
                // stop receiving. Only an error that does not go away is one of the socket.
                Err(error) => {
                    count(&error, counters);
                    (self.errors, tries) = (self.errors + 1, tries + 1);
                    if self.errors > LASTING {
                        return Received::Error;
                    }
                    if tries == TRIES {
                        return Received::Batch;
                    }
                }
            }
        };
        self.errors = 0;
        for index in 0..count {
            let length = self.receiver.length(index);
            let each = self.receiver.segment(index).unwrap_or(length);
            let source = self.receiver.source(index);
            let origin = match self.socket.peer {
                Peer::Connected(remote) if source.is_none_or(|source| same(source, remote)) => None,
                Peer::Fixed(remote) if source.is_some_and(|source| same(source, remote)) => {
                    Some(Place { remote, local: self.receiver.local(index) })
                }
                Peer::Connected(_) | Peer::Fixed(_) => {
                    counters.rx_dropped_foreign.add(length.div_ceil(each.max(1)).max(1) as u64);
                    continue;
                }
                Peer::Learned => source.map(|remote| Place { remote, local: self.receiver.local(index) }),
            };
            accept(batch, index, (length, each), origin, counters);
        }
        counters.rx_datagrams.add(batch.len() as u64);
        counters.rx_bytes.add(batch.bytes());
        Received::Batch
    }
}

/// Counts an error of reading, and which message it tells of. Those that a host or a network is unreachable are not among them: the
/// kernel keeps them from a socket that has not asked for all (`icmp_err_convert`, `icmpv6_err_convert`).
fn count(error: &io::Error, counters: &SharedPath) {
    counters.rx_errors.add(1);
    match error.raw_os_error() {
        Some(libc::ECONNREFUSED) => counters.rx_refused.add(1),
        Some(libc::EHOSTUNREACH | libc::ENETUNREACH | libc::EACCES) => counters.rx_prohibited.add(1),
        _ => {}
    }
}

/// Whether two addresses are one, by whichever interface.
fn same(one: SocketAddr, other: SocketAddr) -> bool {
    (one.ip(), one.port()) == (other.ip(), other.port())
}

/// Takes what was received into slot `index`: its length, and that of each datagram in it but the last; or drops and counts it.
pub(crate) fn accept(
    batch: &mut Batch,
    index: usize,
    (length, each): (usize, usize),
    origin: Option<Place>,
    counters: &SharedPath,
) {
    // Also an empty datagram is one.
    let count = length.div_ceil(each.max(1)).max(1);
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
    use std::net::UdpSocket;
    use std::os::unix::net::UnixDatagram;

    use privsep::sys::option;

    use super::*;

    /// A path that is connected, as this one is.
    fn socket(handle: impl Into<OwnedFd>) -> Socket {
        Socket { handle: handle.into(), peer: Peer::Connected(([192, 0, 2, 1], 1).into()), v6: false }
    }

    fn inlet(handle: impl Into<OwnedFd>) -> Inlet {
        Inlet::new(Arc::new(socket(handle)))
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
        let (broken, ours) = (Arc::new(socket(std::fs::File::open("/dev/null").unwrap())), Arc::new(socket(ours)));
        let (mut inlet, mut batch, counters) =
            (inlet(theirs.try_clone().unwrap()), Batch::default(), SharedPath::default());
        for something in [true, false] {
            inlet.socket = Arc::clone(&broken);
            for number in 0..LASTING / TRIES {
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
        let calls = LASTING / TRIES;
        let results: Vec<_> = (0..=calls).map(|_| inlet.receive(&counters, &mut batch)).collect();
        assert!(results[..calls as usize].iter().all(|result| *result == Received::Batch));
        let errors = u64::from(2 * calls * TRIES + LASTING + 1);
        assert_eq!((results.last(), counters.rx_errors.get()), (Some(&Received::Error), errors));
    }

    #[test]
    fn a_datagram_that_is_too_long_is_passed_over_and_a_full_socket_ends_the_sending() {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        option::set_int(ours.as_fd(), libc::SOL_SOCKET, libc::SO_SNDBUF, 4096).unwrap();
        let (mut outlet, mut batch, counters) = (Outlet::default(), Batch::default(), SharedPath::default());
        for datagram in [&[1; 100][..], &[2; MAX_DATAGRAM], &[3; 50], &[4; 10]] {
            batch.append_copy(datagram);
        }
        let (mut next, nowhere, path) = (0, Target::Nobody, socket(ours.try_clone().unwrap()));
        outlet.send(&path, &counters, &batch, &mut next, 3, nowhere);
        let counted = counters.snapshot();
        assert_eq!((next, counted.tx_datagrams, counted.tx_bytes, counted.tx_dropped_oversize), (3, 2, 150, 1));
        let mut buffer = [0; 200];
        for expected in [&[1; 100][..], &[3; 50]] {
            assert_eq!(theirs.recv(&mut buffer).map(|length| &buffer[..length]).unwrap(), expected);
        }
        ours.set_nonblocking(true).unwrap();
        while ours.send(b"full").is_ok() {}
        let mut next = 2;
        outlet.send(&path, &counters, &batch, &mut next, 4, nowhere);
        assert_eq!((next, counters.tx_datagrams.get(), counters.tx_errors.get()), (2, 2, 0));
    }

    /// A socket with a wildcard address, as the helper opens it, and its port.
    fn wildcard(local: &str, remote: &Remote) -> (Socket, u16) {
        let udp = UdpSocket::bind(local).unwrap();
        udp.set_nonblocking(true).unwrap();
        let local = udp.local_addr().unwrap();
        let option = |level, name| option::set_int(udp.as_fd(), level, name, 1).unwrap();
        match local {
            SocketAddr::V4(_) => option(libc::IPPROTO_IP, libc::IP_PKTINFO),
            SocketAddr::V6(_) => option(libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO),
        }
        (Socket::new(udp.into(), local, remote), local.port())
    }

    /// Receives until something has come.
    fn receive(inlet: &mut Inlet, counters: &SharedPath) -> Batch {
        let mut batch = Batch::default();
        while inlet.receive(counters, &mut batch) == Received::Nothing {
            std::thread::yield_now();
        }
        batch
    }

    #[test]
    fn a_wildcard_socket_drops_and_counts_strangers() {
        let [peer, stranger] = ["127.0.0.2:0", "127.0.0.3:0"].map(|address| UdpSocket::bind(address).unwrap());
        for local in ["0.0.0.0:0", "[::]:0"] {
            let remote = Remote::Fixed(Address(peer.local_addr().unwrap()));
            let ((socket, port), counters) = (wildcard(local, &remote), SharedPath::default());
            let mut inlet = Inlet::new(Arc::new(socket));
            stranger.send_to(b"foreign", ("127.0.0.1", port)).unwrap();
            peer.send_to(b"ours", ("127.0.0.1", port)).unwrap();
            let batch = receive(&mut inlet, &counters);
            assert!(batch.frames(0).eq([b"ours"]), "{local}");
            let place = Place { remote: peer.local_addr().unwrap(), local: Some([127, 0, 0, 1].into()) };
            assert_eq!(batch.span(0).origin, Some(place), "{local}");
            assert_eq!((counters.rx_dropped_foreign.get(), counters.rx_datagrams.get()), (1, 1));
            let (mut outlet, mut next) = (Outlet::default(), 0);
            outlet.send(
                &inlet.socket,
                &counters,
                &batch,
                &mut next,
                1,
                Target::Fixed(peer.local_addr().unwrap().into()),
            );
            let mut buffer = [0; 10];
            assert_eq!(peer.recv_from(&mut buffer).unwrap(), (4, ([127, 0, 0, 1], port).into()), "{local}");
            // From another address of ours, where the peer has asked that.
            let (mut next, asked) = (0, Place { local: Some([127, 0, 0, 9].into()), ..place });
            outlet.send(&inlet.socket, &counters, &batch, &mut next, 1, Target::Fixed(asked));
            assert_eq!(peer.recv_from(&mut buffer).unwrap(), (4, ([127, 0, 0, 9], port).into()), "{local}");
        }
    }

    #[test]
    fn an_absent_peer_stalls_no_wildcard_socket() {
        let gone = UdpSocket::bind("127.0.0.2:0").unwrap().local_addr().unwrap();
        let ((socket, _), counters) = (wildcard("0.0.0.0:0", &Remote::Fixed(Address(gone))), SharedPath::default());
        let (mut inlet, mut outlet, mut batch) = (Inlet::new(Arc::new(socket)), Outlet::default(), Batch::default());
        batch.append_copy(b"anybody?");
        for _ in 0..10 {
            let mut next = 0;
            outlet.send(&inlet.socket, &counters, &batch, &mut next, 1, Target::Fixed(gone.into()));
            assert_eq!(next, 1);
        }
        let mut other = Batch::default();
        assert_eq!(inlet.receive(&counters, &mut other), Received::Nothing);
        let counted = counters.snapshot();
        assert_eq!((counted.tx_datagrams, counted.tx_errors, counted.rx_errors), (10, 0, 0));
    }

    #[test]
    fn answers_leave_from_the_asked_address() {
        let learned = Remote::Learned { address: None, port: None };
        let peer = UdpSocket::bind("127.0.0.2:0").unwrap();
        for local in ["0.0.0.0:0", "[::]:0"] {
            let ((socket, port), counters) = (wildcard(local, &learned), SharedPath::default());
            let mut inlet = Inlet::new(Arc::new(socket));
            peer.send_to(b"question", ("127.0.0.9", port)).unwrap();
            let batch = receive(&mut inlet, &counters);
            let place = batch.span(0).origin.unwrap();
            let expected = Place { remote: peer.local_addr().unwrap(), local: Some([127, 0, 0, 9].into()) };
            assert_eq!(place, expected, "{local}");
            let (mut outlet, mut buffer) = (Outlet::default(), [0; 10]);
            let mut ask = |place| {
                let mut next = 0;
                outlet.send(&inlet.socket, &counters, &batch, &mut next, 1, Target::Place(place));
                assert_eq!(next, 1);
                peer.recv_from(&mut buffer).unwrap().1
            };
            // An address that this host does not have any more.
            let gone = Place { local: Some([192, 0, 2, 77].into()), ..place };
            let (asked, any) = (SocketAddr::from(([127, 0, 0, 9], port)), SocketAddr::from(([127, 0, 0, 1], port)));
            assert_eq!([place, gone, gone, place].map(&mut ask), [asked, any, any, asked], "{local}");
            assert_eq!(counters.tx_errors.get(), 0);
        }
    }
}
