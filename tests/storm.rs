//! Frames that go round in a circle through the tunnel are noticed, and said once.

use std::net::UdpSocket;
use std::time::Duration;

use crate::bridge::bridged;
use crate::lab::{Background, Running, Sites, Wire, frame, join, wait_for};
use crate::secure::End;

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

const LIMITED: &str = "mode = \"tap\"\n[tap]\nname = \"eu0\"\n[rules]\nbroadcast-limit = 20\nmulticast-limit = 20\n\
                       ethertypes = [\"ipv4\", \"0x88b5\"]\n";
const FEW_STATIONS: &str = "mode = \"tap\"\n[tap]\nname = \"eu0\"\n[rules]\nmac-limit = 2\n";

/// A frame of this kind.
fn of_kind(to: [u8; 6], from: u8, kind: u16) -> Vec<u8> {
    [&to[..], &[2, 0, 0, 0, 0, from], &kind.to_be_bytes(), &[7; 50]].concat()
}

#[test]
fn storm_guard_limits_and_counts() {
    const BROADCAST: [u8; 6] = [0xff; 6];
    const GROUP: [u8; 6] = [0x01, 0x00, 0x5e, 1, 2, 3];
    const STATION: [u8; 6] = [2, 0, 0, 0, 0, 99];
    let sites = Sites::new();
    let a = End { port: LIMITED, ..End::A }.start(&sites, "a");
    let b = End { port: FEW_STATIONS, ..End::B }.start(&sites, "b");
    a.wait_state("up", LIMIT);
    b.wait_state("up", LIMIT);
    let (near, mut far) = (Wire::new(&sites.a, "eu0"), Wire::new(&sites.b, "eu0"));
    // Bursts that the queue of the TAP holds. The rate allows more meanwhile on a slow machine.
    for to in [BROADCAST, GROUP] {
        (0..200).for_each(|_| near.send(&of_kind(to, 1, 0x88b5)));
    }
    (0..50).for_each(|_| near.send(&of_kind(STATION, 1, 0x9999)));
    for from in 1..=5 {
        (0..10).for_each(|_| near.send(&of_kind(STATION, from, 0x88b5)));
    }
    wait_for("all frames", LIMIT, || (a.count("/port/rx_frames") == 500).then_some(()));
    let dropped = ["broadcast", "multicast", "ethertype"].map(|kind| a.count(&format!("/port/rx_dropped_{kind}")));
    assert!(dropped[0] > 100 && dropped[1] > 100 && dropped[2] == 50, "{dropped:?}");
    wait_for("all frames", LIMIT, || (b.count("/port/tx_dropped_station") == 30).then_some(()));
    let received = far.receive_all(Duration::from_millis(300));
    let count = |to: [u8; 6]| received.iter().filter(|frame| frame.starts_with(&to)).count() as u64;
    assert_eq!([BROADCAST, GROUP, STATION].map(count), [200 - dropped[0], 200 - dropped[1], 20]);
    // The other direction has its own counters, and b has no other limit.
    (0..200).for_each(|_| far.send(&of_kind(BROADCAST, 1, 0x88b5)));
    wait_for("dropped frames", LIMIT, || (a.count("/port/tx_dropped_broadcast") > 100).then_some(()));
    assert_eq!(b.count("/port/rx_dropped_broadcast"), 0);
    let shown = Background::run(&sites.a, &a.scratch, &[], &["show", "a"]).output;
    assert!(shown.contains(&format!("{} rx_dropped_broadcast: frames over `broadcast-limit`", dropped[0])), "{shown}");
}

const DETECTING: &str = "mode = \"bridge\"\n[tap]\nname = \"eu0\"\nbridge = \"br0\"\n[rules]\nloop-detection = true\n";

#[test]
fn loop_blocks_one_end_while_it_lasts() {
    let sites = Sites::new();
    let (lan_a, lan_b) = bridged(&sites);
    let ends = [End { port: DETECTING, ..End::A }, End { port: DETECTING, ..End::B }];
    let ends = [ends[0].start(&sites, "a"), ends[1].start(&sites, "b")];
    let states = || ends.each_ref().map(|end| end.status()["state"].as_str().unwrap().to_owned());
    let all_up = || (states() == ["up", "up"]).then_some(());
    wait_for("both ends", LIMIT, all_up);
    let (near, mut far) = (Wire::new(&lan_a, "eth0"), Wire::new(&lan_b, "eth0"));
    join((&sites.a, "second"), (&sites.b, "second"), 1500);
    for site in [&sites.a, &sites.b] {
        site.ip("link set second master br0");
    }
    // Both ends can block at first.
    let blocked = wait_for("one blocked end", LIMIT, || {
        let states = states();
        let blocked = states.iter().position(|state| state == "blocked")?;
        (states[1 - blocked] == "up").then_some(blocked)
    });
    let status = ends[blocked].status();
    assert!(status["reason"].as_str().unwrap().starts_with("loop: frames of the tunnel come back"), "{status}");
    // The other link carries the frames, and none goes round.
    let broadcast = of_kind([0xff; 6], 1, 0x88b5);
    near.send(&broadcast);
    std::thread::sleep(Duration::from_secs(1));
    let end = frame(2, 300);
    near.send(&end);
    // The loop detection sends frames as well.
    let received = std::iter::from_fn(|| far.receive(LIMIT)).take_while(|frame| *frame != end);
    assert_eq!(received.filter(|frame| *frame == broadcast).count(), 1);
    // No end leaves the loop closed.
    for _ in 0..20 {
        assert!(states().contains(&"blocked".into()), "{:?}", states());
        std::thread::sleep(Duration::from_secs(1));
    }
    sites.a.ip("link del second");
    wait_for("both ends", LIMIT, all_up);
    near.send(&frame(1, 300));
    assert!(std::iter::from_fn(|| far.receive(LIMIT)).any(|received| received == frame(1, 300)));
    assert!(
        ends[blocked].log().contains("local side: loop: frames of the tunnel come back"),
        "{}",
        ends[blocked].log()
    );
}
