//! `mss = "auto"`: TCP through the tunnel never makes a datagram that the underlay must fragment.

use std::fs;

use crate::lab::{Namespace, Running, Scratch, Sites, assert_tcp};

/// IP fragments that this host has made, of both versions.
fn fragments(host: &Namespace) -> u64 {
    host.inside(|| {
        let v6 = fs::read_to_string("/proc/thread-self/net/snmp6").unwrap();
        let v6 = v6.lines().find_map(|line| line.strip_prefix("Ip6FragCreates")).unwrap().trim().parse::<u64>();
        let v4 = fs::read_to_string("/proc/thread-self/net/snmp").unwrap();
        let mut lines = v4.lines().filter_map(|line| line.strip_prefix("Ip: ")).map(str::split_whitespace);
        let (mut names, mut values) = (lines.next().unwrap(), lines.next().unwrap());
        let at = names.position(|name| name == "FragCreates").unwrap();
        v6.unwrap() + values.nth(at).unwrap().parse::<u64>().unwrap()
    })
}

/// Sends TCP over IPv4 and IPv6 through a tunnel over an underlay of 1400 bytes; the fragments that this took.
fn fragments_of_tcp(underlay: [&str; 2], local: [&str; 2], classic: &str, rules: &str) -> u64 {
    let sites = Sites::with_mtu(1400);
    let end = |site, host: usize| {
        let scratch = Scratch::new();
        scratch.write("key", "0123456789abcdef", 0o600);
        let text = format!(
            "mode = \"tap\"\nwire = \"classic\"\n[tap]\nname = \"eu0\"\naddress = [\"10.8.0.{host}/24\", \"fd00::{host}/64\"]\n\
             [[path]]\nlocal = \"{}:6000\"\nremote = \"{}:6000\"\n[classic]\n{classic}\n[rules]\n{rules}\n",
            local[host - 1],
            underlay[2 - host],
        );
        let file = scratch.write("t.toml", &text, 0o644);
        Running::start(site, scratch, "t", &[], &["up", file.to_str().unwrap()])
    };
    sites.a.quiet(false);
    sites.b.quiet(false);
    let ends = [end(&sites.a, 1), end(&sites.b, 2)];
    assert_eq!(ends[0].count("/paths/0/mtu"), 1400);
    // The first datagram tells an end that learns where the other is.
    assert_tcp(&sites.b, &sites.a, "10.8.0.1", 100_000);
    assert_tcp(&sites.a, &sites.b, "fd00::2", 100_000);
    fragments(&sites.a) + fragments(&sites.b)
}

#[test]
fn mss_clamp_avoids_fragments() {
    let (v4, v6) = (["192.0.2.1", "192.0.2.2"], ["[2001:db8::1]", "[2001:db8::2]"]);
    let aes = "cipher = \"aes-128\"\nkey-file = \"key\"";
    for (remote, local, classic) in
        [(v4, v4, ""), (v4, v4, aes), (v6, v6, aes), (["any", "192.0.2.2"], ["0.0.0.0", "192.0.2.2"], aes)]
    {
        // Without the rule it is, so the figure can be trusted.
        assert!(fragments_of_tcp(v4, v4, classic, "") > 0);
        assert_eq!(fragments_of_tcp(remote, local, classic, "mss = \"auto\""), 0, "{remote:?} {classic:?}");
    }
}
