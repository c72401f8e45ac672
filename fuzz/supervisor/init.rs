//! Fuzzing of `init`: the line of a peer, and the files that `init` makes of a line.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::cli::init::line::{self, Line};
use crate::cli::init::parameters::{PORT, Parameters};
use crate::cli::init::{inner, paste, text};
use crate::service::directory;
use crate::tunnel::{Remote, file, keys};

/// Parses the data as a line, and as the content of a line whose checksum is right.
pub fn line(data: &[u8]) {
    let said = String::from_utf8_lossy(data);
    taken(&said);
    if let Some(line) = taken(&line::encode(data)) {
        assert_eq!(line::encode(data), line.to_string(), "two lines say the same");
    }
}

/// Adds a peer to an existing file: all lines stay, at most three and one of each path are added, and adding the peer again changes
/// nothing.
pub fn existing(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let key = keys::public(&[2; 32]);
    let endpoint = Some(line::endpoint("192.0.2.1:6000").unwrap());
    let peer = Line { joins: false, key, tunnel: [0xff; 8], slot: 1, inner: Vec::new(), endpoint };
    match text::add_peer(text, &peer, false) {
        Err(error) => assert!(!error.contains('\n'), "{error}"),
        Ok(new) => {
            let mut lines = new.lines();
            let stay = text.lines().all(|line| lines.any(|other| other == line));
            let paths = text.lines().filter(|line| line.contains("[[path]]")).count();
            assert!(stay && new.lines().count() <= text.lines().count() + 3 + paths, "{new}");
            // A peer added inside a multi-line string is noticed only when the whole file is parsed.
            let found = new.parse::<toml::Table>().is_ok_and(|table| {
                let has_key = table["secure"].get("peer-public-key").and_then(toml::Value::as_str)
                    == Some(keys::text(&key).as_str());
                let paths = table.get("path").and_then(toml::Value::as_array).map_or(&[][..], Vec::as_slice);
                has_key && paths.iter().all(|path| path.get("remote").is_some())
            });
            let again = text::add_peer(&new, &peer, false);
            assert!(!found || again.is_err() || again.as_ref() == Ok(&new), "{new}");
        }
    }
    if let Err(error) = file::private_key(text, Path::new("/nonexistent")) {
        assert!(!error.contains('\n'), "{error}");
    }
}

/// Parses a line. A parsed line survives a round trip and makes a tunnel with the peer, in a new and in an existing file.
fn taken(text: &str) -> Option<Line> {
    if let Err(error) = paste::find(text) {
        assert!(error.len() < 1000, "{error}");
    }
    let line = match line::parse(text) {
        Ok(line) => line,
        Err(error) => {
            assert!(!error.contains(char::is_control), "{error}");
            return None;
        }
    };
    assert_eq!(line::parse(&line.to_string()).as_ref(), Ok(&line));
    assert_eq!(paste::find(&format!("ethudp init a --peer '{line}'")).as_ref(), Ok(&line));
    let private = [1; 32];
    if keys::check_peer("--peer", &private, &line.key).is_ok() {
        makes_a_tunnel(&line, &private);
    }
    Some(line)
}

fn makes_a_tunnel(peer: &Line, private: &[u8; 32]) {
    let bridge = peer.joins.then(|| "br0".into());
    let tap = Some("eu0".to_owned());
    let mut given = Parameters {
        bridge,
        interface: None,
        addresses: Vec::new(),
        port: PORT,
        taken_by: None,
        endpoint: None,
        tap,
        ipv6: true,
        networks: Vec::new(),
        unread: Vec::new(),
    };
    // If the peer's inner network is not private, the own address must be given.
    if peer.inner.iter().any(|&inner| !inner::is_private(inner)) && !peer.joins {
        given.addresses.push(inner::parse("10.8.0.2/24").unwrap());
    }
    given.choose_addresses(peer).unwrap();
    let own = Line {
        joins: peer.joins,
        key: keys::public(private),
        tunnel: peer.tunnel,
        slot: 0,
        inner: given.addresses.iter().copied().take(line::ADDRESSES).collect(),
        endpoint: peer.endpoint.is_none().then(|| line::endpoint("192.0.2.1:6000").unwrap()),
    };
    let made = text::new_file("eu0", &given, &own, Some(peer));
    let completed = text::add_peer(&text::new_file("eu0", &given, &own, None), peer, true).unwrap();
    let directory = Directory::new(private);
    for text in [made, completed] {
        let tunnel = file::from_text(&text, "eu0", &directory.0).unwrap_or_else(|error| panic!("{error}: {text}"));
        let [path] = &tunnel.paths[..] else { panic!("{text}") };
        let found = tunnel.secure().map(|secure| (secure.peer_key, secure.tunnel_id, secure.peer_slot));
        assert_eq!(found, Some((peer.key, peer.tunnel, peer.slot)));
        assert_eq!(
            path.remote,
            peer.endpoint.clone().map_or(Remote::Learned { host: None, port: None }, Remote::Fixed),
            "{text}"
        );
    }
}

/// Directory with the private key, removed on drop.
struct Directory(PathBuf);

impl Directory {
    fn new(private: &[u8; 32]) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        loop {
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let path = std::env::temp_dir().join(format!("ethudp-fuzz-{}-{number}", std::process::id()));
            match fs::create_dir(&path) {
                // Left by an earlier process with the same id that crashed.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
                made => made.unwrap(),
            }
            let directory = Self(path);
            directory::Directory::open(&directory.0)
                .unwrap()
                .create("eu0.key", &[keys::text(private).as_bytes()], 0o600)
                .unwrap();
            return directory;
        }
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
