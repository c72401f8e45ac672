//! Confinement of the helper, in two steps: before it reads the plan, to the calls for opening; once all handles are open, to the
//! calls for serving. Any other call kills the helper. It can never execute a program.

use std::io;

use privsep::confine::seccomp::{self, Allowed, Arguments, allow};
use privsep::confine::{self, Access};
use privsep::ipc::Identity;

/// Only files that the helper can open: the device that makes a TAP, and the switches of duplicate address detection.
const FILES: [&str; 2] = ["/dev/net/tun", "/proc/sys/net/ipv6/conf"];

/// Limit of the helper's own memory in bytes, many times its need.
pub const MEMORY: u64 = 8 << 20;

/// Confines the process before it reads the first byte.
pub fn before_plan() -> io::Result<()> {
    confine::at_start()?;
    confine::landlock(&FILES.map(|file| (file, Access::Use)))?;
    seccomp::enforce(OPENING.iter().chain(SERVING))
}

/// Limits memory, and allows no new thread or process.
pub fn limit() -> io::Result<()> {
    confine::limit_resources(MEMORY)
}

/// Drops all capabilities: the helper opens nothing of the plan again.
pub fn give_up_privileges(become_user: Option<Identity>) -> io::Result<()> {
    confine::drop_privileges(become_user)?;
    // The change of identity has undone it.
    confine::die_with_parent()?;
    for_good()
}

/// Confines the process once every handle is open and every privilege is dropped.
pub fn for_good() -> io::Result<()> {
    confine::landlock_all()?;
    limit()?;
    seccomp::enforce(SERVING)
}

use Arguments::{AbortItself, Any, OneOf, PlainMemory, Socket, SocketOption};

#[allow(clippy::cast_possible_truncation)] // The kernel also looks at 32 bits.
const TAP: &[i32] =
    &[libc::TUNSETIFF as i32, libc::TUNSETOFFLOAD as i32, libc::TUNGETIFF as i32, libc::SIOCGIFHWADDR as i32];
#[allow(clippy::cast_possible_truncation)]
const STORED: &[i32] = &[
    libc::TUNSETVNETHDRSZ as i32,
    libc::TUNSETVNETLE as i32,
    libc::TUNSETVNETBE as i32,
    libc::TUNSETTXFILTER as i32,
    libc::TUNDETACHFILTER as i32,
    libc::TUNSETFILTEREBPF as i32,
    libc::TUNSETSTEERINGEBPF as i32,
    libc::TUNSETSNDBUF as i32,
];
#[allow(clippy::cast_possible_truncation)]
const CARRIER: &[i32] = &[libc::TUNSETCARRIER as i32];
/// Bounding and ambient set; dumpable flag; parent death signal.
const PRIVILEGES: &[i32] = &[
    libc::PR_CAPBSET_READ,
    libc::PR_CAPBSET_DROP,
    libc::PR_CAP_AMBIENT,
    libc::PR_SET_DUMPABLE,
    libc::PR_SET_PDEATHSIG,
    libc::PR_SET_NO_NEW_PRIVS,
];
const SOCKET: &[i32] = &[
    libc::SO_RCVBUFFORCE,
    libc::SO_SNDBUFFORCE,
    libc::SO_RCVBUF,
    libc::SO_SNDBUF,
    libc::SO_BINDTODEVICE,
    libc::SO_MARK,
];
const FILTER: &[i32] = &[libc::SO_ATTACH_FILTER, libc::SO_LOCK_FILTER];
const IPV4: &[i32] = &[libc::IP_MTU_DISCOVER, libc::IP_PKTINFO, libc::IP_TOS, libc::IP_RECVTOS];
const IPV6: &[i32] =
    &[libc::IPV6_V6ONLY, libc::IPV6_MTU_DISCOVER, libc::IPV6_RECVPKTINFO, libc::IPV6_TCLASS, libc::IPV6_RECVTCLASS];
const UDP: &[i32] = &[libc::UDP_GRO];
const PACKET: &[i32] = &[libc::PACKET_AUXDATA, libc::PACKET_VNET_HDR, libc::PACKET_ADD_MEMBERSHIP];

