//! One end: the session and the sealer of a worker, with the actions of its threads and of the supervisor.

use std::collections::HashMap;
use std::net::SocketAddr;

use ethudp_worker::batch::Batch;
use ethudp_worker::endpoint::Target;
use ethudp_worker::wire::{Counters, Departure, Outbox, Sealer, Session, machines};
use privsep::ipc::{
    Address, Cipher, Classic, ClassicSecrets, PathHealth, PathReport, PathSettings, Remote, Rules, Secret, Secrets,
    Settings, SharedPath, State, Wire, WireState,
};

use crate::SECOND;
use crate::net::Random;

/// A datagram in flight.
#[derive(Clone)]
pub struct Datagram {
    pub path: usize,
    pub source: SocketAddr,
    /// Destination, or the address to which its socket is connected.
    pub target: Option<SocketAddr>,
    pub bytes: Vec<u8>,
    /// Number of its frame, if it carries one.
    pub frame: Option<u64>,
    /// Whether it leaves in one message with others (`UDP_SEGMENT`).
    pub in_run: bool,
}

/// A sent frame.
pub struct Frame {
    pub bytes: Vec<u8>,
    pub sent: u64,
    pub delivered: u64,
}

impl Frame {
    /// Number in a frame.
    pub fn number(bytes: &[u8]) -> u64 {
        bytes.get(14..22).map_or(u64::MAX, |number| u64::from_be_bytes(number.try_into().unwrap()))
    }
}

/// Number of the stranger, who has the key, receives the datagrams of end 1, and does not know the password.
pub const STRANGER: usize = 2;
/// Ticks for which a silent path counts as up, and PINGs for which a new tunnel waits for its first path.
const UP: u64 = 5;

const CIPHERS: [Cipher; 5] = [Cipher::None, Cipher::Xor, Cipher::Aes128, Cipher::Aes192, Cipher::Aes256];

/// Kind of a tunnel.
#[derive(Clone, Copy)]
pub struct Shape {
    pub paths: usize,
    /// Whether end 0 is behind NAT.
    pub nat: bool,
    classic: Classic,
    password: bool,
}

impl Shape {
    pub fn any(random: &mut Random) -> Self {
        let cipher = CIPHERS[random.below(CIPHERS.len() as u64) as usize];
        let compress = random.chance(2);
        let fragment_mtu = random.chance(2).then_some(1100);
        let keepalive_ms = Some([1000, 1000, 300, 100][random.below(4) as usize]);
        Self {
            paths: 1 + random.below(2) as usize,
            nat: random.chance(2),
            classic: Classic { cipher, compress, fragment_mtu, keepalive_ms },
            password: random.chance(2),
        }
    }

    /// Random kind with two paths and a PING each 100 ms.
    pub fn fast(random: &mut Random) -> Self {
        let any = Self::any(random);
        Self { paths: 2, classic: Classic { keepalive_ms: Some(100), ..any.classic }, ..any }
    }

    /// PINGs in a tick.
    fn pings(&self) -> u64 {
        (1000 / u64::from(self.classic.keepalive_ms.unwrap_or(1000))).max(1)
    }

    /// Whether a stranger is distinguishable from the peer: its address is learned from the sender of the password.
    pub fn has_stranger(&self) -> bool {
        self.nat && self.password
    }

    fn settings(&self, which: usize) -> Settings {
        let remote = |path| match (which, self.nat) {
            (1, true) => Remote::ANY,
            (0 | STRANGER, _) => Remote::Fixed(Address(address(1, path))),
            _ => Remote::Fixed(Address(address(0, path))),
        };
        // Fragments are joined before their sender is checked, so a stranger's fragments could spoil the peer's. This is a weakness
        // of the format and not tested here.
        let fragment_mtu = self.classic.fragment_mtu.filter(|_| which != STRANGER);
        Settings {
            wire: Wire::Classic(Classic { fragment_mtu, ..self.classic }),
            remotes: (0..self.paths).map(remote).collect(),
            paths: vec![PathSettings::default(); self.paths],
            rules: Rules { send: true, receive: true, ..Rules::default() },
            ..Settings::default()
        }
    }

    fn secrets(&self, which: usize) -> ClassicSecrets {
        let secret = |text: &str| Secret::new(text.as_bytes().to_vec());
        // Long enough to leave as two fragments.
        let mut password = if self.password { "p".repeat(1500) } else { String::new() };
        if which == STRANGER {
            password.replace_range(1499.., "q");
        }
        ClassicSecrets { key: secret("0123456789abcdef"), password: secret(&password) }
    }
}

