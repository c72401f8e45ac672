//! Tests of a session, its deadlines, and the troubles it reports.

mod addresses;
mod attempts;
mod heads;
mod intervals;
mod probes;
mod sessions;
mod stale;
mod trouble;

use std::collections::VecDeque;
use std::net::SocketAddr;

use privsep::ipc::{Address, Remote, State, WireState};

use super::*;
use crate::frame;
use crate::wire::route::Departure;
use crate::wire::secure::Sealer;
use crate::wire::secure::content::{self, PINGED};
use crate::wire::secure::crypt::{HEADER, TAG};
use crate::wire::secure::keys::KEY;
use crate::wire::secure::tests::public_of;

/// One end, whose peer is learned, has a name or is fixed.
struct End {
    session: Session,
    counters: Counters,
    outbox: Outbox,
    reports_source: bool,
    /// Frames in the last received datagram.
    frames: Vec<Vec<u8>>,
}

const LEARNED: Remote = Remote::ANY;

/// Remote of an end whose peer is at home(2).
fn fixed() -> Remote {
    Remote::Fixed(Address(home(2)))
}

/// Length of a test's frames: the shortest.
const FRAME: usize = frame::HEADER;

fn home(which: u8) -> SocketAddr {
    ([192, 0, 2, which], 6000).into()
}

fn at(address: SocketAddr) -> Target {
    Target::Learned(address.into())
}

/// Properties of an end.
struct Kind<'a> {
    ours: u8,
    theirs: u8,
    psk: u8,
    remotes: &'a [Remote],
    /// Longest datagram of the underlay in bytes.
    datagram: u16,
    /// Settings of each path; empty for datagrams of one length.
    paths: &'a [PathSettings],
    ping_interval: u8,
    secure: SecureState,
    wall: Wall,
}

impl<'a> Kind<'a> {
    fn new(ours: u8, theirs: u8, remotes: &'a [Remote]) -> Self {
        Self {
            ours,
            theirs,
            psk: 0,
            remotes,
            datagram: 1472,
            paths: &[],
            ping_interval: 1,
            secure: SecureState::default(),
            wall: wall(1000),
        }
    }

    fn end(self) -> End {
        let Self { ours, theirs, psk, remotes, datagram, paths, ping_interval, secure, wall } = self;
        let session = Session::new(SessionConfig {
            pair: Pair::new(&[ours; KEY], public_of(theirs), &[psk; KEY], [0; 8]).unwrap(),
            secure: &Secure { datagram, ping_interval, ..Secure::default() },
            offer: 3,
            remotes,
            paths,
            delivers: true,
            exit_after: None,
            state: &State { wire: WireState::Secure(secure), ..State::default() },
            wall,
            random: crate::wire::secure::tests::random(ours),
        });
        let counters = Counters::new(&State::default(), remotes.len());
        let reports_source = !matches!(remotes[0], Remote::Fixed(_));
        End { session, counters, outbox: Outbox::default(), reports_source, frames: Vec::new() }
    }
}

/// A right clock, this many seconds ahead of the worker's.
fn wall(seconds: u64) -> Wall {
    Box::new(move |now_us| Timestamp(seconds * 1_000_000_000 + now_us * 1000))
}

/// A time in nanoseconds as in an initiation.
fn rounded(nanoseconds: u64) -> Timestamp {
    Timestamp(nanoseconds / ROUNDED * ROUNDED)
}

fn end(ours: u8, theirs: u8, psk: u8, learns: bool, secure: SecureState, seconds: u64) -> End {
    let remote = if learns { LEARNED } else { Remote::Fixed(Address(home(theirs))) };
    Kind { psk, secure, wall: wall(seconds), ..Kind::new(ours, theirs, &[remote]) }.end()
}

impl End {
    /// Sent datagrams: target and bytes.
    fn sent(&mut self) -> Vec<(Target, Vec<u8>)> {
        let numbers = |Departure { target, datagrams, .. }| datagrams.map(move |number| (target, number));
        let all = self.outbox.departures().flat_map(numbers);
        let all = all.map(|(target, number)| (target, self.outbox.batch().frame(number).to_vec())).collect();
        self.outbox.clear();
        all
    }

    fn on_time(&mut self, now_us: u64) -> Vec<(Target, Vec<u8>)> {
        self.session.on_time(now_us, &self.counters, &mut self.outbox);
        self.sent()
    }

    fn receive(&mut self, datagram: &[u8], source: SocketAddr, now_us: u64) -> Vec<(Target, Vec<u8>)> {
        self.receive_by(0, datagram, source, now_us)
    }

