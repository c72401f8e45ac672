//! Files that somebody else could have put there, written or read: named and refused, never waited for.

use std::os::unix::fs::{PermissionsExt, chown};
use std::process::Command;
use std::time::Duration;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::lab::{Background, Running, Scratch, Sites};

const TAP: &str = "mode = \"tap\"\nwire = \"classic\"\n[tap]\nname = \"eu0\"\n\
                   [[path]]\nlocal = \"192.0.2.1:6000\"\nremote = \"192.0.2.2:6000\"\n";
const NOBODY: u32 = 65534;
/// Nothing is waited for.
const AT_ONCE: Duration = Duration::from_secs(3);

/// Runs `up` on a.toml in this directory, which must fail at once with these words.
fn refused(sites: &Sites, scratch: &Scratch, status: i32, words: &str) {
    let file = scratch.path().join("a.toml");
    let run = Background::run(&sites.a, scratch, &[], &["up", file.to_str().unwrap()]);
    assert!(run.status.code() == Some(status) && run.output.contains(words), "{:?}: {}", run.status, run.output);
    assert!(run.took < AT_ONCE, "{:?}", run.took);
}

#[test]
fn a_fifo_in_the_place_of_a_file_is_named_and_not_waited_for() {
    let sites = Sites::new();
    let scratch = Scratch::new();
    let fifo = |name: &str| mkfifo(&scratch.path().join(name), Mode::from_bits_truncate(0o666)).unwrap();
    fifo("a.toml");
    refused(&sites, &scratch, 78, "a.toml: is not a file");
    std::fs::remove_file(scratch.path().join("a.toml")).unwrap();
    fifo("x.key");
    scratch.write("a.toml", &format!("{TAP}[classic]\ncipher = \"aes-128\"\nkey-file = \"x.key\"\n"), 0o644);
    refused(&sites, &scratch, 78, "x.key: is not a file");
    fifo("map");
    scratch.write("a.toml", &format!("{TAP}[rules]\nvlan-map-file = \"map\"\n"), 0o644);
    refused(&sites, &scratch, 78, "map: is not a file");
    fifo(".lock");
    scratch.write("a.toml", TAP, 0o644);
    refused(&sites, &scratch, 1, ".lock: ");
}

#[test]
fn a_command_is_not_run_from_a_file_that_somebody_else_could_have_written() {
    let sites = Sites::new();
    let scratch = Scratch::new();
    let witness = scratch.path().join("witness");
    let text = format!("run = \"touch {}\"\n{TAP}", witness.display());
    let file = scratch.write("a.toml", &text, 0o664);
    refused(
        &sites,
        &scratch,
        78,
        "a.toml: has mode 0664; must be writable for its owner only (`chmod go-w`), as it has `run`",
    );
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
    chown(&file, Some(NOBODY), None).unwrap();
    refused(&sites, &scratch, 78, "a.toml: belongs to user 65534; must belong to root");
    assert!(!witness.exists());
    chown(&file, Some(0), None).unwrap();
    let running = Running::start(&sites.a, scratch, "a", &[], &["up", file.to_str().unwrap()]);
    assert!(witness.exists());
    drop(running);
    // Without a command it is worth a warning.
    let scratch = Scratch::new();
    let file = scratch.write("a.toml", TAP, 0o666);
    let running = Running::start(&sites.a, scratch, "a", &[], &["up", file.to_str().unwrap()]);
    assert!(running.log().contains("warning: ") && running.log().contains("has mode 0666"), "{}", running.log());
}

#[test]
fn a_key_that_another_group_can_read_is_refused() {
    let sites = Sites::new();
    let scratch = Scratch::new();
    let key = scratch.write("x.key", "0123456789abcdef\n", 0o640);
    scratch.write("a.toml", &format!("{TAP}[classic]\ncipher = \"aes-128\"\nkey-file = \"x.key\"\n"), 0o644);
    chown(&key, None, Some(NOBODY)).unwrap();
    refused(
        &sites,
        &scratch,
        78,
        "x.key: can be read by group 65534; must be group root or ethudp (`chgrp`), or mode 0600",
    );
    // The group that the tunnels share may.
    assert!(Command::new("chgrp").arg("ethudp").arg(&key).status().unwrap().success());
    let file = scratch.path().join("a.toml");
    Running::start(&sites.a, scratch, "a", &[], &["up", file.to_str().unwrap()]);
}
