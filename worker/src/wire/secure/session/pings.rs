//! Pings and pongs of a session, and answers to probes, all on queue 0.

use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;

use privsep::ipc::{PathHealth, SharedPath};

use super::outstanding::{Answered, Link, Ping, Pong};
use super::{Arrival, MILLISECOND, QUEUE, Session};
use crate::endpoint::Target;
use crate::wire::counters::Counters;
use crate::wire::outbox::Outbox;
use crate::wire::paths::Path;
use crate::wire::paths::pace::FAST_US;
use crate::wire::secure::content::{self, DatagramCounts, PINGED};
use crate::wire::secure::crypt::{HEADER, TAG};
use crate::wire::secure::unpack::Control;

/// Pauses between the pings of a new session in milliseconds. The last ping leaves after the peer's waiting session has ended.
const BURST: [u64; 7] = [100, 200, 400, 800, 1600, 3200, 3200];

/// Most other paths by which a pong leaves as well, the best ones: up to eight paths would cost 56 kB/s.
const COPIES: usize = 3;
/// Ticks for which a path that has not yet answered holds back those after it.
const STARTING: u64 = 5;

/// Pings that confirm a new session.
pub struct Burst {
    /// Number of pings sent, and time of the next one.
    pub left: usize,
    pub at_us: u64,
    /// Additional target, if the last message of the handshake came from an address other than the peer's.
    pub to: Option<(usize, Target)>,
}

impl Session {
    /// Takes a ping, a pong, a probe or an answer to a probe, from a datagram of `length` bytes.
    pub(super) fn control(
        &mut self,
        from: Arrival,
        control: Control,
        length: usize,
        counts: &SharedPath,
        out: &mut Outbox,
    ) {
        match control {
            Control::Probe(token, size, every_path) => {
                if usize::from(size) == length {
                    self.send_answer(from, &content::arrived(token, size), every_path, out);
                }
            }
            // The answer proves the way to the peer, by any path. The token tells the path of the probe.
            Control::Arrived(token, size) => {
                self.paths.all.iter_mut().for_each(|path| path.wire.prober.answered(token, size, from.now_us));
            }
            Control::Pong(pong) => {
                let arrival = Pong { pinged: pong, path: from.path, source: from.source, now_us: from.now_us };
                let answered = self.pings.ponged(&mut self.paths, &arrival, self.ticks.now());
                counts.pongs_received.add(u64::from(answered == Some(Answered::Directly)));
                // A path that has changed, or one that frames may move to, does not wait.
                self.stirred |= answered.is_some();
            }
            Control::Ping(ping, every_path) => {
                counts.pings_received.add(1);
                self.paths.all[from.path].wire.received(ping.counts, from.now_us);
                let pong = content::pong(ping.token, self.passed(from.path, counts));
                counts.pongs_sent.add(u64::from(self.send_answer(from, &pong, every_path, out)));
            }
        }
    }

    /// Sends an answer to where the ping or probe came from, and by other paths if that is asked for. Returns whether the first one
    /// leaves.
    fn send_answer(&mut self, from: Arrival, answer: &[u8], every_path: bool, out: &mut Outbox) -> bool {
        let leaves = self.say(from.path, from.target, answer, out);
        // Otherwise an attacker who passes pings on could feign a path. The local address tells nothing: the peer's pings may still go
        // to an earlier one.
        let known = self.paths.all[from.path].remote.target().address();
        let is_from_peer = from.source.is_none_or(|source| Some(source.remote) == known);
        if every_path && is_from_peer && self.copies.allows(from.now_us) {
            let others = self.paths.choice().order().iter().filter(|ranked| ranked.path != from.path);
            for path in others.map(|ranked| ranked.path).take(COPIES) {
                self.say(path, self.paths.all[path].remote.target(), answer, out);
            }
        }
        leaves
    }

