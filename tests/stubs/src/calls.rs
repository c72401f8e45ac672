//! Attacks by system call. Their arguments are what would make them work, so that it is the filter that stops them.

// An argument is a machine word, whatever it means.
#![allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_lossless, clippy::cast_sign_loss)]

use std::os::fd::AsRawFd;

use crate::{Attack, Loot, Needs, raw};

const SOL_PACKET: i32 = libc::SOL_PACKET;
/// `MAP_PRIVATE | MAP_ANONYMOUS`.
const PRIVATE: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
const READ_WRITE: i32 = libc::PROT_READ | libc::PROT_WRITE;
const READ_EXECUTE: i32 = libc::PROT_READ | libc::PROT_EXEC;
/// What would start a process: `clone` with no memory shared, and SIGCHLD at its end.
const FORK: i32 = libc::SIGCHLD;
/// `struct packet_mreq`: interface 1, promiscuous.
const PROMISCUOUS: [i32; 4] = [1, libc::PACKET_MR_PROMISC, 0, 0];
/// `struct sockaddr_ll`: `AF_PACKET`, every protocol in network order, interface 1.
const LOOPBACK: [u16; 10] = [libc::AF_PACKET as u16, 0x0300, 1, 0, 0, 0, 0, 0, 0, 0];
/// `struct sockaddr_in`: 127.0.0.1, port 9.
const DISCARD: [u8; 16] = [2, 0, 0, 9, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
/// `struct ifreq`: a TAP of another name.
const OTHER_TAP: &[u8; 40] = b"stolen\0\0\0\0\0\0\0\0\0\0\x02\x10\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
/// `struct io_uring_params` and others that may be all zero.
const ZEROS: [u64; 64] = [0; 64];
/// The header of capset(2), version 3.
const VERSION_3: [u32; 2] = [0x2008_0522, 0];
/// All capabilities in all sets.
const ALL: [u32; 6] = [u32::MAX; 6];

/// An attack that the filter answers by killing the process.
const fn killed(name: &'static str, needs: Needs, run: fn(&Loot)) -> Attack {
    Attack { name, needs, expected: "ended: SIGSYS", run }
}

/// A table of such attacks: name, what it needs, and the call with its arguments.
macro_rules! calls {
    ($($name:literal $needs:ident |$loot:pat_param| $number:ident($($argument:expr),*);)*) => {
        &[$(killed($name, Needs::$needs, |$loot| _ = raw::call(libc::$number, &[$($argument as i64),*])),)*]
    };
}

/// Other ways into the kernel: numbers that mean something else than they seem to.
#[cfg(target_arch = "x86_64")]
pub const ENTRIES: &[Attack] = &[
    // SIGSEGV from a kernel that has no such entry.
    Attack {
        name: "getpid-by-the-32-bit-entry",
        needs: Needs::Nothing,
        expected: "ended: SIG",
        run: |_| _ = raw::call_by_32_bit_entry(),
    },
    killed("read-by-its-x32-number", Needs::Nothing, |_| _ = raw::call(0x4000_0000 + libc::SYS_read, &[])),
];
#[cfg(not(target_arch = "x86_64"))]
pub const ENTRIES: &[Attack] = &[];

/// Made again and again: as soon as it runs, or after the second from which on it counts as one that has forwarded.
pub const CRASHES: &[Attack] = &[
    killed("crash-at-once", Needs::Haste, |_| _ = raw::call(libc::SYS_getuid, &[])),
    killed("crash-later", Needs::Endurance, |_| _ = raw::call(libc::SYS_getuid, &[])),
];

fn fd(descriptor: &impl AsRawFd) -> i32 {
    descriptor.as_raw_fd()
}

/// The table.
pub const CALLS: &[Attack] = calls! {
    // New sockets, and other uses of those at hand.
    "socket" Nothing |_| SYS_socket(libc::AF_INET, libc::SOCK_STREAM, 0);
    "socketpair" Nothing |_| SYS_socketpair(libc::AF_UNIX, libc::SOCK_STREAM, 0, ZEROS.as_ptr());
    "bind-to-another-interface" Raw |loot| SYS_bind(fd(&loot.port), LOOPBACK.as_ptr(), 20);
    "connect-to-another-peer" Nothing |loot| SYS_connect(fd(&loot.path), DISCARD.as_ptr(), 16);
    "shutdown" Nothing |loot| SYS_shutdown(fd(&loot.path), libc::SHUT_RDWR);
    "listen-for-handles" Nothing |loot| SYS_listen(fd(&loot.helper), 1);
    "promiscuous" Raw |loot|
        SYS_setsockopt(fd(&loot.port), SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, PROMISCUOUS.as_ptr(), 16);
    "detach-filter" Raw |loot|
        SYS_setsockopt(fd(&loot.port), libc::SOL_SOCKET, libc::SO_DETACH_FILTER, ZEROS.as_ptr(), 4);
    "attach-filter" Nothing |loot|
        SYS_setsockopt(fd(&loot.path), libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, ZEROS.as_ptr(), 16);
    "getsockopt-of-another-name" Raw |loot|
        SYS_getsockopt(fd(&loot.port), SOL_PACKET, libc::PACKET_AUXDATA, ZEROS.as_ptr(), PROMISCUOUS.as_ptr());
    "getsockopt-of-another-level" Nothing |loot|
        SYS_getsockopt(fd(&loot.path), libc::SOL_SOCKET, libc::PACKET_STATISTICS, ZEROS.as_ptr(), PROMISCUOUS.as_ptr());
    "fcntl-blocking" Nothing |loot| SYS_fcntl(fd(&loot.port), libc::F_SETFL, 0);
    "close" Nothing |loot| SYS_close(fd(&loot.port));
    "dup" Nothing |loot| SYS_dup(fd(&loot.port));
    // The TAP.
    "TUNSETIFF" Tap |loot| SYS_ioctl(fd(&loot.port), libc::TUNSETIFF, OTHER_TAP.as_ptr());
    "TUNSETPERSIST" Tap |loot| SYS_ioctl(fd(&loot.port), libc::TUNSETPERSIST, 1);
    // Files and programs.
    "openat" Nothing |_| SYS_openat(libc::AT_FDCWD, c"/etc/passwd".as_ptr(), libc::O_RDONLY);
    "openat2" Nothing |_| SYS_openat2(libc::AT_FDCWD, c"/etc/passwd".as_ptr(), ZEROS.as_ptr(), 24);
    "unlinkat" Nothing |_| SYS_unlinkat(libc::AT_FDCWD, c"/tmp/none".as_ptr(), 0);
    "memfd_create" Nothing |_| SYS_memfd_create(c"code".as_ptr(), 0);
    "execve" Nothing |_| SYS_execve(c"/bin/sh".as_ptr(), ZEROS.as_ptr(), ZEROS.as_ptr());
    "execveat" Nothing |_| SYS_execveat(libc::AT_FDCWD, c"/bin/sh".as_ptr(), ZEROS.as_ptr(), ZEROS.as_ptr(), 0);
    "mount" Nothing |_| SYS_mount(c"none".as_ptr(), c"/tmp".as_ptr(), c"tmpfs".as_ptr(), 0, 0);
    "chroot" Nothing |_| SYS_chroot(c"/tmp".as_ptr());
    // The other processes.
    "attach-to-the-supervisor" Nothing |loot| SYS_ptrace(libc::PTRACE_ATTACH, loot.supervisor_pid);
    "attach-to-the-helper" Nothing |loot| SYS_ptrace(libc::PTRACE_ATTACH, loot.helper_pid);
    "seize-the-supervisor" Nothing |loot| SYS_ptrace(libc::PTRACE_SEIZE, loot.supervisor_pid);
    "seize-the-helper" Nothing |loot| SYS_ptrace(libc::PTRACE_SEIZE, loot.helper_pid);
    "memory-of-the-helper" Nothing |loot| SYS_openat(
        libc::AT_FDCWD, format!("/proc/{}/mem\0", loot.helper_pid).as_ptr(), libc::O_RDWR);
    "descriptors-of-the-helper" Nothing |loot| SYS_openat(
        libc::AT_FDCWD, format!("/proc/{}/fd\0", loot.helper_pid).as_ptr(), libc::O_DIRECTORY);
    "link-of-a-descriptor" Nothing |loot| SYS_readlinkat(
        libc::AT_FDCWD, format!("/proc/{}/fd/0\0", loot.supervisor_pid).as_ptr(), ZEROS.as_ptr(), 8);
    "pidfd_open" Nothing |loot| SYS_pidfd_open(loot.helper_pid, 0);
    "pidfd_getfd" Nothing |loot| SYS_pidfd_getfd(fd(&loot.port), 3, 0);
    "pidfd_send_signal" Nothing |loot| SYS_pidfd_send_signal(fd(&loot.port), libc::SIGKILL, 0, 0);
    "kill-the-supervisor" Nothing |loot| SYS_kill(loot.supervisor_pid, libc::SIGKILL);
    "kill-the-helper" Nothing |loot| SYS_kill(loot.helper_pid, libc::SIGKILL);
    "kill-everybody" Nothing |_| SYS_kill(-1, libc::SIGKILL);
    "tgkill-the-supervisor" Nothing |loot| SYS_tgkill(loot.supervisor_pid, loot.supervisor_pid, libc::SIGKILL);
    "tgkill-the-helper" Nothing |loot| SYS_tgkill(loot.helper_pid, loot.helper_pid, libc::SIGKILL);
    "tkill" Nothing |loot| SYS_tkill(loot.helper_pid, libc::SIGKILL);
    "process_vm_readv" Nothing |loot| SYS_process_vm_readv(loot.helper_pid, ZEROS.as_ptr(), 1, ZEROS.as_ptr(), 1, 0);
    "process_vm_writev" Nothing |loot|
        SYS_process_vm_writev(loot.supervisor_pid, ZEROS.as_ptr(), 1, ZEROS.as_ptr(), 1, 0);
    "prlimit" Nothing |loot| SYS_prlimit64(loot.helper_pid, libc::RLIMIT_NOFILE, ZEROS.as_ptr(), 0);
    // Processes and namespaces of its own.
    "fork" Nothing |_| SYS_clone(FORK, 0, 0, 0, 0);
    "clone3" Nothing |_| SYS_clone3(ZEROS.as_ptr(), 88);
    "unshare-user-and-network" Nothing |_| SYS_unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNET);
    "clone-with-a-new-user-namespace" Nothing |_| SYS_clone(FORK | libc::CLONE_NEWUSER, 0, 0, 0, 0);
    "setns" Nothing |loot| SYS_setns(fd(&loot.port), libc::CLONE_NEWNET);
    // Parts of the kernel that it has no business with.
    "io_uring_setup" Nothing |_| SYS_io_uring_setup(8, ZEROS.as_ptr());
    "bpf" Nothing |_| SYS_bpf(0, ZEROS.as_ptr(), 72);
    "keyctl" Nothing |_| SYS_keyctl(0, -3, 1);
    "add_key" Nothing |_| SYS_add_key(c"user".as_ptr(), c"name".as_ptr(), ZEROS.as_ptr(), 8, -3);
    "userfaultfd" Nothing |_| SYS_userfaultfd(0);
    "perf_event_open" Nothing |_| SYS_perf_event_open(ZEROS.as_ptr(), 0, -1, -1, 0);
    // Executable memory.
    "mmap-executable" Nothing |_| SYS_mmap(0, 4096, READ_EXECUTE, PRIVATE, -1, 0);
    "mmap-shared" Nothing |_| SYS_mmap(0, 1 << 30, libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1, 0);
    // Memory that counts in no limit, or could be made to, or would lie where other memory is.
    "mmap-like-a-stack" Nothing |_| SYS_mmap(0, 4096, READ_WRITE, PRIVATE | libc::MAP_GROWSDOWN, -1, 0);
    "mmap-read-only" Nothing |_| SYS_mmap(0, 4096, libc::PROT_READ, PRIVATE, -1, 0);
    "mmap-out-of-reach" Nothing |_| SYS_mmap(0, 4096, libc::PROT_NONE, PRIVATE | libc::MAP_NORESERVE, -1, 0);
    "mmap-locked" Nothing |_| SYS_mmap(0, 4096, READ_WRITE, PRIVATE | libc::MAP_LOCKED, -1, 0);
    "mmap-over-its-own" Nothing |_|
        SYS_mmap(ZEROS.as_ptr() as usize & !4095, 4096, READ_WRITE, PRIVATE | libc::MAP_FIXED, -1, 0);
    "mmap-of-a-handle" Nothing |loot| SYS_mmap(0, 4096, READ_WRITE, libc::MAP_PRIVATE, fd(&loot.port), 0);
    "mprotect-read-only" Nothing |_| SYS_mprotect(ZEROS.as_ptr() as usize & !4095, 4096, libc::PROT_READ);
    "madvise" Nothing |_| SYS_madvise(ZEROS.as_ptr() as usize & !4095, 4096, libc::MADV_NOHUGEPAGE);
    "mremap" Nothing |_| SYS_mremap(ZEROS.as_ptr() as usize & !4095, 4096, 8192, libc::MREMAP_MAYMOVE);
    "mprotect-executable" Nothing |_| SYS_mprotect(ZEROS.as_ptr() as usize & !4095, 4096, READ_EXECUTE);
    "pkey_mprotect" Nothing |_| SYS_pkey_mprotect(ZEROS.as_ptr() as usize & !4095, 4096, READ_EXECUTE, -1);
    "personality" Nothing |_| SYS_personality(0x040_0000); // READ_IMPLIES_EXEC
    // Its own powers and limits.
    "dumpable" Nothing |_| SYS_prctl(libc::PR_SET_DUMPABLE, 1);
    "outlive-the-supervisor" Nothing |_| SYS_prctl(libc::PR_SET_PDEATHSIG, 0);
    "setuid" Nothing |_| SYS_setuid(0);
    "setresuid" Nothing |_| SYS_setresuid(0, 0, 0);
    "capset" Nothing |_| SYS_capset(VERSION_3.as_ptr(), ALL.as_ptr());
    "another-filter" Nothing |_| SYS_seccomp(1, 0, ZEROS.as_ptr());
};
