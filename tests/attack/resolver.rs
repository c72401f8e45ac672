//! An attacker in the resolver: the confinement stops each attempt of `stub-resolver`, and the supervisor refuses each lie.

use std::process::Command;
use std::time::Duration;

use ethudp_stubs::helper::DENIED;
use ethudp_stubs::resolver::{ATTEMPTS, Outcome};
use ethudp_stubs::{SURVIVED, raw};
use nix::unistd::User;

use crate::lab::{Namespace, Running, Scratch, Sites, assert_udp, built, not_run, wait_for};

/// Version of Landlock since which it knows TCP ports.
const PORTS: i64 = 4;

#[test]
fn resolver_is_denied_unneeded_calls() {
    const VERSION: i64 = 1; // LANDLOCK_CREATE_RULESET_VERSION
    let landlock = raw::call(libc::SYS_landlock_create_ruleset, &[0, 0, VERSION]).unwrap_or(0);
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

#[test]
fn lying_resolver_is_ended() {
    for (lie, words) in [
        ("twice", "answer without a question"),
        ("another", "answer without a question"),
        ("garbage", "message cannot be decoded"),
        ("long", "truncated message"),
        ("end", "ended"),
    ] {
        let sites = Sites::new();
        let _b = Running::classic(&sites.b, "b", "-i -dev eu0 192.0.2.2 6000 192.0.2.1 6000 10.8.0.2 24");
        let scratch = Scratch::with_resolver("stub-resolver");
        let arguments = format!("-d -n a -i -dev eu0 192.0.2.1 6000 {lie}.example 6000 10.8.0.1 24");
        let a = Running::start(&sites.a, scratch, "a", &[], &arguments.split(' ').collect::<Vec<_>>());
        let line = format!("resolver: {}{words}", if lie == "end" { "" } else { "channel: " });
        wait_for(&line, crate::lab::PATIENCE, || a.log().contains(&line).then_some(()));
        assert_udp(&sites.a, &sites.b, "10.8.0.2");
        assert!(a.status()["pids"]["resolver"].is_null(), "{lie}");
        a.wait_state("up", Duration::from_secs(60));
        assert_eq!(a.count("/worker_restarts"), 0, "{lie}");
    }
}
