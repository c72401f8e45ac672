//! Splits frames that are too long for a path into fragments, and reassembles them.

use super::content::{FRAGMENT_HEADER, Fragment, PIECES, WHOLE, fragment_header};

/// Most frames under reassembly.
const WAITING: usize = 16;
/// Age in microseconds at which an incomplete frame is dropped.
const AGE_US: u64 = 1_000_000;

/// Length of all fragments but the last, for a content of `whole` bytes and at most `most` bytes a fragment. Fragments are as even
/// as possible, so that most datagrams have the same size. `None` if there would be too many or only one.
pub fn piece(whole: usize, most: usize) -> Option<usize> {
    let count = whole.div_ceil(most.max(1));
    PIECES.contains(&count).then(|| whole.div_ceil(count))
}

/// Fragments of a content, each as a header and a part of the content.
pub fn split(content: &[u8], each: usize, identification: u32) -> impl Iterator<Item = ([u8; FRAGMENT_HEADER], &[u8])> {
    let pieces = content.chunks(each).enumerate();
    pieces.map(move |(number, part)| (fragment_header(number, each, content.len(), identification), part))
}

/// Key of a frame under reassembly: index of the session, queue, identification.
type Key = (u32, u8, u32);

/// Fragments that wait for others, in memory that is allocated at once and never grows.
pub struct Reassembly {
    waiting: Box<[Waiting]>,
    /// Incomplete frames dropped since the last [`Reassembly::expire`].
    lost: u64,
}

struct Waiting {
    /// `None` if the slot is free.
    key: Option<Key>,
    since_us: u64,
    each: usize,
    whole: usize,
    /// One bit for each received fragment.
    came: u16,
    /// Greatest ECN of their datagrams: a congestion mark on any of them counts for the frame (RFC 3168, section 5.3).
    class: u8,
    bytes: Box<[u8]>,
}

/// Result of taking a fragment.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome<'a> {
    /// It was the last one; this is the whole content and its ECN.
    Whole(&'a [u8], u8),
    /// Other fragments are missing.
    Waits,
    /// It is a duplicate, or contradicts earlier fragments, which are then dropped.
    Wrong,
}

impl Default for Reassembly {
    fn default() -> Self {
        let bytes = || vec![0; WHOLE].into_boxed_slice();
        let free = |_| Waiting { key: None, since_us: 0, each: 0, whole: 0, came: 0, class: 0, bytes: bytes() };
        Self { waiting: (0..WAITING).map(free).collect(), lost: 0 }
    }
}

