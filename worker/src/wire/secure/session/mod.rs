//! Session of the secure wire: receives, makes and keeps sessions, and knows the peer's addresses. The behaviour is specified in
//! `docs/WIRE.md`, from "Handshake" on.

mod answer;
mod attempt;
mod limits;
mod outstanding;
mod pings;
mod probes;
mod probing;
mod slots;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::Arc;

use privsep::ipc::{
    Counts, PathSettings, Remote, Secure, SecureCounters, SecureState, SessionCipher, SessionReport, SharedPath, State,
    Timestamp, Trouble, WireState,
};

use super::CipherKind;
use super::crypt::Dropped;
use super::handshake::{Initiator, Random};
use super::keys::Pair;
use super::message::{self, Form, Message};
use super::unpack::{Lost, Unpacker};
use crate::batch::{Batch, Collector};
use crate::endpoint::{Endpoint, Target};
use crate::wire::counters::Counters;
use crate::wire::outbox::Outbox;
use crate::wire::paths::{Path, Paths};
use crate::wire::route::{Egress, Route};
use crate::wire::ticks::Ticks;
use answer::PendingInitiation;
use attempt::Attempts;
use limits::{Paced, Recent};
use outstanding::{Link, Outstanding};
use pings::Burst;
use slots::{Established, Slot, Slots};

const SECOND: u64 = 1_000_000;
const MILLISECOND: u64 = 1000;
/// Ping intervals without an opened datagram after which an end attempts a new session; seconds if no path answers.
const SILENT: u64 = 5;
/// Time in microseconds without an opened datagram after which a learned address may belong to another host.
const GONE: u64 = 180 * SECOND;
/// Delay of a timer in microseconds that shows that this process did not run. The paths were not silent in this time.
const LATE: u64 = 20 * MILLISECOND;
/// Granularity of the timestamp in nanoseconds: an observer learns no more of the clock than from the time of arrival.
const ROUNDED: u64 = 1 << 20;
/// Queue that carries pings, pongs and probes, and whose datagrams locate the peer.
const QUEUE: u8 = 0;

/// Wall clock, as a function of the worker's clock in microseconds. It is read each time, because it may be corrected meanwhile.
pub type Wall = Box<dyn Fn(u64) -> Timestamp + Send>;

/// Configuration of a session.
pub struct SessionConfig<'a> {
    /// Keys of both ends.
    pub pair: Pair,
    /// Settings of the wire.
    pub secure: &'a Secure,
    /// Ciphers of this end, as in [`message::offer`].
    pub offer: u8,
    /// Remote of each path.
    pub remotes: &'a [Remote],
    /// Settings of each path. Without them datagrams have the length in `secure`, and leave singly.
    pub paths: &'a [PathSettings],
    /// Whether frames are given to the local side.
    pub delivers: bool,
    /// Tick after which the session is over.
    pub exit_after: Option<u64>,
    /// State of the previous worker.
    pub state: &'a State,
    /// Wall clock, for timestamps.
    pub wall: Wall,
    /// Source of random bytes.
    pub random: Random,
}

/// Session of a tunnel.
#[allow(clippy::struct_excessive_bools)] // Independent facts.
pub struct Session {
    pair: Pair,
    offer: u8,
    /// Receiver index of initiations to the peer; zero if none is known.
    peer_index: u32,
    /// Ping interval in ticks.
    interval: u64,
    random: Random,
    wall: Wall,
    /// Greatest timestamps: of an initiation that led to a confirmed session, and of one that was sent.
    heard: Timestamp,
    sent: Timestamp,
    attempts: Attempts,
    slots: Slots,
    /// Time of the last opened datagram of any session, or of the last new session.
    opened_us: u64,
    /// Pings that confirm a new session.
    burst: Option<Burst>,
    unpacker: Unpacker,
    paths: Paths<Link>,
    pings: Outstanding,
    /// Whether frames leave, so that the paths are probed fast; the time of the next look at the traffic; and that of the last
    /// judgement of the paths.
    armed: bool,
    look_us: u64,
    probed_us: u64,
    /// Whether an answer may have changed the judgement of a path.
    stirred: bool,
    /// Whether the supervisor must be told of a change or of a tick.
    news: bool,
    /// Limit of answers that leave by every path.
    copies: Paced<200>,
    /// Limit of processed initiations, and the initiation that waits for it.
    initiations: Paced<20>,
    pending: Option<PendingInitiation>,
    /// Limit of answered initiations, above the rate of a peer. More of them mean a stolen key.
    calls: Recent<5>,
    /// Limit of repeated answers.
    repeated: Recent<10>,
    /// Limits of checks of `mac2` in stale initiations, and of replies to them.
    stale: Paced<1000>,
    replies: Recent<10>,
    /// Limit of diagnosed messages.
    strangers: Recent<10>,
    trouble: Option<Trouble>,
    counts: SecureCounters,
    /// Buffer for a probe of the longest length.
    probe: Box<[u8]>,
    delivers: bool,
    ticks: Ticks,
}

