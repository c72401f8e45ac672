//! `ethudp init`: two sites, one line each way, no editing; nothing that is there is overwritten.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use crate::lab::{Background, Scratch, Sites, ethudp};

mod host;
mod identifier;

/// Runs `init` for a site, whose directory is its scratch; status, standard output, standard error.
fn init(site: &Scratch, arguments: &str) -> (Option<i32>, String, String) {
    let words = format!("init {arguments} --dir {}", site.path().display());
    run(site, &words.split_whitespace().collect::<Vec<_>>())
}

/// The same with these arguments, whose directory is not writable for others meanwhile, as a scratch is for tunnels.
fn run(site: &Scratch, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mode = |mode| fs::set_permissions(site.path(), fs::Permissions::from_mode(mode)).unwrap();
    mode(0o755);
    let output = ethudp(site, &[], arguments).stdin(Stdio::null()).output().unwrap();
    mode(0o777);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// The line that a run prints, which must go well.
fn line(site: &Scratch, arguments: &str) -> String {
    let (status, line, error) = init(site, arguments);
    assert_eq!(status, Some(0), "{arguments}: {error}");
    assert!(line.starts_with("ethudp2:") && line.ends_with('\n') && line.lines().count() == 1, "{line}");
    line.trim_end().to_owned()
}

/// Runs that must fail with status and words, and leave the site as it is.
fn fails(site: &Scratch, arguments: &str, status: i32, words: &str) {
    let before = contents(site.path());
    let (code, output, error) = init(site, arguments);
    assert!(
        code == Some(status) && error.contains(words) && error.lines().count() == 1,
        "{arguments}: {code:?} {error}"
    );
    assert!(output.is_empty() && contents(site.path()) == before, "{arguments}");
}

fn contents(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let files = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    let mut all: Vec<_> = files
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap_or_default()))
        .collect();
    all.sort();
    all
}

fn read(site: &Scratch, file: &str) -> toml::Table {
    fs::read_to_string(site.path().join(file)).unwrap().parse().unwrap()
}

/// Whether `check` takes the file of a site.
fn checks(site: &Scratch) {
    let file = site.path().join("t.toml");
    let run = Background::run(&Sites::new().a, site, &[], &["check", file.to_str().unwrap()]);
    assert!(run.status.success() && run.output.contains("mode tap, wire secure: ok\n"), "{}", run.output);
}

/// The fingerprint in what a run says.
fn fingerprint(text: &str) -> &str {
    text.split("the same fingerprint: ").nth(1).unwrap_or_else(|| panic!("{text}")).lines().next().unwrap()
}

#[test]
fn init_joins_two_sites() {
    let (a, b) = (Scratch::new(), Scratch::new());
    let (status, of_a, said) = init(&a, "t --address 10.8.0.1/24 --endpoint 198.51.100.7");
    assert_eq!(status, Some(0), "{said}");
    // What is said can be pasted as it is.
    assert!(said.contains(&format!(": ethudp init t --peer {of_a}")), "{said}");
    let (status, of_b, said_b) = init(&b, &format!("t --peer {} --port 6001", of_a.trim_end()));
    assert_eq!(status, Some(0), "{said_b}");
    assert!(said_b.contains(&format!(": ethudp init t --peer {of_b}")), "{said_b}");
    let (status, again, said_a) = init(&a, &format!("t --peer {of_b}"));
    assert_eq!(status, Some(0), "{said_a}");
    assert_eq!(again, of_a);
    assert_eq!(fingerprint(&said_a), fingerprint(&said_b));
    assert_eq!(fingerprint(&said_a).split(' ').count(), 10);
    let (file_a, file_b) = (read(&a, "t.toml"), read(&b, "t.toml"));
    assert_eq!(file_a["tap"]["address"][0].as_str(), Some("10.8.0.1/24"));
    assert_eq!(file_b["tap"]["address"][0].as_str(), Some("10.8.0.2/24"));
    let path = |file: &toml::Table, key: &str| file["path"][0][key].as_str().unwrap().to_owned();
    assert_eq!((path(&file_a, "local"), path(&file_a, "remote")), ("0.0.0.0:6000".into(), "any".into()));
    assert_eq!((path(&file_b, "local"), path(&file_b, "remote")), ("0.0.0.0:6001".into(), "198.51.100.7:6000".into()));
    for site in [&a, &b] {
        checks(site);
        let mode = |file: &str| fs::metadata(site.path().join(file)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("t.key"), mode("t.toml")), (0o600, 0o644));
        let key = fs::read_to_string(site.path().join("t.key")).unwrap();
        assert!(![&of_a, &of_b, &said_a, &said_b].iter().any(|text| text.contains(key.trim())), "a key was printed");
    }
}

