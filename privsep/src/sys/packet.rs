//! Packet sockets (packet(7), `linux/if_packet.h`).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::check;
use super::option::set;

/// `ETH_P_ALL`: every protocol.
#[allow(clippy::cast_possible_truncation)]
const ETH_P_ALL: u16 = libc::ETH_P_ALL as u16;

/// Opens a packet socket with protocol 0: it receives nothing until [`bind`].
pub fn open() -> io::Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: no pointer is passed.
    let fd = check(unsafe { libc::socket(libc::AF_PACKET, kind, 0) })?;
    // SAFETY: the kernel has just made this descriptor, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Makes the interface receive frames for other stations while this socket is open.
pub fn promiscuous(socket: BorrowedFd<'_>, index: u32) -> io::Result<()> {
    #[allow(clippy::cast_possible_truncation)]
    let request = libc::packet_mreq {
        mr_ifindex: index.cast_signed(),
        mr_type: libc::PACKET_MR_PROMISC as u16,
        mr_alen: 0,
        mr_address: [0; 8],
    };
    set(socket, libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, &request)
}

/// Binds the socket to one interface and all protocols. It then receives frames.
pub fn bind(socket: BorrowedFd<'_>, index: u32) -> io::Result<()> {
    // SAFETY: a sockaddr_ll is plain old data; all zero is a valid value.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    #[allow(clippy::cast_possible_truncation)]
    {
        address.sll_family = libc::AF_PACKET as u16;
    }
    address.sll_protocol = ETH_P_ALL.to_be();
    address.sll_ifindex = index.cast_signed();
    let length = libc::socklen_t::try_from(size_of_val(&address)).map_err(io::Error::other)?;
    // SAFETY: `address` is a sockaddr_ll of `length` bytes that lives through the call.
    check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) }).map(drop)
}

/// Returns and clears the number of frames that the kernel dropped because the socket's queue was full.
pub fn take_drops(socket: BorrowedFd<'_>) -> io::Result<u32> {
    let mut statistics = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
    let mut length = libc::socklen_t::try_from(size_of_val(&statistics)).map_err(io::Error::other)?;
    let value = (&raw mut statistics).cast();
    // SAFETY: `statistics` is valid for writes of `length` bytes, and `length` for reads and writes.
    check(unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_PACKET, libc::PACKET_STATISTICS, value, &raw mut length)
    })?;
    Ok(statistics.tp_drops)
}
