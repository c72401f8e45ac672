//! Outward loop: from the port to the paths.

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use nix::poll::PollFlags;
use privsep::ipc::MAX_PATHS;

use super::{DRAINING_US, QUEUE_WAIT_US, REST_US, Shared};
use crate::batch::{Batch, PACKETS};
use crate::forward::answers::Answers;
use crate::forward::guard::Guard;
use crate::forward::rules::PEERS;
use crate::frame::offload::segment::Segmenter;
use crate::frame::offload::superframe::Facts;
use crate::io::{Received, wait};
use crate::port::Source;
use crate::underlay::Outlet;
use crate::wire::{Departure, Sealer};

/// Outward loop: takes frames from the port, applies the rules, seals them and sends them. It has a thread of its own, which owns it.
///
/// The thread calls [`drain`](Self::drain) once if queued frames are too old, and then [`run`](Self::run), which never returns and
/// calls [`turn`](Self::turn) repeatedly. A turn takes over a changed route, announces the TAP's addresses once after the first
/// session, and then either forwards one batch of frames or sleeps.
///
/// The loop owns the source of the port, the [`Sealer`], the outlet and two batches: one for received frames, one for packets
/// segmented from superframes. Sockets, rules, counters and the published route are in [`Shared`]. The main thread wakes the loop
/// by its waker.
pub struct Outward {
    shared: Arc<Shared>,
    source: Source,
    sealer: Sealer,
    /// Version of the sealer's route.
    route: u64,
    outlet: Outlet,
    batch: Batch,
    /// Packets segmented from superframes.
    packets: Batch,
    /// Time in microseconds until which the port is not read, after an error.
    rests_until_us: u64,
    /// Frames to send once a session exists.
    announcement: Vec<Vec<u8>>,
    /// Answers to packets that are too long, in mode tap.
    answers: Option<Answers>,
    /// Limits on frames from the port, if there are any.
    guard: Option<Guard>,
}

impl Outward {
    /// `announcement` are the frames to send once a session exists. `answers` is for packets that are too long.
    pub fn new(
        shared: Arc<Shared>,
        source: Source,
        sealer: Sealer,
        announcement: Vec<Vec<u8>>,
        answers: Option<Answers>,
    ) -> Self {
        let (outlet, batch, packets) = (Outlet::default(), source.batch(), Batch::for_packets());
        Self {
            shared,
            source,
            sealer,
            route: 0,
            outlet,
            batch,
            packets,
            rests_until_us: 0,
            announcement,
            answers,
            guard: None,
        }
    }

    /// Sets limits on the frames from the port.
    pub fn with_guard(self, guard: Option<Guard>) -> Self {
        Self { guard, ..self }
    }

    /// Drops frames that already wait.
    pub fn drain(&mut self) {
        let (clock, counters) = (self.shared.clock, &self.shared.counters.port);
        let deadline = clock.now_us() + DRAINING_US;
        while self.source.receive(counters, &mut self.batch) == Received::Batch && clock.now_us() < deadline {
            counters.rx_dropped_stale.add(self.batch.packets().0);
        }
    }

    pub fn run(mut self) -> ! {
        loop {
            self.turn();
        }
    }

