//! `ethudp check`: what is wrong, and on which line; what is worth a warning; several files at once.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::lab::{Background, ETHUDP, Running, Scratch, Sites, libpcap};

const MIRROR: &str = "mode = \"mirror\"\nwire = \"classic\"\n[mirror]\ninterface = \"not-here-yet\"\nfilter = \"udp port 514\"\n\
                      [[path]]\nlocal = \"192.0.2.1:6000\"\nremote = \"192.0.2.2:6000\"\n";
const TAP: &str = "mode = \"tap\"\nwire = \"classic\"\n[tap]\naddress = [\"10.8.0.1/24\"]\n\
                   [[path]]\nlocal = \"192.0.2.1:6000\"\nremote = \"192.0.2.2:6000\"\n";

/// Checks files of these names and contents and returns the exit status and the lines.
fn check(files: &[(&str, &str)]) -> (Option<i32>, String) {
    check_with("0123456789abcdef\n", files)
}

/// The same beside a.key with this in it.
fn check_with(key: &str, files: &[(&str, &str)]) -> (Option<i32>, String) {
    let scratch = Scratch::new();
    scratch.write("a.key", key, 0o600);
    let paths: Vec<_> = files.iter().map(|(name, content)| scratch.write(name, content, 0o644)).collect();
    let mut arguments = vec!["check"];
    arguments.extend(paths.iter().map(|path| path.to_str().unwrap()));
    let run = Background::run(&Sites::new().a, &scratch, &[], &arguments);
    (run.status.code(), run.output)
}

#[test]
fn check_reports_every_file() {
    let bad = TAP.replace("10.8.0.1/24", "10.8.0.1");
    let (status, text) = check(&[("a.toml", TAP), ("bad.toml", &bad), ("c.toml", TAP)]);
    assert_eq!(status, Some(78), "{text}");
    assert!(text.contains("/a.toml: tunnel \"a\", mode tap, wire classic: ok\n"), "{text}");
    assert!(text.contains("/c.toml: tunnel \"c\", mode tap, wire classic: ok\n"), "{text}");
    assert!(text.contains("/bad.toml: line 4: tap.address \"10.8.0.1\": must be ADDRESS/PREFIX"), "{text}");
    assert_eq!(check(&[("a.toml", TAP)]).0, Some(0));
}

#[test]
fn check_finds_start_failures() {
    let slave = format!("{TAP}[[path]]\nlocal = \"192.0.2.1:6000\"\nremote = \"192.0.2.2:6001\"\n");
    for (content, words) in [
        (slave, "line 9: path 192.0.2.1:6000: two paths have this local address"),
        (MIRROR.replace("port", "porg"), "filter \"udp porg 514\": "),
    ] {
        let (status, text) = check(&[("a.toml", &content)]);
        assert!(status == Some(78) && text.contains(words), "{text}");
    }
    let (status, text) = check(&[("a.toml", MIRROR)]);
    assert!(status == Some(0) && text.contains("mode mirror"), "{text}");
}

