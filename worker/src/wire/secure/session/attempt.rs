//! An end's own attempts at a session, one after the other until there is one.

use std::collections::VecDeque;

use super::{Arrival, MILLISECOND, SECOND};
use crate::endpoint::Target;
use crate::wire::secure::handshake::{Initiator, KemInitiator};
use crate::wire::secure::message::Form;

/// How long one lasts, but the first two of a series; from the thirteenth on it is as many ping intervals, up to the longest.
const LENGTH: u64 = 5 * SECOND;
const LONGEST: u64 = 60 * SECOND;
/// Attempts that are over of which it is known when they began: an answer may take as long.
const BEFORE: usize = 8;

/// When a message that is not answered leaves once more, in microseconds after it left before.
const AGAIN: [u64; 4] = [250 * MILLISECOND, 500 * MILLISECOND, 1000 * MILLISECOND, 2000 * MILLISECOND];

/// What was sent last.
pub enum AttemptStage {
    /// The initiation.
    Initiation(Box<Initiator>),
    /// The KEM key, and this end's index.
    KemKey(Box<KemInitiator>, u32),
    /// Nothing that could be answered any more: the next attempt is waited for.
    Forgotten,
}

/// The attempts, of which there is one at a time.
pub struct Attempts {
    now: Option<Attempt>,
    /// Index of the attempts before, and when each began, the newest last.
    before: VecDeque<(u32, u64)>,
    /// Attempts since there was a new session.
    number: u64,
    /// The form of the first of them, from which on both take turns.
    first: Form,
    /// Whether all others are of the short form, because a stale initiation of it has come.
    stays_short: bool,
    /// Whether one of them gave way to the other end's.
    gave_way: bool,
    /// Ticks of a ping interval.
    interval: u64,
}

/// By which path, and where to.
pub type Way = (usize, Target);

/// One of them.
pub struct Attempt {
    pub stage: AttemptStage,
    /// Where its response came from: its KEM key goes there, and to where the peer is.
    to: Option<Way>,
    began_us: u64,
    ends_us: u64,
    /// How often the message has left, and when it does again.
    left: usize,
    next_us: u64,
}

impl Attempt {
    fn new(stage: AttemptStage, now_us: u64, ends_us: u64) -> Self {
        Self { stage, to: None, began_us: now_us, ends_us, left: 0, next_us: now_us }
    }

    /// Goes on with another message, at once.
    pub fn go_on(&mut self, stage: AttemptStage, from: &Arrival) {
        (self.stage, self.left, self.next_us) = (stage, 0, from.now_us);
        self.to = Some((from.path, from.target));
    }

    /// Forgets what was sent.
    pub fn forget(&mut self) {
        (self.stage, self.next_us) = (AttemptStage::Forgotten, u64::MAX);
    }

    /// This end's index in it.
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
    /// None yet; a ping leaves every `interval` ticks.
    pub fn new(first: Form, interval: u64) -> Self {
        Self { now: None, before: VecDeque::new(), number: 0, first, stays_short: false, gave_way: false, interval }
    }

    /// Whether one goes on, or the next one is due because the last one has come to nothing.
    pub fn is_under_way(&self) -> bool {
        self.number > 0
    }

    /// Ends the one whose time is over.
    pub fn expire(&mut self, now_us: u64) {
        if let Some(ended) = self.now.take_if(|attempt| now_us >= attempt.ends_us) {
            if self.before.len() == BEFORE {
                self.before.pop_front();
            }
            self.before.extend(ended.index().map(|index| (index, ended.began_us)));
        }
    }

    /// Whether the next one may begin.
    pub fn is_over(&self) -> bool {
        self.now.is_none()
    }

    /// The form of the next one.
    pub fn form(&self) -> Form {
        match self.first {
            _ if self.stays_short => Form::Short,
            first if self.number.is_multiple_of(2) => first,
            Form::Long => Form::Short,
            Form::Short => Form::Long,
        }
    }

    /// A stale initiation of the short form has come, which is answered by no longer one: the others are of it.
    pub fn stay_short(&mut self) {
        self.stays_short = true;
    }

    /// Begins the next one, which lasts a little longer by chance, from 0 to 255.
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

    /// There is a new session, by a handshake of this form: the next series begins with it.
    pub fn end(&mut self, form: Form) {
        *self = Self::new(form, self.interval);
    }

    /// Forgets what was sent because the other end has begun, too: once, or who repeats what that has sent could keep this end from
    /// it for good. The next one begins when it is due.
    pub fn give_way(&mut self) {
        let Some(attempt) = self.now.as_mut().filter(|attempt| !matches!(attempt.stage, AttemptStage::Forgotten))
        else {
            return;
        };
        if !std::mem::replace(&mut self.gave_way, true) {
            attempt.forget();
        }
    }

    /// The one with this index.
    pub fn find(&mut self, index: u32) -> Option<&mut Attempt> {
        self.now.as_mut().filter(|attempt| attempt.index() == Some(index))
    }

    /// This end's index in it.
    pub fn index(&self) -> Option<u32> {
        self.now.as_ref().and_then(Attempt::index)
    }

    /// How long ago an attempt that is over, with this index, began.
    pub fn is_late_by(&self, index: u32, now_us: u64) -> Option<u64> {
        let before = self.before.iter().find(|before| before.0 == index);
        before.map(|(_, began_us)| now_us.saturating_sub(*began_us))
    }

    /// The message that is to leave now, if one is, and where to besides the peer's addresses.
    pub fn message(&mut self, now_us: u64) -> Option<(&[u8], Option<Way>)> {
        let attempt = self.now.as_mut().filter(|attempt| now_us >= attempt.next_us)?;
        attempt.next_us = AGAIN.get(attempt.left).map_or(u64::MAX, |pause| now_us + pause);
        attempt.left += 1;
        let to = attempt.to;
        attempt.bytes().map(|bytes| (bytes, to))
    }

    /// The initiation that waits for its response.
    pub fn initiation(&self) -> Option<&[u8]> {
        self.now
            .as_ref()
            .filter(|attempt| matches!(attempt.stage, AttemptStage::Initiation(_)))
            .and_then(Attempt::bytes)
    }

    /// When something is due: a message, or the end of this one.
    pub fn due_us(&self) -> u64 {
        self.now.as_ref().map_or(u64::MAX, |attempt| attempt.next_us.min(attempt.ends_us))
    }
}
