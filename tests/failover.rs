//! Master and slave path: switch and return. That no path is taken that does not answer is a matter of time alone, and held by
//! `worker/tests/simulation/`.

use std::time::Duration;

use crate::lab::{Running, Sites, assert_udp, wait_for};

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
