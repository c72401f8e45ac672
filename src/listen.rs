//! What the service manager has kept for us while we were not running (`sd_listen_fds(3)`, `FileDescriptorStoreMax=`).

use std::env;
use std::io;
use std::os::fd::OwnedFd;

use privsep::sys::process;

/// Name under which the queue of the TAP is stored.
pub const TAP: &str = "tap-0";
/// Descriptors that are taken at most.
const MOST: u16 = 64;

/// Takes the queue of the TAP, if it is there, and closes everything else that whoever started us has left open. Only for
/// the first line of `main`.
pub fn take_tap() -> io::Result<Option<OwnedFd>> {
    let number = |name: &str| env::var(name).ok()?.parse::<u32>().ok();
    let ours = number("LISTEN_PID") == Some(std::process::id());
    let count = number("LISTEN_FDS").filter(|_| ours).and_then(|count| u16::try_from(count).ok()).unwrap_or(0);
    let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
    let descriptors = process::take_inherited(count.min(MOST))?;
    Ok(names.split(':').zip(descriptors).find_map(|(name, descriptor)| (name == TAP).then_some(descriptor)?))
}
