//! Who we are, and whom the processes become.

use ethudp_status::USER;
use nix::unistd::{Group, Uid, User, getegid, geteuid};
use privsep::confine::{self, supervisor::may_become_user};
use privsep::ipc::Identity;

use crate::Error;
use crate::error::Context;

/// Who may ask for the status, and read no key.
const STATUS_GROUP: &str = "ethudp-status";

/// Whom to become; `None` when started without root, with the capabilities that are needed.
pub fn choose(user: Option<&str>) -> Result<Option<Identity>, Error> {
    if geteuid().is_root() {
        return look_up(user.unwrap_or(USER)).map(Some);
    }
    if let Some(name) = user {
        let same = User::from_name(name).ok().flatten().is_some_and(|user| user.uid == geteuid());
        if !same {
            return Err(Error::failure(format!("user {name:?}: only root can become another user")));
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

/// Whether this process can start a tunnel: it is root's, or has the capabilities that are needed.
///
/// # Errors
/// Where the kernel does not tell.
pub fn has_powers() -> Result<bool, Error> {
    Ok(geteuid().is_root() || confine::has_ambient_network_capabilities().context(|| "capabilities".into())?)
}

/// Whom a process of root becomes that needs no power at all: the user of root's tunnels, where there is one, else the kernel's
/// own nobody (`DEFAULT_OVERFLOWUID`). `None` without root, and where root may not become another user.
pub fn without_powers() -> Option<Identity> {
    const NOBODY: Identity = Identity { uid: 65_534, gid: 65_534 };
    let may = geteuid().is_root() && may_become_user().unwrap_or(true);
    may.then(|| look_up(USER).unwrap_or(NOBODY))
}

fn look_up(name: &str) -> Result<Identity, Error> {
    let Some(user) = User::from_name(name).context(|| format!("user {name:?}"))? else {
        return Err(Error::failure(format!(
            "user {name:?}: does not exist; create it with `useradd --system --user-group --home-dir / --shell \
             /usr/sbin/nologin {name}`, or name another with --user"
        )));
    };
    if user.uid.is_root() || user.gid.as_raw() == 0 {
        return Err(Error::failure(format!("user {name:?}: has uid or gid 0; must be an unprivileged user")));
    }
    Ok(Identity { uid: user.uid.as_raw(), gid: user.gid.as_raw() })
}

/// A user, with the name where there is one.
pub fn user_name(user: u32) -> String {
    let known = User::from_uid(Uid::from_raw(user)).ok().flatten();
    known.map_or_else(|| format!("user {user}"), |known| format!("user {} ({user}), as after `chown {0}`", known.name))
}

/// Whether a key file may belong to this user: root, ourselves, or the user that root's tunnels become.
pub fn may_own_keys(owner: u32) -> bool {
    let tunnel_user = || User::from_name(USER).ok().flatten().is_some_and(|user| user.uid.as_raw() == owner);
    Uid::from_raw(owner).is_root() || owner == geteuid().as_raw() || tunnel_user()
}

/// Whether a group may read keys: root's, our own, the one of the user that root's tunnels become. Not the one that may ask for
/// the status, be it our own.
pub fn may_read_keys(group: u32) -> bool {
    let shared = || Group::from_name(USER).ok().flatten().is_some_and(|shared| shared.gid.as_raw() == group);
    let own = group == getegid().as_raw() && status_group() != Some(group);
    group == 0 || own || shared()
}

/// The group whose members may ask tunnels for their status, where there is one.
pub fn status_group() -> Option<u32> {
    Group::from_name(STATUS_GROUP).ok().flatten().map(|group| group.gid.as_raw())
}
