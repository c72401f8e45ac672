//! Files that a configuration is read from. The program may run as root, and another user may have put something else in their
//! place: so opening one never waits, and owner and mode are taken from the descriptor. Files are written by
//! [`super::directory`] alone.
//!
//! Directories are not looked at to read: who could exchange a file in one cannot make it root's, or give it a mode that it has
//! not.

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::OFlag;
use nix::unistd::geteuid;

use crate::service::identity;

/// Longest text in bytes.
const LONGEST: u64 = 1 << 20;

/// Opens a file to read, without waiting: what is no file, as a FIFO, is refused.
pub fn open(path: &Path) -> io::Result<(File, Metadata)> {
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let file = File::options().read(true).custom_flags(flags.bits()).open(path)?;
    regular(file)
}

/// What was opened, if it is a file.
pub fn regular(file: File) -> io::Result<(File, Metadata)> {
    let metadata = file.metadata()?;
    if metadata.is_file() { Ok((file, metadata)) } else { Err(io::Error::other("is not a file")) }
}

/// The text of a file, and what the file is.
pub fn text(path: &Path) -> io::Result<(String, Metadata)> {
    read(open(path)?)
}

/// The text of a file that was opened.
pub fn read((file, metadata): (File, Metadata)) -> io::Result<(String, Metadata)> {
    let mut text = String::new();
    if file.take(LONGEST + 1).read_to_string(&mut text)? as u64 > LONGEST {
        return Err(io::Error::other(format!("is longer than {LONGEST} bytes")));
    }
    Ok((text, metadata))
}

/// Entries of a directory that are looked at.
pub const MOST: usize = 1000;

/// Has a look at each file of a directory whose name has this extension, of its first [`MOST`] entries. Returns whether there are more.
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

/// The flaw by which a user other than root and us could have written this file.
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

/// The flaw by which a user other than root and the tunnels' could read or have written this secret.
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
        format!("can be read by group {group}; must be group root or ethudp (`chgrp`), or mode 0600 (`chmod 600`)")
    })
}
