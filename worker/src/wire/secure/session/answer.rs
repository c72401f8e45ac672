//! Processing of received handshake messages.

use privsep::ipc::{Timestamp, Trouble};

use super::attempt::AttemptStage;
use super::slots::{Established, Waiting, WaitingStage};
use super::{Arrival, SECOND, SILENT, Session};
use crate::endpoint::Target;
use crate::wire::outbox::Outbox;
use crate::wire::secure::handshake::{Answered, Refused, Responded, respond};
use crate::wire::secure::message::{self, Form, Initiation, Kem, Message, Response};

/// Least difference in nanoseconds by which an initiation is older than a waiting one and counts as stale, not late.
const STALE: u64 = 10_000_000_000;

/// Initiation that is valid so far and not yet processed by Noise.
pub struct PendingInitiation {
    from: Arrival,
    timestamp: Timestamp,
    bytes: Vec<u8>,
}

impl Session {
    pub(super) fn handshake(&mut self, from: Arrival, message: &Message, bytes: &[u8], out: &mut Outbox) {
        match message {
            Message::KemKey(kem) => self.kem_key(from, kem, out),
            Message::KemCiphertext(kem) => self.kem_ciphertext(from, kem),
            Message::Other(message::VERSION) => self.draft(from, bytes),
            // All other kinds have MACs. `mac0` covers only the head, so a stranger's message costs no pass over the rest.
            _ if !self.pair.has_head_of_the_pair(bytes) => self.of_a_stranger(from, bytes),
            // The head is the peer's. Its numbers decide whether the rest is checked.
            Message::Initiation(initiation) => self.initiation(from, initiation, out),
            Message::Response(response) => self.response(from, response),
            Message::Other(version) => self.other_version(*version, bytes),
            Message::Data(_) => {}
        }
    }

    /// Whether a message with the peer's head is the peer's as a whole. An attacker may send the head with another rest. That takes
    /// no slot, and the peer's response is still accepted.
    fn is_whole(&mut self, bytes: &[u8]) -> bool {
        let is_whole = self.pair.is_of_the_pair(bytes);
        if !is_whole {
            self.counts.auth_failures += 1;
            self.say_trouble(Trouble::Psk);
        }
        is_whole
    }

    /// Handles a message of this version with another length.
    fn draft(&mut self, from: Arrival, bytes: &[u8]) {
        self.counts.dropped_messages += 1;
        let may_be_peer = self.paths.all[from.path].is_from_peer(from.source, self.ticks.now());
        if self.strangers.allows(from.now_us) && (may_be_peer || self.pair.is_for_us(bytes)) {
            self.say_trouble(Trouble::Draft);
        }
    }

    fn other_version(&mut self, version: u8, bytes: &[u8]) {
        self.counts.dropped_messages += 1;
        if self.slots.current.is_none() && self.is_whole(bytes) {
            self.say_trouble(Trouble::Version(version));
        }
    }

    /// Records a trouble, unless a session exists.
    fn say_trouble(&mut self, trouble: Trouble) {
        if self.slots.current.is_none() {
            self.trouble = Some(trouble);
        }
    }

    /// Handles a message whose `mac0` is wrong.
    fn of_a_stranger(&mut self, from: Arrival, bytes: &[u8]) {
        self.counts.auth_failures += 1;
        if !self.strangers.allows(from.now_us) {
            return;
        }
        if self.pair.is_for_us(bytes) {
            self.say_trouble(Trouble::OtherPeerKey);
        } else if self.paths.all[from.path].is_from_peer(from.source, self.ticks.now()) {
            self.say_trouble(Trouble::OurKeyUnknown);
        }
    }

