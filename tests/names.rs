//! Peers that the file names: the tunnel finds them, and follows them to other addresses without a new start.

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use nix::unistd::Pid;

use crate::failover::cut;
use crate::lab::{Running, Scratch, Sites, assert_udp, udp_passes, wait_for};
use crate::secure::{End, KEYS};

/// Time in which a path uses another address of its name, on a loaded machine.
const LIMIT: Duration = Duration::from_secs(90);

/// A file for a TAP with a path from here to this name, on the secure wire or on the classic one.
fn file(scratch: &Scratch, secure: bool, local: &str) -> String {
    let wire = if secure {
        scratch.write("end.key", KEYS[0].0, 0o600);
        format!("[secure]\nprivate-key-file = \"end.key\"\npeer-public-key = \"{}\"\n", KEYS[1].1)
    } else {
        String::new()
    };
    let name = if secure { "secure" } else { "classic" };
    format!(
        "mode = \"tap\"\nwire = \"{name}\"\n[tap]\nname = \"eu0\"\naddress = [\"10.8.0.1/24\"]\n[[path]]\nlocal = \"{local}\"\n\
         remote = \"peer.example:6000\"\n{wire}"
    )
}

/// End A, whose peer has these lines in `/etc/hosts`.
fn with_hosts(sites: &Sites, secure: bool, local: &str, hosts: &str) -> Running {
    let scratch = Scratch::new();
    let place = scratch.write("hosts", hosts, 0o644);
    let content = file(&scratch, secure, local);
    Running::with_hosts(&sites.a, scratch, "a", &content, &place)
}

/// End B, which learns where A is.
fn other(sites: &Sites, secure: bool) -> Running {
    if secure {
        return End { remote: "any", local: "[::]:6000", ..End::B }.start(sites, "b");
    }
    Running::classic(&sites.b, "b", "-i -dev eu0 :: 6000 0.0.0.0 0 10.8.0.2 24")
}

fn wait_remote(end: &Running, remote: &str, limit: Duration) {
    wait_for(remote, limit, || (end.status()["paths"][0]["remote"] == remote).then_some(()));
}

fn pids(end: &Running) -> [Pid; 4] {
    ["supervisor", "helper", "resolver", "worker"].map(|process| end.pid(process))
}

#[test]
fn dead_path_follows_its_name() {
    for (secure, local) in [(true, "any:6000"), (false, "0.0.0.0:6000"), (true, "192.0.2.1:6000")] {
        let sites = Sites::new();
        let _b = other(&sites, secure);
        let a = with_hosts(&sites, secure, local, "192.0.2.2 peer.example\n");
        a.wait_state("up", LIMIT);
        let before = pids(&a);
        wait_remote(&a, "192.0.2.2:6000", LIMIT);
        sites.b.ip("addr del 192.0.2.2/24 dev wan");
        sites.b.ip("addr add 192.0.2.22/24 dev wan");
        a.wait_state("down", LIMIT);
        a.scratch.write("hosts", "192.0.2.22 peer.example\n", 0o644);
        wait_remote(&a, "192.0.2.22:6000", LIMIT);
        a.wait_state("up", LIMIT);
        assert_udp(&sites.a, &sites.b, "10.8.0.2");
        assert_eq!((pids(&a), a.count("/worker_restarts")), (before, 0), "{local}");
        // The next worker goes on there.
        a.replace_worker();
        assert_udp(&sites.a, &sites.b, "10.8.0.2");
    }
}

