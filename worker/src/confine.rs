//! Confinement of the worker, and its table of allowed system calls.
//!
//! The order matters. Capabilities, Landlock and memory protection act per thread or are inherited, so they precede the threads.
//! The limit of processes follows the threads, because no thread could start under it. The filter is last and covers all threads.

use std::io;

use privsep::confine;
use privsep::confine::seccomp::{self, Allowed, Arguments, allow};
use privsep::ipc::Confinement;
use privsep::sys::worker::heap;

/// Limit of a worker's own memory in bytes, ten times its need.
pub const MEMORY: u64 = 64 << 20;

/// Confines the process before it reads the first byte.
pub fn before_reading() -> io::Result<()> {
    confine::at_start()?;
    // Each further heap would add address space that could be filled beyond the limit.
    heap::one_for_all();
    Ok(())
}

/// Confines the process before the forwarding threads start.
pub fn before_threads() -> io::Result<Confinement> {
    confine::drop_capabilities()?;
    let landlock_abi = confine::landlock_all()?;
    Ok(Confinement { landlock_abi, mdwe: confine::deny_write_execute(), seccomp: false })
}

/// Limits memory, and allows no new thread or process. To be called when all threads run.
pub fn limit() -> io::Result<()> {
    confine::limit_resources(MEMORY)
}

/// Enforces the filter when all threads run. Workers use the table [`ALLOWED`]; tests may use another.
pub fn for_good(confinement: Confinement, table: &[Allowed]) -> io::Result<Confinement> {
    limit()?;
    seccomp::enforce(table)?;
    Ok(Confinement { seccomp: true, ..confinement })
}

use Arguments::{AbortItself, Any, OnlyFlags, PlainMemory, SocketOption};

/// Flags that a message may be sent with.
const SEND: &[i32] = &[libc::MSG_DONTWAIT, libc::MSG_NOSIGNAL];

/// Calls of the confined worker; any other call kills it. Of the calls that forward frames only `sendmmsg` has its arguments
/// checked: the kernel answers the others from a bitmap. `tests/attack/table.rs` shows that each line is needed, by leaving it out.
/// A reason that begins with "portable" belongs to machines or libraries other than those of the tests.
pub const ALLOWED: &[Allowed] = &[
    // Forwarding.
    allow("read", libc::SYS_read, Any, "frames from the TAP; wakeups"),
    allow("writev", libc::SYS_writev, Any, "frames to the TAP"),
    allow("write", libc::SYS_write, Any, "wakes the other loop"),
    allow("recvmmsg", libc::SYS_recvmmsg, Any, "batches from packet socket and UDP"),
    allow(
        "sendmmsg",
        libc::SYS_sendmmsg,
        OnlyFlags(3, SEND),
        "batches to packet socket and UDP; other flags would change the socket for later workers",
    ),
    allow("ppoll", libc::SYS_ppoll, Any, "waits for descriptors"),
    allow("futex", libc::SYS_futex, Any, "the gate that releases the threads; locks"),
    allow(
        "getsockopt",
        libc::SYS_getsockopt,
        SocketOption(libc::SOL_PACKET, &[libc::PACKET_STATISTICS]),
        "count of frames that the kernel dropped",
    ),
    // The supervisor.
    allow("recvmsg", libc::SYS_recvmsg, Any, "messages from the supervisor"),
    allow("sendmsg", libc::SYS_sendmsg, OnlyFlags(2, SEND), "messages to the supervisor; flags as for sendmmsg"),
    // Memory.
    allow("brk", libc::SYS_brk, Any, "allocator"),
    allow("mmap", libc::SYS_mmap, PlainMemory, "allocator; never executable; counts in the limit"),
    allow("munmap", libc::SYS_munmap, Any, "allocator"),
    // The secure wire.
    allow("getrandom", libc::SYS_getrandom, Any, "keys, indices and tokens of the secure wire"),
    // Time.
    allow("clock_gettime", libc::SYS_clock_gettime, Any, "portable: clocks without vDSO"),
    // End of the process. No thread ends before, and all signals are blocked.
    allow("rt_sigprocmask", libc::SYS_rt_sigprocmask, Any, "abort, by a panic"),
    allow("rt_sigaction", libc::SYS_rt_sigaction, Any, "portable: abort, in libraries that raise before they unblock"),
    allow("getpid", libc::SYS_getpid, Any, "abort"),
    allow("gettid", libc::SYS_gettid, Any, "abort"),
    allow("tgkill", libc::SYS_tgkill, AbortItself, "abort"),
    allow("sigaltstack", libc::SYS_sigaltstack, Any, "end of main"),
    allow("exit_group", libc::SYS_exit_group, Any, "end of main"),
];

#[cfg(test)]
mod tests {
    use super::ALLOWED;

    #[test]
    fn each_call_is_listed_once() {
        for (index, allowed) in ALLOWED.iter().enumerate() {
            assert!(!allowed.reason.is_empty(), "{}", allowed.name);
            assert!(ALLOWED[..index].iter().all(|other| other.number != allowed.number), "{} twice", allowed.name);
        }
    }
}