#[test]
fn init_joins_sites_begun_separately() {
    for (first, second) in [(0, 1), (1, 0)] {
        let sites = [Scratch::new(), Scratch::new()];
        let lines = [
            line(&sites[0], "t --address 10.8.0.1/24 --endpoint 198.51.100.7"),
            line(&sites[1], "t --address 10.8.0.2/24 --endpoint site-b.example:7000"),
        ];
        for (site, other) in [(first, second), (second, first)] {
            let (status, _, said) = init(&sites[site], &format!("t --peer {}", lines[other]));
            assert_eq!(status, Some(0), "{said}");
            // Once more changes nothing.
            let before = contents(sites[site].path());
            line(&sites[site], &format!("t --peer {}", lines[other]));
            assert_eq!(contents(sites[site].path()), before);
            checks(&sites[site]);
        }
        assert_eq!(read(&sites[0], "t.toml")["path"][0]["remote"].as_str(), Some("site-b.example:7000"));
    }
}

#[test]
fn mismatching_addresses_are_refused() {
    let (a, b, c) = (Scratch::new(), Scratch::new(), Scratch::new());
    let of_a = line(&a, "t --address 10.8.0.1/24 --endpoint 198.51.100.7");
    fails(&b, &format!("t --peer {of_a} --address 10.8.0.1/24"), 2, "--address 10.8.0.1: address of the other end");
    fails(&b, &format!("t --peer {of_a} --address 10.8.0.0/24"), 2, "is the address of the network itself");
    let (status, _, said) = init(&b, &format!("t --peer {of_a} --address 10.9.0.3/24"));
    assert!(status == Some(0) && said.contains("no address in the network of the other end, 10.8.0.1/24"), "{said}");
    let (status, _, said) = init(&Scratch::new(), &format!("u --peer {of_a} --bridge br0"));
    assert!(status == Some(0) && said.contains("the other end is a single host with 10.8.0.1/24"), "{said}");
    // Both have begun, with one address.
    let of_c = line(&c, "t --address 10.8.0.1/24 --endpoint 192.0.2.9");
    fails(&a, &format!("t --peer {of_c}"), 1, "tap.address: both ends have 10.8.0.1");
    // Of what is wrong the option comes before the file in its way.
    fails(&a, "t --address 10.8.0.300/24", 2, "\"10.8.0.300\" is not an IP address");
    fails(&a, "t --port 0", 2, "--port \"0\": must be a number");
}

#[test]
fn init_overwrites_nothing() {
    let (a, b, c) = (Scratch::new(), Scratch::new(), Scratch::new());
    let of_a = line(&a, "t --address 10.8.0.1/24 --endpoint 198.51.100.7");
    let (of_b, of_c) = (line(&b, &format!("t --peer {of_a}")), line(&c, &format!("t --peer {of_a}")));
    fails(
        &a,
        "t",
        1,
        "t.toml: already exists; the line for the other end is in its first comment. Complete it with --peer LINE",
    );
    fails(&a, &format!("t --peer {of_a}"), 1, "--peer: this end's own line");
    fails(&a, &format!("t --peer {of_b} --port 7"), 2, "only --peer, --endpoint, --address and --dir are possible");
    line(&a, &format!("t --peer {of_b}"));
    fails(&a, &format!("t --peer {of_c}"), 1, "remove peer-public-key from the file to change the peer");
    // A key alone, or another file in the way.
    fs::rename(a.path().join("t.toml"), a.path().join("u.toml")).unwrap();
    fails(&a, "t", 1, "t.key: File exists (os error 17); `init` never overwrites files");
    fs::rename(a.path().join("u.toml"), a.path().join("t.toml")).unwrap();
    std::os::unix::fs::symlink("nowhere", a.path().join("v.key")).unwrap();
    fails(&a, "v", 1, "v.key: File exists");
    // The same peer, elsewhere.
    let d = Scratch::new();
    line(&d, "t --address 10.8.0.9/24 --endpoint 192.0.2.9");
    line(&d, &format!("t --peer {of_a}"));
    let file = d.path().join("t.toml");
    fs::write(&file, fs::read_to_string(&file).unwrap().replace("\"198.51.100.7:6000", "\"198.51.100.8:6000")).unwrap();
    fails(&d, &format!("t --peer {of_a}"), 1, "remote = \"198.51.100.8:6000\": --peer has \"198.51.100.7:6000\"");
}

