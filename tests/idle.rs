//! A tunnel that carries nothing sleeps.

use std::fs;
use std::time::Duration;

use nix::unistd::Pid;

use crate::lab::{Running, Sites};

/// Wakeups a second of all processes of a tunnel: a report, its tick, PING and PONG, and the other loop.
const WAKEUPS: u64 = 6;
const TIME: Duration = Duration::from_secs(4);
/// On a busy machine one that is woken may have to wake again.
const ATTEMPTS: usize = 4;

/// How often the threads of these processes have slept so far: `voluntary_ctxt_switches` of `proc_pid_status`(5).
fn sleeps(processes: [Pid; 3]) -> u64 {
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
fn an_idle_tunnel_wakes_at_most_six_times_a_second() {
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
