//! Paths of the other executables. PATH and environment have no influence.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

use crate::Error;
use crate::error::Context;

/// Directory of an installed supervisor.
const BINDIR: &str = match option_env!("ETHUDP_BINDIR") {
    Some(directory) => directory,
    None => "/usr/bin",
};
/// Directory of the executables of an installed supervisor.
const LIBEXECDIR: &str = match option_env!("ETHUDP_LIBEXECDIR") {
    Some(directory) => directory,
    None => "/usr/libexec/ethudp",
};

/// Opened executables. Later starts run these files, although their paths may hold others by then.
pub struct Executables {
    /// `ethudp-helper`.
    pub helper: File,
    /// `ethudp-worker`.
    pub worker: File,
}

/// Opens the executables of every tunnel.
pub fn open() -> Result<Executables, Error> {
    Ok(Executables { helper: executable("ethudp-helper")?, worker: executable("ethudp-worker")? })
}

/// Opens the executable that a tunnel with names needs as well.
pub fn resolver() -> Result<File, Error> {
    executable("ethudp-resolver")
}

/// Opens an executable; beside our own executable when that is not the installed one.
fn executable(name: &str) -> Result<File, Error> {
    let own = std::env::current_exe().context(|| "own executable".into())?;
    let beside = own.parent().unwrap_or(Path::new("/"));
    let directory = if beside == Path::new(BINDIR) { PathBuf::from(LIBEXECDIR) } else { beside.to_owned() };
    let path = directory.join(name);
    // `O_PATH` suffices to execute. The kernel makes a process of an unreadable executable non-dumpable, so no process of our uid
    // can trace it.
    let execute = File::options().read(true).custom_flags(OFlag::O_PATH.bits()).open(&path);
    execute.context(|| format!("executable {}", path.display()))
}
