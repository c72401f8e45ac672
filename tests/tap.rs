//! Mode tap: an IP network between two sites, over IPv4 and IPv6, with every cipher.

use std::time::Duration;

use crate::lab::{Running, Sites, assert_tcp, assert_udp};

const LIMIT: Duration = crate::lab::PATIENCE;

/// Both ends of a classic tap tunnel; `options` on both.
fn tunnel(sites: &Sites, options: &str, a: &str, b: &str) -> (Running, Running) {
    let end = |here, there, host| format!("-i -dev eu0 {options} {here} 6000 {there} 6000 10.8.0.{host} 24");
    let a_end = Running::classic(&sites.a, "a", &end(a, b, 1));
    let b_end = Running::classic(&sites.b, "b", &end(b, a, 2));
    (a_end, b_end)
}

#[test]
fn traffic_passes_with_every_cipher() {
    let sites = Sites::new();
    for options in ["", "-enc xor -k secret", "-k 0123456789abcdef", "-enc aes-192 -k x", "-enc aes-256"] {
        let (a, b) = tunnel(&sites, options, "192.0.2.1", "192.0.2.2");
        assert_udp(&sites.a, &sites.b, "10.8.0.2");
        assert_tcp(&sites.a, &sites.b, "10.8.0.2", 500_000);
        assert!(a.stop().success() && b.stop().success());
    }
}

#[test]
fn underlay_may_be_ipv6() {
    let sites = Sites::new();
    let (a, b) = tunnel(&sites, "-k key", "2001:db8::1", "2001:db8::2");
    assert_udp(&sites.b, &sites.a, "10.8.0.1");
    assert_tcp(&sites.b, &sites.a, "10.8.0.1", 100_000);
    drop((a, b));
}

#[test]
fn datagrams_allow_fragmentation() {
    let sites = Sites::new();
    let (_a, _b) = tunnel(&sites, "", "192.0.2.1", "192.0.2.2");
    let mut underlay = crate::lab::Wire::new(&sites.b, "wan");
    let ours = std::iter::from_fn(|| underlay.receive(LIMIT)).find(|frame| frame[12..14] == [8, 0] && frame[23] == 17);
    assert_eq!(ours.expect("a PING on the underlay")[20] & 0x40, 0, "DF is set");
}

#[test]
fn names_are_resolved_at_start() {
    let sites = Sites::new();
    // The one name that every host has.
    let arguments = "-i -dev eu0 localhost 6000 localhost 6001 10.8.0.1 24";
    let a = Running::classic(&sites.a, "a", arguments);
    let remote = a.status()["paths"][0]["remote"].as_str().unwrap().to_owned();
    assert!(["127.0.0.1:6001", "[::1]:6001"].contains(&remote.as_str()), "{remote}");
}

#[test]
fn addresses_are_usable_at_readiness() {
    let sites = Sites::new();
    for site in [&sites.a, &sites.b] {
        site.quiet(false);
        site.inside(|| std::fs::write("/proc/sys/net/ipv6/conf/default/accept_dad", "1").unwrap());
    }
    let file = |host, peer| {
        format!(
            "mode = \"tap\"\nwire = \"classic\"\n\
             [tap]\nname = \"eu0\"\naddress = [\"10.8.0.{host}/24\", \"fd00::{host}/64\"]\nmtu = 1400\n\
             [[path]]\nlocal = \"192.0.2.{host}:6000\"\nremote = \"192.0.2.{peer}:6000\"\ndevice = \"wan\"\nmark = 7\n"
        )
    };
    let a = Running::up(&sites.a, "a", &file(1, 2));
    let addresses = sites.a.ip("-o addr show dev eu0");
    for address in ["10.8.0.1/24", "fd00::1/64"] {
        let line = addresses.lines().find(|line| line.contains(address)).expect(address);
        assert!(!line.contains("tentative"), "{line}");
    }
    assert!(sites.a.ip("link show eu0").contains("mtu 1400"));
    let b = Running::up(&sites.b, "b", &file(2, 1));
    for address in ["10.8.0.2", "fd00::2"] {
        assert_udp(&sites.a, &sites.b, address);
        assert_tcp(&sites.a, &sites.b, address, 100_000);
    }
    drop((a, b));
}

#[test]
fn ended_tunnel_leaves_nothing() {
    let sites = Sites::new();
    let before = sites.a.interfaces();
    let (a, _b) = tunnel(&sites, "", "192.0.2.1", "192.0.2.2");
    let processes = [a.pid("helper"), a.pid("worker")];
    let socket = a.scratch.path().join("a.sock");
    assert!(socket.exists() && sites.a.interfaces().contains(&"eu0".into()));
    assert!(a.stop().success());
    assert_eq!(sites.a.interfaces(), before);
    assert!(!socket.exists());
    for pid in processes {
        assert!(nix::sys::signal::kill(pid, None).is_err(), "{pid} still runs");
    }
}

#[test]
fn removed_interface_ends_tunnel() {
    let sites = Sites::new();
    let (a, _b) = tunnel(&sites, "", "192.0.2.1", "192.0.2.2");
    sites.a.ip("link del eu0");
    let said = || a.log().contains("interface \"eu0\": removed").then_some(());
    crate::lab::wait_for("last words", LIMIT, said);
    assert!(!a.stop().success());
}

#[test]
fn killed_supervisor_ends_everything() {
    let sites = Sites::new();
    let (a, _b) = tunnel(&sites, "", "192.0.2.1", "192.0.2.2");
    let (helper, worker) = (a.pid("helper"), a.pid("worker"));
    nix::sys::signal::kill(a.pid("supervisor"), nix::sys::signal::Signal::SIGKILL).unwrap();
    crate::lab::wait_for("end of all", LIMIT, || {
        let gone =
            |pid| std::fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "));
        (gone(helper) && gone(worker) && !sites.a.interfaces().contains(&"eu0".into())).then_some(())
    });
    drop(a);
    let again = Running::classic(&sites.a, "a", "-i -dev eu0 192.0.2.1 6000 192.0.2.2 6000 10.8.0.1 24");
    assert_udp(&sites.a, &sites.b, "10.8.0.2");
    drop(again);
}
