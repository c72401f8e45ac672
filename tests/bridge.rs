//! Mode bridge: two bridged LANs become one segment.

use std::time::Duration;

use crate::lab::{Namespace, Running, Sites, Wire, assert_tcp, assert_udp, frame};

const LIMIT: Duration = Duration::from_secs(3);

/// Bridges `br0` at both sites with the LANs in them.
fn bridged(sites: &Sites) -> (Namespace, Namespace) {
    let lans = sites.lans(1500);
    for site in [&sites.a, &sites.b] {
        site.ip("link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0");
        site.ip("link set lan master br0");
        site.ip("link set br0 up");
    }
    lans
}

#[test]
fn two_bridged_lans_are_one_segment_also_after_a_worker_restart() {
    let sites = Sites::new();
    let (lan_a, lan_b) = bridged(&sites);
    lan_a.ip("addr add 10.9.0.1/24 dev eth0");
    lan_b.ip("addr add 10.9.0.2/24 dev eth0");
    let end = |here, there| format!("-b -dev eu0 -k key 192.0.2.{here} 6000 192.0.2.{there} 6000 br0");
    let a = Running::classic(&sites.a, "a", &end(1, 2));
    let _b = Running::classic(&sites.b, "b", &end(2, 1));
    assert_eq!(a.status()["mode"], "bridge");
    assert!(sites.a.ip("link show eu0").contains("master br0"));
    assert_udp(&lan_a, &lan_b, "10.9.0.2");
    assert_tcp(&lan_a, &lan_b, "10.9.0.2", 300_000);
    let index = sites.a.index("eu0");
    a.replace_worker();
    assert_eq!(sites.a.index("eu0"), index);
    assert!(sites.a.ip("link show eu0").contains("master br0"));
    let (near, mut far) = (Wire::new(&lan_a, "eth0"), Wire::new(&lan_b, "eth0"));
    near.send(&frame(1, 300));
    let found = std::iter::from_fn(|| far.receive(LIMIT)).any(|received| received == frame(1, 300));
    assert!(found, "no frame after the restart");
}

#[test]
fn the_file_format_does_the_same() {
    let sites = Sites::new();
    let (lan_a, lan_b) = bridged(&sites);
    let file = |here, there| {
        format!(
            "mode = \"bridge\"\nwire = \"classic\"\n[tap]\nbridge = \"br0\"\n\
             [[path]]\nlocal = \"192.0.2.{here}:6000\"\nremote = \"192.0.2.{there}:6000\"\n"
        )
    };
    let _a = Running::up(&sites.a, "a", &file(1, 2));
    let _b = Running::up(&sites.b, "b", &file(2, 1));
    let (near, mut far) = (Wire::new(&lan_a, "eth0"), Wire::new(&lan_b, "eth0"));
    near.send(&frame(1, 1514));
    assert_eq!(far.receive(LIMIT), Some(frame(1, 1514)));
}