#[test]
fn missing_libpcap_is_reported() {
    let scratch = Scratch::new();
    let (none, real) = (scratch.write("none", "no library\n", 0o644), libpcap());
    let check = |content: &str| {
        let file = scratch.write("m.toml", content, 0o644);
        let script = format!("mount --bind {} {real} && exec {ETHUDP} check {}", none.display(), file.display());
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", &script]);
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (status, text) = check(MIRROR);
    let words = "m.toml: libpcap, which compiles mirror.filter, cannot be loaded: ";
    assert!(status == Some(78) && text.contains(words) && text.contains("install `libpcap0.8`"), "{text}");
    let (status, text) = check(&MIRROR.replace("filter = \"udp port 514\"\n", ""));
    assert!(status == Some(0) && !text.contains("libpcap"), "{text}");
}

#[test]
fn check_warns_of_likely_mistakes() {
    let aes = |key: &str| format!("{TAP}[classic]\ncipher = \"aes-128\"\nkey-file = \"{key}\"\n");
    for (content, words) in [
        (TAP.replace("192.0.2.2:6000", "any"), "path 192.0.2.1:6000: any sender of a datagram becomes the peer"),
        (aes("a.key"), "a.key: not readable for the user of ethudp@a: add a drop-in with `LoadCredential=a.key:/"),
    ] {
        let (status, text) = check(&[("a.toml", &content)]);
        assert!(status == Some(0) && text.contains(words), "{text}");
    }
    assert!(!check(&[("a.toml", TAP)]).1.contains("LoadCredential"));
}

/// A tool validates a copy, of another name and in another place than the file will have.
#[test]
fn check_as_checks_a_copy() {
    let (sites, scratch) = (Sites::new(), Scratch::new());
    let aes = format!("{TAP}[classic]\ncipher = \"aes-128\"\nkey-file = \"site.key\"\n");
    for (directory, key) in [("etc", true), ("tool", false)] {
        fs::create_dir(scratch.path().join(directory)).unwrap();
        if key {
            scratch.write(&format!("{directory}/site.key"), "0123456789abcdef\n", 0o600);
        }
    }
    let etc = scratch.path().join("etc");
    let etc = etc.to_str().unwrap();
    for (copy, name) in [
        ("tool/source", "source"),
        ("tool/.source.toml", "source"),
        ("etc/site.toml20241201-7-x3f", "site"),
        ("tool/siteXXq1.toml", "siteXXq1"),
    ] {
        let file = scratch.write(copy, &aes, 0o600);
        let file = file.to_str().unwrap();
        let check = |more: &[&str]| {
            let arguments = [&["check"], more, &[file]].concat();
            let run = Background::run(&sites.a, &scratch, &[], &arguments);
            (run.status.code(), run.output)
        };
        let (status, text) = check(&["--as", "site", "--dir", etc]);
        assert!(status == Some(0) && text.contains("tunnel \"site\", mode tap, wire classic: ok\n"), "{text}");
        let (status, text) = check(&["--dir", etc]);
        assert!(status == Some(0) && text.contains(&format!("tunnel {name:?}")), "{text}");
        let (status, text) = check(&[]);
        // Without them it is the file itself, by its own name and with the keys beside it.
        let words = if copy.contains("/.") { "tunnel name \".source\"" } else { "key file " };
        let beside = copy.starts_with("etc");
        assert!(status == Some(if beside { 0 } else { 78 }) && text.contains(words) != beside, "{text}");
        let (status, text) = check(&["--as", "a/b"]);
        assert!(status == Some(2) && text.contains("tunnel name \"a/b\""), "{text}");
    }
}

/// Where the unit would fail, in a mount namespace with an /etc/ethudp of its own.
#[test]
fn check_fails_where_the_unit_would() {
    let (sites, scratch) = (Sites::new(), Scratch::new());
    let aes = |key: &str| format!("{TAP}[classic]\ncipher = \"aes-128\"\nkey-file = \"{key}\"\n");
    let long = "x".repeat(25);
    let map = format!("{TAP}[rules]\nvlan-map-file = \"map\"\n");
    for (name, arguments, text, status, words) in [
        (
            "site",
            "site",
            aes("site.key"),
            78,
            "site.key: not readable for the user of ethudp@site: add the drop-in ethudp-cred",
        ),
        (
            "copy",
            "--as site /etc/ethudp/copy.toml",
            aes("site.key"),
            78,
            "site.key: not readable for the user of ethudp@site",
        ),
        ("site", "site", TAP.into(), 0, "mode tap, wire classic: ok"),
        ("site", "/etc/ethudp/../ethudp/site.toml", TAP.into(), 0, "mode tap, wire classic: ok"),
        (&long, &long, TAP.into(), 78, "must be 1 to 24 letters, digits, '-' and '_'"),
        ("copy", "--as a.b /etc/ethudp/copy.toml", TAP.into(), 78, "a drop-in with `User=ethudp_a_b`"),
        ("site", "site", map, 78, "map: not readable for the unit's user"),
        // Keys of /etc/ethudp are those of its files alone.
        (
            "site",
            "/mnt/copy.toml",
            aes("site.key"),
            78,
            "key file /mnt/site.key: No such file or directory (os error 2)",
        ),
        (
            "site",
            "/mnt/copy.toml",
            aes("site.key"),
            78,
            "; the same file is correct in /etc/ethudp: `ethudp check --as \
          copy FILE` checks",
        ),
        ("site", "--as site /mnt/copy.toml", aes("site.key"), 78, "site.key: not readable for the user of ethudp@site"),
    ] {
        let source = scratch.write("source.toml", &text, 0o644);
        let etc = scratch.path().join("etc");
        let script = format!(
            "mount -t tmpfs none /run && mkdir -p /run/systemd/system && rm -rf {etc} && cp -a /etc {etc} && \
             mount --bind {etc} /etc && rm -rf /etc/ethudp /etc/systemd/system/ethudp@* && mkdir /etc/ethudp && umask 077 && \
             echo 0123456789abcdef >/etc/ethudp/site.key && echo 1 2 >/etc/ethudp/map && \
             install -m 644 {source} /etc/ethudp/{name}.toml && mount -t tmpfs none /mnt && cp {source} /mnt/copy.toml && exec \"$@\"",
            etc = etc.display(),
            source = source.display()
        );
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", &script, "sh", crate::lab::ETHUDP, "check"]);
        command.args(arguments.split(' ')).stdout(Stdio::piped()).stderr(Stdio::piped());
        let output = sites.a.spawn(&mut command).wait_with_output().unwrap();
        let text = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap()).concat();
        assert!(output.status.code() == Some(status) && text.contains(words), "{arguments}: {text}");
    }
}

