//! One end of the secure wire: the session and the sealer of a worker, with the actions of its threads and of the supervisor.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use ethudp_worker::batch::Batch;
use ethudp_worker::wire::secure::keys::{KEY, Pair};
use ethudp_worker::wire::secure::message;
use ethudp_worker::wire::secure::{Sealer, Session, SessionConfig};
use ethudp_worker::wire::{Counters, Departure, Outbox};
use privsep::ipc::{Address, PathSettings, Policy, Remote, State, Timestamp};

use crate::end::{Datagram, address, datagram, put};
use crate::net::Random;
use crate::{Run, SECOND};

/// Settings of a path whose length of datagrams is searched.
pub const SEARCHED: PathSettings = PathSettings { least: 1252, most: 1472, runs: true };
/// Longest datagram in bytes on a path with MTU 1304 over IPv6: the long form does not pass.
pub const SHORT: usize = 1256;

/// X25519 keys of both ends: private and public.
fn keys() -> [([u8; KEY], [u8; KEY]); 2] {
    use aws_lc_rs::agreement::{PrivateKey, X25519};
    [1, 2].map(|byte| {
        let private = PrivateKey::from_private_key(&X25519, &[byte; KEY]).unwrap();
        ([byte; KEY], private.compute_public_key().unwrap().as_ref().try_into().unwrap())
    })
}

/// Properties of an end that outlast a worker.
pub struct Kind {
    pub which: usize,
    pub swapped: bool,
    pub offer: u8,
    pub remotes: Vec<Remote>,
    /// Longest datagram that frames are sealed into.
    pub datagram: u16,
    /// Seconds from one ping to the next.
    pub ping_interval: u8,
    /// Mean time from one frame to the next.
    pub pause: u64,
    /// Whether the end searches for the length of datagrams, and sends in runs.
    pub searches: bool,
    /// Use of several paths.
    pub policy: Policy,
}

impl Kind {
    /// Remotes of an end. End 0 is behind NAT, or end 1 knows its addresses.
    pub fn remotes(which: usize, paths: usize, nat: bool) -> Vec<Remote> {
        let remote = |path| match (which, nat) {
            (1, true) => Remote::ANY,
            _ => Remote::Fixed(Address(address(1 - which, path))),
        };
        (0..paths).map(remote).collect()
    }
}

/// A sent frame.
pub struct Frame {
    pub bytes: Vec<u8>,
    pub sent: u64,
    pub delivered: u64,
    /// Path that it left by first.
    pub path: usize,
}

pub struct End {
    pub kind: Kind,
    pub session: Session,
    sealer: Sealer,
    counters: Counters,
    outbox: Outbox,
    batch: Batch,
    started: u64,
    pub stopped_until: u64,
    /// State that the supervisor knows.
    pub state: State,
    /// Wall clock at the start, which the test may set to any other time.
    pub wall: Arc<AtomicU64>,
    pub frame_at: u64,
    pub next_frame: u64,
    pub frames: HashMap<u64, Frame>,
    pub sent: Vec<Datagram>,
    pub refused: bool,
    /// Bytes of packets with pings, probes and answers, by path and second.
    pub control: Vec<Vec<u64>>,
    /// Times of datagrams sent to the stranger in the last second.
    pub to_stranger: VecDeque<u64>,
    pub timestamps: HashMap<Vec<u8>, Vec<u8>>,
    seed: u64,
}

/// Headers of IP and UDP.
const HEADERS: usize = 28;

impl End {
    pub fn new(kind: Kind, random: &mut Random) -> Self {
        let state = State::default();
        let (wall, seed) = (Arc::new(AtomicU64::new(any_time(random))), random.next());
        let session = session(&kind, &state, 0, &wall, seed);
        Self {
            sealer: Sealer::new(session.route().clone()),
            session,
            counters: Counters::new(&state, kind.remotes.len()),
            outbox: Outbox::default(),
            batch: Batch::with_slots(2),
            started: 0,
            stopped_until: 0,
            state,
            wall,
            frame_at: 0,
            next_frame: kind.which as u64,
            frames: HashMap::new(),
            sent: Vec::new(),
            refused: false,
            control: vec![Vec::new(); kind.remotes.len()],
            to_stranger: VecDeque::new(),
            timestamps: HashMap::new(),
            seed,
            kind,
        }
    }

    pub fn restart(&mut self, now: u64) {
        self.seed += 1;
        self.session = session(&self.kind, &self.state, now, &self.wall, self.seed);
        self.sealer = Sealer::new(self.session.route().clone());
        self.counters = Counters::new(&self.state, self.kind.remotes.len());
        self.started = now;
    }

    /// Restarts the program, without state.
    pub fn start_again(&mut self, wall: u64, now: u64) {
        self.wall.store(wall, Relaxed);
        self.state = State::default();
        self.timestamps.clear();
        self.restart(now);
    }

    pub fn due(&self) -> u64 {
        self.session.due_us().saturating_add(self.started).min(self.frame_at).max(self.stopped_until)
    }

    pub fn on_time(&mut self, now: u64) {
        let now_us = now - self.started;
        self.session.on_time(now_us, &self.counters, &mut self.outbox);
        self.post(now);
        self.state = self.session.report(now_us);
    }

