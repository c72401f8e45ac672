//! Command of the user (`-c`, `run`), the only other child of the supervisor. It runs when everything is open, with the privileges
//! of the start, before they are dropped.

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::sys::signalfd::SignalFd;
use nix::unistd::Pid;

use crate::log;
use crate::process::end_requested;

/// Longest run time of the command.
const LIMIT: Duration = Duration::from_secs(30);
/// PATH of the command. The rest of its environment is `ETHUDP_NAME` and `ETHUDP_INTERFACE`.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Runs the command and logs its failure, which does not stop the tunnel. Returns false if a signal asks for the end meanwhile.
pub fn run(command: &str, tunnel: &str, interface: &str, signals: &SignalFd) -> bool {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", command]).env_clear().env("PATH", PATH);
    shell.env("ETHUDP_NAME", tunnel).env("ETHUDP_INTERFACE", interface);
    // A process group of its own, so that the command's children can be killed with it.
    shell.stdin(Stdio::null()).current_dir("/").process_group(0);
    match shell.spawn() {
        Ok(mut child) => wait(&mut child, command, signals),
        Err(error) => {
            log::error(&format!("command {command:?}: {error}"));
            true
        }
    }
}

fn wait(child: &mut Child, command: &str, signals: &SignalFd) -> bool {
    let start = Instant::now();
    loop {
        let interrupted = end_requested(signals);
        match child.try_wait() {
            Ok(Some(status)) => {
                report(command, status);
                return !interrupted;
            }
            Ok(None) if interrupted || start.elapsed() >= LIMIT => {
                if let Ok(group) = i32::try_from(child.id()) {
                    let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
                }
                let _ = child.wait();
                log::error(&format!("command {command:?}: killed after {} s", start.elapsed().as_secs()));
                return !interrupted;
            }
            Ok(None) => thread::sleep(Duration::from_millis(10)),
            Err(error) => {
                log::error(&format!("command {command:?}: {error}"));
                return !interrupted;
            }
        }
    }
}

fn report(command: &str, status: ExitStatus) {
    match (status.code(), status.signal()) {
        (Some(0), _) => {}
        (Some(code), _) => log::warning(&format!("command {command:?}: exit status {code}")),
        (_, signal) => log::warning(&format!("command {command:?}: killed by signal {}", signal.unwrap_or_default())),
    }
}