/// What is wrong at the start is wrong in the check: the file's own name, and `run` in a file that others can write.
#[test]
fn check_fails_where_up_does() {
    let (sites, scratch) = (Sites::new(), Scratch::new());
    let run = format!("run = \"true\"\n{TAP}");
    for (name, content, mode, words) in [
        (
            "a b.toml",
            TAP,
            0o644,
            "must be 1 to 64 bytes without '/' and space, and not begin with '.' or '-'; the unit takes 1 to 24 letters",
        ),
        (".a.toml", TAP, 0o644, "tunnel name \".a\": must be 1 to 64 bytes"),
        (
            "a.toml",
            &run,
            0o666,
            "a.toml: has mode 0666; must be writable for its owner only (`chmod go-w`), because it contains `run`",
        ),
    ] {
        let file = scratch.write(name, content, mode);
        for command in ["up", "check"] {
            let run = Background::run(&sites.a, &scratch, &[], &[command, file.to_str().unwrap()]);
            assert!(run.status.code() == Some(78) && run.output.contains(words), "{command} {name}: {}", run.output);
        }
        // A copy that a tool validates has neither name nor mode of its target.
        let run = Background::run(&sites.a, &scratch, &[], &["check", "--as", "a", file.to_str().unwrap()]);
        assert!(!run.output.contains(words), "{name}: {}", run.output);
    }
    let file = scratch.write("a.toml", TAP, 0o666);
    let run = Background::run(&sites.a, &scratch, &[], &["check", file.to_str().unwrap()]);
    assert!(run.status.success() && run.output.contains("a.toml: has mode 0666"), "{}", run.output);
}

/// The same at the start of a tunnel, when all else has gone well.
#[test]
fn start_warns_as_check_does() {
    let sites = Sites::new();
    let a = Running::classic(&sites.a, "a", "-i -dev eu0 192.0.2.1 6000 0.0.0.0 0 10.8.0.1 24");
    for words in [
        "path 192.0.2.1:6000: any sender of a datagram becomes the peer",
        "wire classic: frames are not encrypted, and",
    ] {
        assert!(a.log().contains(&format!("ethudp: a: warning: {words}")), "{}", a.log());
    }
}

/// An example that is shipped, for the tunnel "a".
fn example(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("dist/examples").join(name);
    fs::read_to_string(path).unwrap().replace("\"NAME.key\"", "\"a.key\"")
}

#[test]
fn examples_are_valid_files() {
    let (status, text) = check(&[("a.toml", &example("classic.toml"))]);
    assert!(status == Some(0) && text.contains("mode tap, wire classic: ok\n"), "{text}");
    let secure = example("example.toml");
    let key = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=\n";
    // The placeholder for the peer's key is no key, so that no tunnel runs with a public key of the example.
    let (status, text) = check_with(key, &[("a.toml", &secure)]);
    assert!(
        status == Some(78) && text.contains("line 12: secure.peer-public-key = \"the output of `ethudp pubkey"),
        "{text}"
    );
    let (before, after) = secure.split_once("\"the output of `ethudp pubkey").unwrap();
    let after = after.split_once("\"\n").unwrap().1;
    let whole = format!("{before}\"3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=\"\n{after}");
    let (status, text) = check_with(key, &[("a.toml", &whole)]);
    assert!(status == Some(0) && text.contains("mode tap, wire secure: ok\n"), "{text}");
    assert!(!text.contains("nothing is authenticated"), "{text}");
}

