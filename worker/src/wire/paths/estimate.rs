//! Estimate of a path from pings and pongs. A ping leaves each interval, in ticks of about a second. A pong sets the tick of the
//! last answer.

use privsep::ipc::{PathHealth, PathReport};

/// Intervals without an answer after which a path is down.
pub const DOWN_AFTER: u64 = 5;
/// An answer younger than this many ticks brings a path up.
const UP_WITHIN: u64 = 4;
/// Intervals since the last pong during which the kernel may choose the local address.
pub const SERVES: u64 = 2;
/// Intervals since the last pong during which the peer counts as answering.
const ANSWERS: u64 = 5;

/// Estimate of one path.
pub struct Estimate {
    health: PathHealth,
    /// Tick in which the last pong came; 0 before the first.
    last_pong: u64,
    /// Round trip time in microseconds; 0 before the first pong.
    rtt_us: u64,
    /// Ticks from one ping to the next.
    interval: u64,
}

impl Estimate {
    /// Continues from the report of an earlier worker. A ping leaves every `interval` ticks.
    pub fn new(report: &PathReport, interval: u64) -> Self {
        Self { health: report.health, last_pong: report.last_pong, rtt_us: report.rtt_us, interval }
    }

    /// Records a pong at this tick, and the round trip time in microseconds.
    pub fn answered(&mut self, tick: u64, rtt_us: u64) {
        (self.last_pong, self.rtt_us) = (tick, rtt_us.max(1));
    }

    /// Updates the health at tick `now`.
    pub fn judge(&mut self, now: u64) {
        self.health = match self.health {
            PathHealth::Connecting | PathHealth::Down if self.last_pong > 0 && now < self.last_pong + UP_WITHIN => {
                PathHealth::Up
            }
            PathHealth::Up if now > self.last_pong + DOWN_AFTER * self.interval => PathHealth::Down,
            same => same,
        };
    }

    /// Round trip time in microseconds; 0 before the first pong.
    pub fn rtt_us(&self) -> u64 {
        self.rtt_us
    }

    /// Sets the health, for a wire that has other evidence.
    pub fn set_health(&mut self, health: PathHealth) {
        self.health = health;
    }

    /// Last computed health.
    pub fn health(&self) -> PathHealth {
        self.health
    }

    /// Whether the last pong is recent enough for the kernel to choose the local address.
    pub fn serves(&self, tick: u64) -> bool {
        tick <= self.last_pong.saturating_add(SERVES * self.interval)
    }

    /// Whether the peer is answering.
    pub fn answers(&self, tick: u64) -> bool {
        self.last_pong > 0 && tick <= self.last_pong + ANSWERS * self.interval
    }

    /// Ping interval in ticks.
    pub fn interval(&self) -> u64 {
        self.interval
    }

    /// Writes the estimate into a report.
    pub fn report(&self, report: &mut PathReport) {
        (report.health, report.last_pong, report.rtt_us) = (self.health, self.last_pong, self.rtt_us);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use PathHealth::{Connecting, Down, Up};

    /// Health at tick `now` of a path with this health, whose last pong arrived in tick `last_pong`.
    fn next(health: PathHealth, now: u64, last_pong: u64, interval: u64) -> PathHealth {
        let mut estimate = Estimate { health, last_pong, rtt_us: 0, interval };
        estimate.judge(now);
        estimate.health()
    }

    #[test]
    fn transitions() {
        for (health, now, last_pong, expected) in [
            (Connecting, 1, 0, Connecting),
            (Connecting, 100, 0, Connecting),
            (Connecting, 2, 1, Up),
            (Up, 6, 1, Up),
            (Up, 7, 1, Down),
            (Down, 11, 7, Down),
            (Down, 10, 7, Up),
        ] {
            assert_eq!(next(health, now, last_pong, 1), expected, "{health:?} at {now}, last PONG {last_pong}");
        }
    }

    #[test]
    fn path_is_down_after_five_intervals() {
        for (now, expected) in [(51, Up), (52, Down)] {
            assert_eq!(next(Up, now, 1, 10), expected, "{now}");
        }
    }
}
