//! System calls and files that remain to the supervisor after it has dropped its privileges.
//!
//! Workers inherit this confinement, so it covers both: the supervisor for the life of the tunnel, a worker until its own much
//! shorter table is in force.
//!
//! A missing call fails with `ENOSYS` and does not kill the process. The C library has alternatives for missing calls, and a new
//! version of the library must not end the tunnel. So there are no namespaces (`clone3` is missing, and `clone` is filtered), no
//! tracing, no access to memory or descriptors of other processes, no keys, no BPF, no `io_uring`, no modules, no mounts, and no
//! sockets except pairs of Unix sockets.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use nix::libc;
use privsep::confine::seccomp::{self, Allowed, Arguments, allow};
use privsep::confine::{self, Access};
use privsep::ipc::Identity;

use Arguments::{Any, Both, KillOne, NoNamespace, OneOf, SocketOption, WriteOrExecute};

/// Resources of the supervisor that depend on the tunnel.
pub struct Retained<'a> {
    /// The worker's executable.
    pub worker: &'a File,
    /// Directory in which the supervisor removes its control socket.
    pub runtime: Option<&'a Path>,
    /// Whether the supervisor may connect to the system log again.
    pub system_log: bool,
}

/// Drops all privileges for good. Returns whether this process, and so every worker, is in an empty network namespace.
pub fn give_up_privileges(identity: Option<Identity>, keeps: &Retained) -> io::Result<bool> {
    // Root in a container may lack the right. The status reports that; it is not fatal.
    let empty_network = identity.is_some() && confine::supervisor::enter_empty_network().is_ok();
    confine::drop_privileges(identity)?;
    confine::no_new_privileges()?;
    restrict(keeps)?;
    Ok(empty_network)
}

/// Restricts files and system calls of this process and of its children.
fn restrict(keeps: &Retained) -> io::Result<()> {
    let mut files = vec![
        (PathBuf::from("/dev/null"), Access::Use),
        // The opened file, although its path may hold another one by now.
        (format!("/proc/self/fd/{}", keeps.worker.as_raw_fd()).into(), Access::Execute),
    ];
    files.extend(own_libraries()?.into_iter().map(|directory| (directory, Access::Execute)));
    files.extend(keeps.runtime.map(|directory| (directory.to_owned(), Access::Remove)));
    confine::landlock(&files)?;
    // The table denies memory that is writable and executable at once. Where the kernel supports MDWE, one after the other is
    // denied as well.
    confine::deny_write_execute();
    confine::supervisor::limit_processes()?;
    let system_log: &[Allowed] = if keeps.system_log { SYSTEM_LOG } else { &[] };
    seccomp::restrict(ALLOWED.iter().chain(OLD).chain(system_log))
}

/// Directories of the dynamic loader and of the libraries of this process. A worker is built with it and finds its own there.
/// Directories and not files, because an upgrade replaces files.
pub fn own_libraries() -> io::Result<BTreeSet<PathBuf>> {
    let own = fs::read_link("/proc/self/exe")?;
    let maps = fs::read_to_string("/proc/self/maps")?;
    let executable = maps.lines().filter_map(|line| {
        // "ADDRESSES PERMISSIONS OFFSET DEVICE INODE      PATH"
        let permissions = line.split(' ').nth(1)?;
        let path = Path::new(&line[line.find('/')?..]);
        (permissions.contains('x') && path != own).then(|| path.parent())?
    });
    Ok(executable.filter(|directory| *directory != Path::new("/")).map(Path::to_owned).collect())
}

const UNIX: &[i32] = &[libc::AF_UNIX];
const DESCRIPTOR: &[i32] = &[libc::F_GETFD, libc::F_DUPFD_CLOEXEC];
#[allow(clippy::cast_possible_truncation)] // The kernel also compares 32 bits.
const NONBLOCK: &[i32] = &[libc::FIONBIO as i32];
/// `PR_SET_MDWE` (`linux/prctl.h`).
const MDWE: i32 = 65;
const ATTRIBUTES: &[i32] = &[
    libc::PR_SET_PDEATHSIG,
    libc::PR_SET_NAME,
    libc::PR_SET_NO_NEW_PRIVS,
    libc::PR_CAPBSET_READ,
    libc::PR_CAP_AMBIENT,
    MDWE,
];
const PEER: &[i32] = &[libc::SO_PEERCRED];
const STATISTICS: &[i32] = &[libc::PACKET_STATISTICS];
/// `SECCOMP_SET_MODE_FILTER`, `SECCOMP_FILTER_FLAG_TSYNC`.
const FILTER: i32 = 1;
const ALL_THREADS: i32 = 1;