#[test]
fn wrong_type_names_right_type() {
    let list = ["[tap]\naddress = [\"10.8.0.1/24\"]", "[[path]]\n"];
    let twice = TAP.replace("\"10.8.0.1/24\"", "\"10.8.0.1/24\", \"10.8.0.1/25\"");
    for (content, words) in [
        (
            TAP.replace("[\"10.8.0.1/24\"]", "\"10.8.0.1/24\""),
            "line 4: tap.address = \"10.8.0.1/24\": must be a list: address = [\"10.8.0.1/24\"]",
        ),
        (
            TAP.replace(list[0], &format!("{}\nmtu = \"1400\"", list[0])),
            "line 5: tap.mtu = \"1400\": must be a number without quotes: mtu = 1400",
        ),
        (format!("{TAP}[rules]\nvlan-map = [[10, 30]]\n"), "rules.vlan-map: must be pairs of LOCAL = REMOTE in braces"),
        (format!("{TAP}[rules]\nloop-check = \"yes\"\n"), "rules.loop-check = \"yes\": must be true or false"),
        (format!("{TAP}[rules]\nvlan-map = {{ 10 = 4096 }}\n"), "10 = 4096: both must be VLAN ids, 0 to 4095"),
        (TAP.replace("/24", "/0"), "tap.address \"10.8.0.1/0\": prefix length 0 routes all traffic"),
        (twice, "tap.address \"10.8.0.1/25\": listed twice"),
    ] {
        let (status, text) = check(&[("a.toml", &content)]);
        assert!(status == Some(78) && text.contains(words) && text.lines().count() == 1, "{words}: {text}");
    }
}

#[test]
fn unknown_key_suggests_another() {
    let tap = |line: &str| TAP.replace("[tap]\n", &format!("[tap]\n{line}\n"));
    let top = |line: &str| format!("{line}\n{TAP}");
    for (content, words) in [
        (tap("mtuu = 1400"), "line 4: unknown key `mtuu` in [tap]; did you mean `mtu`?"),
        (tap("MTU = 1400"), "line 4: unknown key `MTU` in [tap]; did you mean `mtu`?"),
        (tap("adress = []"), "line 4: unknown key `adress` in [tap]; did you mean `address`?"),
        (tap("mss = 1400"), "line 4: unknown key `mss` in [tap]; move it to [rules]"),
        (tap("interface = \"a\""), "line 4: unknown key `interface` in [tap]; move it to [raw] or [mirror]"),
        (tap("run = \"a\""), "line 4: unknown key `run` in [tap]; move it before the first table"),
        (tap("psk_file = \"a\""), "line 4: unknown key `psk_file` in [tap]; did you mean `psk-file` in [secure]?"),
        (format!("{TAP}name = \"a\"\n"), "line 8: unknown key `name` in [[path]]; move it to [tap]"),
        (top("mss = 1400"), "line 1: unknown key `mss`; move it to [rules]"),
        (top("address = []"), "line 1: unknown key `address`; move it to [tap]"),
        (top("[rule]"), "line 1: unknown table `rule`; did you mean `rules`?"),
        (top("frobnicate = 1"), "line 1: unknown key `frobnicate`; must be one of `mode`, `wire`, "),
        (
            tap("frobnicate = 1"),
            "line 4: unknown key `frobnicate` in [tap]; must be one of `name`, `address`, `bridge`, `mtu`",
        ),
    ] {
        let (status, text) = check(&[("a.toml", &content)]);
        assert!(status == Some(78) && text.contains(words) && text.lines().count() == 1, "{words}: {text}");
    }
}

#[test]
fn secure_vlan_map_is_bounded() {
    let key = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=\n";
    let file = |map: &str| {
        format!(
            "mode = \"tap\"\n[rules]\nvlan-map = {{ {map} }}\n[secure]\nprivate-key-file = \"a.key\"\n\
             peer-public-key = \"3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=\"\n\
             [[path]]\nlocal = \"192.0.2.1:6000\"\nremote = \"192.0.2.2:6000\"\n"
        )
    };
    for map in ["10 = 4095", "0 = 10"] {
        let (status, text) = check_with(key, &[("a.toml", &file(map))]);
        assert!(status == Some(78) && text.contains(&format!("{map}: both must be VLAN ids, 1 to 4094")), "{text}");
    }
    assert_eq!(check_with(key, &[("a.toml", &file("1 = 4094"))]).0, Some(0));
}

