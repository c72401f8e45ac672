//! What `docs/RECIPES.md` says of several sites and of a firewall beside a bridge.

use std::os::unix::fs::DirBuilderExt;
use std::process::Command;

use crate::lab::{Background, Namespace, PATIENCE, Running, Scratch, assert_udp, join, not_run, udp_passes};

/// A host with a bridge that has a LAN in it, and a host in that.
struct Site {
    host: Namespace,
    lan: Namespace,
}

impl Site {
    /// `number` is that of its addresses, and of its link to the others.
    fn new(number: u32, underlay: &Namespace) -> Self {
        let (host, lan) = (Namespace::new(), Namespace::new());
        join((&host, "wan"), (underlay, &format!("to{number}")), 1500);
        underlay.ip(&format!("link set to{number} master net"));
        host.ip(&format!("addr add 192.0.2.{number}/24 dev wan"));
        host.ip("link add br0 type bridge");
        join((&host, "lan"), (&lan, "eth0"), 1400);
        host.ip("link set lan master br0");
        host.ip("link set br0 up");
        lan.ip(&format!("addr add 10.9.0.{number}/24 dev eth0"));
        Self { host, lan }
    }

    /// Runs `ethudp init` with these arguments and returns the line that it prints.
    fn init(&self, scratch: &Scratch, arguments: &str) -> String {
        // `init` refuses a directory that others can write to.
        let directory = scratch.path().join("etc");
        std::fs::DirBuilder::new().recursive(true).mode(0o755).create(&directory).unwrap();
        let arguments: Vec<_> =
            ["init", "--dir", directory.to_str().unwrap()].into_iter().chain(arguments.split_whitespace()).collect();
        let run = Background::run(&self.host, scratch, &[], &arguments);
        assert!(run.status.success(), "{arguments:?}: {}", run.output);
        let line = run.output.lines().find(|line| line.starts_with("ethudp2:"));
        line.unwrap_or_else(|| panic!("no line: {}", run.output)).to_owned()
    }

    fn up(&self, scratch: Scratch, name: &str) -> Running {
        let file = scratch.path().join(format!("etc/{name}.toml"));
        Running::start(&self.host, scratch, name, &[], &["up", file.to_str().unwrap()])
    }
}

/// The hub with a tunnel to each of two sites, made as the recipe says.
struct Three {
    /// It would go with its last reference.
    _underlay: Namespace,
    hub: Site,
    a: Site,
    b: Site,
    tunnels: [Running; 4],
}

impl Three {
    fn new() -> Self {
        let underlay = Namespace::new();
        underlay.ip("link add net type bridge");
        underlay.ip("link set net up");
        let [hub, a, b] = [1, 2, 3].map(|number| Site::new(number, &underlay));
        let [to_a, to_b, at_a, at_b] = std::array::from_fn(|_| Scratch::new());
        let line_a = hub.init(&to_a, "site-a --bridge br0 --port 6000 --endpoint 192.0.2.1");
        let line_b = hub.init(&to_b, "site-b --bridge br0 --port 6001 --endpoint 192.0.2.1");
        let from_a = a.init(&at_a, &format!("hub --bridge br0 --peer {line_a}"));
        let from_b = b.init(&at_b, &format!("hub --bridge br0 --peer {line_b}"));
        hub.init(&to_a, &format!("site-a --peer {from_a}"));
        hub.init(&to_b, &format!("site-b --peer {from_b}"));
        let tunnels = [hub.up(to_a, "site-a"), hub.up(to_b, "site-b"), a.up(at_a, "hub"), b.up(at_b, "hub")];
        for tunnel in &tunnels {
            tunnel.wait_state("up", PATIENCE);
        }
        Self { _underlay: underlay, hub, a, b, tunnels }
    }
}

#[test]
fn third_site_reaches_both_others() {
    let three = Three::new();
    assert_udp(&three.a.lan, &three.b.lan, "10.9.0.3");
    assert_udp(&three.b.lan, &three.hub.lan, "10.9.0.1");
    assert_udp(&three.hub.lan, &three.a.lan, "10.9.0.2");
    assert!(three.tunnels.iter().all(|tunnel| tunnel.status()["state"] == "up"));
}

#[test]
fn bridge_works_beside_docker() {
    for program in ["iptables", "sysctl"] {
        if Command::new(program).arg("--version").output().is_err() {
            return not_run("recipes::bridge_works_beside_docker", &format!("{program} is not here"));
        }
    }
    let three = Three::new();
    let hub = &three.hub.host;
    assert_udp(&three.a.lan, &three.b.lan, "10.9.0.3");
    let switch = "/proc/sys/net/bridge/bridge-nf-call-iptables";
    if hub.inside(|| std::fs::write(switch, "1")).is_err() {
        return not_run("recipes::bridge_works_beside_docker", "br_netfilter is not here");
    }
    // As Docker does at its start.
    for rule in ["-P FORWARD DROP", "-N DOCKER-USER", "-A FORWARD -j DOCKER-USER"] {
        hub.run("iptables", rule);
    }
    assert!(!udp_passes(&three.a.lan, &three.b.lan, "10.9.0.3", std::time::Duration::from_millis(500)));
    hub.run("iptables", "-I DOCKER-USER -i br0 -o br0 -j ACCEPT");
    assert_udp(&three.a.lan, &three.b.lan, "10.9.0.3");
}
