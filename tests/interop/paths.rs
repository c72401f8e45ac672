//! Where datagrams go: to a peer that is learned and moves, and over a second path when the first is cut.

use std::time::{Duration, Instant};

use crate::lab::{Running, Wire, allowed, frame, join, wait_for};

use super::ends::{Lab, Nat, Original, Ours, Tunnel, carry, frames, with_each_original};

/// A learns its peer, B, which is behind NAT.
fn behind_nat(lab: &Lab<'_>, ours: Ours, server: &str, client: &str) -> Tunnel {
    let server = format!("-e {server} 192.0.2.1 6000 0.0.0.0 0 lan");
    let client = format!("-e {client} 127.0.0.1 6000 127.0.0.1 5000 lan");
    lab.start(ours, &server, &client)
}

fn a_peer_behind_nat_moves(ours: Ours) {
    with_each_original(|lab| {
        let frames = frames([14, 60, 100, 1000, 1514, 9000]);
        let nat = Nat::new(&lab.sites.b);
        for options in ["", "-p secret", "-p secret -k key -lz4 1"] {
            let _tunnel = behind_nat(lab, ours, options, options);
            lab.wait_open();
            lab.carry(&frames);
            for number in 0..2 {
                nat.change_port(&lab.sites.b);
                if options.is_empty() {
                    // Any frame tells where it is now; with a password that takes until it is told again.
                    let moved = frame(number, 100);
                    carry(&lab.b, &mut lab.a, &moved, &moved);
                    carry(&lab.a, &mut lab.b, &moved, &moved);
                }
                lab.wait_open();
                lab.carry(&frames);
            }
        }
    });
}

#[test]
#[ignore = "they need the original, which ETHUDP_REFERENCE and ETHUDP_REFERENCE_RELEASE name"]
fn original_behind_nat_is_learned() {
    a_peer_behind_nat_moves(Ours::A);
}

#[test]
#[ignore = "they need the original, which ETHUDP_REFERENCE and ETHUDP_REFERENCE_RELEASE name"]
fn original_learns_us_behind_nat() {
    a_peer_behind_nat_moves(Ours::B);
}

fn a_wrong_password(ours: Ours) {
    with_each_original(|lab| {
        let _nat = Nat::new(&lab.sites.b);
        for (server, client) in
            [("-p secret", "-p secre"), ("-p secret", ""), ("-p secret -k key -lz4 1", "-p other -k key -lz4 1")]
        {
            let mut underlay = Wire::new(&lab.sites.a, "wan");
            let wrong = behind_nat(lab, ours, server, client);
            // It is told every second.
            lab.assert_closed(Duration::from_millis(2200));
            drop(wrong);
            let heard = underlay.receive_all(Duration::from_millis(50));
            let from = |host| {
                // UDP; while an end is not there, the kernel answers by ICMP.
                let udp = |frame: &Vec<u8>| frame[12..14] == [8, 0] && frame[23] == 17;
                let sent = |frame: &&Vec<u8>| udp(frame) && frame[26..30] == [192, 0, 2, host];
                heard.iter().filter(sent).count()
            };
            assert!(from(2) >= 2 && from(1) == 0, "{} told, {} answered", from(2), from(1));
        }
        // It is the password that was missing.
        let _right = behind_nat(lab, ours, "-p secret", "-p secret");
        lab.wait_open();
    });
}

#[test]
#[ignore = "they need the original, which ETHUDP_REFERENCE and ETHUDP_REFERENCE_RELEASE name"]
fn originals_wrong_password_is_refused() {
    a_wrong_password(Ours::A);
}

#[test]
#[ignore = "they need the original, which ETHUDP_REFERENCE and ETHUDP_REFERENCE_RELEASE name"]
fn our_wrong_password_is_refused() {
    a_wrong_password(Ours::B);
}

/// Waits until what A and B send goes over the master path, which `master` hears at B.
fn wait_master(lab: &mut Lab<'_>, master: &mut Wire) {
    let mut number = 0;
    wait_for("return to the master path", crate::lab::PATIENCE, || {
        number += 1;
        let (to_b, to_a) = (frame(number, 100), frame(number, 101));
        carry(&lab.a, &mut lab.b, &to_b, &to_b);
        carry(&lab.b, &mut lab.a, &to_a, &to_a);
        let heard = master.receive_all(Duration::from_millis(50));
        let both = [to_b, to_a].iter().all(|frame| heard.iter().any(|datagram| datagram.ends_with(frame)));
        both.then_some(())
    });
}

