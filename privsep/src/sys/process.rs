//! Starting the other executables, and process attributes that nix does not cover.

use std::ffi::{CStr, c_char, c_int};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::ptr;

use nix::unistd::Pid;

use super::check;

/// Descriptor of the channel to the supervisor in helper and worker.
pub const SUPERVISOR_FD: RawFd = 3;
/// Descriptor on which a worker receives its handles.
pub const HANDLES_FD: RawFd = 4;
/// Where the child keeps the executable until `execveat` has used it.
const EXECUTABLE_FD: RawFd = 5;
/// Exit status of a child that could not execute.
pub const EXEC_FAILED: c_int = 127;

/// Takes over a descriptor that this process was started with.
///
/// # Errors
/// `EBADF` when it is not open: the program was not started by the supervisor.
pub fn inherited(fd: RawFd) -> io::Result<OwnedFd> {
    if ![SUPERVISOR_FD, HANDLES_FD].contains(&fd) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: fcntl with F_GETFD reads no memory; a bad number gives EBADF.
    check(unsafe { libc::fcntl(fd, libc::F_GETFD) })?;
    // SAFETY: open, and by the callers' contract (start of main, each number once) owned by nobody else.
    Ok(unsafe { std::os::fd::FromRawFd::from_raw_fd(fd) })
}

/// Starts `executable` by fork and `execveat`, so that what runs is the file that was opened, whatever its path holds now.
///
/// The child has `supervisor` as descriptor 3, `handles` as descriptor 4 if given, standard streams on `/dev/null`
/// so that it holds nothing of whoever started us, no other descriptor, an empty environment, `name` as its only argument,
/// all signals blocked, and dies by SIGKILL with the calling thread.
pub fn spawn(
    executable: BorrowedFd<'_>,
    name: &CStr,
    supervisor: BorrowedFd<'_>,
    handles: Option<BorrowedFd<'_>>,
) -> io::Result<Pid> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    // Copies above the numbers that the child will overwrite.
    let high = |fd: BorrowedFd<'_>| -> io::Result<OwnedFd> {
        // SAFETY: F_DUPFD_CLOEXEC takes a plain number.
        let copy = check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 10) })?;
        // SAFETY: just made, owned by nobody else.
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

/// What the child does between fork and exec; returns only on failure. No allocation, no lock.
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

/// Splits off the process that goes on in the background; `Some` in the parent, `None` in the child.
///
/// # Errors
/// As fork(2). Must be called while the process has one thread; refused otherwise.
pub fn fork_background() -> io::Result<Option<Pid>> {
    if !std::fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() == 1) {
        return Err(io::Error::other("fork with several threads, or without /proc to count them"));
    }
    // SAFETY: there is one thread, so no lock of another can be left held in the child.
    let pid = check(unsafe { libc::fork() })?;
    Ok((pid != 0).then(|| Pid::from_raw(pid)))
}

/// Takes over the first `count` descriptors above the standard streams (`sd_listen_fds(3)`) and closes all others that
/// whoever started us has left open; `None` for one that is not open. Only for the first lines of `main`.
pub fn take_inherited(count: u16) -> io::Result<Vec<Option<OwnedFd>>> {
    let first_other = 3 + libc::c_uint::from(count);
    // SAFETY: called first in main, when nothing of this program owns a descriptor above the standard streams.
    if unsafe { libc::syscall(libc::SYS_close_range, first_other, u32::MAX, 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    let take = |fd: RawFd| {
        // SAFETY: F_SETFD takes a plain number; a descriptor that is not open gives EBADF.
        check(unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) }).ok()?;
        // SAFETY: open, and nothing of this program owns it yet.
        Some(unsafe { std::os::fd::FromRawFd::from_raw_fd(fd) })
    };
    Ok((3..3 + RawFd::from(count)).map(take).collect())
}

/// Memory-deny-write-execute (prctl(2), `PR_SET_MDWE`, Linux 6.3): no mapping gains execute permission any more.
///
/// # Errors
/// `EINVAL` on a kernel that lacks it.
pub fn deny_write_execute() -> io::Result<()> {
    const PR_SET_MDWE: c_int = 65;
    const PR_MDWE_REFUSE_EXEC_GAIN: libc::c_ulong = 1;
    // SAFETY: prctl with plain numbers.
    check(unsafe { libc::prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0_u64, 0_u64, 0_u64) }).map(drop)
}

/// Whether so many bytes more can be mapped, as an allocator would.
pub fn has_room(bytes: u64) -> bool {
    let Ok(length) = usize::try_from(bytes) else { return false };
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping where there is none; nobody else has its address, and it goes again at once.
    unsafe {
        let place = libc::mmap(ptr::null_mut(), length, protection, flags, -1, 0);
        place != libc::MAP_FAILED && libc::munmap(place, length) == 0
    }
}

/// Takes back what whoever started this program has had ignored, but SIGPIPE, which Rust's own start ignores.
pub fn default_signals() {
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: a plain struct of numbers, for which zeros are valid.
        let mut now: libc::sigaction = unsafe { std::mem::zeroed() };
        // SAFETY: asks only, into that struct; a number that is no signal gives EINVAL.
        let known = unsafe { libc::sigaction(signal, ptr::null(), &raw mut now) } == 0;
        if known && now.sa_sigaction == libc::SIG_IGN && signal != libc::SIGPIPE {
            // SAFETY: sets no handler.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
    }
}

/// Forgets every environment variable but `kept`, also where the kernel has put them (`/proc/PID/environ`). Only for the
/// first lines of `main`.
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
