//! Reads socket options, for code that checks the helper's settings.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::sys::check;

/// Reads an option whose value is a plain `int`.
pub fn int(socket: BorrowedFd<'_>, level: i32, name: i32) -> io::Result<i32> {
    let (mut value, mut length) = (0_i32, 4);
    // SAFETY: `value` is valid for writes of `length` bytes, its size, for the whole call.
    let result = unsafe { libc::getsockopt(socket.as_raw_fd(), level, name, (&raw mut value).cast(), &raw mut length) };
    check(result).map(|_| value)
}
