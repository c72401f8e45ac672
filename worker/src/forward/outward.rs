//! Port to path.

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use nix::poll::PollFlags;

use super::{DRAINING_US, QUEUE_WAIT_US, REST_US, Shared};
use crate::batch::Batch;
use crate::io::{Received, wait};
use crate::path::Outlet;
use crate::port::Source;
use crate::rules::PEERS;
use crate::wire::{Sealer, Target};

/// Takes frames, applies the rules, seals them, sends them.
pub struct Outward {
    shared: Arc<Shared>,
    source: Source,
    sealer: Sealer,
    /// Version of the route that the sealer has.
    route: u64,
    outlet: Outlet,
    batch: Batch,
    /// The port is left alone until then.
    rests_until_us: u64,
}

impl Outward {
    pub fn new(shared: Arc<Shared>, source: Source, sealer: Sealer) -> Self {
        let (outlet, batch) = (Outlet::default(), Batch::default());
        Self { shared, source, sealer, route: 0, outlet, batch, rests_until_us: 0 }
    }

    /// Forgets what waits already.
    pub fn drain(&mut self) {
        let (clock, counters) = (self.shared.clock, &self.shared.counters.port);
        let deadline = clock.now_us() + DRAINING_US;
        while self.source.receive(counters, &mut self.batch) == Received::Batch && clock.now_us() < deadline {
            counters.rx_dropped_stale.add(self.batch.len() as u64);
        }
    }

    pub fn run(mut self) -> ! {
        loop {
            self.shared.passes.fetch_add(1, Relaxed);
            let rests = self.rests_until_us > 0 && self.shared.clock.now_us() < self.rests_until_us;
            let received = if rests {
                Received::Nothing
            } else {
                self.rests_until_us = 0;
                self.source.receive(&self.shared.counters.port, &mut self.batch)
            };
            match received {
                Received::Batch => self.forward(),
                Received::Nothing => self.sleep(),
                Received::Error => self.rests_until_us = self.shared.clock.now_us() + REST_US,
            }
        }
    }

    /// Until there is a frame, or somebody wakes us.
    fn sleep(&mut self) {
        let Shared { clock, outward, .. } = &*self.shared;
        // Whoever is polled reports errors, asked or not; so a port that rests is not polled at all.
        let (port, limit) = match self.rests_until_us {
            0 => (self.source.as_fd(), None),
            until => (outward.as_fd(), clock.until(until)),
        };
        let [port, woken] = wait([(port, PollFlags::POLLIN), (outward.as_fd(), PollFlags::POLLIN)], limit);
        if !woken.is_empty() {
            self.shared.woken();
        }
        if port.contains(PollFlags::POLLERR) {
            self.source.forget_errors(&mut self.batch);
        }
    }

    fn forward(&mut self) {
        let Self { shared, sealer, batch, .. } = self;
        let Shared { counters, rules, .. } = &**shared;
        // Writing only: frames are read and forgotten, and do not count, as in the original.
        if !rules.send {
            return;
        }
        counters.port.rx_frames.add(batch.len() as u64);
        counters.port.rx_bytes.add(batch.bytes());
        shared.route.look(&mut self.route, |route| sealer.set_route(route));
        let mut peers = [SocketAddr::from(([0; 4], 0)); PEERS];
        let known = peers.iter_mut().zip(sealer.route().peers()).map(|(peer, address)| *peer = address).count();
        rules.outward(batch, &peers[..known], &counters.port);
        self.send();
    }

    /// Seals what is in the batch and sends it, waiting for room while the route stays the same.
    fn send(&mut self) {
        let Self { shared, sealer, outlet, batch, route, .. } = self;
        let (datagrams, path, target) = sealer.seal(batch, &shared.counters);
        let (Some(socket), Some(counters)) = (shared.sockets.get(path), shared.counters.paths.get(path)) else {
            return;
        };
        if target == Target::Nobody {
            return;
        }
        let (mut next, end, mut deadline) = (0, datagrams.len(), None);
        loop {
            outlet.send(socket.as_fd(), counters, datagrams, &mut next, end, target.named());
            if next == end {
                return;
            }
            let now = shared.clock.now_us();
            let until = *deadline.get_or_insert(now + QUEUE_WAIT_US);
            let mut moved = false;
            let mut seen = *route;
            shared.route.look(&mut seen, |_| moved = true);
            if now >= until || moved {
                counters.tx_errors.add((end - next) as u64);
                return;
            }
            let room = (socket.as_fd(), PollFlags::POLLOUT);
            let [_, woken] = wait([room, (shared.outward.as_fd(), PollFlags::POLLIN)], shared.clock.until(until));
            if !woken.is_empty() {
                shared.woken();
            }
        }
    }
}
