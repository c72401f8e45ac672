//! What nobody has the privileges to mend any more is mended by a new start, which only a service manager can give. Interface
//! and place in the bridge are kept over it. Pure: the clocks are arguments.

use std::time::{Duration, Instant, SystemTime};

use crate::tunnel::Repair;

/// How long others have to put the interface back into its bridge, or its addresses back.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long the tunnel has run at least when it ends for a missing address: what takes the address away at each start must not end
/// the tunnel again and again at once.
const SETTLED: Duration = Duration::from_secs(60);
/// A day.
const DAY: u64 = 24 * 3600;

/// What needs a new start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// The helper has ended.
    Helper,
    /// The bridge is there, without our interface.
    Bridge,
    /// The interface lacks one of its addresses.
    Address,
}

/// When it is due.
#[derive(Debug)]
pub struct Schedule {
    policy: Repair,
    since: Instant,
    due: Option<(Need, Option<Instant>)>,
}

impl Schedule {
    /// Under a service manager; without one, nothing is ever due.
    pub fn new(now: Instant, policy: Repair, managed: bool) -> Self {
        Self { policy: if managed { policy } else { Repair::Never }, since: now, due: None }
    }

    /// Takes note of what is needed; why to end now, if that is due.
    pub fn note(&mut self, now: Instant, clock: SystemTime, need: Option<Need>) -> Option<Need> {
        if self.due.map(|(need, _)| need) != need {
            self.due = need.map(|need| (need, self.after(now, need, clock).map(|time| now + time)));
        }
        self.due.and_then(|(need, due)| due.filter(|due| now >= *due).map(|_| need))
    }

    /// How long to wait.
    fn after(&self, now: Instant, need: Need, clock: SystemTime) -> Option<Duration> {
        match (self.policy, need) {
            (Repair::Never, _) => None,
            (Repair::AtOnce, Need::Helper) => Some(Duration::ZERO),
            // Nothing passes until then, so there is nothing to wait for.
            (_, Need::Bridge) => Some(PATIENCE),
            (_, Need::Address) => Some(PATIENCE.max((self.since + SETTLED).saturating_duration_since(now))),
            (Repair::Daily { second }, Need::Helper) => {
                let today = clock.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs() % DAY);
                Some(Duration::from_secs((u64::from(second) + DAY - today) % DAY))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_is_due_when_the_file_says() {
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
        ] {
            let mut schedule = Schedule::new(now, policy, managed);
            assert_eq!(schedule.note(now, clock, None), None);
            let found = (0..60_000)
                .find(|&second| schedule.note(now + Duration::from_secs(second), clock, Some(need)) == Some(need));
            assert_eq!(found.map(Duration::from_secs), due, "{policy:?}, {need:?}");
            assert_eq!(schedule.note(now, clock, None), None);
        }
        let (mut settled, later) = (Schedule::new(now, Repair::AtOnce, true), now + SETTLED);
        assert_eq!(settled.note(later, clock, Some(Need::Address)), None);
        assert_eq!(settled.note(later + PATIENCE, clock, Some(Need::Address)), Some(Need::Address));
    }
}
