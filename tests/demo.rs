//! `make demo` shows a tunnel, a killed worker and the processes, and leaves nothing behind.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::lab::{ETHUDP, children, wait_for};

const LIMIT: Duration = crate::lab::PATIENCE;

fn start() -> Child {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("demo/demo.sh");
    // What is ignored when a shell starts, as in the background of another, no trap of it hears.
    let mut command = Command::new("env");
    command.arg("--default-signal=INT,TERM").arg(script);
    command.arg(Path::new(ETHUDP).parent().unwrap());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// The namespace of processes that the demo has made.
fn processes(demo: &Child) -> PathBuf {
    let child = |pid| children(pid).first().map(|(pid, _)| *pid);
    wait_for("the demo's first process", LIMIT, || {
        let first = child(child(Pid::from_raw(i32::try_from(demo.id()).unwrap()))?)?;
        fs::read_link(format!("/proc/{first}/ns/pid")).ok()
    })
}

/// How many processes are in it.
fn inside(namespace: &Path) -> usize {
    let all = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path().join("ns/pid"));
    all.filter(|link| fs::read_link(link).is_ok_and(|target| target == namespace)).count()
}

#[test]
fn demo_shows_sites_kill_and_processes() {
    let output = start().wait_with_output().unwrap();
    let (text, error) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{text}{error}");
    let begins = [
        "site a", "site b", "site a", "tunnel", "  session", "  handshake", "  peer's key", "  fingerprint",
        "fingerprint", "ping", "throughput", "worker killed", "frames again", "lost", "session", "interface",
        "UDP port 6000", "  supervisor", "  helper", "  worker", "ended", "left behind",
    ];
    let mut lines = text.lines();
    for begin in begins {
        assert!(lines.any(|line| line.starts_with(&format!("{begin} "))), "{begin}: {text}");
    }
    let powerless = text.lines().filter(|line| line.contains("  none in any set  filter  ")).count();
    assert_eq!(powerless, 3, "{text}");
}

#[test]
fn interrupted_demo_cleans_up() {
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGKILL] {
        let mut demo = start();
        let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().starts_with("ping ")), "{signal}");
        let namespace = processes(&demo);
        // The first process, and three of each tunnel.
        assert!(inside(&namespace) >= 7, "{signal}");
        kill(Pid::from_raw(i32::try_from(demo.id()).unwrap()), signal).unwrap();
        let status = demo.wait().unwrap();
        if signal == Signal::SIGKILL {
            // It could do nothing, and what is inside comes to its end.
            wait_for("the end of the demo", LIMIT, || (inside(&namespace) == 0).then_some(()));
        } else {
            assert_eq!(status.code(), Some(130), "{signal}");
            assert_eq!(inside(&namespace), 0, "{signal}");
            let mut error = String::new();
            demo.stderr.take().unwrap().read_to_string(&mut error).unwrap();
            assert!(error.starts_with("demo: interrupted\n"), "{error}");
        }
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        assert!(!mounts.lines().any(|line| line.starts_with("demo ")), "{mounts}");
    }
}

#[test]
fn failed_demo_cleans_up() {
    let scratch = crate::lab::Scratch::new();
    for name in ["ethudp", "ethudp-helper"] {
        crate::lab::copy_built(name, scratch.path());
    }
    fs::copy("/bin/false", scratch.path().join("ethudp-worker")).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("demo/demo.sh");
    let output = Command::new(script).arg(scratch.path()).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        error.contains("ended before it was confined") && error.contains("demo: the tunnels are not up"),
        "{error}"
    );
}
