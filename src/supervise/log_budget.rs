//! Budget of log lines that messages of workers may cause. It spans all workers and has no end, because a hostile worker may go on
//! for ever, and so may the next one. Pure: the clock is an argument.

use std::time::{Duration, Instant};

/// Lines that may follow each other without a pause.
const BURST: u32 = 20;
/// Time until one more line is allowed.
const REFILL: Duration = Duration::from_secs(6);
/// Lines that must be available again after the budget was empty. The next line then reports the number of suppressed ones.
const PAUSE: u32 = 10;

/// Budget of log lines.
pub struct LogBudget {
    lines: u32,
    /// Time up to which the budget is refilled.
    until: Instant,
    left_out: u64,
}

impl LogBudget {
    pub fn new(now: Instant) -> Self {
        Self { lines: BURST, until: now, left_out: 0 }
    }

    fn refill(&mut self, now: Instant) {
        while self.lines < BURST && now.duration_since(self.until) >= REFILL {
            self.lines += 1;
            self.until += REFILL;
        }
        if self.lines == BURST {
            self.until = now;
        }
    }

    /// Whether one more line may be logged.
    pub fn may_say(&mut self, now: Instant) -> bool {
        self.refill(now);
        let may = self.left_out == 0 && self.lines > 0;
        if may {
            self.lines -= 1;
        } else {
            self.left_out += 1;
        }
        may
    }

    /// Number of suppressed lines, when a line about them may be logged.
    pub fn left_out(&mut self, now: Instant) -> Option<u64> {
        self.refill(now);
        let due = self.left_out > 0 && self.lines >= PAUSE;
        due.then(|| {
            self.lines -= 1;
            std::mem::take(&mut self.left_out)
        })
    }
}

#[cfg(test)]
mod tests {
    use privsep::ipc::MAX_PATHS;

    use super::*;

    #[test]
    fn log_flood_is_bounded_and_counted() {
        let start = Instant::now();
        let mut budget = LogBudget::new(start);
        let (mut said, mut counted) = (0_u64, 0);
        for tick in 0..36_000_u64 {
            let now = start + Duration::from_millis(tick * 100);
            if let Some(left_out) = budget.left_out(now) {
                counted += left_out;
            }
            said += u64::from(budget.may_say(now));
        }
        assert!(said <= 20 + 600, "{said} lines");
        let rest = budget.left_out(start + Duration::from_secs(7200));
        assert_eq!(said + counted + rest.unwrap_or(0), 36_000);
    }

    /// Each path changes its health and becomes active, and the tunnel has one more line.
    #[test]
    fn change_of_all_paths_is_logged() {
        let start = Instant::now();
        let mut budget = LogBudget::new(start);
        assert!((0..=2 * MAX_PATHS).all(|_| budget.may_say(start)), "BURST {BURST} for {MAX_PATHS} paths");
    }

    #[test]
    fn rare_changes_are_always_logged() {
        let start = Instant::now();
        let mut budget = LogBudget::new(start);
        assert!((0..500).all(|n| budget.may_say(start + Duration::from_secs(n * 6))));
        assert_eq!(budget.left_out(start + Duration::from_secs(4000)), None);
    }
}