impl Reassembly {
    /// Takes a fragment received at `now_us` in a queue of a session, in a datagram with this ECN.
    pub fn take(
        &mut self,
        (session, queue): (u32, u8),
        fragment: &Fragment,
        piece: &[u8],
        class: u8,
        now_us: u64,
    ) -> Outcome<'_> {
        let key = (session, queue, fragment.identification);
        self.drop_old(now_us);
        let known = self.waiting.iter().position(|waiting| waiting.key == Some(key));
        // Free slots sort before used ones.
        let oldest =
            || self.waiting.iter().enumerate().min_by_key(|(_, waiting)| waiting.key.map(|_| waiting.since_us));
        let Some(at) = known.or_else(|| oldest().map(|(at, _)| at)) else { return Outcome::Wrong };
        let waiting = &mut self.waiting[at];
        if known.is_none() {
            self.lost += u64::from(waiting.key.is_some());
            let (each, whole) = (fragment.each, fragment.whole);
            (waiting.key, waiting.since_us, waiting.came, waiting.class) = (Some(key), now_us, 0, 0);
            (waiting.each, waiting.whole) = (each, whole);
        } else if (waiting.each, waiting.whole) != (fragment.each, fragment.whole) {
            waiting.key = None;
            return Outcome::Wrong;
        }
        let bit = 1_u16 << fragment.number;
        if waiting.came & bit != 0 {
            return Outcome::Wrong;
        }
        waiting.came |= bit;
        waiting.class = waiting.class.max(class);
        waiting.bytes[fragment.number * fragment.each..][..piece.len()].copy_from_slice(piece);
        if waiting.came.count_ones() as usize == fragment.count() {
            waiting.key = None;
            return Outcome::Whole(&waiting.bytes[..waiting.whole], waiting.class);
        }
        Outcome::Waits
    }

    /// Drops expired frames. Returns the number of frames lost since the last call, including those that made room for others.
    pub fn expire(&mut self, now_us: u64) -> u64 {
        self.drop_old(now_us);
        std::mem::take(&mut self.lost)
    }

    fn drop_old(&mut self, now_us: u64) {
        for waiting in &mut self.waiting {
            if waiting.key.is_some() && now_us.saturating_sub(waiting.since_us) > AGE_US {
                waiting.key = None;
                self.lost += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::content::{Content, parse};
    use super::*;

    fn pieces(content: &[u8], most: usize, identification: u32) -> Vec<Vec<u8>> {
        let each = piece(content.len(), most).unwrap();
        split(content, each, identification).map(|(header, part)| [&header[..], part].concat()).collect()
    }

    fn take<'a>(table: &'a mut Reassembly, from: (u32, u8), piece: &[u8], now_us: u64) -> Outcome<'a> {
        let Some(Content::Fragment(fragment)) = parse(piece) else { panic!("{piece:02x?}") };
        table.take(from, &fragment, &piece[fragment.range.clone()], 0, now_us)
    }

    proptest! {
        #[test]
        fn fragments_reassemble_in_any_order(
            length in 200..=WHOLE, most in 64..1500_usize, order in Just((0..16_usize).collect::<Vec<_>>()).prop_shuffle(),
        ) {
            let content: Vec<u8> = (0..length).map(|at| (at % 251).to_le_bytes()[0]).collect();
            prop_assume!(length > most && piece(length, most).is_some_and(|each| each >= 64));
            let all = pieces(&content, most, 9);
            prop_assert!(all.iter().all(|piece| piece.len() <= 12 + most));
            let (mut table, mut left) = (Reassembly::default(), all.len());
            for number in order.into_iter().filter(|&number| number < all.len()) {
                left -= 1;
                let outcome = take(&mut table, (1, 0), &all[number], 7);
                prop_assert_eq!(outcome, if left == 0 { Outcome::Whole(&content, 0) } else { Outcome::Waits });
            }
        }
    }

    #[test]
    fn frame_splits_into_sixteen_at_most() {
        assert_eq!(piece(1600, 100), Some(100));
        assert_eq!(piece(1601, 100), None);
        assert_eq!(piece(100, 100), None);
        assert_eq!(piece(1518, 1428), Some(759));
        assert_eq!(piece(1518, 0), None);
    }

    #[test]
    fn unrelated_fragments_do_not_join() {
        for (from, identification, later, joined) in [
            ((1, 0), 9, 0, true),
            ((1, 0), 9, AGE_US, true),
            ((1, 0), 9, AGE_US + 1, false),
            ((2, 0), 9, 0, false),
            ((1, 1), 9, 0, false),
            ((1, 0), 8, 0, false),
        ] {
            let (content, mut table) = (vec![3; 300], Reassembly::default());
            assert_eq!(take(&mut table, (1, 0), &pieces(&content, 200, 9)[0], 5), Outcome::Waits);
            let outcome = take(&mut table, from, &pieces(&content, 200, identification)[1], 5 + later);
            assert_eq!(outcome, if joined { Outcome::Whole(&content, 0) } else { Outcome::Waits });
        }
    }

    #[test]
    fn duplicate_fragment_is_dropped_alone() {
        let (content, mut table) = (vec![3; 300], Reassembly::default());
        let all = pieces(&content, 100, 9);
        assert_eq!(take(&mut table, (1, 0), &all[0], 0), Outcome::Waits);
        assert_eq!(take(&mut table, (1, 0), &all[0], 0), Outcome::Wrong);
        assert_eq!(take(&mut table, (1, 0), &all[1], 0), Outcome::Waits);
        assert_eq!(take(&mut table, (1, 0), &all[2], 0), Outcome::Whole(&content, 0));
        assert_eq!(take(&mut table, (1, 0), &all[0], 0), Outcome::Waits);
        assert_eq!(take(&mut table, (1, 0), &pieces(&[4; 301], 101, 9)[1], 0), Outcome::Wrong);
        assert_eq!(take(&mut table, (1, 0), &all[1], 0), Outcome::Waits);
        assert_eq!(take(&mut table, (1, 0), &all[2], 0), Outcome::Waits);
    }

    #[test]
    fn congestion_mark_of_any_fragment_counts() {
        let (content, mut table) = (vec![3; 300], Reassembly::default());
        for (classes, expected) in [([2, 3, 2], 3), ([2, 2, 2], 2), ([0, 0, 0], 0)] {
            let mut outcome = Outcome::Waits;
            for (piece, class) in pieces(&content, 100, 9).iter().zip(classes) {
                let Some(Content::Fragment(fragment)) = parse(piece) else { panic!() };
                outcome = table.take((1, 0), &fragment, &piece[fragment.range.clone()], class, 7);
            }
            assert_eq!(outcome, Outcome::Whole(&content, expected));
        }
    }

    #[test]
    fn oldest_frame_makes_room() {
        let (content, mut table) = (vec![3; 300], Reassembly::default());
        let all: Vec<_> = (0..18).map(|number| pieces(&content, 200, number)).collect();
        for (now_us, pieces) in (0..).zip(&all) {
            assert_eq!(take(&mut table, (1, 0), &pieces[0], now_us), Outcome::Waits);
        }
        // The first two are gone. Their remaining fragments start a new frame in the slot of the oldest.
        for (number, pieces) in all.iter().enumerate().rev() {
            let outcome = take(&mut table, (1, 0), &pieces[1], 20);
            assert_eq!(outcome, if number >= 2 { Outcome::Whole(&content, 0) } else { Outcome::Waits }, "{number}");
        }
        assert_eq!(table.waiting.len(), WAITING);
    }

    #[test]
    fn incomplete_frame_counts_once() {
        let (content, mut table) = (vec![3; 300], Reassembly::default());
        for number in 0..18 {
            assert_eq!(take(&mut table, (1, 0), &pieces(&content, 200, number)[0], 7), Outcome::Waits);
        }
        // Two frames made room for others; one of the rest becomes whole.
        assert_eq!(table.expire(8), 2);
        assert_eq!(take(&mut table, (1, 0), &pieces(&content, 200, 17)[1], 8), Outcome::Whole(&content, 0));
        assert_eq!((table.expire(7 + AGE_US), table.expire(8 + AGE_US), table.expire(9 + AGE_US)), (0, 15, 0));
        // The loss is counted even if the next fragment finds the expired frame.
        assert_eq!(take(&mut table, (1, 0), &pieces(&content, 200, 1)[0], 10), Outcome::Waits);
        assert_eq!(take(&mut table, (1, 0), &pieces(&content, 200, 2)[0], 2 * AGE_US), Outcome::Waits);
        assert_eq!(table.expire(2 * AGE_US), 1);
    }
}
