//! `ethudp show`, `ethudp check`, and the log lines of a path.

use std::time::Duration;

use serde_json::Value;

use crate::lab::{Background, Running, Scratch, Sites, assert_udp, wait_for};

const LIMIT: Duration = crate::lab::PATIENCE;
const TAP: &str = "-i -dev eu0 192.0.2.1 6000 192.0.2.2 6000 10.8.0.1 24";
const PEER: &str = "-i -dev eu0 192.0.2.2 6000 192.0.2.1 6000 10.8.0.2 24";

#[test]
fn status_has_documented_fields() {
    let sites = Sites::new();
    let a = Running::classic(&sites.a, "a", TAP);
    let show = |arguments: &[&str]| Background::run(&sites.a, &a.scratch, &[], arguments);
    let waiting: Value = serde_json::from_str(&show(&["show", "a", "--json"]).output).unwrap();
    assert_eq!(waiting["state"], "connecting");
    assert_eq!(waiting["paths"][0]["rtt_ms"], Value::Null);
    let _b = Running::classic(&sites.b, "b", PEER);
    a.wait_state("up", LIMIT);
    assert_udp(&sites.a, &sites.b, "10.8.0.2");
    let one: Value = serde_json::from_str(&show(&["show", "a", "--json"]).output).unwrap();
    for (pointer, expected) in [
        ("/name", Value::from("a")),
        ("/mode", "tap".into()),
        ("/wire", "classic".into()),
        ("/state", "up".into()),
        ("/worker_restarts", 0.into()),
        ("/port/interface", "eu0".into()),
        ("/paths/0/local", "192.0.2.1:6000".into()),
        ("/paths/0/remote", "192.0.2.2:6000".into()),
        ("/paths/0/state", "up".into()),
        ("/paths/0/active", true.into()),
    ] {
        assert_eq!(one.pointer(pointer), Some(&expected), "{pointer} in {one}");
    }
    for pointer in [
        "/pids/supervisor", "/pids/helper", "/pids/worker", "/confinement/landlock_abi", "/port/rx_frames",
        "/port/rx_bytes", "/port/tx_frames", "/port/tx_bytes", "/paths/0/tx_datagrams", "/paths/0/tx_bytes",
        "/paths/0/rx_datagrams", "/paths/0/rx_bytes", "/paths/0/rtt_ms",
    ] {
        assert!(one.pointer(pointer).and_then(Value::as_f64).is_some_and(|number| number > 0.0), "{pointer} in {one}");
    }
    for pointer in ["/confinement/netns", "/confinement/mdwe", "/confinement/seccomp"] {
        assert!(one.pointer(pointer).is_some_and(Value::is_boolean), "{pointer} in {one}");
    }
    assert!(one["paths"][0]["errors"].is_u64(), "{one}");
    let all: Value = serde_json::from_str(&show(&["show", "--json"]).output).unwrap();
    assert_eq!(all.as_array().map(Vec::len), Some(1));
    let text = show(&["show"]).output;
    assert!(
        text.starts_with("a: up (tap, wire classic)\n") && text.contains("192.0.2.1:6000 to 192.0.2.2:6000"),
        "{text}"
    );
    // A socket without a listener is no tunnel.
    drop(std::os::unix::net::UnixListener::bind(a.scratch.path().join("dead.sock")).unwrap());
    assert_eq!(show(&["show"]).output.matches("wire classic").count(), 1);
}

#[test]
fn denied_show_says_so() {
    let sites = Sites::new();
    let a = Running::classic(&sites.a, "a", TAP);
    let other_user = ["--reuid=nobody", "--regid=nogroup", "--clear-groups"];
    for arguments in [&["show"][..], &["show", "a"], &["show", "--json"]] {
        let run = Background::run(&sites.a, &a.scratch, &other_user, arguments);
        assert_eq!((run.status.code(), run.output.lines().count()), (Some(1), 1), "{arguments:?}: {}", run.output);
        assert!(run.output.ends_with("; run it as root, or as a member of group ethudp-status\n"), "{}", run.output);
    }
    let user = ["--reuid=ethudp", "--regid=nogroup", "--clear-groups"];
    let run = Background::run(&sites.a, &a.scratch, &user, &["show"]);
    assert!(run.status.success() && run.output.starts_with("a: connecting"), "{}", run.output);
}

