//! Fragments of the classic wire (`-mtu`): a datagram that is too long leaves as exactly two fragments.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};

/// First bytes of a fragment; a big-endian sequence number follows.
const MARK: &[u8; 6] = b"UDPFRG";
/// Length in bytes of mark and sequence number.
pub const HEADER: usize = 8;
/// Payload bytes of a first fragment, and most payload bytes of a second.
pub const PIECE: usize = 1000;
/// Datagrams of this length or more do not fit into two fragments.
pub const TOO_LONG: usize = 2 * PIECE;
/// Number of fragments that can wait for their other half.
const WAITING: usize = 512;
/// Age in milliseconds at which a waiting fragment expires. The original counts whole seconds of wall clock: it always joins
/// fragments less than one second apart, and never those two seconds apart.
const AGE_MS: u64 = 1500;

/// A datagram, or one of its two fragments.
pub struct Piece<'a> {
    /// Sequence number, even for the first fragment; `None` for a whole datagram.
    sequence: Option<u16>,
    bytes: &'a [u8],
}

/// Writes a piece to `to` and returns its length.
pub fn write(piece: &Piece<'_>, to: &mut [u8]) -> usize {
    let header = match piece.sequence {
        None => 0,
        Some(sequence) => {
            to[..MARK.len()].copy_from_slice(MARK);
            to[MARK.len()..HEADER].copy_from_slice(&sequence.to_be_bytes());
            HEADER
        }
    };
    let length = header + piece.bytes.len();
    to[header..length].copy_from_slice(piece.bytes);
    length
}

/// Splits datagrams. Clones share one sequence of numbers, as all paths and threads of the original do.
#[derive(Clone)]
pub struct Splitter {
    /// Number of the next first fragment, always even.
    sequence: Arc<AtomicU16>,
}

impl Splitter {
    /// Continues from this sequence number.
    pub fn new(sequence: u16) -> Self {
        Self { sequence: Arc::new(AtomicU16::new(sequence & !1)) }
    }

    /// Number of the next first fragment.
    pub fn sequence(&self) -> u16 {
        self.sequence.load(Relaxed)
    }

    /// Passes the datagram to `push`, or both fragments if it is longer than `whole` bytes. False if it is too long for two
    /// fragments, or if `push` had no room.
    pub fn split(&self, datagram: &[u8], whole: usize, mut push: impl FnMut(Piece<'_>) -> bool) -> bool {
        if datagram.len() <= whole {
            return push(Piece { sequence: None, bytes: datagram });
        }
        if datagram.len() >= TOO_LONG {
            return false;
        }
        let first = self.sequence.fetch_add(2, Relaxed);
        let (head, tail) = datagram.split_at(PIECE);
        push(Piece { sequence: Some(first), bytes: head }) && push(Piece { sequence: Some(first | 1), bytes: tail })
    }
}

/// Fragments that wait for their other half, in a fixed number of slots.
pub struct Reassembly {
    waiting: Box<[Waiting]>,
}

#[derive(Clone)]
struct Waiting {
    /// Sequence number; `None` if the slot is free.
    sequence: Option<u16>,
    since_ms: u64,
    length: usize,
    bytes: [u8; PIECE],
}

/// Result of a datagram's reassembly.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Not a fragment; the datagram is used unchanged.
    Whole,
    /// The fragment and its waiting half form a datagram of this length, now in the buffer.
    Joined(usize),
    /// The fragment is stored until its other half arrives.
    Waits,
    /// The fragment is invalid.
    Invalid,
}

impl Default for Reassembly {
    fn default() -> Self {
        let free = Waiting { sequence: None, since_ms: 0, length: 0, bytes: [0; PIECE] };
        Self { waiting: vec![free; WAITING].into() }
    }
}