#[test]
fn init_keeps_user_changes() {
    let (a, b) = (Scratch::new(), Scratch::new());
    let of_a = line(&a, "t --address 10.8.0.1/24 --endpoint 198.51.100.7");
    let file = a.path().join("t.toml");
    let text = fs::read_to_string(&file).unwrap().replace("[secure]\n", "[rules] # mine\nmss = 1300\n\n[secure]\n");
    fs::write(&file, text.replace("0.0.0.0:6000", "192.0.2.1:6000")).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    let of_b = line(&b, &format!("t --peer {of_a}"));
    line(&a, &format!("t --peer {of_b}"));
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains("[rules] # mine\nmss = 1300\n") && text.contains("local = \"192.0.2.1:6000\"\n"), "{text}");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
    // A file that others could have written is not taken for ours.
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
    fs::write(&file, text.lines().filter(|line| !line.starts_with("remote")).fold(String::new(), |t, l| t + l + "\n"))
        .unwrap();
    fails(&a, &format!("t --peer {of_b}"), 1, "must be writable for its owner only");
}

#[test]
fn file_with_two_paths_is_completed() {
    let (a, b) = (Scratch::new(), Scratch::new());
    let of_a = line(&a, "t --address 10.8.0.1/24 --endpoint 198.51.100.7");
    let of_b = line(&b, "t --address 10.8.0.2/24 --endpoint 192.0.2.9");
    let file = a.path().join("t.toml");
    let text = fs::read_to_string(&file).unwrap() + "\n[[path]]\nlocal = \"0.0.0.0:6001\"\n";
    fs::write(&file, text).unwrap();
    line(&a, &format!("t --peer {of_b}"));
    checks(&a);
    let remotes = |site: &Scratch| {
        let paths = read(site, "t.toml")["path"].as_array().unwrap().clone();
        paths.iter().map(|path| path["remote"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(remotes(&a), ["192.0.2.9:6000", "any"]);
    // An address that the user has set stays.
    let file = b.path().join("t.toml");
    let text = fs::read_to_string(&file).unwrap();
    let first = "[[path]]\nlocal = \"0.0.0.0:6001\"\nremote = \"203.0.113.1:6001\"\n\n[[path]]\n";
    fs::write(&file, text.replace("[[path]]\n", first)).unwrap();
    line(&b, &format!("t --peer {of_a}"));
    checks(&b);
    assert_eq!(remotes(&b), ["203.0.113.1:6001", "198.51.100.7:6000"]);
}

#[test]
fn derived_address_is_private_and_logged() {
    let (a, b) = (Scratch::new(), Scratch::new());
    let of_a = line(&a, "t --address 198.51.100.1/25 --endpoint 192.0.2.1");
    fails(
        &b,
        &format!("t --peer {of_a}"),
        2,
        "--address is missing: the other end has 198.51.100.1/25, which is not a \
                        private network",
    );
    line(&b, &format!("t --peer {of_a} --address 198.51.100.2/25"));
    // Of a network of one address there is none beside it.
    let alone = line(&a, "v --address 198.51.100.1/32 --endpoint 192.0.2.1");
    line(&b, &format!("v --peer {alone}"));
    let of_a = line(&a, "u --address 10.8.0.1/24 --endpoint 192.0.2.1");
    let (_, _, said) = init(&b, &format!("u --peer {of_a}"));
    assert!(
        said.contains(
            "u.toml: the TAP interface gets 10.8.0.2/24, next to the other end's address; change it with \
                       tap.address"
        ),
        "{said}"
    );
}

/// What was left out is given later, with the key that is there.
#[test]
fn init_adds_endpoint_and_address_later() {
    let (a, b) = (Scratch::new(), Scratch::new());
    let (_, of_a, said) = init(&a, "t");
    let line_of_a = of_a.trim_end();
    assert!(said.contains(&format!("at the other end: ethudp init t --peer {of_a}")), "{said}");
    assert!(
        said.contains(
            "this end has no --endpoint: set --endpoint at the other end, or run `ethudp init` here again with the same NAME"
        )
    );
    assert!(said.contains("t.toml: the TAP interface has no address: run `ethudp init` again"), "{said}");
    let words = "or run `ethudp init NAME --endpoint HOST[:PORT]` at the other end";
    fails(&b, &format!("t --peer {line_of_a}"), 2, words);
    let key = fs::read(a.path().join("t.key")).unwrap();
    for option in ["--port 7", "--bridge br0", "--interface eth1"] {
        fails(
            &a,
            &format!("t --endpoint 192.0.2.1 {option}"),
            2,
            "only --peer, --endpoint, --address and --dir are possible",
        );
    }
    fails(&a, "t --endpoint 10.8.0.1 --address 10.8.0.1/24", 2, "address inside the tunnel");
    let (status, of_a, said) = init(&a, "t --endpoint site-a.example --address 10.8.0.1/24");
    let of_a = of_a.trim_end();
    assert!(status == Some(0) && said.contains("t.toml\n") && !said.contains("no address"), "{said}");
    assert!(said.contains(&format!("at the other end: ethudp init t --peer {of_a}\n")), "{said}");
    assert_ne!(of_a, line_of_a);
    assert_eq!(fs::read(a.path().join("t.key")).unwrap(), key);
    fails(&a, "t --endpoint 192.0.2.2", 2, "--endpoint: already set to site-a.example:6000");
    fails(&a, "t --address 10.8.0.2/24", 2, "--address: already set to 10.8.0.1/24; change tap.address");
    let of_b = line(&b, &format!("t --peer {of_a}"));
    line(&a, &format!("t --peer {of_b}"));
    checks(&a);
    checks(&b);
    let both = if Path::new("/proc/net/if_inet6").exists() { "[::]:6000" } else { "0.0.0.0:6000" };
    assert_eq!(read(&a, "t.toml")["path"][0]["local"].as_str(), Some(both));
    assert_eq!(read(&b, "t.toml")["tap"]["address"][0].as_str(), Some("10.8.0.2/24"));
    fails(&a, "t --endpoint 192.0.2.2", 2, "t.toml: already complete; change it by hand");
    // Both have begun without: one of them says it with the other end's line.
    let (c, d) = (Scratch::new(), Scratch::new());
    let (of_c, of_d) = (line(&c, "t --address 10.8.0.1/24"), line(&d, "t --address 10.8.0.2/24"));
    fails(&c, &format!("t --peer {of_d}"), 1, "--endpoint is missing at both ends: add --endpoint HOST[:PORT] here");
    let of_c = [line(&c, &format!("t --peer {of_d} --endpoint 192.0.2.1")), of_c];
    assert_ne!(of_c[0], of_c[1]);
    line(&d, &format!("t --peer {}", of_c[0]));
    checks(&d);
}

#[test]
fn next_step_names_directory() {
    let a = Scratch::new();
    let (_, _, said) = init(&a, "t --address 10.8.0.1/24 --endpoint 192.0.2.1");
    assert!(said.contains(&format!(": ethudp init t --peer LINE --dir {}\n", a.path().display())), "{said}");
}

#[test]
fn impossible_init_is_explained() {
    let (a, b) = (Scratch::new(), Scratch::new());
    let of_a = line(&a, "t --bridge br0 --endpoint 198.51.100.7");
    let nowhere = line(&Scratch::new(), "t --address 10.8.0.1/24");
    let cut = &of_a[..of_a.len() - 3];
    for (arguments, status, words) in [
        (".t".into(), 2, "tunnel name \".t\""),
        ("t --peer ethudp2:abc".into(), 2, "cut or changed (wrong checksum); must be the whole line"),
        (format!("t --peer {cut}"), 2, "cut or changed"),
        (
            format!("t --peer {of_a}"),
            2,
            "--bridge, --interface or --address is missing: the other end forwards a bridge \
                  or an interface",
        ),
        (format!("t --peer {nowhere}"), 2, "--endpoint is missing: one end must have a known address"),
        ("t --address 10.8.0.1".into(), 2, "--address \"10.8.0.1\": must be ADDRESS/PREFIX"),
        ("t --address 10.8.0.1/24 --bridge br0".into(), 2, "cannot be used with"),
        ("t --port 0".into(), 2, "--port \"0\": must be a number from 1 to 65535"),
        ("t --endpoint 1.2.3.4.5".into(), 2, "not an IPv4 address"),
        ("t --endpoint localhost".into(), 2, "--endpoint \"localhost\": loopback address"),
        ("t --endpoint [::1]:6000".into(), 2, "loopback address"),
        ("t --endpoint 0.0.0.0".into(), 2, "unspecified address"),
        ("t --endpoint 10.8.0.1 --address 10.8.0.1/24".into(), 2, "--endpoint 10.8.0.1: address inside the tunnel"),
        ("t --address 10.8.0.1/0".into(), 2, "prefix length 0 routes all traffic"),
        ("t --address fd00::1/0".into(), 2, "prefix length 0 routes all traffic"),
        ("t --address 10.8.0.1/24 --address 10.8.0.1/25".into(), 2, "--address 10.8.0.1: given twice"),
        (format!("t {of_a}"), 2, "did you mean `ethudp init NAME --peer LINE`?"),
        (of_a.clone(), 2, "did you mean `ethudp init NAME --peer LINE`?"),
        ("t frob".into(), 2, "unexpected argument \"frob\""),
        ("t --frob".into(), 2, "unexpected argument '--frob'"),
        ("t --peer hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=".into(), 2, "--peer: a key, not a line"),
        (format!("t --peer {}", of_a.to_uppercase()), 2, ": changed to upper case"),
        ("t --bridge an-interface-name".into(), 2, "--bridge \"an-interface-name\": 17 bytes; must be"),
    ] {
        fails(&b, &arguments, status, words);
    }
    let (status, _, error) = init(&b, "u --endpoint 198.51.100.8");
    assert!(
        status == Some(0) && error.contains("u.toml: the TAP interface has no address: run `ethudp init` again"),
        "{error}"
    );
    let (_, _, error) = init(&b, "v --bridge br0");
    assert!(!error.contains("no address"), "{error}");
    let mut command = ethudp(&b, &[], &["init", "t", "--dir", "/nonexistent"]);
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && text.contains("create the directory with `install"), "{text}");
}

#[test]
fn secure_tap_has_fitting_mtu() {
    let (sites, a, b) = (Sites::new(), Scratch::new(), Scratch::new());
    let of_a = line(&a, "t --address 10.8.0.1/24 --endpoint 192.0.2.1");
    line(&b, &format!("t --peer {of_a}"));
    // The other end opens everything, with an address of no interface, and ends.
    let (file, found) = (b.path().join("t.toml"), b.path().join("mtu"));
    let text = fs::read_to_string(&file).unwrap();
    let run = format!("run = \"ip -o link show $ETHUDP_INTERFACE >{}\"\nexit-after-s = 1\n", found.display());
    fs::write(&file, format!("{run}{text}")).unwrap();
    let ended = Background::run(&sites.b, &b, &[], &["up", file.to_str().unwrap()]);
    let link = fs::read_to_string(found).unwrap_or_else(|error| panic!("{error}: {}", ended.output));
    // 1500 - 20 - 8 - 36 - 14.
    assert!(link.contains(" mtu 1422 "), "{link} {}", ended.output);
}

#[test]
fn name_unfit_for_unit_is_refused() {
    let site = Scratch::new();
    for name in ["a.b", "münchen", "x@y", "x;reboot", "$(x)", "_a", ".a", "a/b", &"x".repeat(25), &"x".repeat(65)] {
        fails(&site, name, 2, "must be 1 to 24 letters, digits, '-' and '_', and begin with a letter or a digit");
    }
    // The file's name is as good.
    line(&site, "site.toml --address 10.8.0.1/24 --endpoint 192.0.2.1");
    assert!(site.path().join("site.toml").exists() && site.path().join("site.key").exists());
    fails(&site, "site.toml", 1, "site.toml: already exists");
}

#[test]
fn pasted_line_is_accepted() {
    let a = Scratch::new();
    let (_, of_a, said) = init(&a, "t --address 10.8.0.1/24 --endpoint 198.51.100.7");
    let of_a = of_a.trim_end();
    let (begin, end) = of_a.split_at(50);
    // A second part that begins with a dash is not a word to the program.
    let whole = [
        said.as_str(),
        &format!("ethudp init t --peer {of_a}"),
        &format!("> {begin}\n> {end}"),
        &format!("\u{feff}\u{201c}{of_a}\u{201d}"),
    ];
    for pasted in whole {
        let b = Scratch::new();
        let dir = b.path().to_str().unwrap();
        let (status, _, error) = run(&b, &["init", "t", "--peer", pasted, "--dir", dir]);
        assert_eq!(status, Some(0), "{pasted:?}: {error}");
        assert_eq!(read(&b, "t.toml")["path"][0]["remote"].as_str(), Some("198.51.100.7:6000"));
    }
    let cut = (40..60).find(|&at| !of_a[at..].starts_with('-')).unwrap();
    let b = Scratch::new();
    line(&b, &format!("t --peer {} {}", &of_a[..cut], &of_a[cut..]));
    let c = Scratch::new();
    fails(&c, &format!("t --peer {of_a} frob"), 2, "unexpected argument \"frob\"");
}

/// The line is found; what is no part of a command is not passed over.
#[test]
fn pasted_command_is_accepted() {
    let a = Scratch::new();
    let (_, of_a, said) = init(&a, "other --address 10.8.0.1/24 --endpoint 198.51.100.7");
    let of_a = of_a.trim_end();
    let message = said.lines().find(|line| line.contains("at the other end")).unwrap();
    let cut = (40..60).find(|&at| !of_a[at..].starts_with('-')).unwrap();
    let broken = format!("ethudp init other --peer {} {}", &of_a[..cut], &of_a[cut..]);
    let command = format!("ethudp init other --peer {of_a}");
    let sudo = format!("sudo {command}");
    for pasted in [message, &command, &sudo, &broken] {
        for before in ["t", "t --peer"] {
            let b = Scratch::new();
            let (status, _, error) = init(&b, &format!("{before} {pasted}"));
            assert_eq!(status, Some(0), "{before} {pasted}: {error}");
            assert!(error.contains("--peer: contains a whole command; using its line for tunnel \"t\""), "{error}");
            assert_eq!(read(&b, "t.toml")["path"][0]["remote"].as_str(), Some("198.51.100.7:6000"));
        }
    }
    let of_c = line(&Scratch::new(), "t --address 10.8.0.1/24 --endpoint 198.51.100.8");
    for (arguments, words) in [
        (
            command.clone(),
            "`ethudp init` is followed by a whole command: run the command alone, `ethudp init other --peer LINE`",
        ),
        (format!("t frob {command}"), "unexpected argument \"frob\""),
        (format!("t {command} frob"), "unexpected argument \"frob\""),
        (format!("t --peer {of_a} --peer {of_c}"), "--peer: contains two different lines"),
        ("t --peer ethudp init other --peer x".into(), "--peer \"ethudpxinitother\": not a line of `ethudp init`"),
    ] {
        fails(&Scratch::new(), &arguments, 2, words);
    }
}

#[test]
fn line_has_all_addresses() {
    let (a, b) = (Scratch::new(), Scratch::new());
    let of_a = line(&a, "t --address 10.8.0.1/24 --address fd00:8::1/64 --endpoint 198.51.100.7");
    line(&b, &format!("t --peer {of_a}"));
    let list: Vec<_> = read(&b, "t.toml")["tap"]["address"].as_array().unwrap().clone();
    assert_eq!(list.iter().map(|ip| ip.as_str().unwrap()).collect::<Vec<_>>(), ["10.8.0.2/24", "fd00:8::2/64"]);
    checks(&b);
    let many: String = (1..=9).fold(String::new(), |all, number| all + &format!(" --address 10.8.{number}.1/24"));
    let (status, _, said) = init(&a, &format!("u{many} --endpoint 198.51.100.7"));
    assert!(status == Some(0) && said.contains("10.8.9.1/24: left out of the line for the other end"), "{said}");
}

#[test]
fn second_tunnel_has_own_port() {
    let a = Scratch::new();
    let port = |name: &str| {
        let local = read(&a, &format!("{name}.toml"))["path"][0]["local"].as_str().unwrap().to_owned();
        local.rsplit_once(':').unwrap().1.parse::<u16>().unwrap()
    };
    let tap = |name: &str| read(&a, &format!("{name}.toml"))["tap"]["name"].as_str().unwrap().to_owned();
    line(&a, "one --address 10.8.0.1/24 --endpoint 192.0.2.1 --port 6000");
    let (status, _, said) = init(&a, "two --address 10.8.1.1/24 --endpoint 192.0.2.1");
    assert!(status == Some(0) && said.contains("one.toml uses 6000"), "{said}");
    assert!(port("two") > 6000, "{}", port("two"));
    let (status, _, said) = init(&a, "three --bridge no-bridge --port 6000");
    assert!(
        status == Some(0) && said.contains("--port 6000: already used by ") && said.contains("one.toml; omit"),
        "{said}"
    );
    assert!(said.contains("--bridge \"no-bridge\": no such interface now"), "{said}");
    assert_eq!((tap("one"), tap("two"), tap("three")), ("one".into(), "two".into(), "three".into()));
    let (_, _, said) = init(&a, "lo --address 10.8.2.1/24");
    assert!(said.contains("the TAP interface gets the name lo-2; change it with tap.name"), "{said}");
    init(&a, "a-name-of-twenty-four-by --address 10.8.3.1/24");
    assert_eq!((tap("lo").as_str(), tap("a-name-of-twenty-four-by").as_str()), ("lo-2", "a-name-of-twent"));
    init(&a, "raw --interface eth1,eth2");
    assert!(read(&a, "raw.toml").get("tap").is_none());
}

#[test]
fn name_endpoint_listens_on_both_families() {
    let ipv6 = Path::new("/proc/net/if_inet6").exists();
    let both = if ipv6 { "[::]:6000" } else { "0.0.0.0:6000" };
    let local = |site: &Scratch, name: &str| read(site, name)["path"][0]["local"].as_str().unwrap().to_owned();
    let (a, b, c) = (Scratch::new(), Scratch::new(), Scratch::new());
    let of_a = line(&a, "t --address 10.8.0.1/24 --endpoint a.example --port 6000");
    let of_b = line(&b, &format!("t --peer {of_a} --port 6000"));
    assert_eq!((local(&a, "t.toml"), local(&b, "t.toml")), (both.into(), both.into()));
    line(&a, &format!("t --peer {of_b}"));
    // Whose file was made before the other end was known.
    let _ = line(&c, "t --address 10.8.0.2/24 --endpoint 192.0.2.9 --port 6000");
    assert_eq!(local(&c, "t.toml"), "0.0.0.0:6000");
    line(&c, &format!("t --peer {of_a}"));
    assert_eq!(local(&c, "t.toml"), both);
    let (_, _, said) = init(&Scratch::new(), "t --endpoint 2001:db8::1:6000 --address 10.8.0.1/24");
    assert!(said.contains("did you mean [2001:db8::1]:6000?"), "{said}");
}
