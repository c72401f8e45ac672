//! What fuzzing reaches of `init`: the line of another end, and the files that follow from it.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use super::line::{self, Line};
use super::{Options, PORT, files, local, text};
use crate::tunnel::{Remote, file, keys};

/// The data as the text of a line; and as what a line with a right sum says.
pub fn line(data: &[u8]) {
    let said = String::from_utf8_lossy(data);
    taken(&said);
    if let Some(line) = taken(&line::with_sum(data)) {
        assert_eq!(line::with_sum(data), line.to_string(), "two lines say the same");
    }
}

/// Reads a line. What is read is written again, and makes a tunnel with that peer, whether the file is made with it or completed.
fn taken(text: &str) -> Option<Line> {
    let line = match line::parse(text) {
        Ok(line) => line,
        Err(error) => {
            assert!(!error.contains(char::is_control), "{error}");
            return None;
        }
    };
    assert_eq!(line::parse(&line.to_string()).as_ref(), Ok(&line));
    let private = [1; 32];
    if keys::check_peer("--peer", &private, &line.key).is_ok() {
        makes_a_tunnel(&line, &private);
    }
    Some(line)
}

fn makes_a_tunnel(peer: &Line, private: &[u8; 32]) {
    let options = Options { name: "eu0".into(), bridge: peer.joins.then(|| "br0".into()), ..Options::default() };
    // Else this end's address must be given.
    let Ok(local) = local(&options, Some(peer)) else { return };
    let own = Line {
        joins: peer.joins,
        key: keys::public(private),
        inner: local.addresses.first().copied(),
        endpoint: peer.endpoint.is_none().then(|| line::endpoint("192.0.2.1:6000").unwrap()),
    };
    let made = text(&options, &local, PORT, &own, Some(peer));
    let completed = files::add(&text(&options, &local, PORT, &own, None), peer).unwrap();
    let directory = Directory::new(private);
    for text in [made, completed] {
        let tunnel = file::from_text(&text, "eu0", &directory.0).unwrap_or_else(|error| panic!("{error}: {text}"));
        let [path] = &tunnel.paths[..] else { panic!("{text}") };
        assert_eq!(tunnel.secure().map(|secure| secure.peer_key), Some(peer.key));
        assert_eq!(
            path.remote,
            peer.endpoint.clone().map_or(Remote::Learned { host: None, port: None }, Remote::Fixed),
            "{text}"
        );
    }
}

/// Where the key is, as long as this lives.
struct Directory(PathBuf);

impl Directory {
    fn new(private: &[u8; 32]) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("ethudp-fuzz-{}-{number}", std::process::id()));
        let directory = Self(path);
        fs::create_dir(&directory.0).unwrap();
        let mut options = fs::File::options();
        let mut file = options.write(true).create_new(true).mode(0o600).open(directory.0.join("eu0.key")).unwrap();
        file.write_all(keys::text(private).as_bytes()).unwrap();
        directory
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
