//! Another process of the tunnel's user, which nothing confines: it can end the tunnel's processes, and no more.

use std::ffi::OsStr;
use std::fs;
use std::process::Command;
use std::time::Duration;

use nix::unistd::Pid;

use crate::lab::{Running, Sites, assert_udp, copy_built, wait_for};

const TAP: &str = "-i -dev eu0 192.0.2.1 6000 192.0.2.2 6000 10.8.0.1 24";
const PEER: &str = "-i -dev eu0 192.0.2.2 6000 192.0.2.1 6000 10.8.0.2 24";

/// A command that runs as the tunnel's user.
fn as_tunnel_user(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--reuid", "ethudp", "--regid", "ethudp", "--clear-groups", "--"]);
    command.arg(program);
    command
}

#[test]
fn a_process_of_the_same_user_gets_at_nothing() {
    let sites = Sites::new();
    let (a, _b) = (Running::classic(&sites.a, "a", TAP), Running::classic(&sites.b, "b", PEER));
    let program = a.scratch.path().join("neighbour");
    copy_built("stub-neighbour", &program);
    // An ordinary process of that user, which shows that the attempts are real ones.
    let mut ordinary = as_tunnel_user("sleep").arg("60").spawn().unwrap();
    wait_for("sleep", Duration::from_secs(3), || {
        fs::read_to_string(format!("/proc/{}/comm", ordinary.id())).is_ok_and(|name| name == "sleep\n").then_some(())
    });
    let pids = ["supervisor", "helper", "worker"].map(|name| a.pid(name));
    let all = pids.iter().map(Pid::to_string).chain([ordinary.id().to_string()]);
    let output = as_tunnel_user(&program).args(all).output().unwrap();
    ordinary.kill().unwrap();
    ordinary.wait().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut attempts = 0;
    for line in text.lines() {
        let [pid, name, error] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let error: i32 = error.parse().unwrap();
        let denied = [libc::EPERM, libc::EACCES].contains(&error);
        if pid == ordinary.id().to_string() {
            // What else would deny it there (a security module) is none of ours.
            assert!(!denied || !["fd", "environ", "signal"].contains(&name), "{line}: proves nothing");
        } else {
            // Signals cannot be kept from one's own user.
            assert_eq!(denied, name != "signal", "{line}");
            attempts += 1;
        }
    }
    assert_eq!(attempts, 3 * 12, "{text}");
    // What a signal to the worker can do, the supervisor repairs.
    let killed = as_tunnel_user("sh").args(["-c", &format!("kill -KILL {}", pids[2])]).status().unwrap();
    assert!(killed.success());
    wait_for("new worker", Duration::from_secs(5), || (a.count("/worker_restarts") == 1).then_some(()));
    assert_udp(&sites.a, &sites.b, "10.8.0.2");
}