    fn initiation(&mut self, from: Arrival, initiation: &Initiation, out: &mut Outbox) {
        let waits = self.slots.waiting.as_ref();
        if waits.is_some_and(|waiting| waiting.is_answer_to(initiation)) {
            if self.repeated.allows(from.now_us) {
                self.answer(from, |waiting| Some(&waiting.response), out);
            } else {
                self.counts.dropped_initiations += 1;
            }
            return;
        }
        // The peer's own initiation is newer than all recorded ones.
        let newest = waits.map(|waiting| waiting.timestamp).max(self.pending.as_ref().map(|pending| pending.timestamp));
        let is_heard = initiation.timestamp <= self.heard;
        if is_heard || newest.is_some_and(|newest| initiation.timestamp <= newest) {
            self.counts.dropped_initiations += 1;
            if is_heard {
                self.say_trouble(Trouble::Clock { behind_ms: behind_ms(initiation.timestamp, self.heard) });
            }
            if is_heard || newest.is_some_and(|newest| newest.0 - initiation.timestamp.0 > STALE) {
                self.reply_to_stale(from, initiation, out);
            }
            return;
        }
        if !self.is_whole(initiation.bytes) {
            return;
        }
        let pending = PendingInitiation { from, timestamp: initiation.timestamp, bytes: initiation.bytes.to_vec() };
        self.counts.dropped_initiations += u64::from(self.pending.replace(pending).is_some());
        self.answer_pending(from.now_us, out);
    }

    /// Replies to an initiation with a stale timestamp by an own initiation: a response to that needs no clock.
    fn reply_to_stale(&mut self, from: Arrival, initiation: &Initiation, out: &mut Outbox) {
        // Opened datagrams may have been delayed by an attacker. Only a pong is fresh.
        let is_young = |current: &Established| from.now_us < current.born_us + SILENT * self.interval * SECOND;
        let works =
            self.slots.current.as_ref().is_some_and(|current| is_young(current) || self.paths.answer(self.ticks.now()));
        let may = !works && from.target != Target::Unknown;
        if !may || !self.stale.allows(from.now_us) || !self.is_whole(initiation.bytes) {
            return;
        }
        if initiation.form == Form::Short {
            self.attempts.stay_short();
        }
        self.attempts.expire(from.now_us);
        if self.attempts.is_over() {
            self.attempt(from.now_us);
        }
        // The reply must not be longer than the initiation, which may be replayed from any address.
        if let Some(bytes) = self.attempts.initiation().filter(|bytes| bytes.len() <= initiation.bytes.len())
            && self.replies.allows(from.now_us)
        {
            out.post(from.path, from.target, bytes);
        }
    }

    /// Responds to the pending initiation, if the limit allows it. It is newer than any initiation answered or confirmed meanwhile.
    pub(super) fn answer_pending(&mut self, now_us: u64, out: &mut Outbox) {
        let Some(pending) = self.pending.take_if(|_| self.initiations.allows(now_us)) else { return };
        if let Some(Message::Initiation(initiation)) = message::parse(&pending.bytes) {
            self.respond(Arrival { now_us, ..pending.from }, &initiation, out);
        }
    }

    fn respond(&mut self, from: Arrival, initiation: &Initiation, out: &mut Outbox) {
        if !self.calls.allows(from.now_us) {
            self.say_trouble(Trouble::StolenKey);
        }
        let index = self.new_index();
        let Ok((response, responded)) = respond(&self.pair, initiation, self.offer, index, &mut self.random) else {
            self.counts.auth_failures += 1;
            return;
        };
        let stage = match responded {
            Responded::Keys(keys) => {
                let (paths, gives_way) = (self.paths.all.len(), self.pair.gives_way());
                WaitingStage::Datagram(Established::new(&keys, paths, false, gives_way, from.now_us), None)
            }
            Responded::Kem(kem) => WaitingStage::KemKey(kem),
        };
        let (timestamp, mac2) = (initiation.timestamp, initiation.mac2());
        self.slots.waiting = Some(Waiting::new(index, timestamp, mac2, response, stage, from.now_us));
        if self.pair.gives_way() {
            self.attempts.give_way();
        }
        self.answer(from, |waiting| Some(&waiting.response), out);
    }

