//! Two sessions and an attacker between them, driven by a script. One end has a fixed peer. The other end learns its peer or also
//! has a fixed one.
//!
//! 1. A delivered frame was sent by the peer. It is delivered at most once for each time that it was sent.
//! 2. A datagram that was changed, truncated, extended or made up has no effect: no frame, no response, no change of route.
//! 3. The next deadline lies in the future once due actions are done.
//! 4. Datagrams go only to the peer's fixed address, or to the source of a received datagram.
//! 5. After [`CALM`] without interference both ends have a session and a route, and frames pass.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::{DefaultHasher, Hasher};
use std::net::SocketAddr;
use std::ops::Range;

use privsep::ipc::{Address, Remote, Secure, State, Timestamp};

use super::secure::{pair_of, random};
use crate::batch::Batch;
use crate::endpoint::Target;
use crate::wire::secure::content::{self, Content};
use crate::wire::secure::crypt::{HEADER, TAG};
use crate::wire::secure::keys::MACS;
use crate::wire::secure::message::{Form, INITIATION, RESPONSE};
use crate::wire::secure::{Sealer, Session, SessionConfig};
use crate::wire::{Counters, Departure, Outbox};

const SECOND: u64 = 1_000_000;
/// Most steps of a script, and most seconds without interference: enough for several rekeys.
const STEPS: usize = 400;
const ALONE: u64 = 900;
/// Time after which the tunnel has recovered: silence is noticed after five seconds, and two attempts may have failed.
const CALM: u64 = 25 * SECOND;
/// Most bytes that both ends and the script may have allocated at a time, mainly for reassembly.
pub const SESSION_BYTES: u64 = 12 << 20;
/// Most datagrams in flight, and most recorded datagrams.
const KEPT: usize = 64;

/// Datagram, with the end that sent it.
#[derive(Clone)]
struct Datagram {
    from: usize,
    path: usize,
    target: SocketAddr,
    bytes: Vec<u8>,
}

/// Bytes of a script, followed by zeros.
struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    fn index(&mut self, of: usize) -> usize {
        usize::from(self.byte()) % of.max(1)
    }

    fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

/// Address of an end on a path.
fn home(end: usize, path: usize) -> SocketAddr {
    ([192, 0, 2, if end == 0 { 1 } else { 2 }], if path == 0 { 6000 } else { 6001 }).into()
}

/// Address of an end behind a NAT.
fn elsewhere(number: u8) -> SocketAddr {
    ([203, 0, 113, number], 7).into()
}

struct End {
    which: usize,
    keys: u8,
    offer: u8,
    remotes: Vec<Remote>,
    session: Session,
    sealer: Sealer,
    datagram: u16,
    counters: Counters,
    outbox: Outbox,
    batch: Batch,
    /// State that the supervisor keeps.
    state: State,
    started: u64,
    starts: u64,
}

impl End {
    fn new(which: usize, shape: u8) -> Self {
        let bit = |number: usize| shape >> number & 1 == 1;
        let remote = |path| match (which, bit(1)) {
            (1, true) => Remote::ANY,
            _ => Remote::Fixed(Address(home(1 - which, path))),
        };
        let (paths, datagram) = (1 + usize::from(bit(0)), if bit(4 + which) { 1256 } else { 1472 });
        let (keys, offer) = (u8::from(bit(6) != (which == 1)), if bit(2 + which) { 1 } else { 3 });
        let (remotes, state): (Vec<_>, _) = ((0..paths).map(remote).collect(), State::default());
        let session = session_of(which, keys, offer, datagram, &remotes, &state, 0, 0);
        Self {
            which,
            keys,
            offer,
            sealer: Sealer::new(session.route().clone()),
            datagram,
            session,
            counters: Counters::new(&state, paths),
            outbox: Outbox::default(),
            batch: Batch::with_slots(8),
            remotes,
            state,
            started: 0,
            starts: 0,
        }
    }

    fn restart(&mut self, now: u64) {
        self.starts += 1;
        self.session =
            session_of(self.which, self.keys, self.offer, self.datagram, &self.remotes, &self.state, now, self.starts);
        self.sealer = Sealer::new(self.session.route().clone());
        self.counters = Counters::new(&self.state, self.remotes.len());
        self.started = now;
    }

    fn due(&self) -> u64 {
        self.session.due_us().saturating_add(self.started)
    }

    fn on_time(&mut self, now: u64) -> Vec<Datagram> {
        let now_us = now - self.started;
        self.session.on_time(now_us, &self.counters, &mut self.outbox);
        assert!(self.session.due_us() > now_us, "what was due still is");
        self.state = self.session.report(now_us);
        self.posted()
    }