    /// Pings the source of a peer's datagram, if that address is new.
    pub(super) fn look_for_peer(&mut self, from: Arrival, counts: &SharedPath, out: &mut Outbox) {
        let path = &mut self.paths.all[from.path];
        if !path.is_from_peer(from.source, self.ticks.now())
            && self.slots.current.is_some()
            && !self.pings.just_asked(from.path, from.target, from.now_us)
            && path.wire.probes.allows(from.now_us)
        {
            self.ping(from.path, from.target, from.now_us, counts, out);
        }
    }

    /// Sends a ping. Returns whether it leaves.
    fn ping(&mut self, path: usize, target: Target, now_us: u64, counts: &SharedPath, out: &mut Outbox) -> bool {
        let mut token = [0; 8];
        (self.random)(&mut token);
        let every_path = self.paths.all[path].wire.evidence.asks_every_path();
        let passed = self.passed(path, counts);
        let leaves = self.say(path, target, &content::ping(token, passed, every_path), out);
        if leaves {
            #[allow(clippy::cast_possible_truncation)] // Modulo 2^32.
            let pings = counts.pings_sent.get().wrapping_add(counts.pongs_sent.get()) as u32;
            self.pings.pinged(Ping {
                token,
                path,
                to: target,
                sent_us: now_us,
                passed: passed.sent,
                pings,
                every_path,
            });
            counts.pings_sent.add(1);
        }
        leaves
    }

    /// Sends a ping to the peer's address on a path, if it is known.
    fn ping_peer(&mut self, path: usize, now_us: u64, counters: &Counters, out: &mut Outbox) {
        let target = self.paths.all[path].remote.target();
        let Some(counts) = counters.paths.get(path).filter(|_| target != Target::Unknown) else { return };
        if self.slots.current.is_some() {
            let leaves = self.ping(path, target, now_us, counts, out);
            let link = &mut self.paths.all[path].wire;
            link.evidence.pinged(now_us, leaves);
            link.frames = counters.port.rx_frames.get();
        }
    }

    /// See [`crate::wire::Session::tell`].
    pub fn tell(&mut self, number: usize, address: SocketAddr, now_us: u64, counters: &Counters, out: &mut Outbox) {
        let (Some(path), Some(counts)) = (self.paths.all.get_mut(number), counters.paths.get(number)) else { return };
        let works = path.estimate.health() == PathHealth::Up && self.slots.current.is_some();
        let before = path.remote.target().address();
        let to_ask = path.remote.tell(address, works);
        let place = path.remote.target();
        if place.address() != before {
            path.wire.evidence.moved();
            self.pings.forget(number, place);
        }
        let target = to_ask.unwrap_or(place);
        if self.slots.current.is_some() && target != Target::Unknown {
            self.ping(number, target, now_us, counts, out);
        }
        if to_ask.is_none() {
            self.attempts.repeat(now_us);
        }
        self.publish();
    }

    /// Sends a ping on each path.
    pub(super) fn ping_all(&mut self, now_us: u64, counters: &Counters, out: &mut Outbox) {
        for path in 0..self.paths.all.len() {
            self.ping_peer(path, now_us, counters, out);
        }
    }

    /// Sends the ping of the ping interval on each path that had none for long.
    pub(super) fn ping_idle(&mut self, now_us: u64, counters: &Counters, out: &mut Outbox) {
        for path in 0..self.paths.all.len() {
            if self.paths.all[path].wire.evidence.is_idle(now_us) {
                self.ping_peer(path, now_us, counters, out);
            }
        }
    }

