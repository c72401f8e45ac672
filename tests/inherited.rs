//! Settings inherited from the program that starts a tunnel: none reaches its processes.

use std::fs;

use crate::lab::{Background, Running, Scratch, Sites, assert_udp, crash, wait_for};

const ALONE: [&str; 12] =
    ["-d", "-n", "a", "-i", "-dev", "eu0", "192.0.2.1", "6000", "192.0.2.2", "6000", "10.8.0.1", "24"];
const PEER: &str = "-i -dev eu0 192.0.2.2 6000 192.0.2.1 6000 10.8.0.2 24";
/// Which every Rust program ignores.
const SIGPIPE: u64 = 1 << 12;
/// Signals 32 and 33, which the C library keeps to itself.
const LIBRARY: u64 = 3 << 31;
/// The shell is the program that setpriv(1) starts, and its first argument is `--`.
const ENVIRONMENT: [&str; 4] =
    ["sh", "-c", "shift; export API_TOKEN=hunter2 HOSTALIASES=/tmp/aliases; exec \"$@\"", "sh"];

/// A mask of signals in `/proc/PID/status`.
fn mask(end: &Running, process: &str, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", end.pid(process))).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    u64::from_str_radix(line.trim(), 16).unwrap()
}

#[test]
fn inherited_signal_state_is_reset() {
    let sites = Sites::new();
    let signals = ["env", "--ignore-signal", "--block-signal"];
    let a = Running::start(&sites.a, Scratch::new(), "a", &signals, &ALONE);
    let _b = Running::classic(&sites.b, "b", PEER);
    for process in ["supervisor", "helper", "worker"] {
        assert_eq!(mask(&a, process, "SigIgn:") & !LIBRARY, SIGPIPE, "{process}");
    }
    // SIGHUP, SIGINT, SIGUSR1, SIGTERM, SIGCHLD: read from a descriptor.
    assert_eq!(mask(&a, "supervisor", "SigBlk:"), 1 | 1 << 1 | 1 << 9 | 1 << 14 | 1 << 16);
    let worker = a.pid("worker");
    crash(worker);
    wait_for("cause", crate::lab::PATIENCE, || {
        a.log().contains(&format!("worker {worker} ended: SIGSEGV")).then_some(())
    });
    assert_udp(&sites.a, &sites.b, "10.8.0.2");
    assert!(a.stop().success());
}

#[test]
fn environment_and_core_limit_are_reset() {
    let sites = Sites::new();
    let a = Running::start(&sites.a, Scratch::new(), "a", &ENVIRONMENT, &ALONE);
    for process in ["supervisor", "helper", "worker"] {
        let environment = fs::read(format!("/proc/{}/environ", a.pid(process))).unwrap();
        let names: Vec<_> = environment.split(|&byte| byte == 0).filter(|entry| !entry.is_empty()).collect();
        let kept = |entry: &&[u8]| entry.starts_with(b"RUNTIME_DIRECTORY=") || entry.starts_with(b"TZ=");
        assert!(names.iter().all(kept), "{process}: {}", String::from_utf8_lossy(&environment));
        let limits = fs::read_to_string(format!("/proc/{}/limits", a.pid(process))).unwrap();
        let core = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).unwrap();
        assert_eq!(core.split_whitespace().collect::<Vec<_>>(), ["0", "0", "bytes"], "{process}");
    }
}

/// To look at each of so many took seconds.
#[test]
fn excess_inherited_descriptors_are_refused() {
    let sites = Sites::new();
    let scratch = Scratch::new();
    let script = "shift; export LISTEN_PID=$$ LISTEN_FDS=2000000000; exec \"$@\"";
    let run = Background::run(&sites.a, &scratch, &["sh", "-c", script, "sh"], &["show"]);
    let words = "not used: LISTEN_FDS=\"2000000000\": must be a number from 0 to 64";
    assert!(run.status.success() && run.output.contains(words), "{}", run.output);
}
