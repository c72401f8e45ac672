//! Times and limits of the evidence about paths, with their reasons, and the pace of pings that follows from them. A ping or pong is
//! a datagram of 52 bytes, 80 with IPv4 and UDP.

use super::rtt::RoundTrip;

const MILLISECOND: u64 = 1000;
const SECOND: u64 = 1_000_000;

/// Interval between pings of a path while frames leave by it. On average a ping follows a cut within 12 ms. Together with the pongs
/// for the peer this is 6.4 kB/s.
pub const FAST_US: u64 = 25 * MILLISECOND;
/// Number of paths that frames leave by up to which each has [`FAST_US`]. The pings of more paths share 20 kB/s.
const CARRIERS: u64 = 3;
/// Interval between pings while an answer is overdue: ten pings within [`SILENCE_US`].
const DOUBTFUL_US: u64 = 10 * MILLISECOND;
/// Part of a round trip between two pings of a path with a long one. It bounds the pings in flight.
const SHARE: u64 = 8;
/// Interval between pings of the other paths while there is traffic, so that frames move to a path known to be alive.
const STANDBY_US: u64 = 500 * MILLISECOND;
/// The same while an answer is overdue on a path that frames leave by: now their next path matters.
const ALARM_US: u64 = 50 * MILLISECOND;
/// Interval between pings of a path that has just ceased to answer, while there is traffic, and the time for which it lasts.
const REVIVAL_US: u64 = 250 * MILLISECOND;
const REVIVAL: u64 = 10 * SECOND;
/// Interval between pings of a path that has not answered yet, in the first time after the first ping.
const FIRST_US: u64 = 200 * MILLISECOND;
const FIRST: u64 = 5 * SECOND;
/// Number of pings in a hold time, and the bounds of the interval between two of them.
const TRIALS: u64 = 20;
const TRIAL_US: (u64, u64) = (100 * MILLISECOND, SECOND);

/// Least silence of a dead path, for processes that wait for a processor.
const SILENCE_US: u64 = 100 * MILLISECOND;
/// Unanswered overdue pings of a dead path. At 5 % loss each way one ping in ten gets no answer, so eight in a row are one in
/// 10^8, or one in an hour of traffic in 10^3.
pub const UNANSWERED: usize = 8;
/// Additional time for an answer: processes that wait for a processor.
const GRACE_US: u64 = 10 * MILLISECOND;
/// Time for an answer before the first round trip is known: the first retransmission timeout of RFC 6298.
const UNKNOWN_US: u64 = SECOND;
/// Additional silence of an active path after which frames move to a path that has not answered since.
pub const UNPROVED_US: u64 = 100 * MILLISECOND;
/// Silence after which a dead path is reported as down: a worker is replaced faster.
pub const DOWN_US: u64 = SECOND;
/// Ping intervals without an answer after which a path is dead, also without pings.
pub const INTERVALS: u64 = 5;

/// Hold time after a failure.
pub const HOLD_US: u64 = 2 * SECOND;
/// Longest pause before frames move from a path that answers to a shorter one. They wait in the queue of the port meanwhile: of a TAP,
/// a thousand frames or superframes.
const LONGEST_PAUSE_US: u64 = 50 * MILLISECOND;
/// Longest hold time, after repeated failures.
pub const LONGEST_HOLD_US: u64 = 300 * SECOND;
/// Least time of service after which earlier failures are forgotten.
pub const FORGOTTEN_US: u64 = 60 * SECOND;

/// Lost datagrams in a thousand of a poor path, and of one that is no longer poor.
pub const LOSS: (u16, u16) = (300, 50);
/// Round trip time of a poor path, and of one that is no longer poor.
pub const DELAY_US: (u64, u64) = (SECOND, 800 * MILLISECOND);

/// Part of a path in the traffic, on which the pace of its pings depends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Role {
    /// Frames leave by the path.
    pub carries: bool,
    /// Number of paths that frames leave by.
    pub carriers: u64,
    /// There is traffic.
    pub traffic: bool,
    /// An answer is overdue on a path that frames leave by.
    pub alarm: bool,
}

/// State of a path on which the pace of its pings depends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// An answer is overdue.
    Doubtful,
    /// Within its hold time, in microseconds.
    Proving(u64),
    /// Not answered yet, for this time in microseconds since the first ping.
    New(u64),
    /// Dead for this time in microseconds.
    Dead(u64),
    /// Answering.
    Steady,
}

