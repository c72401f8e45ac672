//! A child process that does not outlive its handle.

use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;

/// Longest wait for a child that cannot be killed.
const PATIENCE: Duration = Duration::from_secs(1);

/// A child. Dropping it kills it and waits for its end.
///
/// The helper was started before the supervisor confined itself, so that a signal no longer reaches it (landlock(7)): it ends
/// by itself, at the end of its channel, which must be closed before this is dropped.
pub struct Child {
    pid: Pid,
    reaped: bool,
}

impl Child {
    /// Takes over a child that nobody has waited for.
    pub fn new(pid: Pid) -> Self {
        Self { pid, reaped: false }
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Waits until it has ended, for at most `limit`, which stops everything else; whether it has.
    pub fn ends_within(&self, limit: Duration) -> bool {
        let (start, flags) = (Instant::now(), WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT);
        while let Ok(WaitStatus::StillAlive) = waitid(Id::Pid(self.pid), flags) {
            if start.elapsed() >= limit {
                return false;
            }
            sleep(Duration::from_millis(1));
        }
        true
    }

    /// Kills it if it still runs, waits for its end and says how it ended.
    pub fn end(mut self) -> nix::Result<WaitStatus> {
        self.kill_and_wait()
    }

    fn kill_and_wait(&mut self) -> nix::Result<WaitStatus> {
        self.reaped = true;
        match waitpid(self.pid, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => {
                if kill(self.pid, Signal::SIGKILL).is_err() && !self.ends_within(PATIENCE) {
                    return Ok(WaitStatus::StillAlive);
                }
                waitpid(self.pid, None)
            }
            status => status,
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.reaped {
            // There is no child any more, or nobody left to tell.
            let _ = self.kill_and_wait();
        }
    }
}
