//! The tunnel identifier: both ends come to the same one, in whatever order they begin and complete, and with files of an older
//! release.

use std::fs;

use super::{checks, contents, fails, init, line, read};
use crate::lab::Scratch;
use crate::secure::KEYS;

/// The line of the end with the key 0 and the endpoint a:1, as an older release has printed it.
const OLDER: &str = "ethudp1:AKTgkpK2UcJ4uXcsVp9fqbsT2Qa0araMnfncK0QJ-KIJAAADYToxpLlfHw";
/// The line of an end with the key 1, the address 10.8.0.1/24, the endpoint 198.51.100.7:6000, the identifier 5b2e91c07d3a48f6 and
/// the slot 4095.
const WITH_SLOT: &str = include_str!("../../fuzz/seeds/line/slot");

/// The identifier in a site's file; of 16 digits.
fn identifier(site: &Scratch) -> String {
    let id = read(site, "t.toml")["secure"]["tunnel-id"].as_str().unwrap().to_owned();
    assert!(id.len() == 16 && id != "0000000000000000", "{id}");
    id
}

/// A site with a file of an older release, with more in `[secure]`.
fn older(secure: &str) -> Scratch {
    let site = Scratch::new();
    site.write("t.key", KEYS[0].0, 0o600);
    let remote = if secure.is_empty() { "" } else { "remote = \"any\"\n" };
    let text = format!(
        "# t.toml: the file's name is the tunnel's name. For the other end, and no secret:\n# {OLDER}\nmode = \"tap\"\n\n[tap]\n\
         name = \"t\"\naddress = []\n\n[secure]\nprivate-key-file = \"t.key\"\n{secure}\n[[path]]\nlocal = \"0.0.0.0:6000\"\n{remote}"
    );
    site.write("t.toml", &text, 0o644);
    site
}

/// Both files are complete and have the same identifier.
fn agree(a: &Scratch, b: &Scratch) {
    assert_eq!(identifier(a), identifier(b));
    checks(a);
    checks(b);
}

#[test]
fn first_ends_identifier_is_shared() {
    let (a, b) = (Scratch::new(), Scratch::new());
    let of_a = line(&a, "t --address 10.8.0.1/24 --endpoint 198.51.100.7");
    let drawn = identifier(&a);
    let of_b = line(&b, &format!("t --peer {of_a}"));
    assert_eq!(line(&a, &format!("t --peer {of_b}")), of_a);
    agree(&a, &b);
    assert_eq!(identifier(&a), drawn);
    let other = Scratch::new();
    line(&other, "t --address 10.8.0.1/24 --endpoint 198.51.100.7");
    assert_ne!(identifier(&other), drawn);
}

#[test]
fn smaller_identifier_wins() {
    for (first, second) in [(0, 1), (1, 0)] {
        let sites = [Scratch::new(), Scratch::new()];
        let lines = [
            line(&sites[0], "t --address 10.8.0.1/24 --endpoint 198.51.100.7"),
            line(&sites[1], "t --address 10.8.0.2/24 --endpoint 198.51.100.8"),
        ];
        let smaller = identifier(&sites[0]).min(identifier(&sites[1]));
        // The line that was printed before one end was complete, or the one after.
        for lines_of_first in [false, true] {
            let printed = line(&sites[first], &format!("t --peer {}", lines[second]));
            let of_first = if lines_of_first { &printed } else { &lines[first] };
            let again = line(&sites[second], &format!("t --peer {of_first}"));
            // What is noted in the file is what is printed.
            for (site, line) in [(first, printed), (second, again)] {
                let text = fs::read_to_string(sites[site].path().join("t.toml")).unwrap();
                assert!(text.contains(&format!("\n# {line}\n")), "{line} {text}");
            }
            agree(&sites[0], &sites[1]);
            assert_eq!(identifier(&sites[0]), smaller);
        }
    }
}

#[test]
fn old_line_is_refused() {
    for arguments in [format!("t --peer {OLDER}"), format!("t --peer ethudp init t --peer {OLDER}")] {
        let words = "line of an older ethudp; install this release at the other end, run `ethudp init` there again";
        fails(&Scratch::new(), &arguments, 2, words);
    }
}

