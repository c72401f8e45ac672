//! Second tunnel of the same key pair and identifier. A handshake for one tunnel could create a session of the other.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{format, meaning};
use crate::service::files;
use crate::tunnel::{Secure, identifier, keys, names};

/// Another file in this directory for a tunnel with the same private key, peer and tunnel identifier. Unreadable files and files
/// without a tunnel are skipped. `metadata` is that of this tunnel's file, which may be a copy of the file called `name`.
pub fn of(own: &Secure, name: &str, metadata: &Metadata, directory: &Path) -> Option<PathBuf> {
    let mut found = None;
    files::each(directory, "toml", |path, read| {
        let Some(stem) = path.file_stem().and_then(|stem| stem.to_str()) else { return };
        // A name that no tunnel can have belongs to an editor's file.
        if found.is_some() || stem == name || names::tunnel(stem).is_err() {
            return;
        }
        let Ok((text, other)) = read else { return };
        let same = (other.dev(), other.ino()) == (metadata.dev(), metadata.ino());
        if !same && is_twin(own, &text, directory) == Some(true) {
            found = Some(path.to_owned());
        }
    });
    found
}

/// Whether a text describes a twin; `None` if the text does not tell.
fn is_twin(own: &Secure, text: &str, directory: &Path) -> Option<bool> {
    let secure = format::parse(text).ok()?.secure?;
    let peer = keys::parse_public("", &secure.peer_public_key?).ok()?;
    let id = secure.tunnel_id.map_or(Ok(identifier::NONE), |text| identifier::parse("", &text)).ok()?;
    if (peer, id) != (own.peer_key, own.tunnel_id) {
        return Some(false);
    }
    let private = meaning::private_key(secure.private_key_file.as_deref(), directory).ok()?;
    Some(keys::public_of(&private)? == own.public_key)
}
