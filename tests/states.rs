//! Reports to the operator about a tunnel that passes no frames: mismatch of the two ends, local side down, silent peer.

use std::fs::File;
use std::process::Command;
use std::time::Duration;

use crate::lab::{Background, Namespace, Running, Sites, ethudp, wait_for};

const LIMIT: Duration = crate::lab::PATIENCE;

/// One end of a pair of tunnels, both taps, on this port.
fn end(site: &Namespace, name: &str, port: u16, options: &str, addresses: &str) -> Running {
    Running::classic(site, name, &format!("-i {options} -dev {name} {addresses} 10.{}.0.1 24", port - 6000))
}

/// Both ends of a pair with these options each.
fn pair(sites: &Sites, port: u16, ours: &str, theirs: &str) -> (Running, Running) {
    let a = end(&sites.a, &format!("a{port}"), port, ours, &format!("192.0.2.1 {port} 192.0.2.2 {port}"));
    let b = end(&sites.b, &format!("b{port}"), port, theirs, &format!("192.0.2.2 {port} 192.0.2.1 {port}"));
    (a, b)
}

fn lines(running: &Running, words: &str) -> usize {
    running.log().lines().filter(|line| line.contains(words)).count()
}

#[test]
fn mismatch_is_a_state() {
    let sites = Sites::new();
    let aes = |key: &str| format!("-enc aes-128 -k {key}");
    let pairs = [
        pair(&sites, 6001, &aes("one"), &aes("two")),
        pair(&sites, 6002, "-enc xor -k one", "-enc xor -k another"),
        pair(&sites, 6003, &aes("one"), ""),
        pair(&sites, 6004, "-lz4 1", ""),
        pair(&sites, 6005, "-enc aes-256 -k one -lz4 1", "-enc aes-256 -k one"),
        pair(&sites, 6008, "-enc aes-256 -k one", "-enc aes-256-ethudp-2023 -k one"),
    ];
    let agreed = pair(&sites, 6006, &aes("one"), &aes("one"));
    // A password that differs is told from a key.
    let learns = end(&sites.a, "a6007", 6007, "-p right", "192.0.2.1 6007 0.0.0.0 0");
    let _told = end(&sites.b, "b6007", 6007, "-p wrong", "192.0.2.2 6007 192.0.2.1 6007");
    for end in pairs.iter().flat_map(|(a, b)| [a, b]) {
        end.wait_state("mismatch", LIMIT);
        let status = end.status();
        assert_eq!(status["paths"][0]["state"], "mismatch", "{status}");
        let reason = status["reason"].as_str().unwrap();
        assert!(
            reason.contains("set the same cipher, key and lz4") && reason.contains("reach the local side"),
            "{reason}"
        );
        // What EthUDP's releases mean by aes-256 is named where it may be the reason.
        assert_eq!(reason.contains("set cipher aes-256-ethudp-2023"), status["cipher"] == "aes-256", "{reason}");
        assert_eq!(reason.contains("set cipher aes-256"), status["cipher"].as_str().unwrap().starts_with("aes-256"));
        assert_eq!(
            (lines(end, "mismatch: received datagrams do not decode"), lines(end, "mismatch ended")),
            (1, 0),
            "{}",
            end.log()
        );
    }
    for end in [&agreed.0, &agreed.1] {
        assert_eq!((&end.status()["state"], lines(end, "mismatch")), (&"up".into(), 0));
    }
    learns.wait_state("mismatch", LIMIT);
    let status = learns.status();
    assert!(status["reason"].as_str().unwrap().contains("wrong password in received datagrams"), "{status}");
    assert_eq!(lines(&learns, "mismatch: wrong password"), 1);
    // Mended at one end.
    let [(a, b), ..] = pairs;
    drop(b);
    let _b = end(&sites.b, "b6001", 6001, &aes("one"), "192.0.2.2 6001 192.0.2.1 6001");
    a.wait_state("up", LIMIT);
    assert_eq!((a.status()["reason"].clone(), lines(&a, "mismatch ended")), (serde_json::Value::Null, 1));
    assert_eq!(lines(&a, "mismatch: received datagrams do not decode"), 1);
}

#[test]
fn interface_down_is_a_state() {
    let sites = Sites::new();
    let (a, _b) = pair(&sites, 6000, "", "");
    a.wait_state("up", LIMIT);
    sites.a.ip("link set a6000 down");
    a.wait_state("local-down", LIMIT);
    let status = a.status();
    assert_eq!(status["reason"], "interface \"a6000\" is down: run `ip link set dev a6000 up`");
    let shown = Background::run(&sites.a, &a.scratch, &[], &["show", "a6000"]);
    assert_eq!(shown.status.code(), Some(4), "{}", shown.output);
    sites.a.ip("link set a6000 up");
    a.wait_state("up", LIMIT);
    assert_eq!(
        (lines(&a, "local side: interface \"a6000\" is down"), lines(&a, "local side: up again")),
        (1, 1),
        "{}",
        a.log()
    );
}

