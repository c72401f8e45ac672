//! An attacker in the helper itself, while it opens and when it serves: `stub-helper` makes each attempt of its table, as
//! root, and the filter or Landlock stops it.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};

use ethudp_stubs::helper::{ATTEMPTS, DENIED, Outcome};
use ethudp_stubs::memory::WAYS;
use ethudp_stubs::{SURVIVED, raw};

use crate::lab::{Namespace, built, not_run};

/// Since when Landlock knows TCP ports.
const PORTS: i64 = 4;

/// What the kernel's Landlock can do; 0 without one.
fn landlock_abi() -> i64 {
    const VERSION: i64 = 1; // LANDLOCK_CREATE_RULESET_VERSION
    raw::call(libc::SYS_landlock_create_ruleset, &[0, 0, VERSION]).unwrap_or(0)
}

fn is(outcome: Outcome, status: ExitStatus) -> bool {
    match outcome {
        Outcome::Works => status.code() == Some(SURVIVED.into()),
        Outcome::Killed => status.signal() == Some(libc::SIGSYS),
        Outcome::Refused | Outcome::RefusedPort => status.code() == Some(DENIED + libc::EACCES),
    }
}

#[test]
fn helper_is_denied_unneeded_calls() {
    let landlock = landlock_abi();
    let known = |outcome| match outcome {
        Outcome::Refused => landlock > 0,
        Outcome::RefusedPort => landlock >= PORTS,
        _ => true,
    };
    let namespace = Namespace::new();
    let mut wrong = Vec::new();
    for attempt in ATTEMPTS {
        let stages = [("opening", attempt.opening), ("serving", attempt.serving)];
        for (stage, expected) in stages {
            if !known(expected) {
                not_run(&format!("attack {}-while-{stage}", attempt.name), "Landlock knows too little here");
                continue;
            }
            let mut command = Command::new(built("stub-helper"));
            command.args([stage, attempt.name]);
            let output = namespace.inside(|| command.output()).unwrap();
            if !is(expected, output.status) {
                let (status, said) = (output.status, String::from_utf8_lossy(&output.stderr));
                wrong.push(format!("{} while {stage}: {status}, not {expected:?} {said}", attempt.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(namespace.interfaces(), ["lo"]);
}

#[test]
fn helper_memory_is_bounded() {
    for (name, _) in WAYS {
        let output = Command::new(built("stub-helper")).args(["limited", name]).output().unwrap();
        let (status, said) = (output.status, String::from_utf8_lossy(&output.stderr));
        assert_eq!(status.code(), Some(DENIED + libc::ENOMEM), "{name}: {status} {said}");
    }
}
