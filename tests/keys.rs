//! `ethudp genkey | pubkey | genpsk`: keys as `wg` has them, by pipes, and nothing that helps to lose one.

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};

use crate::lab::{Scratch, ethudp};

/// Runs the program, or another, with this on its standard input.
fn piped(command: &mut Command, input: &[u8]) -> Output {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Who refuses it may not have read it all.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

fn run(word: &str, input: &[u8]) -> Output {
    piped(&mut ethudp(&Scratch::new(), &[], &[word]), input)
}

fn is_key(output: &Output) -> bool {
    let text = &output.stdout;
    output.status.success() && text.len() == 45 && text.ends_with(b"=\n") && output.stderr.is_empty()
}

#[test]
fn public_keys_match_rfc_7748() {
    // Section 6.1, in base64.
    for (private, public) in [
        ("dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=", "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo="),
        ("XasIfmJKikt54X+Lg4AO5m87sSkmGLb9HC+LJ/+I4Os=", "3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08="),
    ] {
        for input in [format!("{private}\n"), private.to_owned(), format!("{private}\r\n")] {
            let output = run("pubkey", input.as_bytes());
            assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{public}\n"));
        }
    }
}

#[test]
fn new_keys_differ() {
    let (first, second, psk) = (run("genkey", b""), run("genkey", b""), run("genpsk", b""));
    assert!([&first, &second, &psk].iter().all(|output| is_key(output)), "{first:?} {psk:?}");
    assert!(first.stdout != second.stdout && first.stdout != psk.stdout);
    let public = run("pubkey", &first.stdout);
    assert!(is_key(&public) && public.stdout != first.stdout, "{public:?}");
    if let Ok(wg) = Command::new("wg").arg("--version").output() {
        assert!(wg.status.success());
        assert_eq!(piped(Command::new("wg").arg("pubkey"), &first.stdout).stdout, public.stdout);
    }
}

#[test]
fn invalid_key_is_not_echoed() {
    for (input, words) in [
        ("", "standard input: empty; must be 32 bytes in base64"),
        ("short\n", "standard input: 5 characters"),
        ("dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCp=\n", "standard input: not base64 of 32 bytes"),
        (&"A".repeat(100_000), "standard input: 4096 characters"),
    ] {
        let output = run("pubkey", input.as_bytes());
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(1) && output.stdout.is_empty(), "{text}");
        assert!(text.contains(words) && text.lines().count() == 1 && !text.contains("dwdtCnMY"), "{text}");
    }
}

/// Group of user `nobody`.
const OTHER_GROUP: u32 = 65534;

#[test]
fn readable_output_file_is_warned() {
    let scratch = Scratch::new();
    for (word, mode, group, warned) in [
        (
            "genkey",
            0o644,
            0,
            "has mode 0644; must be at most 0640 (`chmod 600`): `up` will refuse this file; run `umask 077`",
        ),
        ("genpsk", 0o660, 0, "has mode 0660; must be at most 0640 (`chmod 600`)"),
        (
            "genkey",
            0o640,
            OTHER_GROUP,
            "is readable for group 65534; must have group root or ethudp (`chgrp`), or mode 0600 (`chmod 600`)",
        ),
        ("genkey", 0o640, 0, ""),
        ("genkey", 0o600, OTHER_GROUP, ""),
        ("pubkey", 0o644, 0, ""),
    ] {
        let path = scratch.path().join("key");
        let file = File::create(&path).unwrap();
        file.set_permissions(Permissions::from_mode(mode)).unwrap();
        std::os::unix::fs::fchown(&file, None, Some(group)).unwrap();
        let mut command = ethudp(&scratch, &[], &[word]);
        let mut child = command.stdin(Stdio::piped()).stdout(file).stderr(Stdio::piped()).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        // genkey reads nothing, and may have ended already.
        let _ = input.write_all(b"dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=");
        drop(input);
        let text = String::from_utf8(child.wait_with_output().unwrap().stderr).unwrap();
        assert!(text.contains(warned) && text.is_empty() == warned.is_empty(), "{word} {mode:o} {group}: {text}");
        assert_eq!(fs::read(&path).unwrap().len(), 45);
    }
}