fn a_cut_path(ours: Ours) {
    with_each_original(|lab| {
        let (a, b) = (&lab.sites.a, &lab.sites.b);
        join((a, "wan2"), (b, "wan2"), 9600);
        for (site, host) in [(a, 1), (b, 2)] {
            site.ip(&format!("addr add 198.51.100.{host}/24 dev wan2"));
        }
        let end = |here, there| {
            format!("-e 192.0.2.{here} 6000 192.0.2.{there} 6000 lan 198.51.100.{here} 6001 198.51.100.{there} 6001")
        };
        let _tunnel = lab.start(ours, &end(1, 2), &end(2, 1));
        let frames = frames([14, 60, 100, 1000, 1514, 9000]);
        let mut master = Wire::new(&lab.sites.b, "wan");
        lab.wait_open();
        wait_master(lab, &mut master);
        for _ in 0..2 {
            lab.sites.b.ip("link set wan down");
            lab.wait_open();
            lab.carry(&frames);
            lab.sites.b.ip("link set wan up");
            wait_master(lab, &mut master);
            lab.carry(&frames);
        }
    });
}

/// The original answers every PING, so this end leaves a dead path within a second.
fn a_fast_keepalive(ours: Ours) {
    with_each_original(|lab| {
        let (a, b) = (&lab.sites.a, &lab.sites.b);
        join((a, "wan2"), (b, "wan2"), 9600);
        for (site, host) in [(a, 1), (b, 2)] {
            site.ip(&format!("addr add 198.51.100.{host}/24 dev wan2"));
        }
        let arguments = |here, there| {
            format!("-e 192.0.2.{here} 6000 192.0.2.{there} 6000 lan 198.51.100.{here} 6001 198.51.100.{there} 6001")
        };
        let file = |here: u8, there: u8| {
            format!(
                "mode = \"raw\"\nwire = \"classic\"\n[raw]\ninterface = \"lan\"\n[classic]\nkeepalive-ms = 100\n\
                 [[path]]\nlocal = \"192.0.2.{here}:6000\"\nremote = \"192.0.2.{there}:6000\"\n\
                 [[path]]\nlocal = \"198.51.100.{here}:6001\"\nremote = \"198.51.100.{there}:6001\"\n"
            )
        };
        let (_original, ours) = match ours {
            Ours::A => (Original::start(lab.program, b, &arguments(2, 1)), Running::up(a, "ours", &file(1, 2))),
            Ours::B => (Original::start(lab.program, a, &arguments(1, 2)), Running::up(b, "ours", &file(2, 1))),
        };
        let active = |path: usize| {
            let is = || (ours.status()["paths"][path]["active"] == true).then_some(());
            wait_for("active path", crate::lab::PATIENCE, is);
        };
        let up = |path: usize| (ours.status()["paths"][path]["state"] == "up").then_some(());
        for path in [0, 1] {
            wait_for("answers by both paths", crate::lab::PATIENCE, || up(path));
        }
        active(0);
        let (start, limit) = (Instant::now(), allowed(Duration::from_secs(1)));
        a.run("nft", "add table netdev cut");
        a.run("nft", "add chain netdev cut in { type filter hook ingress device wan priority 0 ; policy drop ; }");
        active(1);
        let took = start.elapsed();
        assert!(took < limit.max(allowed(Duration::from_secs(1))), "{took:?}");
    });
}

#[test]
#[ignore = "they need the original, which ETHUDP_REFERENCE and ETHUDP_REFERENCE_RELEASE name"]
fn fast_keepalive_with_our_end_at_a() {
    a_fast_keepalive(Ours::A);
}

#[test]
#[ignore = "they need the original, which ETHUDP_REFERENCE and ETHUDP_REFERENCE_RELEASE name"]
fn fast_keepalive_with_our_end_at_b() {
    a_fast_keepalive(Ours::B);
}

#[test]
#[ignore = "they need the original, which ETHUDP_REFERENCE and ETHUDP_REFERENCE_RELEASE name"]
fn failover_with_our_end_at_a() {
    a_cut_path(Ours::A);
}

#[test]
#[ignore = "they need the original, which ETHUDP_REFERENCE and ETHUDP_REFERENCE_RELEASE name"]
fn failover_with_our_end_at_b() {
    a_cut_path(Ours::B);
}
