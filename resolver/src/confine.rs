//! Confinement of the resolver, in two steps: before it reads the first question, to waiting and forking; before a child asks its
//! question, to the look-up of one name.
//!
//! A call outside the tables fails with `ENOSYS` and does not kill the process. Modules of the C library's name service switch
//! run in the child, and they fall back where a call is missing.

use std::io;

use privsep::confine;
use privsep::confine::libraries::{self, landlock_to_ask, limit_processor};
use privsep::confine::seccomp::{self, Allowed, Arguments, allow};
use privsep::ipc::{Identity, QUESTION_MEMORY};

/// Limit of processor time of a question in seconds.
const PROCESSOR_S: u64 = 5;

/// Directories of the files below. A child cannot read what its parent cannot, and the files are replaced while the parent runs.
const DIRECTORIES: [&str; 6] = ["/etc", "/run", "/usr", "/lib", "/lib64", STORE];
/// Libraries of a distribution that has them elsewhere.
const STORE: &str = "/nix/store";
/// Files of the resolver: nsswitch.conf(5), hosts(5), host.conf(5), resolv.conf(5), gai.conf(5), services(5), those of nss-mdns, and
/// the loader's list of libraries. A link stands for its target.
const FILES: [&str; 9] = [
    "/etc/nsswitch.conf", "/usr/etc/nsswitch.conf", "/etc/hosts", "/etc/host.conf", "/etc/resolv.conf",
    "/etc/gai.conf", "/etc/services", "/etc/mdns.allow", "/etc/ld.so.cache",
];

/// Confines the process before it reads the first question: user, capabilities, files, system calls. Returns the means of confinement
/// that this kernel lacks.
pub fn before_questions(become_user: Option<Identity>) -> io::Result<Vec<&'static str>> {
    confine::drop_privileges(become_user)?;
    // The change of identity has undone it.
    confine::die_with_parent()?;
    let abi = landlock_to_ask(&DIRECTORIES)?;
    let mdwe = confine::deny_write_execute();
    seccomp::restrict(WAITING.iter().chain(asking()))?;
    Ok(libraries::lacks(abi, mdwe))
}

/// Confines a child before it asks: the files of the resolver as they are now, memory, time, system calls.
pub fn before_asking() -> io::Result<()> {
    confine::die_with_parent()?;
    let files: Vec<_> = FILES.iter().chain(&libraries::LIBRARIES).chain(&[STORE]).collect();
    landlock_to_ask(&files)?;
    limit_processor(PROCESSOR_S)?;
    confine::limit_resources(QUESTION_MEMORY)?;
    seccomp::restrict(asking())
}

/// Calls while a question is asked.
fn asking() -> impl Iterator<Item = &'static Allowed> {
    ASKING.iter().chain(OLD).chain(libraries::CALLS).chain(libraries::OLD)
}

use Arguments::{Any, Both, OneOf, Socket, SocketOption};

const UNIX: &[i32] = &[libc::AF_UNIX];
const FORK: &[i32] = &[libc::CLONE_CHILD_SETTID | libc::CLONE_CHILD_CLEARTID | libc::SIGCHLD];
const PRIVILEGES: &[i32] = &[libc::PR_SET_NO_NEW_PRIVS];
const DESCRIPTOR: &[i32] = &[libc::F_GETFD, libc::F_SETFD, libc::F_GETFL, libc::F_SETFL];
#[allow(clippy::cast_possible_truncation)] // The kernel also compares 32 bits.
const REQUESTS: &[i32] =
    &[libc::FIONREAD as i32, libc::FIONBIO as i32, libc::SIOCGIFINDEX as i32, libc::SIOCGIFNAME as i32];
const KILL: &[i32] = &[libc::SIGKILL];
/// Length of `struct sockaddr_nl`. Those of IPv4 and IPv6 have 16 and 28 bytes.
const NETLINK: &[i32] = &[12];
const ERRORS4: &[i32] = &[libc::IP_RECVERR];
const ERRORS6: &[i32] = &[libc::IPV6_RECVERR];