    /// Takes a datagram and returns the answers. The frames are in the batch.
    fn receive(&mut self, path: usize, bytes: &[u8], source: SocketAddr, now: u64) -> Vec<Datagram> {
        let origin = match self.remotes[path] {
            // A connected socket receives only from its peer.
            Remote::Fixed(Address(peer)) if peer != source => return Vec::new(),
            Remote::Fixed(_) => None,
            Remote::Named { .. } | Remote::Learned { .. } => Some(source.into()),
        };
        self.batch.slots().take(1).for_each(|slot| slot[..bytes.len()].copy_from_slice(bytes));
        self.batch.push_run(0, bytes.len(), bytes.len(), origin);
        self.session.receive(path, &mut self.batch, now - self.started, &self.counters, &mut self.outbox);
        self.posted()
    }

    /// Seals frames as one batch.
    fn send(&mut self, frames: &[Vec<u8>]) -> Vec<Datagram> {
        let mut batch = Batch::with_slots(8);
        for frame in frames {
            batch.pack_copy(&[frame]);
        }
        self.sealer.set_route(self.session.route());
        let (sealed, departures) = self.sealer.seal(&mut batch, &self.counters);
        assert!(sealed.frames(0).all(|datagram| datagram.len() <= usize::from(self.datagram)));
        departures.iter().flat_map(|departure| sent(self.which, departure, sealed)).collect()
    }

    fn posted(&mut self) -> Vec<Datagram> {
        let mut all = Vec::new();
        for departure in self.outbox.departures() {
            all.extend(sent(self.which, &departure, self.outbox.batch()));
        }
        self.outbox.clear();
        all
    }
}

fn sent(from: usize, departure: &Departure, batch: &Batch) -> Vec<Datagram> {
    let &Departure { path, target, ref datagrams, .. } = departure;
    let Some(target) = target.address() else { return Vec::new() };
    let bytes = datagrams.clone().map(|number| batch.frame(number).to_vec());
    bytes.map(|bytes| Datagram { from, path, target, bytes }).collect()
}

#[allow(clippy::too_many_arguments)] // All are parameters of the script.
fn session_of(
    which: usize,
    keys: u8,
    offer: u8,
    datagram: u16,
    remotes: &[Remote],
    state: &State,
    now: u64,
    starts: u64,
) -> Session {
    Session::new(SessionConfig {
        pair: pair_of(keys),
        secure: &Secure { datagram, ping_interval: 1, ..Secure::default() },
        offer,
        remotes,
        paths: &[],
        delivers: true,
        exit_after: None,
        state,
        // The clock of one end is behind. The time of a session begins with the session.
        wall: Box::new(move |now_us| {
            Timestamp(1_000_000_000 * (1_000_000 - 1000 * (which as u64)) + 1000 * (now + now_us))
        }),
        random: random(2 * starts + which as u64),
    })
}

struct World {
    now: u64,
    alone: u64,
    ends: [End; 2],
    under_way: VecDeque<Datagram>,
    recorded: Vec<Datagram>,
    /// Number of datagrams sent.
    sent: usize,
    /// Sources of all received datagrams.
    sources: BTreeSet<SocketAddr>,
    /// How often each frame may still be delivered, by sender and hash of the frame.
    frames: [HashMap<u64, u64>; 2],
    number: u64,
}

/// Runs a script on two sessions.
pub fn session(script: &[u8]) {
    let mut script = Script(script);
    let mut world = World::new(script.byte());
    for _ in 0..STEPS {
        if script.0.is_empty() {
            break;
        }
        world.step(&mut script);
        world.do_what_is_due();
    }
    world.heal();
}

impl World {
    fn new(shape: u8) -> Self {
        Self {
            now: 0,
            alone: 0,
            ends: [End::new(0, shape), End::new(1, shape)],
            under_way: VecDeque::new(),
            recorded: Vec::new(),
            sent: 0,
            sources: BTreeSet::new(),
            frames: [HashMap::new(), HashMap::new()],
            number: 0,
        }
    }

    fn step(&mut self, script: &mut Script) {
        let under_way = self.under_way.len();
        match script.byte() % 16 {
            0 => self.pass_on(0),
            1 => self.pass_on(script.index(under_way)),
            2 => drop(self.under_way.remove(script.index(under_way))),
            3 => self.send_again(script.index(under_way), None),
            4 => {
                // From another address, as after a NAT has changed its mapping.
                let from = script.byte();
                self.send_again(0, Some(elsewhere(from)));
                self.under_way.pop_front();
            }
            5 => self.flip(script),
            6 => self.cut(script),
            7 => self.repeat(script),
            8 => {
                // Both ends are suspended meanwhile.
                self.now += 1 + u64::from(script.byte()) * 20_000;
            }
            9 => self.leave_alone(u64::from(script.byte() % 4) * SECOND / 2),
            10 => self.leave_alone(u64::from(script.byte()) * SECOND),
            11 => self.ends[script.index(2)].restart(self.now),
            12 => self.send_frames(script),
            13 => self.make_up(script),
            14 => self.forge(script),
            _ => self.say(script),
        }
    }

