//! Files that another user could have put there, written or read: named and refused, never waited for.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::lab::{Background, Running, Scratch, Sites, allowed};

const TAP: &str = "mode = \"tap\"\nwire = \"classic\"\n[tap]\nname = \"eu0\"\n\
                   [[path]]\nlocal = \"192.0.2.1:6000\"\nremote = \"192.0.2.2:6000\"\n";
const OTHER_USER: u32 = 65534;
/// Nothing is waited for.
const AT_ONCE: Duration = Duration::from_secs(3);

/// Runs `up` on a.toml in this directory, which must fail at once with these words.
fn refused(sites: &Sites, scratch: &Scratch, status: i32, words: &str) {
    let file = scratch.path().join("a.toml");
    let run = Background::run(&sites.a, scratch, &[], &["up", file.to_str().unwrap()]);
    assert!(run.status.code() == Some(status) && run.output.contains(words), "{:?}: {}", run.status, run.output);
    assert!(run.took < allowed(AT_ONCE), "{:?}", run.took);
}

#[test]
fn fifo_as_file_is_refused() {
    let sites = Sites::new();
    let scratch = Scratch::new();
    let fifo = |name: &str| mkfifo(&scratch.path().join(name), Mode::from_bits_truncate(0o666)).unwrap();
    fifo("a.toml");
    refused(&sites, &scratch, 78, "a.toml: not a regular file");
    std::fs::remove_file(scratch.path().join("a.toml")).unwrap();
    fifo("x.key");
    scratch.write("a.toml", &format!("{TAP}[classic]\ncipher = \"aes-128\"\nkey-file = \"x.key\"\n"), 0o644);
    refused(&sites, &scratch, 78, "x.key: not a regular file");
    fifo("map");
    scratch.write("a.toml", &format!("{TAP}[rules]\nvlan-map-file = \"map\"\n"), 0o644);
    refused(&sites, &scratch, 78, "map: not a regular file");
    fifo(".lock");
    scratch.write("a.toml", TAP, 0o644);
    refused(&sites, &scratch, 1, ".lock: ");
}

#[test]
fn command_needs_trusted_file() {
    let sites = Sites::new();
    let scratch = Scratch::new();
    let witness = scratch.path().join("witness");
    let text = format!("run = \"touch {}\"\n{TAP}", witness.display());
    let file = scratch.write("a.toml", &text, 0o664);
    refused(
        &sites,
        &scratch,
        78,
        "a.toml: has mode 0664; must be writable for its owner only (`chmod go-w`), because it contains `run`",
    );
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
    chown(&file, Some(OTHER_USER), None).unwrap();
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
fn group_readable_key_is_refused() {
    let sites = Sites::new();
    let scratch = Scratch::new();
    let key = scratch.write("x.key", "0123456789abcdef\n", 0o640);
    scratch.write("a.toml", &format!("{TAP}[classic]\ncipher = \"aes-128\"\nkey-file = \"x.key\"\n"), 0o644);
    chown(&key, None, Some(OTHER_USER)).unwrap();
    refused(
        &sites,
        &scratch,
        78,
        "x.key: is readable for group 65534; must have group root or ethudp (`chgrp`), or mode 0600",
    );
    // The group that the tunnels share may.
    assert!(Command::new("chgrp").arg("ethudp").arg(&key).status().unwrap().success());
    let file = scratch.path().join("a.toml");
    Running::start(&sites.a, scratch, "a", &[], &["up", file.to_str().unwrap()]);
}

/// What a program's messages may not have in them.
fn is_plain(text: &str) -> bool {
    text.chars().all(|c| c == '\n' || !c.is_control() && !"\u{202e}\u{200b}\u{feff}".contains(c))
}

/// Runs the program with these arguments, which must end at once.
fn run(sites: &Sites, scratch: &Scratch, arguments: &[&str]) -> Background {
    let run = Background::run(&sites.a, scratch, &[], arguments);
    assert!(run.took < AT_ONCE, "{arguments:?}: {:?}", run.took);
    run
}

#[test]
fn writable_directory_gets_no_file() {
    let (sites, scratch) = (Sites::new(), Scratch::new());
    let directory = scratch.path().join("d");
    fs::create_dir(&directory).unwrap();
    let d = directory.to_str().unwrap();
    let convert = "convert -k secret -i 192.0.2.1 6000 192.0.2.2 6000 10.8.0.1 24";
    let (init, dir) = (vec!["init", "t", "--dir", d], vec!["--dir", d]);
    let convert: Vec<_> = convert.split(' ').take(1).chain(dir).chain(convert.split(' ').skip(1)).collect();
    for (mode, owner, words) in [
        (0o775, 0, "has mode 0775, so other users can replace its files; must be writable for its owner only"),
        // Who may make a file there can put one in the way, though not remove one.
        (0o1777, 0, "has mode 1777"),
        (0o755, OTHER_USER, "belongs to user 65534, who can replace its files; must belong to root"),
    ] {
        chown(&directory, Some(owner), None).unwrap();
        fs::set_permissions(&directory, PermissionsExt::from_mode(mode)).unwrap();
        for arguments in [&init, &convert] {
            let run = run(&sites, &scratch, arguments);
            assert!(run.status.code() == Some(1) && run.output.contains(words), "{arguments:?}: {}", run.output);
            assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);
        }
    }
    let file = scratch.write("a.toml", TAP, 0o644);
    let text = run(&sites, &scratch, &["check", file.to_str().unwrap()]).output;
    assert!(
        text.contains("warning: ") && text.contains("has mode 0777, so other users can replace its files"),
        "{text}"
    );
}

