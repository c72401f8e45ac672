//! The two loops between a port and the paths. [`Outward`] takes frames from the port and sends them, in its own thread. [`Inward`]
//! takes datagrams from the paths and gives frames to the port, in the main thread, which also keeps time and talks to the
//! supervisor. Each loop polls all its descriptors until the next deadline, and either can wake the other.

#[cfg(test)]
mod allocations;
mod answers;
pub mod guard;
mod inward;
mod outward;
pub mod published;
#[cfg(test)]
pub(crate) mod rig;
pub mod rules;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};

pub use answers::Answers;
pub use inward::Inward;
pub use outward::{Outward, leaves_partial};

use crate::forward::published::Published;
use crate::forward::rules::Rules;
use crate::io::{Clock, Waker};
use crate::underlay::Socket;
use crate::wire::{Counters, Route};

/// Pause of a handle in microseconds after an error, such as an interface that is down. Without it the error would repeat
/// endlessly.
const REST_US: u64 = 100_000;
/// Longest wait in microseconds for room in a queue before the rest of a batch is dropped.
const QUEUE_WAIT_US: u64 = 100_000;
/// Time in microseconds after which no batch waits for a full port: a path counts as down after more than five seconds without a
/// PONG.
const FULL_US: u64 = 1_000_000;
/// Longest time in microseconds that a new worker spends on dropping old frames.
const DRAINING_US: u64 = 100_000;

/// State shared by the loops.
pub struct Shared {
    /// UDP sockets of all paths.
    pub sockets: Vec<Arc<Socket>>,
    pub counters: Counters,
    pub rules: Rules,
    pub clock: Clock,
    /// Route published by the session.
    pub route: Published<Route>,
    /// Time in microseconds until which no frame is forwarded, because of a loop.
    pub blocked_until_us: AtomicU64,
    /// Number of passes of the outward loop.
    pub passes: AtomicU64,
    /// Whether a requested report waits for a pass. Not set for the report of a tick: the answer to its PING wakes the main thread.
    pub asked: AtomicBool,
    /// Waker of the outward loop.
    pub outward: Waker,
    /// Waker of the main thread.
    pub main: Waker,
}

impl Shared {
    /// Wakes the main thread if the session rests: frames have left, and their path must be probed.
    fn stir(&self) {
        if self.counters.resting.load(Relaxed) && self.counters.resting.swap(false, Relaxed) {
            self.main.wake();
        }
    }

    /// Records a pass of the outward loop in the middle of its work.
    fn pass(&self) {
        if self.asked.load(Relaxed) {
            self.woken();
        } else {
            self.passes.fetch_add(1, Relaxed);
        }
    }

    /// Records a pass of the woken outward loop, which its waker waits for.
    fn woken(&self) {
        self.outward.clear();
        self.passes.fetch_add(1, Relaxed);
        if self.asked.swap(false, Relaxed) {
            self.main.wake();
        }
    }
}
