//! A peer that has the keys of a session, as a worker has that was taken over: whatever it seals is authentic. Here it is the worker's own
//! machine, which makes the session and answers pings, and this test seals what the machine would not.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use ethudp_worker::batch::Batch;
use ethudp_worker::wire::secure::content::{self, fragment_header};
use ethudp_worker::wire::secure::keys::{KEY, Pair};
use ethudp_worker::wire::secure::{Session, SessionConfig};
use ethudp_worker::wire::{Counters, Outbox};
use privsep::ipc::{Address, Remote, Secure, State, Timestamp};

use super::forged::ends_keys;
use super::{A, B, LIMIT, Victim, arrived, next};
use crate::lab::{Running, Sites, Wire, frame, resources, wait_for};
use crate::secure::End;

/// A's end in our hands.
struct Peer {
    session: Session,
    counters: Counters,
    outbox: Outbox,
    socket: UdpSocket,
    start: Instant,
}

impl Peer {
    fn new(sites: &Sites) -> Self {
        let socket = sites.a.inside(|| UdpSocket::bind("192.0.2.1:6000").unwrap());
        socket.connect("192.0.2.2:6000").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        let state = State::default();
        let session = Session::new(SessionConfig {
            pair: Pair::new(&ends_keys(A).0, ends_keys(B).1, &[0; KEY], [0; 8]).unwrap(),
            secure: &Secure { datagram: 1472, ping_interval: 1, ..Secure::default() },
            offer: 3,
            remotes: &[Remote::Fixed(Address("192.0.2.2:6000".parse().unwrap()))],
            paths: &[],
            delivers: true,
            exit_after: None,
            state: &state,
            wall: Box::new(|_| Timestamp(1_800_000_000_000_000_000)),
            random: Box::new(|bytes| getrandom::fill(bytes).unwrap()),
        });
        Self { session, counters: Counters::new(&state, 1), outbox: Outbox::default(), socket, start: Instant::now() }
    }

    /// Does for a while what an honest peer does.
    fn is_honest(&mut self, time: Duration) {
        let (end, mut buffer) = (Instant::now() + time, [0; 2000]);
        while Instant::now() < end {
            let now_us = u64::try_from(self.start.elapsed().as_micros()).unwrap();
            self.session.on_time(now_us, &self.counters, &mut self.outbox);
            if let Ok(length) = self.socket.recv(&mut buffer) {
                let mut batch = Batch::with_slots(2);
                batch.append_copy(&buffer[..length]);
                self.session.receive(0, &mut batch, now_us, &self.counters, &mut self.outbox);
            }
            for departure in self.outbox.departures() {
                for number in departure.datagrams {
                    let _ = self.socket.send(self.outbox.batch().frame(number));
                }
            }
            self.outbox.clear();
        }
    }

    /// Seals any content.
    fn say(&self, queue: u8, content: &[u8]) {
        let mut datagram = [&[0; 16][..], content, &[0; 16]].concat();
        self.session.route().sending.as_ref().expect("a session").seal(queue, &mut datagram).unwrap();
        self.socket.send(&datagram).unwrap();
    }

    /// Seals a frame as it should be.
    fn say_frame(&self, frame: &[u8]) {
        self.say(0, &[&[0; 4], frame].concat());
    }
}

/// B as it is, its peer, and what comes out at B.
fn both(sites: &Sites) -> (Running, Peer, Wire) {
    let b = End::B.start(sites, "b");
    let mut peer = Peer::new(sites);
    let start = Instant::now();
    while b.status()["state"] != "up" {
        assert!(start.elapsed() < LIMIT, "{}", b.status());
        peer.is_honest(Duration::from_millis(20));
    }
    let wire = Wire::new(&sites.b, "eu0");
    (b, peer, wire)
}

/// Bytes that begin so, and are that many.
fn bytes(begin: &[u8], length: usize) -> Vec<u8> {
    let mut bytes = begin.to_vec();
    bytes.resize(length, 7);
    bytes
}

