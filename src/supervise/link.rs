//! Notices when the local interface is removed (rtnetlink(7), `RTM_DELLINK`).
//!
//! The socket is opened in the host's network namespace and stays in it when the supervisor leaves.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket};

/// Multicast group of link messages (`RTMGRP_LINK`, `linux/rtnetlink.h`).
const LINKS: u32 = 1;
/// Type of the message that an interface is gone.
const DELLINK: u16 = 17;
/// Lengths of `struct nlmsghdr` and of `struct ifinfomsg`.
const HEADER: usize = 16;
const IFINFO: usize = 16;

/// Watches one interface.
pub struct LinkWatch {
    socket: OwnedFd,
    index: u32,
}

impl LinkWatch {
    /// Starts to watch the interface of this index.
    pub fn new(index: u32) -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, LINKS))?;
        Ok(Self { socket, index })
    }

    /// Takes the messages that have come and tells whether the interface is gone.
    pub fn gone(&self) -> bool {
        let mut buffer = vec![0; 32 << 10];
        let mut gone = false;
        while let Ok(length) = recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
            gone |= removes(&buffer[..length], self.index);
        }
        gone
    }
}

impl AsFd for LinkWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Whether one of the messages says that the interface of this index is gone. One that leaves a bridge is reported by the
/// same type in another family, which does not count.
fn removes(mut messages: &[u8], index: u32) -> bool {
    while messages.len() >= HEADER + IFINFO {
        let length = u32::from_ne_bytes([messages[0], messages[1], messages[2], messages[3]]) as usize;
        let kind = u16::from_ne_bytes([messages[4], messages[5]]);
        let info = &messages[HEADER..HEADER + IFINFO];
        let of = u32::from_ne_bytes([info[4], info[5], info[6], info[7]]);
        if kind == DELLINK && info[0] == 0 && of == index {
            return true;
        }
        messages = messages.get(length.next_multiple_of(4).max(HEADER)..).unwrap_or_default();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, family: u8, index: u32) -> Vec<u8> {
        let mut message = vec![32, 0, 0, 0];
        message.extend_from_slice(&kind.to_ne_bytes());
        message.resize(HEADER, 0);
        message.extend_from_slice(&[family, 0, 1, 0]);
        message.extend_from_slice(&index.to_ne_bytes());
        message.resize(HEADER + IFINFO, 0);
        message
    }

    #[test]
    fn only_the_removal_of_our_interface_counts() {
        let bridge = 7;
        let others = [message(16, 0, 5), message(DELLINK, 0, 4), message(DELLINK, bridge, 5)].concat();
        assert!(!removes(&others, 5));
        assert!(removes(&[others, message(DELLINK, 0, 5)].concat(), 5));
        assert!(!removes(&[0; 64], 0));
    }
}
