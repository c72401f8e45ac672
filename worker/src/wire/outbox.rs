//! Outbox: datagrams of a session other than frames.

use super::route::Departure;
use crate::batch::{BATCH, Batch};
use crate::endpoint::Target;

/// Most bytes of a session's datagram: a probe as long as the longest datagram.
const CAPACITY: usize = privsep::ipc::Secure::LONGEST as usize;
/// Number of datagrams of that length for which there is memory; most datagrams are much shorter. A probe without room is sent later.
const LONGEST: usize = 3 * privsep::ipc::MAX_PATHS;
/// Most datagrams: those due on all paths, which start with an empty outbox, and 64 answers. A peer pings once a second; a sender
/// of more PINGs in one batch gets fewer answers.
const DATAGRAMS: usize = BATCH + 4 * privsep::ipc::MAX_PATHS;

/// Datagrams with their destinations. Emptied after each call of a session; datagrams without room are dropped.
pub struct Outbox {
    batch: Batch,
    /// Path, target, and whether equal datagrams leave as one run.
    to: Vec<(usize, Target, bool)>,
}

impl Default for Outbox {
    fn default() -> Self {
        Self { batch: Batch::to_pack(LONGEST, CAPACITY, DATAGRAMS), to: Vec::with_capacity(DATAGRAMS) }
    }
}

impl Outbox {
    /// Adds a datagram of at most 9270 bytes. False if there is no room.
    pub fn push(&mut self, path: usize, target: Target, write: impl FnOnce(&mut [u8]) -> usize) -> bool {
        let Some(slot) = self.batch.next_slot(0) else { return false };
        let length = write(slot);
        self.batch.pack(length);
        self.to.push((path, target, false));
        true
    }

    /// Adds a copy of a datagram. False if there is no room, or if the target is unknown.
    pub fn post(&mut self, path: usize, target: Target, datagram: &[u8]) -> bool {
        target != Target::Unknown
            && self.push(path, target, |to| {
                to[..datagram.len()].copy_from_slice(datagram);
                datagram.len()
            })
    }

    /// As [`post`](Self::post). Equal datagrams that follow one another leave as one run.
    pub fn post_in_run(&mut self, path: usize, target: Target, datagram: &[u8]) -> bool {
        let posted = self.post(path, target, datagram);
        if let Some((.., runs)) = self.to.last_mut().filter(|_| posted) {
            *runs = true;
        }
        posted
    }

    /// Whether the outbox is empty.
    pub fn is_empty(&self) -> bool {
        self.to.is_empty()
    }

    /// Departures of the datagrams in the [`Outbox::batch`].
    pub fn departures(&self) -> impl Iterator<Item = Departure> {
        self.to.chunk_by(|one, next| one == next).scan(0, |start, run| {
            let datagrams = *start..*start + run.len();
            *start = datagrams.end;
            let (path, target, runs) = run[0];
            Some(Departure { path, target, runs, datagrams })
        })
    }

    /// Datagrams in the outbox.
    pub fn batch(&self) -> &Batch {
        &self.batch
    }

    /// Empties the outbox.
    pub fn clear(&mut self) {
        self.batch.clear();
        self.to.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_destinations_share_a_departure() {
        let mut outbox = Outbox::default();
        let address = Target::Fixed(std::net::SocketAddr::from(([192, 0, 2, 1], 1)).into());
        for (path, target) in [(0, Target::Unknown), (0, address), (0, address), (1, address)] {
            assert!(outbox.push(path, target, |_| 3));
        }
        let departures: Vec<_> = outbox.departures().collect();
        let departure = |path, target, datagrams| Departure { path, target, runs: false, datagrams };
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
