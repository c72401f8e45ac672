//! Inward loop: from the paths to the port.

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use nix::poll::PollFlags;

use super::{DRAINING_US, FULL_US, QUEUE_WAIT_US, REST_US, Shared};
use crate::batch::Batch;
use crate::endpoint::Target;
use crate::forward::guard::Guard;
use crate::io::{Received, wait};
use crate::port::Sink;
use crate::underlay::{Inlet, Outlet};
use crate::wire::{Departure, Outbox, Route, Session};

/// Inward loop: receives datagrams, passes them to the session, sends its answers, applies the rules, and gives frames to the port.
pub struct Inward {
    pub shared: Arc<Shared>,
    pub session: Session,
    inlets: Vec<Resting>,
    sink: Sink,
    outlet: Outlet,
    outbox: Outbox,
    batch: Batch,
    /// Number of the first frame for which the port has no room, and the time since then, in microseconds.
    stuck: Option<(usize, u64)>,
    /// Time in microseconds since which every batch had to wait for room.
    full_us: Option<u64>,
    /// Time in microseconds of the last look at the deadlines. While the port is full, no path is read meanwhile.
    heard_us: u64,
    /// Route that was published last.
    route: Route,
    /// Limits on frames for the port, if there are any.
    guard: Option<Guard>,
}

/// Path that is not read until a time, after an error.
struct Resting {
    inlet: Inlet,
    until_us: u64,
}

impl Inward {
    /// `runs` tells whether datagrams may arrive in runs.
    pub fn new(shared: Arc<Shared>, session: Session, inlets: Vec<Inlet>, sink: Sink, runs: bool) -> Self {
        Self {
            route: session.route().clone(),
            shared,
            session,
            inlets: inlets.into_iter().map(|inlet| Resting { inlet, until_us: 0 }).collect(),
            sink,
            outlet: Outlet::default(),
            outbox: Outbox::default(),
            batch: Batch::for_datagrams(runs),
            stuck: None,
            full_us: None,
            guard: None,
            heard_us: 0,
        }
    }

    /// Sets limits on the frames for the port.
    pub fn with_guard(self, guard: Option<Guard>) -> Self {
        Self { guard, ..self }
    }

    /// Drops datagrams that already wait.
    pub fn drain(&mut self) {
        let clock = self.shared.clock;
        for (Resting { inlet, .. }, counters) in self.inlets.iter_mut().zip(&self.shared.counters.paths) {
            let deadline = clock.now_us() + DRAINING_US;
            while inlet.receive(counters, &mut self.batch) == Received::Batch && clock.now_us() < deadline {
                counters.rx_dropped_stale.add(self.batch.len() as u64);
            }
        }
    }

    /// Does the due work of the session. Returns whether there was any.
    pub fn on_time(&mut self, now_us: u64) -> bool {
        if !self.shared.counters.resting.load(Relaxed) {
            self.session.arm(now_us);
        }
        let deaf_us = now_us - std::mem::replace(&mut self.heard_us, now_us).min(now_us);
        if self.stuck.is_some() {
            self.session.forgive(deaf_us, now_us);
        }
        let due = now_us >= self.session.due_us();
        if due {
            self.session.on_time(now_us, &self.shared.counters, &mut self.outbox);
            self.after_session();
        }
        due
    }

    /// Passes a new address of a path's peer to the session.
    pub fn tell(&mut self, path: usize, address: SocketAddr) {
        let Self { shared, session, outbox, .. } = self;
        session.tell(path, address, shared.clock.now_us(), &shared.counters, outbox);
        self.after_session();
    }

    /// Takes a batch from each path that has one. False if there is nothing to do.
    pub fn turn(&mut self, now_us: u64) -> bool {
        if let Some((next, since_us)) = self.stuck {
            self.give(next, since_us, now_us);
            if self.stuck.is_some() {
                return false;
            }
        }
        let mut busy = false;
        for path in 0..self.inlets.len() {
            let Resting { inlet, until_us } = &mut self.inlets[path];
            if now_us < *until_us {
                continue;
            }
            let Some(counters) = self.shared.counters.paths.get(path) else { continue };
            match inlet.receive(counters, &mut self.batch) {
                Received::Batch => {
                    busy = true;
                    self.forward(path, now_us);
                    if self.stuck.is_some() {
                        return false;
                    }
                }
                Received::Nothing => {}
                Received::Error => *until_us = now_us + REST_US,
            }
        }
        busy
    }

