//! Socket options that nix has no type for.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::check;
use crate::ipc::BpfInstruction;

/// Sets an option whose value is a plain `int`, named by its numbers as in the kernel's headers.
pub fn set_int(socket: BorrowedFd<'_>, level: i32, name: i32, value: i32) -> io::Result<()> {
    set(socket, level, name, &value)
}

/// Reads an option whose value is a plain `int`.
pub fn int(socket: BorrowedFd<'_>, level: i32, name: i32) -> io::Result<i32> {
    let (mut value, mut length) = (0_i32, 4);
    // SAFETY: `value` is valid for writes of `length` bytes, its size, for the whole call.
    let result = unsafe { libc::getsockopt(socket.as_raw_fd(), level, name, (&raw mut value).cast(), &raw mut length) };
    check(result).map(|_| value)
}

/// Sets an option to a plain C value. Private: only types whose pointers live through the call may come here.
pub(super) fn set<T>(socket: BorrowedFd<'_>, level: i32, name: i32, value: &T) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of::<T>()).map_err(io::Error::other)?;
    // SAFETY: `value` is valid for reads of `length` bytes for the whole call, and the kernel copies it.
    check(unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const *value).cast(), length) }).map(drop)
}

/// Attaches a classic BPF program that accepts nothing, so that a socket can be bound before it is connected without
/// queueing what others send in between; `detach` takes it away.
pub fn reject_all(socket: BorrowedFd<'_>) -> io::Result<()> {
    // BPF_RET | BPF_K with 0: keep no byte of the packet (linux/bpf_common.h).
    let mut program = [libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: 0 }];
    let header = libc::sock_fprog { len: 1, filter: program.as_mut_ptr() };
    set(socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &header)
}

/// Attaches a classic BPF program for good, or none: nobody who gets the socket can exchange it or add one (socket(7),
/// `SO_LOCK_FILTER`).
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

/// Takes away the program of [`reject_all`].
pub fn accept_all(socket: BorrowedFd<'_>) -> io::Result<()> {
    set_int(socket, libc::SOL_SOCKET, libc::SO_DETACH_FILTER, 0)
}
