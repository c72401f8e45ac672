//! When a path counts as up or down, and which one frames leave by. A PING each interval, in ticks of about a second; a PONG sets
//! the tick of the last answer.

use privsep::ipc::PathHealth;

/// Intervals without an answer after which a path is down.
const DOWN_AFTER: u64 = 5;
/// An answer younger than this many ticks brings a path up.
const UP_WITHIN: u64 = 4;

/// Health at tick `now`, when the last PONG came in tick `last_pong` (0: never) and a PING leaves every `interval` ticks.
pub fn next(health: PathHealth, now: u64, last_pong: u64, interval: u64) -> PathHealth {
    match health {
        PathHealth::Connecting | PathHealth::Down if last_pong > 0 && now < last_pong + UP_WITHIN => PathHealth::Up,
        PathHealth::Up if now > last_pong + DOWN_AFTER * interval => PathHealth::Down,
        same => same,
    }
}

/// The path that frames leave by at tick `now`: the master when it is up; else the slave when that is up and the master
/// has had its time; else the one of before, so that never a path is taken that does not answer. `None` is a path that is not
/// there.
pub fn active(master_and_slave: [Option<PathHealth>; 2], now: u64, before: usize) -> usize {
    match master_and_slave {
        [Some(PathHealth::Up), _] => 0,
        [Some(PathHealth::Connecting), _] if now <= DOWN_AFTER => before,
        [_, Some(PathHealth::Up)] => 1,
        _ => before,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use PathHealth::{Connecting, Down, Up};

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
    fn a_path_is_down_after_five_intervals() {
        for (now, expected) in [(51, Up), (52, Down)] {
            assert_eq!(next(Up, now, 1, 10), expected, "{now}");
        }
    }

    #[test]
    fn the_active_path() {
        for (paths, now, before, expected) in [
            ([Connecting, Up], 5, 0, 0), // the master has its time
            ([Connecting, Up], 6, 0, 1),
            ([Down, Up], 9, 0, 1),
            ([Up, Up], 9, 1, 0),     // return
            ([Down, Down], 9, 0, 0), // never to a path that does not answer
            ([Down, Connecting], 9, 0, 0),
            ([Down, Down], 9, 1, 1),
        ] {
            assert_eq!(active(paths.map(Some), now, before), expected, "{paths:?} at {now}, before {before}");
        }
        assert_eq!(active([Some(Down), None], 9, 0), 0);
    }
}
