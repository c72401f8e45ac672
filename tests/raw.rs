//! Mode raw: every frame of an interface, its VLAN tags, the largest ones, and none that we sent ourselves.

use std::time::Duration;

use crate::lab::{CAPTURES, Namespace, Running, Scratch, Sites, Wire, capture, frame};

const SHORT: Duration = Duration::from_millis(300);
const LIMIT: Duration = crate::lab::PATIENCE;

/// Two sites with LANs, joined in mode raw.
struct Lab {
    sites: Sites,
    lan_a: Namespace,
    lan_b: Namespace,
}

impl Lab {
    fn new() -> Self {
        Self::with_mtu(9300)
    }

    fn with_mtu(mtu: u32) -> Self {
        let sites = Sites::with_mtu(9600);
        let (lan_a, lan_b) = sites.lans(mtu);
        Self { sites, lan_a, lan_b }
    }

    fn tunnel(&self, options: &str) -> (Running, Running) {
        let end = |here, there| format!("-e {options} 192.0.2.{here} 6000 192.0.2.{there} 6000 lan");
        let a = Running::classic(&self.sites.a, "a", &end(1, 2));
        let b = Running::classic(&self.sites.b, "b", &end(2, 1));
        (a, b)
    }
}

#[test]
fn vlan_tags_arrive_unchanged() {
    let lab = Lab::new();
    let _tunnel = lab.tunnel("-k key");
    let (near, mut far) = (Wire::new(&lab.lan_a, "eth0"), Wire::new(&lab.lan_b, "eth0"));
    let tags: [&[u8]; 7] = [
        b"", b"\x81\x00\x00\x63",                 // 802.1Q, VLAN 99
        b"\x81\x00\xf0\x63",                 // with priority 7 and DEI
        b"\x81\x00\x00\x00",                 // VLAN 0
        b"\x88\xa8\x00\x63",                 // 802.1ad keeps its type
        b"\x88\xa8\x20\x63\x81\x00\x00\x07", // QinQ
        b"\x81\x00\x00\x63\x81\x00\x00\x07",
    ];
    for (number, tag) in (0..).zip(tags) {
        let mut sent = frame(number, 100);
        sent.splice(12..12, tag.iter().copied());
        near.send(&sent);
        assert_eq!(far.receive(LIMIT).as_deref(), Some(&sent[..]), "tags {tag:02x?}");
    }
}

#[test]
fn real_traffic_arrives_unchanged() {
    let lab = Lab::new();
    let _tunnel = lab.tunnel("-lz4 9 -enc aes-256 -k key");
    let (near, mut far) = (Wire::new(&lab.lan_a, "eth0"), Wire::new(&lab.lan_b, "eth0"));
    for name in CAPTURES {
        for (number, sent) in capture(name).iter().enumerate() {
            near.send(sent);
            assert_eq!(far.receive(LIMIT).as_ref(), Some(sent), "{name}, frame {number}");
        }
    }
}

#[test]
fn oversize_frame_is_dropped_whole() {
    let lab = Lab::new();
    let (a, _b) = lab.tunnel("-k key");
    let (near, mut far) = (Wire::new(&lab.lan_a, "eth0"), Wire::new(&lab.lan_b, "eth0"));
    for (number, length) in [(1, 60), (2, 1514), (3, 9215), (4, 9216), (5, 9234)] {
        near.send(&frame(number, length));
        assert_eq!(far.receive(LIMIT), Some(frame(number, length)), "{length} bytes");
    }
    // A tag that the kernel takes out and we put back counts as well.
    let mut tagged = frame(6, 9231);
    tagged.splice(12..12, *b"\x81\x00\x00\x63");
    for sent in [frame(7, 9235), frame(8, 9300), tagged] {
        near.send(&sent);
    }
    assert_eq!(far.receive(SHORT), None);
    assert_eq!(a.count("/port/rx_dropped_oversize"), 3);
    assert_eq!(a.count("/port/rx_frames"), 5);
}

