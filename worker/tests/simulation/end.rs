//! One end: the machines of a worker, and what the threads and the supervisor around them do.

use std::collections::HashMap;
use std::net::SocketAddr;

use ethudp_worker::batch::Batch;
use ethudp_worker::wire::{Counters, Outbox, Sealer, Session, Target, machines};
use privsep::ipc::{Address, Cipher, Classic, Remote, Rules, Secret, Secrets, Settings, State, Wire};

use crate::SECOND;
use crate::net::Random;

/// A datagram under way.
#[derive(Clone)]
pub struct Datagram {
    pub path: usize,
    pub source: SocketAddr,
    /// The address it names, or where its socket is connected.
    pub target: Option<SocketAddr>,
    pub bytes: Vec<u8>,
    /// Number of the frame that it carries, if it does.
    pub frame: Option<u64>,
}

/// A frame that was sent.
pub struct Frame {
    pub bytes: Vec<u8>,
    pub sent: u64,
    pub delivered: u64,
}

impl Frame {
    /// The number in a frame.
    pub fn number(bytes: &[u8]) -> u64 {
        bytes.get(14..22).map_or(u64::MAX, |number| u64::from_be_bytes(number.try_into().unwrap()))
    }
}

/// What kind of tunnel it is.
pub struct Shape {
    pub paths: usize,
    /// End 0 is behind NAT.
    pub nat: bool,
    classic: Classic,
    password: bool,
}

impl Shape {
    pub fn any(random: &mut Random) -> Self {
        let cipher = [Cipher::None, Cipher::Xor, Cipher::Aes128][random.below(3) as usize];
        let compress = random.chance(2);
        let fragment_mtu = random.chance(2).then_some(1100);
        Self {
            paths: 1 + random.below(2) as usize,
            nat: random.chance(2),
            classic: Classic { cipher, compress, fragment_mtu, keepalive: true },
            password: random.chance(2),
        }
    }

    fn settings(&self, which: usize) -> Settings {
        let remote = |path| match (which, self.nat) {
            (1, true) => Remote::Learned { address: None, port: None },
            _ => Remote::Fixed(Address(address(1 - which, path))),
        };
        Settings {
            wire: Wire::Classic(self.classic),
            remotes: (0..self.paths).map(remote).collect(),
            rules: Rules { send: true, receive: true, ..Rules::default() },
            ..Settings::default()
        }
    }

    fn secrets(&self) -> Secrets {
        let secret = |text: &str| Secret::new(text.as_bytes().to_vec());
        // Long enough to leave as two fragments.
        let password = if self.password { "p".repeat(1500) } else { String::new() };
        Secrets { key: secret("0123456789abcdef"), password: secret(&password) }
    }
}

/// The address of an end's path.
fn address(which: usize, path: usize) -> SocketAddr {
    ([192, 0, 2, 1 + which as u8], 6000 + path as u16).into()
}

pub struct End {
    which: usize,
    settings: Settings,
    secrets: Secrets,
    session: Session,
    sealer: Sealer,
    counters: Counters,
    outbox: Outbox,
    batch: Batch,
    /// When its worker was started: zero of its clock.
    started: u64,
    pub stopped_until: u64,
    /// What a supervisor has been told last.
    state: State,
    next_frame: u64,
    frame_at: u64,
    pub frames: HashMap<u64, Frame>,
    /// What the network is to take.
    pub sent: Vec<Datagram>,
    /// Answers for which the outbox had no room.
    pub refused: u64,
}

impl End {
    pub fn new(which: usize, shape: &Shape) -> Self {
        let (settings, secrets, state) = (shape.settings(which), shape.secrets(), State::default());
        let (session, sealer) = machines(&settings, &secrets, &state);
        Self {
            counters: Counters::new(&state, settings.remotes.len()),
            which,
            settings,
            secrets,
            session,
            sealer,
            outbox: Outbox::default(),
            batch: Batch::with_slots(2),
            started: 0,
            stopped_until: 0,
            state,
            next_frame: which as u64 + 2,
            frame_at: 0,
            frames: HashMap::new(),
            sent: Vec::new(),
            refused: 0,
        }
    }

    /// As a supervisor does it: with what was reported last, and without what a password must tell anew.
    pub fn restart(&mut self, now: u64) {
        let mut state = self.state.clone();
        state.fragment = state.fragment.wrapping_add(0x4000) & !1;
        if !self.secrets.password.expose().is_empty() {
            state.paths.iter_mut().for_each(|path| path.learned = None);
        }
        (self.session, self.sealer) = machines(&self.settings, &self.secrets, &state);
        self.counters = Counters::new(&state, self.settings.remotes.len());
        self.started = now;
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

    /// When it has something to do.
    pub fn due(&self) -> u64 {
        let session = self.session.due_us().saturating_add(self.started);
        session.min(self.frame_at).max(self.stopped_until)
    }

    pub fn on_time(&mut self, now: u64) {
        self.session.on_time(now - self.started, &self.counters, &mut self.outbox);
        self.post();
        self.state = self.session.report(now - self.started);
    }

    /// A datagram that has come; the frame in it.
    pub fn receive(&mut self, datagram: &Datagram, now: u64) -> Option<Vec<u8>> {
        let learned = matches!(self.settings.remotes[datagram.path], Remote::Learned { .. });
        self.batch.clear();
        self.batch.append_copy(&datagram.bytes);
        // A connected socket hears its peer alone.
        if learned {
            self.batch.set_origin(0, datagram.source);
        }
        let (path, time) = (datagram.path, now - self.started);
        self.session.receive(path, &mut self.batch, time, &self.counters, &mut self.outbox);
        self.post();
        (!self.batch.is_empty()).then(|| self.batch.frame(0).to_vec())
    }

    pub fn frame_due(&self, now: u64) -> bool {
        now >= self.frame_at
    }

    /// A frame of any length, each with a number of its own.
    pub fn send_frame(&mut self, now: u64, random: &mut Random) {
        self.frame_at = now + SECOND / 4 + random.below(SECOND / 2);
        let (number, length) = (self.next_frame, 60 + random.below(1455) as usize);
        self.next_frame += 2;
        let mut bytes = vec![0; length];
        bytes[12..14].copy_from_slice(&[0x88, 0xb5]);
        bytes[14..22].copy_from_slice(&number.to_be_bytes());
        // Half of it cannot be compressed.
        bytes[22 + (length - 22) / 2..].iter_mut().for_each(|byte| *byte = random.next() as u8);
        self.frames.insert(number, Frame { bytes: bytes.clone(), sent: now, delivered: 0 });
        self.batch.clear();
        self.batch.append_copy(&bytes);
        self.sealer.set_route(self.session.route());
        let (datagrams, path, target) = self.sealer.seal(&mut self.batch, &self.counters);
        for index in 0..datagrams.len() {
            self.sent.push(datagram(self.which, path, target, datagrams.frame(index), Some(number)));
        }
    }

    /// Hands what the session has to send to the network.
    fn post(&mut self) {
        for (path, target, numbers) in self.outbox.runs() {
            for number in numbers {
                self.sent.push(datagram(self.which, path, target, self.outbox.batch().frame(number), None));
            }
        }
        self.refused += u64::from(self.outbox.batch().is_full());
        self.outbox.clear();
    }
}

fn datagram(which: usize, path: usize, target: Target, bytes: &[u8], frame: Option<u64>) -> Datagram {
    Datagram { path, source: address(which, path), target: target.address(), bytes: bytes.to_vec(), frame }
}
