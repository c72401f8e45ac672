//! A worker that dies or freezes is replaced; a helper that dies is not missed until then.

use std::fs;
use std::net::UdpSocket;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};

use crate::lab::{Running, Scratch, Sites, allowed, assert_udp, children, ethudp, freeze, thread, wait_for};

const LIMIT: Duration = crate::lab::PATIENCE;
/// Longest time until a worker that is frozen, all or part of it, has been replaced: three seconds to find out, and what the start of
/// the next one takes on a machine that has other things to do.
const FROZEN: Duration = Duration::from_millis(4500);

fn tunnel(sites: &Sites) -> (Running, Running) {
    let end = |here, there| format!("-i -dev eu0 -k key 192.0.2.{here} 6000 192.0.2.{there} 6000 10.8.0.{here} 24");
    let a = Running::classic(&sites.a, "a", &end(1, 2));
    let b = Running::classic(&sites.b, "b", &end(2, 1));
    assert_udp(&sites.a, &sites.b, "10.8.0.2");
    (a, b)
}

#[test]
fn replacement_keeps_interface_and_counters() {
    let sites = Sites::new();
    let (a, b) = tunnel(&sites);
    a.wait_state("up", LIMIT);
    let index = sites.a.index("eu0");
    let (receiver, sender) = (sites.b.inside(bound), sites.a.inside(bound));
    sender.connect(("10.8.0.2", 7000)).unwrap();
    let mut longest = Duration::ZERO;
    // A death soon after another is answered with a delay; these are apart.
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(1200));
        let frames = a.count("/port/rx_frames");
        kill(a.pid("worker"), Signal::SIGKILL).unwrap();
        let killed = Instant::now();
        wait_for("traffic after the worker's death", LIMIT, || {
            // Whatever was under way is read first, so that only what is sent from now on counts.
            sender.send(b"x").unwrap();
            receiver.recv(&mut [0; 16]).ok().filter(|_| a.status()["pids"]["worker"].is_i64())
        });
        longest = longest.max(killed.elapsed());
        assert!(a.count("/port/rx_frames") >= frames, "counters began anew");
        while receiver.recv(&mut [0; 16]).is_ok() {}
    }
    // Generous for a loaded machine; a tunnel started afresh takes longer than this.
    assert!(longest < allowed(Duration::from_secs(1)), "gap of {longest:?}");
    assert_eq!((sites.a.index("eu0"), a.count("/worker_restarts")), (index, 3));
    assert_eq!(a.status()["state"], "up", "{}", a.status());
    // The peer's socket is connected to our port: what it counts came from there.
    assert_eq!(b.count("/worker_restarts"), 0);
}

fn bound() -> UdpSocket {
    let socket = UdpSocket::bind(("0.0.0.0", 7000)).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
    socket
}

/// How many workers have forwarded. The status would wait for one that is frozen.
fn forwarding(end: &Running) -> usize {
    end.log().lines().filter(|line| line.ends_with(" forwards")).count()
}

#[test]
fn worker_with_frozen_thread_is_replaced() {
    let sites = Sites::new();
    let (a, _b) = tunnel(&sites);
    let sender = sites.a.inside(bound);
    for (number, name) in ["outward", ""].into_iter().enumerate() {
        // Somewhere between two reports, of which the first comes soon after the start.
        std::thread::sleep(Duration::from_millis(1300));
        let start = Instant::now();
        freeze(thread(a.pid("worker"), name), LIMIT);
        // For which the outward loop is wanted.
        sender.send_to(b"waits", ("10.8.0.2", 7000)).unwrap();
        wait_for("replacement", LIMIT, || (forwarding(&a) == number + 2).then_some(()));
        assert!(start.elapsed() > Duration::from_secs(2), "{name}: killed although it was only slow");
        assert!(start.elapsed() < allowed(FROZEN), "{name}: {:?}", start.elapsed());
        assert_udp(&sites.a, &sites.b, "10.8.0.2");
    }
}

#[test]
fn paused_service_kills_no_worker() {
    let sites = Sites::new();
    let (a, _b) = tunnel(&sites);
    let worker = a.pid("worker");
    let all = [a.pid("supervisor"), a.pid("helper"), worker];
    for pid in all {
        kill(pid, Signal::SIGSTOP).unwrap();
    }
    std::thread::sleep(Duration::from_secs(5));
    for pid in all {
        kill(pid, Signal::SIGCONT).unwrap();
    }
    // Nor later, for what it has not answered meanwhile.
    std::thread::sleep(FROZEN);
    assert_udp(&sites.a, &sites.b, "10.8.0.2");
    assert_eq!((a.pid("worker"), a.count("/worker_restarts")), (worker, 0));
}

#[test]
fn stopped_worker_continues() {
    let sites = Sites::new();
    let (a, _b) = tunnel(&sites);
    let worker = a.pid("worker");
    kill(worker, Signal::SIGSTOP).unwrap();
    std::thread::sleep(Duration::from_millis(600));
    kill(worker, Signal::SIGCONT).unwrap();
    assert_udp(&sites.a, &sites.b, "10.8.0.2");
    assert_eq!((a.pid("worker"), a.count("/worker_restarts")), (worker, 0));
}

#[test]
fn tunnel_forwards_without_helper() {
    let sites = Sites::new();
    let (a, _b) = tunnel(&sites);
    kill(a.pid("helper"), Signal::SIGKILL).unwrap();
    a.wait_state("degraded", LIMIT);
    assert_udp(&sites.a, &sites.b, "10.8.0.2");
    kill(a.pid("worker"), Signal::SIGKILL).unwrap();
    let said = || a.log().contains("helper ended: a new worker cannot get its handles").then_some(());
    wait_for("last words", LIMIT, said);
    wait_for("removed interface", LIMIT, || (!sites.a.interfaces().contains(&"eu0".into())).then_some(()));
    assert!(!a.stop().success());
}

