//! What a session makes of the messages of a handshake.

use privsep::ipc::{Timestamp, Trouble};

use super::attempt::Stage as Sent;
use super::slots::{Established, Stage, Waiting};
use super::{From, Session, post};
use crate::wire::Outbox;
use crate::wire::secure::handshake::{Answered, Refused, Responded, respond};
use crate::wire::secure::message::{self, Form, Initiation, Kem, Message, Response};

/// An initiation that counts and is not computed yet.
pub struct Kept {
    from: From,
    timestamp: Timestamp,
    bytes: Vec<u8>,
}

impl Session {
    pub(super) fn handshake(&mut self, from: From, message: &Message, bytes: &[u8], out: &mut Outbox) {
        match message {
            Message::KemKey(kem) => self.kem_key(from, kem, out),
            Message::KemCiphertext(kem) => self.kem_ciphertext(from, kem),
            // All others have MACs. The first is over the head alone: a stranger's message costs no pass over the rest.
            _ if !self.pair.has_head_of_the_pair(bytes) => self.of_a_stranger(from, bytes),
            // The numbers in the head are the peer's, and say whether the rest is looked at.
            Message::Initiation(initiation) => self.initiation(from, initiation, out),
            Message::Response(response) => self.response(from, response),
            Message::Other(version) => self.other_version(*version, bytes),
            Message::Data(_) => {}
        }
    }

    /// Whether all of a message is the peer's, whose head is. An observer may send the head with another rest: that takes no place,
    /// and leaves what was sent to be answered by the peer.
    fn is_whole(&mut self, bytes: &[u8]) -> bool {
        let is_whole = self.pair.is_of_the_pair(bytes);
        self.counts.auth_failures += u64::from(!is_whole);
        is_whole
    }

    fn other_version(&mut self, version: u8, bytes: &[u8]) {
        if self.slots.current.is_none() && self.is_whole(bytes) {
            self.say_trouble(Trouble::Version(version));
        }
    }

    /// A trouble is one as long as there is no session.
    fn say_trouble(&mut self, trouble: Trouble) {
        if self.slots.current.is_none() {
            self.trouble = Some(trouble);
        }
    }

    /// A message whose `mac0` is wrong.
    fn of_a_stranger(&mut self, from: From, bytes: &[u8]) {
        self.counts.auth_failures += 1;
        if !self.strangers.allows(from.now_us) {
            return;
        }
        if self.pair.is_for_us(bytes) {
            self.say_trouble(Trouble::OtherPeerKey);
        } else if self.paths.all[from.path].is_from_peer(from.source, self.tick) {
            self.say_trouble(Trouble::OurKeyUnknown);
        }
    }

    fn initiation(&mut self, from: From, initiation: &Initiation, out: &mut Outbox) {
        let waits = self.slots.waiting.as_ref();
        if waits.is_some_and(|waiting| waiting.is_answer_to(initiation)) {
            if self.repeated.allows(from.now_us) {
                self.answer(from, |waiting| Some(&waiting.response), out);
            } else {
                self.counts.dropped_initiations += 1;
            }
            return;
        }
        if initiation.timestamp <= self.heard {
            self.counts.dropped_initiations += 1;
            self.say_trouble(Trouble::Clock { behind_ms: behind_ms(initiation.timestamp, self.heard) });
            return;
        }
        // The peer's own is newer than all that was recorded.
        let newest = waits.map(|waiting| waiting.timestamp).max(self.kept.as_ref().map(|kept| kept.timestamp));
        if newest.is_some_and(|newest| initiation.timestamp <= newest) {
            self.counts.dropped_initiations += 1;
            return;
        }
        if !self.is_whole(initiation.bytes) {
            return;
        }
        let kept = Kept { from, timestamp: initiation.timestamp, bytes: initiation.bytes.to_vec() };
        self.counts.dropped_initiations += u64::from(self.kept.replace(kept).is_some());
        self.answer_kept(from.now_us, out);
    }

    /// Answers the initiation that is kept, if there is room. It is newer than any that was answered or confirmed meanwhile.
    pub(super) fn answer_kept(&mut self, now_us: u64, out: &mut Outbox) {
        let Some(kept) = self.kept.take_if(|_| self.initiations.allows(now_us)) else { return };
        if let Some(Message::Initiation(initiation)) = message::parse(&kept.bytes) {
            self.respond(From { now_us, ..kept.from }, &initiation, out);
        }
    }