    fn do_what_is_due(&mut self) {
        for which in 0..2 {
            if self.ends[which].due() <= self.now {
                let sent = self.ends[which].on_time(self.now);
                self.carry(sent);
            }
        }
    }

    fn carry(&mut self, sent: Vec<Datagram>) {
        for datagram in sent {
            let Datagram { from, path, target, .. } = datagram;
            assert!(target == home(1 - from, path) || self.sources.contains(&target), "sent to {target}");
            // Keeps some old datagrams for a long time.
            self.sent += 1;
            if self.recorded.len() == KEPT {
                self.recorded.swap_remove(self.sent.wrapping_mul(0x9e37_79b9) / 7 % KEPT);
            }
            self.recorded.push(datagram.clone());
            if self.under_way.len() == KEPT {
                self.under_way.pop_front();
            }
            self.under_way.push_back(datagram);
        }
    }

    /// Delivers a datagram to an end, and returns the answers.
    fn arrive(&mut self, at: usize, path: usize, bytes: &[u8], source: SocketAddr) -> Vec<Datagram> {
        self.sources.insert(source);
        let answers = self.ends[at].receive(path, bytes, source, self.now);
        for frame in self.ends[at].batch.frames(0) {
            let left = self.frames[1 - at].get_mut(&hash(frame)).expect("a frame was invented or changed");
            *left = left.checked_sub(1).expect("a frame was delivered again");
        }
        answers
    }

    /// Delivers a datagram to the peer of its sender, from the sender's address.
    fn pass_on(&mut self, number: usize) {
        if let Some(Datagram { from, path, bytes, .. }) = self.under_way.remove(number) {
            let answers = self.arrive(1 - from, path, &bytes, home(from, path));
            self.carry(answers);
        }
    }

    /// Delivers a copy, possibly from another address.
    fn send_again(&mut self, number: usize, source: Option<SocketAddr>) {
        if let Some(Datagram { from, path, bytes, .. }) = self.under_way.get(number).cloned() {
            let answers = self.arrive(1 - from, path, &bytes, source.unwrap_or(home(from, path)));
            self.carry(answers);
        }
    }

    /// Delivers a forged datagram, which must have no effect.
    fn arrive_in_vain(&mut self, at: usize, path: usize, bytes: &[u8]) {
        let route = self.ends[at].session.route().clone();
        let answers = self.arrive(at, path, bytes, home(1 - at, path));
        assert!(answers.is_empty() && self.ends[at].batch.is_empty(), "a datagram that is none had an effect");
        assert_eq!(*self.ends[at].session.route(), route);
    }

    fn flip(&mut self, script: &mut Script) {
        let number = script.index(self.under_way.len());
        let at = usize::from(u16::from_be_bytes([script.byte(), script.byte()]));
        if let Some(Datagram { from, path, mut bytes, .. }) = self.under_way.get(number).cloned() {
            let at = at % (8 * bytes.len());
            bytes[at / 8] ^= 1 << (at % 8);
            self.arrive_in_vain(1 - from, path, &bytes);
        }
    }

    fn cut(&mut self, script: &mut Script) {
        let number = script.index(self.under_way.len());
        let (left, more) = (u16::from_be_bytes([script.byte(), script.byte()]), script.index(20));
        if let Some(Datagram { from, path, mut bytes, .. }) = self.under_way.get(number).cloned() {
            if more > 0 {
                bytes.extend(vec![0; more]);
            } else {
                bytes.truncate(usize::from(left) % bytes.len());
            }
            self.arrive_in_vain(1 - from, path, &bytes);
        }
    }

    /// Replays a recorded datagram to either end, from any address.
    fn repeat(&mut self, script: &mut Script) {
        let (number, at, source) = (script.index(self.recorded.len()), script.index(2), script.byte());
        if let Some(Datagram { from, path, bytes, .. }) = self.recorded.get(number).cloned() {
            let source = if source < 128 { home(1 - at, path) } else { elsewhere(source) };
            if at == from {
                self.arrive_in_vain(at, path, &bytes);
            } else {
                let answers = self.arrive(at, path, &bytes, source);
                self.carry(answers);
            }
        }
    }

    /// Runs for some time without interference.
    fn leave_alone(&mut self, time: u64) {
        let time = time.min(ALONE * SECOND - self.alone);
        self.alone += time;
        self.run(time);
    }

