//! Step of the resolver only; not part of the helper.

use std::io;
use std::path::Path;

use nix::sys::resource::{Resource, setrlimit};

use super::{Access, restrict_files};

/// Port of name servers, which are asked by TCP if an answer is long (RFC 7766).
const DOMAIN: u16 = 53;

/// As [`super::landlock`], but the process may read these files and connect to the TCP port of name servers.
pub fn landlock_to_ask<P: AsRef<Path>>(files: &[P]) -> io::Result<u32> {
    let files: Vec<_> = files.iter().map(|file| (file, Access::Read)).collect();
    restrict_files(&files, &[DOMAIN])
}

/// Limits the processor time in seconds.
pub fn limit_processor(seconds: u64) -> io::Result<()> {
    Ok(setrlimit(Resource::RLIMIT_CPU, seconds, seconds)?)
}