/// Address of an end's path.
pub fn address(which: usize, path: usize) -> SocketAddr {
    ([192, 0, 2, 1 + which as u8], 6000 + path as u16).into()
}

pub struct End {
    which: usize,
    /// PINGs in a tick.
    pings: u64,
    settings: Settings,
    secrets: ClassicSecrets,
    session: Session,
    sealer: Sealer,
    counters: Counters,
    outbox: Outbox,
    batch: Batch,
    /// Start of its worker: zero of the worker's clock.
    started: u64,
    pub stopped_until: u64,
    /// State that the supervisor knows.
    state: State,
    /// Tick of the last answer on each path.
    answered: Vec<Option<u64>>,
    next_frame: u64,
    frame_at: u64,
    pub frames: HashMap<u64, Frame>,
    /// Datagrams for the network.
    pub sent: Vec<Datagram>,
    /// Answers for which the outbox had no room.
    pub refused: u64,
    /// Received PINGs, ticks, and sent datagrams that carry no frames.
    asked: u64,
    ticks: u64,
    said: u64,
    /// Number of earlier workers.
    restarts: u64,
    /// Number of stops, and their total duration.
    stops: u64,
    stopped: u64,
}

impl End {
    pub fn new(which: usize, shape: &Shape) -> Self {
        let (settings, secrets, state) = (shape.settings(which), shape.secrets(which), State::default());
        let (session, sealer) = machines(&settings, &Secrets::Classic(secrets.clone()), &state).unwrap();
        Self {
            counters: Counters::new(&state, settings.remotes.len()),
            answered: vec![None; settings.remotes.len()],
            which,
            pings: shape.pings(),
            settings,
            secrets,
            session,
            sealer,
            outbox: Outbox::default(),
            batch: Batch::with_slots(2),
            started: 0,
            stopped_until: 0,
            state,
            next_frame: which as u64 + 3,
            frame_at: 0,
            frames: HashMap::new(),
            sent: Vec::new(),
            refused: 0,
            asked: 0,
            ticks: 0,
            said: 0,
            restarts: 0,
            stops: 0,
            stopped: 0,
        }
    }

    /// Replaces the worker as a supervisor does: with the last reported state, and without addresses that a password must confirm
    /// again. Returns whether frames still take the same route, as far as that may be known.
    pub fn restart(&mut self, now: u64) -> bool {
        let mut state = self.state.clone();
        if let WireState::Classic(classic) = &mut state.wire {
            classic.fragment = classic.fragment.wrapping_add(0x4000) & !1;
        }
        if !self.secrets.password.expose().is_empty() {
            state.paths.iter_mut().for_each(|path| path.learned = None);
        }
        (self.session, self.sealer) =
            machines(&self.settings, &Secrets::Classic(self.secrets.clone()), &state).unwrap();
        self.counters = Counters::new(&state, self.settings.remotes.len());
        self.started = now;
        self.restarts += 1;
        let goes = |state: &State| (state.active, state.paths.iter().map(|path| path.learned).collect::<Vec<_>>());
        goes(&self.session.report(0)) == goes(&state)
    }

    pub fn is_stopped(&self, now: u64) -> bool {
        now < self.stopped_until
    }

    pub fn tick(&self) -> u64 {
        self.state.tick
    }

    pub fn report(&mut self, now: u64) -> State {
        self.session.report(now - self.started)
    }

    /// Time of the next deadline.
    pub fn due(&self) -> u64 {
        let session = self.session.due_us().saturating_add(self.started);
        session.min(self.frame_at).max(self.stopped_until)
    }

    pub fn on_time(&mut self, now: u64) {
        let tick = self.state.tick;
        self.session.on_time(now - self.started, &self.counters, &mut self.outbox);
        self.post();
        self.state = self.session.report(now - self.started);
        self.ticks += self.state.tick - tick.min(self.state.tick);
    }

    /// Path that frames leave by.
    pub fn active(&self) -> usize {
        self.state.active.into()
    }

    /// Whether a path has answered recently enough.
    pub fn answers(&self, path: usize) -> bool {
        self.answered[path].is_some_and(|tick| self.state.tick <= tick + UP)
    }

    /// Whether the first path has had its time, or is used.
    pub fn waits_for_the_first(&self) -> bool {
        self.active() == 0 || self.state.tick * self.pings > UP
    }

    /// Paths that count as up.
    pub fn up(&self) -> impl Iterator<Item = usize> {
        let up = |(path, report): (usize, &PathReport)| (report.health == PathHealth::Up).then_some(path);
        self.state.paths.iter().enumerate().filter_map(up)
    }

