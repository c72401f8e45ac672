//! The two loops that join a port to a path, one thread each.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::batch::Batch;
use crate::counters;
use crate::frame::HEADER;
use crate::frame::plausible::is_plausible;
use crate::io::{Received, wait_for_error};
use crate::path::{Inlet, Outlet, Path, Splitting};
use crate::port::{Port, Sink, Source};
use crate::rules::{PEERS, Rules};
use crate::wire::classic::{Codec, Kind, PING, Scratch, kind};
use crate::wire::fragment::{Outcome, Reassembly};
use crate::wire::password::{self, Password};

/// Longest sleep of an idle loop, so that each passes several times between two heartbeats.
const IDLE: Duration = Duration::from_millis(200);
/// Pause after an error of a handle (an interface that is down), which would otherwise be reported without end.
const AFTER_ERROR: Duration = Duration::from_millis(100);
/// Longest time that a new worker spends on what waited for it.
const DRAINING: Duration = Duration::from_millis(100);

/// What all threads of the worker share.
pub struct Shared {
    pub port: Arc<Port>,
    pub paths: Vec<Path>,
    pub codec: Codec,
    pub seal: counters::Seal,
    pub rules: Rules,
    /// How large datagrams are split; with it, fragments are joined.
    pub splitting: Option<Splitting>,
    /// What a peer whose address is learned must know.
    pub password: Option<Password>,
    /// The sealed control messages: with a constant IV they never change.
    pub ping: Batch,
    pub pong: Batch,
    pub clock: Clock,
}

/// What the threads tell each other while they run.
pub struct Clock {
    /// Current tick.
    pub tick: AtomicU64,
    /// Number of the path that frames leave by.
    pub active: AtomicUsize,
    /// Zero of all times.
    pub start: Instant,
    /// Passes of each loop.
    pub passes: Vec<AtomicU64>,
}

