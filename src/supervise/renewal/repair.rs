//! Repairs that need dropped privileges. A new start makes them, and only a service manager can give it. The interface and its
//! place in the bridge survive a start. Pure: the clocks are arguments.

use std::time::{Duration, Instant, SystemTime};

use crate::service::descriptor_store::{Cause, Starts};
use crate::tunnel::Repair;

/// Time for other programs to restore the interface in its bridge, or its addresses.
const PATIENCE: Duration = Duration::from_secs(2);
/// Shortest run time before an end for a missing address. A program that removes the address at each start must not interrupt other
/// traffic again and again. The time doubles after each start that did not help.
const SETTLED: Duration = Duration::from_secs(60);
/// Time for which a device must exist before a new start, if another path works. A start costs that path a handshake.
const STEADY: Duration = Duration::from_secs(30);
/// Time until a path without an address or a route is tried again: if nothing works, and if another path does.
const MISSING: (Duration, Duration) = (Duration::from_secs(15), Duration::from_secs(60));
/// Time for which a path with a name may be down before a new start resolves the name, for the same two cases.
const MOVED: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(600));
/// Longest wait after starts that did not help, for the same two cases.
const LONGEST: (Duration, Duration) = (Duration::from_secs(600), Duration::from_secs(3600));
/// Time without a need after which its starts are forgotten.
pub const FORGET: Duration = Duration::from_secs(600);
/// A day.
const DAY: u64 = 24 * 3600;

/// Need for a new start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// The helper has ended.
    Helper,
    /// The bridge exists, but the interface is not in it.
    Bridge,
    /// The interface lacks one of its addresses.
    Address,
    /// The device of a path appeared, or was recreated. `alone` means that no other path works.
    Device { alone: bool },
    /// A path had no address or no route at the start.
    Path { alone: bool },
    /// The name of a path may have a new address.
    Name { alone: bool },
}

impl Need {
    /// Cause that is kept for the next start.
    pub fn cause(self) -> Cause {
        match self {
            Self::Helper => Cause::Helper,
            Self::Bridge => Cause::Bridge,
            Self::Address => Cause::Address,
            Self::Device { .. } => Cause::Device,
            Self::Path { .. } => Cause::Path,
            Self::Name { .. } => Cause::Name,
        }
    }

    /// Reason of the end in one line.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Helper => "restarting to get a new helper",
            Self::Bridge => "restarting to join the bridge",
            Self::Device { .. } => "restarting to open the device of a path",
            Self::Address => "restarting to set the addresses",
            Self::Path { .. } => "restarting to open a path",
            Self::Name { .. } => "restarting to resolve the name of a path",
        }
    }
}

/// Schedule of new starts.
#[derive(Debug)]
pub struct Schedule {
    policy: Repair,
    since: Instant,
    /// Starts in a row before this one. Each need waits only for its own.
    starts: Starts,
    /// Present needs by cause, each with the time of a start for it.
    due: [Option<(Need, Option<Instant>)>; Cause::ALL.len()],
    /// Time of the last need of each cause, or of the start.
    needed: [Instant; Cause::ALL.len()],
}

impl Schedule {
    /// Schedule under a service manager. Without one, nothing is ever due.
    pub fn new(now: Instant, policy: Repair, managed: bool, starts: Starts) -> Self {
        let policy = if managed { policy } else { Repair::Never };
        Self { policy, since: now, starts, due: [None; Cause::ALL.len()], needed: [now; Cause::ALL.len()] }
    }

    /// Records the present needs, at most one for each cause. Returns a need whose start is due. No need delays another.
    pub fn note(&mut self, now: Instant, clock: SystemTime, needs: impl IntoIterator<Item = Need>) -> Option<Need> {
        let mut before = std::mem::take(&mut self.due);
        for need in needs {
            let at = need.cause() as usize;
            let same = before[at].take().filter(|(before, _)| *before == need);
            self.due[at] = same.or_else(|| Some((need, self.after(now, need, clock).map(|time| now + time))));
            self.needed[at] = now;
        }
        let due = self.due.iter().flatten().find(|(_, due)| due.is_some_and(|due| now >= due));
        due.map(|(need, _)| *need)
    }

    /// Starts before this one, without those that helped, which are forgotten.
    pub fn starts(&mut self, now: Instant) -> Starts {
        for cause in Cause::ALL.into_iter().filter(|&cause| now >= self.needed[cause as usize] + FORGET) {
            self.starts = self.starts.without(cause);
        }
        self.starts
    }

