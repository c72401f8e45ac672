//! Detection of frames that loop through the tunnel. Pure: the clock is an argument, counters are a worker's.
//!
//! The rate alone does not tell, because a packet socket or a TAP gets no more frames than the worker takes. Two kinds of frames
//! do: broadcasts, of which no sane network carries thousands a second, and the tunnel's own datagrams.

use std::time::{Duration, Instant};

use privsep::ipc::PortCounters;

use super::pause::Pause;

/// Shortest evaluated interval. Clients may ask for the status many times a second.
const INTERVAL: Duration = Duration::from_millis(800);
/// Rate of broadcasts in frames a second that counts as a storm. A network of a thousand hosts has a hundred.
const BROADCASTS: u64 = 10_000;
/// Consecutive intervals with such frames that are necessary.
const ENOUGH: u32 = 3;
/// Time without such frames after which the storm is over.
const GONE: Duration = Duration::from_secs(10);

/// Kind of looping frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storm {
    /// The tunnel's own datagrams.
    Own,
    /// Broadcasts.
    Broadcast,
    /// Frames of the loop detection; the worker has blocked the tunnel.
    Blocked,
}

impl Storm {
    /// Sentence for log and status.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Own => {
                "storm: the tunnel's own datagrams enter it again: move the underlay to another interface, or set \
                 loop-check = true (-loopcheck)"
            }
            Self::Broadcast => {
                "storm: more than 10,000 broadcasts a second: remove a second link between the two networks, or use \
                 spanning tree"
            }
            Self::Blocked => {
                "loop: frames of the tunnel come back by another link between the two networks, so this end forwards \
                 nothing: remove that link, or use spanning tree"
            }
        }
    }
}

/// Storm in one interval of this length, by its counters.
pub fn judge(before: &PortCounters, now: &PortCounters, interval: Duration) -> Option<Storm> {
    let ms = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
    let all = |port: &PortCounters| port.rx_broadcast.saturating_add(port.rx_dropped_broadcast);
    let broadcasts = all(now).saturating_sub(all(before));
    if now.rx_own > before.rx_own {
        Some(Storm::Own)
    } else {
        (broadcasts.saturating_mul(1000) > BROADCASTS.saturating_mul(ms)).then_some(Storm::Broadcast)
    }
}

/// Detector for the local side.
#[derive(Debug)]
pub struct Detector {
    before: PortCounters,
    since: Instant,
    /// Number of intervals with a storm, and time of the last.
    intervals: u32,
    last: Instant,
    found: Option<Storm>,
    pause: Pause,
    /// Pause after a line about a blocked tunnel, which a line about its storm precedes.
    pause_of_blocked: Pause,
}

impl Detector {
    /// Detector that starts now.
    pub fn new(now: Instant) -> Self {
        Self {
            before: PortCounters::default(),
            since: now,
            intervals: 0,
            last: now,
            found: None,
            pause: Pause::default(),
            pause_of_blocked: Pause::default(),
        }
    }

    /// The present storm, if any.
    pub fn found(&self) -> Option<Storm> {
        self.found
    }

