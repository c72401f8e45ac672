//! An end whose own addresses, interfaces and routes change while it runs, or which has several of them.

use std::net::UdpSocket;
use std::time::Duration;

use crate::lab::{Namespace, Running, Scratch, Sites, join, udp_passes, wait_for};
use crate::secure::End;

const LIMIT: Duration = Duration::from_secs(20);
const V4: &str = "0.0.0.0:6000";
const V6: &str = "[::]:6000";

/// Frames pass, now or soon.
fn assert_passes(sites: &Sites, what: &str) {
    assert!(udp_passes(&sites.a, &sites.b, "10.8.0.2", LIMIT), "{what}: nothing passes");
}

/// A, which begins, and B, which learns where A is.
fn both(sites: &Sites, local: &'static str, remote: &'static str, server: &'static str) -> (Running, Running) {
    let b = End { local: server, remote: "any", ..End::B }.start(sites, "b");
    let a = End { local, remote, ..End::A }.start(sites, "a");
    assert_passes(sites, "at the start");
    (a, b)
}

fn wait_remote(end: &Running, remote: &str) {
    wait_for(remote, LIMIT, || (end.status()["paths"][0]["remote"] == remote).then_some(()));
}

#[test]
fn tunnel_survives_new_local_address() {
    for (local, remote, old, new, learned) in [
        (V4, "192.0.2.2:6000", "192.0.2.1/24", "192.0.2.9/24", "192.0.2.9:6000"),
        (V6, "[2001:db8::2]:6000", "2001:db8::1/64", "2001:db8::9/64", "[2001:db8::9]:6000"),
        ("any:6000", "192.0.2.2:6000", "192.0.2.1/24", "192.0.2.9/24", "192.0.2.9:6000"),
    ] {
        let sites = Sites::new();
        let (a, b) = both(&sites, local, remote, if remote.starts_with('[') { V6 } else { V4 });
        let worker = a.pid("worker");
        sites.a.ip(&format!("addr del {old} dev wan"));
        sites.a.ip(&format!("addr add {new} dev wan{}", if new.contains(':') { " nodad" } else { "" }));
        assert_passes(&sites, new);
        wait_remote(&b, learned);
        assert_eq!((a.pid("worker"), &a.status()["state"]), (worker, &"up".into()));
    }
}

#[test]
fn tunnel_survives_moved_default_route() {
    let sites = Sites::new();
    join((&sites.a, "wan2"), (&sites.b, "wan2"), 1500);
    sites.a.ip("addr add 198.51.100.1/24 dev wan2");
    sites.b.ip("addr add 198.51.100.2/24 dev wan2");
    sites.b.ip("addr add 203.0.113.1/32 dev lo");
    sites.a.ip("route add default via 192.0.2.2");
    let (_a, b) = both(&sites, V4, "203.0.113.1:6000", "203.0.113.1:6000");
    wait_remote(&b, "192.0.2.1:6000");
    sites.a.ip("route replace default via 198.51.100.2");
    wait_remote(&b, "198.51.100.1:6000");
    assert_passes(&sites, "by the other uplink");
}

#[test]
fn tunnel_survives_replaced_interface() {
    let sites = Sites::new();
    let (a, _b) = both(&sites, V4, "192.0.2.2:6000", V4);
    sites.a.ip("link del wan");
    a.wait_state("down", LIMIT);
    join((&sites.a, "wan"), (&sites.b, "wan"), 1500);
    sites.a.ip("addr add 192.0.2.1/24 dev wan");
    sites.b.ip("addr add 192.0.2.2/24 dev wan");
    assert_passes(&sites, "after the interface is there again");
}

#[test]
fn fixed_local_address_may_return() {
    let sites = Sites::new();
    let (a, _b) = both(&sites, "192.0.2.1:6000", "192.0.2.2:6000", V4);
    sites.a.ip("addr del 192.0.2.1/24 dev wan");
    a.wait_state("down", LIMIT);
    let gone = "path 1: local address 192.0.2.1 was removed from this host";
    wait_for(gone, LIMIT, || a.status()["reason"].as_str().is_some_and(|reason| reason.contains(gone)).then_some(()));
    assert!(a.log().contains(gone), "{}", a.log());
    sites.a.ip("addr add 192.0.2.1/24 dev wan");
    assert_passes(&sites, "after the address is there again");
    a.wait_state("up", LIMIT);
    wait_for("no reason", LIMIT, || a.status()["reason"].is_null().then_some(()));
}

#[test]
fn answers_leave_from_the_asked_address() {
    for (server, remote) in
        [(V4, "192.0.2.22:6000"), (V4, "198.51.100.22:6000"), (V6, "192.0.2.22:6000"), (V6, "[2001:db8::22]:6000")]
    {
        let sites = Sites::new();
        sites.b.ip("addr add 192.0.2.22/24 dev wan");
        sites.b.ip("addr add 198.51.100.22/32 dev lo");
        sites.a.ip("route add 198.51.100.22/32 via 192.0.2.2");
        sites.b.ip("addr add 2001:db8::22/64 dev wan nodad");
        let local = if remote.starts_with('[') { V6 } else { V4 };
        let (a, b) = both(&sites, local, remote, server);
        assert_eq!(a.count("/paths/0/rx_dropped_foreign"), 0, "{remote}: an answer from another address");
        // The next worker of the server has to learn it again.
        b.replace_worker();
        assert_passes(&sites, remote);
        // And where that address is gone, it goes on by another one; that the client has another one is the client's to know.
        sites.b.ip(&format!(
            "addr del {} dev {}",
            match remote {
                "198.51.100.22:6000" => "198.51.100.22/32",
                "192.0.2.22:6000" => "192.0.2.22/24",
                _ => "2001:db8::22/64",
            },
            if remote.starts_with("198") { "lo" } else { "wan" }
        ));
        drop(a);
        let other = if remote.starts_with('[') { "[2001:db8::2]:6000" } else { "192.0.2.2:6000" };
        let _a = End { local, remote: other, ..End::A }.start(&sites, "a");
        assert_passes(&sites, other);
    }
}