    fn respond(&mut self, from: From, initiation: &Initiation, out: &mut Outbox) {
        let index = self.new_index();
        let Ok((response, responded)) = respond(&self.pair, initiation, self.offer, index, &mut self.random) else {
            self.counts.auth_failures += 1;
            return;
        };
        let stage = match responded {
            Responded::Keys(keys) => {
                Stage::Datagram(Established::new(&keys, false, self.pair.gives_way(), from.now_us), None)
            }
            Responded::Kem(kem) => Stage::KemKey(kem),
        };
        let (timestamp, mac2) = (initiation.timestamp, initiation.mac2());
        self.slots.waiting = Some(Waiting::new(index, timestamp, mac2, response, stage, from.now_us));
        if self.pair.gives_way() {
            self.attempts.give_way();
        }
        self.answer(from, |waiting| Some(&waiting.response), out);
    }

    /// Answers, to where the message came from.
    fn answer(&self, from: From, choose: impl FnOnce(&Waiting) -> Option<&[u8]>, out: &mut Outbox) {
        if let Some(answer) = self.slots.waiting.as_ref().and_then(choose) {
            post(from.path, from.target, answer, out);
        }
    }

    fn response(&mut self, from: From, response: &Response) {
        let taken = match self.attempts.stage() {
            Some(Sent::Initiation(initiator)) if initiator.our_index() == response.receiver => {
                if !self.pair.is_of_the_pair(response.bytes) {
                    self.counts.auth_failures += 1;
                    return;
                }
                initiator.take(response)
            }
            // To what was forgotten, or was answered already.
            _ => {
                self.counts.dropped_messages += 1;
                return;
            }
        };
        match taken {
            Ok(Answered::Keys(keys)) => self.begin_current(&keys, Form::Long, from.now_us),
            Ok(Answered::Kem(kem)) => self.attempts.go_on(Sent::KemKey(kem, response.receiver), from.now_us),
            Err(Refused::NotOffered) => self.counts.dropped_messages += 1,
            Err(_) => {
                // What was sent is answered, if not well: whoever repeats the answer is to find nothing to be computed.
                self.attempts.forget();
                self.counts.auth_failures += 1;
                self.say_trouble(Trouble::Psk);
            }
        }
    }

    fn kem_key(&mut self, from: From, kem: &Kem, out: &mut Outbox) {
        let Some(waiting) = self.slots.waiting.as_mut().filter(|waiting| waiting.our_index == kem.receiver) else {
            self.counts.dropped_messages += 1;
            return;
        };
        match &waiting.stage {
            Stage::KemKey(responder) => {
                let Ok((answer, keys)) = responder.take(kem) else {
                    self.counts.auth_failures += 1;
                    return;
                };
                let established = Established::new(&keys, false, self.pair.gives_way(), from.now_us);
                waiting.stage = Stage::Datagram(established, Some((kem.tag(), answer)));
            }
            Stage::Datagram(_, Some((tag, _))) if *tag == kem.tag() && self.repeated.allows(from.now_us) => {}
            Stage::Datagram(..) => {
                self.counts.dropped_messages += 1;
                return;
            }
        }
        self.answer(from, Waiting::ciphertext, out);
    }

    fn kem_ciphertext(&mut self, from: From, kem: &Kem) {
        let taken = match self.attempts.stage() {
            Some(Sent::KemKey(initiator, index)) if *index == kem.receiver => initiator.take(kem),
            _ => {
                self.counts.dropped_messages += 1;
                return;
            }
        };
        match taken {
            Ok(keys) => self.begin_current(&keys, Form::Short, from.now_us),
            Err(_) => self.counts.auth_failures += 1,
        }
    }
}

/// By how many milliseconds one moment is before another, or one where it is the same.
fn behind_ms(moment: Timestamp, other: Timestamp) -> u64 {
    let milliseconds =
        |time: Timestamp| time.seconds.saturating_mul(1000).saturating_add(u64::from(time.nanoseconds) / 1_000_000);
    milliseconds(other).saturating_sub(milliseconds(moment)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_far_a_clock_is_behind_is_said_for_any_two_times_that_can_be_named() {
        let late = Timestamp { nanoseconds: 999_999_999, ..Timestamp::MAX };
        assert_eq!(behind_ms(Timestamp::default(), late), u64::MAX);
        assert_eq!([behind_ms(late, late), behind_ms(late, Timestamp::default())], [1, 1]);
        let moment = |seconds, nanoseconds| Timestamp { seconds, nanoseconds };
        assert_eq!(behind_ms(moment(7, 5_000_000), moment(9, 4_999_999)), 1999);
    }
}
