//! What a session has to send besides frames.

use super::route::Departure;
use crate::batch::{BATCH, Batch};
use crate::endpoint::Target;

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

    /// Adds a copy of a datagram; false when it has no room, or its target is unknown.
    pub fn post(&mut self, path: usize, target: Target, datagram: &[u8]) -> bool {
        target != Target::Unknown
            && self.push(path, target, |to| {
                to[..datagram.len()].copy_from_slice(datagram);
                datagram.len()
            })
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.to.is_empty()
    }

    /// Departures of the datagrams in the [`Outbox::batch`].
    pub fn departures(&self) -> impl Iterator<Item = Departure> {
        self.to.chunk_by(|one, next| one == next).scan(0, |start, run| {
            let datagrams = *start..*start + run.len();
            *start = datagrams.end;
            Some(Departure { path: run[0].0, target: run[0].1, datagrams })
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
    fn datagrams_of_one_way_are_one_departure() {
        let mut outbox = Outbox::default();
        let address = Target::Fixed(std::net::SocketAddr::from(([192, 0, 2, 1], 1)).into());
        for (path, target) in [(0, Target::Unknown), (0, address), (0, address), (1, address)] {
            assert!(outbox.push(path, target, |_| 3));
        }
        let departures: Vec<_> = outbox.departures().collect();
        let departure = |path, target, datagrams| Departure { path, target, datagrams };
        let expected = [(0, Target::Unknown, 0..1), (0, address, 1..3), (1, address, 3..4)];
        assert_eq!(departures, expected.map(|(path, target, datagrams)| departure(path, target, datagrams)));
        while outbox.push(0, address, |_| 1360) {}
        assert_eq!(outbox.batch().len(), DATAGRAMS);
        outbox.clear();
        while outbox.push(0, address, |_| CAPACITY) {}
        assert!(outbox.batch().len() >= 2 * privsep::ipc::MAX_PATHS);
        outbox.clear();
        assert!(outbox.is_empty() && outbox.departures().next().is_none());
    }
}
