//! Process attributes that nix does not cover.

use std::ffi::c_int;
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::ptr;

use nix::unistd::Pid;

use super::check;

/// Descriptor of the channel to the supervisor in helper, worker and resolver.
pub const SUPERVISOR_FD: RawFd = 3;
/// Descriptor on which a worker receives its handles.
pub const HANDLES_FD: RawFd = 4;

/// Takes over a descriptor that this process inherited.
///
/// # Errors
/// `EBADF` if the descriptor is not open, because the supervisor did not start this program.
pub fn inherited(fd: RawFd) -> io::Result<OwnedFd> {
    if ![SUPERVISOR_FD, HANDLES_FD].contains(&fd) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: fcntl with F_GETFD reads no memory; a bad number gives EBADF.
    check(unsafe { libc::fcntl(fd, libc::F_GETFD) })?;
    // SAFETY: open, and by the callers' contract (start of main, each number once) without another owner.
    Ok(unsafe { std::os::fd::FromRawFd::from_raw_fd(fd) })
}

/// Forks the process that continues in the background; `Some` in the parent, `None` in the child.
///
/// # Errors
/// As fork(2). Fails unless the process has exactly one thread.
pub fn fork_background() -> io::Result<Option<Pid>> {
    if !std::fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() == 1) {
        return Err(io::Error::other("fork refused: several threads, or /proc is not mounted"));
    }
    // SAFETY: there is one thread, so no lock of another can be left held in the child.
    let pid = check(unsafe { libc::fork() })?;
    Ok((pid != 0).then(|| Pid::from_raw(pid)))
}

/// Takes over the first `count` descriptors above the standard streams (`sd_listen_fds(3)`) and closes all higher ones. The result
/// has `None` for a descriptor that is not open. Only for the first lines of `main`.
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

/// Sets memory-deny-write-execute (prctl(2), `PR_SET_MDWE`, Linux 6.3): no mapping can gain execute permission.
///
/// # Errors
/// `EINVAL` on a kernel without it.
pub fn deny_write_execute() -> io::Result<()> {
    const PR_SET_MDWE: c_int = 65;
    const PR_MDWE_REFUSE_EXEC_GAIN: libc::c_ulong = 1;
    // SAFETY: prctl with plain numbers.
    check(unsafe { libc::prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0_u64, 0_u64, 0_u64) }).map(drop)
}

/// Whether as many more bytes can be mapped, as an allocator would map them.
pub fn has_room(bytes: u64) -> bool {
    let Ok(length) = usize::try_from(bytes) else { return false };
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping where there is none; no other code has its address, and it is unmapped at once.
    unsafe {
        let place = libc::mmap(ptr::null_mut(), length, protection, flags, -1, 0);
        place != libc::MAP_FAILED && libc::munmap(place, length) == 0
    }
}

/// Resets the signals that the parent ignored, except SIGPIPE, which Rust's runtime ignores.
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
