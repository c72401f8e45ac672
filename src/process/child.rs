//! Child process that ends with its handle.

use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;

/// Longest wait for a child that cannot be signalled.
const PATIENCE: Duration = Duration::from_secs(1);

/// Child process. Dropping the handle kills the child and waits for its end.
///
/// Signals do not reach the helper, because it was started before the supervisor confined itself (landlock(7)). The helper exits at
/// the end of its channel, which must be closed before the handle is dropped.
pub struct Child {
    pid: Pid,
    reaped: bool,
}

impl Child {
    /// Takes ownership of a child that has not been waited for.
    pub fn new(pid: Pid) -> Self {
        Self { pid, reaped: false }
    }

    /// Process id.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Waits up to `limit` for the end of the child, and blocks the caller. Returns whether it has ended.
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

    /// Kills the child if it still runs, and returns its exit status.
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
            // The child does not exist any more, or the failure cannot be reported.
            let _ = self.kill_and_wait();
        }
    }
}