/// Calls of every architecture.
pub const ALLOWED: &[Allowed] = &[
    // The supervisor.
    allow("accept4", libc::SYS_accept4, Any, "status requests"),
    allow("sendto", libc::SYS_sendto, Any, "messages to service manager and system log; netlink requests"),
    allow("recvfrom", libc::SYS_recvfrom, Any, "netlink messages about interfaces and addresses"),
    allow("socketpair", libc::SYS_socketpair, OneOf(0, UNIX), "channels to a new worker"),
    allow("clone", libc::SYS_clone, NoNamespace, "starts a worker; a worker's threads"),
    allow(
        "execveat",
        libc::SYS_execveat,
        OneOf(4, &[libc::AT_EMPTY_PATH]),
        "the worker's executable; files that Landlock allows",
    ),
    allow("kill", libc::SYS_kill, KillOne, "kills a worker that is frozen or breaks a rule"),
    allow("wait4", libc::SYS_wait4, Any, "the end of a child"),
    allow("waitid", libc::SYS_waitid, Any, "the end of a child, without reaping it"),
    allow("chdir", libc::SYS_chdir, Any, "to the root directory, when going to the background"),
    allow("dup3", libc::SYS_dup3, Any, "standard streams of itself and of a worker"),
    allow("close_range", libc::SYS_close_range, Any, "closes all but the channels in a new worker"),
    allow("unlinkat", libc::SYS_unlinkat, Any, "portable: removes the control socket, on other architectures"),
    allow("ioctl", libc::SYS_ioctl, OneOf(1, NONBLOCK), "makes the socket of a status client non-blocking"),
    // A worker until it is confined: loading, confinement, threads.
    allow("openat", libc::SYS_openat, Any, "/dev/null; libraries of a worker; other files that Landlock allows"),
    allow("newfstatat", libc::SYS_newfstatat, Any, "loading"),
    allow("fstat", libc::SYS_fstat, Any, "portable: loading, by an older C library"),
    allow("statx", libc::SYS_statx, Any, "loading"),
    allow("faccessat", libc::SYS_faccessat, Any, "portable: loading, on other architectures"),
    allow("readlinkat", libc::SYS_readlinkat, Any, "portable: loading, of libraries beside the program"),
    allow("pread64", libc::SYS_pread64, Any, "loading; count of kills for lack of memory"),
    allow("set_tid_address", libc::SYS_set_tid_address, Any, "loading"),
    allow("set_robust_list", libc::SYS_set_robust_list, Any, "start of a thread"),
    allow("rseq", libc::SYS_rseq, Any, "start of a thread"),
    allow("sched_getaffinity", libc::SYS_sched_getaffinity, Any, "start of a thread"),
    allow("eventfd2", libc::SYS_eventfd2, Any, "threads of a worker wake each other"),
    allow("prctl", libc::SYS_prctl, OneOf(0, ATTRIBUTES), "confinement of a worker, names of its threads"),
    allow("prctl", libc::SYS_prctl, Both(0, libc::PR_SET_DUMPABLE, 1, 0), "a worker becomes non-dumpable for good"),
    allow("capget", libc::SYS_capget, Any, "confinement of a worker"),
    allow("capset", libc::SYS_capset, Any, "confinement of a worker"),
    allow("prlimit64", libc::SYS_prlimit64, OneOf(0, &[0]), "confinement of a worker, which is itself"),
    allow("landlock_create_ruleset", libc::SYS_landlock_create_ruleset, Any, "confinement of a worker"),
    allow("landlock_restrict_self", libc::SYS_landlock_restrict_self, Any, "confinement of a worker"),
    allow("seccomp", libc::SYS_seccomp, Both(0, FILTER, 1, ALL_THREADS), "confinement of a worker"),
    allow("getrandom", libc::SYS_getrandom, Any, "hash tables"),
    // Both, and all that a confined worker may do.
    allow("read", libc::SYS_read, Any, "signals; frames from the TAP"),
    allow("write", libc::SYS_write, Any, "log and status; waking a loop"),
    allow("writev", libc::SYS_writev, Any, "a worker's frames to the TAP"),
    allow("recvmsg", libc::SYS_recvmsg, Any, "messages on the channels"),
    allow("sendmsg", libc::SYS_sendmsg, Any, "messages on the channels"),
    allow("recvmmsg", libc::SYS_recvmmsg, Any, "a worker's batches"),
    allow("sendmmsg", libc::SYS_sendmmsg, Any, "a worker's batches"),
    allow("getsockopt", libc::SYS_getsockopt, SocketOption(libc::SOL_SOCKET, PEER), "user of a status client"),
    allow("getsockopt", libc::SYS_getsockopt, SocketOption(libc::SOL_PACKET, STATISTICS), "a worker's counters"),
    allow("ppoll", libc::SYS_ppoll, Any, "waiting"),
    allow("futex", libc::SYS_futex, Any, "locks"),
    allow("close", libc::SYS_close, Any, "descriptors"),
    allow("fcntl", libc::SYS_fcntl, OneOf(1, DESCRIPTOR), "descriptors"),
    allow("brk", libc::SYS_brk, Any, "memory"),
    allow("mmap", libc::SYS_mmap, WriteOrExecute, "memory; executable for the libraries of a worker"),
    allow("mprotect", libc::SYS_mprotect, WriteOrExecute, "memory"),
    allow("mremap", libc::SYS_mremap, Any, "portable: memory, where the allocator lets a block grow"),
    allow("munmap", libc::SYS_munmap, Any, "memory"),
    allow("madvise", libc::SYS_madvise, Any, "memory"),
    allow("clock_gettime", libc::SYS_clock_gettime, Any, "portable: time, where the vDSO does not answer"),
    allow("clock_nanosleep", libc::SYS_clock_nanosleep, Any, "waits for the end of a worker"),
    allow("restart_syscall", libc::SYS_restart_syscall, Any, "resumes a sleep after SIGSTOP and SIGCONT"),
    allow("rt_sigprocmask", libc::SYS_rt_sigprocmask, Any, "signals"),
    allow("rt_sigaction", libc::SYS_rt_sigaction, Any, "signals"),
    allow("rt_sigreturn", libc::SYS_rt_sigreturn, Any, "signals"),
    allow("sigaltstack", libc::SYS_sigaltstack, Any, "signals"),
    allow("getpid", libc::SYS_getpid, Any, "abort, log"),
    allow("getppid", libc::SYS_getppid, Any, "a worker checks that its supervisor still runs"),
    allow("gettid", libc::SYS_gettid, Any, "abort"),
    allow("tgkill", libc::SYS_tgkill, OneOf(2, &[libc::SIGABRT]), "abort"),
    allow("exit", libc::SYS_exit, Any, "end of a thread"),
    allow("exit_group", libc::SYS_exit_group, Any, "end of a process"),
];

/// Calls in the background, in addition.
pub const SYSTEM_LOG: &[Allowed] = &[
    allow("socket", libc::SYS_socket, OneOf(0, UNIX), "the system log, when its daemon has been restarted"),
    allow("connect", libc::SYS_connect, Any, "the system log; any Unix socket with a path that the user may reach"),
];

/// Older forms of the calls above, on this architecture only.
#[cfg(target_arch = "x86_64")]
pub const OLD: &[Allowed] = &[
    allow("poll", libc::SYS_poll, Any, "waiting"),
    allow("dup2", libc::SYS_dup2, Any, "standard streams, when going to the background"),
    allow("unlink", libc::SYS_unlink, Any, "removes the control socket; others in that directory"),
    allow("access", libc::SYS_access, Any, "loading"),
    allow("readlink", libc::SYS_readlink, Any, "portable: loading, of libraries beside the program"),
    allow("arch_prctl", libc::SYS_arch_prctl, Any, "loading"),
];
#[cfg(not(target_arch = "x86_64"))]
pub const OLD: &[Allowed] = &[];
