//! Which counters have been seen: the last 8192 of them, in the manner of RFC 6479, so that nothing is shifted.

/// Counters that a window has: the greatest that was seen, and those just below it.
pub const WINDOW: u64 = 8192;
/// Words of bits: one more than they fill, because the greatest counter need not end one.
const WORDS: usize = 8192 / 64 + 1;

/// One queue's.
#[derive(Clone)]
pub struct Window {
    /// The greatest counter that was taken; zero before the first.
    greatest: u64,
    /// Of each counter in the window, whether it was taken.
    bits: [u64; WORDS],
}

impl Default for Window {
    fn default() -> Self {
        Self { greatest: 0, bits: [0; WORDS] }
    }
}

impl Window {
    /// Whether a counter is neither older than the window nor taken.
    pub fn is_fresh(&self, counter: u64) -> bool {
        let (word, bit) = place(counter);
        counter > self.greatest || self.greatest - counter < WINDOW && self.bits[word] & bit == 0
    }

    /// Takes a fresh counter, whose tag was right.
    pub fn take(&mut self, counter: u64) {
        let (last, new) = (self.greatest / 64, counter / 64);
        // The words behind that of the greatest so far hold what is a round older.
        for word in last + 1..=new.min(last.saturating_add(WORDS as u64)) {
            self.bits[index(word)] = 0;
        }
        self.greatest = self.greatest.max(counter);
        let (word, bit) = place(counter);
        self.bits[word] |= bit;
    }
}

/// Where the bit of a counter is.
fn place(counter: u64) -> (usize, u64) {
    (index(counter / 64), 1 << (counter % 64))
}

/// Where a word is, of all words that were ever used.
fn index(word: u64) -> usize {
    usize::try_from(word % WORDS as u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// The same with a set of all that was taken.
    #[derive(Default)]
    struct Naive(BTreeSet<u64>);

    impl Naive {
        fn is_fresh(&self, counter: u64) -> bool {
            let greatest = self.0.last().copied().unwrap_or(0);
            !self.0.contains(&counter) && counter.saturating_add(WINDOW) > greatest
        }
    }

    /// Steps of every kind from the greatest so far.
    fn steps() -> impl Strategy<Value = i64> {
        prop_oneof![
            4 => -70..70_i64,
            2 => -8260..-8120_i64,
            1 => -9000..9000_i64,
            1 => 8120..8330_i64,
            1 => any::<i32>().prop_map(i64::from),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        #[test]
        fn it_is_a_set_of_the_last_counters(from in prop_oneof![Just(0_u64), any::<u64>()], steps in proptest::collection::vec(steps(), 1..400)) {
            let (mut window, mut naive) = (Window::default(), Naive::default());
            let mut greatest = 0_u64;
            for (number, step) in steps.into_iter().enumerate() {
                let counter = if number == 0 { from } else { greatest.saturating_add_signed(step) };
                let fresh = naive.is_fresh(counter);
                prop_assert_eq!(window.is_fresh(counter), fresh, "{} with {} the greatest", counter, greatest);
                // Looked at only, as of one that is forged, it changes nothing.
                if fresh && step % 3 != 0 {
                    window.take(counter);
                    naive.0.insert(counter);
                    greatest = greatest.max(counter);
                }
            }
        }
    }

    #[test]
    fn its_edges_are_exact() {
        let mut window = Window::default();
        assert!(window.is_fresh(0));
        window.take(0);
        assert!(!window.is_fresh(0));
        window.take(8191);
        assert!(!window.is_fresh(0) && window.is_fresh(1));
        window.take(8192);
        assert!(!window.is_fresh(0) && window.is_fresh(1));
        window.take(8193);
        assert!(!window.is_fresh(1) && window.is_fresh(2));
        window.take(u64::MAX);
        assert!(!window.is_fresh(u64::MAX) && window.is_fresh(u64::MAX - 8191) && !window.is_fresh(u64::MAX - 8192));
    }
}