/// Interval in microseconds from a ping to the next one, apart from the ping interval of an idle path; `None` for no such ping.
pub fn interval_us(pace: Pace, role: Role, rtt: RoundTrip) -> Option<u64> {
    let share = rtt.srtt_us() / SHARE;
    let steady = if role.carries {
        share.clamp(FAST_US * role.carriers.div_ceil(CARRIERS).max(1), REVIVAL_US)
    } else if role.alarm {
        ALARM_US
    } else {
        STANDBY_US
    };
    match pace {
        Pace::Dead(for_us) if role.traffic && for_us < REVIVAL => Some(REVIVAL_US),
        Pace::Doubtful => Some(share.clamp(DOUBTFUL_US, REVIVAL_US)),
        Pace::New(for_us) if for_us < FIRST => Some(FIRST_US),
        Pace::Dead(_) | Pace::New(_) => role.traffic.then_some(STANDBY_US),
        Pace::Proving(hold_us) => {
            let trial = (hold_us / TRIALS).clamp(TRIAL_US.0, TRIAL_US.1);
            Some(if role.traffic { trial.min(steady) } else { trial })
        }
        Pace::Steady => role.traffic.then_some(steady),
    }
}

/// Time in microseconds after which the answer to a ping is overdue.
pub fn overdue_us(rtt: RoundTrip) -> u64 {
    if rtt.is_known() { rtt.srtt_us() + 4 * rtt.var_us() + GRACE_US } else { UNKNOWN_US }
}

/// Pause in microseconds after the last frame by one path, before the first one leaves by another path: frames do not overtake those
/// that are still on the way.
pub fn pause_us(from: RoundTrip, to: RoundTrip) -> u64 {
    let ahead = from.srtt_us().saturating_sub(to.srtt_us()) / 2;
    (ahead + from.var_us() + to.var_us() + GRACE_US).min(LONGEST_PAUSE_US)
}

/// Silence in microseconds of a dead path.
pub fn silence_us(rtt: RoundTrip) -> u64 {
    if rtt.is_known() { (2 * rtt.srtt_us() + 4 * rtt.var_us()).max(SILENCE_US) } else { UNKNOWN_US }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rtt(us: u64) -> RoundTrip {
        let mut rtt = RoundTrip::default();
        (0..200).for_each(|_| rtt.sample(us));
        rtt
    }

    #[test]
    fn pace_follows_state_and_traffic() {
        let (near, far) = (rtt(1000), rtt(400_000));
        let idle = Role::default();
        let active = Role { carries: true, traffic: true, ..idle };
        let standby = Role { traffic: true, ..idle };
        for (pace, role, rtt, expected) in [
            (Pace::Steady, idle, near, None),
            (Pace::Steady, active, near, Some(FAST_US)),
            (Pace::Steady, active, far, Some(50_000)),
            (Pace::Steady, Role { carriers: 8, ..active }, near, Some(3 * FAST_US)),
            (Pace::Steady, standby, near, Some(STANDBY_US)),
            (Pace::Steady, Role { alarm: true, ..standby }, near, Some(ALARM_US)),
            (Pace::Doubtful, idle, near, Some(DOUBTFUL_US)),
            (Pace::Doubtful, idle, far, Some(50_000)),
            (Pace::Proving(HOLD_US), idle, near, Some(100_000)),
            (Pace::Proving(LONGEST_HOLD_US), idle, near, Some(SECOND)),
            // Frames leave by it, or may soon.
            (Pace::Proving(LONGEST_HOLD_US), active, near, Some(FAST_US)),
            (Pace::Proving(LONGEST_HOLD_US), Role { alarm: true, ..standby }, near, Some(ALARM_US)),
            (Pace::New(0), idle, RoundTrip::default(), Some(FIRST_US)),
            (Pace::New(FIRST), idle, RoundTrip::default(), None),
            (Pace::Dead(0), idle, near, None),
            (Pace::Dead(0), standby, near, Some(REVIVAL_US)),
            (Pace::Dead(REVIVAL), active, near, Some(STANDBY_US)),
        ] {
            assert_eq!(interval_us(pace, role, rtt), expected, "{pace:?} {role:?}");
        }
    }
}
