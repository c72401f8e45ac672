//! Whatever is wrong ends within a second with one line that names the value and what would be right, and leaves
//! nothing behind.

use std::net::UdpSocket;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::lab::{Background, Namespace, Running, Scratch, Sites, allowed};

const SECOND: Duration = Duration::from_secs(1);

/// Runs the program, which must fail as said.
fn fails(site: &Namespace, arguments: &[&str], prefix: &[&str], status: i32, words: &str) {
    let scratch = Scratch::new();
    let before = site.interfaces();
    let run = Background::run(site, &scratch, prefix, arguments);
    let (output, context) = (&run.output, format!("{arguments:?}: {}", run.output));
    assert_eq!(run.status.code(), Some(status), "{context}");
    // Advice about a key on the command line may come first.
    let lines: Vec<_> = output.lines().filter(|line| !line.contains("warning: secret on the command line")).collect();
    assert!(lines.len() == 1 && lines[0].starts_with("ethudp: ") && lines[0].contains(words), "{context}");
    assert!(run.took < allowed(SECOND), "took {:?}: {context}", run.took);
    assert_eq!(site.interfaces(), before, "{context}");
    let left = scratch.entries().into_iter().filter(|name| !name.starts_with("ethudp")).collect::<Vec<_>>();
    assert!(left.is_empty(), "{left:?} left behind: {context}");
}

#[test]
fn usage_errors_have_status_2() {
    let sites = Sites::new();
    for (line, words) in [
        ("", "no command given"),
        ("frob", "unrecognized subcommand 'frob'"),
        ("up", "<NAME|FILE>"),
        ("convert -B", "option -B: not supported; to measure this machine run `make bench-micro`"),
        ("show --frob", "--frob"),
        ("pubkey a.key", "unexpected argument a.key: pubkey reads standard input; use `ethudp pubkey <a.key`"),
        ("genkey a.key", "genkey writes to standard output; use `ethudp genkey >a.key`"),
        ("help frob", "help \"frob\": unknown command"),
        ("check --as a a.toml b.toml", "--as a: needs exactly one file; check other files without --as"),
        ("show a/b", "\"a/b\""),
        ("-i -enc rot13 192.0.2.1 6000 192.0.2.2 6000 10.8.0.1 24", "\"rot13\": unknown cipher; must be xor"),
        ("-e 192.0.2.1 6000 192.0.2.2 6000 lan -k", "option \"-k\" after the operands: move it"),
        ("-e 192.0.2.1 6000 192.0.2.2 6000 lan 192.0.2.1 6000 192.0.2.2 6001", "two paths have this local address"),
    ] {
        for mode in ["-d", ""] {
            // Also when it would go to the background.
            let words_given: Vec<_> =
                [mode].into_iter().chain(line.split(' ')).filter(|word| !word.is_empty()).collect();
            let classic = line.starts_with('-');
            if mode.is_empty() || classic {
                fails(&sites.a, &words_given, &[], 2, words);
            }
        }
    }
}

#[test]
fn other_failures_have_status_1() {
    let sites = Sites::new();
    sites.a.ip("link add dummy type bridge");
    let taken = sites.a.inside(|| UdpSocket::bind("192.0.2.1:6001").unwrap());
    let tap = "192.0.2.1 6000 192.0.2.2 6000 10.8.0.1 24";
    for (line, words) in [
        ("-b 192.0.2.1 6000 192.0.2.2 6000 br9".into(), "bridge \"br9\": no such interface; create it"),
        ("-b 192.0.2.1 6000 192.0.2.2 6000 wan".into(), "bridge \"wan\": not a bridge"),
        ("-i 192.0.2.1 6001 192.0.2.2 6000 10.8.0.1 24".into(), "`ss -ulpn 'sport = :6001'` shows the process"),
        ("-i 192.0.2.1 6000 198.51.100.1 6000 10.8.0.1 24".into(), "remote address 198.51.100.1:6000: no route"),
        ("-i 192.0.2.1 6000 2001:db8::2 6000 10.8.0.1 24".into(), "use addresses of one family"),
        ("-i 192.0.2.1 6000 no-such-name.invalid 6000 10.8.0.1 24".into(), "remote name \"no-such-name.invalid\""),
        (format!("-i -dev wan {tap}"), "interface \"wan\": already exists"),
        (format!("--user no-such-user -i {tap}"), "user \"no-such-user\": does not exist; create it with `useradd"),
        (format!("--user root -i {tap}"), "must be an unprivileged user"),
        ("show none".into(), "tunnel \"none\": not running"),
    ] {
        fails(&sites.a, &line.split(' ').collect::<Vec<_>>(), &[], 1, words);
        if line.starts_with('-') {
            let foreground: Vec<_> = ["-d"].into_iter().chain(line.split(' ')).collect();
            fails(&sites.a, &foreground, &[], 1, words);
        }
    }
    drop(taken);
    let other_user = ["--reuid=nobody", "--regid=nogroup", "--clear-groups"];
    let arguments: Vec<_> = ["-d", "-i"].into_iter().chain(tap.split(' ')).collect();
    fails(&sites.a, &arguments, &other_user, 1, "no privilege: start as root, or with CAP_NET_ADMIN");
    // Of a tunnel by file that is said before what this user cannot read.
    let scratch = Scratch::new();
    scratch.write("a.key", "0123456789abcdef\n", 0o600);
    let keyed = "mode = \"tap\"\nwire = \"classic\"\n[[path]]\nlocal = \"192.0.2.1:6000\"\nremote = \"192.0.2.2:6000\"\n\
                 [classic]\ncipher = \"aes-128\"\nkey-file = \"a.key\"\n";
    let file = scratch.write("a.toml", keyed, 0o644);
    let file = file.to_str().unwrap();
    let by_unit = " or `sudo systemctl start ethudp@site`";
    for (tunnel, unit) in [(file, ""), ("site", by_unit)] {
        let words =
            format!("lacks CAP_NET_ADMIN and CAP_NET_RAW; start the tunnel with `sudo ethudp up {tunnel}`{unit}");
        fails(&sites.a, &["up", tunnel], &other_user, 1, &words);
    }
}

