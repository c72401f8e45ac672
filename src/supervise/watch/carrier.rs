//! Carrier of a TAP that follows the paths (`[tap] carrier = "follow"`). The clock is an argument.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use privsep::ipc::{PathHealth, PathReport};
use privsep::sys::tap;

use crate::tunnel::Port;

/// Time for which a carrier stays while nothing is known: after a start with a stored TAP, and while no worker forwards. The peer
/// of a restarted end answers within five ping intervals, and a dead worker is replaced at once.
const HOLD: Duration = Duration::from_secs(10);

/// Stored TAP whose carrier follows the paths, during a start. Without [`leave`](Self::leave) it loses the carrier: after a start
/// that fails, no process would tell that no frames pass.
pub struct StoredCarrier(Option<OwnedFd>);

impl StoredCarrier {
    /// Watch over the carrier of a stored TAP, if it follows the paths.
    pub fn of(port: &Port, stored: Option<&OwnedFd>) -> Self {
        let follows = matches!(port, Port::Tap { follow: true, .. });
        Self(stored.filter(|_| follows).and_then(|tap| tap.try_clone().ok()))
    }

    /// Leaves the carrier to the running tunnel.
    pub fn leave(mut self) {
        self.0 = None;
    }
}

impl Drop for StoredCarrier {
    fn drop(&mut self) {
        if let Some(tap) = &self.0 {
            // Fails if the interface is gone.
            let _ = tap::set_carrier(tap.as_fd(), false);
        }
    }
}

/// Carrier that the interface should have, and the one that it has.
#[derive(Debug)]
pub struct Carrier {
    on: bool,
    /// Time of the last proof that frames pass, or of the start.
    proof: Instant,
}

impl Carrier {
    /// Carrier of an interface that has one now, or not. The start of the program counts as a proof.
    pub fn new(began: Instant, on: bool) -> Self {
        Self { on, proof: began }
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

    /// Time at which the carrier goes unless frames pass before; `None` without one.
    pub fn due(&self) -> Option<Instant> {
        self.on.then(|| self.proof + HOLD)
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