#[test]
fn private_key_as_peer_key_is_burnt() {
    let key = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=";
    let text = format!(
        "mode = \"tap\"\n[secure]\nprivate-key-file = \"a.key\"\npeer-public-key = {key:?}\n\
         [[path]]\nlocal = \"192.0.2.1:6000\"\nremote = \"any\"\n"
    );
    let (status, said) = check_with(&format!("{key}\n"), &[("a.toml", &text)]);
    assert!(
        status == Some(78) && said.contains("contains this end's private key") && said.contains("no longer secret"),
        "{said}"
    );
    assert!(!said.contains(key), "{said}");
}

#[test]
fn shared_key_pair_needs_tunnel_id() {
    let (sites, scratch) = (Sites::new(), Scratch::new());
    scratch.write("a.key", "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=\n", 0o600);
    let text = |id: &str, port: u16| {
        format!(
            "mode = \"tap\"\n[secure]\nprivate-key-file = \"a.key\"\n{id}\
             peer-public-key = \"3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=\"\n\
             [[path]]\nlocal = \"192.0.2.1:{port}\"\nremote = \"192.0.2.2:6000\"\n"
        )
    };
    let run = |arguments: &[&str]| Background::run(&sites.a, &scratch, &[], arguments);
    let a = scratch.write("a.toml", &text("", 6000), 0o644);
    let file = a.to_str().unwrap();
    let passes = || {
        let run = run(&["check", file]);
        assert!(run.status.success(), "{}", run.output);
    };
    let refused = || {
        for arguments in [&["check", file][..], &["check", "--dir", scratch.path().to_str().unwrap(), file]] {
            let run = run(arguments);
            let words =
                "b.toml. If that file is a copy, rename it so that it does not end in .toml. For a second tunnel";
            assert!(run.status.code() == Some(78) && run.output.contains(words), "{arguments:?} {}", run.output);
        }
    };
    // Another name of the file, what an editor leaves, and what is no tunnel of this pair.
    std::os::unix::fs::symlink("a.toml", scratch.path().join("link.toml")).unwrap();
    scratch.write(".a.toml", &text("", 6000), 0o644);
    scratch.write("a.toml.bak", &text("", 6000), 0o644);
    scratch.write("none.toml", "is no TOML", 0o644);
    fs::create_dir(scratch.path().join("directory.toml")).unwrap();
    passes();
    let b = scratch.write("b.toml", &text("", 6001), 0o644);
    refused();
    // A copy that will be the other file is compared with the one that it does not replace.
    let copy = scratch.write("copy", &text("", 6001), 0o644);
    let arguments = ["check", "--as", "b", "--dir", scratch.path().to_str().unwrap(), copy.to_str().unwrap()];
    let output = run(&arguments).output;
    assert!(output.contains("/a.toml. If that file is a copy, rename it"), "{output}");
    // The same key in another file.
    scratch.write("b.key", "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=", 0o600);
    fs::write(&b, text("", 6001).replace("a.key", "b.key")).unwrap();
    refused();
    // One that cannot be read is passed over.
    fs::write(&b, text("", 6001).replace("a.key", "c.key")).unwrap();
    passes();
    fs::write(&b, text("tunnel-id = \"00000000000000ff\"\n", 6001)).unwrap();
    passes();
    fs::write(&a, text("tunnel-id = \"00000000000000FF\"\n", 6000)).unwrap();
    refused();
}

/// A copy that nothing starts must not keep the tunnel from its next start.
#[test]
fn duplicate_tunnel_file_is_refused() {
    let (sites, scratch) = (Sites::new(), Scratch::new());
    scratch.write("a.key", "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=\n", 0o600);
    let text = |port: u16| {
        format!(
            "mode = \"tap\"\n[tap]\nname = \"eu0\"\n[secure]\nprivate-key-file = \"a.key\"\n\
             peer-public-key = \"3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=\"\n\
             [[path]]\nlocal = \"0.0.0.0:{port}\"\nremote = \"192.0.2.2:6000\"\n"
        )
    };
    let [a, b] = [("a.toml", 6000), ("a-old.toml", 6001)].map(|(name, port)| {
        let path = scratch.write(name, &text(port), 0o644);
        path.to_str().unwrap().to_owned()
    });
    let running = Running::start(&sites.a, scratch, "a", &[], &["up", &a]);
    assert!(
        running.log().contains("a-old.toml. If that file is a copy, rename it so that it does not end in .toml"),
        "{}",
        running.log()
    );
    let second = Background::run(&sites.b, &running.scratch, &[], &["up", &b]);
    assert!(second.status.code() == Some(78) && second.output.contains("That tunnel is running"), "{}", second.output);
}
