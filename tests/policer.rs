//! A policer in the underlay that drops the end of each burst is not mistaken for a network that drops runs.

use crate::lab::{PATIENCE, Sites, assert_tcp, wait_for};
use crate::secure::End;

const BYTES: usize = 300_000;

#[test]
fn policer_is_not_taken_for_lost_runs() {
    let sites = Sites::new();
    // The policer sees single datagrams.
    for site in [&sites.a, &sites.b] {
        site.run("ethtool", "-K wan tx-udp-segmentation off");
    }
    let (a, b) = (End::A.start(&sites, "a"), End::B.start(&sites, "b"));
    for end in [&a, &b] {
        end.wait_state("up", PATIENCE);
    }
    let runs_arrive = || a.status()["paths"][0]["runs_arrive"].clone();
    wait_for("runs", PATIENCE, || (runs_arrive() == true).then_some(()));
    sites.b.run("nft", "add table ip policer");
    sites.b.run("nft", "add chain ip policer in { type filter hook prerouting priority -400 ; }");
    let long = "add rule ip policer in iifname wan udp dport 6000 ip length > 1000";
    sites.b.run("nft", &format!("{long} limit rate over 400/second burst 5 packets counter drop"));
    assert_tcp(&sites.a, &sites.b, "10.8.0.2", BYTES);
    let rules = sites.b.run("nft", "list table ip policer");
    let dropped: u64 = rules.split("counter packets ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!(dropped > 20, "{rules}");
    assert_eq!(runs_arrive(), true, "{dropped} dropped");
    assert!(!a.log().contains("runs of datagrams do not reach"), "{}", a.log());
}