/// An end with addresses of both families.
fn addressed(sites: &Sites) -> Running {
    sites.a.quiet(false);
    let file = "mode = \"tap\"\nwire = \"classic\"\n[tap]\nname = \"eu0\"\naddress = [\"10.8.0.1/24\", \"fd00::1/64\"]\n\
                [[path]]\nlocal = \"192.0.2.1:6000\"\nremote = \"192.0.2.2:6000\"\n";
    Running::up(&sites.a, "a", file)
}

/// Waits until its local side is down for this reason.
fn wait_local(end: &Running, reason: &str) {
    wait_for(reason, LIMIT, || {
        let status = end.status();
        (status["state"] == "local-down" && status["reason"] == reason).then_some(())
    });
}

#[test]
fn flushed_address_is_shown() {
    let sites = Sites::new();
    let a = addressed(&sites);
    for (address, flush) in
        [("10.8.0.1/24", "-4 addr flush dev eu0"), ("fd00::1/64", "-6 addr flush dev eu0 scope global")]
    {
        a.wait_state("connecting", LIMIT);
        sites.a.ip(flush);
        let add = format!("ip addr add {address} dev eu0");
        wait_local(&a, &format!("address {address} is missing on interface \"eu0\": run `{add}`"));
        sites.a.ip(add.strip_prefix("ip ").unwrap());
    }
    a.wait_state("connecting", LIMIT);
}

#[test]
fn addresses_stay_when_set_down() {
    let sites = Sites::new();
    let a = addressed(&sites);
    sites.a.ip("link set eu0 down");
    a.wait_state("local-down", LIMIT);
    sites.a.ip("link set eu0 up");
    a.wait_state("connecting", LIMIT);
    let shown = sites.a.ip("addr show eu0");
    assert!(shown.contains("10.8.0.1/24") && shown.contains("fd00::1/64"), "{shown}");
}

#[test]
fn renamed_interface_is_shown() {
    let sites = Sites::new();
    let a = addressed(&sites);
    sites.a.ip("link set eu0 down");
    sites.a.ip("link set eu0 name lan9");
    wait_local(&a, "interface \"lan9\" is down: run `ip link set dev lan9 up`");
    assert_eq!(a.status()["port"]["interface"], "lan9");
    assert_eq!(lines(&a, "interface \"eu0\" renamed to \"lan9\""), 1, "{}", a.log());
    sites.a.ip("link set lan9 up");
    a.wait_state("connecting", LIMIT);
}

#[test]
fn renamed_bridge_is_not_removed() {
    let sites = Sites::new();
    sites.a.ip("link add br0 type bridge");
    sites.a.ip("link set br0 up");
    let a = Running::classic(&sites.a, "a", "-b -dev eu0 192.0.2.1 6000 192.0.2.2 6000 br0");
    a.wait_state("connecting", LIMIT);
    sites.a.ip("link set br0 down");
    sites.a.ip("link set br0 name br9");
    wait_local(&a, "interface \"br9\" is down: run `ip link set dev br9 up`");
    sites.a.ip("link set eu0 nomaster");
    wait_local(&a, "interface \"eu0\" left bridge \"br9\": run `ip link set dev eu0 master br9`");
}

#[test]
fn pulled_cable_is_a_state() {
    let sites = Sites::new();
    let (lan, _other) = sites.lans(1500);
    let a = Running::classic(&sites.a, "a", "-e 192.0.2.1 6000 192.0.2.2 6000 lan");
    let _b = Running::classic(&sites.b, "b", "-e 192.0.2.2 6000 192.0.2.1 6000 lan");
    a.wait_state("up", LIMIT);
    lan.ip("link set eth0 down");
    a.wait_state("local-down", LIMIT);
    assert!(a.status()["reason"].as_str().unwrap().contains("no carrier"), "{}", a.status());
    lan.ip("link set eth0 up");
    a.wait_state("up", LIMIT);
}

