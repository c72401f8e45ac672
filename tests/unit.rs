//! What the systemd unit promises, as far as that can be seen without starting it; the rest is in `tests/vm`.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::lab::ETHUDP;

/// The value of a setting of the unit; there must be one.
fn setting(name: &str) -> String {
    let unit = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("dist/ethudp@.service")).unwrap();
    let values: Vec<_> = unit.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('=')).collect();
    assert_eq!(values.len(), 1, "{name}= {values:?}");
    values[0].to_owned()
}

#[test]
fn unit_does_not_retry_permanent_failures() {
    let prevented = setting("RestartPreventExitStatus");
    let prevented: Vec<i32> = prevented.split(' ').map(|status| status.parse().unwrap()).collect();
    for arguments in [&["up", "/nowhere/none.toml"][..], &["up", "--wrong"]] {
        let status = Command::new(ETHUDP).args(arguments).output().unwrap().status;
        assert!(prevented.contains(&status.code().unwrap()), "{arguments:?}: {status}");
    }
    // An attack: `attack::endurance` has the status of a tunnel whose workers crash.
    assert!(prevented.contains(&79));
}

/// systemd would take what stands before the @ for the name of the user, the same for all.
#[test]
fn each_tunnel_has_own_user() {
    for (name, value) in [
        ("DynamicUser", "yes"),
        ("User", "ethudp_%i"),
        ("Group", "ethudp-status"),
        ("RuntimeDirectory", "ethudp/%i"),
        ("RuntimeDirectoryMode", "0750"),
    ] {
        assert_eq!(setting(name), value, "{name}");
    }
}

#[test]
fn unit_limits_resources() {
    for name in ["StartLimitBurst", "TasksMax", "CPUWeight"] {
        assert!(setting(name).parse::<u32>().unwrap() > 0, "{name}");
    }
    assert_ne!(setting("StartLimitIntervalSec"), "0");
    // What fails waits 5 s by itself, so that what is missing may be for hours; what crashes does not, and ends the unit.
    let tries_an_hour = 3600 * 10 / (10 * 5 + 5);
    assert!(setting("StartLimitBurst").parse::<u32>().unwrap() > tries_an_hour && setting("RestartSec") == "500ms");
    // Datagrams that wait in the UDP sockets count (eight paths, 4 MiB requested, which the kernel doubles), and the memory that
    // the worker and the questions of the resolver may have of their own. Supervisor, helper and page tables need less than the rest. `tests/vm` measures less.
    let most: u64 = setting("MemoryMax").strip_suffix('M').unwrap().parse().unwrap();
    let questions = privsep::ipc::MAX_QUESTIONS as u64 * (privsep::ipc::QUESTION_MEMORY >> 20);
    assert!(most >= 8 * 2 * 4 + 64 + questions + 32, "{most}");
    // The end of one process for want of memory must not be that of all.
    assert_eq!(setting("OOMPolicy"), "continue");
    let unit = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("dist/ethudp@.service")).unwrap();
    assert!(!unit.lines().any(|line| line.starts_with("OOMScoreAdjust=")));
}
