//! Time that goes on while the machine sleeps, by which worker and supervisor count ticks: what ends after a time has ended by then, as
//! a session and its keys have.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// A moment of `CLOCK_BOOTTIME` (`clock_gettime(2)`), unlike `Instant`'s, whose clock stands still meanwhile.
#[derive(Debug, Clone, Copy)]
pub struct Moment(Duration);

impl Moment {
    /// This one.
    pub fn now() -> Self {
        // Linux has this clock since 2.6.39, and fails for one that it has not.
        Self(clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from))
    }

    /// Time since then.
    pub fn elapsed(self) -> Duration {
        Self::now().0.saturating_sub(self.0)
    }
}
