//! Removal of inherited settings: ignored or blocked signals, a foreign environment, core dumps.

use std::io;

use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::SigSet;
use privsep::sys::process;
use privsep::sys::supervisor::start;

/// Variables that are read; the syslog crate reads TZ. All others are removed: a compromised process could leak secrets in them,
/// and libraries would obey some (`HOSTALIASES`, `RES_OPTIONS`).
const KEPT: [&str; 10] = [
    "RUNTIME_DIRECTORY", "CREDENTIALS_DIRECTORY", "NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_PID",
    "LISTEN_FDS", "LISTEN_FDNAMES", "JOURNAL_STREAM", "TZ",
];

/// Resets the inherited settings. First call in `main`.
pub fn afresh() -> io::Result<()> {
    // An ignored SIGCHLD would hide the exit status of a worker.
    process::default_signals();
    SigSet::empty().thread_set_mask()?;
    start::keep_environment(&KEPT);
    // A core dump would contain keys.
    Ok(setrlimit(Resource::RLIMIT_CORE, 0, 0)?)
}
