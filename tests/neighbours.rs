//! What neighbours know of a TAP stays true: its MAC address stays, and is announced.

use std::time::Duration;

use crate::lab::{Running, Sites, assert_udp, wait_for};
use crate::secure::End;

const LIMIT: Duration = Duration::from_secs(10);
const PORT_A: &str = "mode = \"tap\"\n[tap]\nname = \"eu0\"\naddress = [\"10.8.0.1/24\", \"fd00::1/64\"]\n";
const PORT_B: &str = "mode = \"tap\"\n[tap]\nname = \"eu0\"\naddress = [\"10.8.0.2/24\", \"fd00::2/64\"]\n";
const A: End = End { port: PORT_A, ..End::A };
const B: End = End { port: PORT_B, ..End::B };

fn sites() -> Sites {
    let sites = Sites::new();
    for site in [&sites.a, &sites.b] {
        site.quiet(false);
    }
    sites
}

#[test]
fn mac_survives_restart() {
    let sites = sites();
    // Both have the same name.
    let (a, b) = (A.start_at(&sites.a, "site"), B.start_at(&sites.b, "site"));
    let mac = sites.a.mac("eu0");
    assert_ne!(mac, sites.b.mac("eu0"));
    assert!(a.stop().success());
    let a = A.start_at(&sites.a, "site");
    assert_eq!(sites.a.mac("eu0"), mac);
    drop((a, b));
    let other = A.start_at(&sites.a, "other");
    assert_ne!(sites.a.mac("eu0"), mac);
    drop(other);
    // Ends without keys.
    let end = |here, there| format!("-i -dev eu0 192.0.2.{here} 6000 192.0.2.{there} 6000 10.8.0.{here} 24");
    let (a, b) = (Running::classic(&sites.a, "site", &end(1, 2)), Running::classic(&sites.b, "site", &end(2, 1)));
    assert_ne!(sites.a.mac("eu0"), sites.b.mac("eu0"));
    if std::fs::exists("/etc/machine-id").unwrap() {
        let mac = sites.a.mac("eu0");
        drop(a);
        let _a = Running::classic(&sites.a, "site", &end(1, 2));
        assert_eq!(sites.a.mac("eu0"), mac);
    }
    drop(b);
}

#[test]
fn session_announces_addresses() {
    let sites = sites();
    let _b = B.start(&sites, "b");
    // What is left of one before.
    let stale = || {
        for address in ["10.8.0.1", "fd00::1"] {
            sites.b.ip(&format!("neigh replace {address} lladdr 02:00:00:00:00:99 dev eu0 nud reachable"));
        }
    };
    stale();
    let _a = A.start(&sites, "a");
    let mac: Vec<_> = sites.a.mac("eu0").iter().map(|byte| format!("{byte:02x}")).collect();
    let mac = mac.join(":");
    wait_for("the MAC address in both tables", LIMIT, || {
        let tables = sites.b.ip("neigh show dev eu0");
        let known = |address: &str| tables.lines().any(|line| line.starts_with(address) && line.contains(&mac));
        (known("10.8.0.1 ") && known("fd00::1 ")).then_some(())
    });
    assert_udp(&sites.b, &sites.a, "10.8.0.1");
    assert_udp(&sites.b, &sites.a, "fd00::1");
}

#[test]
fn bridge_keeps_its_mac() {
    let sites = sites();
    let (_lan, _other) = sites.lans(1500);
    sites.a.ip("link add br0 type bridge");
    sites.a.ip("link set lan address 02:ff:ff:ff:ff:ff master br0");
    sites.a.ip("link set br0 up");
    let port = "mode = \"bridge\"\n[tap]\nname = \"eu0\"\nbridge = \"br0\"\n";
    let _a = End { port, ..End::A }.start(&sites, "a");
    assert_eq!(sites.a.mac("eu0")[0], 0xfe);
    assert_eq!(sites.a.mac("br0"), sites.a.mac("lan"));
}
