//! A path that drops long datagrams silently, of a tunnel whose file names their length: the state says so.

use std::time::Duration;

use crate::lab::{Sites, udp_passes, wait_for};
use crate::secure::End;

const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn lost_large_datagrams_are_reported() {
    let sites = Sites::new();
    // From A to B: the way drops more than 1400 bytes, and tells nothing.
    sites.b.run("nft", "add table ip way");
    sites.b.run("nft", "add chain ip way in { type filter hook prerouting priority -400 ; }");
    sites.b.run("nft", "add rule ip way in iifname wan ip length > 1400 drop");
    let fixed = |end| End { secure: "path-mtu = 1500\n", ..end };
    let (a, b) = (fixed(End::A).start(&sites, "a"), fixed(End::B).start(&sites, "b"));
    a.wait_state("up", LIMIT);
    let lost = |size: Option<u64>| {
        let status = a.status();
        (status["paths"][0]["lost_size"].as_u64() == size).then_some(status)
    };
    let status = wait_for("the size that is lost", LIMIT, || lost(Some(1472)));
    let said = "datagrams of 1472 bytes do not reach the peer, small ones do: set secure.path-mtu at both ends";
    assert!(status["state"] == "up" && status["reason"].as_str().unwrap().starts_with(said), "{status}");
    assert_eq!(a.log().matches(said).count(), 1, "{}", a.log());
    assert!(udp_passes(&sites.a, &sites.b, "10.8.0.2", LIMIT));
    // The other way carries them.
    assert!(b.status()["paths"][0]["lost_size"].is_null() && b.status()["reason"].is_null(), "{}", b.status());
    sites.b.run("nft", "delete table ip way");
    let status = wait_for("the end of it", 2 * LIMIT, || lost(None));
    assert!(status["reason"].is_null(), "{status}");
    assert_eq!(a.log().matches("datagrams of 1472 bytes reach the peer again").count(), 1, "{}", a.log());
}
