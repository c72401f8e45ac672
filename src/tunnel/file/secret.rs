//! Keys and passwords, which a file names and other files hold.

use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use privsep::ipc::Secret;
use zeroize::Zeroizing;

use crate::service::files;
use crate::tunnel::cipher::MAX_KEY;

/// A relative path starts at `CREDENTIALS_DIRECTORY` if it is there, else at the configuration's directory.
fn secret_path(file: &Path, directory: &Path) -> PathBuf {
    let credential = std::env::var_os("CREDENTIALS_DIRECTORY").map(|directory| Path::new(&directory).join(file));
    credential.filter(|path| file.is_relative() && path.exists()).unwrap_or_else(|| directory.join(file))
}

/// Reads a key or a password; one line ending behind it is not part of it.
pub fn secret(
    what: &str,
    file: &Path,
    directory: &Path,
    check: impl Fn(&str, &[u8]) -> Result<Secret, String>,
) -> Result<Secret, String> {
    let file = secret_path(file, directory);
    let name = || format!("{what} {}", file.display());
    let (mut open, metadata) = files::open(&file).map_err(|error| {
        let right = match error.kind() {
            ErrorKind::PermissionDenied => "; to the unit it is handed over by LoadCredential=, as `ethudp check` says",
            ErrorKind::NotFound => match what {
                "private key file" => "; `ethudp genkey` makes a key",
                "pre-shared key file" => "; `ethudp genpsk` makes a key",
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
    let line = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    check(&name(), line)
}
