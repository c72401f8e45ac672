//! What receives on the secure wire, makes sessions and keeps them, and knows where the peer is. `docs/WIRE.md`, from
//! "Handshake" on, says what it does.

mod answer;
mod attempt;
mod carries;
mod limits;
mod paths;
mod slots;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::Arc;

use privsep::ipc::{
    Counts, Remote, SecureCounters, SecureState, SessionCipher, SessionReport, SharedPath, State, Timestamp, Trouble,
};

use super::CipherKind;
use super::content::{self, CONTROL};
use super::crypt::{Dropped, HEADER, TAG};
use super::handshake::{Initiator, Random};
use super::keys::Pair;
use super::message::{self, Form, Message};
use super::unpack::{Control, Lost, Unpacker};
use crate::batch::{Batch, Found};
use crate::wire::{Counters, Outbox, Place, Route, Target};
use answer::Kept;
use attempt::Attempts;
use limits::{Paced, Recent};
use paths::{Path, Paths};
use slots::{Established, Slots, Which};

const SECOND: u64 = 1_000_000;
const MILLISECOND: u64 = 1000;
/// Time without anything opened after which an end makes an attempt.
const SILENT: u64 = 5 * SECOND;
/// When the pings of a new session leave, after the one before.
const BURST: [u64; 3] = [100 * MILLISECOND, 200 * MILLISECOND, 400 * MILLISECOND];
/// Queue of what a session sends besides frames.
const QUEUE: u8 = 1;

/// The wall clock, as it stands when the worker's own shows so many microseconds. It is asked each time: it may be set right meanwhile.
pub type Wall = Box<dyn Fn(u64) -> Timestamp + Send>;

/// What a session is told.
pub struct Told<'a> {
    /// Keys of both ends.
    pub pair: Pair,
    /// Ciphers of this end, as [`message::offer`] has them.
    pub offer: u8,
    /// Whom each path talks to.
    pub remotes: &'a [Remote],
    /// Longest datagram in bytes that leaves whole by every path.
    pub datagram: usize,
    /// Whether frames are given to the local side.
    pub delivers: bool,
    /// Tick after which it is over.
    pub exit_after: Option<u64>,
    /// Where the worker before had come to.
    pub state: &'a State,
    /// What the time is, for others.
    pub wall: Wall,
    /// Where random bytes come from.
    pub random: Random,
}

/// A tunnel's.
pub struct Session {
    pair: Pair,
    offer: u8,
    random: Random,
    wall: Wall,
    /// Greatest timestamp of an initiation whose session was confirmed, and of one that was sent.
    heard: Timestamp,
    sent: Timestamp,
    attempts: Attempts,
    slots: Slots,
    /// When something was opened last, by any session, or there was a new one.
    opened_us: u64,
    /// Pings of a new session: how many have left, and when the next one does.
    burst: Option<(usize, u64)>,
    unpacker: Unpacker,
    paths: Paths,
    /// Initiations that are computed, and the one that is next.
    initiations: Paced<20>,
    kept: Option<Kept>,
    /// Answers that are sent again.
    repeated: Recent<10>,
    /// Messages of which it is looked at what is wrong.
    strangers: Recent<10>,
    trouble: Option<Trouble>,
    counts: SecureCounters,
    /// A probe as long as the longest datagram, while it is made.
    probe: Box<[u8]>,
    delivers: bool,
    last_tick: Option<u64>,
    tick: u64,
    next_tick_us: u64,
    route: Route,
}

/// Where a datagram has come from: path and address, where the socket tells; where an answer goes; and when it came.
#[derive(Clone, Copy)]
struct From {
    path: usize,
    source: Option<Place>,
    target: Target,
    now_us: u64,
}

