//! Pings and pongs of a session, and answers to probes, all on queue 0.

use std::net::SocketAddr;

use privsep::ipc::{PathHealth, SharedPath};

use super::{Arrival, MILLISECOND, QUEUE, Session};
use crate::endpoint::Target;
use crate::wire::counters::Counters;
use crate::wire::outbox::Outbox;
use crate::wire::secure::content::{self, DatagramCounts, PINGED};
use crate::wire::secure::crypt::{HEADER, TAG};
use crate::wire::secure::unpack::Control;

/// Pauses between the pings of a new session in milliseconds. The last ping leaves after the peer's waiting session has ended.
const BURST: [u64; 7] = [100, 200, 400, 800, 1600, 3200, 3200];

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
            Control::Probe(token, size) => {
                if usize::from(size) == length {
                    self.say(from.path, from.target, &content::arrived(token, size), out);
                }
            }
            Control::Arrived(token, length) => {
                self.paths.all[from.path].wire.prober.answered(token, length, from.now_us);
            }
            Control::Pong(token) => {
                if self.pings.ponged(&mut self.paths, token, from.path, from.source, self.ticks.now(), from.now_us) {
                    counts.pongs_received.add(1);
                }
            }
            Control::Ping(token) => {
                counts.pings_received.add(1);
                let pong = content::pong(token, self.passed(from.path, counts));
                counts.pongs_sent.add(u64::from(self.say(from.path, from.target, &pong, out)));
            }
        }
    }

    /// Pings the source of a peer's datagram, if that address is new.
    pub(super) fn look_for_peer(&mut self, from: Arrival, counts: &SharedPath, out: &mut Outbox) {
        let path = &mut self.paths.all[from.path];
        if !path.is_from_peer(from.source, self.ticks.now())
            && self.slots.current.is_some()
            && path.wire.probes.allows(from.now_us)
        {
            self.ping(from.path, from.target, from.now_us, counts, out);
        }
    }

    fn ping(&mut self, path: usize, target: Target, now_us: u64, counts: &SharedPath, out: &mut Outbox) {
        let mut token = [0; 8];
        (self.random)(&mut token);
        let ping = content::ping(token, self.passed(path, counts));
        if self.say(path, target, &ping, out) {
            self.pings.pinged(token, path, target, now_us);
            counts.pings_sent.add(1);
        }
    }

    /// See [`crate::wire::Session::tell`].
    pub fn tell(&mut self, number: usize, address: SocketAddr, now_us: u64, counters: &Counters, out: &mut Outbox) {
        let (Some(path), Some(counts)) = (self.paths.all.get_mut(number), counters.paths.get(number)) else { return };
        let works = path.estimate.health() == PathHealth::Up && self.slots.current.is_some();
        let to_ask = path.remote.tell(address, works);
        let target = to_ask.unwrap_or(path.remote.target());
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
        for (path, counts) in counters.paths.iter().enumerate().take(self.paths.all.len()) {
            let target = self.paths.all[path].remote.target();
            if target != Target::Unknown && self.slots.current.is_some() {
                self.ping(path, target, now_us, counts, out);
            }
        }
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
