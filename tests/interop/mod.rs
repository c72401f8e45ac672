//! The original program at one end, ours at the other. It is not part of this project: `ETHUDP_REFERENCE` names an executable of its
//! newest source, `ETHUDP_REFERENCE_RELEASE` one of its newest release, v20230202. These tests are ignored unless asked for, as
//! `make check` does where one of the two is set.

mod encoding;
mod ends;
mod paths;
mod releases;
mod rules;

use crate::lab::{Running, Sites, assert_tcp, assert_udp};

use ends::Original;

const CIPHERS: [&str; 5] =
    ["", "-enc xor -k secret", "-enc aes-128 -k 0123456789abcdef", "-enc aes-192 -k short", "-enc aes-256"];

#[test]
#[ignore = "they need the original, which ETHUDP_REFERENCE and ETHUDP_REFERENCE_RELEASE name"]
fn tap() {
    let underlays = CIPHERS.iter().flat_map(|options| [("192.0.2.", options), ("2001:db8::", options)]);
    let every: Vec<_> = underlays.collect();
    for (program, (underlay, options)) in ends::originals().iter().flat_map(|p| every.iter().map(move |e| (p, *e))) {
        let sites = Sites::new();
        let end = |here, there| {
            format!("-i -dev eu0 {options} {underlay}{here} 6000 {underlay}{there} 6000 10.8.0.{here} 24")
        };
        let _original = Original::start(program, &sites.b, &end(2, 1));
        ends::wait_interface(&sites.b, "10.8.0.2");
        let ours = Running::classic(&sites.a, "a", &program.ours(&end(1, 2)));
        for (from, to, address) in [(&sites.a, &sites.b, "10.8.0.2"), (&sites.b, &sites.a, "10.8.0.1")] {
            assert_udp(from, to, address);
            assert_tcp(from, to, address, 300_000);
        }
        ours.wait_state("up", crate::lab::PATIENCE);
    }
}

#[test]
#[ignore = "they need the original, which ETHUDP_REFERENCE and ETHUDP_REFERENCE_RELEASE name"]
fn raw() {
    for (program, options) in ends::originals().iter().flat_map(|program| CIPHERS.map(|options| (program, options))) {
        let sites = Sites::new();
        let (lan_a, lan_b) = sites.lans(1500);
        // The original knows neither GRO superframes nor partial checksums.
        for (namespace, interface) in [(&lan_a, "eth0"), (&lan_b, "eth0"), (&sites.a, "lan"), (&sites.b, "lan")] {
            namespace.run("ethtool", &format!("-K {interface} tx off tso off gso off gro off"));
        }
        lan_a.ip("addr add 10.9.0.1/24 dev eth0");
        lan_b.ip("addr add 10.9.0.2/24 dev eth0");
        let end = |here, there| format!("-e {options} 192.0.2.{here} 6000 192.0.2.{there} 6000 lan");
        let _original = Original::start(program, &sites.b, &end(2, 1));
        let ours = Running::classic(&sites.a, "a", &program.ours(&end(1, 2)));
        for (from, to, address) in [(&lan_a, &lan_b, "10.9.0.2"), (&lan_b, &lan_a, "10.9.0.1")] {
            assert_udp(from, to, address);
            assert_tcp(from, to, address, 300_000);
        }
        ours.wait_state("up", crate::lab::PATIENCE);
    }
}