    pub fn receive(&mut self, datagram: &Datagram, now: u64) -> Option<Vec<u8>> {
        let path = datagram.path;
        let origin = match &self.kind.remotes[path] {
            Remote::Named { .. } | Remote::Learned { .. } => Some(datagram.source),
            // A connected socket receives only from its peer.
            Remote::Fixed(address) if address.0 != datagram.source => return None,
            Remote::Fixed(_) => None,
        };
        put(&mut self.batch, &datagram.bytes, origin);
        self.session.receive(path, &mut self.batch, now - self.started, &self.counters, &mut self.outbox);
        self.post(now);
        (!self.batch.is_empty()).then(|| self.batch.frame(0).to_vec())
    }

    pub fn send_frame(&mut self, now: u64, random: &mut Random) {
        // As the outward loop does: frames wait in the port before they leave by a shorter path.
        let from_us = self.session.route().from_us;
        if from_us > 0 && now < self.started + from_us {
            self.frame_at = self.started + from_us;
            return;
        }
        self.frame_at = now + self.kind.pause / 2 + random.below(self.kind.pause);
        let number = self.next_frame;
        self.next_frame += 2;
        let mut frame = vec![0x88; 60 + random.below(1300) as usize];
        frame[14..22].copy_from_slice(&number.to_be_bytes());
        self.batch.clear();
        self.batch.append_copy(&frame);
        self.sealer.set_route(self.session.route());
        let (batch, departures) = self.sealer.seal(&mut self.batch, &self.counters);
        let path = departures.first().map_or(0, |departure| departure.path);
        for departure in departures {
            leave(self.kind.which, departure, batch, &self.counters, &mut self.sent);
        }
        self.frames.insert(number, Frame { bytes: frame, sent: now, delivered: 0, path });
        // As the outward loop does.
        self.counters.port.rx_frames.add(1);
        if self.counters.resting.swap(false, Relaxed) {
            self.session.arm(now - self.started);
            self.on_time(now);
        }
    }

    fn post(&mut self, now: u64) {
        for departure in self.outbox.departures() {
            let first = self.sent.len();
            leave(self.kind.which, &departure, self.outbox.batch(), &self.counters, &mut self.sent);
            let (path, second) = (departure.path, (now / SECOND) as usize);
            let controls = self.sent[first..].iter().filter(|sent| sent.bytes[0] == message::DATA);
            let bytes = controls.map(|sent| (sent.bytes.len() + HEADERS) as u64).sum::<u64>();
            let control = &mut self.control[path];
            control.resize(control.len().max(second + 1), 0);
            control[second] += bytes;
        }
        self.refused |= self.outbox.batch().is_full();
        self.outbox.clear();
    }

    /// Takes a frame that the other end delivers. Returns its number.
    pub fn delivered(&mut self, run: &Run, bytes: &[u8]) -> u64 {
        let number = u64::from_be_bytes(bytes[14..22].try_into().unwrap());
        run.check(number % 2 == self.kind.which as u64 && number < self.next_frame, "a frame was invented");
        if let Some(frame) = self.frames.get_mut(&number) {
            frame.delivered += 1;
            run.check(frame.bytes == bytes, "a frame was changed on its way");
            run.check(frame.delivered == 1, "a frame was delivered twice");
        }
        number
    }

    pub fn handshakes(&self) -> u64 {
        self.state.secure().map_or(0, |secure| secure.counts.handshakes)
    }
}

/// Sends the datagrams of a departure. Equal ones, and a shorter last one, are a run.
fn leave(which: usize, departure: &Departure, batch: &Batch, counters: &Counters, sent: &mut Vec<Datagram>) {
    let &Departure { path, target, runs, ref datagrams } = departure;
    let mut first = datagrams.start;
    while first < datagrams.end {
        let each = batch.frame(first).len();
        let equal = datagrams.clone().skip_while(|&index| index < first);
        let mut end = first + equal.take_while(|&index| batch.frame(index).len() == each).count();
        end += usize::from(end < datagrams.end && batch.frame(end).len() < each);
        if !runs {
            end = first + 1;
        }
        for index in first..end {
            let bytes = batch.frame(index);
            counters.paths[path].tx_bytes.add(bytes.len() as u64);
            counters.paths[path].tx_datagrams.add(1);
            sent.push(Datagram { in_run: end - first > 1, ..datagram(which, path, target, bytes, None) });
        }
        first = end;
    }
}

/// Random wall clock time in microseconds since 1970.
pub fn any_time(random: &mut Random) -> u64 {
    (1_000_000 + random.below(1_000_000_000)) * SECOND
}

fn session(kind: &Kind, state: &State, started: u64, wall: &Arc<AtomicU64>, seed: u64) -> Session {
    let &Kind { which, swapped, offer, ref remotes, datagram, ping_interval, policy, .. } = kind;
    let mut all = keys();
    if swapped {
        all.swap(0, 1);
    }
    let (mut random, wall) = (Random::new(seed), Arc::clone(wall));
    Session::new(SessionConfig {
        pair: Pair::new(&all[which].0, all[1 - which].1, &[7; KEY], [5; 8]).unwrap(),
        secure: &privsep::ipc::Secure {
            datagram,
            ping_interval,
            policy,
            weights: [1; privsep::ipc::MAX_PATHS],
            ..privsep::ipc::Secure::default()
        },
        offer,
        remotes,
        paths: if kind.searches { &[SEARCHED; privsep::ipc::MAX_PATHS] } else { &[] },
        delivers: true,
        exit_after: None,
        state,
        wall: Box::new(move |now_us| {
            let now = wall.load(Relaxed) + started + now_us;
            Timestamp(1000 * now)
        }),
        random: Box::new(move |to| to.iter_mut().for_each(|byte| *byte = random.next() as u8)),
    })
}
