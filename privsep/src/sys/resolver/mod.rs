//! System calls of the resolver only; not part of the helper.

use std::io;

use nix::unistd::Pid;

use super::check;

/// Forks the process that asks one question; `Some` in the parent, `None` in the child.
pub fn fork_question() -> io::Result<Option<Pid>> {
    // SAFETY: the resolver has one thread, so no lock of another can be left held in the child. It starts none, and its table of
    // system calls allows only a clone(2) that shares no memory.
    let pid = check(unsafe { libc::fork() })?;
    Ok((pid != 0).then(|| Pid::from_raw(pid)))
}
