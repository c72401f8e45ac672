//! Keys and passwords in files that the tunnel's file names.

use std::fs::{File, Metadata};
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

use privsep::ipc::Secret;
use zeroize::Zeroizing;

use crate::service::files;
use crate::tunnel::cipher::MAX_KEY;

/// Opens a named file. A relative path starts at `CREDENTIALS_DIRECTORY` if the file exists there, else at `directory`.
pub fn open(file: &Path, directory: &Path) -> (PathBuf, io::Result<(File, Metadata)>) {
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").filter(|_| file.is_relative());
    let credentials = credentials.as_deref().map(Path::new);
    if let Some(path) = credentials.map(|credentials| credentials.join(file)) {
        match files::open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            opened => return (path, opened),
        }
    }
    let path = directory.join(file);
    let opened = files::open(&path);
    (path, opened)
}

/// Reads a key or a password without one final line ending.
pub fn secret(
    what: &str,
    file: &Path,
    directory: &Path,
    check: impl Fn(&str, &[u8]) -> Result<Secret, String>,
) -> Result<Secret, String> {
    let (file, opened) = open(file, directory);
    let name = || format!("{what} {}", file.display());
    let (mut open, metadata) = opened.map_err(|error| {
        let right = match error.kind() {
            ErrorKind::PermissionDenied => "; the unit gets it with LoadCredential=, see `ethudp check`",
            ErrorKind::NotFound => match what {
                "private key file" => "; create a key with `ethudp genkey`",
                "pre-shared key file" => "; create a key with `ethudp genpsk`",
                _ => "",
            },
            _ => "",
        };
        format!("{}: {error}{right}", name())
    })?;
    if let Some(flaw) = files::foreign_eye(&metadata) {
        return Err(format!("{}: {flaw}", name()));
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_KEY + 3));
    let limit = MAX_KEY as u64 + 3;
    open.by_ref().take(limit).read_to_end(&mut bytes).map_err(|error| format!("{}: {error}", name()))?;
    let line = bytes.strip_suffix(b"\r\n").or(bytes.strip_suffix(b"\n")).unwrap_or(&bytes);
    check(&name(), line)
}