/// Contents that are none.
fn lies() -> Vec<Vec<u8>> {
    let frame = |start: [u8; 2], offset: u8, length: usize| bytes(&[0, offset, start[0], start[1]], 4 + length);
    let item = |says: u16, length: usize| [&says.to_be_bytes()[..], &bytes(&[0; 4], 4 + length)].concat();
    let bundle = |items: &[Vec<u8>]| [&[1, 0, 0, 0][..], &items.concat()].concat();
    let piece = |number, each, whole, length: usize| bytes(&fragment_header(number, each, whole, 9), 12 + length);
    let right = || item(64, 60);
    let mut lies = vec![
        vec![],
        vec![0],
        // Shorter than any frame, and a checksum that does not lie in it, or is SCTP's.
        frame([0, 0], 0, 13),
        frame([0, 33], 0, 100),
        frame([0, 0], 6, 100),
        frame([0, 34], 8, 100),
        frame([0, 98], 1, 100),
        frame([0xff, 0xff], 255, 100),
        // Of a bundle: no frame, one, a length of nothing, of less and of more than there is, and something left over.
        bundle(&[]),
        bundle(&[right()]),
        bundle(&[right(), item(0, 60)]),
        bundle(&[right(), item(17, 13)]),
        bundle(&[right(), item(65, 60)]),
        bundle(&[right(), item(63, 60)]),
        bundle(&[right(), item(0xffff, 60)]),
        bundle(&[item(0xffff, 60), right()]),
        bundle(&[right(), right(), vec![0]]),
        bundle(&[right(), right(), vec![0, 64]]),
        [&[1, 0, 0, 1][..], &right(), &right()].concat(),
        // A bundle, a piece or a ping in a bundle.
        bundle(&[right(), [&[0, 64, 1][..], &[0; 63]].concat()]),
        bundle(&[right(), [&[0, 64, 2][..], &[0; 63]].concat()]),
        bundle(&[right(), vec![0, 12, 3, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]]),
        // Of pieces: one, seventeen, too short, one behind the last, more and less than there is, more than any frame has.
        piece(0, 1000, 1000, 1000),
        piece(0, 64, 1025, 64),
        piece(0, 63, 126, 63),
        piece(2, 700, 1400, 0),
        piece(255, 700, 1400, 700),
        piece(0, 700, 1400, 699),
        piece(0, 700, 1400, 701),
        piece(1, 700, 1399, 700),
        piece(0, 0, 1400, 0),
        piece(0, 1000, 0, 1000),
        piece(0, 1000, 9239, 1000),
        piece(0, 1000, 0xffff, 1000),
        piece(0, 0xffff, 0xffff, 1000),
        vec![2; 11],
    ];
    // Pings, pongs, probes and answers that are cut.
    lies.extend([3, 4].into_iter().flat_map(|kind| [1, 4, 12, 19].map(|length| bytes(&[kind, 0, 0, 0], length))));
    lies.extend([5, 7].into_iter().flat_map(|kind| [1, 4, 11].map(|length| bytes(&[kind, 0, 0, 44], length))));
    lies
}

#[test]
fn invalid_content_leaves_session() {
    let sites = Sites::new();
    let (b, mut peer, mut wire) = both(&sites);
    let of_b = Victim::new(&b);
    let lies = lies();
    for (number, lie) in lies.iter().enumerate() {
        assert!(content::parse(lie).is_none(), "{lie:02x?} is no lie");
        peer.say(u8::try_from(number % 4).unwrap(), lie);
    }
    // Kinds that are not known are no lies, and say nothing.
    for kind in (8..=255).chain([6]) {
        peer.say(0, &bytes(&[kind, 0, 0, 0], 100));
    }
    of_b.wait_dropped([("dropped_content", lies.len() as u64)]);
    assert!(arrived(&mut wire).is_empty());

    // Pieces that fit by themselves, and not what came before: with a length of other pieces, once more, and of what is no frame.
    let piece = |number, each, whole, id, length: usize| bytes(&fragment_header(number, each, whole, id), 12 + length);
    peer.say(0, &piece(0, 700, 1400, 1, 700));
    peer.say(0, &piece(1, 701, 1400, 1, 699));
    peer.say(0, &piece(0, 700, 1400, 2, 700));
    peer.say(0, &piece(1, 700, 1300, 2, 600));
    peer.say(0, &piece(0, 700, 1400, 3, 700));
    peer.say(0, &piece(0, 700, 1400, 3, 700));
    // Together they begin with a kind of 7.
    peer.say(0, &piece(1, 700, 1400, 3, 700));
    // Of other queues they are others.
    peer.say(1, &piece(0, 700, 1400, 4, 700));
    peer.say(2, &piece(1, 700, 1400, 4, 700));
    of_b.wait_dropped([("dropped_content", lies.len() as u64 + 4)]);
    assert!(arrived(&mut wire).is_empty());

    // A frame that is none of anybody's, with checksums to be completed in odd places, is for the interface to refuse.
    for (start, offset) in [(34, 0), (34, 1), (97, 1), (98, 0), (50, 48)] {
        peer.say(3, &[&[0, offset, 0, start][..], &frame(1, 100)].concat());
    }
    peer.say_frame(&frame(2, 100));
    wait_last(&mut wire, &frame(2, 100));
    assert_unharmed(&of_b, &mut peer);
    peer.say_frame(&frame(3, 100));
    wait_last(&mut wire, &frame(3, 100));
}

