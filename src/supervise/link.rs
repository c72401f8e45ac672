//! Notices when the local interface is removed (rtnetlink(7), `RTM_DELLINK`).
//!
//! The socket is opened in the host's network namespace and stays in it when the supervisor leaves.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket};
use privsep::netlink::{IFINFO, Netlink, attributes, messages};

/// Multicast group of link messages (`RTMGRP_LINK`, `linux/rtnetlink.h`).
const LINKS: u32 = 1;
/// Type of the message that an interface is gone.
const DELLINK: u16 = 17;
/// Attribute of an interface that has gone to another network namespace (`IFLA_NEW_NETNSID`).
const NEW_NETNSID: u16 = 45;

/// Watches one interface.
pub struct LinkWatch {
    socket: OwnedFd,
    /// For questions, when messages were lost.
    query: Netlink,
    index: u32,
    /// It may be moved to another namespace: a TAP works wherever it is.
    movable: bool,
    moved: bool,
}

/// What a message says of our interface.
#[derive(Debug, PartialEq, Eq)]
enum News {
    None,
    Moved,
    Removed,
}

impl LinkWatch {
    /// Starts to watch the interface of this index.
    ///
    /// # Errors
    /// `NotFound` when it has been removed already.
    pub fn new(index: u32, movable: bool) -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, LINKS))?;
        let mut watch = Self { socket, query: Netlink::open()?, index, movable, moved: false };
        if watch.exists()? { Ok(watch) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    /// Takes the messages that have come and tells whether the interface is gone.
    pub fn gone(&mut self) -> bool {
        let mut buffer = vec![0; 32 << 10];
        loop {
            match recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(length) => match news(&buffer[..length], self.index) {
                    News::None => {}
                    News::Moved if self.movable => self.moved = true,
                    News::Moved | News::Removed => return !self.moved,
                },
                // Messages were lost, perhaps the one that counts.
                Err(Errno::ENOBUFS) if !self.moved => return !self.exists().unwrap_or(true),
                Err(Errno::ENOBUFS) => {}
                Err(_) => return false,
            }
        }
    }

    fn exists(&mut self) -> io::Result<bool> {
        match self.query.link_at(self.index) {
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(false),
            result => result.map(|_| true),
        }
    }
}

impl AsFd for LinkWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// What the messages say of the interface of this index. Leaving a bridge is reported by the same type in another family,
/// which does not count.
fn news(bytes: &[u8], index: u32) -> News {
    for (kind, payload) in messages(bytes) {
        let Some((info, all)) = payload.split_at_checked(IFINFO) else { continue };
        let of = u32::from_ne_bytes([info[4], info[5], info[6], info[7]]);
        if kind == DELLINK && info[0] == 0 && of == index {
            let moved = attributes(all).any(|(name, _)| name == NEW_NETNSID);
            return if moved { News::Moved } else { News::Removed };
        }
    }
    News::None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, family: u8, index: u32) -> Vec<u8> {
        let mut message = vec![32, 0, 0, 0];
        message.extend_from_slice(&kind.to_ne_bytes());
        message.resize(16, 0);
        message.extend_from_slice(&[family, 0, 1, 0]);
        message.extend_from_slice(&index.to_ne_bytes());
        message.resize(16 + IFINFO, 0);
        message
    }

    #[test]
    fn only_the_removal_of_our_interface_counts() {
        let bridge = 7;
        let others = [message(16, 0, 5), message(DELLINK, 0, 4), message(DELLINK, bridge, 5)].concat();
        assert_eq!(news(&others, 5), News::None);
        assert_eq!(news(&[others, message(DELLINK, 0, 5)].concat(), 5), News::Removed);
        assert_eq!(news(&[0; 64], 0), News::None);
        let mut moved = message(DELLINK, 0, 5);
        moved[0] = 48;
        moved.extend_from_slice(&[8, 0, 1, 0, 0, 0, 0, 0, 8, 0, 45, 0, 1, 0, 0, 0]);
        assert_eq!(news(&moved, 5), News::Moved);
    }

    #[test]
    fn what_is_not_there_cannot_be_watched() {
        assert!(LinkWatch::new(1, false).is_ok_and(|mut watch| !watch.gone()));
        assert_eq!(LinkWatch::new(u32::MAX >> 1, false).err().unwrap().kind(), io::ErrorKind::NotFound);
    }
}
