//! `ethudp check`: everything that can be said of files without running them.

mod unit;

use std::path::{Path, PathBuf};

use crate::tunnel::{self, Port, advice, filter};
use crate::{Error, log};

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
    let tunnel = tunnel::file::load(file)?;
    let name = file.display();
    if let Port::Mirror { filter, .. } = &tunnel.port {
        filter::check(filter).map_err(|error| Error::configuration(format!("{name}: {error}")))?;
    }
    for line in advice::of(&tunnel).into_iter().chain(unit::obstacles(&tunnel, file)) {
        log::warning(&format!("{name}: {line}"));
    }
    log::print(&format!(
        "{name}: tunnel {:?}, mode {}, wire {}: ok\n",
        tunnel.name,
        tunnel.port.mode(),
        tunnel.wire.name()
    ))
}