    /// Time to wait, doubled after each start for the same need that did not help.
    fn after(&self, now: Instant, need: Need, clock: SystemTime) -> Option<Duration> {
        let (first, longest) = match need {
            // Nothing passes until then, so a wait has no benefit.
            Need::Helper | Need::Bridge | Need::Device { alone: true } => (PATIENCE, PATIENCE),
            Need::Address => (SETTLED, LONGEST.1),
            Need::Device { alone: false } => (STEADY, STEADY),
            Need::Path { alone: true } => (MISSING.0, LONGEST.0),
            Need::Path { alone: false } => (MISSING.1, LONGEST.1),
            Need::Name { alone: true } => (MOVED.0, LONGEST.0),
            Need::Name { alone: false } => (MOVED.1, LONGEST.1),
        };
        let starts = self.starts.of(need.cause());
        let after = |first: Duration| (first * (1 << starts.min(12))).min(longest);
        match (self.policy, need) {
            (Repair::Never, _) => None,
            (Repair::AtOnce, Need::Helper) if starts == 0 => Some(Duration::ZERO),
            (Repair::Daily { second }, Need::Helper) => {
                let today = clock.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs() % DAY);
                Some(Duration::from_secs((u64::from(second) + DAY - today) % DAY))
            }
            // The time that the tunnel has run counts.
            (_, Need::Address) => Some(PATIENCE.max((self.since + after(first)).saturating_duration_since(now))),
            // There is evidence that a start helps. Only a recent start for the same need is a reason to wait longer.
            (_, Need::Helper | Need::Bridge | Need::Device { .. }) if starts > 0 => {
                Some(first.max((self.since + SETTLED).saturating_duration_since(now)))
            }
            _ => Some(after(first)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn starts(cause: Cause, count: u32) -> Starts {
        (0..count).fold(Starts::default(), |starts, _| starts.and(cause))
    }

    #[test]
    fn restart_follows_repair_option() {
        let now = Instant::now();
        // 23:00 UTC.
        let clock = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 / DAY * DAY + 23 * 3600);
        let half_past_three = Repair::Daily { second: 3 * 3600 + 1800 };
        let hours = |hours: f64| Some(Duration::from_secs_f64(hours * 3600.0));
        for (policy, managed, need, due) in [
            (Repair::AtOnce, true, Need::Helper, hours(0.0)),
            (Repair::AtOnce, false, Need::Helper, None),
            (Repair::Never, true, Need::Helper, None),
            (Repair::Never, true, Need::Bridge, None),
            (half_past_three, true, Need::Helper, hours(4.5)),
            (Repair::Daily { second: 23 * 3600 }, true, Need::Helper, hours(0.0)),
            (half_past_three, true, Need::Bridge, Some(PATIENCE)),
            (Repair::AtOnce, true, Need::Bridge, Some(PATIENCE)),
            (Repair::AtOnce, true, Need::Address, Some(SETTLED)),
            (Repair::Never, true, Need::Address, None),
            (Repair::AtOnce, true, Need::Device { alone: true }, Some(PATIENCE)),
            (Repair::AtOnce, true, Need::Device { alone: false }, Some(STEADY)),
            (half_past_three, true, Need::Name { alone: true }, Some(MOVED.0)),
            (Repair::AtOnce, true, Need::Path { alone: true }, Some(MISSING.0)),
            (Repair::AtOnce, true, Need::Name { alone: false }, Some(MOVED.1)),
            (Repair::AtOnce, false, Need::Name { alone: true }, None),
            (Repair::Never, true, Need::Device { alone: true }, None),
        ] {
            let mut schedule = Schedule::new(now, policy, managed, Starts::default());
            assert_eq!(schedule.note(now, clock, None), None);
            let found = (0..60_000)
                .find(|&second| schedule.note(now + Duration::from_secs(second), clock, Some(need)) == Some(need));
            assert_eq!(found.map(Duration::from_secs), due, "{policy:?}, {need:?}");
            assert_eq!(schedule.note(now, clock, None), None);
        }
        let (mut settled, later) = (Schedule::new(now, Repair::AtOnce, true, Starts::default()), now + SETTLED);
        assert_eq!(settled.note(later, clock, Some(Need::Address)), None);
        assert_eq!(settled.note(later + PATIENCE, clock, Some(Need::Address)), Some(Need::Address));
    }

    #[test]
    fn useless_starts_become_rare() {
        let (now, clock) = (Instant::now(), SystemTime::UNIX_EPOCH);
        let wait = |need: Need, count| {
            let mut schedule = Schedule::new(now, Repair::AtOnce, true, starts(need.cause(), count));
            let second = |&second: &u64| schedule.note(now + Duration::from_secs(second), clock, Some(need)).is_some();
            (0..=3600).find(second).unwrap()
        };
        let (moved, spare) = (Need::Name { alone: true }, Need::Name { alone: false });
        assert_eq!([0, 1, 2, 3, 4, 30].map(|starts| wait(moved, starts)), [60, 120, 240, 480, 600, 600]);
        assert_eq!([0, 1, 2, 3, 30].map(|starts| wait(spare, starts)), [600, 1200, 2400, 3600, 3600]);
        assert_eq!([0, 1, 30].map(|starts| wait(Need::Helper, starts)), [0, 60, 60]);
        assert_eq!([0, 1, 30].map(|starts| wait(Need::Bridge, starts)), [2, 60, 60]);
        assert_eq!([0, 1, 30].map(|starts| wait(Need::Device { alone: true }, starts)), [2, 60, 60]);
        assert_eq!([0, 1, 2, 30].map(|starts| wait(Need::Address, starts)), [60, 120, 240, 3600]);
        // Also if the address vanishes only after the tunnel has run for some time.
        let mut schedule = Schedule::new(now, Repair::AtOnce, true, starts(Cause::Address, 6));
        let due = (600..4000).find(|&second| {
            let now = now + Duration::from_secs(second);
            schedule.note(now, clock, Some(Need::Address)).is_some()
        });
        assert_eq!(due, Some(3600));
    }

    #[test]
    fn waiting_need_delays_no_other() {
        let (now, clock) = (Instant::now(), SystemTime::UNIX_EPOCH);
        for (second, other, due) in [
            (40_000, Need::Bridge, (2, Need::Bridge)),
            (40_000, Need::Device { alone: false }, (30, Need::Device { alone: false })),
            (100, Need::Name { alone: false }, (100, Need::Helper)),
        ] {
            let mut schedule = Schedule::new(now, Repair::Daily { second }, true, Starts::default());
            let mut note = |second| schedule.note(now + Duration::from_secs(second), clock, [Need::Helper, other]);
            let found = (0..60_000).find_map(|second| note(second).map(|need| (second, need)));
            assert_eq!(found, Some(due));
        }
    }

    #[test]
    fn unrelated_starts_delay_nothing() {
        let (now, clock) = (Instant::now(), SystemTime::UNIX_EPOCH);
        let wait = |need: Need, starts| {
            let mut schedule = Schedule::new(now, Repair::AtOnce, true, starts);
            (0..=3600).find(|&second| schedule.note(now + Duration::from_secs(second), clock, Some(need)).is_some())
        };
        for need in [
            Need::Helper,
            Need::Bridge,
            Need::Address,
            Need::Device { alone: true },
            Need::Device { alone: false },
            Need::Path { alone: true },
            Need::Name { alone: true },
            Need::Name { alone: false },
        ] {
            let others = Cause::ALL.into_iter().filter(|&cause| cause != need.cause());
            let others = others.fold(Starts::default(), |starts, cause| starts.and(cause).and(cause));
            assert_eq!(wait(need, others), wait(need, Starts::default()), "{need:?}");
        }
    }

    #[test]
    fn starts_are_forgotten_after_ten_minutes() {
        let (now, clock) = (Instant::now(), SystemTime::UNIX_EPOCH);
        let before = starts(Cause::Name, 3).and(Cause::Failure).and(Cause::Device);
        let mut schedule = Schedule::new(now, Repair::AtOnce, true, before);
        let mut said = before;
        let mut forgotten = Vec::new();
        for second in 0..2000 {
            let now = now + Duration::from_secs(second);
            // A name in the first minutes, then always an address: neither keeps the starts of others.
            schedule.note(now, clock, Some(if second < 100 { Need::Name { alone: true } } else { Need::Address }));
            let starts = schedule.starts(now);
            if std::mem::replace(&mut said, starts) != starts {
                forgotten.push((second, starts));
            }
        }
        assert_eq!(forgotten, [(600, starts(Cause::Name, 3)), (699, Starts::default())]);
    }
}
