//! Attempts of this end to establish a session, one after the other until one succeeds.

use std::collections::VecDeque;

use super::{Arrival, MILLISECOND, SECOND};
use crate::endpoint::Target;
use crate::wire::secure::handshake::{Initiator, KemInitiator};
use crate::wire::secure::message::Form;

/// Duration of an attempt in microseconds, except for the first two of a series. From the thirteenth on it is multiplied by the
/// ping interval in seconds, up to `LONGEST`.
const LENGTH: u64 = 5 * SECOND;
const LONGEST: u64 = 60 * SECOND;
/// Ended attempts whose start is remembered: a response may arrive that late.
const BEFORE: usize = 8;

/// Pauses before an unanswered message is sent again, in microseconds.
const AGAIN: [u64; 4] = [250 * MILLISECOND, 500 * MILLISECOND, 1000 * MILLISECOND, 2000 * MILLISECOND];

/// Last message that was sent.
pub enum AttemptStage {
    /// Initiation.
    Initiation(Box<Initiator>),
    /// KEM key, and this end's index.
    KemKey(Box<KemInitiator>, u32),
    /// None that can still be answered: the next attempt follows when it is due.
    Forgotten,
}

/// Attempts of this end, at most one at a time.
pub struct Attempts {
    now: Option<Attempt>,
    /// Index and start of earlier attempts, the newest last.
    before: VecDeque<(u32, u64)>,
    /// Number of attempts since the last new session.
    number: u64,
    /// Form of the first attempt. Later ones alternate.
    first: Form,
    /// Whether all later attempts use the short form, because a stale initiation in the short form arrived.
    stays_short: bool,
    /// Whether one of them gave way to an attempt of the peer.
    gave_way: bool,
    /// Ping interval in ticks.
    interval: u64,
}

/// Path and target of a message.
pub type Way = (usize, Target);

/// One attempt.
pub struct Attempt {
    pub stage: AttemptStage,
    /// Source of its response. The KEM key goes there, and to the peer's addresses.
    to: Option<Way>,
    began_us: u64,
    ends_us: u64,
    /// Number of times that the message was sent, and time of the next one.
    left: usize,
    next_us: u64,
}

impl Attempt {
    fn new(stage: AttemptStage, now_us: u64, ends_us: u64) -> Self {
        Self { stage, to: None, began_us: now_us, ends_us, left: 0, next_us: now_us }
    }

    /// Continues with the next message, which is due at once.
    pub fn go_on(&mut self, stage: AttemptStage, from: &Arrival) {
        (self.stage, self.left, self.next_us) = (stage, 0, from.now_us);
        self.to = Some((from.path, from.target));
    }

    /// Forgets the message that was sent.
    pub fn forget(&mut self) {
        (self.stage, self.next_us) = (AttemptStage::Forgotten, u64::MAX);
    }

    /// This end's index in the attempt.
    fn index(&self) -> Option<u32> {
        match &self.stage {
            AttemptStage::Initiation(initiator) => Some(initiator.our_index()),
            AttemptStage::KemKey(_, index) => Some(*index),
            AttemptStage::Forgotten => None,
        }
    }

    fn bytes(&self) -> Option<&[u8]> {
        match &self.stage {
            AttemptStage::Initiation(initiator) => Some(initiator.bytes()),
            AttemptStage::KemKey(kem, _) => Some(kem.bytes()),
            AttemptStage::Forgotten => None,
        }
    }
}

impl Attempts {
    /// Makes the state before the first attempt. A ping leaves every `interval` ticks.
    pub fn new(first: Form, interval: u64) -> Self {
        Self { now: None, before: VecDeque::new(), number: 0, first, stays_short: false, gave_way: false, interval }
    }

    /// Whether an attempt is in progress, or has failed and the next one is due.
    pub fn is_under_way(&self) -> bool {
        self.number > 0
    }

