//! Master and slave path: switch and return. That no path is taken that does not answer is a matter of time alone, and held by
//! `worker/tests/simulation/`.

use std::time::{Duration, Instant};

use crate::lab::{Namespace, Running, Sites, Stream, allowed, assert_udp, join, wait_for};

const LIMIT: Duration = crate::lab::PATIENCE;

/// Both ends with two paths; the slave is IPv6.
fn tunnel(sites: &Sites) -> (Running, Running) {
    let end = |here, there| {
        format!(
            "-i -dev eu0 -k key 192.0.2.{here} 6000 192.0.2.{there} 6000 10.8.0.{here} 24 \
             2001:db8::{here} 6001 2001:db8::{there} 6001"
        )
    };
    (Running::classic(&sites.a, "a", &end(1, 2)), Running::classic(&sites.b, "b", &end(2, 1)))
}

/// Waits until the active path of both ends is this one.
fn wait_active(ends: [&Running; 2], path: usize) {
    for end in ends {
        wait_for("active path", LIMIT, || (end.status()["paths"][path]["active"] == true).then_some(()));
    }
}

#[test]
fn failover_to_slave_and_back() {
    let sites = Sites::new();
    let (a, b) = tunnel(&sites);
    a.wait_state("up", LIMIT);
    assert_udp(&sites.a, &sites.b, "10.8.0.2");
    // Without its addresses the master path is dead, and the slave is not.
    for (site, host) in [(&sites.a, 1), (&sites.b, 2)] {
        site.ip(&format!("addr del 192.0.2.{host}/24 dev wan"));
    }
    wait_active([&a, &b], 1);
    assert_udp(&sites.a, &sites.b, "10.8.0.2");
    // The next worker goes on where this one was.
    a.replace_worker();
    assert_eq!(a.status()["paths"][1]["active"], true);
    assert_udp(&sites.a, &sites.b, "10.8.0.2");
    for (site, host) in [(&sites.a, 1), (&sites.b, 2)] {
        site.ip(&format!("addr add 192.0.2.{host}/24 dev wan"));
    }
    wait_active([&a, &b], 0);
    assert_udp(&sites.a, &sites.b, "10.8.0.2");
}

/// Adds a second underlay, `wan2`: 198.51.100.1 and 198.51.100.2.
fn second_underlay(sites: &Sites) {
    join((&sites.a, "wan2"), (&sites.b, "wan2"), 1500);
    for (site, host) in [(&sites.a, 1), (&sites.b, 2)] {
        site.ip(&format!("addr add 198.51.100.{host}/24 dev wan2"));
    }
}

/// File of an end on the classic wire with a PING each 100 ms.
fn fast(here: u8, there: u8) -> String {
    format!(
        "mode = \"tap\"\nwire = \"classic\"\n[tap]\naddress = [\"10.8.0.{here}/24\"]\n[classic]\nkeepalive-ms = 100\n\
         [[path]]\nlocal = \"192.0.2.{here}:6000\"\nremote = \"192.0.2.{there}:6000\"\n\
         [[path]]\nlocal = \"198.51.100.{here}:6001\"\nremote = \"198.51.100.{there}:6001\"\n"
    )
}

/// Drops what arrives by `wan`, in silence: links and addresses stay.
pub fn cut(site: &Namespace, is_cut: bool) {
    if is_cut {
        site.run("nft", "add table netdev cut");
        site.run("nft", "add chain netdev cut in { type filter hook ingress device wan priority 0 ; policy drop ; }");
    } else {
        site.run("nft", "delete table netdev cut");
    }
}

#[test]
fn fast_keepalive_fails_over_within_a_second() {
    let sites = Sites::new();
    second_underlay(&sites);
    let (a, b) = (Running::up(&sites.a, "a", &fast(1, 2)), Running::up(&sites.b, "b", &fast(2, 1)));
    wait_active([&a, &b], 0);
    let stream = Stream::start(&sites.a, &sites.b, "10.8.0.2");
    for cut_at in [&sites.b, &sites.a] {
        stream.wait_arrived();
        stream.take();
        let (start, limit) = (Instant::now(), allowed(Duration::from_secs(1)));
        cut(cut_at, true);
        wait_active([&a, &b], 1);
        stream.wait_arrived();
        let (took, gap) = (start.elapsed(), stream.take().gap);
        assert!(took < limit.max(allowed(Duration::from_secs(1))) && gap < limit, "{took:?}, a gap of {gap:?}");
        cut(cut_at, false);
        wait_active([&a, &b], 0);
    }
}