#[test]
fn removed_bridge_is_a_state() {
    let sites = Sites::new();
    let make = || {
        sites.a.ip("link add br0 type bridge");
        sites.a.ip("link set br0 up");
    };
    make();
    let a = Running::classic(&sites.a, "a", "-b -dev eu0 192.0.2.1 6000 192.0.2.2 6000 br0");
    assert_eq!(a.status()["state"], "connecting");
    sites.a.ip("link set br0 down");
    a.wait_state("local-down", LIMIT);
    sites.a.ip("link set br0 up");
    a.wait_state("connecting", LIMIT);
    let reason = |words: &str| {
        wait_for(words, LIMIT, || {
            a.status()["reason"].as_str().is_some_and(|reason| reason.contains(words)).then_some(())
        });
        assert_eq!(a.status()["state"], "local-down");
    };
    sites.a.ip("link delete br0");
    reason("bridge \"br0\" is gone");
    make();
    reason("left bridge \"br0\": run `ip link set dev eu0 master br0`");
    sites.a.ip("link set eu0 master br0");
    a.wait_state("connecting", LIMIT);
}

#[test]
fn measured_path_is_not_connecting() {
    let sites = Sites::new();
    let (a, b) = pair(&sites, 6000, "", "");
    wait_for("up", LIMIT, || {
        for end in [&a, &b] {
            let status = end.status();
            let path = &status["paths"][0];
            assert!(path["rtt_ms"].is_null() || path["state"] == "up", "{status}");
            // No system call is as fast: the two times would be one reading of the clock.
            assert!(path["rtt_ms"].as_f64().is_none_or(|rtt| rtt > 0.002), "{status}");
        }
        (a.status()["state"] == "up" && b.status()["state"] == "up").then_some(())
    });
}

#[test]
fn down_tunnel_says_why() {
    let sites = Sites::new();
    let a = end(&sites.a, "a", 6001, "", "192.0.2.1 6001 192.0.2.2 6001");
    let pair = pair(&sites, 6003, "", "");
    wait_for("a line", crate::lab::PATIENCE, || (lines(&a, "not up for 1") > 0).then_some(()));
    let (log, words) = (a.log(), "ICMP errors for sent datagrams: port unreachable: ethudp does not listen");
    let status = a.status();
    assert!(status["state"] == "connecting" && status["reason"].as_str().unwrap().contains(words), "{status}");
    assert!(log.lines().any(|line| line.contains("not up for 1") && line.contains(words)), "{log}");
    assert_eq!(lines(&a, "not up for"), 1);
    assert_eq!(lines(&pair.0, "not up"), 0, "{}", pair.0.log());
}

#[test]
fn show_exit_status_tells_state() {
    let sites = Sites::new();
    let a = end(&sites.a, "a", 6000, "-enc aes-128 -k one", "192.0.2.1 6000 192.0.2.2 6000");
    let show = |arguments: &[&str]| Background::run(&sites.a, &a.scratch, &[], arguments);
    let code = |arguments: &[&str]| show(arguments).status.code();
    assert_eq!((code(&["show", "a"]), code(&["show", "a", "--json"]), code(&["show"])), (Some(3), Some(3), Some(0)));
    assert_eq!(code(&["show", "b"]), Some(1));
    let _b = end(&sites.b, "b", 6000, "-enc aes-128 -k one", "192.0.2.2 6000 192.0.2.1 6000");
    a.wait_state("up", LIMIT);
    assert_eq!(code(&["show", "a"]), Some(0));
    let text = show(&["show", "a"]).output;
    for words in ["cipher      aes-128: encrypted, not authenticated", "up for ", "last datagram received ", " ms ago"]
    {
        assert!(text.contains(words), "{words:?} not in {text}");
    }
    let status = a.status();
    assert_eq!((&status["cipher"], &status["lz4"]), (&"aes-128".into(), &false.into()));
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert!(status["uptime_s"].is_u64() && status["paths"][0]["last_rx_ms"].as_u64().unwrap() < 2500, "{status}");
    // Nowhere to write to.
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut command: Command = ethudp(&a.scratch, &[], &["show", "a"]);
    let mut child = sites.a.spawn(command.stdout(full));
    assert_eq!(child.wait().unwrap().code(), Some(1));
    // A line each.
    let words = ["-d", "-n", "c", "-i", "192.0.2.1", "6001", "192.0.2.2", "6001", "10.7.0.1", "24"];
    let mut command = ethudp(&a.scratch, &[], &words);
    let mut c = sites.a.spawn(&mut command);
    let both =
        wait_for("two", LIMIT, || Some(show(&["show"]).output).filter(|output| output.starts_with("a: tap, up")));
    let both = if both.lines().count() == 2 {
        both
    } else {
        wait_for("second", LIMIT, || Some(show(&["show"]).output).filter(|output| output.contains("\nc: tap")))
    };
    assert_eq!(both.lines().count(), 2, "{both}");
    c.kill().unwrap();
    c.wait().unwrap();
}