#[test]
fn permanent_failures_have_status_78() {
    let sites = Sites::new();
    sites.a.ip("link add dummy type veth peer name other");
    sites.a.ip("link set dummy up");
    for (line, words) in [
        ("up none.toml", "file none.toml"),
        ("up none", "file /etc/ethudp/none.toml: No such file or directory (os error 2); give a file name"),
        ("up ./.toml", "file ./.toml"),
        ("-t 192.0.2.1 6000 192.0.2.2 6000 dummy udp porg 9", "filter \"udp porg 9\": "),
    ] {
        fails(&sites.a, &line.split(' ').collect::<Vec<_>>(), &[], 78, words);
    }
    let scratch = Scratch::new();
    let mirror =
        "mode = \"mirror\"\nwire = \"classic\"\n[[path]]\nlocal = \"192.0.2.1:6000\"\nremote = \"192.0.2.2:6000\"\n";
    for (content, words, status) in [
        ("mode = \"tap".into(), "line 1: ", 78),
        (mirror.to_owned(), "[mirror] is missing", 78),
        (
            format!("{mirror}[classic]\ncipher = \"xor\"\nkey-file = \"none\"\n[mirror]\ninterface = \"dummy\"\n"),
            "key file ",
            78,
        ),
        // These may come later than we do.
        (
            format!("{mirror}[mirror]\ninterface = \"eth9\"\nfilter = \"udp\"\n"),
            "interface \"eth9\": no such interface",
            1,
        ),
    ] {
        let file = scratch.write("a.toml", &content, 0o644);
        fails(&sites.a, &["up", file.to_str().unwrap()], &[], status, words);
    }
}

#[test]
fn convert_overwrites_no_file() {
    let sites = Sites::new();
    let scratch = Scratch::new();
    let convert = |words: &str| {
        let arguments = format!("{words} -k secret -i 192.0.2.1 6000 192.0.2.2 6000 10.8.0.1 24");
        Background::run(&sites.a, &scratch, &[], &arguments.split(' ').collect::<Vec<_>>())
    };
    for program in ["EthUDP", "ethudp", "/usr/local/bin/EthUDP"] {
        let run = convert(&format!("convert {program}"));
        assert!(run.status.success() && run.output.contains("mode = \"tap\""), "{program}: {}", run.output);
    }
    let directory = format!("convert --dir {}", scratch.path().display());
    scratch.close();
    assert!(convert(&directory).status.success());
    let again = convert(&directory);
    assert_eq!(again.status.code(), Some(1));
    let words = "port-6000.key: File exists (os error 17); remove it or choose another --dir\n";
    assert!(again.output.ends_with(words) && again.output.lines().count() == 1, "{}", again.output);
}

#[test]
fn help_and_version_have_synonyms() {
    let (sites, scratch) = (Sites::new(), Scratch::new());
    let run = |word: &str| {
        let run = Background::run(&sites.a, &scratch, &[], &[word]);
        assert!(run.status.success(), "{word}: {}", run.output);
        run.output
    };
    let (help, version) = (run("--help"), run("--version"));
    for words in ["ethudp -e [options]", "-u ", "-enc CIPHER", "check ", "convert ", "show ", "up "] {
        assert!(help.contains(words), "{words}: {help}");
    }
    assert_eq!(version, format!("ethudp {}\n", env!("CARGO_PKG_VERSION")));
    for (command, words) in [("show", "--json"), ("check", "--as <NAME>"), ("init", "--peer <LINE>")] {
        let help = Background::run(&sites.a, &scratch, &[], &["help", command]).output;
        assert!(help.contains(words) && help.contains(&format!("ethudp {command}")), "{help}");
    }
    let tip = Background::run(&sites.a, &scratch, &[], &["show", "--frob"]).output;
    assert!(!tip.contains("tip: to pass"), "{tip}");
    assert!(["-h", "help"].iter().all(|word| run(word) == help));
    assert!(["-v", "-V", "version"].iter().all(|word| run(word) == version));
}

