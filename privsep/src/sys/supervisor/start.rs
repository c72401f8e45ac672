//! Start of the other executables, and cleaning of the inherited environment.

use std::ffi::{CStr, c_char, c_int};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::ptr;

use nix::unistd::Pid;

use super::super::check;
use super::super::process::{HANDLES_FD, SUPERVISOR_FD};

/// Descriptor of the executable in the child until `execveat`.
const EXECUTABLE_FD: RawFd = 5;
/// Exit status of a child that could not execute.
pub const EXEC_FAILED: c_int = 127;

/// Starts `executable` by fork and `execveat`. The child runs the opened file, even if its path names another file now.
///
/// The child has `supervisor` as descriptor 3, `handles` as descriptor 4 if given, and no other descriptor. Its standard streams
/// are `/dev/null`, so that it keeps nothing of this program's parent. Its environment is empty, `name` is its only argument, and
/// all signals are blocked. It dies by SIGKILL with the calling thread, unless the caller has entered a
/// Landlock domain meanwhile that forbids signals to it.
pub fn spawn(
    executable: BorrowedFd<'_>,
    name: &CStr,
    supervisor: BorrowedFd<'_>,
    handles: Option<BorrowedFd<'_>>,
) -> io::Result<Pid> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    // Copies above the descriptor numbers that the child overwrites.
    let high = |fd: BorrowedFd<'_>| -> io::Result<OwnedFd> {
        // SAFETY: F_DUPFD_CLOEXEC takes a plain number.
        let copy = check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 10) })?;
        // SAFETY: just made, without another owner.
        Ok(unsafe { std::os::fd::FromRawFd::from_raw_fd(copy) })
    };
    let null = high(null.as_fd())?;
    let executable = high(executable)?;
    let supervisor = high(supervisor)?;
    let handles = handles.map(high).transpose()?;
    let mut moves: [(RawFd, RawFd, bool); 6] = [(-1, -1, false); 6];
    for (slot, to) in moves.iter_mut().zip(0..3) {
        *slot = (null.as_raw_fd(), to, false);
    }
    moves[3] = (supervisor.as_raw_fd(), SUPERVISOR_FD, false);
    if let Some(handles) = &handles {
        moves[4] = (handles.as_raw_fd(), HANDLES_FD, false);
    }
    moves[5] = (executable.as_raw_fd(), EXECUTABLE_FD, true);
    let parent = std::process::id();
    // SAFETY: the child calls only async-signal-safe functions on memory prepared above, then executes or exits.
    match check(unsafe { libc::fork() })? {
        0 => {
            child(&moves, name, parent);
            // SAFETY: ends the child without running this process's exit handlers.
            unsafe { libc::_exit(EXEC_FAILED) }
        }
        pid => Ok(Pid::from_raw(pid)),
    }
}

/// Prepares the child between fork and exec. Returns only on failure. Allocates nothing and takes no lock.
fn child(moves: &[(RawFd, RawFd, bool)], name: &CStr, parent: u32) {
    let arguments: [*const c_char; 2] = [name.as_ptr(), ptr::null()];
    let environment: [*const c_char; 1] = [ptr::null()];
    // SAFETY: all of these take numbers, or pointers to the arrays above, which live until the exec or exit.
    unsafe {
        if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) < 0 || libc::getppid().cast_unsigned() != parent {
            return;
        }
        let mut all = std::mem::zeroed::<libc::sigset_t>();
        libc::sigfillset(&raw mut all);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const all, ptr::null_mut());
        for &(from, to, close_on_exec) in moves {
            let flags = if close_on_exec { libc::O_CLOEXEC } else { 0 };
            if from >= 0 && libc::dup3(from, to, flags) < 0 {
                return;
            }
        }
        if moves[4].0 < 0 {
            libc::close(HANDLES_FD);
        }
        if libc::syscall(libc::SYS_close_range, EXECUTABLE_FD + 1, u32::MAX, 0) < 0 {
            return;
        }
        let (arguments, environment) = (arguments.as_ptr(), environment.as_ptr());
        libc::syscall(libc::SYS_execveat, EXECUTABLE_FD, c"".as_ptr(), arguments, environment, libc::AT_EMPTY_PATH);
    }
}

/// Removes every environment variable but `kept`, and overwrites them in the memory that the kernel shows as `/proc/PID/environ`.
/// Only for the first lines of `main`.
pub fn keep_environment(kept: &[&str]) {
    unsafe extern "C" {
        static mut environ: *mut *mut c_char;
    }
    // SAFETY: one thread, which holds no reference to a variable and has added none, so that each entry up to the null
    // pointer is a string on the stack that may be written; the kept ones move towards the front of the same array.
    unsafe {
        let (mut from, mut to) = (environ, environ);
        while !from.is_null() && !(*from).is_null() {
            let entry = *from;
            let text = CStr::from_ptr(entry).to_bytes();
            let (length, name) = (text.len(), text.split(|&byte| byte == b'=').next());
            if kept.iter().any(|kept| name == Some(kept.as_bytes())) {
                *to = entry;
                to = to.add(1);
            } else {
                ptr::write_bytes(entry, 0, length);
            }
            from = from.add(1);
        }
        if !to.is_null() {
            *to = ptr::null_mut();
        }
    }
}
