//! Files of a configuration.
//!
//! The program may run as root, and another user may have put another object in place of a file. So opening never waits, and owner
//! and mode are read from the descriptor. Only [`super::directory`] writes files.
//!
//! The directories of files that are read are not checked: a user who can replace a file in a directory cannot give the new one to
//! root, or set a mode that the user's own file does not have.

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::OFlag;
use nix::unistd::geteuid;

use crate::service::identity;

/// Longest text in bytes.
const LONGEST: u64 = 1 << 20;

/// Opens a regular file to read, without waiting. Other objects, as a FIFO, are refused.
pub fn open(path: &Path) -> io::Result<(File, Metadata)> {
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let file = File::options().read(true).custom_flags(flags.bits()).open(path)?;
    regular(file)
}

/// The opened file, if it is a regular one.
pub fn regular(file: File) -> io::Result<(File, Metadata)> {
    let metadata = file.metadata()?;
    if metadata.is_file() { Ok((file, metadata)) } else { Err(io::Error::other("not a regular file")) }
}

/// Text and metadata of a file.
pub fn text(path: &Path) -> io::Result<(String, Metadata)> {
    read(open(path)?)
}

/// Text of an opened file, with its metadata.
pub fn read((file, metadata): (File, Metadata)) -> io::Result<(String, Metadata)> {
    let mut text = String::new();
    if file.take(LONGEST + 1).read_to_string(&mut text)? as u64 > LONGEST {
        return Err(io::Error::other(format!("longer than {LONGEST} bytes")));
    }
    Ok((text, metadata))
}

/// Most entries of a directory that are read.
pub const MOST: usize = 1000;

/// Calls `look` for each file with this extension among the first [`MOST`] entries of a directory. Returns whether there are more
/// entries.
pub fn each(directory: &Path, extension: &str, mut look: impl FnMut(&Path, io::Result<(String, Metadata)>)) -> bool {
    let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    let mut entries = fs::read_dir(directory).into_iter().flatten();
    for path in entries.by_ref().take(MOST).flatten().map(|entry| entry.path()) {
        if path.extension().is_some_and(|end| end == extension) {
            look(&path, text(&path));
        }
    }
    entries.next().is_some()
}

/// Flaw by which a user other than root and the caller could have written this file.
pub fn foreign_hand(metadata: &Metadata) -> Option<String> {
    let (owner, mode) = (metadata.uid(), metadata.mode());
    if owner != 0 && owner != geteuid().as_raw() {
        return Some(format!(
            "belongs to user {owner}; must belong to root or to the user who starts the tunnel (`chown`)"
        ));
    }
    (mode & 0o022 != 0)
        .then(|| format!("has mode {:04o}; must be writable for its owner only (`chmod go-w`)", mode & 0o7777))
}

/// Flaw by which a user other than root and the tunnels' users could have read or written this secret.
pub fn foreign_eye(metadata: &Metadata) -> Option<String> {
    let owner = metadata.uid();
    if metadata.mode() & 0o137 == 0 && !identity::may_own_keys(owner) {
        return Some(format!("belongs to user {owner}; must belong to root or to user ethudp (`chown`)"));
    }
    foreign_mode(metadata)
}

/// As [`foreign_eye`], for any owner.
pub fn foreign_mode(metadata: &Metadata) -> Option<String> {
    let (group, mode) = (metadata.gid(), metadata.mode());
    if mode & 0o137 != 0 {
        return Some(format!("has mode {:04o}; must be at most 0640 (`chmod 600`)", mode & 0o7777));
    }
    let others = mode & 0o040 != 0 && !identity::may_read_keys(group);
    others.then(|| {
        format!("is readable for group {group}; must have group root or ethudp (`chgrp`), or mode 0600 (`chmod 600`)")
    })
}
