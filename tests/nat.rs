//! A peer behind NAT: its address is learned, moves with it, and survives a worker.

use std::net::UdpSocket;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::lab::{Running, Sites, Wire, crash, frame, wait_for};

const LIMIT: Duration = crate::lab::PATIENCE;
const SHORT: Duration = Duration::from_millis(300);

/// An end whose peer is learned, and sockets of peers in our hands.
fn end(sites: &Sites, options: &str) -> (Running, Wire) {
    let arguments = format!("-i -dev eu0 {options} 192.0.2.1 6000 0.0.0.0 0 10.8.0.1 24");
    let end = Running::classic(&sites.a, "a", &arguments);
    let wire = Wire::new(&sites.a, "eu0");
    (end, wire)
}

fn peer(sites: &Sites, port: u16) -> UdpSocket {
    let peer = sites.b.inside(|| UdpSocket::bind(("192.0.2.2", port)).unwrap());
    peer.connect("192.0.2.1:6000").unwrap();
    peer.set_read_timeout(Some(SHORT)).unwrap();
    peer
}

/// The next datagram to this peer that is no PING.
fn received(peer: &UdpSocket) -> Option<Vec<u8>> {
    let mut buffer = [0; 2000];
    loop {
        let length = peer.recv(&mut buffer).ok()?;
        if &buffer[..length] != b"PING:PING:" {
            return Some(buffer[..length].to_vec());
        }
    }
}

#[test]
fn without_password_last_sender_is_peer() {
    let sites = Sites::new();
    let (end, mut wire) = end(&sites, "");
    assert_eq!(end.status()["paths"][0]["remote"], "any");
    let (first, second) = (peer(&sites, 7001), peer(&sites, 7002));
    for peer in [&first, &second] {
        peer.send(&frame(1, 100)).unwrap();
        assert_eq!(wire.receive(LIMIT), Some(frame(1, 100)));
        wire.send(&frame(2, 100));
        assert_eq!(received(peer), Some(frame(2, 100)));
    }
    assert_eq!(received(&first), None);
    wait_for("learned address", LIMIT, || (end.status()["paths"][0]["remote"] == "192.0.2.2:7002").then_some(()));
    end.replace_worker();
    wire.send(&frame(3, 100));
    assert_eq!(received(&second), Some(frame(3, 100)));
}

#[test]
fn password_authenticates_learned_peer() {
    let sites = Sites::new();
    let (end, mut wire) = end(&sites, "-p secret");
    let (friend, stranger) = (peer(&sites, 7001), peer(&sites, 7002));
    for wrong in [&b"PASSWORD:secre\0"[..], b"PASSWORD:secret", b"PASSWORD:secrets\0", b"PASSWORD:", b"PING:PING:"] {
        stranger.send(wrong).unwrap();
        stranger.send(&frame(1, 100)).unwrap();
    }
    assert_eq!(wire.receive(SHORT), None);
    friend.send(b"PASSWORD:secret\0").unwrap();
    friend.send(&frame(2, 100)).unwrap();
    assert_eq!(wire.receive(LIMIT), Some(frame(2, 100)));
    stranger.send(&frame(3, 100)).unwrap();
    assert_eq!(wire.receive(SHORT), None);
    wire.send(&frame(4, 100));
    assert_eq!(received(&friend), Some(frame(4, 100)));
    assert_eq!(received(&stranger), None);
    assert_eq!(end.count("/paths/0/rx_dropped_foreign"), 11);
}

#[test]
fn new_worker_needs_password_again() {
    let sites = Sites::new();
    let (end, wire) = end(&sites, "-p secret");
    let peer = peer(&sites, 7001);
    let tell = || {
        peer.send(b"PASSWORD:secret\0").unwrap();
        wait_for("learned address", LIMIT, || (end.status()["paths"][0]["remote"] == "192.0.2.2:7001").then_some(()));
        wire.send(&frame(1, 100));
        assert_eq!(received(&peer), Some(frame(1, 100)));
    };
    tell();
    // An attacker in the worker could have taken the peer's place, and the end of the worker does not tell.
    for (number, ends) in [kill_worker, crash].into_iter().enumerate() {
        ends(end.pid("worker"));
        wait_for("new worker", LIMIT, || (end.count("/worker_restarts") == number as u64 + 1).then_some(()));
        wait_for("no address", LIMIT, || (end.status()["paths"][0]["remote"] == "any").then_some(()));
        wire.send(&frame(2, 100));
        assert_eq!(received(&peer), None);
        tell();
    }
}

fn kill_worker(worker: Pid) {
    kill(worker, Signal::SIGKILL).unwrap();
}

#[test]
fn peers_find_each_other_after_move() {
    let sites = Sites::new();
    let (_end, _wire) = end(&sites, "-k key -p secret");
    for port in [7001, 7002] {
        let arguments = format!("-i -dev eu0 -k key -p secret 192.0.2.2 {port} 192.0.2.1 6000 10.8.0.2 24");
        let peer = Running::classic(&sites.b, "b", &arguments);
        // From the new interface, so that the other end hears of its new address.
        crate::lab::assert_udp(&sites.b, &sites.a, "10.8.0.1");
        assert!(peer.stop().success());
    }
}
