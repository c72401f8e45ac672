//! Attempts of an attacker in the resolver: in the process that waits for questions, and in one that asks a question, which a name
//! server may have taken over.

// An argument is a machine word, whatever it means.
#![allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_lossless, clippy::cast_sign_loss)]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use crate::raw;

/// Result of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It works: the process needs the call.
    Works,
    /// The filter makes the call fail with `ENOSYS`.
    Missing,
    /// Landlock denies it with `EACCES`.
    Refused,
    /// The same, by a Landlock that knows TCP ports.
    RefusedPort,
    /// The process has no capability, or the target is another user's (`EPERM`).
    Denied,
}

/// One attempt.
pub struct Attempt {
    /// Its name, one word.
    pub name: &'static str,
    /// Result in the process that waits.
    pub waiting: Outcome,
    /// Result in a process that asks.
    pub asking: Outcome,
    /// Makes it.
    pub run: fn(&Tools) -> io::Result<i64>,
}

/// Descriptors that were opened before the confinement.
pub struct Tools {
    udp: OwnedFd,
    tcp: OwnedFd,
    null: File,
}

impl Tools {
    /// Opens them.
    pub fn new() -> io::Result<Self> {
        let unbound = |kind| socket(AddressFamily::Inet, kind, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None);
        Ok(Self { udp: unbound(SockType::Datagram)?, tcp: unbound(SockType::Stream)?, null: File::open("/dev/null")? })
    }
}

/// A table of attempts: name, result in either process, and the call with its arguments.
macro_rules! attempts {
    ($($name:literal $waiting:ident $asking:ident |$tools:pat_param| $number:ident($($argument:expr),*);)*) => {
        &[$(Attempt {
            name: $name,
            waiting: Outcome::$waiting,
            asking: Outcome::$asking,
            run: |$tools| raw::call(libc::$number, &[$($argument as i64),*]),
        },)*]
    };
}

fn fd(descriptor: &impl AsFd) -> i32 {
    descriptor.as_fd().as_raw_fd()
}

