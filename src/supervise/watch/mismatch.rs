//! Detection of different settings at the two ends, from the datagrams that a path receives. Pure: the clock is an argument,
//! counters are a worker's.
//!
//! Nothing on the classic wire is authenticated, so any sender can send undecodable datagrams. A path on which the peer answers is
//! therefore never suspected. A path that is down becomes suspect only by several datagrams over several seconds.

use std::time::{Duration, Instant};

use privsep::ipc::{PathCounters, PathHealth, PathReport};

use super::pause::Pause;
use crate::status::Mismatch;

/// Reports with bad datagrams that are necessary. A peer sends at least one PING a second.
const ENOUGH: u32 = 5;
/// Shortest time over which these reports must be spread.
const SPREAD: Duration = Duration::from_secs(4);
/// Time without bad datagrams after which the suspicion ends.
const GONE: Duration = Duration::from_secs(30);
/// Datagrams above which earlier ones count half.
const MEMORY: u64 = 64;

/// Effect of a report.
#[derive(Debug, PartialEq, Eq)]
pub enum Change {
    None,
    /// A mismatch begins; whether to log it, or whether a line was logged a short time ago.
    Begins(Mismatch, bool),
    /// The mismatch ends; whether its beginning was logged.
    Ends(bool),
}

/// Detector of one path.
#[derive(Debug, Default)]
pub struct Detector {
    /// Counters of the previous report.
    before: PathCounters,
    evidence: Option<Evidence>,
    found: Option<Mismatch>,
    pause: Pause,
    /// Whether the log has a line about the present mismatch.
    present_said: bool,
}

/// Evidence since the first bad datagram.
#[derive(Debug, Clone, Copy)]
struct Evidence {
    since: Instant,
    last: Instant,
    /// Reports with bad datagrams; a burst counts as one.
    reports: u32,
    /// Datagrams that could not be decoded, or decoded to no frame.
    noise: u64,
    /// Datagrams of senders that have not sent the password.
    foreign: u64,
    all: u64,
}

impl Detector {
    /// The present mismatch, if any.
    pub fn found(&self) -> Option<Mismatch> {
        self.found
    }

    /// Evaluates a report.
    pub fn note(&mut self, now: Instant, report: &PathReport) -> Change {
        let (c, before) = (report.counters, std::mem::replace(&mut self.before, report.counters));
        let grown = |of: fn(&PathCounters) -> u64| of(&c).saturating_sub(of(&before));
        if report.health == PathHealth::Up || grown(|c| c.pongs_received) > 0 {
            return self.clear();
        }
        let noise = grown(|c| c.rx_dropped_invalid).saturating_add(grown(|c| c.rx_implausible));
        let foreign = grown(|c| c.rx_dropped_foreign);
        let bad = noise.saturating_add(foreign);
        // The count of datagrams may have been reset.
        let all = grown(|c| c.rx_datagrams).max(bad);
        if bad == 0 && self.evidence.is_none_or(|evidence| now.duration_since(evidence.last) > GONE) {
            return self.clear();
        }
        let fresh = Evidence { since: now, last: now, reports: 0, noise: 0, foreign: 0, all: 0 };
        let evidence = self.evidence.get_or_insert(fresh);
        if evidence.all > MEMORY {
            evidence.noise /= 2;
            evidence.foreign /= 2;
            evidence.all /= 2;
        }
        // A worker can report any number.
        evidence.noise = evidence.noise.saturating_add(noise);
        evidence.foreign = evidence.foreign.saturating_add(foreign);
        evidence.all = evidence.all.saturating_add(all);
        if bad > 0 {
            evidence.last = now;
            evidence.reports = evidence.reports.saturating_add(1);
        }
        self.judge(now)
    }

    fn judge(&mut self, now: Instant) -> Change {
        let Some(Evidence { since, last, reports, noise, foreign, all }) = self.evidence else { return Change::None };
        let bad = noise.saturating_add(foreign);
        if all >= u64::from(ENOUGH) && bad < all - all / 4 {
            return self.clear();
        }
        if self.found.is_some() || reports < ENOUGH || last.duration_since(since) < SPREAD {
            return Change::None;
        }
        let found = if foreign > noise { Mismatch::Password } else { Mismatch::Coding };
        self.found = Some(found);
        self.present_said = self.pause.admits(now);
        Change::Begins(found, self.present_said)
    }

