//! Steps and system calls of processes that run libraries of the distribution: the filter compiler and the resolver. They are not part
//! of the helper.

use std::io;
use std::path::Path;

use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigSet, Signal};

use super::seccomp::{Allowed, Arguments, allow};
use super::{Access, restrict_files};

use Arguments::{AbortItself, Any, WriteOrExecute};

/// Directories of libraries.
pub const LIBRARIES: [&str; 6] = ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/local/lib64"];

/// Port of name servers, which are asked by TCP if an answer is long (RFC 7766).
const DOMAIN: u16 = 53;

/// As [`super::landlock`], but the process may read these files and connect to the TCP port of name servers.
pub fn landlock_to_ask<P: AsRef<Path>>(files: &[P]) -> io::Result<u32> {
    let files: Vec<_> = files.iter().map(|file| (file, Access::Read)).collect();
    restrict_files(&files, &[DOMAIN])
}

/// Limits the processor time in seconds. At the limit `SIGXCPU` ends the process, so that its parent can tell the reason.
pub fn limit_processor(seconds: u64) -> io::Result<()> {
    setrlimit(Resource::RLIMIT_CPU, seconds, seconds + 1)?;
    let time_is_over: SigSet = [Signal::SIGXCPU].into_iter().collect();
    Ok(time_is_over.thread_unblock()?)
}

/// Means of confinement that the kernel lacks, by the results of [`super::landlock`] and [`super::deny_write_execute`].
pub fn lacks(landlock_abi: u32, mdwe: bool) -> Vec<&'static str> {
    let all = [(landlock_abi == 0, "Landlock"), (!mdwe, "memory-deny-write-execute")];
    all.into_iter().filter_map(|(lacks, name)| lacks.then_some(name)).collect()
}

/// Calls of libraries that read files and allocate memory, and of the end of the process.
pub const CALLS: &[Allowed] = &[
    allow("openat", libc::SYS_openat, Any, "libraries and files that Landlock allows"),
    allow("read", libc::SYS_read, Any, "as openat"),
    allow("pread64", libc::SYS_pread64, Any, "as openat"),
    allow("lseek", libc::SYS_lseek, Any, "as openat"),
    allow("newfstatat", libc::SYS_newfstatat, Any, "as openat"),
    allow("fstat", libc::SYS_fstat, Any, "as openat"),
    allow("statx", libc::SYS_statx, Any, "as openat"),
    allow("faccessat", libc::SYS_faccessat, Any, "as openat"),
    allow("readlinkat", libc::SYS_readlinkat, Any, "as openat"),
    allow("close", libc::SYS_close, Any, "as openat"),
    allow("brk", libc::SYS_brk, Any, "memory"),
    allow("mmap", libc::SYS_mmap, WriteOrExecute, "memory; libraries; libpcap's ring of frames"),
    allow("mprotect", libc::SYS_mprotect, WriteOrExecute, "memory; libraries"),
    allow("mremap", libc::SYS_mremap, Any, "memory"),
    allow("munmap", libc::SYS_munmap, Any, "memory"),
    allow("madvise", libc::SYS_madvise, Any, "memory"),
    allow("futex", libc::SYS_futex, Any, "locks"),
    allow("getrandom", libc::SYS_getrandom, Any, "hash tables; allocator; numbers of questions"),
    allow("clock_gettime", libc::SYS_clock_gettime, Any, "time, where the vDSO does not answer"),
    allow("rt_sigprocmask", libc::SYS_rt_sigprocmask, Any, "abort; systemd-resolved's module"),
    allow("rt_sigaction", libc::SYS_rt_sigaction, Any, "abort"),
    allow("getpid", libc::SYS_getpid, Any, "abort"),
    allow("gettid", libc::SYS_gettid, Any, "abort"),
    allow("tgkill", libc::SYS_tgkill, AbortItself, "abort"),
    allow("sigaltstack", libc::SYS_sigaltstack, Any, "end of the process"),
    allow("exit_group", libc::SYS_exit_group, Any, "end of the process"),
];

/// Older forms of these calls, on this architecture only.
#[cfg(target_arch = "x86_64")]
pub const OLD: &[Allowed] = &[
    allow("access", libc::SYS_access, Any, "as openat"),
    allow("readlink", libc::SYS_readlink, Any, "as openat"),
    allow("stat", libc::SYS_stat, Any, "as openat, by an older C library"),
];
#[cfg(not(target_arch = "x86_64"))]
pub const OLD: &[Allowed] = &[];
