//! Replacement of workers that died, and its limits. Pure: the clock is an argument.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Time of forwarding after which a worker is replaced at once.
const SETTLED: Duration = Duration::from_secs(1);
/// First delay before the replacement of a worker that forwarded for less time. It doubles each time.
const SHORTEST: Duration = Duration::from_millis(50);
/// Longest delay.
const LONGEST: Duration = Duration::from_secs(5);
/// Consecutive deaths before confinement that end the tunnel.
const UNCONFINED: u32 = 10;
/// Crashes within [`WINDOW`] that end the tunnel, because an attacker may cause them.
const CRASHES: usize = 60;
/// See [`CRASHES`].
const WINDOW: Duration = Duration::from_secs(600);

/// Death of a worker.
#[derive(Debug, Clone, Copy)]
pub struct Death {
    /// Time for which the worker forwarded; `None` if it was never confined.
    pub forwarded: Option<Duration>,
    /// Whether the worker itself was the cause, by SIGSYS or SIGSEGV, a broken rule or silence, as in an attack.
    pub crash: bool,
}

/// Reaction to a death.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Start another after this delay.
    Replace(Duration),
    /// End the tunnel as failed, for this reason.
    GiveUp(&'static str),
    /// End the tunnel so that it is not started again, for this reason.
    Attacked(&'static str),
}

/// Deaths of a tunnel's workers so far.
#[derive(Debug)]
pub struct History {
    delay: Duration,
    unconfined: u32,
    crashes: VecDeque<Instant>,
}

impl History {
    /// History without deaths.
    pub fn new() -> Self {
        Self { delay: SHORTEST, unconfined: 0, crashes: VecDeque::new() }
    }

    /// Records a death and decides.
    pub fn note(&mut self, now: Instant, death: Death) -> Verdict {
        if death.crash {
            self.crashes.push_back(now);
            while self.crashes.front().is_some_and(|&crash| now.duration_since(crash) > WINDOW) {
                self.crashes.pop_front();
            }
            if self.crashes.len() >= CRASHES {
                return Verdict::Attacked(
                    "worker crashed 60 times in ten minutes: an attack is likely; the tunnel stays \
                                          down",
                );
            }
        }
        match death.forwarded {
            Some(time) if time >= SETTLED => {
                *self = Self { crashes: std::mem::take(&mut self.crashes), ..Self::new() };
                return Verdict::Replace(Duration::ZERO);
            }
            Some(_) => self.unconfined = 0,
            None => self.unconfined += 1,
        }
        if self.unconfined >= UNCONFINED {
            return Verdict::GiveUp("worker died ten times in a row before it was confined");
        }
        let delay = self.delay;
        self.delay = (delay * 2).min(LONGEST);
        Verdict::Replace(delay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTLED_DEATH: Death = Death { forwarded: Some(SETTLED), crash: false };
    const EARLY: Death = Death { forwarded: Some(Duration::ZERO), crash: false };
    const UNCONFINED_DEATH: Death = Death { forwarded: None, crash: false };

    #[test]
    fn restart_delay_grows_with_early_deaths() {
        let (mut history, now) = (History::new(), Instant::now());
        for ms in [50, 100, 200, 400, 800, 1600, 3200, 5000, 5000] {
            assert_eq!(history.note(now, EARLY), Verdict::Replace(Duration::from_millis(ms)));
        }
        assert_eq!(history.note(now, SETTLED_DEATH), Verdict::Replace(Duration::ZERO));
        assert_eq!(history.note(now, EARLY), Verdict::Replace(SHORTEST));
    }

    #[test]
    fn ten_unconfined_workers_end_the_tunnel() {
        let (mut history, now) = (History::new(), Instant::now());
        for _ in 0..9 {
            assert!(matches!(history.note(now, UNCONFINED_DEATH), Verdict::Replace(_)));
        }
        assert!(matches!(history.note(now, UNCONFINED_DEATH), Verdict::GiveUp(_)));
    }

    #[test]
    fn sixty_fast_crashes_are_an_attack() {
        for (seconds, end) in [(10, true), (20, false)] {
            let (mut history, start) = (History::new(), Instant::now());
            let crash = Death { crash: true, ..SETTLED_DEATH };
            let verdicts = (0..60).map(|n| history.note(start + Duration::from_secs(n * seconds), crash));
            assert_eq!(verdicts.last().is_some_and(|v| matches!(v, Verdict::Attacked(_))), end, "every {seconds} s");
        }
    }
}
