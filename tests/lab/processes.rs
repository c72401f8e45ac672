//! What /proc tells of processes.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::wait_for;

/// A process's children and their states, 'Z' for those that have ended and not been waited for.
pub fn children(parent: Pid) -> Vec<(Pid, String)> {
    let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().into_string().ok());
    let child = |pid: i32| {
        // "PID (NAME) STATE PARENT ..."
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let mut fields = stat.rsplit_once(") ")?.1.split(' ');
        let state = fields.next()?.to_owned();
        (fields.next()? == parent.to_string()).then(|| (Pid::from_raw(pid), state))
    };
    processes.filter_map(|name| child(name.parse().ok()?)).collect()
}

/// Number of open descriptors of a process, and its resident memory in KiB.
pub fn resources(pid: Pid) -> (usize, u64) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")).unwrap();
    (fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count(), resident.parse().unwrap())
}

/// Makes a process crash as a bug of its own would: what its main thread returns to from its sleep becomes nonsense, for
/// every thread that sleeps there. (A worker has all signals blocked, so that none but SIGKILL reaches it from outside.)
pub fn crash(pid: Pid) {
    // "NUMBER ARGUMENTS... STACK PLACE", or "running".
    let place = wait_for("sleep", crate::lab::PATIENCE, || {
        let call = fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap();
        u64::from_str_radix(call.trim().rsplit_once(" 0x")?.1, 16).ok()
    });
    File::options().write(true).open(format!("/proc/{pid}/mem")).unwrap().write_all_at(&[0; 16], place).unwrap();
}

/// The thread of this name, the main thread where it is empty.
pub fn thread(process: Pid, name: &str) -> Pid {
    if name.is_empty() {
        return process;
    }
    let mut tasks = fs::read_dir(format!("/proc/{process}/task")).unwrap().map(|task| task.unwrap());
    let task = tasks.find(|task| fs::read_to_string(task.path().join("comm")).unwrap().trim() == name);
    Pid::from_raw(task.expect("a thread of this name").file_name().to_str().unwrap().parse().unwrap())
}

/// Stops one thread, and only this one, until its process has been killed, for at most `limit`.
///
/// That is done by tracing it (ptrace(2)), so this thread must be told of its end before anybody else can be.
pub fn freeze(thread: Pid, limit: Duration) {
    ptrace::seize(thread, ptrace::Options::empty()).unwrap();
    ptrace::interrupt(thread).unwrap();
    let wait = |flags: WaitPidFlag| waitpid(thread, Some(flags | WaitPidFlag::__WALL)).unwrap();
    assert!(matches!(wait(WaitPidFlag::empty()), WaitStatus::PtraceEvent(..)));
    let status = wait_for("end of the frozen thread", limit, || {
        Some(wait(WaitPidFlag::WNOHANG)).filter(|status| *status != WaitStatus::StillAlive)
    });
    assert_eq!(status, WaitStatus::Signaled(thread, Signal::SIGKILL, false));
}