impl Session {
    /// One that goes on from a state.
    pub fn new(told: Told) -> Self {
        let Told { pair, offer, remotes, datagram, delivers, exit_after, state, wall, random } = told;
        let first = if datagram < Form::Long.initiation() { Form::Short } else { Form::Long };
        let reports = state.paths.iter().copied().chain(std::iter::repeat_with(Default::default));
        let paths: Vec<_> = remotes.iter().zip(reports).map(|(remote, report)| Path::new(remote, &report)).collect();
        let targets = paths.iter().map(|path| path.remote.target()).collect();
        Self {
            pair,
            offer,
            random,
            wall,
            heard: state.secure.heard.bounded(),
            sent: state.secure.sent.bounded(),
            attempts: Attempts::new(first),
            slots: Slots::default(),
            opened_us: 0,
            burst: None,
            unpacker: Unpacker::default(),
            route: Route {
                active: usize::from(state.active).min(paths.len().saturating_sub(1)),
                targets,
                sending: None,
            },
            paths: Paths::new(paths),
            initiations: Paced::default(),
            kept: None,
            repeated: Recent::default(),
            strangers: Recent::default(),
            trouble: None,
            counts: state.secure.counts,
            probe: vec![0; datagram].into(),
            delivers,
            last_tick: exit_after,
            tick: state.tick,
            next_tick_us: 0,
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
                // From where the peer never is, whatever it says.
                counts.rx_dropped_foreign.add(1);
                return;
            };
            self.take(From { path, source, target, now_us }, memory, datagram, found, counts, out);
        });
        if !self.delivers {
            batch.clear();
        }
        self.publish();
    }

    /// Takes a datagram, which is there in the memory; frames are then found in it.
    fn take(
        &mut self,
        from: From,
        memory: &mut [u8],
        datagram: Range<usize>,
        found: &mut Found<'_>,
        counts: &SharedPath,
        out: &mut Outbox,
    ) {
        match message::parse(&memory[datagram.clone()]) {
            None => counts.rx_dropped_invalid.add(1),
            Some(Message::Data(index)) => {
                if let Some((queue, content)) = self.open(from, index, &mut memory[datagram.clone()], counts, out) {
                    let content = datagram.start + content.start..datagram.start + content.end;
                    match self.unpacker.take((index, queue), memory, content, from.now_us, found) {
                        Ok(None) => {}
                        Ok(Some(control)) => self.control(from, control, datagram.len(), counts, out),
                        Err(Lost::Wrong | Lost::NoRoom) => self.counts.dropped_content += 1,
                    }
                }
            }
            Some(message) => self.handshake(from, &message, &memory[datagram], out),
        }
    }

    /// Opens a datagram: its queue, and where in it the content is.
    fn open(
        &mut self,
        from: From,
        index: u32,
        datagram: &mut [u8],
        counts: &SharedPath,
        out: &mut Outbox,
    ) -> Option<(u8, Range<usize>)> {
        let Some((which, slot)) = self.slots.find(index) else {
            // Of a session that is over, or of the worker before.
            counts.rx_dropped_invalid.add(1);
            return None;
        };
        let content = match slot.opening.open(datagram, datagram.len()) {
            Ok(content) => content,
            Err(dropped) => {
                match dropped {
                    Dropped::Malformed => counts.rx_dropped_invalid.add(1),
                    Dropped::Replay => self.counts.replays += 1,
                    Dropped::Forged => self.counts.auth_failures += 1,
                }
                return None;
            }
        };
        let queue = datagram[1];
        slot.opened(from.now_us);
        self.opened_us = from.now_us;
        self.paths.all[from.path].received_us = Some(from.now_us);
        if which == Which::Waiting {
            self.confirm(from.now_us);
        }
        self.probe(from, counts, out);
        Some((queue, content))
    }

    /// Takes a ping, a pong, a probe or the answer to one, that came in a datagram of `length` bytes.
    fn control(&mut self, from: From, control: Control, length: usize, counts: &SharedPath, out: &mut Outbox) {
        match control {
            Control::Probe(token) => {
                self.say(from.path, from.target, content::arrived(token, length), out);
            }
            Control::Arrived(token, length) => {
                self.paths.all[from.path].carries.answered(token, length);
            }
            Control::Pong(token) => {
                if self.paths.ponged(token, from.path, from.source, self.tick, from.now_us) {
                    counts.pongs_received.add(1);
                }
            }
            Control::Ping(token) => {
                counts.pings_received.add(1);
                counts.pongs_sent.add(u64::from(self.say(from.path, from.target, content::pong(token), out)));
            }
        }
    }

    /// The session that waits is confirmed. By that the peer is nowhere yet: who repeats its initiation may be faster, too.
    fn confirm(&mut self, now_us: u64) {
        let Some(waiting) = self.slots.waiting.take() else { return };
        let slots::Stage::Datagram(established, kem) = waiting.stage else { return };
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
        self.paths.all.iter_mut().for_each(|path| path.carries.begin());
    }

    /// A session that this end has begun has keys.
    fn begin_current(&mut self, keys: &super::Keys, form: Form, now_us: u64) {
        let established = Established::new(keys, true, self.pair.gives_way(), now_us);
        self.make_current(established, form, now_us);
        self.burst = Some((0, now_us));
    }

    /// Asks whether the peer is where a datagram of its has come from, if that is new.
    fn probe(&mut self, from: From, counts: &SharedPath, out: &mut Outbox) {
        let path = &mut self.paths.all[from.path];
        if !path.is_from_peer(from.source, self.tick) && self.slots.current.is_some() && path.probes.allows(from.now_us)
        {
            self.ping(from.path, from.target, from.now_us, counts, out);
        }
    }

    fn ping(&mut self, path: usize, target: Target, now_us: u64, counts: &SharedPath, out: &mut Outbox) {
        let mut token = [0; 8];
        (self.random)(&mut token);
        if self.say(path, target, content::ping(token), out) {
            self.paths.pinged(token, path, target, now_us);
            counts.pings_sent.add(1);
        }
    }

    /// A ping by each path.
    fn ping_all(&mut self, now_us: u64, counters: &Counters, out: &mut Outbox) {
        for (path, counts) in counters.paths.iter().enumerate().take(self.paths.all.len()) {
            let target = self.paths.all[path].remote.target();
            if target != Target::Nobody && self.slots.current.is_some() {
                self.ping(path, target, now_us, counts, out);
            }
        }
    }

    /// A round of probes by each path for which one is due.
    fn probe_all(&mut self, out: &mut Outbox) {
        for number in 0..self.paths.all.len() {
            let path = &mut self.paths.all[number];
            let target = path.remote.target();
            if target == Target::Nobody || self.slots.current.is_none() || !path.carries.is_due(self.tick) {
                continue;
            }
            let [mut small, mut full] = [[0; 8]; 2];
            (self.random)(&mut small);
            (self.random)(&mut full);
            if self.say(number, target, content::probe(small), out) && self.say_full(number, target, full, out) {
                let lengths =
                    [HEADER + CONTROL + TAG, self.probe.len()].map(|length| u16::try_from(length).unwrap_or(0));
                self.paths.all[number].carries.sent((small, lengths[0]), (full, lengths[1]));
            }
        }
    }

    /// Sends a probe as long as the longest datagram; false where it does not leave.
    fn say_full(&mut self, path: usize, target: Target, token: [u8; 8], out: &mut Outbox) -> bool {
        let Some(current) = &self.slots.current else { return false };
        self.probe.fill(0);
        let Some(content) = self.probe.get_mut(HEADER..HEADER + CONTROL) else { return false };
        content.copy_from_slice(&content::probe(token));
        current.sending.seal(QUEUE, &mut self.probe).is_ok() && post(path, target, &self.probe, out)
    }

    /// Sends content by the current session; false where it does not leave.
    fn say(&self, path: usize, target: Target, content: [u8; CONTROL], out: &mut Outbox) -> bool {
        let Some(current) = &self.slots.current else { return false };
        let mut datagram = [0; HEADER + CONTROL + TAG];
        datagram[HEADER..HEADER + CONTROL].copy_from_slice(&content);
        current.sending.seal(QUEUE, &mut datagram).is_ok() && post(path, target, &datagram, out)
    }

    /// See [`crate::wire::Session::on_time`].
    pub fn on_time(&mut self, now_us: u64, counters: &Counters, out: &mut Outbox) {
        if self.is_over() {
            return;
        }
        self.slots.expire(now_us);
        if now_us >= self.next_tick_us {
            // Who was stopped does not make up for the ticks it missed.
            let next_us = self.next_tick_us + SECOND;
            self.next_tick_us = if next_us > now_us { next_us } else { now_us + SECOND };
            self.tick += 1;
            if self.is_over() {
                return;
            }
            self.paths.all.iter_mut().for_each(|path| path.on_tick(now_us));
            self.ping_all(now_us, counters, out);
            self.probe_all(out);
            self.route.active = self.paths.judge(self.tick, self.route.active);
            self.counts.dropped_incomplete += self.unpacker.expire(now_us);
        }
        self.answer_kept(now_us, out);
        self.burst(now_us, counters, out);
        if self.wants_a_session(now_us) && self.attempts.is_over(now_us) {
            self.attempt(now_us);
        }
        if let Some(message) = self.attempts.message(now_us) {
            for (number, path) in self.paths.all.iter().enumerate() {
                post(number, path.remote.target(), message, out);
            }
        }
        self.publish();
    }

    fn burst(&mut self, now_us: u64, counters: &Counters, out: &mut Outbox) {
        if self.slots.current.as_ref().is_none_or(|current| current.has_opened) {
            self.burst = None;
        }
        if let Some((left, at_us)) = self.burst
            && now_us >= at_us
        {
            self.ping_all(now_us, counters, out);
            self.burst = BURST.get(left).map(|pause| (left + 1, now_us + pause));
        }
    }

    /// Whether an attempt is to be made.
    fn wants_a_session(&self, now_us: u64) -> bool {
        let worn = |current: &Established| current.is_worn(now_us) || now_us >= self.opened_us + SILENT;
        let wanted = self.attempts.is_under_way() || self.slots.current.as_ref().is_none_or(worn);
        wanted && self.paths.lead_somewhere()
    }

    /// Makes an attempt.
    fn attempt(&mut self, now_us: u64) {
        let next = match self.sent {
            Timestamp { seconds, nanoseconds: 999_999_999 } => Timestamp { seconds: seconds + 1, nanoseconds: 0 },
            Timestamp { seconds, nanoseconds } => Timestamp { seconds, nanoseconds: nanoseconds + 1 },
        };
        self.sent = (self.wall)(now_us).max(next).bounded();
        let (index, form) = (self.new_index(), self.attempts.form());
        let made = Initiator::new(&self.pair, form, self.offer, index, self.sent, &mut self.random);
        let stage = made.map_or(attempt::Stage::Forgotten, |made| attempt::Stage::Initiation(Box::new(made)));
        let mut chance = [0];
        (self.random)(&mut chance);
        self.attempts.begin(stage, chance[0], now_us);
    }

    /// An index that is not zero, and that this end does not have in use.
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

    /// When something is due next.
    pub fn due_us(&self) -> u64 {
        if self.is_over() {
            return u64::MAX;
        }
        let [ends, replaced] = self.slots.due_us();
        let burst = self.burst.map_or(u64::MAX, |(_, at_us)| at_us);
        let attempt = self.attempts.due_us();
        let kept = self.kept.as_ref().map_or(u64::MAX, |_| self.initiations.next_us());
        // An attempt that goes on, or that nobody can be sent, is no reason to wake for another.
        let wanted = if attempt == u64::MAX && self.paths.lead_somewhere() {
            let silent = if self.slots.current.is_some() { self.opened_us + SILENT } else { 0 };
            silent.min(replaced)
        } else {
            u64::MAX
        };
        [self.next_tick_us, ends, burst, attempt, kept, wanted].into_iter().fold(u64::MAX, u64::min)
    }

    /// Whether its last tick is over.
    pub fn is_over(&self) -> bool {
        self.last_tick.is_some_and(|last| self.tick > last)
    }

    /// Where frames go now.
    pub fn route(&self) -> &Route {
        &self.route
    }

    /// Takes over where the peer is, and what seals.
    fn publish(&mut self) {
        for (target, path) in self.route.targets.iter_mut().zip(&self.paths.all) {
            *target = path.remote.target();
        }
        let sending = self.slots.current.as_ref().map(|current| &current.sending);
        if self.route.sending.as_ref().map(Arc::as_ptr) != sending.map(Arc::as_ptr) {
            self.route.sending = sending.cloned();
        }
    }

    /// See [`crate::wire::Session::report`].
    pub fn report(&mut self, now_us: u64) -> State {
        // An answer that has come since the tick counts.
        self.route.active = self.paths.judge(self.tick, self.route.active);
        State {
            tick: self.tick,
            active: u8::try_from(self.route.active).unwrap_or(u8::MAX),
            paths: self.paths.all.iter().map(|path| path.report(now_us)).collect(),
            secure: self.report_secure(now_us),
            ..State::default()
        }
    }

    /// Sets counts back to zero.
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

/// Puts a datagram into the outbox; false where it does not leave.
fn post(path: usize, target: Target, datagram: &[u8], out: &mut Outbox) -> bool {
    target != Target::Nobody
        && out.push(path, target, |to| {
            to[..datagram.len()].copy_from_slice(datagram);
            datagram.len()
        })
}