/// Waits until this frame has come, whatever comes before.
fn wait_last(wire: &mut Wire, last: &[u8]) {
    while next(wire).expect("a frame") != last {}
}

/// The session and the worker are the same. While the peer lies it answers no ping, so the path may have been down.
fn assert_unharmed(of_b: &Victim, peer: &mut Peer) {
    wait_for("the path", LIMIT, || {
        peer.is_honest(Duration::from_millis(300));
        (of_b.end.status()["state"] == "up").then_some(())
    });
    of_b.assert_same_session();
    of_b.assert_unharmed(2);
}

#[test]
fn fragment_memory_is_bounded() {
    const LONG: usize = 9234;
    let sites = Sites::new();
    let (b, mut peer, mut wire) = both(&sites);
    let of_b = Victim::new(&b);
    let worker = b.pid("worker");
    let pieces = |id: u32, frame: &[u8], each: usize| -> Vec<Vec<u8>> {
        let content = [&[0; 4], frame].concat();
        let pieces = content.chunks(each).enumerate();
        pieces.map(|(number, piece)| [&fragment_header(number, each, content.len(), id)[..], piece].concat()).collect()
    };
    let exhaust = |peer: &mut Peer, ids: std::ops::Range<u32>| {
        for id in ids {
            // The first or the last of a frame as long as any, in another queue each time.
            let (number, length) = if id % 2 == 0 { (0, 1420) } else { (6, 718) };
            let piece = bytes(&fragment_header(number, 1420, 4 + LONG, id), 12 + length);
            peer.say(u8::try_from(id % 4).unwrap(), &piece);
            if id % 32 == 0 {
                peer.is_honest(Duration::from_micros(100));
            }
        }
    };
    exhaust(&mut peer, 0..1000);
    let (open, memory) = resources(worker);
    exhaust(&mut peer, 1000..20_000);
    let whole = frame(5, 1436);
    for piece in pieces(1 << 20, &whole, 720) {
        peer.say(0, &piece);
    }
    wait_last(&mut wire, &whole);
    let (open_then, memory_then) = resources(worker);
    eprintln!("20,000 pieces: {memory} KiB, {memory_then} KiB");
    assert!(open_then == open && memory_then <= memory + 256, "{memory} KiB, then {memory_then} KiB");
    // A frame whose pieces were there when fifteen others came is still put together; with sixteen it made room.
    for (others, comes) in [(15, true), (16, false)] {
        let whole = frame(6 + others, 1436);
        let [first, second] = &pieces((1 << 21) + others, &whole, 720)[..] else { panic!() };
        peer.say(0, first);
        peer.is_honest(Duration::from_millis(5));
        for other in 0..others {
            peer.say(1, &bytes(&fragment_header(0, 1420, 4 + LONG, (1 << 22) + 100 * others + other), 12 + 1420));
        }
        peer.say(0, second);
        assert_eq!(arrived(&mut wire), if comes { vec![whole] } else { vec![] }, "{others}");
    }
    of_b.wait_dropped([]);
    assert_unharmed(&of_b, &mut peer);
    peer.say_frame(&frame(8, 100));
    wait_last(&mut wire, &frame(8, 100));
}

/// Without keys, pieces are nothing but datagrams that do not open.
#[test]
fn unauthenticated_fragments_are_dropped() {
    let sites = Sites::new();
    let (b, mut peer, mut wire) = both(&sites);
    let of_b = Victim::new(&b);
    let sending = peer.session.route().sending.clone().unwrap();
    for id in 0..200 {
        let mut datagram = [&[0; 16][..], &bytes(&fragment_header(0, 700, 1400, id), 12 + 700), &[0; 16]].concat();
        sending.seal(0, &mut datagram).unwrap();
        *datagram.last_mut().unwrap() ^= 1;
        peer.socket.send(&datagram).unwrap();
    }
    of_b.wait_dropped([("auth_failures", 200)]);
    assert!(arrived(&mut wire).is_empty());
    assert_unharmed(&of_b, &mut peer);
    peer.say_frame(&frame(8, 100));
    wait_last(&mut wire, &frame(8, 100));
}
