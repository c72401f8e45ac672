//! What fuzzing reaches of `init`: the line of another end, and the files that follow from it.

use std::path::PathBuf;
use std::sync::OnceLock;

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
    let local = local(&options, Some(peer)).unwrap();
    let own = Line {
        joins: peer.joins,
        key: keys::public(private),
        inner: local.addresses.first().copied(),
        endpoint: peer.endpoint.is_none().then(|| line::endpoint("192.0.2.1:6000").unwrap()),
    };
    let made = text(&options, &local, PORT, &own, Some(peer));
    let completed = files::add(&text(&options, &local, PORT, &own, None), peer).unwrap();
    for text in [made, completed] {
        let tunnel =
            file::from_text(&text, "eu0", directory(private)).unwrap_or_else(|error| panic!("{error}: {text}"));
        let [path] = &tunnel.paths[..] else { panic!("{text}") };
        assert_eq!(tunnel.secure().map(|secure| secure.peer_key), Some(peer.key));
        assert_eq!(
            path.remote,
            peer.endpoint.clone().map_or(Remote::Learned { host: None, port: None }, Remote::Fixed),
            "{text}"
        );
    }
}

/// Where the key is, made once.
fn directory(private: &[u8; 32]) -> &'static PathBuf {
    use std::os::unix::fs::OpenOptionsExt;
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    DIRECTORY.get_or_init(|| {
        let directory = std::env::temp_dir().join(format!("ethudp-fuzz-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let mut file = std::fs::File::options();
        let mut file = file.write(true).create(true).mode(0o600).open(directory.join("eu0.key")).unwrap();
        std::io::Write::write_all(&mut file, keys::text(private).as_bytes()).unwrap();
        directory
    })
}
