//! A child process that never outlives its handle.

use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;

/// A child. Dropping it kills it and waits for its end.
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
                kill(self.pid, Signal::SIGKILL)?;
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