/// Calls allowed from the start until everything is open, in addition to [`SERVING`].
pub const OPENING: &[Allowed] = &[
    allow("socket", libc::SYS_socket, Socket(libc::AF_INET, libc::SOCK_DGRAM, 0), "UDP sockets"),
    allow("socket", libc::SYS_socket, Socket(libc::AF_INET6, libc::SOCK_DGRAM, 0), "UDP sockets"),
    allow("socket", libc::SYS_socket, Socket(libc::AF_PACKET, libc::SOCK_RAW, 0), "packet socket, silent until bound"),
    allow("socket", libc::SYS_socket, Socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE), "interfaces"),
    allow("setsockopt", libc::SYS_setsockopt, SocketOption(libc::SOL_SOCKET, SOCKET), "buffers, device, mark"),
    allow("setsockopt", libc::SYS_setsockopt, SocketOption(libc::SOL_SOCKET, FILTER), "filter of a socket"),
    allow(
        "setsockopt",
        libc::SYS_setsockopt,
        SocketOption(libc::IPPROTO_IP, IPV4),
        "ignores cached path MTUs; local address and traffic class of a datagram",
    ),
    allow(
        "setsockopt",
        libc::SYS_setsockopt,
        SocketOption(libc::IPPROTO_IPV6, IPV6),
        "as for IPv4; IPv6 alone or both families",
    ),
    allow("setsockopt", libc::SYS_setsockopt, SocketOption(libc::SOL_UDP, UDP), "receives datagrams in runs"),
    allow("setsockopt", libc::SYS_setsockopt, SocketOption(libc::SOL_PACKET, PACKET), "tags, offload, promiscuity"),
    allow("bind", libc::SYS_bind, Any, "UDP and packet sockets"),
    allow("connect", libc::SYS_connect, Any, "UDP sockets with a fixed remote"),
    allow("fcntl", libc::SYS_fcntl, OneOf(1, &[libc::F_SETFL]), "makes a stored TAP non-blocking"),
    allow("sendto", libc::SYS_sendto, Any, "netlink requests"),
    allow("recvfrom", libc::SYS_recvfrom, Any, "netlink replies"),
    allow("openat", libc::SYS_openat, Any, "files that Landlock allows"),
    allow("ioctl", libc::SYS_ioctl, OneOf(1, TAP), "creates a TAP with offload; identifies a stored TAP"),
    allow("ioctl", libc::SYS_ioctl, OneOf(1, STORED), "resets the settings of a stored TAP"),
    allow("prctl", libc::SYS_prctl, OneOf(0, PRIVILEGES), "drops the bounding set; non-dumpable; dies with its parent"),
    allow("capget", libc::SYS_capget, Any, "gives up capabilities"),
    allow("capset", libc::SYS_capset, Any, "gives up capabilities"),
    allow("getrandom", libc::SYS_getrandom, Any, "hash table of the capability sets"),
    allow("setgroups", libc::SYS_setgroups, Any, "becomes the unprivileged user"),
    allow("setresgid", libc::SYS_setresgid, Any, "becomes the unprivileged user"),
    allow("setresuid", libc::SYS_setresuid, Any, "becomes the unprivileged user"),
    allow("landlock_create_ruleset", libc::SYS_landlock_create_ruleset, Any, "confines itself for good"),
    allow("landlock_restrict_self", libc::SYS_landlock_restrict_self, Any, "confines itself for good"),
    allow("prlimit64", libc::SYS_prlimit64, OneOf(0, &[0]), "confines itself for good"),
    allow("seccomp", libc::SYS_seccomp, Any, "confines itself for good"),
];

/// Calls allowed from the start to the end.
pub const SERVING: &[Allowed] = &[
    allow("recvmsg", libc::SYS_recvmsg, Any, "requests from the supervisor"),
    allow("sendmsg", libc::SYS_sendmsg, Any, "answers to the supervisor; handles to a worker"),
    allow("close", libc::SYS_close, Any, "socket of a worker after its handles were sent"),
    allow("ioctl", libc::SYS_ioctl, OneOf(1, CARRIER), "carrier of a TAP"),
    allow("fcntl", libc::SYS_fcntl, OneOf(1, &[libc::F_GETFD]), "checks of debug builds; channel at the start"),
    allow("write", libc::SYS_write, Any, "last words to /dev/null; IPv6 settings of the TAP, while opening"),
    allow("brk", libc::SYS_brk, Any, "allocator"),
    allow("mmap", libc::SYS_mmap, PlainMemory, "allocator; never executable; counts in the limit"),
    allow("munmap", libc::SYS_munmap, Any, "allocator"),
    allow("rt_sigprocmask", libc::SYS_rt_sigprocmask, Any, "abort"),
    allow("rt_sigaction", libc::SYS_rt_sigaction, Any, "abort"),
    allow("getpid", libc::SYS_getpid, Any, "abort"),
    allow("gettid", libc::SYS_gettid, Any, "abort"),
    allow("tgkill", libc::SYS_tgkill, AbortItself, "abort"),
    allow("sigaltstack", libc::SYS_sigaltstack, Any, "end of the process"),
    allow("exit_group", libc::SYS_exit_group, Any, "end of the process"),
];