    fn clear(&mut self) -> Change {
        self.evidence = None;
        match self.found.take() {
            Some(_) => Change::Ends(self.present_said),
            None => Change::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use PathHealth::{Connecting, Down, Up};

    /// Detector with one report a second.
    struct Path {
        detector: Detector,
        now: Instant,
        report: PathReport,
    }

    impl Path {
        fn new(health: PathHealth) -> Self {
            let report = PathReport { health, ..PathReport::default() };
            Self { detector: Detector::default(), now: Instant::now(), report }
        }

        /// One second with this many datagrams; `change` sets their counters.
        fn second(&mut self, datagrams: u64, change: impl FnOnce(&mut PathCounters)) -> Change {
            self.now += Duration::from_secs(1);
            self.report.counters.rx_datagrams += datagrams;
            change(&mut self.report.counters);
            self.detector.note(self.now, &self.report)
        }

        /// Seconds with one undecodable datagram each.
        fn noise(&mut self, seconds: u64) -> Vec<Change> {
            let changes = (0..seconds).map(|_| self.second(1, |c| c.rx_dropped_invalid += 1));
            changes.filter(|change| *change != Change::None).collect()
        }
    }

    #[test]
    fn mismatch_is_reported_once() {
        for health in [Connecting, Down] {
            let mut path = Path::new(health);
            assert_eq!(path.noise(4), []);
            assert_eq!(path.noise(2), [Change::Begins(Mismatch::Coding, true)]);
            assert_eq!(path.noise(500), []);
            assert_eq!(path.second(1, |c| c.pongs_received += 1), Change::Ends(true));
            assert_eq!(path.detector.found(), None);
        }
    }

    #[test]
    fn few_forged_datagrams_are_no_mismatch() {
        let mut path = Path::new(Down);
        assert_eq!(path.second(100_000, |c| c.rx_dropped_invalid += 100_000), Change::None);
        for _ in 0..100 {
            assert_eq!(path.second(0, |_| ()), Change::None);
        }
        assert_eq!(path.noise(4), []);
    }

    #[test]
    fn answering_peer_is_no_mismatch() {
        let mut path = Path::new(Up);
        for _ in 0..100 {
            assert_eq!(path.second(1000, |c| c.rx_dropped_invalid += 999), Change::None);
        }
        path.report.health = Connecting;
        for _ in 0..100 {
            let forged =
                |c: &mut PathCounters| (c.rx_dropped_invalid, c.pongs_received) = (c.rx_dropped_invalid + 999, 1);
            path.report.counters.pongs_received = 0;
            path.detector.before.pongs_received = 0;
            assert_eq!(path.second(1000, forged), Change::None);
        }
    }

    #[test]
    fn private_ethertypes_are_no_mismatch() {
        let mut path = Path::new(Connecting);
        for _ in 0..100 {
            assert_eq!(
                path.second(2, |c| (c.rx_implausible, c.pings_received) = (c.rx_implausible + 1, 1)),
                Change::None
            );
        }
    }

    #[test]
    fn wrong_password_differs_from_wrong_key() {
        let mut path = Path::new(Connecting);
        let changes: Vec<_> = (0..9).map(|_| path.second(2, |c| c.rx_dropped_foreign += 2)).collect();
        assert_eq!(changes[4], Change::Begins(Mismatch::Password, true), "{changes:?}");
    }

    #[test]
    fn mismatch_ends_in_silence() {
        let mut path = Path::new(Connecting);
        path.noise(6);
        let quiet = |path: &mut Path| (0..60).map(|_| path.second(0, |_| ())).filter(|c| *c != Change::None).collect();
        let ends: Vec<_> = quiet(&mut path);
        assert_eq!(ends, [Change::Ends(true)]);
        assert_eq!(path.noise(6), [Change::Begins(Mismatch::Coding, false)]);
        let ends: Vec<_> = quiet(&mut path);
        assert_eq!(ends, [Change::Ends(false)]);
        path.now += super::super::pause::SHORTEST;
        assert_eq!(path.noise(6), [Change::Begins(Mismatch::Coding, true)]);
    }
}
