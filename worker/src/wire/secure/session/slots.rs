//! The sessions of an end: by which it sends, which waits, and by which it still receives.

use std::sync::Arc;

use super::SECOND;
use crate::wire::secure::handshake::KemResponder;
use crate::wire::secure::keys::MAC;
use crate::wire::secure::message::Initiation;
use crate::wire::secure::{CipherKind, Keys, Opening, Sending, Timestamp};

/// Age at which a session is replaced by who began it; and by the other end, later where that has the smaller key: after a crossing
/// each end may take the other for who began, and they must not cross again.
const REPLACED: u64 = 120 * SECOND;
const REPLACED_BY_OTHER: [u64; 2] = [130 * SECOND, 135 * SECOND];
/// Age at which it ends.
const OLD: u64 = 180 * SECOND;
/// Time for which a session waits, and ping intervals in seconds after which one that is going and opens nothing ends.
const IDLE: u64 = 10 * SECOND;
/// Sessions that are going, at most.
const GOING: usize = 2;

/// A session that has keys.
pub struct Established {
    pub opening: Opening,
    pub sending: Arc<Sending>,
    pub cipher: CipherKind,
    pub our_index: u32,
    pub began_here: bool,
    pub born_us: u64,
    /// When this end makes an attempt to replace it.
    replaced_us: u64,
    /// When something was opened last, or it began to be what it is.
    pub opened_us: u64,
    /// Whether something has been opened.
    pub has_opened: bool,
}

impl Established {
    pub fn new(keys: &Keys, began_here: bool, gives_way: bool, now_us: u64) -> Self {
        let lasts_us = if began_here { REPLACED } else { REPLACED_BY_OTHER[usize::from(gives_way)] };
        Self {
            opening: Opening::new(keys),
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

    /// Takes note of a datagram that was opened.
    pub fn opened(&mut self, now_us: u64) {
        (self.opened_us, self.has_opened) = (now_us, true);
    }

    /// When it ends, of those that are going, where a ping leaves every `interval` ticks: after a crossing the peer sends by it, and may
    /// have nothing to send but pings.
    fn gone_us(&self, interval: u64) -> u64 {
        (self.born_us + OLD).min(self.opened_us + IDLE * interval)
    }

    /// Whether this end is to replace it.
    pub fn is_worn(&self, now_us: u64) -> bool {
        now_us >= self.replaced_us || self.sending.is_worn()
    }
}

/// A session that was answered, and is not confirmed.
pub struct Waiting {
    pub our_index: u32,
    since_us: u64,
    /// Of its initiation.
    pub timestamp: Timestamp,
    pub mac2: [u8; MAC],
    pub response: Vec<u8>,
    pub stage: WaitingStage,
}

/// What a session waits for.
#[allow(clippy::large_enum_variant)] // There is one.
pub enum WaitingStage {
    /// A KEM key.
    KemKey(Box<KemResponder>),
    /// A datagram; in the short form with the tag of the KEM key, and its answer.
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

    /// The last message of the handshake has been sent: the time for which it waits begins.
    pub fn keys_came(&mut self, stage: WaitingStage, now_us: u64) {
        (self.stage, self.since_us) = (stage, now_us);
    }

    /// The answer to the KEM key.
    pub fn ciphertext(&self) -> Option<&[u8]> {
        match &self.stage {
            WaitingStage::Datagram(_, Some((_, answer))) => Some(answer),
            _ => None,
        }
    }
}

/// Slot of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    Current,
    Waiting,
    Going,
}

/// All of them.
#[derive(Default)]
pub struct Slots {
    pub current: Option<Established>,
    pub waiting: Option<Waiting>,
    /// The newest last. Where messages have crossed, the other end sends by one that is going here, when a new one comes: so there are
    /// two.
    pub going: Vec<Established>,
}

impl Slots {
    /// The one that datagrams with this index are for.
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

    /// Makes a session the current one; whether it replaces another.
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

    /// Ends those whose time is over, where a ping leaves every `interval` ticks.
    pub fn expire(&mut self, now_us: u64, interval: u64) {
        self.current.take_if(|slot| now_us >= slot.born_us + OLD);
        self.waiting.take_if(|waiting| now_us >= waiting.since_us + IDLE);
        self.going.retain(|slot| now_us < slot.gone_us(interval));
    }

    /// When something is due for one of them: its end, or that it is replaced.
    pub fn due_us(&self, interval: u64) -> [u64; 2] {
        let (current, replaced) =
            self.current.as_ref().map_or((u64::MAX, u64::MAX), |slot| (slot.born_us + OLD, slot.replaced_us));
        let waiting = self.waiting.as_ref().map_or(u64::MAX, |waiting| waiting.since_us + IDLE);
        [self.going.iter().map(|slot| slot.gone_us(interval)).fold(current.min(waiting), u64::min), replaced]
    }
}