/// Runs the program behind `script` in a mount namespace of its own.
fn run_behind(site: &Namespace, scratch: &Scratch, script: &str, arguments: &str) -> (Option<i32>, String) {
    let script = format!("{script} && exec \"$@\"");
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", &script, "sh", crate::lab::ETHUDP]);
    command.args(arguments.split(' ')).env("RUNTIME_DIRECTORY", scratch.path()).stderr(Stdio::piped());
    let output = site.spawn(&mut command).wait_with_output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn missing_tun_device_is_named() {
    let sites = Sites::new();
    let arguments = "-d -i 192.0.2.1 6000 192.0.2.2 6000 10.8.0.1 24";
    let (status, text) = run_behind(&sites.a, &Scratch::new(), "mount -t tmpfs none /dev/net", arguments);
    assert_eq!((status, text.lines().count()), (Some(1), 1), "{text}");
    assert!(text.contains("/dev/net/tun: does not exist; load the kernel module with `modprobe tun`"), "{text}");
}

#[test]
fn silent_resolver_fails_after_ten_seconds() {
    let sites = Sites::new();
    let scratch = Scratch::new();
    // A name server that hears and does not answer.
    let _silent = sites.b.inside(|| UdpSocket::bind("192.0.2.2:53").unwrap());
    let file = scratch.write("resolv.conf", "nameserver 192.0.2.2\noptions timeout:30\n", 0o644);
    let script = format!("mount --bind {} /etc/resolv.conf", file.display());
    let start = Instant::now();
    let arguments = "-d -i 192.0.2.1 6000 peer.example 6000 10.8.0.1 24";
    let (status, text) = run_behind(&sites.a, &scratch, &script, arguments);
    assert_eq!((status, text.lines().count()), (Some(1), 1), "{text}");
    assert!(
        text.contains("ethudp: port-6000: remote name \"peer.example\": no answer from the name servers within 10 s"),
        "{text}"
    );
    assert!((10..12).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
}

#[test]
fn duplicate_tunnel_name_is_refused() {
    let sites = Sites::new();
    let running = Running::classic(&sites.a, "a", "-i -dev eu0 192.0.2.1 6000 192.0.2.2 6000 10.8.0.1 24");
    let arguments = "-d -n a -i -dev eu1 192.0.2.1 6001 192.0.2.2 6001 10.8.1.1 24";
    let run = Background::run(&sites.a, &running.scratch, &[], &arguments.split(' ').collect::<Vec<_>>());
    assert_eq!(run.status.code(), Some(1));
    assert!(run.output.contains("tunnel \"a\": already running"), "{}", run.output);
    assert_eq!(running.status()["name"], "a");
}

#[test]
fn readable_keys_are_refused() {
    let sites = Sites::new();
    let scratch = Scratch::new();
    let file = scratch.write(
        "a.toml",
        "mode = \"tap\"\nwire = \"classic\"\n[[path]]\nlocal = \"192.0.2.1:6000\"\nremote = \"192.0.2.2:6000\"\n\
         [classic]\ncipher = \"aes-128\"\nkey-file = \"a.key\"\n",
        0o644,
    );
    let file = file.to_str().unwrap();
    let check = |content: &str, mode| {
        scratch.write("a.key", content, mode);
        Background::run(&sites.a, &scratch, &[], &["check", file])
    };
    let good = check("secret\n", 0o640);
    assert!(good.status.success() && good.output.contains("ok"), "{}", good.output);
    for (content, mode, words) in [
        ("secret\n", 0o644, "has mode 0644; must be at most 0640"),
        ("\n", 0o600, "empty key"),
        (&"x".repeat(2048), 0o600, "key of 2048 bytes; must have 1 to 2047"),
    ] {
        let bad = check(content, mode);
        assert_eq!(bad.status.code(), Some(78));
        assert!(bad.output.contains(words) && bad.output.lines().count() == 1, "{}", bad.output);
    }
}

#[test]
fn unusable_runtime_directory_is_named() {
    let sites = Sites::new();
    let scratch = Scratch::new();
    let run = |directory: &str, arguments: &str| {
        let mut command = Command::new(crate::lab::ETHUDP);
        command.args(arguments.split(' ')).env("RUNTIME_DIRECTORY", directory).stderr(Stdio::piped());
        let output = sites.a.spawn(&mut command).wait_with_output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let tap = "-d -i 192.0.2.1 6000 192.0.2.2 6000 10.8.0.1 24";
    for arguments in [tap, "show"] {
        let (status, text) = run("run/ethudp", arguments);
        assert_eq!(status, Some(78), "{text}");
        assert!(text.contains("RUNTIME_DIRECTORY=run/ethudp: must be an absolute path"), "{text}");
    }
    let missing = scratch.path().join("not-there/ethudp");
    let (status, text) = run(missing.to_str().unwrap(), tap);
    assert!(status == Some(1) && text.contains("not-there/ethudp: No such file"), "{text}");
    assert!(text.contains("create /run/ethudp with `systemd-tmpfiles --create`"), "{text}");
}
