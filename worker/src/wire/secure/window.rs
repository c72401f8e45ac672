//! Replay window: the last 65536 counters of a queue, after RFC 6479, without shifting.

/// Counters in a window: the greatest one seen, and those just below it. At 100,000 datagrams a second a datagram may be 0.6 s later
/// by one path than by another.
pub const WINDOW: u64 = 65_536;
/// Words of the bitmap: one more than the counters fill, because the greatest counter need not end a word.
const WORDS: usize = 65_536 / 64 + 1;

/// Replay window of one queue: 65536 counters.
#[derive(Clone)]
pub struct Window {
    /// Greatest counter taken; zero before the first.
    greatest: u64,
    /// One bit for each counter in the window, set once taken.
    bits: [u64; WORDS],
}

impl Default for Window {
    fn default() -> Self {
        Self { greatest: 0, bits: [0; WORDS] }
    }
}

impl Window {
    /// Whether a counter is within the window or above it, and not yet taken.
    pub fn is_fresh(&self, counter: u64) -> bool {
        let (word, bit) = place(counter);
        counter > self.greatest || !self.is_past(counter) && self.bits[word] & bit == 0
    }

    /// Whether a counter is below the window.
    pub fn is_past(&self, counter: u64) -> bool {
        self.greatest.saturating_sub(counter) >= WINDOW
    }

    /// Takes a fresh counter, after its tag was verified.
    pub fn take(&mut self, counter: u64) {
        let (last, new) = (self.greatest / 64, counter / 64);
        // The words above the greatest counter's hold bits of a round ago.
        for word in last + 1..=new.min(last.saturating_add(WORDS as u64)) {
            self.bits[index(word)] = 0;
        }
        self.greatest = self.greatest.max(counter);
        let (word, bit) = place(counter);
        self.bits[word] |= bit;
    }
}

/// Word and bit of a counter.
fn place(counter: u64) -> (usize, u64) {
    (index(counter / 64), 1 << (counter % 64))
}

/// Position of a word in the ring.
fn index(word: u64) -> usize {
    usize::try_from(word % WORDS as u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// Model: a set of all taken counters.
    #[derive(Default)]
    struct Naive(BTreeSet<u64>);

    impl Naive {
        fn is_fresh(&self, counter: u64) -> bool {
            let greatest = self.0.last().copied().unwrap_or(0);
            !self.0.contains(&counter) && counter.saturating_add(WINDOW) > greatest
        }
    }

    /// Steps of every kind from the greatest counter so far.
    fn steps() -> impl Strategy<Value = i64> {
        prop_oneof![
            4 => -70..70_i64,
            2 => -65_604..-65_464_i64,
            1 => -72_000..72_000_i64,
            1 => 65_464..65_674_i64,
            1 => any::<i32>().prop_map(i64::from),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        #[test]
        fn window_remembers_last_counters(from in prop_oneof![Just(0_u64), any::<u64>()], steps in proptest::collection::vec(steps(), 1..400)) {
            let (mut window, mut naive) = (Window::default(), Naive::default());
            let mut greatest = 0_u64;
            for (number, step) in steps.into_iter().enumerate() {
                let counter = if number == 0 { from } else { greatest.saturating_add_signed(step) };
                let fresh = naive.is_fresh(counter);
                prop_assert_eq!(window.is_fresh(counter), fresh, "{} with {} the greatest", counter, greatest);
                // Only checked, as for a forged datagram: the window must not change.
                if fresh && step % 3 != 0 {
                    window.take(counter);
                    naive.0.insert(counter);
                    greatest = greatest.max(counter);
                }
            }
        }
    }

    #[test]
    fn window_edges_are_exact() {
        let mut window = Window::default();
        assert!(window.is_fresh(0));
        window.take(0);
        assert!(!window.is_fresh(0));
        window.take(65_535);
        assert!(!window.is_fresh(0) && !window.is_past(0) && window.is_fresh(1));
        window.take(65_536);
        assert!(!window.is_fresh(0) && window.is_past(0) && window.is_fresh(1));
        window.take(65_537);
        assert!(!window.is_fresh(1) && window.is_past(1) && window.is_fresh(2));
        window.take(u64::MAX);
        let last = u64::MAX - 65_535;
        assert!(!window.is_fresh(u64::MAX) && window.is_fresh(last) && !window.is_fresh(last - 1));
    }
}
