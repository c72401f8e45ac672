//! Attempts of an attacker in the helper, at its two stages: while it opens with privileges, and while it serves.
//!
//! Arguments are what would make the attempts work, so that it is the confinement that stops them, and harmless
//! where nothing stops them: signal 0, a program that does nothing, a namespace of the test's.

// An argument is a machine word, whatever it means.
#![allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_lossless, clippy::cast_sign_loss)]

use std::fs::File;
use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::parent_id;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use privsep::sys::tap;

use crate::raw;

/// Added to the number of the error in the exit status of a stub whose attempt was denied.
pub const DENIED: i32 = 100;

/// What becomes of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It works: the helper needs it, and such attempts show that the others fail for the right reason.
    Works,
    /// The filter kills the process.
    Killed,
    /// Landlock denies it.
    Refused,
    /// As before, by a Landlock that knows TCP ports.
    RefusedPort,
}

/// One thing that an attacker tries.
pub struct Attempt {
    /// Its name, one word.
    pub name: &'static str,
    /// What becomes of it from before the plan is read until everything is open.
    pub opening: Outcome,
    /// What becomes of it from then on.
    pub serving: Outcome,
    /// Tries it.
    pub run: fn(&Tools) -> io::Result<i64>,
}

/// Descriptors that an attacker has in its hands, opened before it was confined.
pub struct Tools {
    /// An unbound UDP socket.
    udp: OwnedFd,
    /// A bound one, with an empty datagram in its queue.
    bound: UdpSocket,
    /// An unbound TCP socket.
    tcp: OwnedFd,
    /// The device that makes a TAP.
    tap: File,
    /// Queue of a TAP.
    queue: OwnedFd,
}

impl Tools {
    /// Opens them.
    pub fn new() -> io::Result<Self> {
        let bound = UdpSocket::bind("127.0.0.1:0")?;
        bound.send_to(&[], bound.local_addr()?)?;
        let unbound = |kind| socket(AddressFamily::Inet, kind, SockFlag::SOCK_CLOEXEC, None);
        Ok(Self {
            udp: unbound(SockType::Datagram)?,
            bound,
            tcp: unbound(SockType::Stream)?,
            tap: device()?,
            queue: tap::create(device()?, "queue%d")?.0,
        })
    }
}

fn device() -> io::Result<File> {
    File::options().read(true).write(true).open("/dev/net/tun")
}

/// A table of attempts: name, outcome at either stage, and the call with its arguments.
macro_rules! attempts {
    ($($name:literal $opening:ident $serving:ident |$tools:pat_param| $number:ident($($argument:expr),*);)*) => {
        &[$(Attempt {
            name: $name,
            opening: Outcome::$opening,
            serving: Outcome::$serving,
            run: |$tools| raw::call(libc::$number, &[$($argument as i64),*]),
        },)*]
    };
}

fn fd(descriptor: &impl AsFd) -> i32 {
    descriptor.as_fd().as_raw_fd()
}