    fn receive_by(&mut self, path: usize, datagram: &[u8], source: SocketAddr, now_us: u64) -> Vec<(Target, Vec<u8>)> {
        let source = self.reports_source.then(|| source.into());
        self.receive_from(path, datagram, source, now_us)
    }

    /// Receives a datagram whose source the socket reports, or not.
    fn receive_from(
        &mut self,
        path: usize,
        datagram: &[u8],
        source: Option<Endpoint>,
        now_us: u64,
    ) -> Vec<(Target, Vec<u8>)> {
        let mut batch = Batch::with_slots(2);
        batch.slots().take(1).for_each(|slot| slot[..datagram.len()].copy_from_slice(datagram));
        batch.push_run(0, datagram.len(), datagram.len(), source);
        self.session.receive(path, &mut batch, now_us, &self.counters, &mut self.outbox);
        self.frames = batch.frames(0).map(<[u8]>::to_vec).collect();
        self.sent()
    }

    /// A datagram with a frame of this byte.
    fn frame(&self, byte: u8) -> Vec<u8> {
        self.frame_by(0, byte)
    }

    fn frame_by(&self, queue: u8, byte: u8) -> Vec<u8> {
        let mut datagram = [&[0; HEADER][..], &content::frame_header(None), &[byte; FRAME], &[0; TAG]].concat();
        self.session.route().sending.as_ref().unwrap().seal(queue, &mut datagram).unwrap();
        datagram
    }

    fn trouble(&self) -> Option<Trouble> {
        self.session.report_secure(0).trouble
    }

    fn has_session(&self) -> bool {
        self.session.route().sending.is_some()
    }
}

/// Both ends: 1 has a fixed peer and begins; 2 learns.
fn both() -> (End, End) {
    (end(1, 2, 0, false, SecureState::default(), 1000), end(2, 1, 0, true, SecureState::default(), 1000))
}

/// Runs the ends at home(1) and home(2), which send to each other without delay. Datagrams for which `passes` returns false are
/// lost; its arguments are the sender, the time and the bytes.
fn run(mut ends: [&mut End; 2], from_us: u64, until_us: u64, mut passes: impl FnMut(usize, u64, &[u8]) -> bool) {
    let homes = [home(1), home(2)];
    let mut now_us = from_us;
    while now_us <= until_us {
        let mut under_way = VecDeque::new();
        for (which, end) in ends.iter_mut().enumerate() {
            under_way.extend(end.on_time(now_us).into_iter().map(|sent| (which, sent)));
        }
        while let Some((from, (target, datagram))) = under_way.pop_front() {
            if passes(from, now_us, &datagram) && target.address() == Some(homes[1 - from]) {
                let answers = ends[1 - from].receive(&datagram, homes[from], now_us);
                under_way.extend(answers.into_iter().map(|sent| (1 - from, sent)));
            }
        }
        now_us = now_us.max(ends[0].session.due_us().min(ends[1].session.due_us()));
    }
}

/// Runs both ends at one time.
fn exchange(ends: [&mut End; 2], now_us: u64) {
    run(ends, now_us, now_us, |_, _, _| true);
}

fn only(sent: Vec<(Target, Vec<u8>)>) -> Vec<u8> {
    assert_eq!(sent.len(), 1, "{sent:02x?}");
    sent.into_iter().next().unwrap().1
}

/// Runs an attempt in the short form up to the KEM key. Returns the KEM key and its time.
fn to_kem_key(first: &mut End, second: &mut End, mut now_us: u64) -> (Vec<u8>, u64) {
    loop {
        let sent = first.on_time(now_us);
        if let [(_, initiation)] = &sent[..]
            && initiation.len() == Form::Short.initiation()
        {
            let response = only(second.receive(initiation, home(1), now_us));
            assert!(first.receive(&response, home(2), now_us).is_empty());
            return (only(first.on_time(now_us)), now_us);
        }
        now_us = first.session.due_us();
    }
}

