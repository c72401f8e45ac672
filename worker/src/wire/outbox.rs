//! What a session has to send besides frames.

use super::Target;
use crate::batch::{BATCH, Batch};

/// Bytes that a datagram of a session may have: a probe as long as the longest datagram.
const CAPACITY: usize = privsep::ipc::Secure::LONGEST as usize;
/// Room for as many of those in all; most are much shorter.
const LONGEST: usize = 3 * privsep::ipc::MAX_PATHS;
/// Room for what is due on all paths, which is never added to anything else, and for 64 answers more. A peer asks once a second;
/// who puts more PINGs into one batch gets fewer answers.
const DATAGRAMS: usize = BATCH + 4 * privsep::ipc::MAX_PATHS;

/// Datagrams with their destination. It is emptied after each call of a session; what does not fit is dropped.
pub struct Outbox {
    batch: Batch,
    to: Vec<(usize, Target)>,
}

impl Default for Outbox {
    fn default() -> Self {
        Self { batch: Batch::to_pack(LONGEST, CAPACITY, DATAGRAMS), to: Vec::with_capacity(DATAGRAMS) }
    }
}

impl Outbox {
    /// Adds a datagram of at most 9270 bytes; false when it has no room.
    pub fn push(&mut self, path: usize, target: Target, write: impl FnOnce(&mut [u8]) -> usize) -> bool {
        let Some(slot) = self.batch.next_slot(0) else { return false };
        let length = write(slot);
        self.batch.pack(length);
        self.to.push((path, target));
        true
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.to.is_empty()
    }

    /// Runs of datagrams that go the same way: path, target, and their numbers in the [`Outbox::batch`].
    pub fn runs(&self) -> impl Iterator<Item = (usize, Target, std::ops::Range<usize>)> {
        self.to.chunk_by(|one, next| one == next).scan(0, |start, run| {
            let range = *start..*start + run.len();
            *start = range.end;
            Some((run[0].0, run[0].1, range))
        })
    }

    /// The datagrams.
    pub fn batch(&self) -> &Batch {
        &self.batch
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.batch.clear();
        self.to.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_the_same_way_goes_together_and_what_does_not_fit_is_dropped() {
        let mut outbox = Outbox::default();
        let address = Target::Fixed(std::net::SocketAddr::from(([192, 0, 2, 1], 1)).into());
        for (path, target) in [(0, Target::Unknown), (0, address), (0, address), (1, address)] {
            assert!(outbox.push(path, target, |_| 3));
        }
        let runs: Vec<_> = outbox.runs().collect();
        assert_eq!(runs, [(0, Target::Unknown, 0..1), (0, address, 1..3), (1, address, 3..4)]);
        while outbox.push(0, address, |_| 1360) {}
        assert_eq!(outbox.batch().len(), DATAGRAMS);
        outbox.clear();
        while outbox.push(0, address, |_| CAPACITY) {}
        assert!(outbox.batch().len() >= 2 * privsep::ipc::MAX_PATHS);
        outbox.clear();
        assert!(outbox.is_empty() && outbox.runs().next().is_none());
    }
}
