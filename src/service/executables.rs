//! Where the other two executables are: never found by PATH or environment.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

use crate::Error;
use crate::error::Context;

/// Where an installed supervisor is.
const BINDIR: &str = match option_env!("ETHUDP_BINDIR") {
    Some(directory) => directory,
    None => "/usr/bin",
};
/// Where the executables of an installed supervisor are.
const LIBEXECDIR: &str = match option_env!("ETHUDP_LIBEXECDIR") {
    Some(directory) => directory,
    None => "/usr/libexec/ethudp",
};

/// Opened executables: what is run later is what was there at the start.
pub struct Executables {
    /// `ethudp-helper`.
    pub helper: File,
    /// `ethudp-worker`.
    pub worker: File,
}

/// Opens both; beside our own executable when that is not the installed one.
pub fn open() -> Result<Executables, Error> {
    let own = std::env::current_exe().context(|| "own executable".into())?;
    let beside = own.parent().unwrap_or(Path::new("/"));
    let directory = if beside == Path::new(BINDIR) { PathBuf::from(LIBEXECDIR) } else { beside.to_owned() };
    let open = |name: &str| {
        let path = directory.join(name);
        // To execute only: what we cannot read, the kernel lets nobody of our uid trace, from the exec on.
        let execute = File::options().read(true).custom_flags(OFlag::O_PATH.bits()).open(&path);
        execute.context(|| format!("executable {}", path.display()))
    };
    Ok(Executables { helper: open("ethudp-helper")?, worker: open("ethudp-worker")? })
}
