//! The two loops that join a port to a path, one thread each.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::batch::Batch;
use crate::frame::HEADER;
use crate::io::{Received, wait_readable};
use crate::path::{Inlet, Outlet, Path};
use crate::port::{Port, Sink, Source};
use crate::wire::classic::{Codec, Kind, PING, PONG, kind};

/// Longest sleep of an idle loop, so that each passes several times between two heartbeats.
const IDLE: Duration = Duration::from_millis(200);
/// Pause after an error of a handle (an interface that is down), which would otherwise be reported without end.
const AFTER_ERROR: Duration = Duration::from_millis(100);

/// What all threads of the worker share. Nothing in it is ever locked.
pub struct Shared {
    pub port: Arc<Port>,
    pub paths: Vec<Path>,
    /// Which path frames leave by.
    pub active: usize,
    pub codec: Codec,
    /// The sealed control messages: with a constant IV they never change.
    pub ping: Vec<u8>,
    pub pong: Vec<u8>,
    /// Current tick.
    pub tick: AtomicU64,
    /// The local interface has been removed.
    pub port_gone: AtomicBool,
    /// Zero of all times.
    pub start: Instant,
    /// Passes of each loop.
    pub passes: Vec<AtomicU64>,
}

impl Shared {
    pub fn new(port: Arc<Port>, paths: Vec<Path>, codec: Codec, tick: u64) -> Self {
        let passes = (0..=paths.len()).map(|_| AtomicU64::new(0)).collect();
        let (ping, pong) = (codec.seal_message(PING), codec.seal_message(PONG));
        let (tick, start) = (AtomicU64::new(tick), Instant::now());
        Self { port, paths, active: 0, codec, ping, pong, tick, port_gone: AtomicBool::new(false), start, passes }
    }

    /// Microseconds since the worker's start.
    pub fn now_us(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

/// Port to path: takes frames, seals them in place, sends them by the active path. Never returns.
pub struct Egress {
    pub shared: Arc<Shared>,
    source: Source,
    outlet: Outlet,
    batch: Batch,
}

impl Egress {
    pub fn new(shared: Arc<Shared>) -> Self {
        let source = Source::new(Arc::clone(&shared.port));
        Self { shared, source, outlet: Outlet::new(), batch: Batch::default() }
    }

    pub fn run(mut self) -> ! {
        loop {
            self.shared.passes[0].fetch_add(1, Relaxed);
            match self.source.receive(&mut self.batch) {
                Received::Batch => self.forward(),
                Received::Nothing => _ = wait_readable(self.source.as_fd(), IDLE),
                Received::Error => std::thread::sleep(AFTER_ERROR),
                Received::Gone => {
                    self.shared.port_gone.store(true, Relaxed);
                    std::thread::sleep(AFTER_ERROR);
                }
            }
        }
    }

    fn forward(&mut self) {
        let Self { shared, outlet, batch, .. } = self;
        shared.port.counters.rx_frames.add(batch.len() as u64);
        shared.port.counters.rx_bytes.add(batch.bytes());
        shared.codec.seal(batch);
        outlet.send(&shared.paths[shared.active], batch);
    }
}

/// Path to port: receives datagrams, opens them in place, answers control messages, gives frames away. Never returns.
pub struct Ingress {
    pub shared: Arc<Shared>,
    index: usize,
    inlet: Inlet,
    outlet: Outlet,
    sink: Sink,
    batch: Batch,
}

impl Ingress {
    pub fn new(shared: Arc<Shared>, index: usize) -> Self {
        let sink = Sink::new(Arc::clone(&shared.port));
        Self { shared, index, inlet: Inlet::new(), outlet: Outlet::new(), sink, batch: Batch::default() }
    }

    pub fn run(mut self) -> ! {
        loop {
            self.shared.passes[1 + self.index].fetch_add(1, Relaxed);
            match self.inlet.receive(&self.shared.paths[self.index], &mut self.batch) {
                Received::Batch => self.forward(),
                Received::Nothing => _ = wait_readable(self.shared.paths[self.index].socket.as_fd(), IDLE),
                Received::Error | Received::Gone => std::thread::sleep(AFTER_ERROR),
            }
        }
    }

    fn forward(&mut self) {
        let Self { shared, index, outlet, sink, batch, .. } = self;
        let path = &shared.paths[*index];
        let (mut invalid, mut short) = (0, 0);
        batch.filter_map(|datagram| {
            let Some(length) = shared.codec.open(datagram) else {
                invalid += 1;
                return None;
            };
            match kind(&datagram[..length]) {
                Kind::Frame if length < HEADER => short += 1,
                Kind::Frame => return Some(length),
                Kind::Ping => answer_ping(shared, path, outlet),
                Kind::Pong => note_pong(shared, path),
                Kind::Password => {}
            }
            None
        });
        path.counters.rx_dropped_invalid.add(invalid);
        shared.port.counters.tx_dropped_short.add(short);
        sink.send(batch);
    }
}

fn answer_ping(shared: &Shared, path: &Path, outlet: &mut Outlet) {
    path.counters.pings_received.add(1);
    if outlet.send_message(path, &shared.pong) {
        path.counters.pongs_sent.add(1);
    }
}

fn note_pong(shared: &Shared, path: &Path) {
    path.counters.pongs_received.add(1);
    path.last_pong.store(shared.tick.load(Relaxed), Relaxed);
    path.rtt_us.store(shared.now_us().saturating_sub(path.ping_sent_us.load(Relaxed)).max(1), Relaxed);
}
