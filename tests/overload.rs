//! More comes than can be forwarded: what waits for a worker is bounded, so that what gets through is not late by seconds.

use std::net::UdpSocket;
use std::ops::RangeInclusive;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};

use crate::lab::{Running, Sites, Wire, frame, wait_for};

/// Small frames that come while the worker does not read.
const FLOOD: u32 = 40_000;
/// How many of them may wait: enough for a burst, and a fifth of a second of forwarding at 100,000 a second at most.
const WAIT: RangeInclusive<u64> = 4_000..=20_000;
const LIMIT: Duration = crate::lab::PATIENCE;

/// Stops the worker, sends the flood, lets it go on, and returns how many frames it forwards when all is read.
fn forwarded(end: &Running, frames: &str, send: impl Fn(&[u8])) -> u64 {
    let (worker, before) = (end.pid("worker"), end.count(frames));
    kill(worker, Signal::SIGSTOP).unwrap();
    let flood = frame(1, 64);
    (0..FLOOD).for_each(|_| send(&flood));
    kill(worker, Signal::SIGCONT).unwrap();
    let mut last = None;
    let all = wait_for("the end of what waited", LIMIT, || {
        std::thread::sleep(Duration::from_millis(200));
        let now = end.count(frames) - before;
        (last.replace(now) == Some(now) && now > 0).then_some(now)
    });
    assert_eq!(end.pid("worker"), worker, "the worker was replaced meanwhile");
    all
}

#[test]
fn network_backlog_is_bounded() {
    let sites = Sites::new();
    let peer = sites.a.inside(|| UdpSocket::bind("192.0.2.1:6000").unwrap());
    peer.connect("192.0.2.2:6000").unwrap();
    let b = Running::classic(&sites.b, "b", "-i -dev eu0 192.0.2.2 6000 192.0.2.1 6000 10.8.0.2 24");
    let count = forwarded(&b, "/port/tx_frames", |frame| assert_eq!(peer.send(frame).unwrap(), frame.len()));
    assert!(WAIT.contains(&count), "{count} datagrams have waited");
}

#[test]
fn interface_backlog_is_bounded() {
    let sites = Sites::new();
    let (lan, _) = sites.lans(1500);
    let a = Running::classic(&sites.a, "a", "-e 192.0.2.1 6000 192.0.2.2 6000 lan");
    let wire = Wire::new(&lan, "eth0");
    let count = forwarded(&a, "/port/rx_frames", |frame| wire.send(frame));
    assert!(WAIT.contains(&count), "{count} frames have waited");
}