    fn forward(&mut self, path: usize, now_us: u64) {
        let Self { shared, session, batch, outbox, guard, .. } = self;
        session.receive(path, batch, now_us, &shared.counters, outbox);
        if let Some(guard) = guard {
            guard.inward(batch, now_us, &shared.blocked_until_us, &shared.counters.port);
        }
        shared.rules.inward(batch, &shared.counters.port);
        self.after_session();
        self.give(0, now_us, now_us);
    }

    /// Gives the frames of the batch from number `next` on to the port, which has been full since `since_us`. After a limit the
    /// rest is dropped. If all batches have waited for long, the rest is dropped at once: unread paths would seem to be down.
    fn give(&mut self, mut next: usize, since_us: u64, now_us: u64) {
        let counters = &self.shared.counters.port;
        self.sink.send(counters, &self.batch, &mut next);
        let left = self.batch.len() - next;
        self.stuck = None;
        if left > 0 {
            self.full_us.get_or_insert(now_us);
            self.stuck = Some((next, since_us));
            if self.waits_until_us().is_some_and(|until| now_us >= until) {
                counters.tx_errors.add(left as u64);
                self.stuck = None;
            }
        } else if since_us == now_us && !self.batch.is_empty() {
            self.full_us = None;
        }
    }

    /// Time in microseconds at which waiting for the port ends.
    fn waits_until_us(&self) -> Option<u64> {
        let (_, since_us) = self.stuck?;
        Some((since_us + QUEUE_WAIT_US).min(self.full_us.unwrap_or(since_us) + FULL_US))
    }

    /// Sends the datagrams in the session's outbox, and publishes the route if it has changed.
    pub fn after_session(&mut self) {
        let Self { shared, session, outbox, outlet, route, .. } = self;
        for departure in outbox.departures() {
            let Departure { path, target, runs, ref datagrams } = departure;
            let (Some(socket), Some(counters)) = (shared.sockets.get(path), shared.counters.paths.get(path)) else {
                continue;
            };
            if target == Target::Unknown {
                continue;
            }
            let (mut next, end) = (datagrams.start, datagrams.end);
            // A check of runs whose datagrams left singly would tell nothing.
            if runs {
                outlet.try_runs(path);
            }
            outlet.send(socket, counters, outbox.batch(), &mut next, &departure);
            // Never waits for room for a control message: another follows.
            counters.tx_errors.add((end - next) as u64);
        }
        outbox.clear();
        if session.route() != route {
            route.clone_from(session.route());
            shared.route.set(route);
            shared.rules.follow(route);
            // The outward loop may be waiting for room on the old path.
            shared.outward.wake();
        }
    }

    /// Descriptors to poll: each path, and the port while it is full. A resting path is replaced by the loop's own waker, because
    /// poll reports errors even without a request.
    pub fn interests(&self, now_us: u64) -> impl Iterator<Item = (BorrowedFd<'_>, PollFlags)> {
        let stuck = self.stuck.map(|_| (self.sink.as_fd(), PollFlags::POLLOUT));
        let paths = self.inlets.iter().map(move |Resting { inlet, until_us }| {
            let asks = self.stuck.is_none() && now_us >= *until_us;
            (if asks { inlet.as_fd() } else { self.shared.main.as_fd() }, PollFlags::POLLIN)
        });
        paths.chain(stuck)
    }

    /// Whether a frame for the outward loop waits at the port, or an error.
    pub fn port_has_something(&self) -> bool {
        let [found] = wait([(self.sink.as_fd(), PollFlags::POLLIN)], Some(Duration::ZERO));
        !found.is_empty()
    }

    /// Time of the next deadline, in microseconds.
    pub fn due_us(&self, now_us: u64) -> u64 {
        let rests = self.inlets.iter().map(|inlet| inlet.until_us).filter(|&until| until > now_us);
        rests.chain(self.waits_until_us()).fold(self.session.due_us(), u64::min)
    }