/// Arrival of a datagram: path, source address if the socket reports it, target of an answer, and time.
#[derive(Clone, Copy)]
struct Arrival {
    path: usize,
    source: Option<Endpoint>,
    target: Target,
    now_us: u64,
}

impl Session {
    /// Continues from the state of an earlier worker.
    pub fn new(config: SessionConfig) -> Self {
        let SessionConfig { pair, secure, offer, remotes, paths, delivers, exit_after, state, wall, random } = config;
        let (datagram, interval) = (usize::from(secure.datagram), u64::from(secure.ping_interval.max(1)));
        let whole = PathSettings { least: secure.datagram, most: secure.datagram, runs: false };
        let settings = paths.iter().copied().chain(std::iter::repeat(whole));
        let shortest = settings.clone().take(remotes.len()).map(|path| path.most).min().unwrap_or_default();
        let first = if usize::from(shortest) < Form::Long.initiation() { Form::Short } else { Form::Long };
        let before = state.secure().copied().unwrap_or_default();
        let reports = state.paths.iter().copied().chain(std::iter::repeat_with(Default::default));
        let path = |((remote, report), settings)| {
            let PathSettings { least, most, runs } = settings;
            let mut path = Path::new(remote, &report, interval, least.into(), Link::new(settings, &report, interval));
            path.egress = Egress { most: most.into(), runs, ..path.egress };
            path
        };
        let paths = remotes.iter().zip(reports).zip(settings).map(path).collect();
        Self {
            pair,
            offer,
            peer_index: secure.peer_index,
            interval,
            random,
            wall,
            heard: before.heard.bounded(),
            sent: before.sent.bounded(),
            attempts: Attempts::new(first, interval),
            slots: Slots::default(),
            opened_us: 0,
            burst: None,
            unpacker: Unpacker::default(),
            paths: Paths::new(paths, state.active.into()).with_policy(secure.policy, secure.weights),
            pings: Outstanding::default(),
            armed: true,
            look_us: 0,
            probed_us: 0,
            stirred: false,
            news: true,
            copies: Paced::default(),
            initiations: Paced::default(),
            pending: None,
            calls: Recent::default(),
            repeated: Recent::default(),
            stale: Paced::default(),
            replies: Recent::default(),
            strangers: Recent::default(),
            trouble: None,
            counts: before.counts,
            probe: vec![0; datagram].into(),
            delivers,
            ticks: Ticks::new(state.tick, exit_after),
        }
    }

    /// See [`crate::wire::Session::receive`].
    pub fn receive(&mut self, path: usize, batch: &mut Batch, now_us: u64, counters: &Counters, out: &mut Outbox) {
        let Some(counts) = counters.paths.get(path) else { return };
        if path >= self.paths.all.len() {
            return;
        }
        batch.expand(|source, memory, datagram, found| {
            let Some(target) = self.paths.all[path].answer_to(source) else {
                // The sender is outside the limits of the peer's address. The content does not matter.
                counts.rx_dropped_foreign.add(1);
                return;
            };
            self.take(Arrival { path, source, target, now_us }, memory, datagram, found, counts, out);
        });
        if !self.delivers {
            counters.port.tx_dropped_direction.add(batch.packets().0);
            batch.clear();
        }
        self.paths.all[path].wire.note_traffic(counts, now_us);
        self.publish();
    }

    /// Takes a datagram at a range of the memory, and collects its frames.
    fn take(
        &mut self,
        from: Arrival,
        memory: &mut [u8],
        datagram: Range<usize>,
        found: &mut Collector<'_>,
        counts: &SharedPath,
        out: &mut Outbox,
    ) {
        match message::parse(&memory[datagram.clone()]) {
            None => counts.rx_dropped_invalid.add(1),
            Some(Message::Data(index)) => {
                if let Some((queue, content)) = self.open(from, index, &mut memory[datagram.clone()], counts, out) {
                    let content = datagram.start + content.start..datagram.start + content.end;
                    match self.unpacker.take((index, queue), memory, content, from.now_us, found) {
                        Ok(Some(control)) if queue == QUEUE => self.control(from, control, datagram.len(), counts, out),
                        Ok(_) => {}
                        Err(Lost::Wrong | Lost::NoRoom) => self.counts.dropped_content += 1,
                    }
                }
            }
            Some(message) => self.handshake(from, &message, &memory[datagram], out),
        }
    }

