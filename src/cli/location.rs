//! Location of the files of tunnels.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Directory in which the unit looks for files.
pub const DIRECTORY: &str = "/etc/ethudp";

/// File of an argument. An argument without `/` that does not end in `.toml` is the name of a tunnel in [`DIRECTORY`].
pub fn file(argument: &Path) -> PathBuf {
    let name = argument.as_os_str();
    if name.as_bytes().contains(&b'/') || argument.extension().is_some_and(|ending| ending == "toml") {
        return argument.to_owned();
    }
    let mut file = name.to_owned();
    file.push(".toml");
    Path::new(DIRECTORY).join(file)
}
