//! Example tunnel for unit tests.

use std::os::unix::fs::OpenOptionsExt;

use super::{Tunnel, file, keys};

/// Tunnel of the secure wire with known keys. `more` is added to its file.
pub fn secure(more: &str) -> Tunnel {
    let directory = std::env::temp_dir().join(format!("ethudp-secure-{}", std::process::id()));
    let directory = directory.join(std::thread::current().name().unwrap_or("a").replace(':', "-"));
    std::fs::create_dir_all(&directory).unwrap();
    let mut file = std::fs::File::options();
    let mut file = file.write(true).create(true).truncate(true).mode(0o600).open(directory.join("a.key")).unwrap();
    std::io::Write::write_all(&mut file, keys::text(&[1; 32]).as_bytes()).unwrap();
    let peer = keys::text(&keys::public(&[2; 32]));
    let text = format!(
        "mode = \"tap\"\n{more}\n[secure]\nprivate-key-file = \"a.key\"\npeer-public-key = {:?}\n\
         [[path]]\nlocal = \"192.0.2.1:6000\"\nremote = \"192.0.2.2:6000\"\n",
        *peer
    );
    let tunnel = file::from_text(&text, "a", &directory).unwrap();
    std::fs::remove_dir_all(&directory).unwrap();
    tunnel
}
