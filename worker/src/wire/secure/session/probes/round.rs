//! Round of probes: datagrams of given sizes that are sent by one path, and the answers to them.

use super::Probe;

/// A round. Each probe has a token of its own: a random part of the round, and the number of the probe.
#[derive(Debug)]
pub struct Round {
    id: [u8; 7],
    /// Sizes of the datagrams in the order in which they are sent.
    sizes: Vec<u16>,
    /// Number of probes that leave at a time, and microseconds from one group to the next.
    group: usize,
    spacing_us: u64,
    sent: usize,
    /// Time at which the last group left.
    sent_us: u64,
    /// One bit for each answered probe.
    answered: u32,
}

impl Round {
    /// Makes a round with a random identifier. All probes leave at once.
    pub fn new(id: [u8; 7], sizes: Vec<u16>) -> Self {
        let group = sizes.len();
        Self { id, sizes, group, spacing_us: 0, sent: 0, sent_us: 0, answered: 0 }
    }

    /// Sends the probes in groups of this many.
    #[must_use]
    pub fn in_groups(self, group: usize, spacing_us: u64) -> Self {
        Self { group, spacing_us, ..self }
    }

    /// Next probe, if one is due.
    pub fn next(&mut self, now_us: u64) -> Option<Probe> {
        let &size = self.sizes.get(self.sent)?;
        if self.sent.is_multiple_of(self.group) {
            if now_us < self.next_group_us() {
                return None;
            }
            self.sent_us = now_us;
        }
        let mut token = [self.sent.to_le_bytes()[0]; 8];
        token[..7].copy_from_slice(&self.id);
        self.sent += 1;
        Some(Probe { token, size })
    }

    fn next_group_us(&self) -> u64 {
        if self.sent == 0 { 0 } else { self.sent_us + self.spacing_us }
    }

    /// Takes an answer. Returns whether it answers a probe of this round.
    pub fn answer(&mut self, token: [u8; 8], size: u16) -> bool {
        let number = usize::from(token[7]);
        let is_ours = token[..7] == self.id && number < self.sent && self.sizes.get(number) == Some(&size);
        if is_ours {
            self.answered |= 1 << number;
        }
        is_ours
    }

    /// Size of each probe, and whether it was answered.
    pub fn results(&self) -> impl Iterator<Item = (u16, bool)> + Clone {
        self.sizes.iter().enumerate().map(|(number, &size)| (size, self.answered >> number & 1 == 1))
    }

    /// Whether every probe is answered or overdue. `timeout_us` is the longest time to wait for an answer.
    pub fn is_over(&self, now_us: u64, timeout_us: u64) -> bool {
        self.sent == self.sizes.len() && (self.is_answered() || now_us >= self.sent_us + timeout_us)
    }

    fn is_answered(&self) -> bool {
        self.answered.count_ones() as usize == self.sizes.len()
    }

    /// Time of the next group, or of the end of the round.
    pub fn due_us(&self, timeout_us: u64) -> u64 {
        if self.sent < self.sizes.len() {
            self.next_group_us()
        } else if self.is_answered() {
            self.sent_us
        } else {
            self.sent_us + timeout_us
        }
    }
}
