//! Frames that go round in a circle through the tunnel are noticed, and said once.

use std::net::UdpSocket;
use std::time::Duration;

use crate::lab::{Running, Sites, Wire, wait_for};

/// Three intervals of a second, and what a machine that has much to do adds.
const LIMIT: Duration = crate::lab::PATIENCE;

#[test]
fn carried_own_datagrams_are_reported() {
    let sites = Sites::new();
    // A socket that is no tunnel: it receives only PINGs.
    let _peer = sites.b.inside(|| UdpSocket::bind("192.0.2.2:6000").unwrap());
    let a = Running::classic(&sites.a, "a", "-e 192.0.2.1 6000 192.0.2.2 6000 wan");
    wait_for("a line", LIMIT, || a.log().contains("local side: storm: the tunnel's own datagrams").then_some(()));
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(a.log().matches("storm: ").count(), 1, "{}", a.log());
    let status = a.status();
    assert!(status["reason"].as_str().unwrap().contains("enter it again"), "{status}");
    assert!(a.count("/port/rx_own") > 3, "{status}");
}

#[test]
fn loop_check_prevents_storm() {
    let sites = Sites::new();
    let _peer = sites.b.inside(|| UdpSocket::bind("192.0.2.2:6000").unwrap());
    let a = Running::classic(&sites.a, "a", "-e -loopcheck 192.0.2.1 6000 192.0.2.2 6000 wan");
    let b = Running::classic(&sites.a, "b", "-i -dev eu0 192.0.2.1 6001 192.0.2.2 6001 10.8.0.1 24");
    let wire = Wire::new(&sites.a, "eu0");
    for kind in [0xff, 2] {
        (0..50).for_each(|_| wire.send(&[[kind; 6].as_slice(), &[2, 0, 0, 0, 0, 1, 0x88, 0xb5], &[7; 50]].concat()));
    }
    wait_for("all frames", LIMIT, || (b.count("/port/rx_frames") == 100).then_some(()));
    assert_eq!((b.count("/port/rx_broadcast"), b.count("/port/rx_own")), (50, 0));
    std::thread::sleep(Duration::from_secs(4));
    for end in [&a, &b] {
        // A peer that does not answer is a reason, and no storm.
        let status = end.status();
        assert!(status["reason"].as_str().is_none_or(|reason| !reason.contains("storm")), "{status}");
        assert!(!end.log().contains("storm: "), "{}", end.log());
        assert_eq!(end.count("/port/rx_own"), 0);
    }
    assert!(a.count("/port/rx_dropped_loop") > 3);
}
