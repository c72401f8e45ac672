//! A second tunnel of one key pair and one identifier: a datagram for one could make a session of the other.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{format, meaning};
use crate::service::files;
use crate::tunnel::{Secure, identifier, keys, names};

/// Another file of this directory that describes a tunnel with the same private key, peer and tunnel identifier. What cannot be
/// read or is no tunnel's file is passed over. `metadata` is of this tunnel's file, which may be a copy of the one called `name`.
pub fn of(own: &Secure, name: &str, metadata: &Metadata, directory: &Path) -> Option<PathBuf> {
    let mut found = None;
    files::each(directory, "toml", |path, read| {
        let Some(stem) = path.file_stem().and_then(|stem| stem.to_str()) else { return };
        // An editor's file is no tunnel's.
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

/// Whether a file's text describes a twin, as far as it says that.
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
