//! What whoever starts us hands on and we do not want: signals that are ignored or blocked, an environment full of others'
//! matters, a place for core dumps.

use std::io;

use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::SigSet;
use privsep::sys::process;
use privsep::sys::supervisor::start;

/// What is read from the environment; the syslog crate looks at TZ. The rest is forgotten: secrets of others that a process
/// that has been taken over could tell, and what libraries would heed (`HOSTALIASES`, `RES_OPTIONS`).
const KEPT: [&str; 10] = [
    "RUNTIME_DIRECTORY", "CREDENTIALS_DIRECTORY", "NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_PID",
    "LISTEN_FDS", "LISTEN_FDNAMES", "JOURNAL_STREAM", "TZ",
];

/// Begins as if nobody had left anything. First in `main`.
pub fn afresh() -> io::Result<()> {
    // An ignored SIGCHLD would keep from us how a worker has died.
    process::default_signals();
    SigSet::empty().thread_set_mask()?;
    start::keep_environment(&KEPT);
    // A core would have keys in it.
    Ok(setrlimit(Resource::RLIMIT_CORE, 0, 0)?)
}
