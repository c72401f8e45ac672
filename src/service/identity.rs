//! Identity of this process, and of the processes that it starts.

use ethudp_status::USER;
use nix::unistd::{Group, Uid, User, getegid, geteuid};
use privsep::confine::supervisor::{has_ambient_network_capabilities, may_become_user};
use privsep::ipc::Identity;

use crate::Error;
use crate::error::Context;

/// Group that may ask for the status, but may not read keys.
const STATUS_GROUP: &str = "ethudp-status";

/// Identity to change to; `None` when started without root but with the needed capabilities.
pub fn choose(user: Option<&str>) -> Result<Option<Identity>, Error> {
    if geteuid().is_root() {
        return look_up(user.unwrap_or(USER)).map(Some);
    }
    if let Some(name) = user {
        let same = User::from_name(name).ok().flatten().is_some_and(|user| user.uid == geteuid());
        if !same {
            return Err(Error::failure(format!("user {name:?}: only root can change to another user")));
        }
    }
    if !has_powers()? {
        return Err(Error::failure(
            "no privilege: start as root, or with CAP_NET_ADMIN and CAP_NET_RAW as ambient capabilities \
             (AmbientCapabilities= in a systemd unit)",
        ));
    }
    Ok(None)
}

/// Whether this process can start a tunnel: it runs as root, or has the needed capabilities.
///
/// # Errors
/// When the kernel does not return the capabilities.
pub fn has_powers() -> Result<bool, Error> {
    Ok(geteuid().is_root() || has_ambient_network_capabilities().context(|| "capabilities".into())?)
}

/// Identity for a process of root that needs no privilege: the user of root's tunnels if it exists, else the kernel's overflow user
/// (`DEFAULT_OVERFLOWUID`). `None` without root, and where root may not change the user.
pub fn without_powers() -> Option<Identity> {
    const OVERFLOW: Identity = Identity { uid: 65_534, gid: 65_534 };
    let may = geteuid().is_root() && may_become_user().unwrap_or(true);
    may.then(|| look_up(USER).unwrap_or(OVERFLOW))
}

fn look_up(name: &str) -> Result<Identity, Error> {
    let Some(user) = User::from_name(name).context(|| format!("user {name:?}"))? else {
        return Err(Error::failure(format!(
            "user {name:?}: does not exist; create it with `useradd --system --user-group --home-dir / --shell \
             /usr/sbin/nologin {name}`, or choose another with --user"
        )));
    };
    if user.uid.is_root() || user.gid.as_raw() == 0 {
        return Err(Error::failure(format!("user {name:?}: has uid or gid 0; must be an unprivileged user")));
    }
    Ok(Identity { uid: user.uid.as_raw(), gid: user.gid.as_raw() })
}

/// User id with its name, if it has one.
pub fn user_name(user: u32) -> String {
    let known = User::from_uid(Uid::from_raw(user)).ok().flatten();
    known.map_or_else(|| format!("user {user}"), |known| format!("user {} ({user}), as after `chown {0}`", known.name))
}

/// Whether a key file may belong to this user: root, the caller, or the user of root's tunnels.
pub fn may_own_keys(owner: u32) -> bool {
    let tunnel_user = || User::from_name(USER).ok().flatten().is_some_and(|user| user.uid.as_raw() == owner);
    Uid::from_raw(owner).is_root() || owner == geteuid().as_raw() || tunnel_user()
}

/// Whether this group may read keys: root's, the caller's own, or the group of the user of root's tunnels. The status group may
/// not, even as the caller's own group.
pub fn may_read_keys(group: u32) -> bool {
    let shared = || Group::from_name(USER).ok().flatten().is_some_and(|shared| shared.gid.as_raw() == group);
    let own = group == getegid().as_raw() && status_group() != Some(group);
    group == 0 || own || shared()
}

/// Id of the group that may ask tunnels for their status, if it exists.
pub fn status_group() -> Option<u32> {
    Group::from_name(STATUS_GROUP).ok().flatten().map(|group| group.gid.as_raw())
}
