//! TAP interfaces (`linux/if_tun.h`, `Documentation/networking/tuntap.rst`).

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use super::check;

/// Flags of every TAP of this program: a `virtio_net_hdr` precedes each frame.
const FLAGS: i32 = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
/// Offloads that the worker handles instead of the kernel: checksums, and segmentation of TCP superframes.
const OFFLOAD: libc::c_uint = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
/// The same for UDP; Linux 6.2 and later.
const UDP_OFFLOAD: libc::c_uint = libc::TUN_F_USO4 | libc::TUN_F_USO6;

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
    #[allow(clippy::cast_possible_truncation)] // The kernel's flags field is 16 bits wide; IFF_TUN_EXCL is its top bit.
    {
        request.ifr_ifru.ifru_flags = (FLAGS | libc::IFF_TUN_EXCL) as libc::c_short;
    }
    // SAFETY: the descriptor is open, and `request` is an ifreq that the kernel may write to.
    check(unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })?;
    Ok((device.into(), name_in(&request)))
}

/// Makes the kernel deliver superframes and partial checksums, as far as it can.
///
/// # Errors
/// `EINVAL` if the kernel supports not even TCP offload.
pub fn offload(queue: BorrowedFd<'_>) -> io::Result<()> {
    let set = |what: libc::c_uint| {
        // SAFETY: the descriptor is open, and the argument of this request is a number.
        check(unsafe { libc::ioctl(queue.as_raw_fd(), libc::TUNSETOFFLOAD, libc::c_ulong::from(what)) }).map(drop)
    };
    set(OFFLOAD | UDP_OFFLOAD).or_else(|_| set(OFFLOAD))
}

/// Sets or clears the carrier of a queue's interface. Needs no capability; Linux 5.0 and later.
pub fn set_carrier(queue: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    let on = libc::c_int::from(on);
    // SAFETY: the descriptor is open, and the request reads an int through its argument.
    check(unsafe { libc::ioctl(queue.as_raw_fd(), libc::TUNSETCARRIER, &raw const on) }).map(drop)
}

/// Resets the settings of a queue that [`identify`] does not report. An earlier process may have changed them.
///
/// # Errors
/// `EINVAL` if the kernel lacks one of them.
pub fn reset(queue: BorrowedFd<'_>) -> io::Result<()> {
    for (request, value) in [
        // Length of a virtio_net_hdr without the number of buffers, in native byte order.
        (libc::TUNSETVNETHDRSZ, 10),
        (libc::TUNSETVNETLE, 0),
        (libc::TUNSETVNETBE, 0),
        // No filter of MAC addresses (an empty struct tun_filter), and no BPF program.
        (libc::TUNSETTXFILTER, 0),
        (libc::TUNDETACHFILTER, 0),
        (libc::TUNSETFILTEREBPF, -1),
        (libc::TUNSETSTEERINGEBPF, -1),
        (libc::TUNSETSNDBUF, i32::MAX),
    ] {
        // SAFETY: the descriptor is open, and each of these reads at most an int through its argument, or does not look at it.
        let result = check(unsafe { libc::ioctl(queue.as_raw_fd(), request, &raw const value) });
        // Few kernels support TUNSETVNETBE, and the others cannot have it set.
        if request != libc::TUNSETVNETBE {
            result?;
        }
    }
    Ok(())
}

/// An existing queue of a TAP.
pub struct Queue {
    /// Name of its interface.
    pub name: String,
    /// MAC address of its interface.
    pub address: [u8; 6],
    /// Whether its flags are those of [`create`].
    pub ours: bool,
}

/// Identifies the interface of a queue, which an earlier process may have created.
///
/// # Errors
/// `ENOTTY` or `EBADFD` if the descriptor is not a queue, or its interface is gone.
pub fn identify(queue: BorrowedFd<'_>) -> io::Result<Queue> {
    // SAFETY: an ifreq is plain old data; all zero is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // SAFETY: the descriptor is open, and `request` is an ifreq that the kernel may write to.
    check(unsafe { libc::ioctl(queue.as_raw_fd(), libc::TUNGETIFF, &raw mut request) })?;
    // SAFETY: TUNGETIFF has filled in this member of the union.
    let ours = i32::from(unsafe { request.ifr_ifru.ifru_flags }) == FLAGS;
    let name = name_in(&request);
    // SAFETY: as above.
    check(unsafe { libc::ioctl(queue.as_raw_fd(), libc::SIOCGIFHWADDR, &raw mut request) })?;
    // SAFETY: SIOCGIFHWADDR has filled in this member of the union.
    let [address @ .., _, _, _, _, _, _, _, _] = unsafe { request.ifr_ifru.ifru_hwaddr.sa_data };
    // c_char is signed on some architectures and not on others.
    Ok(Queue { name, address: address.map(|byte| byte.to_ne_bytes()[0]), ours })
}

fn name_in(request: &libc::ifreq) -> String {
    // SAFETY: the kernel has left a NUL-terminated name in the 16 bytes of ifr_name.
    unsafe { CStr::from_ptr(request.ifr_name.as_ptr()) }.to_string_lossy().into_owned()
}
