//! Clock of a worker.

use std::time::Duration;

use privsep::ipc::Moment;

/// Time since the start of a worker.
#[derive(Debug, Clone, Copy)]
pub struct Clock(Moment);

impl Clock {
    /// Starts the clock.
    pub fn start() -> Self {
        Self(Moment::now())
    }

    /// Microseconds since the start.
    pub fn now_us(self) -> u64 {
        u64::try_from(self.0.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Time from now to `due_us`, rounded up, so that a deadline has passed when a wait for it ends; `None` for never.
    pub fn until(self, due_us: u64) -> Option<Duration> {
        (due_us != u64::MAX).then(|| Duration::from_micros(due_us.saturating_sub(self.now_us())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeout_is_never_short() {
        let clock = Clock::start();
        assert_eq!((clock.until(0), clock.until(u64::MAX)), (Some(Duration::ZERO), None));
        let due = clock.now_us() + 2000;
        std::thread::sleep(clock.until(due).unwrap());
        assert!(clock.now_us() >= due);
    }
}