#[test]
fn live_path_moves_once_the_peer_answers() {
    let sites = Sites::new();
    sites.b.ip("addr add 192.0.2.22/24 dev wan");
    let _b = other(&sites, true);
    let scratch = Scratch::new();
    let place = scratch.write("hosts", "192.0.2.2 peer.example\n", 0o644);
    // A second path without a peer has the name looked up again after 5 s and then 10 s. A name whose paths are all up is looked up
    // again after a minute (`supervise::renewal::names::tests`).
    let more = "[[path]]\nlocal = \"192.0.2.1:6003\"\nremote = \"peer.example:6003\"\n";
    let content = file(&scratch, true, "any:6000").replace("[secure]", &format!("{more}[secure]"));
    let a = Running::with_hosts(&sites.a, scratch, "a", &content, &place);
    a.wait_state("up", LIMIT);
    wait_remote(&a, "192.0.2.2:6000", LIMIT);
    // New keys after two minutes are no new contact.
    let sessions = || a.count("/session/handshakes") - a.count("/session/rekeys");
    let before = sessions();
    // The peer does not answer there, so the path stays.
    a.scratch.write("hosts", "192.0.2.99 peer.example\n", 0o644);
    wait_for("other address", LIMIT, || a.log().contains("addresses 192.0.2.99").then_some(()));
    assert_eq!((&a.status()["state"], &a.status()["paths"][0]["remote"]), (&"up".into(), &"192.0.2.2:6000".into()));
    a.scratch.write("hosts", "192.0.2.22 peer.example\n", 0o644);
    // Each datagram is answered while the path moves.
    let mut asked = 0;
    wait_for("move", LIMIT, || {
        asked += 1;
        assert!(udp_passes(&sites.a, &sites.b, "10.8.0.2", Duration::from_secs(3)), "datagram {asked} has no answer");
        (a.status()["paths"][0]["remote"] == "192.0.2.22:6000").then_some(())
    });
    assert_udp(&sites.a, &sites.b, "10.8.0.2");
    assert_eq!(sessions(), before);
    assert_eq!(a.status()["state"], "up");
}

#[test]
fn address_that_answers_is_used() {
    for secure in [true, false] {
        let sites = Sites::new();
        let _b = other(&sites, secure);
        // No host has the IPv6 address, and it is the first one.
        let hosts = "2001:db8::99 peer.example\n192.0.2.2 peer.example\n";
        let a = with_hosts(&sites, secure, "any:6000", hosts);
        wait_remote(&a, "192.0.2.2:6000", LIMIT);
        a.wait_state("up", LIMIT);
        assert_udp(&sites.a, &sites.b, "10.8.0.2");
    }
}

#[test]
fn short_outage_keeps_the_address() {
    for secure in [true, false] {
        let sites = Sites::new();
        let _b = other(&sites, secure);
        let hosts = "2001:db8::99 peer.example\n192.0.2.2 peer.example\n";
        let a = with_hosts(&sites, secure, "any:6000", hosts);
        wait_remote(&a, "192.0.2.2:6000", LIMIT);
        a.wait_state("up", LIMIT);
        let moves = || a.log().matches("the name has this address").count();
        let before = moves();
        let downs = || a.log().matches(" is down").count();
        cut(&sites.a, true);
        wait_for("down", LIMIT, || (downs() > 0).then_some(()));
        cut(&sites.a, false);
        a.wait_state("up", LIMIT);
        assert_udp(&sites.a, &sites.b, "10.8.0.2");
        assert_eq!((downs(), moves()), (1, before), "{}", a.log());
    }
}

#[test]
fn wrong_answer_spares_a_learned_port() {
    let hosts = |last: u8| format!("192.0.2.{last} peer.example\n");
    let ends = [true, false].map(|secure| {
        let sites = Sites::new();
        let b = if secure {
            End { local: "[::]:6000", ..End::B }.start(&sites, "b")
        } else {
            Running::classic(&sites.b, "b", "-i -dev eu0 192.0.2.2 6000 192.0.2.1 6000 10.8.0.2 24")
        };
        let scratch = Scratch::new();
        let place = scratch.write("hosts", &hosts(2), 0o644);
        // A second path has the name looked up again soon.
        let more =
            "remote = \"peer.example:0\"\n[[path]]\nlocal = \"192.0.2.1:6003\"\nremote = \"peer.example:6003\"\n";
        let content = file(&scratch, secure, "192.0.2.1:6000").replace("remote = \"peer.example:6000\"\n", more);
        let a = Running::with_hosts(&sites.a, scratch, "a", &content, &place);
        wait_remote(&a, "192.0.2.2:6000", LIMIT);
        a.wait_state("up", LIMIT);
        a.scratch.write("hosts", &hosts(99), 0o644);
        (sites, a, b)
    });
    for (sites, a, _b) in &ends {
        wait_for("other address", LIMIT, || a.log().contains("addresses 192.0.2.99").then_some(()));
        assert_udp(&sites.a, &sites.b, "10.8.0.2");
        // The next worker accepts the peer as well.
        a.replace_worker();
        assert_udp(&sites.a, &sites.b, "10.8.0.2");
        assert_eq!(a.status()["paths"][0]["remote"], "192.0.2.2:6000");
        assert_eq!(a.status()["paths"][0]["rx_dropped_foreign"], 0);
        assert!(!a.log().contains(" is down"), "{}", a.log());
    }
}