/// `MAP_PRIVATE | MAP_ANONYMOUS`.
const PRIVATE: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
const READ_WRITE: i32 = libc::PROT_READ | libc::PROT_WRITE;
const READ_EXECUTE: i32 = libc::PROT_READ | libc::PROT_EXEC;
/// `struct sockaddr_in`: 127.0.0.1, port 9.
const DISCARD: [u8; 16] = [2, 0, 0, 9, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
/// `struct ifreq`: a TAP.
const TAP: &[u8; 40] = b"stolen\0\0\0\0\0\0\0\0\0\0\x02\x10\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
/// `struct ifreq`: the loopback interface goes down.
const DOWN: &[u8; 40] = b"lo\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
/// The header of capset(2), version 3.
const VERSION_3: [u32; 2] = [0x2008_0522, 0];
const ZEROS: [u64; 64] = [0; 64];
/// An option that is switched on.
const ON: &i32 = &1;
const KILL_PROCESS: &u32 = &libc::SECCOMP_RET_KILL_PROCESS;

/// The table.
pub const ATTEMPTS: &[Attempt] = attempts! {
    "getpid" Works Works |_| SYS_getpid();
    // Programs, processes, namespaces.
    "execve" Killed Killed |_| SYS_execve(c"/bin/true".as_ptr(), ZEROS.as_ptr(), ZEROS.as_ptr());
    "execveat" Killed Killed |_|
        SYS_execveat(libc::AT_FDCWD, c"/bin/true".as_ptr(), ZEROS.as_ptr(), ZEROS.as_ptr(), 0);
    "fork" Killed Killed |_| SYS_clone(libc::SIGCHLD, 0, 0, 0, 0);
    "clone3" Killed Killed |_| SYS_clone3(ZEROS.as_ptr(), 88);
    "unshare" Killed Killed |_| SYS_unshare(libc::CLONE_NEWNET);
    "setns" Killed Killed |tools| SYS_setns(fd(&tools.tap), libc::CLONE_NEWNET);
    // Files.
    "open-the-TAP-device" Works Killed |_| SYS_openat(libc::AT_FDCWD, c"/dev/net/tun".as_ptr(), libc::O_RDWR);
    "open-passwd" Refused Killed |_| SYS_openat(libc::AT_FDCWD, c"/etc/passwd".as_ptr(), libc::O_RDONLY);
    "open-shadow-to-write" Refused Killed |_| SYS_openat(libc::AT_FDCWD, c"/etc/shadow".as_ptr(), libc::O_WRONLY);
    "open-another-device" Refused Killed |_| SYS_openat(libc::AT_FDCWD, c"/dev/null".as_ptr(), libc::O_RDWR);
    "open-another-tunable" Refused Killed |_|
        SYS_openat(libc::AT_FDCWD, c"/proc/sys/net/ipv4/ip_forward".as_ptr(), libc::O_RDONLY);
    "open-its-memory" Refused Killed |_| SYS_openat(libc::AT_FDCWD, c"/proc/self/mem".as_ptr(), libc::O_RDWR);
    "list-the-root" Refused Killed |_| SYS_openat(libc::AT_FDCWD, c"/".as_ptr(), libc::O_DIRECTORY);
    "create-a-file" Refused Killed |_|
        SYS_openat(libc::AT_FDCWD, c"/tmp/ethudp-stolen".as_ptr(), libc::O_CREAT | libc::O_WRONLY, 0);
    "openat2" Killed Killed |_| SYS_openat2(libc::AT_FDCWD, c"/dev/net/tun".as_ptr(), ZEROS.as_ptr(), 24);
    "chmod" Killed Killed |_| SYS_fchmodat(libc::AT_FDCWD, c"/tmp/ethudp-none".as_ptr(), 0);
    "chown" Killed Killed |_| SYS_fchownat(libc::AT_FDCWD, c"/tmp/ethudp-none".as_ptr(), 0, 0, 0);
    "unlink" Killed Killed |_| SYS_unlinkat(libc::AT_FDCWD, c"/tmp/ethudp-none".as_ptr(), 0);
    "mkdir" Killed Killed |_| SYS_mkdirat(libc::AT_FDCWD, c"/tmp/ethudp-none/none".as_ptr(), 0);
    "mount" Killed Killed |_| SYS_mount(c"none".as_ptr(), c"/tmp/ethudp-none".as_ptr(), c"tmpfs".as_ptr(), 0, 0);
    "memfd_create" Killed Killed |_| SYS_memfd_create(c"code".as_ptr(), 0);
    // Sockets.
    "socket-inet" Works Killed |_| SYS_socket(libc::AF_INET, libc::SOCK_DGRAM, 0);
    "socket-inet6" Works Killed |_| SYS_socket(libc::AF_INET6, libc::SOCK_DGRAM, 0);
    "socket-packet" Works Killed |_| SYS_socket(libc::AF_PACKET, libc::SOCK_RAW, 0);
    "socket-netlink" Works Killed |_| SYS_socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE);
    "socket-tcp" Killed Killed |_| SYS_socket(libc::AF_INET, libc::SOCK_STREAM, 0);
    "socket-raw-ip" Killed Killed |_| SYS_socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP);
    "socket-udp-lite" Killed Killed |_| SYS_socket(libc::AF_INET6, libc::SOCK_DGRAM, libc::IPPROTO_UDPLITE);
    "socket-packet-that-hears-all" Killed Killed |_| SYS_socket(libc::AF_PACKET, libc::SOCK_RAW, 0x0300);
    "socket-packet-without-headers" Killed Killed |_| SYS_socket(libc::AF_PACKET, libc::SOCK_DGRAM, 0);
    "socket-netlink-of-the-firewall" Killed Killed |_|
        SYS_socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_NETFILTER);
    "socket-unix" Killed Killed |_| SYS_socket(libc::AF_UNIX, libc::SOCK_STREAM, 0);
    "socket-bluetooth" Killed Killed |_| SYS_socket(libc::AF_BLUETOOTH, libc::SOCK_STREAM, 0);
    "socket-vsock" Killed Killed |_| SYS_socket(libc::AF_VSOCK, libc::SOCK_STREAM, 0);
    "socket-alg" Killed Killed |_| SYS_socket(libc::AF_ALG, libc::SOCK_SEQPACKET, 0);
    "socketpair" Killed Killed |_| SYS_socketpair(libc::AF_UNIX, libc::SOCK_STREAM, 0, ZEROS.to_vec().as_mut_ptr());
    "bind" Works Killed |tools| SYS_bind(fd(&tools.udp), DISCARD.as_ptr(), 16);
    "bind-a-TCP-port" RefusedPort Killed |tools| SYS_bind(fd(&tools.tcp), DISCARD.as_ptr(), 16);
    "connect" Works Killed |tools| SYS_connect(fd(&tools.udp), DISCARD.as_ptr(), 16);
    "connect-to-a-TCP-port" RefusedPort Killed |tools| SYS_connect(fd(&tools.tcp), DISCARD.as_ptr(), 16);
    "listen" Killed Killed |tools| SYS_listen(fd(&tools.tcp), 1);
    "sendto" Works Killed |tools| SYS_sendto(fd(&tools.udp), ZEROS.as_ptr(), 8, 0, DISCARD.as_ptr(), 16);
    "recvfrom" Works Killed |tools| SYS_recvfrom(fd(&tools.bound), 0, 0, libc::MSG_DONTWAIT, 0, 0);
    "set-the-buffer" Works Killed |tools|
        SYS_setsockopt(fd(&tools.udp), libc::SOL_SOCKET, libc::SO_RCVBUF, &raw const *ON, 4);
    "lock-the-filter" Works Killed |tools|
        SYS_setsockopt(fd(&tools.udp), libc::SOL_SOCKET, libc::SO_LOCK_FILTER, &raw const *ON, 4);
    "set-the-priority" Killed Killed |tools|
        SYS_setsockopt(fd(&tools.udp), libc::SOL_SOCKET, libc::SO_PRIORITY, &raw const *ON, 4);
    "share-the-port" Killed Killed |tools|
        SYS_setsockopt(fd(&tools.udp), libc::SOL_SOCKET, libc::SO_REUSEPORT, &raw const *ON, 4);
    "bind-to-any-address" Killed Killed |tools|
        SYS_setsockopt(fd(&tools.udp), libc::IPPROTO_IP, libc::IP_TRANSPARENT, &raw const *ON, 4);
    // Its number is allowed on the level that it belongs to.
    "an-option-of-another-level" Killed Killed |tools|
        SYS_setsockopt(fd(&tools.udp), libc::SOL_SOCKET, libc::IP_MTU_DISCOVER, &raw const *ON, 4);
    // Interfaces and descriptors.
    "TUNSETIFF" Works Killed |tools| SYS_ioctl(fd(&tools.tap), libc::TUNSETIFF, TAP.to_vec().as_mut_ptr());
    "TUNSETPERSIST" Killed Killed |tools| SYS_ioctl(fd(&tools.tap), libc::TUNSETPERSIST, 1);
    "TUNSETCARRIER" Works Works |tools| SYS_ioctl(fd(&tools.queue), libc::TUNSETCARRIER, &raw const *ON);
    "TUNSETSNDBUF" Works Killed |tools| SYS_ioctl(fd(&tools.queue), libc::TUNSETSNDBUF, &raw const *ON);
    "TUNDETACHFILTER" Works Killed |tools| SYS_ioctl(fd(&tools.queue), libc::TUNDETACHFILTER, 0);
    "TUNSETOWNER" Killed Killed |tools| SYS_ioctl(fd(&tools.tap), libc::TUNSETOWNER, 1);
    "SIOCSIFFLAGS" Killed Killed |tools| SYS_ioctl(fd(&tools.udp), libc::SIOCSIFFLAGS, DOWN.as_ptr());
    "F_GETFD" Works Works |tools| SYS_fcntl(fd(&tools.udp), libc::F_GETFD);
    "F_SETFL" Works Killed |tools| SYS_fcntl(fd(&tools.udp), libc::F_SETFL, libc::O_NONBLOCK);
    "F_DUPFD" Killed Killed |tools| SYS_fcntl(fd(&tools.udp), libc::F_DUPFD, 0);
    "dup" Killed Killed |tools| SYS_dup(fd(&tools.udp));
    // Other processes.
    "ptrace" Killed Killed |_| SYS_ptrace(libc::PTRACE_TRACEME);
    "kill" Killed Killed |_| SYS_kill(parent_id(), 0);
    "tgkill" Killed Killed |_| SYS_tgkill(parent_id(), parent_id(), 0);
    "pidfd_open" Killed Killed |_| SYS_pidfd_open(parent_id(), 0);
    "pidfd_getfd" Killed Killed |tools| SYS_pidfd_getfd(fd(&tools.udp), 0, 0);
    "process_vm_readv" Killed Killed |_| SYS_process_vm_readv(parent_id(), ZEROS.as_ptr(), 1, ZEROS.as_ptr(), 1, 0);
    // Executable memory.
    "mmap" Works Works |_| SYS_mmap(0, 4096, READ_WRITE, PRIVATE, -1, 0);
    "mmap-executable" Killed Killed |_| SYS_mmap(0, 4096, READ_EXECUTE, PRIVATE, -1, 0);
    // Memory that counts in no limit, or could be made to, or would lie where other memory is.
    "mmap-like-a-stack" Killed Killed |_| SYS_mmap(0, 4096, READ_WRITE, PRIVATE | libc::MAP_GROWSDOWN, -1, 0);
    "mmap-read-only" Killed Killed |_| SYS_mmap(0, 4096, libc::PROT_READ, PRIVATE, -1, 0);
    "mmap-out-of-reach" Killed Killed |_|
        SYS_mmap(0, 4096, libc::PROT_NONE, PRIVATE | libc::MAP_NORESERVE, -1, 0);
    "mmap-shared" Killed Killed |_| SYS_mmap(0, 4096, READ_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1, 0);
    "mmap-over-its-own" Killed Killed |_|
        SYS_mmap(ZEROS.as_ptr() as usize & !4095, 4096, READ_WRITE, PRIVATE | libc::MAP_FIXED, -1, 0);
    "mprotect-read-only" Killed Killed |_| SYS_mprotect(ZEROS.as_ptr() as usize & !4095, 4096, libc::PROT_READ);
    "mremap" Killed Killed |_| SYS_mremap(ZEROS.as_ptr() as usize & !4095, 4096, 8192, libc::MREMAP_MAYMOVE);
    "madvise" Killed Killed |_| SYS_madvise(ZEROS.as_ptr() as usize & !4095, 4096, libc::MADV_NOHUGEPAGE);
    "mprotect-executable" Killed Killed |_| SYS_mprotect(ZEROS.as_ptr() as usize & !4095, 4096, READ_EXECUTE);
    "pkey_mprotect" Killed Killed |_| SYS_pkey_mprotect(ZEROS.as_ptr() as usize & !4095, 4096, READ_EXECUTE, -1);
    "personality" Killed Killed |_| SYS_personality(0x040_0000); // READ_IMPLIES_EXEC
    // Parts of the kernel that it has no business with.
    "bpf" Killed Killed |_| SYS_bpf(0, ZEROS.as_ptr(), 72);
    "io_uring_setup" Killed Killed |_| SYS_io_uring_setup(8, ZEROS.to_vec().as_mut_ptr());
    "keyctl" Killed Killed |_| SYS_keyctl(0, -3, 0);
    "userfaultfd" Killed Killed |_| SYS_userfaultfd(0);
    "perf_event_open" Killed Killed |_| SYS_perf_event_open(ZEROS.as_ptr(), 0, -1, -1, 0);
    "init_module" Killed Killed |_| SYS_init_module(ZEROS.as_ptr(), 8, c"".as_ptr());
    // Its own powers and limits. What it may do while it opens is what gives them up.
    "PR_SET_SECCOMP" Killed Killed |_| SYS_prctl(libc::PR_SET_SECCOMP, 1);
    "PR_SET_KEEPCAPS" Killed Killed |_| SYS_prctl(libc::PR_SET_KEEPCAPS, 1);
    "PR_SET_DUMPABLE" Works Killed |_| SYS_prctl(libc::PR_SET_DUMPABLE, 0);
    "capget" Works Killed |_| SYS_capget(VERSION_3.to_vec().as_mut_ptr(), ZEROS.to_vec().as_mut_ptr());
    "capset" Works Killed |_| SYS_capset(VERSION_3.to_vec().as_mut_ptr(), ZEROS.as_ptr());
    "setgroups" Works Killed |_| SYS_setgroups(0, 0);
    "setresgid" Works Killed |_| SYS_setresgid(-1, -1, -1);
    "setresuid" Works Killed |_| SYS_setresuid(-1, -1, -1);
    "setuid" Killed Killed |_| SYS_setuid(0);
    "prlimit64" Works Killed |_| SYS_prlimit64(0, libc::RLIMIT_NOFILE, 0, 0);
    "seccomp" Works Killed |_| SYS_seccomp(libc::SECCOMP_GET_ACTION_AVAIL, 0, &raw const *KILL_PROCESS);
    "getrandom" Works Killed |_| SYS_getrandom(0, 0, 0);
};
