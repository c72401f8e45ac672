//! Socket options without a type in nix.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::check;
use crate::ipc::BpfInstruction;

/// Sets an option whose value is a plain `int`. Level and name are the numbers of the kernel's headers.
pub fn set_int(socket: BorrowedFd<'_>, level: i32, name: i32, value: i32) -> io::Result<()> {
    set(socket, level, name, &value)
}

/// Sets an option to a plain C value. Not public: pointers in the value must stay valid during the call.
pub(super) fn set<T>(socket: BorrowedFd<'_>, level: i32, name: i32, value: &T) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of::<T>()).map_err(io::Error::other)?;
    // SAFETY: `value` is valid for reads of `length` bytes for the whole call, and the kernel copies it.
    check(unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const *value).cast(), length) }).map(drop)
}

/// Attaches a classic BPF program, or none, and locks the filter: no later owner of the socket can replace it or add one
/// (socket(7), `SO_LOCK_FILTER`).
pub fn lock_filter(socket: BorrowedFd<'_>, program: &[BpfInstruction]) -> io::Result<()> {
    let filter = |&BpfInstruction { code, jt, jf, k }: &BpfInstruction| libc::sock_filter { code, jt, jf, k };
    let mut program: Vec<libc::sock_filter> = program.iter().map(filter).collect();
    let length = u16::try_from(program.len()).map_err(io::Error::other)?;
    let header = libc::sock_fprog { len: length, filter: program.as_mut_ptr() };
    if length > 0 {
        set(socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &header)?;
    }
    set_int(socket, libc::SOL_SOCKET, libc::SO_LOCK_FILTER, 1)
}