/// B has a second address, which is the only one that A knows and hears.
fn asks_the_second(sites: &Sites, local: &'static str, second: &'static str) -> Running {
    sites.b.ip(&format!("addr add {second} dev wan{}", if second.contains(':') { " nodad" } else { "" }));
    let remote = if second.contains(':') { "[2001:db8::22]:6000" } else { "192.0.2.22:6000" };
    End { local, remote, ..End::A }.start(sites, "a")
}

#[test]
fn fixed_peer_gets_answer_from_asked_address() {
    for (server, remote, local, second) in [
        (V4, "192.0.2.1:6000", "192.0.2.1:6000", "192.0.2.22/24"),
        (V4, "any", "192.0.2.1:6000", "192.0.2.22/24"),
        (V6, "192.0.2.1:6000", V4, "192.0.2.22/24"),
        (V6, "[2001:db8::1]:6000", V6, "2001:db8::22/64"),
        (V6, "any", V6, "2001:db8::22/64"),
    ] {
        let sites = Sites::new();
        let b = End { local: server, remote, ..End::B }.start(&sites, "b");
        let a = asks_the_second(&sites, local, second);
        assert_passes(&sites, "at the start");
        a.wait_state("up", LIMIT);
        b.wait_state("up", LIMIT);
        for round in 0..2 {
            b.replace_worker();
            // Less than the time to the next attempt of A, which asks the right address by itself.
            let soon = Duration::from_secs(4);
            assert!(udp_passes(&sites.a, &sites.b, "10.8.0.2", soon), "{server} {remote}, round {round}");
        }
    }
}

#[test]
fn classic_fixed_peer_gets_same_source() {
    let sites = Sites::new();
    sites.b.ip("addr add 192.0.2.22/24 dev wan");
    let b = Running::classic(&sites.b, "b", "-i -dev eu0 0.0.0.0 6000 192.0.2.1 6000 10.8.0.2 24");
    let _a = Running::classic(&sites.a, "a", "-i -dev eu0 192.0.2.1 6000 192.0.2.22 6000 10.8.0.1 24");
    assert_passes(&sites, "classic");
    b.replace_worker();
    assert!(udp_passes(&sites.a, &sites.b, "10.8.0.2", Duration::from_secs(4)), "the next worker");
}

#[test]
fn classic_answers_from_asked_address() {
    let sites = Sites::new();
    sites.b.ip("addr add 192.0.2.22/24 dev wan");
    let _b = Running::classic(&sites.b, "b", "-i -dev eu0 0.0.0.0 6000 0.0.0.0 0 10.8.0.2 24");
    let _a = Running::classic(&sites.a, "a", "-i -dev eu0 192.0.2.1 6000 192.0.2.22 6000 10.8.0.1 24");
    assert_passes(&sites, "classic");
}

#[test]
fn ipv6_wildcard_receives_both_families() {
    let sites = Sites::new();
    let b = End { local: V6, remote: "any", ..End::B }.start(&sites, "b");
    for (local, remote, learned) in
        [(V4, "192.0.2.2:6000", "192.0.2.1:6000"), (V6, "[2001:db8::2]:6000", "[2001:db8::1]:6000")]
    {
        let _a = End { local, remote, ..End::A }.start(&sites, "a");
        assert_passes(&sites, remote);
        wait_remote(&b, learned);
    }
}

#[test]
fn wildcard_port_clash_is_explained() {
    let site = Namespace::new();
    let _other = End { local: V4, remote: "any", ..End::A }.start_at(&site, "a");
    let scratch = Scratch::new();
    let text = "mode = \"tap\"\nwire = \"classic\"\n[[path]]\nlocal = \"[::]:6000\"\nremote = \"any\"\n";
    let file = scratch.write("b.toml", text, 0o644);
    let mut command = crate::lab::ethudp(&scratch, &[], &["up", file.to_str().unwrap()]);
    command.stderr(std::process::Stdio::piped()).stdout(std::process::Stdio::null());
    let output = site.spawn(&mut command).wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let expected = "local address [::]:6000: already in use (for IPv6 or IPv4: [::] receives both)";
    assert!(!output.status.success() && said.contains(expected), "{said}");
}

#[test]
fn kernel_drops_strangers_at_wildcard() {
    // Port 6000, and what the kernel has dropped in the last column.
    fn dropped(udp: &str) -> Option<u64> {
        udp.lines().find(|line| line.contains(":1770 "))?.split_whitespace().last()?.parse().ok()
    }
    let sites = Sites::new();
    let (a, _b) = both(&sites, V4, "192.0.2.2:6000", V4);
    let stranger = sites.b.inside(|| UdpSocket::bind("192.0.2.2:7000").unwrap());
    for _ in 0..10 {
        stranger.send_to(b"\x04 anything", "192.0.2.1:6000").unwrap();
    }
    wait_for("count", LIMIT, || {
        let udp = sites.a.inside(|| std::fs::read_to_string("/proc/thread-self/net/udp").unwrap());
        (dropped(&udp)? >= 10).then_some(())
    });
    assert_passes(&sites, "beside a stranger");
    assert_eq!(a.count("/paths/0/rx_dropped_foreign"), 0, "{}", a.status());
}
