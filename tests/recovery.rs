//! A worker that dies or freezes is replaced; a helper that dies is not missed until then.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};

use crate::lab::{Running, Sites, assert_udp, wait_for};

const LIMIT: Duration = Duration::from_secs(3);

fn tunnel(sites: &Sites) -> (Running, Running) {
    let end = |here, there| format!("-i -dev eu0 -k key 192.0.2.{here} 6000 192.0.2.{there} 6000 10.8.0.{here} 24");
    let a = Running::classic(&sites.a, "a", &end(1, 2));
    let b = Running::classic(&sites.b, "b", &end(2, 1));
    assert_udp(&sites.a, &sites.b, "10.8.0.2");
    (a, b)
}

#[test]
fn a_killed_worker_is_replaced_with_the_same_interface_port_and_counters() {
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
    assert!(longest < Duration::from_secs(1), "gap of {longest:?}");
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

#[test]
fn a_frozen_worker_is_replaced() {
    let sites = Sites::new();
    let (a, _b) = tunnel(&sites);
    kill(a.pid("worker"), Signal::SIGSTOP).unwrap();
    let start = Instant::now();
    wait_for("replacement", Duration::from_secs(8), || (a.count("/worker_restarts") == 1).then_some(()));
    assert!(start.elapsed() > Duration::from_secs(2), "killed although it was only slow");
    assert_udp(&sites.a, &sites.b, "10.8.0.2");
}

#[test]
fn a_stopped_and_continued_worker_goes_on() {
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
fn without_its_helper_a_tunnel_forwards_until_it_needs_a_new_worker() {
    let sites = Sites::new();
    let (a, _b) = tunnel(&sites);
    kill(a.pid("helper"), Signal::SIGKILL).unwrap();
    a.wait_state("degraded", LIMIT);
    assert_udp(&sites.a, &sites.b, "10.8.0.2");
    kill(a.pid("worker"), Signal::SIGKILL).unwrap();
    let said = || a.log().contains("helper: has ended, so a new worker cannot get its handles").then_some(());
    wait_for("last words", LIMIT, said);
    wait_for("removed interface", LIMIT, || (!sites.a.interfaces().contains(&"eu0".into())).then_some(()));
    assert!(!a.stop().success());
}

#[test]
fn what_waited_for_a_frozen_worker_is_not_delivered_late() {
    let sites = Sites::new();
    let (a, _b) = tunnel(&sites);
    let (receiver, sender) = (sites.b.inside(bound), sites.a.inside(bound));
    sender.connect(("10.8.0.2", 7000)).unwrap();
    kill(a.pid("worker"), Signal::SIGSTOP).unwrap();
    // The signal takes effect a moment later.
    std::thread::sleep(Duration::from_millis(100));
    for _ in 0..50 {
        sender.send(b"late").unwrap();
    }
    wait_for("replacement", Duration::from_secs(8), || (a.count("/worker_restarts") == 1).then_some(()));
    assert_udp(&sites.a, &sites.b, "10.8.0.2");
    assert!(receiver.recv(&mut [0; 16]).is_err(), "a frame was delivered seconds late");
    assert!(a.count("/port/rx_dropped_stale") >= 50, "{}", a.status());
}
