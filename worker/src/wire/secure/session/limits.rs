//! Rate limits for work that others can cause.

use super::SECOND;

/// At most `MOST` times in any second.
pub struct Recent<const MOST: usize> {
    times: [Option<u64>; MOST],
    next: usize,
}

impl<const MOST: usize> Default for Recent<MOST> {
    fn default() -> Self {
        Self { times: [None; MOST], next: 0 }
    }
}

impl<const MOST: usize> Recent<MOST> {
    /// Whether fewer than `MOST` were allowed in the last second. If so, counts one more.
    pub fn allows(&mut self, now_us: u64) -> bool {
        let Some(oldest) = self.times.get_mut(self.next) else { return false };
        if oldest.is_some_and(|time| now_us < time + SECOND) {
            return false;
        }
        *oldest = Some(now_us);
        self.next = (self.next + 1) % MOST;
        true
    }
}

/// `RATE` times a second, spaced evenly, with a burst of as many after a pause. The next one is allowed after `1 / RATE` seconds
/// instead of a whole second.
#[derive(Default)]
pub struct Paced<const RATE: u64> {
    /// Time in microseconds from which a whole burst is allowed.
    full_us: u64,
}

impl<const RATE: u64> Paced<RATE> {
    const EACH: u64 = SECOND / RATE;

    /// Time in microseconds from which the next one is allowed.
    pub fn next_us(&self) -> u64 {
        self.full_us.saturating_sub((RATE - 1) * Self::EACH)
    }

    /// Whether one is allowed now. If so, counts it.
    pub fn allows(&mut self, now_us: u64) -> bool {
        let allows = now_us >= self.next_us();
        if allows {
            self.full_us = self.full_us.max(now_us) + Self::EACH;
        }
        allows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Milliseconds at which requests are allowed, with one request each millisecond.
    fn times(mut allows: impl FnMut(u64) -> bool, milliseconds: std::ops::Range<u64>) -> Vec<u64> {
        milliseconds.filter(|millisecond| allows(millisecond * 1000)).collect()
    }

    #[test]
    fn rate_holds_in_any_second() {
        let mut recent = Recent::<10>::default();
        let mut let_through = times(|now_us| recent.allows(now_us), 0..1005);
        assert_eq!(let_through, (0..10).chain(1000..1005).collect::<Vec<_>>());
        let_through = times(|now_us| recent.allows(now_us), 3000..3999);
        assert_eq!(let_through, (3000..3010).collect::<Vec<_>>());
    }

    #[test]
    fn burst_then_single_events_pass() {
        let mut paced = Paced::<20>::default();
        assert_eq!((0..100).filter(|_| paced.allows(7000)).count(), 20);
        assert_eq!(paced.next_us(), 57_000);
        let expected: Vec<_> = (0..20).map(|number| 57 + 50 * number).collect();
        assert_eq!(times(|now_us| paced.allows(now_us), 8..1050), expected);
        // After a second without requests a whole burst is allowed.
        assert_eq!((0..100).filter(|_| paced.allows(1_507_000)).count(), 10);
        assert_eq!((0..100).filter(|_| paced.allows(9_000_000)).count(), 20);
    }
}