#[test]
fn name_may_resolve_after_the_start() {
    let sites = Sites::new();
    let _b = other(&sites, true);
    let scratch = Scratch::new();
    let place = scratch.write("hosts", "", 0o644);
    // Another path, so that the tunnel does not wait for the name.
    let more = "[[path]]\nlocal = \"192.0.2.1:6003\"\nremote = \"192.0.2.9:6000\"\n";
    let content = file(&scratch, true, "0.0.0.0:6000").replace("[secure]", &format!("{more}[secure]"));
    let a = Running::with_hosts(&sites.a, scratch, "a", &content, &place);
    let before = pids(&a)[0];
    let path = || a.status()["paths"][0].clone();
    assert_eq!((&path()["state"], &path()["remote"]), (&"connecting".into(), &"peer.example:6000".into()));
    let reason = path()["reason"].to_string();
    assert!(reason.contains("remote name") && reason.contains("looked up again"), "{reason}");
    // The tunnel has the same reason, and the log as well.
    wait_for("reason", LIMIT, || (a.status()["reason"] == path()["reason"]).then_some(()));
    wait_for("line", LIMIT, || a.log().contains(" s: remote name \"peer.example\": ").then_some(()));
    assert!(a.log().contains(": name \"peer.example\": "), "{}", a.log());
    a.scratch.write("hosts", "192.0.2.2 peer.example\n", 0o644);
    wait_remote(&a, "192.0.2.2:6000", LIMIT);
    a.wait_state("up", LIMIT);
    assert_udp(&sites.a, &sites.b, "10.8.0.2");
    assert_eq!((pids(&a)[0], &path()["reason"]), (before, &serde_json::Value::Null));
}

/// Name server that knows one IPv4 address, 192.0.2.LAST, of every name.
fn serve(socket: &UdpSocket, last: &AtomicU8) {
    let mut question = [0; 512];
    while let Ok((length, client)) = socket.recv_from(&mut question) {
        // RFC 1035, section 4.1: a header of 12 bytes, the name up to its empty label, type and class.
        let Some(end) = question[12..length].iter().position(|&byte| byte == 0).map(|end| 12 + end + 5) else {
            continue;
        };
        let is_a = question[end - 4..end - 2] == [0, 1];
        let mut answer = question[..end].to_vec();
        // A response of a recursive server, with one question, an answer for IPv4, and no more.
        answer[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0]);
        if is_a {
            // The name of the question, type A, class IN, valid for a second, four bytes.
            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4]);
            answer.extend(Ipv4Addr::new(192, 0, 2, last.load(Relaxed)).octets());
        }
        let _ = socket.send_to(&answer, client);
    }
}

#[test]
fn name_server_is_asked_again() {
    let sites = Sites::new();
    let _b = other(&sites, false);
    let last = Arc::new(AtomicU8::new(2));
    let socket = sites.b.inside(|| UdpSocket::bind("[2001:db8::2]:53").unwrap());
    socket.set_read_timeout(Some(Duration::from_secs(300))).unwrap();
    let server = thread::spawn({
        let last = Arc::clone(&last);
        move || serve(&socket, &last)
    });
    let scratch = Scratch::new();
    let servers = scratch.write("resolv.conf", "nameserver 2001:db8::2\n", 0o644);
    let content = file(&scratch, false, "192.0.2.1:6000");
    let a = Running::with_mount(&sites.a, scratch, "a", &content, (&servers, "/etc/resolv.conf"));
    a.wait_state("up", LIMIT);
    wait_remote(&a, "192.0.2.2:6000", LIMIT);
    sites.b.ip("addr del 192.0.2.2/24 dev wan");
    sites.b.ip("addr add 192.0.2.22/24 dev wan");
    last.store(22, Relaxed);
    wait_remote(&a, "192.0.2.22:6000", LIMIT);
    a.wait_state("up", LIMIT);
    assert_udp(&sites.a, &sites.b, "10.8.0.2");
    // Only the resolver has a socket for it.
    drop((a, server));
}
