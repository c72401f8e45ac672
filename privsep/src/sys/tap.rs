//! TAP interfaces (`linux/if_tun.h`, `Documentation/networking/tuntap.rst`).

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use super::check;

/// Turns an open `/dev/net/tun` into a new TAP interface and returns its name.
///
/// `name` may be a pattern with `%d` for the kernel to fill in. It must be shorter than `IFNAMSIZ` (16).
///
/// # Errors
/// `EBUSY` or `EEXIST` if an interface of that name exists (it is never taken over), `EPERM` without `CAP_NET_ADMIN`.
pub fn create(device: File, name: &str) -> io::Result<(OwnedFd, String)> {
    // SAFETY: an ifreq is plain old data; all zero is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        // c_char is signed on some architectures and not on others.
        *to = libc::c_char::from_ne_bytes([from]);
    }
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_TUN_EXCL;
    #[allow(clippy::cast_possible_truncation)] // The kernel's flags field is 16 bits wide; IFF_TUN_EXCL is its top bit.
    {
        request.ifr_ifru.ifru_flags = flags as libc::c_short;
    }
    // SAFETY: the descriptor is open, and `request` is an ifreq that the kernel may write to.
    check(unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })?;
    // SAFETY: the kernel has left a NUL-terminated name in the 16 bytes of ifr_name.
    let name = unsafe { CStr::from_ptr(request.ifr_name.as_ptr()) };
    Ok((device.into(), name.to_string_lossy().into_owned()))
}