    /// Opens a datagram. Returns its queue, and the range of its content.
    fn open(
        &mut self,
        from: Arrival,
        index: u32,
        datagram: &mut [u8],
        counts: &SharedPath,
        out: &mut Outbox,
    ) -> Option<(u8, Range<usize>)> {
        let Some((which, slot)) = self.slots.find(index) else {
            // The session is over, or belongs to an earlier worker.
            counts.rx_dropped_invalid.add(1);
            return None;
        };
        let opened = slot.opening.open(from.path, datagram, datagram.len());
        let path = &mut self.paths.all[from.path];
        // A copy counts as received by its path. It proves nothing about the present: an attacker can keep one back.
        path.wire.opened = path.wire.opened.wrapping_add(u32::from(matches!(opened, Ok(_) | Err(Dropped::Copy))));
        let content = match opened {
            Ok(content) => content,
            Err(dropped) => {
                match dropped {
                    Dropped::Malformed => counts.rx_dropped_invalid.add(1),
                    Dropped::Replay => self.counts.replays += 1,
                    Dropped::Copy => self.counts.copies += 1,
                    Dropped::Forged => self.counts.auth_failures += 1,
                }
                return None;
            }
        };
        let queue = datagram[1];
        slot.opened(from.now_us);
        self.opened_us = from.now_us;
        if queue == QUEUE {
            path.received_us = Some(from.now_us);
        }
        if which == Slot::Waiting {
            self.confirm(from.now_us);
        }
        if queue == QUEUE {
            self.look_for_peer(from, counts, out);
        }
        Some((queue, content))
    }

    /// Makes the waiting session current. This does not locate the peer: an attacker can forward its datagram faster than the
    /// peer's path.
    fn confirm(&mut self, now_us: u64) {
        let Some(waiting) = self.slots.waiting.take() else { return };
        let slots::WaitingStage::Datagram(established, kem) = waiting.stage else { return };
        self.heard = self.heard.max(waiting.timestamp);
        self.burst = None;
        self.make_current(established, if kem.is_some() { Form::Short } else { Form::Long }, now_us);
    }

    fn make_current(&mut self, established: Established, form: Form, now_us: u64) {
        let replaced = self.slots.make_current(established, now_us);
        self.counts.handshakes += 1;
        self.counts.rekeys += u64::from(replaced);
        self.attempts.end(form);
        self.trouble = None;
        self.opened_us = now_us;
        (self.armed, self.look_us) = (true, now_us);
    }

    /// Makes the session current that this end has initiated.
    fn begin_current(&mut self, keys: &super::Keys, form: Form, from: &Arrival) {
        let established = Established::new(keys, self.paths.all.len(), true, self.pair.gives_way(), from.now_us);
        self.make_current(established, form, from.now_us);
        let is_elsewhere = !self.paths.all[from.path].is_from_peer(from.source, self.ticks.now());
        self.burst = Some(Burst { left: 0, at_us: from.now_us, to: is_elsewhere.then_some((from.path, from.target)) });
    }

    /// See [`crate::wire::Session::on_time`].
    pub fn on_time(&mut self, now_us: u64, counters: &Counters, out: &mut Outbox) {
        if self.is_over() {
            return;
        }
        let late_us = now_us.saturating_sub(self.timer_us());
        if late_us > LATE {
            self.forgive(late_us, now_us);
        }
        self.slots.expire(now_us, self.interval);
        if self.ticks.begin(now_us) {
            self.news = true;
            let is_gone = now_us >= self.opened_us + GONE;
            self.paths.all.iter_mut().for_each(|path| path.on_tick(now_us, is_gone));
            if self.ticks.now().is_multiple_of(self.interval) {
                self.ping_idle(now_us, counters, out);
            }
            self.counts.dropped_incomplete += self.unpacker.expire(now_us);
        } else if self.is_over() {
            return;
        }
        self.answer_pending(now_us, out);
        self.burst(now_us, counters, out);
        self.probed_us = now_us;
        self.ping_paths(now_us, counters, out);
        self.attempt_session(now_us, out);
        self.probe_all(now_us, counters, out);
        self.publish();
    }

    /// Sends the message of a handshake that is due.
    fn attempt_session(&mut self, now_us: u64, out: &mut Outbox) {
        self.attempts.expire(now_us);
        if self.wants_a_session(now_us) && self.attempts.is_over() {
            self.attempt(now_us);
        }
        if let Some((message, to)) = self.attempts.message(now_us) {
            for (number, path) in self.paths.all.iter().enumerate() {
                let known = path.remote.target();
                out.post(number, known, message);
                if let Some((_, elsewhere)) = to.filter(|to| to.0 == number && to.1 != known) {
                    out.post(number, elsewhere, message);
                }
            }
        }
    }