    /// Empties the error queue of a path on which poll has reported an error.
    pub fn forget_errors(&mut self, path: usize) {
        if let Some(Resting { inlet, .. }) = self.inlets.get_mut(path).filter(|_| self.stuck.is_none())
            && let Some(counters) = self.shared.counters.paths.get(path)
        {
            inlet.forget_errors(counters, &mut self.batch);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::time::Duration;

    use super::*;
    use crate::forward::rig::{Rig, both, fill, frame, local, polled, waiting};
    use crate::io::wait;

    const SECOND: u64 = 1_000_000;

    /// Whether the outward loop was woken since the last check.
    fn woken(inward: &Inward) -> bool {
        let waker = &inward.shared.outward;
        let [found] = wait([(waker.as_fd(), PollFlags::POLLIN)], Some(Duration::ZERO));
        waker.clear();
        !found.is_empty()
    }

    #[test]
    fn answers_leave_by_the_receiving_path() {
        let Rig { port, paths, mut inward, .. } = Rig::plain(2);
        assert!(!inward.turn(0));
        paths[1].send(b"PING:PING:").unwrap();
        paths[1].send(&frame(1)).unwrap();
        paths[0].send(&frame(2)).unwrap();
        assert!(inward.turn(0) && !inward.turn(0));
        assert_eq!(waiting(&port), [local(2), local(1)]);
        assert_eq!([waiting(&paths[0]), waiting(&paths[1])], [vec![], vec![b"PONG:PONG:".to_vec()]]);
    }

    #[test]
    fn timer_fires_once_per_tick() {
        let Rig { paths, mut inward, .. } = Rig::plain(1);
        let pings = || std::iter::from_fn(|| paths[0].recv(&mut [0; 20]).ok()).count();
        for (now_us, due, due_us) in
            [(7, true, SECOND), (8, false, SECOND), (SECOND, true, 2 * SECOND), (SECOND + 1, false, 2 * SECOND)]
        {
            assert_eq!((inward.on_time(now_us), pings()), (due, usize::from(due)), "at {now_us}");
            assert_eq!(inward.due_us(now_us), due_us, "at {now_us}");
        }
    }

    #[test]
    fn failing_path_rests_alone() {
        let Rig { port, paths, mut inward, .. } = Rig::new(2, both(), false, Some(0));
        assert!(inward.on_time(0));
        let errors = |inward: &Inward| inward.shared.counters.paths[0].rx_errors.get();
        let asked = |inward: &Inward, now_us| polled(inward, now_us).iter().map(|polled| polled.0).collect::<Vec<_>>();
        let [main, first, second] =
            [inward.shared.main.as_fd(), inward.inlets[0].inlet.as_fd(), inward.inlets[1].inlet.as_fd()]
                .map(|descriptor| descriptor.as_raw_fd());
        assert_eq!(asked(&inward, 5), [first, second]);
        // Each of the first errors could be an isolated one.
        assert!((0..5000).any(|_| !inward.turn(5)));
        let (before, rested) = (errors(&inward), 5 + REST_US);
        for now_us in [6, rested - 1] {
            assert_eq!((asked(&inward, now_us), inward.due_us(now_us)), (vec![main, second], rested));
            paths[1].send(&frame(1)).unwrap();
            assert!(inward.turn(now_us));
            assert_eq!((waiting(&port), errors(&inward)), (vec![local(1)], before));
        }
        assert_eq!((asked(&inward, rested), inward.due_us(rested)), (vec![first, second], SECOND));
        assert!(!inward.turn(rested));
        assert_eq!((errors(&inward), inward.due_us(rested)), (before + 1, rested + REST_US));
    }

    /// Loop whose port is full, with three frames received at `now_us`. Returns the number of packets that filled the port.
    fn stuck(now_us: u64) -> (Rig, usize) {
        let mut rig = Rig::plain(1);
        assert!(rig.inward.on_time(0));
        let before = fill(rig.inward.sink.as_fd());
        for byte in 1..=3 {
            rig.paths[0].send(&frame(byte)).unwrap();
        }
        assert!(!rig.inward.turn(now_us));
        (rig, before)
    }

    #[test]
    fn full_port_is_served_first() {
        let (Rig { port, paths, mut inward, .. }, before) = stuck(100);
        paths[0].send(&frame(4)).unwrap();
        let (main, sink) = (inward.shared.main.as_fd().as_raw_fd(), inward.sink.as_fd().as_raw_fd());
        assert_eq!(polled(&inward, 200), [(main, PollFlags::POLLIN), (sink, PollFlags::POLLOUT)]);
        assert_eq!(inward.due_us(200), 100 + QUEUE_WAIT_US);
        assert!(!inward.turn(200));
        // A datagram that is not read must not be mistaken for an error.
        inward.forget_errors(0);
        assert_eq!(waiting(&port), vec![b"full".to_vec(); before]);
        assert!(inward.turn(300) && !inward.turn(300));
        assert_eq!(waiting(&port), [local(1), local(2), local(3), local(4)]);
        assert_eq!((inward.shared.counters.port.tx_errors.get(), inward.due_us(300)), (0, SECOND));
        assert_eq!(polled(&inward, 300)[0].0, inward.inlets[0].inlet.as_fd().as_raw_fd());
    }

    #[test]
    fn stuck_port_drops_and_counts() {
        let (Rig { port, paths, mut inward, .. }, before) = stuck(100);
        // Late room for one of three frames: the wait does not start again.
        port.recv(&mut [0; 10]).unwrap();
        assert!(!inward.turn(100 + QUEUE_WAIT_US - 1));
        let gone = inward.shared.counters.port.tx_frames.get();
        assert_eq!(inward.due_us(100 + QUEUE_WAIT_US - 1), 100 + QUEUE_WAIT_US);
        assert!(!inward.turn(100 + QUEUE_WAIT_US));
        assert_eq!(inward.shared.counters.port.tx_errors.get(), 3 - gone);
        // The next frames get their own wait.
        paths[0].send(&frame(4)).unwrap();
        assert!(!inward.turn(100 + QUEUE_WAIT_US));
        assert_eq!(inward.due_us(100 + QUEUE_WAIT_US), 100 + 2 * QUEUE_WAIT_US);
        let left: Vec<_> = (1..=u8::try_from(gone).unwrap()).map(local).collect();
        assert_eq!(waiting(&port), [vec![b"full".to_vec(); before - 1], left].concat());
    }

    #[test]
    fn full_port_blocks_no_path() {
        let (Rig { port, paths, mut inward, .. }, before) = stuck(100);
        let errors = |inward: &Inward| inward.shared.counters.port.tx_errors.get();
        let full_us = 100 + FULL_US;
        // Each batch has its own wait, and nothing is read meanwhile.
        for now_us in (100 + QUEUE_WAIT_US..full_us).step_by(usize::try_from(QUEUE_WAIT_US).unwrap()) {
            assert!(!inward.turn(now_us));
            paths[0].send(&frame(4)).unwrap();
            assert!(!inward.turn(now_us));
            assert_eq!(inward.waits_until_us(), Some((now_us + QUEUE_WAIT_US).min(full_us)));
        }
        paths[0].send(b"PING:PING:").unwrap();
        assert!(!inward.turn(full_us - 1));
        assert!(waiting(&paths[0]).is_empty());
        // The wait is bounded in total.
        for round in 0..100 {
            let dropped = errors(&inward);
            paths[0].send(b"PING:PING:").unwrap();
            assert!(inward.turn(full_us + round));
            paths[0].send(&frame(5)).unwrap();
            assert!(inward.turn(full_us + round));
            assert_eq!(waiting(&paths[0]).concat(), b"PONG:PONG:".repeat(if round == 0 { 2 } else { 1 }));
            assert!(errors(&inward) > dropped);
        }
        // There is room for a whole batch, so later batches wait again.
        assert_eq!(waiting(&port), vec![b"full".to_vec(); before]);
        paths[0].send(&frame(6)).unwrap();
        assert!(inward.turn(full_us + 200));
        assert_eq!(waiting(&port), [local(6)]);
        fill(inward.sink.as_fd());
        paths[0].send(&frame(7)).unwrap();
        assert!(!inward.turn(full_us + 300));
        assert_eq!(inward.waits_until_us(), Some(full_us + 300 + QUEUE_WAIT_US));
    }

    #[test]
    fn route_change_wakes_other_loop() {
        let Rig { paths, mut inward, .. } = Rig::plain(2);
        let (mut seen, mut told) = (0, Vec::new());
        for tick in 0..8 {
            paths[1].send(b"PONG:PONG:").unwrap();
            inward.turn(tick * SECOND);
            inward.on_time(tick * SECOND);
            let before = told.len();
            inward.shared.route.look(&mut seen, |route| told.push((tick, route.active)));
            assert_eq!(woken(&inward), told.len() > before, "at {tick}");
        }
        // The second path, once the first has had its five ticks.
        assert_eq!(told, [(5, 1)]);
    }

    #[test]
    fn stale_backlog_is_dropped_and_counted() {
        let Rig { port, paths, mut inward, .. } = Rig::plain(2);
        for path in [0, 1, 1] {
            paths[path].send(&frame(1)).unwrap();
        }
        paths[0].send(b"PING:PING:").unwrap();
        inward.drain();
        assert!(!inward.turn(0));
        let stale = |path: usize| inward.shared.counters.paths[path].rx_dropped_stale.get();
        assert_eq!((stale(0), stale(1)), (2, 2));
        assert_eq!((waiting(&port), waiting(&paths[0]), waiting(&paths[1])), (vec![], vec![], vec![]));
    }
}
