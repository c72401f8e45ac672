//! A tunnel that carries nothing sleeps.

use std::fs;
use std::time::{Duration, Instant};

use nix::unistd::Pid;

use crate::lab::{Namespace, PATIENCE, Running, Sites, wait_for};

/// Wakeups a second of all processes of a tunnel: a report, its tick, PING and PONG, and in each third second the other loop.
const WAKEUPS: u64 = 5;
const TIME: Duration = Duration::from_secs(4);
/// On a busy machine one that is woken may have to wake again.
const ATTEMPTS: usize = 4;

/// How often the threads of these processes have slept so far: `voluntary_ctxt_switches` of `proc_pid_status`(5).
fn sleeps<const N: usize>(processes: [Pid; N]) -> u64 {
    let of_thread = |status: String| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap();
        line.trim().parse().unwrap()
    };
    let of_process = |pid: Pid| -> u64 {
        let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        threads.map(|thread| of_thread(fs::read_to_string(thread.unwrap().path().join("status")).unwrap())).sum()
    };
    processes.map(of_process).into_iter().sum()
}

#[test]
fn idle_tunnel_wakes_rarely() {
    let sites = Sites::new();
    let a = Running::classic(&sites.a, "a", "-i -dev eu0 192.0.2.1 6000 192.0.2.2 6000 10.8.0.1 24");
    let _b = Running::classic(&sites.b, "b", "-i -dev eu0 192.0.2.2 6000 192.0.2.1 6000 10.8.0.2 24");
    // The kernel announces what is new on an interface for some seconds.
    std::thread::sleep(Duration::from_secs(3));
    let processes = ["supervisor", "helper", "worker"].map(|name| a.pid(name));
    let counts: Vec<_> = (0..ATTEMPTS)
        .map(|_| {
            let before = sleeps(processes);
            std::thread::sleep(TIME);
            sleeps(processes) - before
        })
        .collect();
    let most = WAKEUPS * TIME.as_secs();
    assert!(counts.iter().any(|&count| count <= most), "{counts:?} in {TIME:?} each, at most {most}");
}

/// Changes of an interface that is no tunnel's.
const CHANGES: usize = 100;

/// Makes [`CHANGES`] and returns how often the supervisor has slept meanwhile, and in how many seconds.
fn flap(site: &Namespace, tunnel: &Running) -> (u64, u64) {
    let lines = "link set other up\nlink set other down\n".repeat(CHANGES / 2);
    let file = tunnel.scratch.write("changes", &lines, 0o644);
    let (supervisor, start) = ([tunnel.pid("supervisor")], Instant::now());
    let before = sleeps(supervisor);
    site.ip(&format!("-batch {}", file.display()));
    (sleeps(supervisor) - before, start.elapsed().as_secs())
}

#[test]
fn other_interfaces_wake_nothing() {
    let sites = Sites::new();
    sites.a.ip("link add br0 type bridge");
    sites.a.ip("link set br0 up");
    sites.a.ip("link add other type veth peer name end");
    let tap = Running::classic(&sites.a, "tap", "-i -dev eu0 192.0.2.1 6000 192.0.2.2 6000 10.8.0.1 24");
    let port = Running::classic(&sites.a, "port", "-b -dev eu1 192.0.2.1 6001 192.0.2.2 6001 br0");
    for tunnel in [&tap, &port] {
        let (slept, seconds) = flap(&sites.a, tunnel);
        let most = WAKEUPS * (seconds + 1);
        assert!(slept <= most, "{slept} of at most {most} in {seconds} s, for {CHANGES} changes");
    }
    // What concerns them still does.
    for (change, tunnel, line) in [
        ("addr del 10.8.0.1/24 dev eu0", &tap, "address 10.8.0.1/24 is missing"),
        ("link set eu0 down", &tap, "\"eu0\" is down"),
        ("link set eu1 nomaster", &port, "\"eu1\" left bridge \"br0\""),
        ("link del br0", &port, "bridge \"br0\" is gone"),
        ("link add br0 type bridge", &port, "local side: interface \"eu1\" left bridge"),
    ] {
        let said = || tunnel.log().matches(line).count();
        let before = said();
        sites.a.ip(change);
        wait_for(line, PATIENCE, || (said() > before).then_some(()));
    }
}
