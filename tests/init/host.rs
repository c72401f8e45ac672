//! What `ethudp init` finds at its host: networks, interfaces, files of other tunnels.

use std::fs;
use std::process::Stdio;

use super::{fails, init, line};
use crate::lab::{Background, Namespace, Running, Scratch, Sites, ethudp};

/// Runs `init` for a site in a namespace; status, standard error.
fn init_in(host: &Namespace, site: &Scratch, arguments: &str) -> (Option<i32>, String) {
    site.close();
    let words = format!("init {arguments} --dir {}", site.path().display());
    let mut command = ethudp(site, &[], &words.split_whitespace().collect::<Vec<_>>());
    let child = host.spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
    let output = child.wait_with_output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

/// A line must not lead this host's own networks into the tunnel.
#[test]
fn used_network_is_not_taken() {
    let host = Namespace::new();
    host.ip("link add lan type veth peer name other");
    host.ip("addr add 192.168.77.1/24 dev lan");
    host.ip("link set lan up");
    host.ip("link set other up");
    host.ip("route add 10.20.0.0/16 via 192.168.77.254");
    let init = |site: &Scratch, arguments: &str| init_in(&host, site, arguments);
    for (address, own, words) in [
        (
            "192.168.77.41/25",
            "192.168.77.40/25",
            "network 192.168.77.0/25 of the tunnel overlaps 192.168.77.0/24 of interface \"lan\" (address 192.168.77.1/24)",
        ),
        (
            "10.0.0.1/8",
            "10.0.0.2/8",
            "network 10.0.0.0/8 of the tunnel overlaps 10.20.0.0/16, a route by interface \"lan\"",
        ),
        (
            "10.20.30.1/24",
            "10.20.30.2/24",
            "network 10.20.30.0/24 of the tunnel overlaps 10.20.0.0/16, a route by interface \"lan\"",
        ),
    ] {
        let of_a = line(&Scratch::new(), &format!("t --address {address} --endpoint 198.51.100.7"));
        let site = Scratch::new();
        let (status, said) = init(&site, &format!("t --peer {of_a}"));
        assert!(
            status == Some(1) && said.contains(words) && said.contains("or accept this one with --address "),
            "{said}"
        );
        assert!(!site.path().join("t.toml").exists() && !site.path().join("t.key").exists());
        let (status, said) = init(&site, &format!("t --peer {of_a} --address {own}"));
        assert!(status == Some(0) && said.contains(words) && said.contains("warning: "), "{said}");
        // And so do check, and the start.
        let file = site.path().join("t.toml");
        let run = Background::run(&host, &site, &[], &["check", file.to_str().unwrap()]);
        assert!(run.status.success() && run.output.contains(words), "{}", run.output);
    }
    let of_a = line(&Scratch::new(), "t --address 10.8.0.1/24 --endpoint 198.51.100.7");
    let site = Scratch::new();
    let (status, said) = init(&site, &format!("t --peer {of_a}"));
    assert!(status == Some(0) && !said.contains("lan"), "{said}");
}

/// A tunnel that does not run has no address at an interface yet.
#[test]
fn other_tunnels_network_is_not_taken() {
    let (a, b) = (Scratch::new(), Scratch::new());
    line(&b, "other --address 10.8.0.9/16 --endpoint 192.0.2.9");
    let of_a = line(&a, "t --address 10.8.0.1/24 --endpoint 198.51.100.7");
    fails(&b, &format!("t --peer {of_a}"), 1, "other.toml (tap.address 10.8.0.9/16)");
    let (status, _, said) = init(&b, &format!("t --peer {of_a} --address 10.8.0.2/24"));
    assert!(status == Some(0) && said.contains("network 10.8.0.0/24 of the tunnel overlaps 10.8.0.0/16 of "), "{said}");
    assert!(
        said.contains("other.toml (tap.address 10.8.0.9/16): packets to common addresses follow the longer"),
        "{said}"
    );
    // Both ends on one host are no conflict.
    line(&a, &format!("u --peer {of_a}"));
}

/// A line is for one tunnel: two with one key would be one to the other end.
#[test]
fn line_of_another_file_is_refused() {
    let (a, b) = (Scratch::new(), Scratch::new());
    let of_a = line(&a, "t --address 10.8.0.1/24 --endpoint 198.51.100.7");
    line(&b, "u --address 10.9.0.2/24");
    let of_b = line(&b, &format!("t --peer {of_a}"));
    let words = "t.toml; each tunnel needs its own line";
    fails(&b, &format!("v --peer {of_a} --address 10.8.0.3/24"), 1, words);
    fails(&b, &format!("u --peer {of_a}"), 1, words);
    // Under another name of the same file it is the same.
    fs::rename(b.path().join("t.toml"), b.path().join("real")).unwrap();
    for name in ["t.toml", "w.toml"] {
        std::os::unix::fs::symlink("real", b.path().join(name)).unwrap();
    }
    assert_eq!(line(&b, &format!("t --peer {of_a}")), of_b);
    // Both ends on one host are two tunnels.
    let of_u = line(&a, &format!("u --peer {of_a} --address 10.8.0.2/24"));
    line(&a, &format!("t --peer {of_u}"));
}

#[test]
fn start_warns_of_overlapping_network() {
    let (sites, scratch) = (Sites::new(), Scratch::new());
    let own = |address: &str| {
        format!(
            "mode = \"tap\"\nwire = \"classic\"\n[tap]\nname = \"eu0\"\naddress = [\"{address}\"]\n\
             [[path]]\nlocal = \"192.0.2.1:6000\"\nremote = \"192.0.2.2:6000\"\n"
        )
    };
    let file = scratch.write("a.toml", &own("192.0.2.129/25"), 0o644);
    let tunnel = Running::start(&sites.a, scratch, "a", &[], &["up", file.to_str().unwrap()]);
    let words = "tap.address 192.0.2.129/25: network 192.0.2.128/25 of the tunnel overlaps 192.0.2.0/24 of interface \"wan\" \
                 (address 192.0.2.1/24): packets to common addresses follow the longer prefix; set tap.address to another network";
    assert!(tunnel.log().contains(words), "{}", tunnel.log());
    // Its own interface, once it runs, is no other's.
    let other = tunnel.scratch.write("b.toml", &own("10.8.0.1/24"), 0o644);
    sites.a.ip("addr add 10.8.0.7/24 dev eu0");
    let run = Background::run(&sites.a, &tunnel.scratch, &[], &["check", other.to_str().unwrap()]);
    assert!(!run.output.contains("eu0"), "{}", run.output);
}

/// A router of the Internet has more routes than are read at each start.
#[test]
fn unread_routes_are_reported() {
    let (host, site) = (Namespace::new(), Scratch::new());
    host.ip("link add lan type veth peer name other");
    host.ip("link set lan up");
    let route = |number: u32| format!("route add 20.{}.{}.{} dev lan\n", number >> 16, number >> 8 & 255, number & 255);
    let routes = (0..20_100).map(route).collect::<Vec<_>>().concat();
    let file = site.write("routes", &routes, 0o644);
    host.ip(&format!("-batch {}", file.display()));
    let words = "more than 20000 routes on this host: the rest were not compared with the tunnel's networks";
    let (status, said) = init_in(&host, &site, "t --address 10.8.0.1/24 --endpoint 192.0.2.1");
    assert!(status == Some(0) && said.contains(words), "{said}");
    let of_a = line(&Scratch::new(), "t --address 10.8.0.1/24 --endpoint 198.51.100.7");
    let other = Scratch::new();
    let (status, said) = init_in(&host, &other, &format!("t --peer {of_a}"));
    assert!(status == Some(0) && said.contains(words), "{said}");
    let file = other.path().join("t.toml");
    let run = Background::run(&host, &other, &[], &["check", file.to_str().unwrap()]);
    assert!(run.status.success() && run.output.contains(words), "{}", run.output);
}

#[test]
fn unreadable_tunnel_file_is_reported() {
    let site = Scratch::new();
    fs::create_dir(site.path().join("a.toml")).unwrap();
    site.write("b.toml", "is no TOML", 0o644);
    let (status, _, said) = init(&site, "t --address 10.8.0.1/24 --endpoint 192.0.2.1");
    let words = "its port, interface and networks were not compared with this tunnel's";
    for file in ["a.toml: not a regular file; ", "b.toml: not valid TOML; "] {
        assert!(status == Some(0) && said.contains(&format!("{file}{words}")), "{said}");
    }
}

#[test]
fn false_bridge_is_refused() {
    let (host, site) = (Namespace::new(), Scratch::new());
    host.ip("link add lan type veth peer name other");
    host.ip("link add br0 type bridge");
    let (status, said) = init_in(&host, &site, "t --bridge lan --endpoint 192.0.2.1");
    let words = "--bridge \"lan\": not a bridge; `ip link show type bridge` lists bridges. To forward the frames of an \
                 interface use --interface lan";
    assert!(status == Some(2) && said.contains(words) && said.lines().count() == 1, "{said}");
    assert_eq!(init_in(&host, &site, "t --bridge br0 --endpoint 192.0.2.1").0, Some(0));
}

/// Its network would be joined with the other end's, and the tunnel's own datagrams are among its frames.
#[test]
fn uplink_as_interface_is_warned() {
    let host = Namespace::new();
    for (name, address) in [("wan", "198.51.100.1/24"), ("lan", "192.168.77.1/24")] {
        host.ip(&format!("link add {name} type veth peer name {name}-peer"));
        host.ip(&format!("addr add {address} dev {name}"));
        host.ip(&format!("link set {name} up"));
    }
    host.ip("link add br0 type bridge");
    host.ip("link set br0 up");
    let of_a = line(&Scratch::new(), "t --bridge br0 --endpoint 198.51.100.7");
    let words = "--interface \"wan\": route to 198.51.100.7 uses this interface";
    for (interface, warned) in [("wan", true), ("lan", false)] {
        let site = Scratch::new();
        let (status, said) = init_in(&host, &site, &format!("t --interface {interface} --peer {of_a}"));
        assert!(status == Some(0) && said.contains(words) == warned, "{said}");
        // Where the peer becomes known later.
        let site = Scratch::new();
        init_in(&host, &site, &format!("t --interface {interface} --endpoint 192.168.77.1"));
        let (status, said) = init_in(&host, &site, &format!("t --peer {of_a}"));
        assert!(
            status == Some(0) && said.contains(&words[1..].replace("-interface", "raw.interface")) == warned,
            "{said}"
        );
    }
    // The own endpoint says it where the other end's is not known.
    let words = "--interface \"wan\": has the --endpoint address 198.51.100.1";
    let (status, said) = init_in(&host, &Scratch::new(), "t --interface wan --endpoint 198.51.100.1");
    assert!(status == Some(0) && said.contains(words), "{said}");
}
