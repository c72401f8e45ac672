//! The two loops that join a port to a path. [`Outward`] takes from the port and sends, in a thread of its own; [`Inward`] takes
//! from the paths and gives to the port, in the main thread, which also keeps time and talks to the supervisor. Each polls
//! all that it owns until the next deadline, and either can wake the other.

#[cfg(test)]
mod allocations;
mod inward;
mod outward;
pub mod published;
#[cfg(test)]
pub(crate) mod rig;
pub mod rules;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};

pub use inward::Inward;
pub use outward::{Outward, leaves_partial};

use crate::forward::published::Published;
use crate::forward::rules::Rules;
use crate::io::{Clock, Waker};
use crate::underlay::Socket;
use crate::wire::{Counters, Route};

/// Pause of a handle after an error (an interface that is down), which would otherwise be reported without end.
const REST_US: u64 = 100_000;
/// Longest wait for room in a queue before what is left of a batch is dropped.
const QUEUE_WAIT_US: u64 = 100_000;
/// Time of a port without room from which on nobody waits for it: a path is down after more than five seconds without a PONG.
const FULL_US: u64 = 1_000_000;
/// Longest time that a new worker spends on what waited for it.
const DRAINING_US: u64 = 100_000;

/// What the loops share.
pub struct Shared {
    /// The UDP sockets of all paths.
    pub sockets: Vec<Arc<Socket>>,
    pub counters: Counters,
    pub rules: Rules,
    pub clock: Clock,
    /// Where frames go: the session's word.
    pub route: Published<Route>,
    /// Passes of the outward loop.
    pub passes: AtomicU64,
    /// Somebody waits for it to pass. Not so for the report of a tick: the answer to its PING wakes us soon enough.
    pub asked: AtomicBool,
    /// Wakes the outward loop.
    pub outward: Waker,
    /// Wakes the main thread.
    pub main: Waker,
}

impl Shared {
    /// The outward loop passes, in the middle of its work.
    fn pass(&self) {
        if self.asked.load(Relaxed) {
            self.woken();
        } else {
            self.passes.fetch_add(1, Relaxed);
        }
    }

    /// The outward loop has been woken: who wakes it wants to see that it passes.
    fn woken(&self) {
        self.outward.clear();
        self.passes.fetch_add(1, Relaxed);
        if self.asked.swap(false, Relaxed) {
            self.main.wake();
        }
    }
}