    /// Whether this end knows an address of the other end on some path.
    pub fn has_learned(&self, which: usize) -> bool {
        let is = |path: usize, learned: Address| learned.0 == address(which, path);
        self.state
            .paths
            .iter()
            .enumerate()
            .any(|(path, report)| report.learned.is_some_and(|learned| is(path, learned)))
    }

    /// Whether the end has sent, besides frames, no more than its PINGs and a password in fragments by each path a tick, and an answer
    /// to each PING. After a stop, the tick may hold one PING more if it holds several.
    pub fn says_no_more_than_it_must(&self) -> bool {
        let pings = self.pings + u64::from(self.pings > 1);
        self.said <= self.ticks * (pings + 2) * self.settings.remotes.len() as u64 + self.asked
    }

    /// Whether ticks equal the seconds in which the end was not stopped, within one for each start and each stop.
    pub fn keeps_time(&self, now: u64) -> bool {
        let (most, least) = (now / SECOND + 1 + self.restarts, (now - self.stopped) / SECOND);
        (least..=most + self.stops).contains(&(self.ticks + self.stops))
    }

    /// Stops the end for a while: datagrams queue meanwhile.
    pub fn stop(&mut self, now: u64, time: u64) {
        self.stopped_until = now + time;
        self.stopped += time;
        self.stops += 1;
    }

    /// Takes a datagram. Returns the frame in it.
    pub fn receive(&mut self, datagram: &Datagram, now: u64) -> Option<Vec<u8>> {
        let learned = matches!(self.settings.remotes[datagram.path], Remote::Learned { .. });
        // A connected socket receives only from its peer.
        put(&mut self.batch, &datagram.bytes, learned.then_some(datagram.source));
        let (path, time) = (datagram.path, now - self.started);
        let control = |counters: &Counters| {
            let SharedPath { pings_received, pongs_received, .. } = &counters.paths[path];
            (pings_received.get(), pongs_received.get())
        };
        let (pings, pongs) = control(&self.counters);
        self.session.receive(path, &mut self.batch, time, &self.counters, &mut self.outbox);
        self.post();
        let (pings_now, pongs_now) = control(&self.counters);
        self.asked += pings_now - pings;
        if pongs_now > pongs {
            self.answered[path] = Some(self.state.tick);
        }
        (!self.batch.is_empty()).then(|| self.batch.frame(0).to_vec())
    }

    pub fn frame_due(&self, now: u64) -> bool {
        now >= self.frame_at
    }

    /// Sends a frame of any length, with a unique number.
    pub fn send_frame(&mut self, now: u64, random: &mut Random) {
        self.frame_at = now + SECOND / 4 + random.below(SECOND / 2);
        let (number, length) = (self.next_frame, 60 + random.below(1455) as usize);
        self.next_frame += 3;
        let mut bytes = vec![0; length];
        bytes[12..14].copy_from_slice(&[0x88, 0xb5]);
        bytes[14..22].copy_from_slice(&number.to_be_bytes());
        // Half of it cannot be compressed.
        bytes[22 + (length - 22) / 2..].iter_mut().for_each(|byte| *byte = random.next() as u8);
        self.frames.insert(number, Frame { bytes: bytes.clone(), sent: now, delivered: 0 });
        self.batch.clear();
        self.batch.append_copy(&bytes);
        self.sealer.set_route(self.session.route());
        let (batch, departures) = self.sealer.seal(&mut self.batch, &self.counters);
        for &Departure { path, target, ref datagrams, .. } in departures {
            let all =
                datagrams.clone().map(|index| datagram(self.which, path, target, batch.frame(index), Some(number)));
            self.sent.extend(all);
        }
    }

    /// Passes the session's datagrams to the network.
    fn post(&mut self) {
        for Departure { path, target, datagrams, .. } in self.outbox.departures() {
            for number in datagrams {
                self.sent.push(datagram(self.which, path, target, self.outbox.batch().frame(number), None));
                self.said += 1;
            }
        }
        self.refused += u64::from(self.outbox.batch().is_full());
        self.outbox.clear();
    }
}

/// A datagram of an end.
pub fn datagram(which: usize, path: usize, target: Target, bytes: &[u8], frame: Option<u64>) -> Datagram {
    Datagram {
        path,
        source: address(which, path),
        target: target.address(),
        bytes: bytes.to_vec(),
        frame,
        in_run: false,
    }
}

/// Receives a datagram into a batch, with its origin if the socket is not connected.
pub fn put(batch: &mut Batch, bytes: &[u8], origin: Option<SocketAddr>) {
    batch.slots().take(1).for_each(|slot| slot[..bytes.len()].copy_from_slice(bytes));
    batch.push_run(0, bytes.len(), bytes.len(), origin.map(Into::into));
}
