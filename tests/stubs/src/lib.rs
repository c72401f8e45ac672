//! Attackers, for the tests: nothing of this is shipped, and nothing that is shipped needs it.
//!
//! `stub-worker` is started in the worker's place. It confines itself by the worker's own code, and then does what a worker
//! that has been taken over from the network might try: [`attacks`]. `stub-helper` does the same with the helper's code:
//! [`helper`], `stub-resolver` with the resolver's: [`resolver`]. `stub-bare` leaves out all confinement of its own, for SELinux to show. `stub-neighbour` is another process of
//! the same user.

mod calls;
pub mod helper;
mod lies;
pub mod memory;
#[allow(unsafe_code)]
pub mod raw;
mod remains;
pub mod resolver;
mod supervisor;
mod unfiltered;

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use nix::poll::ppoll;
use nix::sys::time::TimeSpec;
use privsep::ipc::{Channel, FromWorker, ToWorker};

/// Exit status of a stub that nothing has stopped.
pub const SURVIVED: u8 = 66;

/// What an attacker in a confined worker has in its hands, and whom it is after.
pub struct Loot {
    /// The channel to the supervisor.
    pub supervisor: Channel<FromWorker, ToWorker>,
    /// The socket on which the handles came; the worker would have closed it.
    pub helper: OwnedFd,
    /// TAP or packet socket.
    pub port: OwnedFd,
    /// The first path's UDP socket.
    pub path: OwnedFd,
    /// Its executable.
    pub executable: PathBuf,
    /// The tick that it goes on from.
    pub tick: u64,
    /// Process id of the supervisor.
    pub supervisor_pid: i32,
    /// Process id of the helper.
    pub helper_pid: i32,
}

/// What an attack needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Any local side.
    Nothing,
    /// A TAP.
    Tap,
    /// A packet socket.
    Raw,
    /// A path over IPv6.
    Ipv6,
    /// A test of its own, because it is made again and again.
    Endurance,
    /// The same, and to come before the second from which on a worker counts as one that has forwarded.
    Haste,
    /// To be without a filter of its own: the one that it inherits is what counts.
    NoFilter,
    /// The same, on a kernel whose Landlock knows signals: what else denies it is what counts.
    Landlock,
    /// To be without any confinement of its own: it stands for a supervisor that has been taken over.
    Supervisor,
}

/// One thing that an attacker does.
pub struct Attack {
    /// Its name, one word.
    pub name: &'static str,
    /// What it needs.
    pub needs: Needs,
    /// What the supervisor says of this worker then.
    pub expected: &'static str,
    /// Does it; returns when nothing has stopped it.
    pub run: fn(&Loot),
}

/// Sleeps by the one call that a confined worker has for it.
pub fn sleep(time: Duration) {
    let _ = ppoll(&mut [], Some(TimeSpec::from_duration(time)), None);
}

/// All attacks.
pub fn attacks() -> impl Iterator<Item = &'static Attack> {
    calls::CALLS
        .iter()
        .chain(calls::ENTRIES)
        .chain(calls::CRASHES)
        .chain(lies::LIES)
        .chain(remains::REMAINS)
        .chain(unfiltered::UNFILTERED)
        .chain(supervisor::SUPERVISOR)
}
