//! Steps of the supervisor's own processes; not part of the helper.

use std::io;

use caps::{CapSet, Capability, CapsHashSet};
use nix::sys::prctl;

use super::{become_user, step};
use crate::ipc::Identity;

/// Whether this process may become another user. Root in a container may lack the capabilities.
pub fn may_become_user() -> io::Result<bool> {
    let has = |capability| caps::has_cap(None, CapSet::Effective, capability).map_err(io::Error::other);
    Ok(has(Capability::CAP_SETUID)? && has(Capability::CAP_SETGID)?)
}

/// Becomes `identity`, if given, and keeps only `CAP_NET_RAW`, in no set that an exec inherits.
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
    caps::set(None, CapSet::Permitted, &one).map_err(io::Error::other)
}
