//! Ticks of a session, about one a second, and beats at other intervals. A session is over after its last tick.

/// Length of a tick in microseconds.
pub const TICK_US: u64 = 1_000_000;

/// Number of the current tick, and time of the next one.
pub struct Ticks {
    now: u64,
    next_us: u64,
    interval_us: u64,
    last: Option<u64>,
}

impl Ticks {
    /// Continues after tick `now`. `last` is the number of the last tick.
    pub fn new(now: u64, last: Option<u64>) -> Self {
        Self { now, next_us: 0, interval_us: TICK_US, last }
    }

    /// Beats at this interval, which count on after number `now`.
    pub fn every(interval_us: u64, now: u64) -> Self {
        Self { now, next_us: 0, interval_us, last: None }
    }

    /// Begins the next tick if it is due. False also after the last one. Ticks missed by a stopped process are not repeated.
    pub fn begin(&mut self, now_us: u64) -> bool {
        if now_us < self.next_us || self.is_over() {
            return false;
        }
        let next_us = self.next_us + self.interval_us;
        self.next_us = if next_us > now_us { next_us } else { now_us + self.interval_us };
        self.now += 1;
        !self.is_over()
    }

    /// Number of the current tick.
    pub fn now(&self) -> u64 {
        self.now
    }

    /// Whether the last tick is over.
    pub fn is_over(&self) -> bool {
        self.last.is_some_and(|last| self.now > last)
    }

    /// Time of the next tick, in microseconds.
    pub fn due_us(&self) -> u64 {
        if self.is_over() { u64::MAX } else { self.next_us }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missed_ticks_are_skipped() {
        let mut ticks = Ticks::new(7, None);
        let begun = [0, 1, TICK_US, 5 * TICK_US, 5 * TICK_US + 1, 6 * TICK_US].map(|now_us| ticks.begin(now_us));
        assert_eq!(begun, [true, false, true, true, false, true]);
        assert_eq!((ticks.now(), ticks.due_us()), (11, 7 * TICK_US));
    }

    #[test]
    fn last_tick_ends_the_run() {
        let mut ticks = Ticks::new(0, Some(1));
        assert!(ticks.begin(0) && !ticks.is_over() && !ticks.begin(TICK_US) && ticks.is_over());
        assert_eq!((ticks.now(), ticks.due_us()), (2, u64::MAX));
    }
}
