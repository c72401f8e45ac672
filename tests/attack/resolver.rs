//! An attacker in the resolver: the confinement stops each attempt of `stub-resolver`, and the supervisor refuses each lie.

use std::process::Command;
use std::time::Duration;

use ethudp_stubs::helper::DENIED;
use ethudp_stubs::resolver::{ATTEMPTS, Outcome};
use ethudp_stubs::{SURVIVED, raw};
use nix::sys::signal::{Signal, kill};
use nix::unistd::User;

use crate::lab::{Namespace, Running, Scratch, Sites, assert_udp, built, children, not_run, wait_for};

/// Longest time to the second question of a path that is up.
const NEXT: Duration = Duration::from_secs(60);
/// Version of Landlock since which it knows TCP ports.
const PORTS: i64 = 4;
/// Version of Landlock since which it knows signals.
const SIGNALS: i64 = 6;

/// Version of Landlock in this kernel; 0 without it.
fn landlock() -> i64 {
    const VERSION: i64 = 1; // LANDLOCK_CREATE_RULESET_VERSION
    raw::call(libc::SYS_landlock_create_ruleset, &[0, 0, VERSION]).unwrap_or(0)
}

#[test]
fn resolver_is_denied_unneeded_calls() {
    let landlock = landlock();
    let user = User::from_name("ethudp").unwrap().unwrap().uid.to_string();
    let namespace = Namespace::new();
    namespace.ip("link set lo up");
    let mut wrong = Vec::new();
    for attempt in ATTEMPTS {
        for (process, expected) in [("waiting", attempt.waiting), ("asking", attempt.asking)] {
            let known = match expected {
                Outcome::Refused => landlock > 0,
                Outcome::RefusedPort => landlock >= PORTS,
                _ => true,
            };
            if !known {
                not_run(&format!("attack {}-while-{process}", attempt.name), "Landlock knows too little here");
                continue;
            }
            let mut command = Command::new(built("stub-resolver"));
            command.args([process, attempt.name, &user]);
            let output = namespace.inside(|| command.output()).unwrap();
            let error = |number: i32| Some(DENIED + number);
            let right = match expected {
                Outcome::Works => Some(SURVIVED.into()),
                Outcome::Missing => error(libc::ENOSYS),
                Outcome::Refused | Outcome::RefusedPort => error(libc::EACCES),
                Outcome::Denied => error(libc::EPERM),
            };
            if output.status.code() != right {
                let said = String::from_utf8_lossy(&output.stderr);
                wrong.push(format!("{} while {process}: {}, not {expected:?} {said}", attempt.name, output.status));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A resolver that breaks a rule and does not exit is not heard again. Where Landlock knows signals, none of the supervisor reaches it.
#[test]
fn stubborn_resolver_is_out_of_use() {
    let sites = Sites::new();
    let _b = Running::classic(&sites.b, "b", "-i -dev eu0 192.0.2.2 6000 192.0.2.1 6000 10.8.0.2 24");
    let scratch = Scratch::with_resolver("stub-resolver");
    let arguments = "-d -n a -i -dev eu0 192.0.2.1 6000 stay.example 6000 10.8.0.1 24";
    let a = Running::start(&sites.a, scratch, "a", &[], &arguments.split(' ').collect::<Vec<_>>());
    wait_for("loss", crate::lab::PATIENCE, || a.log().contains("answer without a question").then_some(()));
    assert!(a.status()["pids"]["resolver"].is_null());
    assert_udp(&sites.a, &sites.b, "10.8.0.2");
    let others = ["helper", "worker"].map(|process| a.pid(process));
    let children = children(a.pid("supervisor")).into_iter().map(|(pid, _)| pid);
    let left: Vec<_> = children.filter(|pid| !others.contains(pid)).collect();
    assert_eq!(left.len(), usize::from(landlock() >= SIGNALS), "{left:?}");
    a.stop();
    for pid in left {
        kill(pid, Signal::SIGKILL).unwrap();
    }
}

#[test]
fn lying_resolver_is_ended() {
    for (lie, words) in [
        ("twice", "answer without a question"),
        ("another", "answer without a question"),
        ("garbage", "message cannot be decoded"),
        ("long", "truncated message"),
        ("later", "too many addresses"),
        ("end", "ended"),
    ] {
        let sites = Sites::new();
        let _b = Running::classic(&sites.b, "b", "-i -dev eu0 192.0.2.2 6000 192.0.2.1 6000 10.8.0.2 24");
        let scratch = Scratch::with_resolver("stub-resolver");
        let arguments = format!("-d -n a -i -dev eu0 192.0.2.1 6000 {lie}.example 6000 10.8.0.1 24");
        let a = Running::start(&sites.a, scratch, "a", &[], &arguments.split(' ').collect::<Vec<_>>());
        let line = format!("resolver: {}{words}", if lie == "end" { "" } else { "channel: " });
        let patience = crate::lab::PATIENCE + if lie == "later" { NEXT } else { Duration::ZERO };
        wait_for(&line, patience, || a.log().contains(&line).then_some(()));
        assert_udp(&sites.a, &sites.b, "10.8.0.2");
        let status = a.status();
        assert!(status["pids"]["resolver"].is_null(), "{lie}");
        let reason = status["reason"].to_string();
        assert!(reason.contains("resolver ended: the name of the peer is not looked up again"), "{reason}");
        a.wait_state("up", Duration::from_secs(60));
        assert_eq!(a.count("/worker_restarts"), 0, "{lie}");
    }
}
