//! Mode bridge: two bridged LANs become one segment.

use std::time::Duration;

use crate::lab::{Namespace, Running, Sites, Wire, assert_tcp, assert_udp, frame, wait_for};
use crate::secure::End;

const LIMIT: Duration = crate::lab::PATIENCE;

/// Bridges `br0` at both sites with the LANs in them.
pub fn bridged(sites: &Sites) -> (Namespace, Namespace) {
    bridged_of(sites, 1500)
}

fn bridged_of(sites: &Sites, mtu: u32) -> (Namespace, Namespace) {
    let lans = sites.lans(mtu);
    for site in [&sites.a, &sites.b] {
        site.ip("link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0");
        site.ip("link set lan master br0");
        site.ip("link set br0 up");
    }
    lans
}

#[test]
fn bridged_lans_survive_worker_restart() {
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
fn bridge_file_works_like_command_line() {
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

const PORT: &str = "mode = \"bridge\"\n[tap]\nname = \"eu0\"\nbridge = \"br0\"\n";
const LOW: &str = "mode = \"bridge\"\n[tap]\nname = \"eu0\"\nbridge = \"br0\"\nmtu = 1400\n";

#[test]
fn default_bridge_carries_lan_frames() {
    for mtu in [1500, 9000] {
        let sites = Sites::new();
        let (lan_a, lan_b) = bridged_of(&sites, mtu);
        let ends = [End { port: PORT, ..End::A }.start(&sites, "a"), End { port: PORT, ..End::B }.start(&sites, "b")];
        for (end, site) in ends.iter().zip([&sites.a, &sites.b]) {
            end.wait_state("up", LIMIT);
            for interface in ["br0", "eu0"] {
                let link = site.ip(&format!("link show {interface}"));
                assert!(link.contains(&format!("mtu {mtu} ")), "{link}");
            }
            assert_eq!(end.status()["reason"], serde_json::Value::Null);
        }
        let (near, mut far) = (Wire::new(&lan_a, "eth0"), Wire::new(&lan_b, "eth0"));
        let longest = frame(1, usize::try_from(mtu).unwrap() + 14);
        near.send(&longest);
        assert!(std::iter::from_fn(|| far.receive(LIMIT)).any(|received| received == longest), "MTU {mtu}");
    }
}

#[test]
fn bridge_limited_by_tap_is_shown() {
    let sites = Sites::new();
    let _lans = bridged(&sites);
    let a = End { port: LOW, ..End::A }.start(&sites, "a");
    let _b = End { port: LOW, ..End::B }.start(&sites, "b");
    let reason = |words: &str| {
        wait_for(words, LIMIT, || {
            let status = a.status();
            (status["state"] == "up" && status["reason"].as_str().unwrap_or_default().contains(words)).then_some(())
        });
    };
    reason("MTU 1400 of interface \"eu0\" is less than MTU 1500 of the other ports of bridge \"br0\"");
    assert!(a.log().contains("tap.mtu = 1400: lowers the MTU of bridge \"br0\""), "{}", a.log());
    assert!(a.log().contains("local side: MTU 1400 of interface"), "{}", a.log());
    let nothing = || wait_for("no reason", LIMIT, || a.status()["reason"].is_null().then_some(()));
    sites.a.ip("link set eu0 mtu 1500");
    nothing();
    // A port with more joins, and one with less.
    sites.a.ip("link set lan mtu 9000");
    reason("`ip link set dev eu0 mtu 9000`");
    sites.a.ip("link add short mtu 1300 type veth peer name other");
    sites.a.ip("link set short master br0");
    nothing();
    sites.a.ip("link set short nomaster");
    reason("`ip link set dev eu0 mtu 9000`");
}

const NEIGHBOURS: &str = "mode = \"bridge\"\n[tap]\nname = \"eu0\"\nbridge = \"br0\"\n\
                          pass-link-local = [\"lldp\", \"lacp\", \"stp\", \"eapol\"]\n";

/// A frame to the link-local group 01:80:c2:00:00:XX.
fn to_group(last: u8) -> Vec<u8> {
    let mut frame = frame(last.into(), 60);
    frame[..6].copy_from_slice(&[0x01, 0x80, 0xc2, 0, 0, last]);
    frame
}

/// The groups of which frames pass: STP, LACP, 802.1X, LLDP.
fn passed(near: &Wire, far: &mut Wire) -> Vec<u8> {
    const GROUPS: [u8; 4] = [0x00, 0x02, 0x03, 0x0e];
    let end = frame(1, 300);
    for last in GROUPS {
        near.send(&to_group(last));
    }
    near.send(&end);
    // The bridges send frames of their own.
    let all: Vec<_> = std::iter::from_fn(|| far.receive(LIMIT)).take_while(|frame| *frame != end).collect();
    GROUPS.into_iter().filter(|&last| all.contains(&to_group(last))).collect()
}

#[test]
fn link_local_groups_pass_if_asked() {
    let sites = Sites::new();
    let (lan_a, lan_b) = bridged(&sites);
    for site in [&sites.a, &sites.b] {
        site.ip("link set br0 type bridge stp_state 1 forward_delay 200");
    }
    let (mut near, mut far) = (Wire::new(&lan_a, "eth0"), Wire::new(&lan_b, "eth0"));
    for (port, expected) in [(PORT, vec![]), (NEIGHBOURS, vec![0x00, 0x02, 0x03, 0x0e])] {
        let ends = [End { port, ..End::A }.start(&sites, "a"), End { port, ..End::B }.start(&sites, "b")];
        for (end, site) in ends.iter().zip([&sites.a, &sites.b]) {
            end.wait_state("up", LIMIT);
            if port == PORT {
                assert_eq!(end.status()["reason"], serde_json::Value::Null);
                continue;
            }
            // A port passes what arrives at it. The other ports belong to the user, who is told.
            let command = wait_for("reason", LIMIT, || {
                let status = end.status();
                let reason = status["reason"].as_str()?;
                assert!(
                    reason.starts_with("bridge \"br0\" drops frames of tap.pass-link-local (lldp, lacp, stp, eapol)")
                );
                Some(reason.split('`').nth(1)?.strip_prefix("ip ")?.to_owned())
            });
            site.ip(&command);
            wait_for("no reason", LIMIT, || end.status()["reason"].is_null().then_some(()));
        }
        // Until the ports of the bridges forward.
        wait_for("a frame", LIMIT, || {
            near.send(&frame(2, 100));
            std::iter::from_fn(|| far.receive(Duration::from_millis(200))).any(|got| got == frame(2, 100)).then_some(())
        });
        assert_eq!(passed(&near, &mut far), expected, "a to b");
        assert_eq!(passed(&far, &mut near), expected, "b to a");
    }
}