    /// Evaluates a report and returns a log line. `blocked` tells whether the worker has blocked the tunnel.
    pub fn note(&mut self, now: Instant, port: &PortCounters, blocked: bool) -> Option<&'static str> {
        if blocked != (self.found == Some(Storm::Blocked)) {
            self.found = blocked.then_some(Storm::Blocked);
            return (blocked && self.pause_of_blocked.admits(now)).then(|| Storm::Blocked.sentence());
        }
        let interval = now.duration_since(self.since);
        if interval < INTERVAL {
            return None;
        }
        let (before, after) = (std::mem::replace(&mut self.before, *port), *port);
        self.since = now;
        let Some(storm) = judge(&before, &after, interval).filter(|_| !blocked) else {
            if now.duration_since(self.last) > GONE && !blocked {
                (self.intervals, self.found) = (0, None);
            }
            return None;
        };
        (self.intervals, self.last) = (self.intervals.saturating_add(1), now);
        if self.intervals < ENOUGH || self.found.is_some() {
            return None;
        }
        self.found = Some(storm);
        self.pause.admits(now).then(|| storm.sentence())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Seconds in which a line is logged, for these counts a second: broadcasts, own datagrams.
    fn said(seconds: &[(u64, u64)]) -> Vec<usize> {
        let start = Instant::now();
        let (mut detector, mut port, mut now) = (Detector::new(start), PortCounters::default(), start);
        let second = |(number, &(broadcasts, own)): (usize, &(u64, u64))| {
            let between = now + SECOND / 2;
            now += SECOND;
            (port.rx_broadcast, port.rx_own) = (port.rx_broadcast + broadcasts, port.rx_own + own);
            // A request in between changes nothing.
            assert_eq!(detector.note(between, &PortCounters::default(), false), None);
            detector.note(now, &port, false).map(|_| number)
        };
        seconds.iter().enumerate().filter_map(second).collect()
    }

    #[test]
    fn broadcast_rate_or_own_datagram_is_storm() {
        let counted = |rx_broadcast, rx_own| PortCounters { rx_broadcast, rx_own, ..PortCounters::default() };
        let nothing = counted(0, 0);
        for (port, interval, expected) in [
            (nothing, SECOND, None),
            (counted(10_000, 0), SECOND, None),
            (counted(10_001, 0), SECOND, Some(Storm::Broadcast)),
            (counted(15_000, 0), SECOND * 2, None),
            (counted(15_000, 1), SECOND * 2, Some(Storm::Own)),
            (counted(u64::MAX, 0), SECOND, Some(Storm::Broadcast)),
            (PortCounters { rx_dropped_broadcast: 10_001, ..nothing }, SECOND, Some(Storm::Broadcast)),
        ] {
            assert_eq!(judge(&nothing, &port, interval), expected, "{port:?}");
        }
        // Counters that were reset.
        assert_eq!(judge(&counted(u64::MAX, 7), &nothing, SECOND), None);
    }

    #[test]
    fn storm_is_logged_once() {
        assert_eq!(said(&[(20_000, 0); 100]), [2]);
        assert_eq!(said(&[(0, 5); 100]), [2]);
        assert_eq!(said(&[(20_000, 0); 2]), [0; 0]);
        let gusts = [[(20_000, 0); 2].as_slice(), &[(0, 0); 12]].concat().repeat(10);
        assert_eq!(said(&gusts), [0; 0]);
    }

    #[test]
    fn blocked_tunnel_is_reported_at_once() {
        let (start, mut port) = (Instant::now(), PortCounters::default());
        let mut detector = Detector::new(start);
        let mut lines = 0;
        for second in 1..60 {
            let blocked = (5..30).contains(&second) || second % 2 == 0 && second > 40;
            port.rx_broadcast += if second < 30 { 20_000 } else { 0 };
            let line = detector.note(start + SECOND * second, &port, blocked);
            lines += u32::from(line == Some(Storm::Blocked.sentence()));
            assert_eq!(detector.found() == Some(Storm::Blocked), blocked, "{second}");
        }
        assert_eq!((lines, detector.found()), (1, None), "a worker cannot fill the log");
    }

    #[test]
    fn ended_storm_is_not_repeated_at_once() {
        let once = [[(20_000, 0); 5].as_slice(), &[(9_000, 0); 20]].concat();
        assert_eq!(said(&once.repeat(10)), [2]);
        assert_eq!(said(&once.repeat(30)).len(), 2);
        let (start, mut port) = (Instant::now(), PortCounters::default());
        let mut detector = Detector::new(start);
        for second in 1..60 {
            port.rx_own += u64::from(second < 10);
            detector.note(start + SECOND * second, &port, false);
            assert_eq!(detector.found().is_some(), (3..20).contains(&second), "{second}");
        }
    }
}
