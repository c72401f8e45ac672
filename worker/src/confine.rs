//! How the worker confines itself, and the table of what it may still ask of the kernel.
//!
//! The order matters: capabilities, Landlock and memory protection act per thread or are inherited, so they come before
//! the threads; with no process allowed none would start, so that limit comes after; the filter is last and on all.

use std::io;

use privsep::confine;
use privsep::confine::seccomp::{self, Allowed, Arguments, allow};
use privsep::ipc::Confinement;
use privsep::sys::worker::heap;

/// Memory of its own that a worker may have in bytes: ten times what it needs.
pub const MEMORY: u64 = 64 << 20;

/// Before the first byte is read from anybody.
pub fn before_reading() -> io::Result<()> {
    confine::at_start()?;
    // Each further heap would be so much address space that could be filled past the limit.
    heap::one_for_all();
    Ok(())
}

/// Before the forwarding threads start.
pub fn before_threads() -> io::Result<Confinement> {
    confine::drop_capabilities()?;
    let landlock_abi = confine::landlock_all()?;
    Ok(Confinement { landlock_abi, mdwe: confine::deny_write_execute(), seccomp: false })
}

/// What it may have of memory, and start, from now on. When all threads run.
pub fn limit() -> io::Result<()> {
    confine::limit_resources(MEMORY)
}

/// When all threads run. The worker's table is [`ALLOWED`]; only a test has another.
pub fn for_good(confinement: Confinement, table: &[Allowed]) -> io::Result<Confinement> {
    limit()?;
    seccomp::enforce(table)?;
    Ok(Confinement { seccomp: true, ..confinement })
}

use Arguments::{AbortItself, Any, OnlyFlags, PlainMemory, SocketOption};

/// What a message may be sent with.
const SEND: &[i32] = &[libc::MSG_DONTWAIT, libc::MSG_NOSIGNAL];

/// Everything the confined worker may call; the rest kills it. Of the calls that forward frames only `sendmmsg` has its
/// arguments checked: the kernel answers the others from a bitmap. Each line is needed, as `tests/attack/table.rs` shows by leaving it out; a
/// reason that begins with "portable" is one of other machines or libraries than those the tests run on.
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
    // Ends of the process; no thread ends before it, and no signal is handled: all are blocked.
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
