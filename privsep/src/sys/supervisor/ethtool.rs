//! What an interface does for those who send and receive on it (`linux/ethtool.h`).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::sys::check;

/// Questions about one feature each, with the name that ethtool(8) gives it; the last number is the bit in the answer.
const FEATURES: [(&str, u32, u32); 5] = [
    ("gro", 0x2b, 1),       // ETHTOOL_GGRO
    ("lro", 0x25, 1 << 15), // ETHTOOL_GFLAGS, ETH_FLAG_LRO
    ("gso", 0x23, 1),       // ETHTOOL_GGSO
    ("tso", 0x1e, 1),       // ETHTOOL_GTSO
    ("tx", 0x16, 1),        // ETHTOOL_GTXCSUM
];

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// The features of this interface that are on and make frames in memory differ from those on the wire: superframes, checksums to
/// be completed. `socket` is any socket of the interface's network namespace.
///
/// # Errors
/// `ENODEV` if there is no such interface; `InvalidInput` for a name of 16 bytes or more.
pub fn offloads(socket: BorrowedFd<'_>, interface: &str) -> io::Result<Vec<&'static str>> {
    // SAFETY: an ifreq is plain old data; all zero is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if interface.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        // c_char is signed on some architectures and not on others.
        *to = libc::c_char::from_ne_bytes([from]);
    }
    let mut on = Vec::new();
    for (name, command, bit) in FEATURES {
        let mut value = Value { command, data: 0 };
        request.ifr_ifru.ifru_data = (&raw mut value).cast();
        // SAFETY: the descriptor is open; `request` points to a value of the kind that these commands fill in.
        match check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) }) {
            Ok(_) if value.data & bit != 0 => on.push(name),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => return Err(error),
            // One that it does not know is off.
            _ => {}
        }
    }
    Ok(on)
}