#[test]
fn init_follows_no_foreign_link() {
    let (sites, scratch) = (Sites::new(), Scratch::new());
    let (directory, other) = (scratch.path().join("d"), scratch.path().join("other"));
    for (path, end) in [(&directory, 1), (&other, 2)] {
        fs::create_dir(path).unwrap();
        let (address, d) = (format!("10.8.0.{end}/24"), path.to_str().unwrap());
        let arguments = ["init", "t", "--address", &address, "--endpoint", "198.51.100.7", "--dir", d];
        assert!(run(&sites, &scratch, &arguments).status.success());
    }
    let text = fs::read_to_string(other.join("t.toml")).unwrap();
    let line =
        text.lines().find_map(|line| line.strip_prefix("# ").filter(|line| line.starts_with("ethudp2:"))).unwrap();
    // The scratch directory is writable for all.
    fs::rename(directory.join("t.toml"), scratch.path().join("moved.toml")).unwrap();
    symlink(scratch.path().join("moved.toml"), directory.join("t.toml")).unwrap();
    let run = run(&sites, &scratch, &["init", "t", "--peer", line, "--dir", directory.to_str().unwrap()]);
    assert!(run.status.code() == Some(1) && run.output.contains("has mode 0777"), "{}", run.output);
}

#[test]
fn exchangeable_runtime_directory_is_refused() {
    let (sites, scratch) = (Sites::new(), Scratch::new());
    let file = scratch.write("a.toml", TAP, 0o644);
    let made = scratch.path().join("run");
    let mut command = crate::lab::ethudp(&scratch, &[], &["up", file.to_str().unwrap()]);
    command.env("RUNTIME_DIRECTORY", &made).stderr(std::process::Stdio::piped());
    let output = sites.a.spawn(&mut command).wait_with_output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        output.status.code() == Some(1) && text.contains("has mode 0777, so other users can replace its files"),
        "{text}"
    );
    assert!(!made.exists());
}

