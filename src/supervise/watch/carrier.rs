//! Carrier of a TAP that follows the paths (`[tap] carrier = "follow"`). Pure: the clock is an argument.

use std::time::{Duration, Instant};

use privsep::ipc::{PathHealth, PathReport};

/// Time for which a carrier stays while nothing is known: after a start with a stored TAP, and while no worker forwards. The peer
/// of a restarted end answers within five ping intervals, and a dead worker is replaced at once.
const HOLD: Duration = Duration::from_secs(10);

/// Carrier that the interface should have, and the one that it has.
#[derive(Debug)]
pub struct Carrier {
    on: bool,
    /// Time of the last proof that frames pass, or of the start.
    proof: Instant,
}

impl Carrier {
    /// Carrier of an interface that has one now, or not.
    pub fn new(now: Instant, on: bool) -> Self {
        Self { on, proof: now }
    }

    /// Whether the interface has a carrier.
    pub fn is_on(&self) -> bool {
        self.on
    }

    /// The other carrier, if the interface should have it. `forwards` tells whether a worker forwards.
    pub fn change(&mut self, now: Instant, forwards: bool, paths: &[PathReport]) -> Option<bool> {
        let any = |health| paths.iter().any(|path| path.health == health);
        let wanted = if forwards && any(PathHealth::Up) {
            self.proof = now;
            true
        } else if forwards && any(PathHealth::Down) {
            false
        } else {
            self.on && now < self.proof + HOLD
        };
        (wanted != self.on).then_some(wanted)
    }

    /// Records that the interface got this carrier.
    pub fn set(&mut self, on: bool) {
        self.on = on;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use PathHealth::{Connecting, Down, Up};

    /// Carrier after each step: seconds since the start, whether a worker forwards, health of the paths.
    fn follow(first: bool, steps: &[(u64, bool, [PathHealth; 2])]) -> Vec<bool> {
        let start = Instant::now();
        let mut carrier = Carrier::new(start, first);
        let step = |&(second, forwards, health): &(u64, bool, [PathHealth; 2])| {
            let paths = health.map(|health| PathReport { health, ..PathReport::default() });
            if let Some(on) = carrier.change(start + Duration::from_secs(second), forwards, &paths) {
                assert_ne!(on, carrier.is_on());
                carrier.set(on);
            }
            carrier.is_on()
        };
        steps.iter().map(step).collect()
    }

    #[test]
    fn carrier_follows_any_path() {
        let steps = [
            (0, false, [Connecting; 2]),
            (1, true, [Connecting; 2]),
            (2, true, [Connecting, Up]),
            (50, true, [Down, Up]),
            (51, true, [Down; 2]),
            (52, true, [Up, Down]),
        ];
        assert_eq!(follow(false, &steps), [false, false, true, true, false, true]);
    }

    #[test]
    fn new_worker_or_start_keeps_carrier_for_a_while() {
        let stored = [(0, false, [Connecting; 2]), (9, true, [Connecting; 2]), (10, true, [Connecting; 2])];
        assert_eq!(follow(true, &stored), [true, true, false]);
        let worker = [(100, true, [Up; 2]), (105, false, [Up; 2]), (111, false, [Up; 2]), (112, true, [Up; 2])];
        assert_eq!(follow(false, &worker), [true, true, false, true]);
    }
}