/// Sends frames in both directions and compares what comes out, frame by frame.
fn count_both_ways(near: &mut Wire, far: &mut Wire) {
    for number in 0..200 {
        near.send(&frame(number, 100));
        far.send(&frame(1000 + number, 200));
    }
    let mut at_far = far.receive_all(SHORT);
    let mut at_near = near.receive_all(SHORT);
    at_far.sort();
    at_near.sort();
    assert!(at_far == (0..200).map(|n| frame(n, 100)).collect::<Vec<_>>(), "{} frames at the far end", at_far.len());
    assert!(at_near == (0..200).map(|n| frame(1000 + n, 200)).collect::<Vec<_>>(), "{} at the near", at_near.len());
}

#[test]
fn tunnel_ignores_its_own_frames() {
    let lab = Lab::new();
    let (a, b) = lab.tunnel("");
    let (mut near, mut far) = (Wire::new(&lab.lan_a, "eth0"), Wire::new(&lab.lan_b, "eth0"));
    count_both_ways(&mut near, &mut far);
    a.replace_worker();
    b.replace_worker();
    count_both_ways(&mut near, &mut far);
    for end in [&a, &b] {
        let (port, restarts) = (end.status()["port"].clone(), end.count("/worker_restarts"));
        assert_eq!((&port["rx_frames"], &port["tx_frames"], restarts), (&400.into(), &400.into(), 1), "{port}");
    }
}

#[test]
fn frames_sent_by_host_are_carried() {
    let lab = Lab::new();
    let _tunnel = lab.tunnel("");
    let (host, mut far) = (Wire::new(&lab.sites.a, "lan"), Wire::new(&lab.lan_b, "eth0"));
    host.send(&frame(1, 100));
    assert_eq!(far.receive_all(SHORT), [frame(1, 100)]);
}

#[test]
fn promiscuous_mode_is_optional() {
    let lab = Lab::new();
    let promiscuity = |site: &Namespace| site.ip("-d link show lan").contains("promiscuity 1");
    let (a, b) = lab.tunnel("");
    assert!(promiscuity(&lab.sites.a));
    drop((a, b));
    assert!(!promiscuity(&lab.sites.a), "promiscuous mode is left behind");
    let _tunnel = lab.tunnel("-nopromisc");
    assert!(!promiscuity(&lab.sites.a));
}

#[test]
fn two_ambient_capabilities_suffice() {
    let lab = Lab::new();
    let capabilities = "+net_admin,+net_raw";
    let prefix = [
        "--reuid=ethudp", "--regid=ethudp", "--clear-groups", "--inh-caps", capabilities, "--ambient-caps",
        capabilities,
    ];
    let start = |site, name, here, there| {
        let arguments = format!("-d -n {name} -e 192.0.2.{here} 6000 192.0.2.{there} 6000 lan");
        Running::start(site, Scratch::new(), name, &prefix, &arguments.split(' ').collect::<Vec<_>>())
    };
    let (a, b) = (start(&lab.sites.a, "a", 1, 2), start(&lab.sites.b, "b", 2, 1));
    let (near, mut far) = (Wire::new(&lab.lan_a, "eth0"), Wire::new(&lab.lan_b, "eth0"));
    near.send(&frame(1, 100));
    assert_eq!(far.receive(LIMIT), Some(frame(1, 100)));
    for process in ["supervisor", "helper", "worker"] {
        let status = std::fs::read_to_string(format!("/proc/{}/status", a.pid(process))).unwrap();
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert!(status.contains(&format!("{set}:\t0000000000000000")), "{process}: {status}");
        }
    }
    drop((a, b));
}

#[test]
fn removed_interface_ends_tunnel() {
    let lab = Lab::new();
    let (a, _b) = lab.tunnel("");
    lab.sites.a.ip("link del lan");
    let said = || a.log().contains("interface \"lan\": removed").then_some(());
    crate::lab::wait_for("last words", LIMIT, said);
    assert!(!a.stop().success());
}