const PRIVATE: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
const ALL: i32 = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
/// `struct sockaddr_in`: 127.0.0.1, port 53 and port 9.
const DOMAIN: [u8; 16] = [2, 0, 0, 53, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
const DISCARD: [u8; 16] = [2, 0, 0, 9, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
const ZEROS: [u64; 64] = [0; 64];
const ON: &i32 = &1;
/// Flags of clone(2) for a thread.
const THREAD: i32 = libc::CLONE_VM | libc::CLONE_FS | libc::CLONE_FILES | libc::CLONE_SIGHAND | libc::CLONE_THREAD;

/// The table.
pub const ATTEMPTS: &[Attempt] = attempts! {
    "getpid" Works Works |_| SYS_getpid();
    // Programs, processes, namespaces.
    "execve" Missing Missing |_| SYS_execve(c"/bin/true".as_ptr(), ZEROS.as_ptr(), ZEROS.as_ptr());
    "execveat" Missing Missing |_|
        SYS_execveat(libc::AT_FDCWD, c"/bin/true".as_ptr(), ZEROS.as_ptr(), ZEROS.as_ptr(), 0);
    "thread" Missing Missing |_| SYS_clone(THREAD, 0, 0, 0, 0);
    "vfork" Missing Missing |_| SYS_clone(libc::SIGCHLD | libc::CLONE_VM | libc::CLONE_VFORK, 0, 0, 0, 0);
    "clone3" Missing Missing |_| SYS_clone3(ZEROS.as_ptr(), 88);
    "unshare" Missing Missing |_| SYS_unshare(libc::CLONE_NEWUSER);
    "setns" Missing Missing |tools| SYS_setns(fd(&tools.null), libc::CLONE_NEWNET);
    "ptrace" Missing Missing |_| SYS_ptrace(libc::PTRACE_ATTACH, 1);
    "process_vm_readv" Missing Missing |_| SYS_process_vm_readv(1, ZEROS.as_ptr(), 1, ZEROS.as_ptr(), 1, 0);
    "pidfd_open" Missing Missing |_| SYS_pidfd_open(1, 0);
    "kill-another-process" Denied Missing |_| SYS_kill(1, libc::SIGKILL);
    "stop-another-process" Missing Missing |_| SYS_kill(1, libc::SIGSTOP);
    // Files. The waiting process reads directories in which a child may read single files.
    "open-hosts" Works Works |_| SYS_openat(libc::AT_FDCWD, c"/etc/hosts".as_ptr(), libc::O_RDONLY);
    "open-passwd" Works Refused |_| SYS_openat(libc::AT_FDCWD, c"/etc/passwd".as_ptr(), libc::O_RDONLY);
    "list-the-configuration" Refused Refused |_|
        SYS_openat(libc::AT_FDCWD, c"/etc".as_ptr(), libc::O_RDONLY | libc::O_DIRECTORY);
    "open-maps" Refused Refused |_| SYS_openat(libc::AT_FDCWD, c"/proc/self/maps".as_ptr(), libc::O_RDONLY);
    "open-null" Refused Refused |_| SYS_openat(libc::AT_FDCWD, c"/dev/null".as_ptr(), libc::O_WRONLY);
    "create-a-file" Refused Refused |_|
        SYS_openat(libc::AT_FDCWD, c"/tmp/ethudp-none".as_ptr(), libc::O_WRONLY | libc::O_CREAT, 0o600);
    "unlink" Missing Missing |_| SYS_unlinkat(libc::AT_FDCWD, c"/tmp/ethudp-none".as_ptr(), 0);
    "chmod" Missing Missing |_| SYS_fchmodat(libc::AT_FDCWD, c"/tmp/ethudp-none".as_ptr(), 0);
    "mount" Missing Missing |_| SYS_mount(c"none".as_ptr(), c"/tmp".as_ptr(), c"tmpfs".as_ptr(), 0, 0);
    "memfd_create" Missing Missing |_| SYS_memfd_create(c"code".as_ptr(), 0);
    // Sockets.
    "ask-a-name-server" Works Works |tools| SYS_connect(fd(&tools.udp), DOMAIN.as_ptr(), 16);
    "connect-to-a-TCP-port" RefusedPort RefusedPort |tools| SYS_connect(fd(&tools.tcp), DISCARD.as_ptr(), 16);
    "bind-a-TCP-port" Missing Missing |tools| SYS_bind(fd(&tools.tcp), DISCARD.as_ptr(), 16);
    "bind-a-UDP-port" Missing Missing |tools| SYS_bind(fd(&tools.udp), DISCARD.as_ptr(), 16);
    "listen" Missing Missing |tools| SYS_listen(fd(&tools.tcp), 1);
    "socket-packet" Missing Missing |_| SYS_socket(libc::AF_PACKET, libc::SOCK_RAW, 0);
    "socket-raw-ip" Missing Missing |_| SYS_socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP);
    "socket-ping" Missing Missing |_| SYS_socket(libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_ICMP);
    "socket-netlink-of-the-firewall" Missing Missing |_|
        SYS_socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_NETFILTER);
    "socket-vsock" Missing Missing |_| SYS_socket(libc::AF_VSOCK, libc::SOCK_STREAM, 0);
    "socket-alg" Missing Missing |_| SYS_socket(libc::AF_ALG, libc::SOCK_SEQPACKET, 0);
    "share-a-port" Missing Missing |tools|
        SYS_setsockopt(fd(&tools.udp), libc::SOL_SOCKET, libc::SO_REUSEPORT, &raw const *ON, 4);
    "set-the-mark" Missing Missing |tools|
        SYS_setsockopt(fd(&tools.udp), libc::SOL_SOCKET, libc::SO_MARK, &raw const *ON, 4);
    // Executable memory.
    "mmap-to-write-and-execute" Missing Missing |_| SYS_mmap(0, 4096, ALL, PRIVATE, -1, 0);
    "personality" Missing Missing |_| SYS_personality(0x040_0000); // READ_IMPLIES_EXEC
    // Parts of the kernel that it does not need.
    "bpf" Missing Missing |_| SYS_bpf(0, ZEROS.as_ptr(), 72);
    "io_uring_setup" Missing Missing |_| SYS_io_uring_setup(8, ZEROS.to_vec().as_mut_ptr());
    "keyctl" Missing Missing |_| SYS_keyctl(0, -3, 0);
    "userfaultfd" Missing Missing |_| SYS_userfaultfd(0);
    "perf_event_open" Missing Missing |_| SYS_perf_event_open(ZEROS.as_ptr(), 0, -1, -1, 0);
    "init_module" Missing Missing |_| SYS_init_module(ZEROS.as_ptr(), 8, c"".as_ptr());
    // Its own powers and limits.
    "setresuid" Missing Missing |_| SYS_setresuid(0, 0, 0);
    "capset" Missing Missing |_| SYS_capset(ZEROS.as_ptr(), ZEROS.as_ptr());
    "PR_SET_DUMPABLE" Missing Missing |_| SYS_prctl(libc::PR_SET_DUMPABLE, 1);
    "outlive-its-parent" Missing Missing |_| SYS_prctl(libc::PR_SET_PDEATHSIG, 0);
    "die-with-its-parent" Works Missing |_| SYS_prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
    "limits" Works Missing |_| SYS_prlimit64(0, libc::RLIMIT_AS, 0, 0);
    "limits-of-another" Missing Missing |_| SYS_prlimit64(1, libc::RLIMIT_AS, 0, 0);
};
