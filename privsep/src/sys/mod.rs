//! System calls without a safe wrapper. All `unsafe` code of the shipped programs is in this folder.

pub mod option;
pub mod packet;
pub mod process;
pub mod resolver;
pub mod scm;
pub mod supervisor;
pub mod tap;
pub mod worker;

use std::io;

/// Result of a libc call that reports failure as -1.
fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
