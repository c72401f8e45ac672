//! `[tap] carrier = "follow"`: programs that watch the TAP see whether the tunnel passes frames.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};

use crate::failover::cut;
use crate::lab::{Namespace, Running, Sites, Stream, allowed, assert_udp, wait_for};
use crate::secure::End;
use crate::service::{Manager, file};

const LIMIT: Duration = crate::lab::PATIENCE;
const PORT_A: &str =
    "mode = \"tap\"\n[tap]\nname = \"eu0\"\naddress = [\"10.8.0.1/24\", \"fd00::1/64\"]\ncarrier = \"follow\"\n";
const PORT_B: &str = "mode = \"tap\"\n[tap]\nname = \"eu0\"\naddress = [\"10.8.0.2/24\", \"fd00::2/64\"]\n";

fn has_carrier(site: &Namespace) -> bool {
    !site.ip("-o link show eu0").contains("NO-CARRIER")
}

fn wait_carrier(site: &Namespace, on: bool) {
    wait_for("carrier", LIMIT, || (has_carrier(site) == on).then_some(()));
}

/// How often the carrier has changed.
fn changes(site: &Namespace) -> u64 {
    let link: serde_json::Value = serde_json::from_str(&site.ip("-j -s -s link show eu0")).unwrap();
    link.pointer("/0/stats64/tx/carrier_changes").unwrap().as_u64().unwrap()
}

fn follower(sites: &Sites) -> Running {
    sites.a.quiet(false);
    End { port: PORT_A, ..End::A }.start(sites, "a")
}

#[test]
fn carrier_follows_peer() {
    let sites = Sites::new();
    sites.b.quiet(false);
    let peer = || End { port: PORT_B, ..End::B }.start(&sites, "b");
    let a = follower(&sites);
    assert!(!has_carrier(&sites.a));
    let status = a.status();
    assert_eq!((&status["state"], &status["port"]["carrier"]), (&"connecting".into(), &false.into()));
    let mut b = peer();
    assert_eq!(b.status()["port"]["carrier"], serde_json::Value::Null);
    for _ in 0..2 {
        a.wait_state("up", LIMIT);
        wait_carrier(&sites.a, true);
        for address in ["10.8.0.2", "fd00::2"] {
            assert_udp(&sites.a, &sites.b, address);
        }
        let before = changes(&sites.a);
        a.replace_worker();
        a.wait_state("up", LIMIT);
        assert_eq!((has_carrier(&sites.a), changes(&sites.a)), (true, before), "a new worker");
        drop(b);
        wait_carrier(&sites.a, false);
        a.wait_state("down", LIMIT);
        b = peer();
    }
    assert!(!a.log().contains("no carrier: check its cable"), "{}", a.log());
}

/// The interfaces of the underlay keep their carrier, and datagrams are lost in one direction.
#[test]
fn carrier_follows_silent_cut() {
    let sites = Sites::new();
    sites.b.quiet(false);
    let a = follower(&sites);
    let _b = End { port: PORT_B, ..End::B }.start(&sites, "b");
    for cut_at in [&sites.b, &sites.a] {
        a.wait_state("up", LIMIT);
        wait_carrier(&sites.a, true);
        let stream = Stream::start(&sites.a, &sites.b, "10.8.0.2");
        stream.wait_arrived();
        let (start, limit) = (Instant::now(), allowed(Duration::from_secs(1)));
        cut(cut_at, true);
        wait_carrier(&sites.a, false);
        let took = start.elapsed();
        assert!(took < limit.max(allowed(Duration::from_secs(1))), "{took:?}");
        assert!(!sites.a.ip("-o link show wan").contains("NO-CARRIER"));
        drop(stream);
        cut(cut_at, false);
    }
    wait_carrier(&sites.a, true);
    assert_udp(&sites.a, &sites.b, "10.8.0.2");
}

#[test]
fn dead_helper_leaves_no_dead_interface() {
    let sites = Sites::new();
    sites.b.quiet(false);
    let a = follower(&sites);
    let b = End { port: PORT_B, ..End::B }.start(&sites, "b");
    a.wait_state("up", LIMIT);
    wait_carrier(&sites.a, true);
    kill(a.pid("helper"), Signal::SIGKILL).unwrap();
    a.wait_state("degraded", LIMIT);
    assert_udp(&sites.a, &sites.b, "10.8.0.2");
    drop((a, b));
    let a = follower(&sites);
    kill(a.pid("helper"), Signal::SIGKILL).unwrap();
    wait_for("end", LIMIT, || a.log().contains("helper ended: the interface has no carrier").then_some(()));
    assert!(!a.stop().success());
}

#[test]
fn failed_start_leaves_no_carrier() {
    let sites = Sites::new();
    let manager = Manager::new();
    let tap = file("address = [\"10.8.0.1/24\"]\ncarrier = \"follow\"");
    let _b = Running::classic(&sites.b, "b", "-i 192.0.2.2 6000 192.0.2.1 6000 10.8.0.2 24");
    let bridge =
        tap.replace("mode = \"tap\"", "mode = \"bridge\"").replace("address = [\"10.8.0.1/24\"]", "bridge = \"br7\"");
    let mut stored = None;
    for (file, words) in [(&bridge, "bridge \"br7\": no such interface"), (&tap, "192.0.2.1:6000: already in use")] {
        let (service, queue, _) = manager.start(&sites.a, &tap, stored);
        wait_carrier(&sites.a, true);
        drop(service);
        assert!(has_carrier(&sites.a), "a stop");
        let bind = || sites.a.inside(|| std::net::UdpSocket::bind("192.0.2.1:6000").unwrap());
        let _taken = words.contains("in use").then(bind);
        // The service manager keeps the queue.
        stored = queue.as_ref().map(|queue| queue.try_clone().unwrap());
        let mut service = manager.launch(&sites.a, file, queue);
        wait_carrier(&sites.a, false);
        wait_for("end", LIMIT, || (!service.runs()).then_some(()));
        assert!(manager.log().contains(words), "{}", manager.log());
    }
}

#[test]
fn stored_tap_keeps_carrier_over_restart() {
    let sites = Sites::new();
    let manager = Manager::new();
    let tap = file("address = [\"10.8.0.1/24\"]\ncarrier = \"follow\"");
    let b = Running::classic(&sites.b, "b", "-i 192.0.2.2 6000 192.0.2.1 6000 10.8.0.2 24");
    let (service, stored, _) = manager.start(&sites.a, &tap, None);
    wait_carrier(&sites.a, true);
    let before = changes(&sites.a);
    drop(service);
    assert!(has_carrier(&sites.a));
    let (service, stored, _) = manager.start(&sites.a, &tap, stored);
    assert_udp(&sites.a, &sites.b, "10.8.0.2");
    assert_eq!(changes(&sites.a), before, "a restart");
    drop((service, b));
    // Without the peer the carrier goes, and a further start does not bring it back.
    let (service, stored, _) = manager.start(&sites.a, &tap, stored);
    wait_carrier(&sites.a, false);
    let gone = changes(&sites.a);
    drop(service);
    let (service, stored, _) = manager.start(&sites.a, &tap, stored);
    assert_eq!((has_carrier(&sites.a), changes(&sites.a)), (false, gone));
    drop(service);
    let (_service, _stored, _) = manager.start(&sites.a, &file("address = [\"10.8.0.1/24\"]"), stored);
    assert!(has_carrier(&sites.a), "the default");
}