    /// Sends an answer to the source of the message.
    fn answer(&self, from: Arrival, choose: impl FnOnce(&Waiting) -> Option<&[u8]>, out: &mut Outbox) {
        if let Some(answer) = self.slots.waiting.as_ref().and_then(choose) {
            out.post(from.path, from.target, answer);
        }
    }

    fn response(&mut self, from: Arrival, response: &Response) {
        let Some(AttemptStage::Initiation(_)) = self.attempts.find(response.receiver).map(|attempt| &attempt.stage)
        else {
            // The response to a forgotten or already answered initiation.
            self.counts.dropped_messages += 1;
            if let Some(after_us) = self.attempts.is_late_by(response.receiver, from.now_us) {
                self.say_trouble(Trouble::Late { after_ms: after_us / 1000 });
            }
            return;
        };
        if !self.is_whole(response.bytes) {
            return;
        }
        let Some(attempt) = self.attempts.find(response.receiver) else { return };
        let AttemptStage::Initiation(initiator) = &mut attempt.stage else { return };
        match initiator.take(response) {
            Ok(Answered::Keys(keys)) => self.begin_current(&keys, Form::Long, &from),
            Ok(Answered::Kem(kem)) => attempt.go_on(AttemptStage::KemKey(kem, response.receiver), &from),
            Err(Refused::NotOffered) => self.counts.dropped_messages += 1,
            Err(_) => {
                // The initiation was answered, but with a bad response. Forget it, so that a repetition of the response costs no
                // computation.
                attempt.forget();
                self.counts.auth_failures += 1;
            }
        }
    }

    fn kem_key(&mut self, from: Arrival, kem: &Kem, out: &mut Outbox) {
        let Some(waiting) = self.slots.waiting.as_mut().filter(|waiting| waiting.our_index == kem.receiver) else {
            self.counts.dropped_messages += 1;
            return;
        };
        match &waiting.stage {
            WaitingStage::KemKey(responder) => {
                let Ok((answer, keys)) = responder.take(kem) else {
                    self.counts.auth_failures += 1;
                    return;
                };
                let (paths, gives_way) = (self.paths.all.len(), self.pair.gives_way());
                let established = Established::new(&keys, paths, false, gives_way, from.now_us);
                waiting.keys_came(WaitingStage::Datagram(established, Some((kem.tag(), answer))), from.now_us);
            }
            WaitingStage::Datagram(_, Some((tag, _))) if *tag == kem.tag() && self.repeated.allows(from.now_us) => {}
            WaitingStage::Datagram(..) => {
                self.counts.dropped_messages += 1;
                return;
            }
        }
        self.answer(from, Waiting::ciphertext, out);
    }

    fn kem_ciphertext(&mut self, from: Arrival, kem: &Kem) {
        let stage = self.attempts.find(kem.receiver).map(|attempt| &attempt.stage);
        let Some(AttemptStage::KemKey(initiator, _)) = stage else {
            self.counts.dropped_messages += 1;
            return;
        };
        match initiator.take(kem) {
            Ok(keys) => self.begin_current(&keys, Form::Short, &from),
            Err(_) => self.counts.auth_failures += 1,
        }
    }
}

/// Milliseconds by which one timestamp is before another, at least 1.
fn behind_ms(moment: Timestamp, other: Timestamp) -> u64 {
    (other.0.saturating_sub(moment.0) / 1_000_000).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clock_lag_is_bounded() {
        let late = Timestamp::MAX;
        assert_eq!(behind_ms(Timestamp::default(), late), late.0 / 1_000_000);
        assert_eq!([behind_ms(late, late), behind_ms(late, Timestamp::default())], [1, 1]);
        assert_eq!(behind_ms(Timestamp(7_005_000_000), Timestamp(9_004_999_999)), 1999);
    }
}