#[test]
fn old_file_gets_identifier() {
    // Which begins again.
    let (a, b) = (older(""), Scratch::new());
    let of_a = line(&a, "t");
    fails(&a, "t", 1, "t.toml: already exists");
    let of_b = line(&b, &format!("t --peer {of_a} --address 10.8.0.2/24"));
    line(&a, &format!("t --peer {of_b}"));
    agree(&a, &b);
    // Which learns its endpoint or address.
    let a = older("");
    line(&a, "t --address 10.8.0.1/24");
    identifier(&a);
    // To which the other end has begun: the other end has not this end's line, and takes what it has drawn itself.
    for more in ["", " --address 10.8.0.1/24"] {
        let (a, b) = (older(""), Scratch::new());
        let of_b = line(&b, "t --address 10.8.0.2/24");
        let drawn = identifier(&b);
        let of_a = line(&a, &format!("t --peer {of_b}{more}"));
        assert_eq!(identifier(&a), drawn);
        line(&b, &format!("t --peer {of_a}"));
        agree(&a, &b);
        assert_eq!(identifier(&a), drawn);
    }
}

/// The other end was made by an older release as well, and is not complete: it begins again.
#[test]
fn complete_old_file_takes_lines_identifier() {
    let b = Scratch::new();
    let of_b = line(&b, "t --address 10.8.0.2/24");
    let key = read_key(&b);
    let a = older(&format!("peer-public-key = \"{key}\"\n"));
    checks(&a);
    fails(&a, "t", 1, "t.toml: already exists");
    let of_a = line(&a, &format!("t --peer {of_b}"));
    line(&b, &format!("t --peer {of_a}"));
    agree(&a, &b);
}

/// The public key of a site.
fn read_key(site: &Scratch) -> String {
    let mut command = crate::lab::ethudp(site, &[], &["pubkey"]);
    let key = fs::File::open(site.path().join("t.key")).unwrap();
    String::from_utf8(command.stdin(key).output().unwrap().stdout).unwrap().trim().to_owned()
}

#[test]
fn handwritten_identifier_stays() {
    let (a, b) = (Scratch::new(), Scratch::new());
    let of_a = line(&a, "t --address 10.8.0.1/24 --endpoint 198.51.100.7");
    let of_b = line(&b, &format!("t --peer {of_a}"));
    line(&a, &format!("t --peer {of_b}"));
    let by_hand = |id: &str| {
        let file = a.path().join("t.toml");
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, text.replace(&identifier(&a), id)).unwrap();
    };
    let drawn = identifier(&b);
    by_hand("ffffffffffffffff");
    let words = format!("secure.tunnel-id = \"ffffffffffffffff\": --peer has \"{drawn}\"; remove tunnel-id");
    fails(&a, &format!("t --peer {of_b}"), 1, &words);
    by_hand("0000000000000001");
    let before = contents(a.path());
    line(&a, &format!("t --peer {of_b}"));
    assert_eq!(identifier(&a), "0000000000000001");
    assert_ne!(contents(a.path()), before, "the line in the file has the identifier of the file");
    by_hand("1");
    fails(&a, &format!("t --peer {of_b}"), 1, "secure.tunnel-id = \"1\": not a tunnel identifier");
}

#[test]
fn peer_slot_comes_from_line() {
    let (a, b) = (Scratch::new(), Scratch::new());
    line(&a, &format!("t --peer {WITH_SLOT}"));
    line(&b, "t --address 10.8.0.2/24");
    line(&b, &format!("t --peer {WITH_SLOT}"));
    for site in [&a, &b] {
        assert_eq!(read(site, "t.toml")["secure"]["peer-slot"].as_integer(), Some(4095));
        checks(site);
    }
    assert_eq!(identifier(&a), "5b2e91c07d3a48f6");
    let file = b.path().join("t.toml");
    fs::write(&file, fs::read_to_string(&file).unwrap().replace("4095", "7")).unwrap();
    fails(&b, &format!("t --peer {WITH_SLOT}"), 1, "secure.peer-slot = 7: --peer has 4095");
    let (status, _, said) = init(&a, "u --peer ethudp3:abc");
    assert!(status == Some(2) && said.contains("line of another version of ethudp"), "{said}");
}