impl Reassembly {
    /// Takes the datagram in `buffer[..length]`, received at `now_ms`. `buffer` has room for [`TOO_LONG`] bytes.
    pub fn take(&mut self, buffer: &mut [u8], length: usize, now_ms: u64) -> Outcome {
        if !buffer[..length].starts_with(MARK) {
            return Outcome::Whole;
        }
        if !(HEADER..=HEADER + PIECE).contains(&length) {
            return Outcome::Invalid;
        }
        let sequence = u16::from_be_bytes([buffer[6], buffer[7]]);
        let slot = &mut self.waiting[usize::from(sequence / 2) % WAITING];
        let (own, other) = (length - HEADER, slot.length);
        if slot.sequence == Some(sequence ^ 1) && now_ms.saturating_sub(slot.since_ms) <= AGE_MS {
            if sequence.is_multiple_of(2) {
                buffer.copy_within(HEADER..length, 0);
                buffer[own..own + other].copy_from_slice(&slot.bytes[..other]);
            } else {
                buffer.copy_within(HEADER..length, other);
                buffer[..other].copy_from_slice(&slot.bytes[..other]);
            }
            slot.sequence = None;
            return Outcome::Joined(own + other);
        }
        slot.sequence = Some(sequence);
        slot.since_ms = now_ms;
        slot.length = own;
        slot.bytes[..own].copy_from_slice(&buffer[HEADER..length]);
        Outcome::Waits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both fragments of a datagram; the first one has this sequence number.
    fn halves(datagram: &[u8], sequence: u16) -> [Vec<u8>; 2] {
        let mut pieces = Vec::new();
        assert!(Splitter::new(sequence).split(datagram, 1472, |piece| {
            let mut buffer = vec![0; HEADER + PIECE];
            let length = write(&piece, &mut buffer);
            buffer.truncate(length);
            pieces.push(buffer);
            true
        }));
        pieces.try_into().unwrap()
    }

    #[test]
    fn frames_split_into_two_at_most() {
        let splitter = Splitter::new(3);
        for (length, pieces) in [(0, 1), (1472, 1), (1473, 2), (1999, 2), (2000, 0)] {
            let mut count = 0;
            let sent = splitter.split(&vec![7; length], 1472, |_| {
                count += 1;
                true
            });
            assert_eq!((sent, count), (pieces > 0, pieces), "{length}");
        }
        assert_eq!(splitter.clone().sequence(), 2 + 2 * 2);
    }

    fn take(table: &mut Reassembly, piece: &[u8], now_ms: u64) -> (Outcome, Vec<u8>) {
        let mut buffer = [piece, &[0; TOO_LONG]].concat();
        let outcome = table.take(&mut buffer, piece.len(), now_ms);
        (outcome, buffer)
    }

    #[test]
    fn fragments_join_in_any_order() {
        let datagram: Vec<u8> = (0..1700_u16).map(|at| (at % 251) as u8).collect();
        let [first, second] = halves(&datagram, 65534);
        for (one, other) in [(&first, &second), (&second, &first)] {
            for (later, joined) in [(0, true), (AGE_MS, true), (AGE_MS + 1, false)] {
                let mut table = Reassembly::default();
                assert_eq!(take(&mut table, one, 5).0, Outcome::Waits);
                let (outcome, buffer) = take(&mut table, other, 5 + later);
                assert_eq!(outcome, if joined { Outcome::Joined(1700) } else { Outcome::Waits });
                assert!(!joined || buffer[..1700] == datagram);
            }
        }
    }

    #[test]
    fn classic_reassembly_memory_is_bounded() {
        let mut table = Reassembly::default();
        let [first, _] = halves(&[7; 1500], 0);
        for sequence in (0..=65534_u16).step_by(2) {
            let piece = [&first[..6], &sequence.to_be_bytes(), &first[8..]].concat();
            assert_eq!(take(&mut table, &piece, 0).0, Outcome::Waits);
        }
        assert_eq!(table.waiting.len(), WAITING);
        assert_eq!(take(&mut table, b"UDPFRG\0", 0).0, Outcome::Invalid);
        assert_eq!(take(&mut table, &[&first[..], &[0]].concat(), 0).0, Outcome::Invalid);
        assert_eq!(take(&mut table, b"UDPFRX\0\0data", 0).0, Outcome::Whole);
    }
}