/// The group may ask for the status; that of the keys may not, and no key that the first could read is taken.
#[test]
fn status_group_cannot_read_keys() {
    let Some(group) = nix::unistd::Group::from_name("ethudp-status").unwrap() else {
        panic!("no group ethudp-status here: run tests/install-deps");
    };
    let sites = Sites::new();
    let a = Running::classic(&sites.a, "a", TAP);
    let show = |group: &str| {
        let prefix = ["--reuid=nobody", &format!("--regid={group}"), "--clear-groups"];
        Background::run(&sites.a, &a.scratch, &prefix, &["show", "a"]).output
    };
    assert!(show("ethudp-status").starts_with("a: connecting"), "{}", show("ethudp-status"));
    assert!(show("ethudp").contains("Permission denied"), "{}", show("ethudp"));
    let key = a.scratch.write("x.key", "0123456789abcdef\n", 0o640);
    std::os::unix::fs::chown(&key, None, Some(group.gid.as_raw())).unwrap();
    let content = "mode = \"tap\"\nwire = \"classic\"\n[[path]]\nlocal = \"192.0.2.1:6000\"\nremote = \"any\"\n\
                   [classic]\ncipher = \"aes-128\"\nkey-file = \"x.key\"\n";
    let file = a.scratch.write("x.toml", content, 0o644);
    // Not even by a process whose own group it is, as under the unit.
    for group in ["root", "ethudp-status"] {
        let group = format!("--regid={group}");
        let run =
            Background::run(&sites.a, &a.scratch, &[&group, "--clear-groups"], &["check", file.to_str().unwrap()]);
        assert!(run.status.code() == Some(78) && run.output.contains("x.key: is readable for group"), "{}", run.output);
    }
}

#[test]
fn status_is_current() {
    let sites = Sites::new();
    let (a, _b) = (Running::classic(&sites.a, "a", TAP), Running::classic(&sites.b, "b", PEER));
    let before = a.count("/port/rx_frames");
    assert_udp(&sites.a, &sites.b, "10.8.0.2");
    assert!(a.count("/port/rx_frames") > before);
}

#[test]
fn path_changes_are_logged_once() {
    let sites = Sites::new();
    let a = Running::classic(&sites.a, "a", TAP);
    let b = Running::classic(&sites.b, "b", PEER);
    let lines = |word: &str| a.log().lines().filter(|line| line.ends_with(word)).count();
    a.wait_state("up", LIMIT);
    assert_eq!((lines("is up"), lines("is down")), (1, 0));
    drop(b);
    a.wait_state("down", crate::lab::PATIENCE);
    assert_eq!((lines("is up"), lines("is down")), (1, 1));
    assert!(a.status()["paths"][0]["last_rx_ms"].as_u64().unwrap() > 3000, "{}", a.status());
    assert_eq!(Background::run(&sites.a, &a.scratch, &[], &["show", "a"]).status.code(), Some(3));
    let _b = Running::classic(&sites.b, "b", PEER);
    a.wait_state("up", LIMIT);
    assert_eq!((lines("is up"), lines("is down")), (2, 1));
}

#[test]
fn quiet_and_verbose_set_log_level() {
    let sites = Sites::new();
    let run = |options: &str| {
        let a = Running::classic(&sites.a, "a", &format!("{options} {TAP}"));
        a.replace_worker();
        a.log()
    };
    let (quiet, normal, verbose) = (run("-q"), run(""), run("--verbose"));
    for (log, forwards, started) in [(&quiet, false, false), (&normal, true, false), (&verbose, true, true)] {
        assert!(log.contains("ethudp: a: warning: worker ") && log.contains(" ended: SIGKILL"), "{log}");
        assert_eq!(log.contains(" forwards\n"), forwards, "{log}");
        assert_eq!(log.contains(" started\n"), started, "{log}");
        assert!(log.lines().all(|line| line.starts_with("ethudp: a: ")), "{log}");
    }
}

#[test]
fn check_and_show_need_no_privilege() {
    let sites = Sites::new();
    let scratch = Scratch::new();
    let content = "mode = \"raw\"\nwire = \"classic\"\n[raw]\ninterface = \"lan\"\n\
                   [[path]]\nlocal = \"192.0.2.1:6000\"\nremote = \"peer.example:6000\"\n";
    let file = scratch.write("site.toml", content, 0o644);
    let other_user = ["--reuid=nobody", "--regid=nogroup", "--clear-groups"];
    let run = Background::run(&sites.a, &scratch, &other_user, &["check", file.to_str().unwrap()]);
    assert!(run.status.success() && run.output.contains("tunnel \"site\", mode raw"), "{}", run.output);
    let run = Background::run(&sites.a, &Scratch::new(), &[], &["show"]);
    assert!(run.status.success() && run.output.starts_with("no tunnel runs"), "{}", run.output);
    let run = Background::run(&sites.a, &Scratch::new(), &[], &["show", "--json"]);
    assert_eq!((run.status.code(), run.output.as_str()), (Some(0), "[]\n"));
}

#[test]
fn unresolved_name_stays_connecting() {
    let sites = Sites::new();
    let content = "mode = \"tap\"\nwire = \"classic\"\n\
                   [[path]]\nlocal = \"192.0.2.1:6000\"\nremote = \"no-such-name.invalid:6000\"\n";
    let waiting = Running::up(&sites.a, "a", content);
    let status = waiting.status();
    assert_eq!((&status["state"], &status["pids"]["worker"]), (&"connecting".into(), &Value::Null), "{status}");
    assert_eq!(status["paths"][0]["remote"], "no-such-name.invalid:6000");
    wait_for("reason", LIMIT, || {
        let status = waiting.status();
        status["reason"].as_str().is_some_and(|reason| reason.contains("no-such-name.invalid")).then_some(())
    });
    wait_for("log line", LIMIT, || waiting.log().contains("retrying every 5 s").then_some(()));
    assert!(waiting.stop().success());
}
