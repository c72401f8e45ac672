//! Another process of the tunnel's user, which nothing confines: it can end the tunnel's processes, and no more. Where tunnels
//! have a user each, as under the unit, one of another tunnel's can do nothing at all.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use nix::unistd::Pid;

use crate::lab::{Running, Scratch, Sites, assert_udp, copy_built, wait_for};

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
fn same_user_process_reaches_nothing() {
    let sites = Sites::new();
    let (a, _b) = (Running::classic(&sites.a, "a", TAP), Running::classic(&sites.b, "b", PEER));
    let program = a.scratch.path().join("neighbour");
    copy_built("stub-neighbour", &program);
    // An ordinary process of that user, which shows that the attempts are real ones.
    let mut ordinary = as_tunnel_user("sleep").arg("60").spawn().unwrap();
    wait_for("sleep", crate::lab::PATIENCE, || {
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
    wait_for("new worker", crate::lab::PATIENCE, || (a.count("/worker_restarts") == 1).then_some(()));
    assert_udp(&sites.a, &sites.b, "10.8.0.2");
}

/// Users of one tunnel each, which no account has: of the range for temporary users.
const USERS: [u32; 2] = [64_101, 64_102];

/// A command that runs as this user.
fn as_user(user: u32, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig=KILL", "--clear-groups", &format!("--reuid={user}"), &format!("--regid={user}"), "--"]);
    command.arg(program);
    command
}

#[test]
fn other_tunnel_user_reaches_nothing() {
    let sites = Sites::new();
    let _lans = sites.lans(1400);
    let start = |site, name, user: u32, [here, there]: [u8; 2]| {
        // As the unit gives it: a directory of its own, a key that only it can read, two capabilities.
        let scratch = Scratch::new();
        let key = scratch.write("x.key", "0123456789abcdef\n", 0o400);
        chown(&key, Some(user), Some(user)).unwrap();
        chown(scratch.path(), Some(user), Some(user)).unwrap();
        fs::set_permissions(scratch.path(), Permissions::from_mode(0o750)).unwrap();
        let (uid, gid) = (format!("--reuid={user}"), format!("--regid={user}"));
        let capabilities = "+net_admin,+net_raw";
        let prefix = [&uid, &gid, "--clear-groups", "--inh-caps", capabilities, "--ambient-caps", capabilities];
        // Everybody may open its packet socket; a TAP where /dev/net/tun lets everybody.
        let arguments = format!("-e 192.0.2.{here} 6000 192.0.2.{there} 6000 lan");
        let words = ["-d", "-n", name].into_iter().chain(arguments.split_whitespace());
        Running::start(site, scratch, name, &prefix, &words.collect::<Vec<_>>())
    };
    let (a, b) = (start(&sites.a, "a", USERS[0], [1, 2]), start(&sites.b, "b", USERS[1], [2, 1]));
    let program = b.scratch.path().join("neighbour");
    copy_built("stub-neighbour", &program);
    let pids = ["supervisor", "helper", "worker"].map(|name| a.pid(name));
    let output = as_user(USERS[1], &program).args(pids.map(|pid| pid.to_string())).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let denied = |line: &&str| [" 1", " 13"].iter().any(|error| line.ends_with(error));
    assert_eq!((text.lines().count(), text.lines().filter(denied).count()), (3 * 12, 3 * 12), "{text}");

    let script = |user, script: &str, place: &Path| {
        let output = as_user(user, "sh").args(["-c", script, "sh"]).arg(place).output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for attempt in [
        "cat $1/x.key >&2", "ls $1", "rm $1/a.sock", "mv $1/a.sock $1/other", "mv $1 $1-other", "touch $1/other",
        "ln -sf /dev/null $1/a.sock", "echo >$1/.lock",
    ] {
        let (works, said) = script(USERS[1], attempt, a.scratch.path());
        assert!(!works && said.contains("Permission denied"), "{attempt}: {said}");
    }
    // The attempts are real ones.
    for attempt in ["cat $1/x.key", "ls $1", "touch $1/other", "mv $1/other $1/another"] {
        let (works, said) = script(USERS[0], attempt, a.scratch.path());
        assert!(works, "{attempt}: {said}");
    }
    assert_eq!(a.count("/worker_restarts"), 0);
    a.wait_state("up", crate::lab::PATIENCE);
}
