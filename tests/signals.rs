//! Signals to the supervisor, the user's command, and the end after some seconds.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};

use crate::lab::{Running, Sites, assert_udp, wait_for};

const LIMIT: Duration = crate::lab::PATIENCE;
const TAP: &str = "-i -dev eu0 192.0.2.1 6000 192.0.2.2 6000 10.8.0.1 24";
const PEER: &str = "-i -dev eu0 192.0.2.2 6000 192.0.2.1 6000 10.8.0.2 24";

#[test]
fn hup_prints_and_usr1_resets_counters() {
    let sites = Sites::new();
    let (a, _b) = (Running::classic(&sites.a, "a", TAP), Running::classic(&sites.b, "b", PEER));
    a.wait_state("up", LIMIT);
    assert_udp(&sites.a, &sites.b, "10.8.0.2");
    kill(a.pid("supervisor"), Signal::SIGHUP).unwrap();
    wait_for("statistics", LIMIT, || a.log().contains("encrypt overhead").then_some(()));
    let log = a.log();
    for words in [
        "master_slave=0, current_remote=MASTER",
        "MASTER: ST:1 192.0.2.1:6000 --> 192.0.2.2:6000",
        "master ping_send/pong_recv: ",
        "raw interface recv:",
        "master udp interface recv:",
        "lz4 save 0 bytes, lz4 overhead 0 bytes, encrypt overhead 0 bytes, 100%",
    ] {
        assert!(log.contains(words), "{words}: {log}");
    }
    let pings = a.count("/paths/0/pings_sent");
    assert!(a.count("/port/rx_frames") > 0 && pings > 0);
    kill(a.pid("supervisor"), Signal::SIGUSR1).unwrap();
    wait_for("reset", LIMIT, || (a.count("/port/rx_frames") == 0).then_some(()));
    assert!(a.count("/paths/0/pings_sent") >= pings, "PINGs are no traffic");
    assert_eq!(a.count("/worker_restarts"), 0);
}

#[test]
fn command_runs_once_when_ready() {
    let sites = Sites::new();
    let scratch = crate::lab::Scratch::new();
    let file = scratch.path().join("ran");
    let command = format!(
        "ip -o addr show dev $ETHUDP_INTERFACE > {0}; id -u >> {0}; ls /proc/self/fd | wc -l >> {0}; exit 3",
        file.display()
    );
    let arguments = ["-d", "-n", "a", "-c", &command].into_iter().chain(TAP.split(' ')).collect::<Vec<_>>();
    let a = Running::start(&sites.a, scratch, "a", &[], &arguments);
    let ran = std::fs::read_to_string(&file).unwrap();
    let lines: Vec<_> = ran.lines().collect();
    // The address is there; root started it; it has the standard streams and what ls itself opens.
    assert!(ran.contains("10.8.0.1/24") && lines[lines.len() - 2..] == ["0", "4"], "{ran}");
    assert!(a.log().contains("exit status 3"), "{}", a.log());
}

#[test]
fn foreground_tunnel_ends_after_seconds() {
    let sites = Sites::new();
    let a = Running::classic(&sites.a, "a", &format!("-x 2 {TAP}"));
    wait_for("end", LIMIT, || a.try_status().is_none().then_some(()));
    assert!(a.stop().success());
}
