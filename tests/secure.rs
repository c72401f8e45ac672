//! The secure wire between real processes: what passes, what is said, what does not pass.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};

use crate::lab::{Namespace, Running, Scratch, Sites, assert_tcp, assert_udp, udp_passes, wait_for};
use crate::service::Manager;

const LIMIT: Duration = crate::lab::PATIENCE;
/// Private and public keys, of one byte each.
pub const KEYS: [(&str, &str); 3] = [
    ("AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=", "pOCSkrZRwni5dyxWn1+puxPZBrRqtoyd+dwrRAn4ogk="),
    ("AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=", "zo060cy2M+x7cMF4FKXHbs0CloUFDTRHRboFhw5YfVk="),
    ("AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM=", "Xf7dO2vUf2+ijuFdlp1bsOpTd01Ii9r53xxuASSz7yI="),
];

/// One end: which keys it has, its port and whom it talks to.
pub struct End {
    pub ours: usize,
    pub theirs: usize,
    pub psk: Option<usize>,
    pub port: &'static str,
    pub local: &'static str,
    pub remote: &'static str,
    /// Lines of `[secure]`.
    pub secure: &'static str,
}

impl End {
    pub const A: Self =
        Self { ours: 0, theirs: 1, psk: None, port: PORT_A, local: ANY, remote: "192.0.2.2:6000", secure: "" };
    pub const B: Self =
        Self { ours: 1, theirs: 0, psk: None, port: PORT_B, local: ANY, remote: "192.0.2.1:6000", secure: "" };

    pub fn start(&self, sites: &Sites, name: &str) -> Running {
        self.start_at(if name == "a" { &sites.a } else { &sites.b }, name)
    }

    pub fn start_at(&self, site: &Namespace, name: &str) -> Running {
        let scratch = Scratch::new();
        scratch.write("end.key", KEYS[self.ours].0, 0o600);
        let mut text = format!(
            "{}[[path]]\nlocal = \"{}\"\nremote = \"{}\"\n[secure]\nprivate-key-file = \"end.key\"\n\
             peer-public-key = \"{}\"\n{}",
            self.port, self.local, self.remote, KEYS[self.theirs].1, self.secure
        );
        if let Some(psk) = self.psk {
            scratch.write("end.psk", KEYS[psk].0, 0o600);
            text += "psk-file = \"end.psk\"\n";
        }
        let file = scratch.write(&format!("{name}.toml"), &text, 0o644);
        let arguments = ["up", file.to_str().unwrap()];
        Running::start(site, scratch, name, &[], &arguments)
    }
}

const ANY: &str = "0.0.0.0:6000";
const PORT_A: &str = "mode = \"tap\"\n[tap]\nname = \"eu0\"\naddress = [\"10.8.0.1/24\"]\n";
const PORT_B: &str = "mode = \"tap\"\n[tap]\nname = \"eu0\"\naddress = [\"10.8.0.2/24\"]\n";

fn both(sites: &Sites) -> (Running, Running) {
    let ends = (End::A.start(sites, "a"), End::B.start(sites, "b"));
    ends.0.wait_state("up", LIMIT);
    ends.1.wait_state("up", LIMIT);
    ends
}

/// Waits until the status has this trouble.
fn wait_trouble(end: &Running, trouble: &str) {
    wait_for(trouble, LIMIT, || {
        let status = end.status();
        (status["session"]["trouble"] == trouble && status["state"] == "mismatch").then_some(())
    });
}

#[test]
fn traffic_passes_and_protection_is_logged() {
    let sites = Sites::new();
    let (a, b) = both(&sites);
    assert_udp(&sites.a, &sites.b, "10.8.0.2");
    assert_tcp(&sites.a, &sites.b, "10.8.0.2", 20_000_000);
    assert_tcp(&sites.b, &sites.a, "10.8.0.1", 20_000_000);
    let (of_a, of_b) = (a.status(), b.status());
    for (session, ours, theirs) in [(&of_a["session"], 0, 1), (&of_b["session"], 1, 0)] {
        assert_eq!(session["established"], true, "{session}");
        assert_eq!(session["handshake"], "Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s");
        assert_eq!(session["kem"], "ML-KEM-768");
        assert_eq!(session["psk"], false);
        assert_eq!(
            (&session["public_key"], &session["peer_public_key"]),
            (&KEYS[ours].1.into(), &KEYS[theirs].1.into())
        );
        assert_eq!(session["trouble"], serde_json::Value::Null);
        for count in ["replays", "auth_failures"] {
            assert_eq!(session[count], 0, "{session}");
        }
    }
    assert_eq!(of_a["session"]["fingerprint"], of_b["session"]["fingerprint"]);
    assert_ne!(of_a["session"]["began_here"], of_b["session"]["began_here"]);
    let fingerprint = of_a["session"]["fingerprint"].as_str().unwrap();
    for end in [&a, &b] {
        assert_eq!(end.log().matches(fingerprint).count(), 1, "{}", end.log());
    }
    assert!(a.stop().success() && b.stop().success());
}