#[test]
fn stale_frames_are_not_delivered() {
    let sites = Sites::new();
    let (a, _b) = tunnel(&sites);
    let (receiver, sender) = (sites.b.inside(bound), sites.a.inside(bound));
    sender.connect(("10.8.0.2", 7000)).unwrap();
    kill(a.pid("worker"), Signal::SIGSTOP).unwrap();
    let start = Instant::now();
    // The signal takes effect a moment later.
    std::thread::sleep(Duration::from_millis(100));
    for _ in 0..50 {
        sender.send(b"late").unwrap();
    }
    wait_for("replacement", LIMIT, || (forwarding(&a) == 2).then_some(()));
    assert!(start.elapsed() > Duration::from_secs(2), "killed although it was only slow");
    assert_udp(&sites.a, &sites.b, "10.8.0.2");
    assert!(receiver.recv(&mut [0; 16]).is_err(), "a frame was delivered seconds late");
    assert!(a.count("/port/rx_dropped_stale") >= 50, "{}", a.status());
}

#[test]
fn worker_killed_at_start_is_replaced() {
    let sites = Sites::new();
    let (a, _b) = tunnel(&sites);
    let (supervisor, helper) = (a.pid("supervisor"), a.pid("helper"));
    // Ten in a row would end the tunnel.
    for _ in 0..6 {
        let worker = wait_for("worker", LIMIT, || {
            children(supervisor).into_iter().find(|(pid, state)| *pid != helper && state != "Z")
        });
        let _ = kill(worker.0, Signal::SIGKILL);
    }
    assert_udp(&sites.a, &sites.b, "10.8.0.2");
}

#[test]
fn failed_worker_start_is_retried() {
    let sites = Sites::new();
    let (a, _b) = tunnel(&sites);
    // As its own user, who may have processes of other tunnels: none more, or some more.
    let limit = |processes: u32| {
        let user = "--reuid ethudp --regid ethudp --clear-groups";
        sites.a.run("setpriv", &format!("{user} prlimit --pid {} --nproc={processes}:", a.pid("supervisor")));
    };
    limit(1);
    kill(a.pid("worker"), Signal::SIGKILL).unwrap();
    wait_for("failure", LIMIT, || a.log().contains("cannot start a worker: ").then_some(()));
    limit(1000);
    assert_udp(&sites.a, &sites.b, "10.8.0.2");
}

/// An executable that ends at once, in failure.
const FALSE: &str = "/usr/bin/false";
/// Has a tunnel run executables of its own, in its scratch directory.
const OWN: &[&str] = &["--reuid", "0"];
const ALONE: [&str; 12] =
    ["-d", "-n", "a", "-i", "-dev", "eu0", "192.0.2.1", "6000", "192.0.2.2", "6000", "10.8.0.1", "24"];

/// By another process, so that none that a test forks meanwhile holds the copy open for writing.
fn copy(program: &str, to: &Path) {
    assert!(Command::new("cp").args([program.as_ref(), to]).status().unwrap().success());
}

#[test]
fn unconfined_first_worker_is_an_error() {
    let (sites, scratch) = (Sites::new(), Scratch::new());
    let mut command = ethudp(&scratch, OWN, &ALONE);
    copy(FALSE, &scratch.path().join("ethudp-worker"));
    let output = sites.a.spawn(command.stderr(Stdio::piped())).wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.contains("worker ended before it was confined"), "{said}");
}

#[test]
fn replaced_executable_waits_for_start() {
    let sites = Sites::new();
    let a = Running::start(&sites.a, Scratch::new(), "a", OWN, &ALONE);
    let [other, worker] = ["other", "ethudp-worker"].map(|name| a.scratch.path().join(name));
    copy(FALSE, &other);
    fs::rename(other, worker).unwrap();
    a.replace_worker();
    assert_eq!(a.count("/worker_restarts"), 1);
}

#[test]
fn ten_unconfined_workers_end_tunnel() {
    let sites = Sites::new();
    let a = Running::start(&sites.a, Scratch::new(), "a", OWN, &ALONE);
    let (supervisor, worker) = (a.pid("supervisor"), a.pid("worker"));
    std::thread::sleep(Duration::from_secs(1));
    // The supervisor has opened the executable: it is changed in place, between two workers.
    kill(supervisor, Signal::SIGSTOP).unwrap();
    kill(worker, Signal::SIGKILL).unwrap();
    let executable = a.scratch.path().join("ethudp-worker");
    // Which fails as long as it runs.
    let copied = || Command::new("cp").args([FALSE.as_ref(), executable.as_path()]).stderr(Stdio::null()).status();
    wait_for("the worker's end", LIMIT, || copied().unwrap().success().then_some(()));
    kill(supervisor, Signal::SIGCONT).unwrap();
    // Nine delays of 50 ms to 5 s.
    wait_for("end", crate::lab::PATIENCE, || a.try_status().is_none().then_some(()));
    // Said last, when all is cleaned up.
    let said = || a.log().contains("worker died ten times in a row before it was confined").then_some(());
    wait_for("reason", LIMIT, said);
    let log = a.log();
    assert_eq!(log.matches("ended: exit status 1").count(), 10, "{log}");
    assert!(!a.stop().success() && !sites.a.interfaces().contains(&"eu0".into()));
}
