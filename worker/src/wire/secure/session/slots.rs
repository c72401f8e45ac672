//! Sessions of an end: the current one for sending, the waiting one, and those kept for receiving.

use std::sync::Arc;

use super::SECOND;
use crate::wire::secure::handshake::KemResponder;
use crate::wire::secure::keys::MAC;
use crate::wire::secure::message::Initiation;
use crate::wire::secure::{CipherKind, Keys, Opening, Sending, Timestamp};

/// Age in microseconds at which the initiator replaces a session, and at which the responder does, later with the smaller key.
/// After crossing initiations each end may take the other for the initiator. The different ages keep them from crossing again.
const REPLACED: u64 = 120 * SECOND;
const REPLACED_BY_OTHER: [u64; 2] = [130 * SECOND, 135 * SECOND];
/// Age in microseconds at which a session ends.
const OLD: u64 = 180 * SECOND;
/// Time in microseconds for which a session waits. Multiplied by the ping interval in seconds, the time after which a replaced
/// session ends if it opens nothing.
const IDLE: u64 = 10 * SECOND;
/// Most replaced sessions.
const GOING: usize = 2;

/// Session with keys.
pub struct Established {
    pub opening: Opening,
    pub sending: Arc<Sending>,
    pub cipher: CipherKind,
    pub our_index: u32,
    pub began_here: bool,
    pub born_us: u64,
    /// Time at which this end attempts to replace the session.
    replaced_us: u64,
    /// Time of the last opened datagram, or of the last change of slot.
    pub opened_us: u64,
    /// Whether a datagram was opened.
    pub has_opened: bool,
}

impl Established {
    /// `paths` is their number.
    pub fn new(keys: &Keys, paths: usize, began_here: bool, gives_way: bool, now_us: u64) -> Self {
        let lasts_us = if began_here { REPLACED } else { REPLACED_BY_OTHER[usize::from(gives_way)] };
        Self {
            opening: Opening::new(keys, paths),
            sending: Arc::new(Sending::new(keys)),
            cipher: keys.cipher,
            our_index: keys.our_index,
            began_here,
            born_us: now_us,
            replaced_us: now_us + lasts_us,
            opened_us: now_us,
            has_opened: false,
        }
    }

    /// Records an opened datagram.
    pub fn opened(&mut self, now_us: u64) {
        (self.opened_us, self.has_opened) = (now_us, true);
    }

    /// End of a replaced session, if a ping leaves every `interval` ticks. After a crossing the peer sends in this session, and may
    /// have only pings to send.
    fn gone_us(&self, interval: u64) -> u64 {
        (self.born_us + OLD).min(self.opened_us + IDLE * interval)
    }

    /// Whether this end must replace the session.
    pub fn is_worn(&self, now_us: u64) -> bool {
        now_us >= self.replaced_us || self.sending.is_worn()
    }
}

/// Session that was answered and is not confirmed.
pub struct Waiting {
    pub our_index: u32,
    since_us: u64,
    /// Timestamp of its initiation.
    pub timestamp: Timestamp,
    pub mac2: [u8; MAC],
    pub response: Vec<u8>,
    pub stage: WaitingStage,
}

/// Next message that a waiting session expects.
#[allow(clippy::large_enum_variant)] // One exists at a time.
pub enum WaitingStage {
    /// KEM key.
    KemKey(Box<KemResponder>),
    /// First datagram; in the short form with the tag of the KEM key, and the answer to it.
    Datagram(Established, Option<([u8; MAC], Vec<u8>)>),
}

impl Waiting {
    pub fn new(
        our_index: u32,
        timestamp: Timestamp,
        mac2: [u8; MAC],
        response: Vec<u8>,
        stage: WaitingStage,
        now_us: u64,
    ) -> Self {
        Self { our_index, since_us: now_us, timestamp, mac2, response, stage }
    }
}

impl Waiting {
    /// Whether this initiation is the one that was answered.
    pub fn is_answer_to(&self, initiation: &Initiation) -> bool {
        self.timestamp == initiation.timestamp && self.mac2 == initiation.mac2()
    }

    /// Records that the last message of the handshake was sent. The waiting time starts again.
    pub fn keys_came(&mut self, stage: WaitingStage, now_us: u64) {
        (self.stage, self.since_us) = (stage, now_us);
    }

    /// Answer to the KEM key.
    pub fn ciphertext(&self) -> Option<&[u8]> {
        match &self.stage {
            WaitingStage::Datagram(_, Some((_, answer))) => Some(answer),
            _ => None,
        }
    }
}

/// Slot of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    Current,
    Waiting,
    Going,
}

/// All sessions of an end.
#[derive(Default)]
pub struct Slots {
    pub current: Option<Established>,
    pub waiting: Option<Waiting>,
    /// Replaced sessions, the newest last. Two are kept: after crossing initiations the peer may send in a session that is replaced
    /// here when a new one begins.
    pub going: Vec<Established>,
}

impl Slots {
    /// Session with this index.
    pub fn find(&mut self, index: u32) -> Option<(Slot, &mut Established)> {
        let waiting = self.waiting.as_mut().and_then(|waiting| match &mut waiting.stage {
            WaitingStage::Datagram(established, _) => Some(established),
            WaitingStage::KemKey(_) => None,
        });
        let current = self.current.as_mut().map(|slot| (Slot::Current, slot));
        let waiting = waiting.map(|slot| (Slot::Waiting, slot));
        let going = self.going.iter_mut().map(|slot| (Slot::Going, slot));
        current.into_iter().chain(waiting).chain(going).find(|(_, slot)| slot.our_index == index)
    }

    /// Whether an index is in use.
    pub fn has(&self, index: u32) -> bool {
        let both = self.current.iter().chain(&self.going).map(|slot| slot.our_index);
        both.chain(self.waiting.iter().map(|waiting| waiting.our_index)).any(|used| used == index)
    }

    /// Makes a session the current one. Returns whether it replaces another.
    pub fn make_current(&mut self, mut established: Established, now_us: u64) -> bool {
        established.opened_us = now_us;
        let Some(mut before) = self.current.replace(established) else { return false };
        before.opened_us = now_us;
        if self.going.len() == GOING {
            self.going.remove(0);
        }
        self.going.push(before);
        true
    }

    /// Removes expired sessions, if a ping leaves every `interval` ticks.
    pub fn expire(&mut self, now_us: u64, interval: u64) {
        self.current.take_if(|slot| now_us >= slot.born_us + OLD);
        self.waiting.take_if(|waiting| now_us >= waiting.since_us + IDLE);
        self.going.retain(|slot| now_us < slot.gone_us(interval));
    }

    /// Next end of a session, and the time to replace the current one.
    pub fn due_us(&self, interval: u64) -> [u64; 2] {
        let (current, replaced) =
            self.current.as_ref().map_or((u64::MAX, u64::MAX), |slot| (slot.born_us + OLD, slot.replaced_us));
        let waiting = self.waiting.as_ref().map_or(u64::MAX, |waiting| waiting.since_us + IDLE);
        [self.going.iter().map(|slot| slot.gone_us(interval)).fold(current.min(waiting), u64::min), replaced]
    }
}