/// Every file that a command opens as root, in whose place there is something that is read without end, or never.
#[test]
fn commands_read_regular_files_only() {
    let (sites, scratch) = (Sites::new(), Scratch::new());
    let directory = scratch.path().join("d");
    fs::create_dir(&directory).unwrap();
    let own = |name: &str| directory.join(name);
    let secure = "mode = \"tap\"\n[secure]\nprivate-key-file = \"x.key\"\npsk-file = \"x.psk\"\n\
                  peer-public-key = \"hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=\"\n\
                  [[path]]\nlocal = \"192.0.2.1:6000\"\nremote = \"any\"\n";
    let classic = |more: &str| format!("{TAP}{more}");
    let files = [
        ("t.toml", String::new()),
        ("x.key", secure.into()),
        ("x.key", classic("[classic]\ncipher = \"xor\"\nkey-file = \"x.key\"\n")),
        ("x.password", classic("[classic]\npassword-file = \"x.password\"\n")),
        ("map", classic("[rules]\nvlan-map-file = \"map\"\n")),
    ];
    let fifo = |path: &Path| mkfifo(path, Mode::from_bits_truncate(0o600)).unwrap();
    let zero = |path: &Path| symlink("/dev/zero", path).unwrap();
    let kinds: [&dyn Fn(&Path); 2] = [&fifo, &zero];
    for (name, text) in files {
        for kind in kinds {
            if name != "t.toml" {
                fs::write(own("t.toml"), &text).unwrap();
            }
            kind(&own(name));
            let (file, dir) = (own("t.toml"), directory.to_str().unwrap());
            let init = [
                "init",
                "t",
                "--peer",
                "ethudp2:AKD5i3bLDuEc3uDhP6kN5pYLeXVNQPslOpEUhyfasEV9Wy6RwH06SPYAAAAABAoIAAEYETE5OC41MS4xMDAuNzo2MDAw3K4Npw",
                "--dir",
                dir,
            ];
            for arguments in [&["check", file.to_str().unwrap()][..], &["up", file.to_str().unwrap()], &init] {
                let run = run(&sites, &scratch, arguments);
                let is_init = arguments[0] == "init";
                let said = run.output.contains("not a regular file") || is_init && run.status.code() == Some(1);
                assert!(said && !run.status.success(), "{name} {arguments:?}: {}", run.output);
            }
            fs::remove_file(own(name)).unwrap();
            let _ = fs::remove_file(own("t.toml"));
        }
    }
    // What is there once, and is something else when it is looked at again.
    let stop = AtomicBool::new(false);
    let (file, pipe, good) = (own("t.toml"), own("pipe"), own("good"));
    fs::write(&file, TAP).unwrap();
    fifo(&pipe);
    fs::write(&good, TAP).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                for other in [&pipe, &good] {
                    let next = own("next");
                    let _ = fs::hard_link(other, &next).and_then(|()| fs::rename(&next, &file));
                }
            }
        });
        for _ in 0..20 {
            run(&sites, &scratch, &["check", file.to_str().unwrap()]);
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn invalid_map_is_not_printed() {
    let (sites, scratch) = (Sites::new(), Scratch::new());
    let shadow = scratch.write("shadow", "root:$6$salt$hash:19000:0:99999:7:::\n", 0o600);
    let text = format!("{TAP}[rules]\nvlan-map-file = {shadow:?}\n");
    let file = scratch.write("a.toml", &text, 0o644);
    let file = file.to_str().unwrap();
    let classic = format!("-d -i -map {} 192.0.2.1 6000 192.0.2.2 6000 10.8.0.1 24", shadow.display());
    let classic: Vec<_> = classic.split(' ').collect();
    for arguments in [&["check", file][..], &["up", file], &["check", shadow.to_str().unwrap()], &classic] {
        let run = run(&sites, &scratch, arguments);
        assert!(!run.status.success() && !run.output.contains("salt"), "{arguments:?}: {}", run.output);
    }
}

#[test]
fn messages_have_no_control_characters() {
    let (sites, scratch) = (Sites::new(), Scratch::new());
    let odd = "\u{1b}[2J\u{202e}\u{200b}x";
    let texts = [
        format!("{TAP}[classic]\n\"\\u001b[2J\\u202E\" = 1\n"),
        format!("{TAP}[classic]\ncipher = \"{odd}\"\n").replace('\u{1b}', "\\u001b"),
        TAP.replace("eu0", "\\u001b[2J"),
        TAP.replace("192.0.2.1", "\\u001b[2J"),
        format!("{TAP}[classic]\ncipher = \"xor\"\nkey-file = \"\\u001b[2J\\u202E\"\n"),
        format!("{TAP}[rules]\nvlan-map-file = \"\\u009b2J\"\n"),
        TAP.into(),
    ];
    for text in &texts {
        // The file's own path also has it.
        let file = scratch.write(&format!("{odd}.toml"), text, 0o644);
        for word in ["check", "up"] {
            if word == "up" && text == TAP {
                continue;
            }
            let run = run(&sites, &scratch, &[word, file.to_str().unwrap()]);
            assert!(is_plain(&run.output) && !run.output.is_empty(), "{:?}", run.output);
        }
    }
    for arguments in [
        &["check", odd][..],
        &["up", odd],
        &["show", odd],
        &["init", odd],
        &["init", "t", "--peer", odd],
        &["init", "t", "--endpoint", odd],
        &["init", "t", "--dir", odd],
        &["convert", "--dir", odd, "-k", "x", "-i", "192.0.2.1", "6000", "192.0.2.2", "6000", "10.8.0.1", "24"],
        &["-e", odd],
        &[odd],
    ] {
        let run = run(&sites, &scratch, arguments);
        assert!(!run.status.success() && is_plain(&run.output), "{arguments:?}: {:?}", run.output);
    }
}

#[test]
fn convert_is_atomic() {
    let (sites, scratch) = (Sites::new(), Scratch::new());
    scratch.close();
    scratch.write("port-6000.password", "another", 0o600);
    let words = format!(
        "convert --dir {} -k secret -p word -i 192.0.2.1 6000 192.0.2.2 6000 10.8.0.1 24",
        scratch.path().display()
    );
    let run = run(&sites, &scratch, &words.split(' ').collect::<Vec<_>>());
    assert!(run.status.code() == Some(1) && run.output.contains("port-6000.password: File exists"), "{}", run.output);
    assert!(!scratch.path().join("port-6000.key").exists());
    assert_eq!(fs::read_to_string(scratch.path().join("port-6000.password")).unwrap(), "another");
}

/// An end of a line is LF, or CR LF as an editor of another system writes it.
#[test]
fn classic_secret_loses_one_newline() {
    let (sites, scratch) = (Sites::new(), Scratch::new());
    let text = format!("{TAP}[classic]\ncipher = \"aes-128\"\nkey-file = \"x.key\"\n");
    let file = scratch.write("a.toml", &text, 0o644);
    for (key, length) in [("short", 5), ("short\n", 5), ("short\r\n", 5), ("short\r\r\n", 6), ("short\n\n", 6)] {
        scratch.write("x.key", key, 0o600);
        let run = run(&sites, &scratch, &["check", file.to_str().unwrap()]);
        assert!(run.output.contains(&format!("key has {length} bytes")), "{key:?}: {}", run.output);
    }
}