    /// Whether to make an attempt.
    fn wants_a_session(&self, now_us: u64) -> bool {
        let worn = |current: &Established| current.is_worn(now_us) || now_us >= self.silent_us();
        let wanted = self.attempts.is_under_way() || self.slots.current.as_ref().is_none_or(worn);
        wanted && self.paths.lead_somewhere()
    }

    /// Time at which the peer counts as silent if nothing is opened before.
    fn silent_us(&self) -> u64 {
        let interval = if self.paths.choice().is_down() { 1 } else { self.interval };
        self.opened_us + SILENT * interval * SECOND
    }

    /// Begins an attempt.
    fn attempt(&mut self, now_us: u64) {
        let form = self.attempts.form();
        let clock = (self.wall)(now_us).0 / ROUNDED * ROUNDED;
        self.sent = Timestamp(clock.max(self.sent.0.saturating_add(1))).bounded();
        let indices = (self.new_index(), self.peer_index);
        let made = Initiator::new(&self.pair, form, self.offer, indices, self.sent, &mut self.random);
        let stage =
            made.map_or(attempt::AttemptStage::Forgotten, |made| attempt::AttemptStage::Initiation(Box::new(made)));
        let mut chance = [0];
        (self.random)(&mut chance);
        self.attempts.begin(stage, chance[0], now_us);
    }

    /// A random index that is not zero and not in use at this end.
    fn new_index(&mut self) -> u32 {
        loop {
            let mut index = [0; 4];
            (self.random)(&mut index);
            let index = u32::from_be_bytes(index);
            if index != 0 && !self.slots.has(index) && self.attempts.index() != Some(index) {
                return index;
            }
        }
    }

    /// Time of the next deadline, in microseconds.
    pub fn due_us(&self) -> u64 {
        if self.stirred && !self.is_over() { 0 } else { self.timer_us() }
    }

    /// Whether the supervisor must be told of a change or of a tick.
    pub fn has_news(&self) -> bool {
        self.news
    }

    fn timer_us(&self) -> u64 {
        if self.is_over() {
            return u64::MAX;
        }
        let [ends, replaced] = self.slots.due_us(self.interval);
        let burst = self.burst.as_ref().map_or(u64::MAX, |burst| burst.at_us);
        let attempt = self.attempts.due_us();
        let pending = self.pending.as_ref().map_or(u64::MAX, |_| self.initiations.next_us());
        // No wakeup while an attempt is in progress, or while no address of the peer is known.
        let wanted = if attempt == u64::MAX && self.paths.lead_somewhere() {
            let silent = if self.slots.current.is_some() { self.silent_us() } else { 0 };
            silent.min(replaced)
        } else {
            u64::MAX
        };
        let probes = self.probes_due_us().min(self.pings_due_us());
        [self.ticks.due_us(), ends, burst, attempt, pending, wanted, probes].into_iter().fold(u64::MAX, u64::min)
    }

    /// Whether the last tick is over.
    pub fn is_over(&self) -> bool {
        self.ticks.is_over()
    }

    /// Current route.
    pub fn route(&self) -> &Route {
        self.paths.route()
    }

    /// Copies the peer's addresses, the sizes of the paths and the current key into the route.
    fn publish(&mut self) {
        for path in &mut self.paths.all {
            let prober = &path.wire.prober;
            path.egress.datagram = prober.datagram();
            path.egress.reduced = prober.is_reduced();
            path.egress.runs = prober.runs();
        }
        self.paths.update_route();
        let route = self.paths.route_mut();
        let sending = self.slots.current.as_ref().map(|current| &current.sending);
        if route.sending.as_ref().map(Arc::as_ptr) != sending.map(Arc::as_ptr) {
            route.sending = sending.cloned();
        }
    }

    /// See [`crate::wire::Session::report`].
    pub fn report(&mut self, now_us: u64) -> State {
        self.news = false;
        State {
            tick: self.ticks.now(),
            active: self.paths.active(),
            paths: self.paths.reports(now_us, |link, report| {
                report.carries = link.prober.carries();
                link.evidence.report(now_us, report);
            }),
            wire: WireState::Secure(self.report_secure(now_us)),
            ..State::default()
        }
    }

    /// Clears counters.
    pub fn reset(&mut self, counts: Counts) {
        self.counts.reset(counts);
    }

    fn report_secure(&self, now_us: u64) -> SecureState {
        let session = self.slots.current.as_ref().map(|current| SessionReport {
            cipher: match current.cipher {
                CipherKind::Aes256Gcm => SessionCipher::Aes256Gcm,
                CipherKind::ChaCha20Poly1305 => SessionCipher::ChaCha20Poly1305,
            },
            age_ms: now_us.saturating_sub(current.born_us) / 1000,
            began_here: current.began_here,
        });
        SecureState { heard: self.heard, sent: self.sent, session, trouble: self.trouble, counts: self.counts }
    }
}
