//! What the service manager has kept for us while we were not running (`sd_listen_fds(3)`, `FileDescriptorStoreMax=`).

use std::io;
use std::os::fd::OwnedFd;

use privsep::sys::process;

/// Name under which the queue of the TAP is stored.
pub const TAP: &str = "tap-0";
/// Descriptors that are taken at most.
const MOST: u16 = 64;

/// Takes the queue of the TAP, if it is there, and closes everything else that whoever started us has left open. Only for
/// the first lines of `main`.
pub fn take_tap() -> io::Result<Option<OwnedFd>> {
    let names = match sd_notify::listen_fds_with_names() {
        Ok(all) => all.map(|(_, name)| name).collect::<Vec<_>>(),
        // Of no use, so none stays open.
        Err(error) => return process::take_inherited(0).and(Err(error)),
    };
    let descriptors = process::take_inherited(u16::try_from(names.len()).unwrap_or(MOST).min(MOST))?;
    Ok(names.into_iter().zip(descriptors).find_map(|(name, descriptor)| (name == TAP).then_some(descriptor)?))
}
