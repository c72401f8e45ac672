//! An end's own attempts at a session, one after the other until there is one.

use super::{MILLISECOND, SECOND};
use crate::wire::secure::handshake::{Initiator, KemInitiator};
use crate::wire::secure::message::Form;

/// When a message that is not answered leaves once more, in microseconds after it left before.
const AGAIN: [u64; 4] = [250 * MILLISECOND, 500 * MILLISECOND, 1000 * MILLISECOND, 2000 * MILLISECOND];

/// What was sent last.
pub enum Stage {
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
    /// Attempts since there was a new session.
    number: u64,
    /// The form of the first of them, from which on both take turns.
    first: Form,
    /// Whether one of them gave way to the other end's.
    gave_way: bool,
}

struct Attempt {
    stage: Stage,
    ends_us: u64,
    /// How often the message has left, and when it does again.
    left: usize,
    next_us: u64,
}

impl Attempts {
    /// None yet.
    pub fn new(first: Form) -> Self {
        Self { now: None, number: 0, first, gave_way: false }
    }

    /// Whether one goes on, or the next one is due because the last one has come to nothing.
    pub fn is_under_way(&self) -> bool {
        self.number > 0
    }

    /// Whether the next one may begin.
    pub fn is_over(&self, now_us: u64) -> bool {
        self.now.as_ref().is_none_or(|attempt| now_us >= attempt.ends_us)
    }

    /// The form of the next one.
    pub fn form(&self) -> Form {
        match self.first {
            first if self.number.is_multiple_of(2) => first,
            Form::Long => Form::Short,
            Form::Short => Form::Long,
        }
    }

    /// Begins the next one, which lasts a little longer by chance, from 0 to 255.
    pub fn begin(&mut self, stage: Stage, chance: u8, now_us: u64) {
        let length = if self.number < 2 { 2 * SECOND } else { 5 * SECOND };
        let ends_us = now_us + length + length / 10 * u64::from(chance) / 255;
        self.number += 1;
        self.now = Some(Attempt { stage, ends_us, left: 0, next_us: now_us });
    }

    /// There is a new session, by a handshake of this form: the next series begins with it.
    pub fn end(&mut self, form: Form) {
        *self = Self::new(form);
    }

    /// Forgets what was sent; the next one begins when it is due.
    pub fn forget(&mut self) {
        if let Some(attempt) = &mut self.now {
            (attempt.stage, attempt.next_us) = (Stage::Forgotten, u64::MAX);
        }
    }

    /// Forgets it because the other end has begun, too: once, or who repeats what that has sent could keep this end from it for good.
    pub fn give_way(&mut self) {
        let has_sent = self.now.as_ref().is_some_and(|attempt| !matches!(attempt.stage, Stage::Forgotten));
        if has_sent && !self.gave_way {
            self.gave_way = true;
            self.forget();
        }
    }

    /// What was sent.
    pub fn stage(&mut self) -> Option<&mut Stage> {
        self.now.as_mut().map(|attempt| &mut attempt.stage)
    }

    /// Goes on with another message, at once.
    pub fn go_on(&mut self, stage: Stage, now_us: u64) {
        if let Some(attempt) = &mut self.now {
            (attempt.stage, attempt.left, attempt.next_us) = (stage, 0, now_us);
        }
    }

    /// This end's index in it.
    pub fn index(&self) -> Option<u32> {
        match &self.now.as_ref()?.stage {
            Stage::Initiation(initiator) => Some(initiator.our_index()),
            Stage::KemKey(_, index) => Some(*index),
            Stage::Forgotten => None,
        }
    }

    /// The message that is to leave now, if one is.
    pub fn message(&mut self, now_us: u64) -> Option<&[u8]> {
        let attempt = self.now.as_mut().filter(|attempt| now_us >= attempt.next_us && now_us < attempt.ends_us)?;
        attempt.next_us = AGAIN.get(attempt.left).map_or(u64::MAX, |pause| now_us + pause);
        attempt.left += 1;
        match &attempt.stage {
            Stage::Initiation(initiator) => Some(initiator.bytes()),
            Stage::KemKey(kem, _) => Some(kem.bytes()),
            Stage::Forgotten => None,
        }
    }

    /// When something is due: a message, or the end of this one.
    pub fn due_us(&self) -> u64 {
        self.now.as_ref().map_or(u64::MAX, |attempt| attempt.next_us.min(attempt.ends_us))
    }
}
