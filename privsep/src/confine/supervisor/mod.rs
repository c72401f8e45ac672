//! Steps of the supervisor's own processes; not part of the helper.

use std::io;

use caps::{CapSet, Capability, CapsHashSet};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::{become_user, not_dumpable, step};
use crate::ipc::Identity;

/// Whether this process may become another user. Root in a container may lack the capabilities.
pub fn may_become_user() -> io::Result<bool> {
    let has = |capability| caps::has_cap(None, CapSet::Effective, capability).map_err(io::Error::other);
    Ok(has(Capability::CAP_SETUID)? && has(Capability::CAP_SETGID)?)
}

/// As [`super::drop_privileges`], but keeps `CAP_NET_RAW`, in no set that an exec inherits.
pub fn keep_net_raw(identity: Option<Identity>) -> io::Result<()> {
    if let Some(identity) = identity {
        prctl::set_keepcaps(true).map_err(step("keepcaps"))?;
        become_user(identity)?;
    }
    let one = CapsHashSet::from([Capability::CAP_NET_RAW]);
    caps::clear(None, CapSet::Ambient).map_err(io::Error::other)?;
    caps::clear(None, CapSet::Inheritable).map_err(io::Error::other)?;
    // The effective set must stay a subset of the permitted set.
    caps::set(None, CapSet::Effective, &one).map_err(io::Error::other)?;
    caps::set(None, CapSet::Permitted, &one).map_err(io::Error::other)?;
    not_dumpable()
}

/// Moves this process and its future children into a new network namespace without any interface that is up.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN`.
pub fn enter_empty_network() -> io::Result<()> {
    Ok(unshare(CloneFlags::CLONE_NEWNET)?)
}

/// Limit of processes and threads of a user. It is far above the need of all tunnels of a user, and stops a process that forks
/// without end.
const PROCESSES: u64 = 4096;

/// Limits the processes and threads of the user when this process starts another.
pub fn limit_processes() -> io::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NPROC).map_err(step("RLIMIT_NPROC"))?;
    let limit = hard.min(PROCESSES);
    setrlimit(Resource::RLIMIT_NPROC, limit, limit).map_err(step("RLIMIT_NPROC"))
}

/// Whether `CAP_NET_ADMIN` and `CAP_NET_RAW` are in the ambient set, which an executed program inherits.
pub fn has_ambient_network_capabilities() -> io::Result<bool> {
    let has = |capability| caps::has_cap(None, CapSet::Ambient, capability).map_err(io::Error::other);
    Ok(has(Capability::CAP_NET_ADMIN)? && has(Capability::CAP_NET_RAW)?)
}