    /// Ends an expired attempt.
    pub fn expire(&mut self, now_us: u64) {
        if let Some(ended) = self.now.take_if(|attempt| now_us >= attempt.ends_us) {
            if self.before.len() == BEFORE {
                self.before.pop_front();
            }
            self.before.extend(ended.index().map(|index| (index, ended.began_us)));
        }
    }

    /// Whether the next attempt may begin.
    pub fn is_over(&self) -> bool {
        self.now.is_none()
    }

    /// Form of the next attempt.
    pub fn form(&self) -> Form {
        match self.first {
            _ if self.stays_short => Form::Short,
            first if self.number.is_multiple_of(2) => first,
            Form::Long => Form::Short,
            Form::Short => Form::Long,
        }
    }

    /// Makes all later attempts short: the reply to a stale initiation of the short form must not be longer than that initiation.
    pub fn stay_short(&mut self) {
        self.stays_short = true;
    }

    /// Begins the next attempt. `chance`, from 0 to 255, extends it by up to a tenth.
    pub fn begin(&mut self, stage: AttemptStage, chance: u8, now_us: u64) {
        let length = match self.number {
            ..2 => 2 * SECOND,
            2..12 => LENGTH,
            _ => (LENGTH * self.interval).min(LONGEST),
        };
        let ends_us = now_us + length + length / 10 * u64::from(chance) / 255;
        self.number += 1;
        self.now = Some(Attempt::new(stage, now_us, ends_us));
    }

    /// Ends the series after a new session by a handshake of this form, with which the next series begins.
    pub fn end(&mut self, form: Form) {
        *self = Self::new(form, self.interval);
    }

    /// Forgets the message that was sent, because the peer has begun as well. This happens once a series: otherwise an attacker
    /// could repeat the peer's initiations and keep this end from succeeding for good. The next attempt begins when it is due.
    pub fn give_way(&mut self) {
        let Some(attempt) = self.now.as_mut().filter(|attempt| !matches!(attempt.stage, AttemptStage::Forgotten))
        else {
            return;
        };
        if !std::mem::replace(&mut self.gave_way, true) {
            attempt.forget();
        }
    }

    /// Attempt with this index.
    pub fn find(&mut self, index: u32) -> Option<&mut Attempt> {
        self.now.as_mut().filter(|attempt| attempt.index() == Some(index))
    }

    /// This end's index in the current attempt.
    pub fn index(&self) -> Option<u32> {
        self.now.as_ref().and_then(Attempt::index)
    }

    /// Time in microseconds since an ended attempt with this index began.
    pub fn is_late_by(&self, index: u32, now_us: u64) -> Option<u64> {
        let before = self.before.iter().find(|before| before.0 == index);
        before.map(|(_, began_us)| now_us.saturating_sub(*began_us))
    }

    /// Sends the message again now: the peer has another address.
    pub fn repeat(&mut self, now_us: u64) {
        if let Some(attempt) = self.now.as_mut().filter(|attempt| attempt.bytes().is_some()) {
            (attempt.left, attempt.next_us) = (0, now_us);
        }
    }

    /// Message to send now, if one is due, and its target in addition to the peer's addresses.
    pub fn message(&mut self, now_us: u64) -> Option<(&[u8], Option<Way>)> {
        let attempt = self.now.as_mut().filter(|attempt| now_us >= attempt.next_us)?;
        attempt.next_us = AGAIN.get(attempt.left).map_or(u64::MAX, |pause| now_us + pause);
        attempt.left += 1;
        let to = attempt.to;
        attempt.bytes().map(|bytes| (bytes, to))
    }

    /// Initiation that waits for its response.
    pub fn initiation(&self) -> Option<&[u8]> {
        self.now
            .as_ref()
            .filter(|attempt| matches!(attempt.stage, AttemptStage::Initiation(_)))
            .and_then(Attempt::bytes)
    }

    /// Time of the next message or of the end of the attempt, in microseconds.
    pub fn due_us(&self) -> u64 {
        self.now.as_ref().map_or(u64::MAX, |attempt| attempt.next_us.min(attempt.ends_us))
    }
}