#[test]
fn first_datagram_confirms_session() {
    let (mut first, mut second) = both();
    let initiation = only(first.on_time(0));
    assert!(second.on_time(0).is_empty(), "sent without a known peer");
    let answer = second.receive(&initiation, home(1), 1);
    assert_eq!(answer[0].0, at(home(1)));
    let response = only(answer);
    // A repetition from elsewhere is answered there with the same bytes, and does not locate the peer.
    assert_eq!(second.receive(&initiation, home(9), 1), [(at(home(9)), response.clone())]);
    assert!(first.receive(&response, home(2), 2).is_empty() && first.has_session());
    // A repetition has no effect.
    assert!(first.receive(&response, home(2), 2).is_empty());
    assert_eq!(first.session.report_secure(2).counts.handshakes, 1);
    let ping = only(first.on_time(3));
    assert!(!second.has_session());
    assert_eq!(second.session.report_secure(0).heard, Timestamp::default(), "before it is confirmed");
    // An attacker who is faster gets a pong and a ping, and is not the peer.
    let answers = second.receive(&ping, home(9), 4);
    assert_eq!(answers.iter().map(|(target, _)| *target).collect::<Vec<_>>(), [at(home(9)); 2]);
    assert!(second.has_session() && second.session.route().now().1.target == Target::Unknown);
    assert!(second.receive(&ping, home(1), 5).is_empty(), "a repetition was answered");
    let ping = only(first.on_time(100_003));
    let answers = second.receive(&ping, home(1), 100_004);
    let pongs: Vec<_> = answers.iter().flat_map(|(_, answer)| first.receive(answer, home(2), 100_005)).collect();
    for (_, pong) in pongs {
        second.receive(&pong, home(1), 100_006);
    }
    assert_eq!(second.session.route().now().1.target, at(home(1)));
    assert_eq!(second.session.report_secure(0).heard, rounded(1000 * 1_000_000_000));
}

#[test]
fn incomplete_frame_is_counted() {
    let (mut first, mut second) = both();
    let initiation = only(first.on_time(0));
    let response = only(second.receive(&initiation, home(1), 0));
    first.receive(&response, home(2), 1);
    let mut route = first.session.route().clone();
    route.egress[0].datagram = 1256;
    let mut sealer = Sealer::new(route);
    let mut frames = Batch::with_slots(1);
    frames.append_copy(&[7; 1500]);
    let (pieces, ..) = sealer.seal(&mut frames, &first.counters);
    assert_eq!(pieces.len(), 2);
    second.receive(pieces.frame(0), home(1), 2);
    second.on_time(999_999);
    second.on_time(1_000_002);
    assert_eq!(second.session.report_secure(0).counts.dropped_incomplete, 0);
    second.on_time(2_000_003);
    assert_eq!(second.session.report_secure(0).counts.dropped_incomplete, 1);
}

#[test]
fn replayed_initiation_makes_no_session() {
    let (mut first, mut second) = both();
    let initiation = only(first.on_time(0));
    let response = only(second.receive(&initiation, home(1), 0));
    first.receive(&response, home(2), 1);
    let ping = only(first.on_time(2));
    second.receive(&ping, home(1), 3);
    assert!(second.receive(&initiation, home(1), 4).is_empty());
    assert_eq!(second.trouble(), None, "there is a session");
    // A new worker knows the timestamp as well.
    let state = second.session.report_secure(5);
    let mut next = end(2, 1, 0, true, state, 1000);
    assert_eq!(only(next.receive(&initiation, home(1), 0))[0], message::INITIATION);
    assert_eq!(next.trouble(), Some(Trouble::Clock { behind_ms: 1 }));
    let mut late = end(1, 2, 0, false, SecureState::default(), 990);
    assert_eq!(only(next.receive(&only(late.on_time(0)), home(1), 0))[0], message::INITIATION);
    assert_eq!(next.trouble(), Some(Trouble::Clock { behind_ms: 10_000 }));
    // A worker that knows the last sent timestamp exceeds it, with any clock.
    let mut late = end(1, 2, 0, false, first.session.report_secure(0), 990);
    assert_eq!(next.receive(&only(late.on_time(0)), home(1), 0).len(), 1);
}