    /// Takes a batch from the port, or sleeps if there is none.
    pub(crate) fn turn(&mut self) {
        self.shared.passes.fetch_add(1, Relaxed);
        // Also without frames: the sealer would otherwise keep the key of the old session.
        follow_route(&self.shared, &mut self.sealer, &mut self.route);
        if !self.announcement.is_empty() && self.sealer.has_session() {
            self.announce();
        }
        if let Some(guard) = &mut self.guard
            && let Some(frame) = guard.due_frame(|| self.shared.clock.now_us())
        {
            self.detect_loops(&frame);
        }
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

    /// Announces this end's addresses to the peer's network.
    fn announce(&mut self) {
        let Self { shared, sealer, outlet, packets, route, announcement, .. } = self;
        let frames = std::mem::take(announcement);
        if !shared.rules.send {
            return;
        }
        packets.clear();
        for frame in &frames {
            if !packets.is_full() {
                packets.pack_copy(&[frame]);
            }
        }
        seal_and_send(shared, sealer, outlet, packets, *route);
    }

    /// Sends a frame of the loop detection, which bypasses limits and a blocked port.
    fn detect_loops(&mut self, frame: &[u8]) {
        let Self { shared, sealer, outlet, packets, route, .. } = self;
        // The secure wire would count it as dropped.
        if sealer.has_session() || !sealer.carries_facts() {
            packets.clear();
            packets.pack_copy(&[frame]);
            seal_and_send(shared, sealer, outlet, packets, *route);
        }
    }

    /// Sleeps until a frame arrives or the loop is woken.
    fn sleep(&mut self) {
        let Shared { clock, outward, .. } = &*self.shared;
        let rests = Some(self.rests_until_us).filter(|&until| until > 0);
        // Poll reports errors even without a request, so a resting port is not polled.
        let port = if rests.is_some() { outward.as_fd() } else { self.source.as_fd() };
        let due = rests.into_iter().chain(self.guard.as_ref().and_then(Guard::due_us)).min();
        let limit = due.and_then(|due| clock.until(due));
        let [port, woken] = wait([(port, PollFlags::POLLIN), (outward.as_fd(), PollFlags::POLLIN)], limit);
        if !woken.is_empty() {
            self.shared.woken();
        }
        if port.contains(PollFlags::POLLERR) {
            self.source.forget_errors(&mut self.batch);
        }
    }

    fn forward(&mut self) {
        let Self { shared, sealer, batch, answers, guard, .. } = self;
        let Shared { counters, rules, clock, blocked_until_us, .. } = &**shared;
        // A tunnel that only receives drops frames without counting them, as the original does.
        if !rules.send {
            return;
        }
        let (frames, bytes) = batch.packets();
        counters.port.rx_frames.add(frames);
        counters.port.rx_bytes.add(bytes);
        if let Some(guard) = guard {
            guard.outward(batch, clock.now_us(), blocked_until_us, &counters.port);
        }
        let most = sealer.route().reduced_frame();
        if let (Some(answers), Some(most)) = (answers, most) {
            answers.take_too_long(batch, most, clock.now_us(), &counters.port);
        }
        let mut peers = [SocketAddr::from(([0; 4], 0)); PEERS];
        let known = peers.iter_mut().zip(sealer.route().peers()).map(|(peer, address)| *peer = address).count();
        let (peers, ecn) = (&peers[..known], sealer.peer_carries_ecn());
        if !batch.has_superframe() {
            rules.outward(batch, peers, ecn, &counters.port);
            self.send();
        } else if rules.takes_superframes() {
            rules.outward(batch, peers, ecn, &counters.port);
            self.send_cut(|_| {});
        } else {
            let shared = Arc::clone(shared);
            self.send_cut(|packets| shared.rules.outward(packets, peers, ecn, &shared.counters.port));
        }
        self.shared.stir();
    }

    /// Sends the frames in the batch.
    fn send(&mut self) {
        let Self { shared, sealer, outlet, batch, route, .. } = self;
        seal_and_send(shared, sealer, outlet, batch, *route);
    }

    /// Segments the frames in the batch into packets and sends them, as many at a time as there is room for. `finish` is applied to
    /// the packets before.
    fn send_cut(&mut self, finish: impl Fn(&mut Batch)) {
        let Self { shared, sealer, outlet, batch, packets, route, .. } = self;
        packets.clear();
        let partial = leaves_partial(shared, sealer);
        let mut send = |packets: &mut Batch| {
            // A few superframes are thousands of packets. Meanwhile a report may wait for a pass, or the route may change.
            shared.pass();
            follow_route(shared, sealer, route);
            finish(packets);
            seal_and_send(shared, sealer, outlet, packets, *route);
            packets.clear();
        };
        for index in 0..batch.len() {
            let (frame, span) = (batch.frame(index), batch.span(index));
            // Packets of one superframe leave together, unless they are too many.
            if packets.is_full() || !packets.is_empty() && packets.len() as u64 + span.packets().0 > PACKETS as u64 {
                send(packets);
            }
            // Cannot fail: the superframe was checked at its arrival.
            let Ok(mut segmenter) = Segmenter::new(frame, &span.facts) else {
                packets.pack_copy(&[frame]);
                packets.set_facts(packets.len() - 1, span.facts);
                packets.set_class(packets.len() - 1.., span.class);
                continue;
            };
            let mut facts = Facts::default();
            if partial {
                facts.checksum = segmenter.facts().checksum;
                segmenter = segmenter.leave_partial();
            }
            while let Some((headers, payload)) = segmenter.cut() {
                if packets.is_full() {
                    send(packets);
                }
                packets.pack_copy(&[headers, payload]);
                packets.set_facts(packets.len() - 1, facts);
                packets.set_alone(packets.len() - 1);
                packets.set_class(packets.len() - 1.., span.class);
            }
        }
        send(packets);
    }
}

/// Takes over a changed route, once frames may leave by it. Meanwhile frames wait in the port.
fn follow_route(shared: &Shared, sealer: &mut Sealer, version: &mut u64) {
    let mut from_us = 0;
    loop {
        shared.route.look(version, |route| {
            sealer.set_route(route);
            from_us = route.from_us;
        });
        if from_us == 0 || shared.clock.now_us() >= from_us {
            return;
        }
        let [woken] = wait([(shared.outward.as_fd(), PollFlags::POLLIN)], shared.clock.until(from_us));
        if !woken.is_empty() {
            shared.woken();
        }
    }
}

/// Whether partial checksums may stay: the wire carries them, and only whole frames are sent.
pub fn leaves_partial(shared: &Shared, sealer: &Sealer) -> bool {
    sealer.carries_facts() && shared.rules.takes_superframes()
}

/// Seals the frames of a batch and sends the datagrams.
fn seal_and_send(shared: &Shared, sealer: &mut Sealer, outlet: &mut Outlet, batch: &mut Batch, version: u64) {
    let used = std::array::from_fn(|path| sealer.route().uses(path));
    let mut waiting = Waiting { version, used, until_us: None };
    let (datagrams, departures) = sealer.seal(batch, &shared.counters);
    for departure in departures {
        send(shared, outlet, datagrams, departure, &mut waiting);
    }
}

/// Limits of the time that the datagrams of one batch wait for room.
struct Waiting {
    /// Version of the route. Datagrams do not wait for a path of an earlier one.
    version: u64,
    /// Paths that frames leave by.
    used: [bool; MAX_PATHS],
    /// End of the wait in microseconds, once it has begun.
    until_us: Option<u64>,
}

/// Sends datagrams by one path. Waits for room while the route stays the same and no other path has room.
fn send(shared: &Shared, outlet: &mut Outlet, batch: &Batch, departure: &Departure, waiting: &mut Waiting) {
    let &Departure { path, ref datagrams, .. } = departure;
    let (Some(socket), Some(counters)) = (shared.sockets.get(path), shared.counters.paths.get(path)) else {
        return;
    };
    let (mut next, end) = (datagrams.start, datagrams.end);
    loop {
        outlet.send(socket, counters, batch, &mut next, departure);
        if next == end {
            return;
        }
        if !waits(shared, path, waiting) {
            counters.tx_errors.add((end - next) as u64);
            return;
        }
    }
}

/// Waits until a path has room, or until a change. False if the datagrams must not wait longer, also because another path has room:
/// the frames of that path would wait as well.
fn waits(shared: &Shared, path: usize, waiting: &mut Waiting) -> bool {
    let now_us = shared.clock.now_us();
    let until_us = *waiting.until_us.get_or_insert(now_us + QUEUE_WAIT_US);
    let mut moved = false;
    let mut seen = waiting.version;
    shared.route.look(&mut seen, |_| moved = true);
    if now_us >= until_us || moved {
        return false;
    }
    // The places of unused paths poll the waker as well.
    let mut polled = [(shared.outward.as_fd(), PollFlags::POLLIN); 1 + MAX_PATHS];
    for (number, (place, socket)) in polled[1..].iter_mut().zip(&shared.sockets).enumerate() {
        if number == path || waiting.used[number] {
            *place = (socket.as_fd(), PollFlags::POLLOUT);
        }
    }
    let found = wait(polled, shared.clock.until(until_us));
    if !found[0].is_empty() {
        shared.woken();
    }
    let has_room = |found: &PollFlags| found.contains(PollFlags::POLLOUT);
    has_room(&found[1 + path]) || !found.iter().any(has_room)
}

#[cfg(test)]
mod tests;