    fn run(&mut self, time: u64) {
        let until = self.now + time;
        loop {
            while let Some(Datagram { from, path, target, .. }) = self.under_way.front().cloned() {
                if target == home(1 - from, path) {
                    self.pass_on(0);
                } else {
                    self.under_way.pop_front();
                }
            }
            let due = self.ends.iter().map(End::due).fold(u64::MAX, u64::min);
            if due > until {
                self.now = until;
                return;
            }
            self.now = self.now.max(due);
            self.do_what_is_due();
        }
    }

    fn send_frames(&mut self, script: &mut Script) {
        let (which, sizes) = (script.index(2), script.byte());
        let mut frames = Vec::new();
        for number in 0..=sizes % 5 {
            let length = match sizes >> 5 {
                0 | 1 => 60 + usize::from(number),
                2 => 1400,
                3 => 1518,
                4 => 14 + 8,
                5 => 9000,
                _ => 400 + 1000 * usize::from(number % 2),
            };
            self.number += 1;
            let mut frame = vec![number; length];
            frame[14..22].copy_from_slice(&self.number.to_be_bytes());
            *self.frames[which].entry(hash(&frame)).or_default() += 1;
            frames.push(frame);
        }
        let sent = self.ends[which].send(&frames);
        self.carry(sent);
    }

    /// Delivers arbitrary bytes.
    fn make_up(&mut self, script: &mut Script) {
        let (at, length) = (script.index(2), usize::from(script.byte()));
        let bytes = script.take(length);
        self.arrive_in_vain(at, 0, bytes);
    }

    /// Changes a handshake message and makes its MACs right, as only the peer can. A changed initiation causes at most a new
    /// initiation, where it is stale. A changed response causes at most a session in which no datagram opens.
    fn forge(&mut self, script: &mut Script) {
        let (number, at, with) = (script.index(self.recorded.len()), script.byte(), script.byte().max(1));
        let Some(Datagram { from, path, mut bytes, .. }) = self.recorded.get(number).cloned() else { return };
        if ![INITIATION, RESPONSE].contains(&bytes[0]) {
            return;
        }
        let end = bytes.len() - MACS;
        bytes[usize::from(at) % end] ^= with;
        pair_of(self.ends[from].keys).put_macs(&mut bytes);
        let initiation = bytes[0] == INITIATION;
        let answers = self.arrive(1 - from, path, &bytes, home(from, path));
        let begins =
            |answer: &Datagram| answer.bytes[0] == INITIATION && answer.bytes.len() == Form::Short.initiation();
        assert!(self.ends[1 - from].batch.is_empty() && (!initiation || answers.iter().all(begins)));
        self.carry(answers);
    }

    /// Seals content that an end would not send: one frame, a bundle, a ping, a pong, or none of these.
    fn say(&mut self, script: &mut Script) {
        let (which, queue, length) = (script.index(2), script.byte() % 4, usize::from(script.byte()));
        let mut bytes = script.take(length).to_vec();
        // Fragments have their own target.
        if bytes.first() == Some(&2) {
            bytes[0] = 7;
        }
        let route = self.ends[which].session.route();
        let ((path, egress), Some(sending)) = (route.now(), &route.sending) else { return };
        let mut datagram = [&[0; HEADER][..], &bytes, &[0; TAG]].concat();
        if sending.seal(queue, &mut datagram).is_err() {
            return;
        }
        let mut allow = |range: Range<usize>| *self.frames[which].entry(hash(&bytes[range])).or_default() += 1;
        match content::parse(&bytes) {
            Some(Content::Frame(frame)) => allow(frame.range),
            Some(Content::Bundle(bundle)) => bundle.frames().map(|frame| frame.range).for_each(allow),
            _ => {}
        }
        let target = egress.target.address();
        self.carry(target.map(|target| Datagram { from: which, path, target, bytes: datagram }).into_iter().collect());
    }

    fn heal(&mut self) {
        self.run(CALM);
        for which in 0..2 {
            let route = self.ends[which].session.route();
            assert!(
                route.sending.is_some() && route.now().1.target != Target::Unknown,
                "end {which} has not come back"
            );
            let mut frame = vec![0xee; 60];
            frame[14] = u8::from(which == 1);
            let left = self.frames[which].entry(hash(&frame)).or_default();
            *left += 1;
            let before = *left;
            let sent = self.ends[which].send(std::slice::from_ref(&frame));
            self.carry(sent);
            self.run(SECOND);
            assert!(self.frames[which][&hash(&frame)] < before, "nothing passes from end {which}");
        }
    }
}

fn hash(frame: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(frame);
    hasher.finish()
}
