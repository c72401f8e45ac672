use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;

use privsep::ipc::{Address, Remote, SharedPath};
use privsep::sys::option;

use super::inlet::{LASTING, accept};
use super::socket::Peer;
use super::{Inlet, Outlet, Socket};
use crate::batch::{Batch, MAX_DATAGRAM, RUN};
use crate::endpoint::{Endpoint, Target};
use crate::io::{Received, TRIES};
use crate::wire::Departure;

/// Socket of a path, connected as its handle is.
fn socket(handle: impl Into<OwnedFd>) -> Socket {
    Socket { handle: handle.into(), peer: Peer::Connected(([192, 0, 2, 1], 1).into()), v6: false }
}

/// Departure of the datagrams before `end`.
fn departure(end: usize, target: Target) -> Departure {
    Departure { path: 0, target, runs: true, datagrams: 0..end }
}

fn inlet(handle: impl Into<OwnedFd>) -> Inlet {
    Inlet::new(Arc::new(socket(handle)))
}

#[test]
fn oversize_datagrams_are_dropped() {
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
fn run_length_is_bounded() {
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
fn only_lasting_errors_are_the_sockets() {
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
fn oversize_datagram_is_skipped() {
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    option::set_int(ours.as_fd(), libc::SOL_SOCKET, libc::SO_SNDBUF, 4096).unwrap();
    let (mut outlet, mut batch, counters) = (Outlet::default(), Batch::default(), SharedPath::default());
    for datagram in [&[1; 100][..], &[2; MAX_DATAGRAM], &[3; 50], &[4; 10]] {
        batch.append_copy(datagram);
    }
    let (mut next, nowhere, path) = (0, Target::Unknown, socket(ours.try_clone().unwrap()));
    outlet.send(&path, &counters, &batch, &mut next, &departure(3, nowhere));
    let counted = counters.snapshot();
    assert_eq!((next, counted.tx_datagrams, counted.tx_bytes, counted.tx_dropped_oversize), (3, 2, 150, 1));
    let mut buffer = [0; 200];
    for expected in [&[1; 100][..], &[3; 50]] {
        assert_eq!(theirs.recv(&mut buffer).map(|length| &buffer[..length]).unwrap(), expected);
    }
    ours.set_nonblocking(true).unwrap();
    while ours.send(b"full").is_ok() {}
    let mut next = 2;
    outlet.send(&path, &counters, &batch, &mut next, &departure(4, nowhere));
    assert_eq!((next, counters.tx_datagrams.get(), counters.tx_errors.get()), (2, 2, 0));
}

/// Socket with a wildcard address, as the helper opens it, and its port.
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

/// Receives until a datagram arrives.
fn receive(inlet: &mut Inlet, counters: &SharedPath) -> Batch {
    let mut batch = Batch::default();
    while inlet.receive(counters, &mut batch) == Received::Nothing {
        std::thread::yield_now();
    }
    batch
}

#[test]
fn wildcard_socket_counts_strangers() {
    let [peer, stranger] = ["127.0.0.2:0", "127.0.0.3:0"].map(|address| UdpSocket::bind(address).unwrap());
    for local in ["0.0.0.0:0", "[::]:0"] {
        let remote = Remote::Fixed(Address(peer.local_addr().unwrap()));
        let ((socket, port), counters) = (wildcard(local, &remote), SharedPath::default());
        let mut inlet = Inlet::new(Arc::new(socket));
        stranger.send_to(b"foreign", ("127.0.0.1", port)).unwrap();
        peer.send_to(b"ours", ("127.0.0.1", port)).unwrap();
        let batch = receive(&mut inlet, &counters);
        assert!(batch.frames(0).eq([b"ours"]), "{local}");
        let place = Endpoint { remote: peer.local_addr().unwrap(), local: Some([127, 0, 0, 1].into()) };
        assert_eq!(batch.span(0).origin, Some(place), "{local}");
        assert_eq!((counters.rx_dropped_foreign.get(), counters.rx_datagrams.get()), (1, 1));
        let (mut outlet, mut next) = (Outlet::default(), 0);
        let to = departure(1, Target::Fixed(peer.local_addr().unwrap().into()));
        outlet.send(&inlet.socket, &counters, &batch, &mut next, &to);
        let mut buffer = [0; 10];
        assert_eq!(peer.recv_from(&mut buffer).unwrap(), (4, ([127, 0, 0, 1], port).into()), "{local}");
        // From another local address, if the peer has used that.
        let (mut next, asked) = (0, Endpoint { local: Some([127, 0, 0, 9].into()), ..place });
        outlet.send(&inlet.socket, &counters, &batch, &mut next, &departure(1, Target::Fixed(asked)));
        assert_eq!(peer.recv_from(&mut buffer).unwrap(), (4, ([127, 0, 0, 9], port).into()), "{local}");
    }
}

#[test]
fn absent_peer_stalls_no_socket() {
    let gone = UdpSocket::bind("127.0.0.2:0").unwrap().local_addr().unwrap();
    let ((socket, _), counters) = (wildcard("0.0.0.0:0", &Remote::Fixed(Address(gone))), SharedPath::default());
    let (mut inlet, mut outlet, mut batch) = (Inlet::new(Arc::new(socket)), Outlet::default(), Batch::default());
    batch.append_copy(b"anybody?");
    for _ in 0..10 {
        let mut next = 0;
        outlet.send(&inlet.socket, &counters, &batch, &mut next, &departure(1, Target::Fixed(gone.into())));
        assert_eq!(next, 1);
    }
    let mut other = Batch::default();
    assert_eq!(inlet.receive(&counters, &mut other), Received::Nothing);
    let counted = counters.snapshot();
    assert_eq!((counted.tx_datagrams, counted.tx_errors, counted.rx_errors), (10, 0, 0));
}

#[test]
fn answers_leave_from_the_asked_address() {
    let learned = Remote::ANY;
    let peer = UdpSocket::bind("127.0.0.2:0").unwrap();
    for local in ["0.0.0.0:0", "[::]:0"] {
        let ((socket, port), counters) = (wildcard(local, &learned), SharedPath::default());
        let mut inlet = Inlet::new(Arc::new(socket));
        peer.send_to(b"question", ("127.0.0.9", port)).unwrap();
        let batch = receive(&mut inlet, &counters);
        let place = batch.span(0).origin.unwrap();
        let expected = Endpoint { remote: peer.local_addr().unwrap(), local: Some([127, 0, 0, 9].into()) };
        assert_eq!(place, expected, "{local}");
        let (mut outlet, mut buffer) = (Outlet::default(), [0; 10]);
        let mut ask = |place| {
            let mut next = 0;
            outlet.send(&inlet.socket, &counters, &batch, &mut next, &departure(1, Target::Learned(place)));
            assert_eq!(next, 1);
            peer.recv_from(&mut buffer).unwrap().1
        };
        // Local address that this host no longer has.
        let gone = Endpoint { local: Some([192, 0, 2, 77].into()), ..place };
        let (asked, any) = (SocketAddr::from(([127, 0, 0, 9], port)), SocketAddr::from(([127, 0, 0, 1], port)));
        assert_eq!([place, gone, gone, place].map(&mut ask), [asked, any, any, asked], "{local}");
        assert_eq!(counters.tx_errors.get(), 0);
    }
}
