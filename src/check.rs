//! `ethudp check`: everything that can be said of files without running them.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::tunnel::{Port, Tunnel};
use crate::{Error, advice, config, filter, log};

/// Checks all files; each that is wrong has its line, and so has what is worth a warning.
pub fn check(files: &[PathBuf]) -> Result<(), Error> {
    let mut failed = None;
    for file in files {
        if let Err(error) = check_one(file) {
            log::error(&error.to_string());
            failed.get_or_insert(error.status());
        }
    }
    failed.map_or(Ok(()), |status| Err(Error::Reported(status)))
}

fn check_one(file: &Path) -> Result<(), Error> {
    let tunnel = config::load(file)?;
    let name = file.display();
    if let Port::Mirror { filter, .. } = &tunnel.port {
        filter::check(filter).map_err(|error| Error::configuration(format!("{name}: {error}")))?;
    }
    for line in advice::of(&tunnel).into_iter().chain(unreadable_secrets(&tunnel, file)) {
        log::warning(&format!("{name}: {line}"));
    }
    log::print(&format!("{name}: tunnel {:?}, mode {}, wire classic: ok\n", tunnel.name, tunnel.port.mode()))
}

/// Secrets that whoever checks can read, and the user of the unit cannot unless the service manager hands them over.
fn unreadable_secrets(tunnel: &Tunnel, file: &Path) -> Vec<String> {
    let read = fs::read_to_string(file).ok().and_then(|text| toml::from_str::<toml::Table>(&text).ok());
    let Some(toml::Value::Table(classic)) = read.as_ref().and_then(|table| table.get("classic")) else {
        return Vec::new();
    };
    let secrets = ["key-file", "password-file"].into_iter().filter_map(|key| classic.get(key)?.as_str());
    let only_root = |path: &Path| {
        fs::metadata(path).is_ok_and(|file| file.uid() == 0 && [0o400, 0o600].contains(&(file.mode() & 0o777)))
    };
    let directory = file.parent().unwrap_or(Path::new(""));
    let secrets = secrets.filter(|secret| only_root(&directory.join(secret)));
    let line = |secret: &str| {
        let path = fs::canonicalize(directory.join(secret)).unwrap_or_else(|_| directory.join(secret));
        let name = &tunnel.name;
        format!(
            "{secret}: only root can read it; for ethudp@{name} a drop-in with \
             `LoadCredential={secret}:{}` hands it over",
            path.display()
        )
    };
    secrets.map(line).collect()
}
