//! Path to port.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use nix::poll::PollFlags;

use super::{DRAINING_US, QUEUE_WAIT_US, REST_US, Shared};
use crate::batch::Batch;
use crate::io::Received;
use crate::path::{Inlet, Outlet};
use crate::port::Sink;
use crate::wire::{Outbox, Route, Session, Target};

/// Receives datagrams, has the session open them, sends what it answers, applies the rules, gives frames away.
pub struct Inward {
    pub shared: Arc<Shared>,
    pub session: Session,
    inlets: Vec<Resting>,
    sink: Sink,
    outlet: Outlet,
    outbox: Outbox,
    batch: Batch,
    /// The port has no room for the frames of the batch from this number on, since then.
    stuck: Option<(usize, u64)>,
    /// What the other loop has been told.
    route: Route,
}

/// A path that is left alone until then.
struct Resting {
    inlet: Inlet,
    until_us: u64,
}

impl Inward {
    pub fn new(shared: Arc<Shared>, session: Session, inlets: Vec<Inlet>, sink: Sink) -> Self {
        Self {
            route: session.route().clone(),
            shared,
            session,
            inlets: inlets.into_iter().map(|inlet| Resting { inlet, until_us: 0 }).collect(),
            sink,
            outlet: Outlet::default(),
            outbox: Outbox::default(),
            batch: Batch::default(),
            stuck: None,
        }
    }

    /// Forgets what waits already.
    pub fn drain(&mut self) {
        let clock = self.shared.clock;
        for (Resting { inlet, .. }, counters) in self.inlets.iter_mut().zip(&self.shared.counters.paths) {
            let deadline = clock.now_us() + DRAINING_US;
            while inlet.receive(counters, &mut self.batch) == Received::Batch && clock.now_us() < deadline {
                counters.rx_dropped_stale.add(self.batch.len() as u64);
            }
        }
    }

    /// Does what the session has due; whether there was anything.
    pub fn on_time(&mut self, now_us: u64) -> bool {
        let due = now_us >= self.session.due_us();
        if due {
            self.session.on_time(now_us, &self.shared.counters, &mut self.outbox);
            self.after_session();
        }
        due
    }

    /// Takes a batch from each path that has one; false when there is nothing to do.
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
        let Self { shared, session, batch, outbox, .. } = self;
        session.receive(path, batch, now_us, &shared.counters, outbox);
        shared.rules.inward(batch);
        self.after_session();
        self.give(0, now_us, now_us);
    }

    /// Gives the frames of the batch from number `next` on to the port; what has no room for too long is dropped.
    fn give(&mut self, mut next: usize, since_us: u64, now_us: u64) {
        let counters = &self.shared.counters.port;
        self.sink.send(counters, &self.batch, &mut next);
        let left = self.batch.len() - next;
        self.stuck = None;
        if left > 0 && now_us < since_us + QUEUE_WAIT_US {
            self.stuck = Some((next, since_us));
        } else {
            counters.tx_errors.add(left as u64);
        }
    }

    /// Sends what the session has put into the outbox, and tells the other loop where frames go when that has changed.
    pub fn after_session(&mut self) {
        let Self { shared, session, outbox, outlet, route, .. } = self;
        for (path, target, numbers) in outbox.runs() {
            let (Some(socket), Some(counters)) = (shared.sockets.get(path), shared.counters.paths.get(path)) else {
                continue;
            };
            if target == Target::Nobody {
                continue;
            }
            let (mut next, end) = (numbers.start, numbers.end);
            outlet.send(socket.as_fd(), counters, outbox.batch(), &mut next, end, target.named());
            // Nobody waits for room for a control message: another follows.
            counters.tx_errors.add((end - next) as u64);
        }
        outbox.clear();
        if session.route() != route {
            route.clone_from(session.route());
            shared.route.set(route);
            // It may wait for room on the path that it is to leave.
            shared.outward.wake();
        }
    }

    /// What to poll: each path, or our own waker in the place of one that rests, because whoever is polled reports errors, asked
    /// or not; and the port while that has no room.
    pub fn interests(&self, now_us: u64) -> impl Iterator<Item = (BorrowedFd<'_>, PollFlags)> {
        let stuck = self.stuck.map(|_| (self.sink.as_fd(), PollFlags::POLLOUT));
        let paths = self.inlets.iter().map(move |Resting { inlet, until_us }| {
            let asks = self.stuck.is_none() && now_us >= *until_us;
            (if asks { inlet.as_fd() } else { self.shared.main.as_fd() }, PollFlags::POLLIN)
        });
        paths.chain(stuck)
    }

    /// When something is due next.
    pub fn due_us(&self, now_us: u64) -> u64 {
        let rests = self.inlets.iter().map(|inlet| inlet.until_us).filter(|&until| until > now_us);
        let stuck = self.stuck.map(|(_, since_us)| since_us + QUEUE_WAIT_US);
        rests.chain(stuck).fold(self.session.due_us(), u64::min)
    }

    /// Takes the errors off the socket of a path that polling has shown to have some.
    pub fn forget_errors(&mut self, path: usize) {
        if let Some(Resting { inlet, .. }) = self.inlets.get_mut(path).filter(|_| self.stuck.is_none()) {
            inlet.forget_errors(&mut self.batch);
        }
    }
}