    /// Judges the paths, and sends the pings that are due. Without frames since the last ping, and with every ping answered, the
    /// session rests: the next frames wake it.
    pub(super) fn ping_paths(&mut self, now_us: u64, counters: &Counters, out: &mut Outbox) {
        self.stirred = false;
        self.news |= self.paths.weigh(now_us, self.ticks.now() <= STARTING);
        if self.slots.current.is_none() {
            self.armed = false;
            return;
        }
        let (frames, mut settled) = (counters.port.rx_frames.get(), true);
        for number in 0..self.paths.all.len() {
            let role = self.paths.role(number, self.armed);
            let path = &self.paths.all[number];
            let Link { evidence, frames: before, .. } = &path.wire;
            let fresh = frames != *before;
            if path.remote.target() == Target::Unknown {
                continue;
            }
            if role.carries {
                settled &= !fresh && evidence.is_settled();
            }
            if now_us >= evidence.next_ping_us(role, now_us) && (fresh || !(role.carries && evidence.is_steady())) {
                self.ping_peer(number, now_us, counters, out);
            }
        }
        if self.armed && now_us >= self.look_us {
            self.armed = !settled;
            self.look_us = now_us + FAST_US;
            if settled {
                counters.resting.store(true, Relaxed);
                // Frames that were counted meanwhile have not seen the flag.
                self.armed = counters.port.rx_frames.get() != frames;
            }
        }
    }

    /// Time of the next ping, look at the traffic or judgement of a path, in microseconds.
    pub(super) fn pings_due_us(&self) -> u64 {
        let now_us = self.probed_us;
        let judged = self.paths.due_us(now_us);
        if self.slots.current.is_none() {
            return judged;
        }
        let next = |(number, path): (usize, &Path<Link>)| {
            let role = self.paths.role(number, self.armed);
            let evidence = &path.wire.evidence;
            // While frames leave by the path, the looks at the traffic pace its pings.
            let looks = role.carries && evidence.is_steady();
            if looks || path.remote.target() == Target::Unknown {
                u64::MAX
            } else {
                evidence.next_ping_us(role, now_us)
            }
        };
        let pings = self.paths.all.iter().enumerate().map(next);
        pings.fold(judged.min(if self.armed { self.look_us } else { u64::MAX }), u64::min)
    }

    /// Begins to probe fast, because frames leave.
    pub fn arm(&mut self, now_us: u64) {
        if !self.armed && self.slots.current.is_some() {
            (self.armed, self.look_us) = (true, now_us);
        }
    }

    /// Excludes a time in which this end did not read what had arrived from the silence of the paths.
    pub fn forgive(&mut self, deaf_us: u64, now_us: u64) {
        self.paths.all.iter_mut().for_each(|path| path.wire.evidence.forgive(deaf_us, now_us));
    }

    /// Counts of data datagrams on a path.
    fn passed(&self, path: usize, counts: &SharedPath) -> DatagramCounts {
        #[allow(clippy::cast_possible_truncation)] // Modulo 2^32.
        let sent = counts.tx_datagrams.get() as u32;
        DatagramCounts { opened: self.paths.all[path].wire.opened, sent }
    }

    /// Sends content, at most as long as a ping, in the current session. False if it does not leave.
    fn say(&self, path: usize, target: Target, content: &[u8], out: &mut Outbox) -> bool {
        let Some(current) = &self.slots.current else { return false };
        let mut datagram = [0; HEADER + PINGED + TAG];
        let Some(datagram) = datagram.get_mut(..HEADER + content.len() + TAG) else { return false };
        datagram[HEADER..HEADER + content.len()].copy_from_slice(content);
        current.sending.seal(QUEUE, datagram).is_ok() && out.post(path, target, datagram)
    }

    /// Sends the pings of a new session that are due.
    pub(super) fn burst(&mut self, now_us: u64, counters: &Counters, out: &mut Outbox) {
        if self.slots.current.as_ref().is_none_or(|current| current.has_opened) {
            self.burst = None;
        }
        let Some(burst) = self.burst.take_if(|burst| now_us >= burst.at_us) else { return };
        self.ping_all(now_us, counters, out);
        if let Some((path, target)) = burst.to
            && let Some(counts) = counters.paths.get(path)
        {
            self.ping(path, target, now_us, counts, out);
        }
        let next = |pause| Burst { left: burst.left + 1, at_us: now_us + pause * MILLISECOND, to: burst.to };
        self.burst = BURST.get(burst.left).map(next);
    }
}