impl Clock {
    /// For a worker with this number of paths that goes on from this tick and path.
    pub fn new(paths: usize, tick: u64, active: usize) -> Self {
        Self {
            tick: AtomicU64::new(tick),
            active: AtomicUsize::new(active),
            start: Instant::now(),
            passes: (0..=paths).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// Microseconds since the worker's start.
    pub fn now_us(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

/// Port to path: takes frames, applies the rules, seals them in place, sends them by the active path. Never returns.
pub struct Egress {
    shared: Arc<Shared>,
    source: Source,
    outlet: Outlet,
    batch: Batch,
    scratch: Scratch,
}

impl Egress {
    pub fn new(shared: Arc<Shared>) -> Self {
        let source = Source::new(Arc::clone(&shared.port));
        Self { shared, source, outlet: Outlet::new(), batch: Batch::default(), scratch: Scratch::default() }
    }

    /// Forgets what waits already.
    pub fn drain(&mut self) {
        let deadline = Instant::now() + DRAINING;
        while matches!(self.source.receive(&mut self.batch), Received::Batch) && Instant::now() < deadline {
            self.shared.port.counters.rx_dropped_stale.add(self.batch.len() as u64);
        }
    }

    pub fn run(mut self) -> ! {
        loop {
            self.shared.clock.passes[0].fetch_add(1, Relaxed);
            match self.source.receive(&mut self.batch) {
                Received::Batch => self.forward(),
                Received::Nothing if wait_for_error(self.source.as_fd(), IDLE) => {
                    self.source.forget_errors(&mut self.batch);
                }
                Received::Nothing => {}
                Received::Error => std::thread::sleep(AFTER_ERROR),
            }
        }
    }

    fn forward(&mut self) {
        let Self { shared, outlet, batch, scratch, .. } = self;
        // Writing only: frames are read and forgotten, and do not count, as in the original.
        if !shared.rules.send {
            return;
        }
        shared.port.counters.rx_frames.add(batch.len() as u64);
        shared.port.counters.rx_bytes.add(batch.bytes());
        let mut peers = [IpAddr::from([0; 4]); PEERS];
        let known = if shared.rules.loop_check { known_peers(&shared.paths, &mut peers) } else { 0 };
        shared.rules.outward(batch, &peers[..known], &shared.port.counters);
        let sizes = shared.codec.seal(batch, scratch);
        shared.seal.bytes.add(sizes.bytes);
        shared.seal.compress_saved.add(sizes.compress_saved);
        shared.seal.compress_overhead.add(sizes.compress_overhead);
        shared.seal.encrypt_overhead.add(sizes.encrypt_overhead);
        let active = shared.clock.active.load(Relaxed).min(shared.paths.len() - 1);
        outlet.send(&shared.paths[active], batch, shared.splitting.as_ref());
    }
}

/// Writes the addresses of all peers that are known and returns how many those are.
fn known_peers(paths: &[Path], peers: &mut [IpAddr; PEERS]) -> usize {
    let known = paths.iter().filter_map(|path| path.remote.address());
    peers.iter_mut().zip(known).map(|(peer, address)| *peer = address.ip()).count()
}

/// Path to port: receives datagrams, opens them in place, answers control messages, applies the rules, gives frames away.
/// Never returns.
pub struct Ingress {
    shared: Arc<Shared>,
    index: usize,
    inlet: Inlet,
    /// Who was admitted last, where the remote is learned.
    known: Option<SocketAddr>,
    outlet: Outlet,
    sink: Sink,
    batch: Batch,
    scratch: Scratch,
    reassembly: Option<Reassembly>,
}

impl Ingress {
    pub fn new(shared: Arc<Shared>, index: usize) -> Self {
        Self {
            index,
            inlet: Inlet::new(&shared.paths[index]),
            known: None,
            outlet: Outlet::new(),
            sink: Sink::new(Arc::clone(&shared.port)),
            batch: Batch::default(),
            scratch: Scratch::default(),
            reassembly: shared.splitting.as_ref().map(|_| Reassembly::default()),
            shared,
        }
    }

    /// Forgets what waits already.
    pub fn drain(&mut self) {
        let (path, deadline) = (&self.shared.paths[self.index], Instant::now() + DRAINING);
        while matches!(self.inlet.receive(path, &mut self.batch), Received::Batch) && Instant::now() < deadline {
            path.counters.rx_dropped_stale.add(self.batch.len() as u64);
        }
    }

    pub fn run(mut self) -> ! {
        loop {
            self.shared.clock.passes[1 + self.index].fetch_add(1, Relaxed);
            match self.inlet.receive(&self.shared.paths[self.index], &mut self.batch) {
                Received::Batch => self.forward(),
                Received::Nothing if wait_for_error(self.shared.paths[self.index].socket.as_fd(), IDLE) => {
                    self.inlet.forget_errors(&self.shared.paths[self.index], &mut self.batch);
                }
                Received::Nothing => {}
                Received::Error => std::thread::sleep(AFTER_ERROR),
            }
        }
    }

    fn forward(&mut self) {
        let Self { shared, index, inlet, known, outlet, sink, batch, scratch, reassembly } = self;
        let path = &shared.paths[*index];
        let now_us = shared.clock.now_us();
        if !batch.is_empty() {
            path.received_us.store(now_us, Relaxed);
        }
        let mut implausible = 0;
        batch.filter_map(|number, buffer, length| {
            let length = match reassembly.as_mut().map(|table| table.take(buffer, length, now_us / 1000)) {
                None | Some(Outcome::Whole) => length,
                Some(Outcome::Joined(length)) => length,
                Some(Outcome::Waits) => return None,
                Some(Outcome::Invalid) => {
                    path.counters.rx_dropped_invalid.add(1);
                    return None;
                }
            };
            let Some(length) = shared.codec.open(buffer, length, scratch) else {
                path.counters.rx_dropped_invalid.add(1);
                return None;
            };
            let decoded = &buffer[..length];
            let (kind, source) = (kind(decoded), inlet.source(number));
            // Only this thread changes whom this path has learned, so whoever came last need not be looked at again.
            if source.is_none() || source != *known || kind == Kind::Password {
                if !password::admits(&path.remote, shared.password.as_ref(), source, decoded) {
                    path.counters.rx_dropped_foreign.add(1);
                    return None;
                }
                *known = source;
            }
            // Counted and no more: what comes is given away as it comes.
            implausible += u64::from(match kind {
                Kind::Frame => !is_plausible(decoded),
                // The trailer of a peer that compresses, while we do not.
                Kind::Ping | Kind::Pong => length == PING.len() + 1,
                Kind::Password => false,
            });
            match kind {
                Kind::Frame if !shared.rules.receive => {}
                Kind::Frame if length < HEADER => shared.port.counters.tx_dropped_short.add(1),
                Kind::Frame => return Some(length),
                Kind::Ping => answer_ping(shared, path, outlet),
                Kind::Pong => note_pong(shared, path),
                Kind::Password => {}
            }
            None
        });
        path.counters.rx_implausible.add(implausible);
        shared.rules.inward(batch);
        sink.send(batch);
    }
}

fn answer_ping(shared: &Shared, path: &Path, outlet: &mut Outlet) {
    path.counters.pings_received.add(1);
    if outlet.send(path, &shared.pong, shared.splitting.as_ref()) {
        path.counters.pongs_sent.add(1);
    }
}

fn note_pong(shared: &Shared, path: &Path) {
    path.counters.pongs_received.add(1);
    path.last_pong.store(shared.clock.tick.load(Relaxed), Relaxed);
    path.rtt_us.store(shared.clock.now_us().saturating_sub(path.ping_sent_us.load(Relaxed)).max(1), Relaxed);
}
