//! Confinement of the filter compiler, in two steps: before it loads libpcap, to opening an interface; before it reads the filter,
//! to compiling.
//!
//! A call outside the tables fails with `ENOSYS` and does not kill the process. Libraries of the distribution run here, and the C
//! library looks up service names at daemons first.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use nix::libc;
use privsep::confine::seccomp::{self, Allowed, Arguments, allow};
use privsep::confine::{self, Access, libraries, supervisor::keep_net_raw};
use privsep::ipc::Identity;
use privsep::sys::process::SUPERVISOR_FD;

use crate::service::confine::own_libraries;

/// Memory limit of a compilation in bytes. 500 hosts take half of it.
pub const MEMORY: u64 = 64 << 20;
/// Limit of processor time in seconds.
pub const PROCESSOR_S: u64 = 10;

/// Files with the directories of libraries, and with names of ports, protocols, networks and hosts.
const NAMES: [&str; 9] = [
    "/etc/ld.so.cache", "/etc/nsswitch.conf", "/etc/services", "/etc/protocols", "/etc/hosts", "/etc/networks",
    "/etc/ethers", "/etc/host.conf", "/etc/resolv.conf",
];
/// Directory in which libpcap finds out whether an interface is a switch port (DSA) or wireless.
const INTERFACES: &str = "/sys";

/// Confinement before libpcap is loaded: the tunnel's user, and `CAP_NET_RAW` only if an interface is to be opened. Returns the
/// directories of libraries, which `/proc` shows only now, and the means of confinement that this kernel lacks.
pub fn before_loading(identity: Option<Identity>, live: bool) -> io::Result<(BTreeSet<PathBuf>, Vec<&'static str>)> {
    let own = own_libraries()?;
    if live {
        keep_net_raw(identity)?;
    } else {
        confine::drop_privileges(identity)?;
    }
    // The change of identity has undone it.
    confine::die_with_parent()?;
    libraries::limit_processor(PROCESSOR_S)?;
    let abi = restrict_files(&own, &[Path::new(INTERFACES)])?;
    let mdwe = confine::deny_write_execute();
    seccomp::restrict(OPENING.iter().chain(COMPILING).chain(libraries::CALLS).chain(libraries::OLD))?;
    Ok((own, libraries::lacks(abi, mdwe)))
}

/// Confinement before the filter is read.
pub fn before_reading(own: &BTreeSet<PathBuf>) -> io::Result<()> {
    confine::drop_capabilities()?;
    restrict_files(own, &[])?;
    confine::limit_resources(MEMORY)?;
    seccomp::restrict(COMPILING.iter().chain(libraries::CALLS).chain(libraries::OLD))
}

/// Restricts files to libraries, those of this program included, names and `others`. Returns the ABI of Landlock, 0 without it.
fn restrict_files(own: &BTreeSet<PathBuf>, others: &[&Path]) -> io::Result<u32> {
    let all_libraries = own.iter().cloned().chain(libraries::LIBRARIES.map(PathBuf::from));
    let executable = all_libraries.map(|path| (path, Access::Execute));
    let names = NAMES.map(PathBuf::from).into_iter().chain(others.iter().map(PathBuf::from));
    let all: Vec<_> = executable.chain(names.map(|path| (path, Access::Read))).collect();
    confine::landlock(&all)
}

use Arguments::{Any, OneOf, Socket, SocketOption};

const CHANNEL: &[i32] = &[SUPERVISOR_FD];
const STANDARD_ERROR: &[i32] = &[libc::STDERR_FILENO];
const DESCRIPTOR: &[i32] = &[libc::F_GETFD];
const PRIVILEGES: &[i32] = &[libc::PR_CAPBSET_READ, libc::PR_CAP_AMBIENT, libc::PR_SET_NO_NEW_PRIVS];
const PACKET: &[i32] = &[libc::PACKET_AUXDATA, libc::PACKET_VERSION, libc::PACKET_RESERVE, libc::PACKET_RX_RING];
const HEADER: &[i32] = &[libc::PACKET_HDRLEN];
const FILTER: &[i32] = &[libc::SO_ATTACH_FILTER, libc::SO_LOCK_FILTER];
const STATE: &[i32] = &[libc::SO_ERROR, libc::SO_BPF_EXTENSIONS];
#[allow(clippy::cast_possible_truncation)] // The kernel also compares 32 bits.
const INTERFACE: &[i32] = &[
    libc::SIOCGIFINDEX as i32,
    libc::SIOCGIFHWADDR as i32,
    libc::SIOCGIFNAME as i32,
    libc::SIOCGIFMTU as i32,
    libc::SIOCGIFFLAGS as i32,
    libc::SIOCETHTOOL as i32,
];

/// Calls while libpcap is loaded and opens the interface.
pub const OPENING: &[Allowed] = &[
    allow("socket", libc::SYS_socket, Socket(libc::AF_PACKET, libc::SOCK_RAW, 0), "opens the interface"),
    allow("socket", libc::SYS_socket, Socket(libc::AF_UNIX, libc::SOCK_RAW, 0), "requests about the interface"),
    allow("bind", libc::SYS_bind, Any, "binds to the interface"),
    allow("setsockopt", libc::SYS_setsockopt, SocketOption(libc::SOL_PACKET, PACKET), "options that libpcap sets"),
    allow(
        "setsockopt",
        libc::SYS_setsockopt,
        SocketOption(libc::SOL_SOCKET, FILTER),
        "filter that rejects every frame",
    ),
    allow("getsockopt", libc::SYS_getsockopt, SocketOption(libc::SOL_PACKET, HEADER), "kernel support for the ring"),
    allow(
        "getsockopt",
        libc::SYS_getsockopt,
        SocketOption(libc::SOL_SOCKET, STATE),
        "kernel support for VLAN tags in filters",
    ),
    allow("ioctl", libc::SYS_ioctl, OneOf(1, INTERFACE), "kind, index and offload of the interface"),
    allow("eventfd2", libc::SYS_eventfd2, Any, "libpcap: interrupts a capture"),
    allow("uname", libc::SYS_uname, Any, "libpcap: checks for a 32-bit program on a 64-bit kernel"),
    allow("prctl", libc::SYS_prctl, OneOf(0, PRIVILEGES), "gives up capabilities"),
    allow("capget", libc::SYS_capget, Any, "gives up capabilities"),
    allow("capset", libc::SYS_capset, Any, "gives up capabilities"),
    allow("landlock_create_ruleset", libc::SYS_landlock_create_ruleset, Any, "confines itself for good"),
    allow("landlock_add_rule", libc::SYS_landlock_add_rule, Any, "confines itself for good"),
    allow("landlock_restrict_self", libc::SYS_landlock_restrict_self, Any, "confines itself for good"),
    allow("prlimit64", libc::SYS_prlimit64, OneOf(0, &[0]), "confines itself for good"),
    allow("seccomp", libc::SYS_seccomp, Any, "confines itself for good"),
];

/// Calls from the start on. With [`libraries::CALLS`] they are the only ones once the filter is read.
pub const COMPILING: &[Allowed] = &[
    allow("recvmsg", libc::SYS_recvmsg, OneOf(0, CHANNEL), "the filter"),
    allow("sendmsg", libc::SYS_sendmsg, OneOf(0, CHANNEL), "the program; sends nothing on the interface"),
    allow(
        "write",
        libc::SYS_write,
        OneOf(0, STANDARD_ERROR),
        "last words to /dev/null; sends nothing on the interface",
    ),
    allow("fcntl", libc::SYS_fcntl, OneOf(1, DESCRIPTOR), "checks of debug builds"),
];