#[test]
fn statistics_describe_session() {
    let sites = Sites::new();
    let (a, b) = both(&sites);
    for end in [&a, &b] {
        kill(end.pid("supervisor"), Signal::SIGUSR1).unwrap();
        let session = &end.status()["session"];
        let by = if session["began_here"] == true { "here" } else { "by the peer" };
        let now = format!("session {}, begun {by} ", session["cipher"].as_str().unwrap());
        let counts =
            format!("; handshakes: {}, rekeys: 0; dropped replays: 0, not authentic: 0, ", session["handshakes"]);
        let words = [now, counts];
        wait_for("statistics", LIMIT, || words.iter().all(|words| end.log().contains(words)).then_some(()));
    }
}

#[test]
fn new_worker_gets_session_at_once() {
    let sites = Sites::new();
    let (a, b) = both(&sites);
    for end in [&a, &b, &a] {
        let before = b.status()["session"]["handshakes"].as_u64().unwrap();
        end.replace_worker();
        let start = Instant::now();
        assert!(udp_passes(&sites.a, &sites.b, "10.8.0.2", LIMIT));
        println!("{:?} to the first datagram", start.elapsed());
        wait_for("session", LIMIT, || (b.status()["session"]["handshakes"].as_u64() > Some(before)).then_some(()));
    }
    assert!(a.stop().success() && b.stop().success());
}

#[test]
fn next_worker_finds_learned_peer() {
    let sites = Sites::new();
    let a = End { remote: "any", ..End::A }.start(&sites, "a");
    assert_eq!(a.status()["state"], "connecting");
    let b = End::B.start(&sites, "b");
    a.wait_state("up", LIMIT);
    assert_udp(&sites.a, &sites.b, "10.8.0.2");
    for end in [&a, &b] {
        end.replace_worker();
        assert_udp(&sites.a, &sites.b, "10.8.0.2");
    }
    assert_eq!(a.status()["paths"][0]["remote"], "192.0.2.2:6000");
}

/// The TAP carries no path, though the peer may come in by any interface: else its MTU would shrink with every restart.
#[test]
fn restart_keeps_interface_mtu() {
    let sites = Sites::new();
    let (scratch, manager) = (Scratch::new(), Manager::new());
    let key = scratch.write("end.key", KEYS[0].0, 0o600);
    let file = format!(
        "mode = \"tap\"\n[tap]\naddress = [\"10.8.0.1/24\"]\n[[path]]\nlocal = \"0.0.0.0:6000\"\nremote = \"any\"\n[secure]\n\
         private-key-file = \"{}\"\npeer-public-key = \"{}\"\n",
        key.display(),
        KEYS[1].1
    );
    let mtu = || {
        let shown = sites.a.ip("-o link show tap0");
        shown.split_once(" mtu ").and_then(|(_, rest)| rest.split(' ').next()).unwrap().parse::<u32>().unwrap()
    };
    // The TAP of another tunnel is no way to the peer.
    for step in ["tuntap add other mode tap", "link set other mtu 1300 up", "addr add 10.9.0.1/24 dev other"] {
        sites.a.ip(step);
    }
    let (service, stored, _) = manager.start(&sites.a, &file, None);
    let before = mtu();
    assert_eq!(before, 1422);
    drop(service);
    let (service, stored, _) = manager.start(&sites.a, &file, stored);
    assert_eq!(mtu(), before);
    drop((service, stored));
}

#[test]
fn pre_shared_keys_must_match() {
    let sites = Sites::new();
    let (a, b) = (End { psk: Some(2), ..End::A }.start(&sites, "a"), End { psk: Some(2), ..End::B }.start(&sites, "b"));
    assert_udp(&sites.a, &sites.b, "10.8.0.2");
    assert_eq!(a.status()["session"]["psk"], true);
    drop(b);
    let b = End { psk: Some(1), ..End::B }.start(&sites, "b");
    wait_trouble(&b, "psk");
    assert!(!udp_passes(&sites.a, &sites.b, "10.8.0.2", Duration::from_millis(500)));
    let log = b.log();
    assert!(log.contains("pre-shared"), "{log}");
}

#[test]
fn wrong_own_and_peer_keys_differ() {
    let sites = Sites::new();
    // The file of `a` has another key for `b`; that of `b` is right.
    let (a, b) = (End { theirs: 2, ..End::A }.start(&sites, "a"), End::B.start(&sites, "b"));
    wait_trouble(&a, "other-peer-key");
    wait_trouble(&b, "our-key-unknown");
    assert!(!udp_passes(&sites.a, &sites.b, "10.8.0.2", Duration::from_millis(500)));
}

/// The identifier, the slot and the interval of the file are the worker's.
#[test]
fn tunnel_identifiers_must_match() {
    const SECURE: &str = "tunnel-id = \"00010203040506ff\"\npeer-slot = 4095\nping-interval-s = 3\n";
    let sites = Sites::new();
    let (a, b) =
        (End { secure: SECURE, ..End::A }.start(&sites, "a"), End { secure: SECURE, ..End::B }.start(&sites, "b"));
    assert_udp(&sites.a, &sites.b, "10.8.0.2");
    assert!(a.log().contains("pings leave every 3 s: without traffic a dead path is noticed after 3 s"), "{}", a.log());
    drop(b);
    let b = End::B.start(&sites, "b");
    wait_trouble(&b, "other-peer-key");
    assert!(b.log().contains("secure.tunnel-id"), "{}", b.log());
    assert!(!udp_passes(&sites.a, &sites.b, "10.8.0.2", Duration::from_millis(500)));
}
