//! Runs a tunnel in the foreground or in the background. It goes to the background only when it is ready, so that the user sees a
//! failure.

use std::fs::File;
use std::io::{self, PipeWriter, Read, Write};

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, chdir, dup2_stderr, dup2_stdin, dup2_stdout, setsid};
use privsep::sys::process::fork_background;

use crate::error::Context;
use crate::log::{self, SystemLog};
use crate::service::descriptor_store::StoredDescriptors;
use crate::supervise::policy::{Place, Policies};
use crate::tunnel::{Tunnel, taken};
use crate::{Error, supervise};

/// Runs a tunnel until a signal asks for its end.
pub fn run(tunnel: Tunnel, policies: Policies, stored: StoredDescriptors) -> Result<(), Error> {
    log::name(&tunnel.name);
    for line in taken::warnings(&tunnel) {
        log::warning(&line);
    }
    if policies.place == Place::Foreground {
        return supervise::run(tunnel, policies, stored, || Ok(()));
    }
    let going = || "cannot go to the background".to_owned();
    let (mut ready, signal) = io::pipe().context(going)?;
    if let Some(child) = fork_background().context(going)? {
        drop(signal);
        return if ready.read(&mut [0]).is_ok_and(|bytes| bytes == 1) { Ok(()) } else { Err(verdict(child)) };
    }
    drop(ready);
    setsid().context(going)?;
    let system_log = log::connect(&tunnel.name);
    supervise::run(tunnel, policies, stored, || detach(system_log, signal).context(going))
}

/// Error for a child that ended before it was in the background.
fn verdict(child: Pid) -> Error {
    match waitpid(child, None) {
        Ok(WaitStatus::Exited(_, status)) => Error::Reported(u8::try_from(status).unwrap_or(1)),
        other => Error::failure(format!("supervisor ended before it was ready: {other:?}")),
    }
}

/// Detaches from terminal and directory, and has the parent exit with success.
fn detach(system_log: Option<SystemLog>, mut signal: PipeWriter) -> io::Result<()> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    chdir("/")?;
    if system_log.is_none() {
        log::warning(
            "no system log (/dev/log): messages from the background are lost; start a syslog daemon, or use -d",
        );
    }
    log::to_background(system_log);
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    dup2_stderr(&null)?;
    signal.write_all(&[1])
}
