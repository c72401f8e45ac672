//! When a path counts as up or down. One PING a tick, a tick about a second; a PONG sets the tick of the last answer.

use privsep::ipc::PathHealth;

/// Ticks without an answer after which a path is down.
const DOWN_AFTER: u64 = 5;
/// An answer younger than this many ticks brings a path up.
const UP_WITHIN: u64 = 4;

/// Health at tick `now`, when the last PONG came in tick `last_pong` (0: never).
pub fn next(health: PathHealth, now: u64, last_pong: u64) -> PathHealth {
    match health {
        PathHealth::Connecting | PathHealth::Down if last_pong > 0 && now < last_pong + UP_WITHIN => PathHealth::Up,
        PathHealth::Up if now > last_pong + DOWN_AFTER => PathHealth::Down,
        same => same,
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
            assert_eq!(next(health, now, last_pong), expected, "{health:?} at {now}, last PONG {last_pong}");
        }
    }
}