#[test]
fn invalid_message_has_no_effect() {
    let (mut first, mut second) = both();
    let initiation = only(first.on_time(0));
    for at in 0..initiation.len() {
        let mut changed = initiation.clone();
        changed[at] ^= 1 << (at % 8);
        assert!(second.receive(&changed, home(1), 0).is_empty(), "byte {at}");
        assert!(second.receive(&initiation[..at], home(1), 0).is_empty(), "{at} bytes");
    }
    assert!(first.receive(&initiation, home(2), 0).is_empty(), "reflected");
    let response = only(second.receive(&initiation, home(1), 0));
    for at in 0..response.len() {
        let mut changed = response.clone();
        changed[at] ^= 1 << (at % 8);
        assert!(first.receive(&changed, home(2), 0).is_empty() && !first.has_session(), "byte {at}");
        first.receive(&response[..at], home(2), 0);
        assert!(!first.has_session(), "{at} bytes");
    }
    assert!(second.receive(&response, home(1), 0).is_empty(), "reflected");
    first.receive(&response, home(2), 0);
    assert!(first.has_session());
    let ping = only(first.on_time(1));
    for at in 0..ping.len() {
        let mut changed = ping.clone();
        changed[at] ^= 1 << (at % 8);
        assert!(second.receive(&changed, home(1), 0).is_empty() && !second.has_session(), "byte {at}");
    }
    assert!(first.receive(&ping, home(2), 1).is_empty(), "reflected");
}

/// "20 initiations a second are computed." "Beyond that the one with the greatest timestamp is kept, and computed when there is
/// room."
#[test]
fn newest_excess_initiation_is_answered() {
    let mut second = both().1;
    assert!(second.on_time(0).is_empty());
    let initiation = |seconds| only(end(1, 2, 0, false, SecureState::default(), seconds).on_time(0));
    let answered: usize = (0..20).map(|time| second.receive(&initiation(2000 + time), home(1), 0).len()).sum();
    assert_eq!(answered, 20);
    let dropped = |second: &End| second.session.report_secure(0).counts.dropped_initiations;
    // The initiation with the greatest timestamp is kept, from any address. A recorded one does not displace it.
    let newest = initiation(3000);
    let [first, older, less] = [2500, 2999, 2991].map(initiation);
    for (message, from, lost) in [(&first, 8, 0), (&newest, 3, 1), (&older, 9, 2), (&newest, 9, 3), (&less, 9, 4)] {
        assert!(second.receive(message, home(from), 1000).is_empty(), "{lost}");
        assert_eq!(dropped(&second), lost);
    }
    assert_eq!(second.session.due_us(), 50_000);
    assert!(second.on_time(49_999).is_empty());
    let answers = second.on_time(50_000);
    assert_eq!(answers.iter().map(|(target, _)| *target).collect::<Vec<_>>(), [at(home(3))]);
    // It is the kept one: a repetition gets the same answer.
    assert_eq!(only(second.receive(&newest, home(1), 50_000)), answers[0].1);
    // Then one in each 50 ms, at its arrival or when there is room.
    assert!(second.receive(&initiation(3001), home(1), 60_000).is_empty());
    assert_eq!(second.on_time(100_000).len(), 1);
    assert!(second.receive(&initiation(3002), home(1), 149_999).is_empty());
    assert_eq!(second.receive(&initiation(3003), home(1), 150_000).len(), 1);
    assert_eq!(dropped(&second), 5);
}

/// "A responder that receives again the message that it has answered last sends the same answer", "ten times a second at most".
#[test]
fn repeated_answers_are_rate_limited() {
    let (mut first, mut second) = both();
    let repeat = |second: &mut End, message: &[u8], answer: &[u8], from_us: u64| {
        let dropped = |second: &End| {
            let SecureCounters { dropped_initiations, dropped_messages, .. } = second.session.report_secure(0).counts;
            dropped_initiations + dropped_messages
        };
        for (after_us, times) in [(0, 30), (999_999, 5), (1_000_000, 30)] {
            let (before, mut answers) = (dropped(second), 0);
            for _ in 0..times {
                for sent in second.receive(message, home(9), from_us + after_us) {
                    assert_eq!(sent, (at(home(9)), answer.to_vec()));
                    answers += 1;
                }
            }
            assert_eq!(answers, if times == 5 { 0 } else { 10 });
            assert_eq!(dropped(second) - before, times - answers);
        }
    };
    let initiation = only(first.on_time(0));
    let response = only(second.receive(&initiation, home(1), 0));
    repeat(&mut second, &initiation, &response, 1);
    // The same for the second answer of the short form.
    let (mut first, mut second) = both();
    let (kem_key, now_us) = to_kem_key(&mut first, &mut second, 0);
    let ciphertext = only(second.receive(&kem_key, home(1), now_us));
    repeat(&mut second, &kem_key, &ciphertext, now_us);
    // A KEM key other than the accepted one is dropped.
    let mut other = kem_key.clone();
    other[100] ^= 1;
    other[1200] ^= 1;
    assert!(second.receive(&other, home(1), 9_000_000).is_empty());
    assert_eq!(only(second.receive(&kem_key, home(1), 9_000_000)), ciphertext);
}