/// Calls of the resolver until a child asks its question, in addition to those of the question.
pub const WAITING: &[Allowed] = &[
    allow("clone", libc::SYS_clone, OneOf(0, FORK), "forks the process of a question; no thread"),
    allow("kill", libc::SYS_kill, OneOf(1, KILL), "ends the process of a question; Landlock denies other processes"),
    allow("wait4", libc::SYS_wait4, Any, "the end of the process of a question"),
    allow("socketpair", libc::SYS_socketpair, OneOf(0, UNIX), "channel for an answer"),
    allow("set_robust_list", libc::SYS_set_robust_list, Any, "fork"),
    allow(
        "prctl",
        libc::SYS_prctl,
        Both(0, libc::PR_SET_PDEATHSIG, 1, libc::SIGKILL),
        "a child dies with the resolver, and cannot give up the signal",
    ),
    allow("prctl", libc::SYS_prctl, OneOf(0, PRIVILEGES), "confines a child"),
    allow("prlimit64", libc::SYS_prlimit64, OneOf(0, &[0]), "confines a child"),
    allow("landlock_create_ruleset", libc::SYS_landlock_create_ruleset, Any, "confines a child"),
    allow("landlock_add_rule", libc::SYS_landlock_add_rule, Any, "confines a child"),
    allow("landlock_restrict_self", libc::SYS_landlock_restrict_self, Any, "confines a child"),
    allow("seccomp", libc::SYS_seccomp, Any, "confines a child"),
];

/// Calls while a question is asked, in addition to [`libraries::CALLS`].
pub const ASKING: &[Allowed] = &[
    // Name servers, and daemons on this host that answer for them.
    allow(
        "socket",
        libc::SYS_socket,
        Socket(libc::AF_INET, libc::SOCK_DGRAM, 0),
        "asks a name server; sorts addresses",
    ),
    allow(
        "socket",
        libc::SYS_socket,
        Socket(libc::AF_INET6, libc::SOCK_DGRAM, 0),
        "asks a name server; sorts addresses",
    ),
    allow("socket", libc::SYS_socket, Socket(libc::AF_INET, libc::SOCK_STREAM, 0), "asks again for a long answer"),
    allow("socket", libc::SYS_socket, Socket(libc::AF_INET6, libc::SOCK_STREAM, 0), "asks again for a long answer"),
    allow("socket", libc::SYS_socket, Socket(libc::AF_UNIX, libc::SOCK_STREAM, 0), "asks systemd-resolved, nscd"),
    allow("socket", libc::SYS_socket, Socket(libc::AF_UNIX, libc::SOCK_DGRAM, 0), "index of an interface"),
    allow(
        "socket",
        libc::SYS_socket,
        Socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE),
        "addresses of this host, for the order of answers",
    ),
    allow("connect", libc::SYS_connect, Any, "as socket"),
    allow("bind", libc::SYS_bind, OneOf(2, NETLINK), "netlink; the address is too short for a port"),
    allow("getsockname", libc::SYS_getsockname, Any, "netlink; sorts addresses"),
    allow("getpeername", libc::SYS_getpeername, Any, "systemd-resolved"),
    allow("sendto", libc::SYS_sendto, Any, "questions"),
    allow("sendmmsg", libc::SYS_sendmmsg, Any, "questions for IPv4 and IPv6 at once"),
    allow("sendmsg", libc::SYS_sendmsg, Any, "the answer to the resolver; questions"),
    allow("recvfrom", libc::SYS_recvfrom, Any, "answers"),
    allow("recvmsg", libc::SYS_recvmsg, Any, "answers; questions of the supervisor"),
    allow("setsockopt", libc::SYS_setsockopt, SocketOption(libc::IPPROTO_IP, ERRORS4), "notices an absent name server"),
    allow(
        "setsockopt",
        libc::SYS_setsockopt,
        SocketOption(libc::IPPROTO_IPV6, ERRORS6),
        "notices an absent name server",
    ),
    allow("ioctl", libc::SYS_ioctl, OneOf(1, REQUESTS), "length of an answer; index of an interface"),
    allow("ppoll", libc::SYS_ppoll, Any, "waiting"),
    allow("uname", libc::SYS_uname, Any, "name of this host"),
    allow("write", libc::SYS_write, Any, "questions to daemons; last words to /dev/null"),
    allow("writev", libc::SYS_writev, Any, "questions by TCP"),
    allow("fcntl", libc::SYS_fcntl, OneOf(1, DESCRIPTOR), "descriptors"),
];

/// Older forms of the calls above, on this architecture only.
#[cfg(target_arch = "x86_64")]
pub const OLD: &[Allowed] = &[allow("poll", libc::SYS_poll, Any, "waiting")];
#[cfg(not(target_arch = "x86_64"))]
pub const OLD: &[Allowed] = &[];
